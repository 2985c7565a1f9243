"""Gives a small BART the starting weights its width needs.

    python -m examples.common.scale_weights fresh.pt start.pt --gain 5

BART draws every matrix with BERT's standard deviation, 0.02, which suits about a thousand channels. With 64 channels
each matrix then shrinks its input to a sixth, little of the source reaches the output through eight layers, and the
loss stays where it was for thousands of updates. Five times as much is what 64 channels need. Embeddings stay: a layer
norm follows them.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from fairseq import checkpoint_utils
from torch import Tensor

from .command_line import command_line

UNSCALED = ("embed_tokens", "embed_positions", "output_projection")  # the last is the token embedding again


def scale(weights: dict[str, Tensor], gain: float) -> dict[str, Tensor]:
    """``weights`` with every matrix that is not an embedding multiplied by ``gain``."""
    return {
        name: weight * gain if weight.dim() == 2 and not any(part in name for part in UNSCALED) else weight
        for name, weight in weights.items()
    }


def main() -> None:
    """Reads a checkpoint, writes the scaled one."""
    parser = command_line(__doc__, __spec__.name)
    parser.add_argument("fresh", type=Path, help="checkpoint of an untrained BART")
    parser.add_argument("start", type=Path, help="checkpoint to write")
    parser.add_argument("--gain", type=float, default=5.0, help="factor (default: %(default)s)")
    options = parser.parse_args()
    checkpoint: dict[str, Any] = checkpoint_utils.load_checkpoint_to_cpu(str(options.fresh))
    checkpoint["model"] = scale(checkpoint["model"], options.gain)
    temporary = options.start.with_name(options.start.name + ".partial")
    torch.save(checkpoint, temporary)
    os.replace(temporary, options.start)


if __name__ == "__main__":
    main()
