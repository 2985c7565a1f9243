"""The paper's tables: which systems are their rows, how each system's model is trained, and what runs when it writes.

Tables share systems, and systems share models: one plain fine-tuning a seed serves every table.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fairseq_switchdec.errors import UserError

#: How the layers of a student are chosen (`examples.paper.student`).
STUDENTS = ("even", "influence")

#: The criteria and the task of the competitors.
USER_DIR = str(Path(__file__).resolve().parent / "user_dir")


@dataclass(frozen=True)
class Training:
    """A model.

    Attributes:
        flags: of fairseq-train, beside those that all share; ``BUDGET``, ``FILE`` and ``TEACHER`` are filled in.
        student: which layers it is trained without, one of `STUDENTS`; None: it has all.
        pruned: the student is a smaller model, a step of the way to the budget, and its policy goes the rest.
    """

    flags: tuple[str, ...]
    student: str | None = None
    pruned: bool = False

    @property
    def switches(self) -> bool:
        """Whether its updates also run what a policy tries, which takes longer."""
        return "--policy-decisions" not in self.flags or "random" in self.flags


@dataclass(frozen=True)
class System:
    """A row: a model, and its decisions.

    Attributes:
        training: its name in `TRAININGS`.
        decisions: greedy, keep-all, shuffled; random of the cost of ``like``'s; static: ``like``'s most frequent path
            for all; student: without the layers that it was trained without.
        like: a system.
        precision: of generation on a processor.
        exits: how its decoding steps end early: flags of the task of `USER_DIR`; none: they do not.
        every_seed: others are trained and run with the first seed only.
    """

    training: str
    decisions: str = "greedy"
    like: str = "ours"
    precision: str = "fp32"
    exits: tuple[str, ...] = ()
    every_seed: bool = False


@dataclass(frozen=True)
class Table:
    """One of the paper's.

    Attributes:
        title: what it compares.
        rows: names in `SYSTEMS`, or `FIRST_WORDS`.
        columns: groups of columns, see `examples.paper.report.COLUMNS`.
    """

    title: str
    rows: tuple[str, ...]
    columns: tuple[str, ...] = ("rouge", "cost", "seconds")


BUDGET, FILE, TEACHER = "BUDGET", "FILE", "TEACHER"
WITHIN = ("--policy-rule", "budget", "--policy-flops-budget", BUDGET)
KEEP_ALL, STUDENT = ("--policy-decisions", "keep-all"), ("--policy-decisions", FILE)
EARLY_EXIT = (*KEEP_ALL, "--user-dir", USER_DIR, "--criterion", "early_exit_criterion")
DISTILLED = ("--user-dir", USER_DIR, "--criterion", "distillation_criterion", "--teacher", TEACHER)
CALM_EXITS, FREE_EXIT = "1/6,1/3,1/2,2/3,5/6", "1/3"
TRAININGS = {
    "plain": Training(KEEP_ALL),
    "ours": Training(WITHIN),
    "quality": Training(()),
    "attention": Training(("--switch-candidates", "attention")),
    "feed-forward": Training(("--switch-candidates", "ffn")),
    "tokens": Training(("--switch-candidates", "token")),
    "random": Training(("--policy-decisions", "random")),
    "lambda 0.2": Training(("--policy-rule", "fixed", "--policy-lambda", "0.2")),
    "lambda 1.0": Training(("--policy-rule", "fixed", "--policy-lambda", "1.0")),
    "lambda 1.5": Training(("--policy-rule", "fixed", "--policy-lambda", "1.5")),
    "eq7": Training(("--policy-rule", "eq7")),
    "per-layer": Training((*WITHIN, "--switch-per-layer")),
    **{f"student {kind}": Training(STUDENT, student=kind) for kind in STUDENTS},
    "distilled": Training((*STUDENT, *DISTILLED), student="even"),
    "student ours": Training(WITHIN, student="influence", pruned=True),
    "calm": Training((*EARLY_EXIT, "--exit-after", CALM_EXITS)),
    "free": Training((*EARLY_EXIT, "--exit-after", FREE_EXIT)),
}
SYSTEMS = {
    **{name: System(name) for name in TRAININGS if name not in ("calm", "free")},
    "plain": System("plain", "keep-all", every_seed=True),
    "plain int8": System("plain", "keep-all", precision="int8"),
    "ours": System("ours", every_seed=True),
    "ours int8": System("ours", precision="int8"),
    "random": System("random", "random", every_seed=True),
    "shuffled": System("ours", "shuffled"),
    "static": System("ours", "static"),
    **{f"student {kind}": System(f"student {kind}", "student") for kind in STUDENTS},
    "distilled": System("distilled", "student"),
    "distilled int8": System("distilled", "student", precision="int8"),
    "CALM without exits": System("calm", "keep-all"),
    "CALM state": System("calm", "keep-all", exits=("calm", "state", CALM_EXITS)),
    "CALM softmax": System("calm", "keep-all", exits=("calm", "softmax", CALM_EXITS)),
    "FREE without exits": System("free", "keep-all"),
    "FREE": System("free", "keep-all", exits=("free", "softmax", FREE_EXIT)),
}
EXITING = tuple(name for name, system in SYSTEMS.items() if system.training in ("calm", "free"))
STUDENT_SYSTEMS = tuple(name for name, system in SYSTEMS.items() if system.decisions == "student")
#: The beginning of the source, as long as references are: what the paper's Lead-3 is to news.
FIRST_WORDS = "first words"
TABLES = {
    "2": Table("plain fine-tuning, and switching within a budget (Tables 2 and 16)", ("plain", "ours")),
    "3": Table(
        "other ways to compute less",
        (FIRST_WORDS, "plain", "plain int8", *EXITING, *STUDENT_SYSTEMS, "ours", "ours int8", "student ours"),
    ),
    "7": Table("what may be skipped, by rule quality", ("plain", "attention", "feed-forward", "tokens", "quality")),
    "8": Table(
        "who decides, and how the two goals are weighed",
        ("plain", "random", "lambda 0.2", "lambda 1.0", "lambda 1.5", "eq7", "quality", "ours", "shuffled", "static"),
    ),
    "9": Table("training", ("plain", "ours", "student even", "distilled", "CALM state", "FREE"), ("training",)),
    "10": Table("what is skipped", ("quality", "ours"), ("cost", "shares")),
    "11": Table("all decisions at once, and layer by layer", ("plain", "ours", "per-layer")),
}


def one_stack(system: str) -> bool:
    """Whether it is made for models with one stack of layers only."""
    training = SYSTEMS[system].training
    return training in ("calm", "free") or TRAININGS[training].student is not None


def stage(what: str, name: str, seed: int) -> str:
    """What a stage, or a folder, is called."""
    return "-".join([*([what] if what else []), name.replace(" ", "-"), str(seed)])


def student(training: str) -> str:
    """What the decisions of a student are called."""
    plan = TRAININGS[training]
    return f"{plan.student}{'-half' if plan.pruned else ''}"


def chosen(names: Sequence[str]) -> list[str]:
    """The tables that words ask for.

    Raises:
        UserError: one of them is none.
    """
    unknown = [name for name in names if name not in (*TABLES, "all")]
    if unknown or not names:
        found = f"table {unknown[0]!r} is none of these" if unknown else "no table is named"
        raise UserError(f"{found}: {', '.join(TABLES)}, all (--list says what they are)")
    return [name for name in TABLES if name in names or "all" in names]


def systems_of(tables: Iterable[str]) -> list[str]:
    """The systems of some tables, each after the one that it is like."""
    rows = [row for name in tables for row in TABLES[name].rows if row != FIRST_WORDS]
    needed = {"plain"}  # whose difference to it every table shows
    for row in rows:
        needed.add(row)
        if SYSTEMS[row].decisions in ("random", "static"):
            needed.add(SYSTEMS[row].like)
    return sorted(needed, key=lambda name: (SYSTEMS[name].decisions in ("random", "static"), list(SYSTEMS).index(name)))


def runs(tables: Iterable[str], seeds: int) -> list[tuple[str, int]]:
    """Systems of some tables with their seeds, from 1, in an order in which each finds what it needs."""
    return [
        (name, seed)
        for seed in range(1, seeds + 1)
        for name in systems_of(tables)
        if seed == 1 or SYSTEMS[name].every_seed
    ]
