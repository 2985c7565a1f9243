"""What fine-tuning BART-large takes for classification and for question answering alike: options, flags, the start."""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from fairseq_switchdec.errors import UserError

from .words import FAIRSEQ


def add_arguments(parser: argparse.ArgumentParser, batch_size: int) -> None:
    """What both take; ``batch_size`` is the default of what a GPU has memory for."""
    parser.add_argument("data", type=Path, help="folder that prepare made")
    parser.add_argument("--bart", type=Path, required=True, help="model.pt of bart.large")
    parser.add_argument("--save-dir", type=Path, required=True)
    parser.add_argument("--plain", action="store_true", help="without switching: the baseline")
    parser.add_argument("--batch-size", type=int, default=batch_size, help="inputs at once on a GPU (%(default)s)")
    parser.add_argument("--gpus", type=int, default=1, help="processes; updates are accumulated to the paper's batch")


def training(args: argparse.Namespace, batch: int, lr: float, updates: int, warmup: int) -> list[object]:
    """The words of fairseq-train that do not depend on the task.

    Args:
        args: of `add_arguments`.
        batch: inputs of an update.

    Raises:
        UserError: the GPUs cannot share an update's inputs evenly.
    """
    at_once = args.batch_size * args.gpus
    if at_once < 1 or batch % at_once:
        raise UserError(
            f"--batch-size {args.batch_size} on --gpus {args.gpus} cannot make updates of {batch} inputs: "
            f"let their product divide {batch}"
        )
    return [
        args.data, "--finetune-from-model", args.bart, "--save-dir", args.save_dir, "--share-all-embeddings",
        "--layernorm-embedding", "--share-decoder-input-output-embed",
        "--distributed-world-size", args.gpus,  # of more GPUs in the machine, so many are used
        "--batch-size", args.batch_size, "--update-freq", batch // at_once, "--required-batch-size-multiple", 1,
        "--dropout", 0.1, "--attention-dropout", 0.1, "--weight-decay", 0.01, "--optimizer", "adam",
        "--adam-betas", "(0.9, 0.98)", "--adam-eps", 1e-8, "--lr-scheduler", "polynomial_decay", "--lr", lr,
        "--warmup-updates", warmup, "--total-num-update", updates, "--max-update", updates, "--no-epoch-checkpoints",
        "--find-unused-parameters",
    ]  # fmt: skip


def start(words: Sequence[object]) -> None:
    """Show ``fairseq-train words...`` and become it."""
    command = [*FAIRSEQ, "train", *map(str, words)]
    print("$", shlex.join(command), flush=True)
    os.execv(command[0], command)
