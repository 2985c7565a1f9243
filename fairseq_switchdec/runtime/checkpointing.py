"""``--checkpoint-activations``: recompute a layer in the backward pass instead of keeping its activations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.utils.checkpoint import checkpoint


def run_layer(layer: Callable[..., Any], recompute: bool, *inputs: Any) -> Any:
    """``layer(*inputs)``, its activations kept or recomputed."""
    if recompute:
        return checkpoint(layer, *inputs, use_reentrant=False)
    return layer(*inputs)
