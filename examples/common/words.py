"""Words of fairseq's commands that examples share."""

from __future__ import annotations

import sys
from pathlib import Path

FAIRSEQ = [sys.executable, "-m", "fairseq_switchdec"]  # fairseq's commands, with today's Python and torch
PLUGIN = ["--user-dir", "fairseq_switchdec", "--task"]  # and the task
LANGUAGES = ["--source-lang", "source", "--target-lang", "target"]


def sizes(layers: int, dim: int, ffn_dim: int, heads: int) -> list[str]:
    """A BART of any size, encoder and decoder alike."""
    words: list[str] = []
    for side in ("encoder", "decoder"):
        words += [f"--{side}-layers", str(layers), f"--{side}-embed-dim", str(dim)]
        words += [f"--{side}-ffn-embed-dim", str(ffn_dim), f"--{side}-attention-heads", str(heads)]
    return words


def schedule(lr: float, warmup: int, updates: int) -> list[str]:
    """A linear rise of the learning rate and a linear fall."""
    words = ["--lr", str(lr), "--lr-scheduler", "polynomial_decay", "--warmup-updates", str(warmup)]
    return [*words, "--total-num-update", str(updates), "--max-update", str(updates)]


def restore(checkpoint: Path) -> list[str]:
    """Begin a new training with a checkpoint's weights."""
    reset = ["--reset-optimizer", "--reset-lr-scheduler", "--reset-dataloader", "--reset-meters"]
    return ["--restore-file", str(checkpoint), *reset]
