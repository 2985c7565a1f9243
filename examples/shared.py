"""What several examples share: words of fairseq's commands, the BPE's files, random decisions of equal cost."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from fairseq_switchdec.errors import UserError

if TYPE_CHECKING:
    from fairseq_switchdec.cost import Geometry, Lengths

FAIRSEQ = [sys.executable, "-m", "fairseq_switchdec"]  # fairseq's commands, with today's Python and torch
PLUGIN = ["--user-dir", "fairseq_switchdec", "--task"]  # and the task
BPE_FILES = ("encoder.json", "vocab.bpe", "dict.txt")  # in GPT-2's format, as fairseq releases them for BART


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


def check_bpe(flag: str, folder: Path) -> None:
    """Refuse a folder that lacks one of `BPE_FILES`.

    Raises:
        UserError: naming the flag and what is missing.
    """
    absent = [name for name in BPE_FILES if not (folder / name).is_file()]
    if absent:
        raise UserError(f"{flag} {folder} lacks {', '.join(absent)}")


def keep_for_cost(geometry: Geometry, lengths: Lengths, cost: float) -> float:
    """The keep probability at which random decisions cost ``cost`` on these inputs; 0, the cheapest of them, where
    learned decisions cost less than any random ones.
    """
    from fairseq_switchdec.cost import keep_probability_for_cost

    try:
        return keep_probability_for_cost(geometry, lengths, cost)
    except ValueError:
        return 0.0
