"""Does a policy learn to read its input? Typed copy (`make_data`) through fairseq's own commands.

    typed copy -> fairseq-preprocess -> a small BART -+-> fine-tuned plainly -----> loss: plain
                                                      +-> fine-tuned switchable --> loss and cost under greedy,
                                                                                    shuffled and random decisions

Every command is printed before it runs; a finished stage is not repeated. At the end: report.json and report.md in the
output folder, and exit status 1 if the default rule missed a target.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..common.command_line import command_line
from ..common.files import count_lines
from ..common.random_decisions import keep_for_cost
from ..common.repository import ROOT, example, source
from ..common.stages import Stages, records
from . import commands, report

HERE = Path(__file__).resolve().parent
PACKAGE = ROOT / "fairseq_switchdec"
FULL_SEEDS = (1, 2, 3)
SIDES = ("source", "target")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The options; ``runs`` is the list of (rule, seed) they ask for."""
    parser = command_line(__doc__, __spec__.name)
    parser.add_argument(
        "--rule",
        choices=list(commands.RULES),
        help=f"weight rule, or dial: one policy for any budget (default: {report.DEFAULT_RULE})",
    )
    parser.add_argument("--seed", type=int, help="seed of both fine-tunings (default: 1)")
    parser.add_argument("--full", action="store_true", help="all rules and a dial, three seeds")
    parser.add_argument("--out", type=Path, default=HERE / "output", help="output folder")
    args = parser.parse_args(argv)
    if args.full and (args.rule is not None or args.seed is not None):
        parser.error("--full runs every rule and three seeds: leave out --rule and --seed")
    args.out = args.out.resolve()
    one = [(args.rule or report.DEFAULT_RULE, 1 if args.seed is None else args.seed)]
    args.runs = [(rule, seed) for seed in FULL_SEEDS for rule in commands.RULES] if args.full else one
    return args


