"""Fine-tunes BART-large on a GLUE task, with the paper's settings (Table 15) where it has them, else fairseq's.

    python -m examples.glue.train RTE RTE-bin --bart bart.large/model.pt --save-dir checkpoints/RTE [fairseq options]

``--plain`` is fairseq's own recipe, for comparison. Options at the end go to fairseq-train and have the last word.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from fairseq_switchdec.glue.tasks import GLUE, glue_task

from ..common.command_line import command_line
from ..common.finetune import add_arguments, start, training
from ..common.words import PLUGIN


@dataclass(frozen=True)
class Setting:
    """What fairseq's BART recipe gives for a task; MNLI, RTE and SST-2 are also the paper's Table 15."""

    lr: float
    batch: int
    updates: int
    warmup: int


SETTINGS = {
    "MNLI": Setting(5e-6, 128, 30968, 1858),
    "QNLI": Setting(1e-5, 32, 33112, 1986),
    "QQP": Setting(1e-5, 32, 113272, 6796),
    "RTE": Setting(1e-5, 32, 1018, 61),
    "SST-2": Setting(5e-6, 128, 5233, 314),
    "MRPC": Setting(2e-5, 64, 1148, 68),
    "CoLA": Setting(2e-5, 64, 1334, 80),
    "STS-B": Setting(2e-5, 32, 1799, 107),
}


def command(args: argparse.Namespace, extra: list[str]) -> list[str]:
    """The words of fairseq-train."""
    setting, task = SETTINGS[args.task], GLUE[args.task]
    words = training(args, setting.batch, setting.lr, setting.updates, setting.warmup)
    if args.plain:
        words += ["--task", "sentence_prediction", "--add-prev-output-tokens"]
        words += ["--arch", "bart_large", "--criterion", "sentence_prediction"]
    else:
        words += [*PLUGIN, "switchable_sentence_prediction"]
        words += ["--arch", "switchable_bart", "--criterion", "lexico_policy_criterion"]
    words += [
        "--num-classes", max(1, len(task.labels)), "--init-token", 0, "--separator-token", 2,
        "--max-positions", 512, "--shorten-method", "truncate", "--max-tokens", 4400, "--clip-norm", 0.0,
    ]  # fmt: skip
    if task.labels:
        words += ["--best-checkpoint-metric", "accuracy", "--maximize-best-checkpoint-metric"]
    else:
        words += ["--regression-target", "--best-checkpoint-metric", "loss"]
    return [str(word) for word in words] + extra


def parse_args(argv: list[str] | None = None) -> tuple[argparse.Namespace, list[str]]:
    """The script's options, and those for fairseq-train."""
    parser = command_line(__doc__, __spec__.name)
    parser.add_argument("task", help=f"one of {', '.join(GLUE)}")
    add_arguments(parser, batch_size=16)
    args, extra = parser.parse_known_args(argv)
    glue_task("TASK", args.task)
    return args, extra


if __name__ == "__main__":
    start(command(*parse_args()))
