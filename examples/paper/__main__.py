"""The paper's tables on a pretrained model that any machine can have, with competitors beside it.

    python -m examples.paper 2 8          # some tables
    python -m examples.paper all --seeds 3
    python -m examples.paper --list       # what each compares, and how long it takes

The model and the pairs are those of `examples.pretrained`. A finished stage is not repeated: killed, the same command
goes on with the next one, and another table takes over what the ones before it made. At the end: results.md,
results.json and, with matplotlib, quality against cost and against seconds.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from fairseq_switchdec.errors import UserError
from fairseq_switchdec.files import write_text
from fairseq_switchdec.generation.reading import PATH, path_key

from ..common import comparison
from ..common.command_line import add_settings, check_args, command_line, read_settings, run_stages
from ..common.random_decisions import keep_for_report
from ..common.repository import commit, example, source
from ..pretrained import __main__ as pretrained
from ..pretrained import commands
from . import report
from .plan import BUDGET, FILE, SYSTEMS, TABLES, TRAININGS, chosen, runs

HERE = Path(__file__).resolve().parent
MADE = (*pretrained.MADE, "students", "paths")
HELP = {
    **pretrained.HELP,
    "flops_budget": "share of the FLOPs that ours and the students keep within",
    "seed": "the first of --seeds",
    "seeds": "runs of the systems that decide: plain, ours, random; the others run once",
}
#: Seconds on two cores without AVX-512: an update of 8 pairs of the default lengths, and generating for an input.
PLAIN, SWITCHABLE, GENERATED = 13.0, 16.0, 0.75


@dataclass(frozen=True)
class Settings(commands.Settings):
    """Those of `examples.pretrained`, but for the budget; and how often."""

    flops_budget: float = 0.75
    seeds: int = 3


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = command_line(__doc__, __spec__.name)
    parser.add_argument("tables", nargs="*", metavar="TABLE", help=f"{', '.join(TABLES)}, or all")
    parser.add_argument("--list", action="store_true", help="say what each table compares, and how long it takes")
    parser.add_argument("--data", type=Path, help="folder of {train,valid,test}.{source,target} to use instead")
    parser.add_argument(
        "--escape", action="store_true", help=r"in a line of --data \n stands for a newline, \\ for a backslash"
    )
    parser.add_argument("--gguf", type=Path, help="the model's file, which is downloaded otherwise")
    parser.add_argument("--mix", action="store_true", help="go on with what another commit has made")
    add_settings(parser, Settings, HELP, HERE / "output")
    args = parser.parse_args(argv)
    if args.list:
        return args
    args.tables = chosen(args.tables)
    check_args(args, ("data", "gguf", "out"), ("updates", "batch_size", "valid_pairs", "test_pairs", "beam", "seeds"))
    if not 0 < args.flops_budget <= 1:
        raise UserError(f"--flops-budget {args.flops_budget} must be in (0, 1]")
    pretrained.check_sources(args)
    return args


def listing(settings: Settings) -> str:
    """Every table with what it compares and about how long it takes alone."""
    lines = []
    for name, table in TABLES.items():
        minutes = len(runs([name], settings.seeds)) * GENERATED * settings.test_pairs / 60
        trained = {(SYSTEMS[system].training, seed) for system, seed in runs([name], settings.seeds)}
        minutes += sum(training_minutes(training, settings) for training, _ in trained)
        lines.append(f"{name:>4}  {table.title}\n      {', '.join(table.rows)}")
        lines.append(f"      {len(trained)} fine-tunings, about {minutes / 60:.1f} hours on two cores")
    return "\n".join(lines)


def training_minutes(training: str, settings: Settings) -> float:
    """Of a fine-tuning."""
    seconds = SWITCHABLE if TRAININGS[training].switches else PLAIN
    return seconds * settings.updates * settings.batch_size / 8 / 60


class Paper:
    """The stages in order."""

    def __init__(self, args: argparse.Namespace):
        self.settings: Settings = read_settings(args, Settings)
        shared = {item.name: getattr(self.settings, item.name) for item in fields(commands.Settings)}
        self.args = args
        self.base = pretrained.Pretrained(argparse.Namespace(**{**vars(args), **shared}))
        self.stages, self.out = self.base.stages, args.out
        self.commits: list[str] = []
        self.runs = runs(args.tables, self.settings.seeds)
        self.trainings = list(dict.fromkeys((SYSTEMS[system].training, seed) for system, seed in self.runs))
        self.students = sorted({str(TRAININGS[name].student) for name, _ in self.trainings if TRAININGS[name].student})
        prepared = 11 - (args.data is not None) - (args.gguf is not None)
        self.stages.total = prepared + len(self.students) + len(self.trainings) + len(self.runs)

    def run(self) -> None:
        self.check_commit()
        model = self.base.model()
        pairs = self.base.pairs()
        binary = self.base.binarize(model, pairs)
        for kind in self.students:
            self.choose(kind, model, binary)
        for system, seed in self.runs:
            training = SYSTEMS[system].training
            if stage("train", training, seed) not in self.stages.fingerprints:
                self.train(training, seed, model, binary)
            self.generate(system, seed, model, binary)
        report.write(self.args.tables, self.settings, self.runs, self.stages, pairs, self.commits)

    def check_commit(self) -> None:
        """Results of two commits are not mixed unless so wished.

        Raises:
            UserError: the folder holds another one's.
        """
        path, now = self.out / "stages" / "commits", commit()
        before = path.read_text(encoding="utf-8").split("\n") if path.exists() else [now]
        if before != [now] and not self.args.mix:
            others = ", ".join(each for each in before if each != now)
            raise UserError(
                f"--out {self.out} holds results of commit {others}, this is {now}: --fresh starts over, --mix goes on"
            )
        self.commits = [*before, *([now] if now not in before else [])]
        write_text(path, "\n".join(self.commits))

    def seeded(self, seed: int) -> commands.Settings:
        """The settings of one of the runs, from 1."""
        shared = {item.name: getattr(self.settings, item.name) for item in fields(commands.Settings)}
        return replace(commands.Settings(**shared), seed=self.settings.seed + seed - 1)

    def choose(self, kind: str, model: Path, binary: Path) -> None:
        made, module = self.student(kind), "paper.student"
        command = [*example(module), kind, str(model), str(binary), str(made)]
        command += ["--cost", str(self.settings.flops_budget), "--beam", str(self.settings.beam)]
        after, threads = ["import", "preprocess"], pretrained.THREADS
        self.stages.run(f"student-{kind}", command, makes=[made], after=after, sources=[source(module)], env=threads)

    def student(self, kind: str) -> Path:
        """The file of a student's decisions."""
        return self.out / "students" / f"{kind}.json"

    def checkpoint(self, training: str, seed: int) -> Path:
        return self.out / "models" / stage("", training, seed) / "checkpoint_last.pt"

    def train(self, training: str, seed: int, model: Path, binary: Path) -> None:
        kind, made = TRAININGS[training].student, self.checkpoint(training, seed)
        settings = self.seeded(seed)
        filled = {BUDGET: str(settings.flops_budget), FILE: str(self.student(str(kind)))}
        command = commands.finetune(settings, model, binary, made.parent)
        command += [filled.get(flag, flag) for flag in TRAININGS[training].flags]
        command += commands.learning(settings) if TRAININGS[training].switches else []
        after = ["preprocess", *([f"student-{kind}"] if kind else [])]
        name = stage("train", training, seed)
        self.stages.run(name, command, makes=[made], after=after, wipe=[made.parent], env=pretrained.THREADS)

    def generate(self, system: str, seed: int, model: Path, binary: Path) -> None:
        """Beam search on the test set."""
        row, name = SYSTEMS[system], stage("", system, seed)
        results = comparison.folder(self.out, name)
        makes = [results / comparison.HYPOTHESES, results / comparison.SWITCHES]
        checkpoint = self.checkpoint(row.training, seed)
        command = commands.generate(self.seeded(seed), model, binary, checkpoint, results, self.args.escape)
        decisions, after = self.decisions(system, seed)
        command += ["--switch-decisions", *decisions, "--switch-precision", row.precision]
        command += ["--switch-report", str(makes[-1])]
        results.mkdir(parents=True, exist_ok=True)
        after = [stage("train", row.training, seed), *after]
        self.stages.run(f"generate-{name}", command, makes=makes, after=after, wipe=makes, env=pretrained.THREADS)

    def decisions(self, system: str, seed: int) -> tuple[list[str], list[str]]:
        """What ``--switch-decisions`` is given, and the stages that this comes from."""
        row = SYSTEMS[system]
        if row.decisions == "student":
            kind = str(TRAININGS[row.training].student)
            return [str(self.student(kind))], [f"student-{kind}"]
        if row.decisions not in ("random", "static"):
            return [row.decisions], []
        like = stage("", row.like, seed)
        found = json.loads((comparison.folder(self.out, like) / comparison.SWITCHES).read_text(encoding="utf-8"))
        if row.decisions == "random":
            keep = keep_for_report(self.checkpoint(row.training, seed), found, self.settings.beam)
            return ["random", "--switch-random-keep", f"{keep:.3f}"], [f"generate-{like}"]
        path = self.out / "paths" / f"{like}.json"
        path.parent.mkdir(exist_ok=True)
        write_text(path, json.dumps(most_frequent(found["per_input"]), indent=1) + "\n")
        return [str(path)], [f"generate-{like}"]


def stage(what: str, name: str, seed: int) -> str:
    """What a stage, or a folder, is called."""
    return "-".join([*([what] if what else []), name.replace(" ", "-"), str(seed)])


def most_frequent(entries: list[dict[str, Any]]) -> dict[str, Any]:
    """The path that most inputs of a report ran; of several as frequent, the first one's."""
    keys = [path_key(entry) for entry in entries]
    entry = entries[keys.index(max(keys, key=keys.count))]
    return {name: entry[name] for name in PATH}


def main() -> None:
    args = parse_args()
    if args.list:
        print(listing(read_settings(args, Settings)))
        return
    run_stages("paper", args, lambda: Paper(args).run(), MADE)


if __name__ == "__main__":
    main()
