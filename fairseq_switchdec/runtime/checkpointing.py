"""``--checkpoint-activations``: recompute a layer in the backward pass instead of keeping its activations."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def run_layer(layer: nn.Module, recompute: bool, *inputs: Any) -> Tensor:
    """``layer(*inputs)``, its activations kept or recomputed."""
    if recompute:
        return checkpoint(layer, *inputs, use_reentrant=False)
    return layer(*inputs)
