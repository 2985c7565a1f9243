"""Fine-tunes BART-large on SQuAD with the paper's settings, switchable or plain.

    python -m examples.squad.train 1.1 squad-data --bart bart.large/model.pt --save-dir checkpoints/squad [options]

The folder is made by examples.squad.prepare. ``--plain`` trains the whole model as ever, for comparison. Options at the
end go to fairseq-train and have the last word.
"""

from __future__ import annotations

import argparse

from ..common.command_line import command_line
from ..common.finetune import add_arguments, start, training
from ..common.words import PLUGIN

#: Inputs of an update in the paper: 3 on each of 8 devices, accumulated twice.
BATCH = 3 * 8 * 2


def command(args: argparse.Namespace, extra: list[str]) -> list[str]:
    """The words of fairseq-train."""
    words = training(args, BATCH, lr=1.5e-5, updates=5430, warmup=326)
    words += [
        *PLUGIN, "switchable_squad", "--squad-version", args.version, "--arch", "switchable_bart",
        "--criterion", "lexico_policy_criterion", "--clip-norm", 0.1, "--validate-interval-updates", 1000,
        "--best-checkpoint-metric", "f1", "--maximize-best-checkpoint-metric",
    ]  # fmt: skip
    words += ["--policy-decisions", "keep-all"] if args.plain else ["--policy-lr", 2e-4]
    return [str(word) for word in words] + extra


def parse_args(argv: list[str] | None = None) -> tuple[argparse.Namespace, list[str]]:
    """The script's options, and those for fairseq-train."""
    parser = command_line(__doc__, __spec__.name)
    parser.add_argument("version", choices=("1.1", "2.0"))
    add_arguments(parser, batch_size=3)
    return parser.parse_known_args(argv)


if __name__ == "__main__":
    start(command(*parse_args()))
