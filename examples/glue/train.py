"""Fine-tunes BART-large on a GLUE task, with the paper's settings (Table 15) where it has them, else fairseq's.

    python examples/glue/train.py RTE RTE-bin --bart bart.large/model.pt --save-dir checkpoints/RTE [fairseq options]

``--plain`` is fairseq's own recipe, for comparison. Options at the end go to fairseq-train and have the last word.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from fairseq_switchdec.glue.tasks import GLUE, glue_task


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
    words: list[object] = [args.data]
    if args.plain:
        words += ["--task", "sentence_prediction", "--add-prev-output-tokens"]
        words += ["--arch", "bart_large", "--criterion", "sentence_prediction"]
    else:
        words += ["--user-dir", "fairseq_switchdec", "--task", "switchable_sentence_prediction"]
        words += ["--arch", "switchable_bart", "--criterion", "lexico_policy_criterion"]
    words += [
        "--finetune-from-model", args.bart, "--save-dir", args.save_dir, "--num-classes", max(1, len(task.labels)),
        "--init-token", 0, "--separator-token", 2, "--max-positions", 512, "--shorten-method", "truncate",
        "--batch-size", args.batch_size, "--update-freq", max(1, setting.batch // (args.batch_size * args.gpus)),
        "--max-tokens", 4400, "--required-batch-size-multiple", 1, "--layernorm-embedding", "--share-all-embeddings",
        "--share-decoder-input-output-embed", "--dropout", 0.1, "--attention-dropout", 0.1, "--weight-decay", 0.01,
        "--optimizer", "adam", "--adam-betas", "(0.9, 0.98)", "--adam-eps", 1e-8, "--clip-norm", 0.0,
        "--lr-scheduler", "polynomial_decay", "--lr", setting.lr, "--total-num-update", setting.updates,
        "--warmup-updates", setting.warmup, "--max-update", setting.updates, "--no-epoch-checkpoints",
        "--find-unused-parameters",
    ]  # fmt: skip
    if task.labels:
        words += ["--best-checkpoint-metric", "accuracy", "--maximize-best-checkpoint-metric"]
    else:
        words += ["--regression-target", "--best-checkpoint-metric", "loss"]
    return [str(word) for word in words] + extra


def parse_args(argv: list[str] | None = None) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", help=f"one of {', '.join(GLUE)}")
    parser.add_argument("data", type=Path, help="folder that prepare.py made")
    parser.add_argument("--bart", type=Path, required=True, help="model.pt of bart.large")
    parser.add_argument("--save-dir", type=Path, required=True)
    parser.add_argument("--plain", action="store_true", help="without switching: the baseline")
    parser.add_argument("--batch-size", type=int, default=16, help="inputs at once on a GPU (%(default)s)")
    parser.add_argument("--gpus", type=int, default=1, help="processes; updates are accumulated to the paper's batch")
    args, extra = parser.parse_known_args(argv)
    glue_task("TASK", args.task)
    return args, extra


def main() -> None:
    args, extra = parse_args()
    words = [sys.executable, "-m", "fairseq_switchdec", "train", *command(args, extra)]
    print("$", shlex.join(words), flush=True)
    os.execv(sys.executable, words)


if __name__ == "__main__":
    main()