class LearningCheck:
    """The stages in order; each method returns what the next ones read."""

    def __init__(self, out: Path, runs: list[tuple[str, int]]):
        self.out, self.runs = out, runs
        self.text, self.binary, self.short = out / "text", out / "bin", out / "bin-short"
        seeds = len({seed for _, seed in runs})
        asked = len(commands.BUDGETS) * sum(rule == "dial" for rule, _ in runs)
        self.stages = Stages(out, total=7 + 2 * seeds + 5 * len(runs) + asked)

    def run(self) -> bool:
        """Runs what is missing and writes the report; whether the default rule reached its targets."""
        start = self.pretrain()
        plain: dict[int, float] = {}
        results = []
        for rule, seed in self.runs:
            if seed not in plain:
                plain[seed] = self.plain(start, seed)
            results.append(self.switchable(start, rule, seed, plain[seed]))
        return report.write(self.out, results, self.stages)

    def pretrain(self) -> Path:
        """Text, binarized data, and a small stock BART that knows the task."""
        pairs = [self.text / f"{split}.{side}" for split in ("short", "train", "valid") for side in SIDES]
        command = [*example("learning_check.make_data"), self.text]
        self.stages.run("text", command, makes=pairs, sources=[source("learning_check.make_data")])
        self.preprocess("preprocess", "train", self.binary, None, after=["text"])
        dictionary = self.binary / "dict.source.txt"
        self.preprocess("preprocess-short", "short", self.short, dictionary, after=["preprocess"])
        fresh, start = self.checkpoint("fresh"), self.out / "models" / "start.pt"
        self.train("fresh", commands.fresh(self.binary, fresh.parent), after=["preprocess"])
        command = [*example("common.scale_weights"), fresh, start]
        self.stages.run("scale", command, makes=[start], after=["fresh"], sources=[source("common.scale_weights")])
        short, pretrained = self.checkpoint("pretrain-short"), self.checkpoint("pretrain")
        command = commands.pretrain(self.short, start, short.parent, commands.SHORT_UPDATES)
        self.train("pretrain-short", command, after=["preprocess-short", "scale"])
        command = commands.pretrain(self.binary, short, pretrained.parent, commands.PRETRAIN_UPDATES)
        self.train("pretrain", command, after=["pretrain-short"])
        return pretrained

    def plain(self, start: Path, seed: int) -> float:
        """Fine-tunes without switching; the validation loss in nats a token."""
        name, made = f"plain-{seed}", self.checkpoint(f"plain-{seed}")
        self.train(name, commands.finetune_plain(self.binary, start, made.parent, seed), after=["pretrain"])
        return self.validate(name, commands.validate(self.binary, made, seed))["nll"]

    def switchable(self, start: Path, rule: str, seed: int, plain_nll: float) -> report.Result:
        """Fine-tunes with a policy, and measures its decisions against others."""
        name = f"{rule}-{seed}"
        made = self.checkpoint(name)
        command = commands.finetune_switchable(self.binary, start, made.parent, seed, rule)
        self.train(name, command, after=["pretrain"], sources=[PACKAGE])

        def measure(decisions: str, *flags: str, stage: str = "") -> dict[str, float]:
            flags = ("--switch-decisions", decisions, *flags)
            command = commands.validate(self.binary, made, seed, *flags)
            return self.validate(name, command, stage or decisions)

        auto = ["--switch-budget", "auto"] if rule == "dial" else []
        greedy = measure("greedy", *auto)
        shuffled = measure("shuffled", *auto)
        keep = self.random_keep(greedy["cost"])
        random = measure("random", "--switch-random-keep", f"{keep:.4f}")
        switches = self.out / "switches" / f"{name}.json"
        switches.parent.mkdir(exist_ok=True)
        command = commands.generate(self.binary, made, seed, switches)
        self.stages.run(f"{name}-generate", command, makes=[switches], after=[name], sources=[PACKAGE])
        budgets = {
            budget: measure("greedy", "--switch-budget", budget, stage=f"budget-{budget}")
            for budget in (commands.BUDGETS if rule == "dial" else ())
        }
        types = report.by_type(switches, self.text)
        return report.Result(rule, seed, plain_nll, greedy, shuffled, random, types, budgets)

    def preprocess(self, name: str, train: str, binary: Path, dictionary: Path | None, after: list[str]) -> None:
        """A stage that binarizes a training split and the validation split into ``binary``."""
        makes = [binary / f"{split}.source-target.target.idx" for split in ("train", "valid")]
        command = commands.preprocess(self.text, train, binary, dictionary)
        self.stages.run(name, command, makes=makes, after=after, wipe=[binary])

    def train(self, name: str, command: list[str], after: list[str], sources: list[Path] | None = None) -> None:
        """A stage that makes ``checkpoint(name)``."""
        made = self.checkpoint(name)
        self.stages.run(name, command, makes=[made], after=after, sources=sources or [], wipe=[made.parent])

    def validate(self, model: str, command: list[str], decisions: str = "plain") -> dict[str, float]:
        """A stage that measures a model; its figures, losses in nats."""
        name = f"{model}-{decisions}"
        sources = [] if decisions == "plain" else [PACKAGE]
        self.stages.run(name, command, makes=[self.stages.log(name)], after=[model], sources=sources)
        return report.measured(records(self.stages.log(name), "valid")[-1])

    def random_keep(self, cost: float) -> float:
        """The keep probability at which random decisions cost as much as the greedy ones on the validation split."""
        import torch

        from fairseq_switchdec.cost import Geometry, Lengths

        layers, dim, ffn_dim = commands.LAYERS, commands.DIM, commands.FFN_DIM
        vocabulary = count_lines(self.binary / "dict.source.txt") + 4  # <s> <pad> </s> <unk>
        geometry = Geometry(layers, layers, dim, dim, ffn_dim, ffn_dim, vocabulary)
        sides = [(self.text / f"valid.{side}").read_text(encoding="utf-8") for side in SIDES]
        content, target = (torch.tensor([len(line.split()) for line in side.splitlines()]) for side in sides)
        lengths = Lengths(content + 1, content, target + 1, beam=commands.BEAM)  # </s> counts, but always stays
        return keep_for_cost(geometry, lengths, cost)

    def checkpoint(self, model: str) -> Path:
        """Where a model's last checkpoint is."""
        return self.out / "models" / model / "checkpoint_last.pt"


def main() -> None:
    """Runs the check."""
    args = parse_args()
    if not LearningCheck(args.out, args.runs).run():
        sys.exit("learning_check: the default rule missed a target, see the table")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\nlearning_check: interrupted; the same command goes on from the last finished stage")
