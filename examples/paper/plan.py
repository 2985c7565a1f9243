"""The paper's tables: which systems are their rows, how each system's model is trained, and what runs when it writes.

Tables share systems, and systems share models: one plain fine-tuning a seed serves every table.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fairseq_switchdec.errors import UserError

#: How the layers of a student are chosen (`examples.paper.student`).
STUDENTS = ("even", "influence")


@dataclass(frozen=True)
class Training:
    """A model.

    Attributes:
        flags: of fairseq-train, beside those that all share; ``BUDGET`` and ``FILE`` are filled in.
        student: which layers it is trained without, one of `STUDENTS`; None: it has all.
    """

    flags: tuple[str, ...]
    student: str | None = None

    @property
    def switches(self) -> bool:
        """Whether its updates also run what a policy tries, which takes longer."""
        return "keep-all" not in self.flags and self.student is None


@dataclass(frozen=True)
class System:
    """A row: a model, and its decisions.

    Attributes:
        training: its name in `TRAININGS`.
        decisions: greedy, keep-all, shuffled; random of the cost of ``like``'s; static: ``like``'s most frequent path
            for all; student: without the layers that it was trained without.
        like: a system.
        precision: of generation on a processor.
        every_seed: others are trained and run with the first seed only.
    """

    training: str
    decisions: str = "greedy"
    like: str = "ours"
    precision: str = "fp32"
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


BUDGET, FILE = "BUDGET", "FILE"
WITHIN = ("--policy-rule", "budget", "--policy-flops-budget", BUDGET)
TRAININGS = {
    "plain": Training(("--policy-decisions", "keep-all")),
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
    **{f"student {kind}": Training(("--policy-decisions", FILE), student=kind) for kind in STUDENTS},
}
SYSTEMS = {
    **{name: System(name) for name in TRAININGS},
    "plain": System("plain", "keep-all", every_seed=True),
    "plain int8": System("plain", "keep-all", precision="int8"),
    "ours": System("ours", every_seed=True),
    "ours int8": System("ours", precision="int8"),
    "random": System("random", "random", every_seed=True),
    "shuffled": System("ours", "shuffled"),
    "static": System("ours", "static"),
    **{f"student {kind}": System(f"student {kind}", "student") for kind in STUDENTS},
}
#: The beginning of the source, as long as references are: what the paper's Lead-3 is to news.
FIRST_WORDS = "first words"
TABLES = {
    "2": Table("plain fine-tuning, and switching within a budget (Tables 2 and 16)", ("plain", "ours")),
    "3": Table(
        "other ways to compute less",
        (FIRST_WORDS, "plain", "plain int8", "student even", "student influence", "ours", "ours int8"),
    ),
    "7": Table("what may be skipped, by rule quality", ("plain", "attention", "feed-forward", "tokens", "quality")),
    "8": Table(
        "who decides, and how the two goals are weighed",
        ("plain", "random", "lambda 0.2", "lambda 1.0", "lambda 1.5", "eq7", "quality", "ours", "shuffled", "static"),
    ),
    "9": Table("training", ("plain", "ours"), ("training",)),
    "10": Table("what is skipped", ("quality", "ours"), ("cost", "shares")),
    "11": Table("all decisions at once, and layer by layer", ("plain", "ours", "per-layer")),
}


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
