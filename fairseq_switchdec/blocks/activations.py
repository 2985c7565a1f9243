"""What a feed-forward sublayer does between its two products."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch.nn.functional as F
from torch import Tensor

from ..errors import UserError

Activation = Callable[[Tensor], Tensor]

#: By the names that ``--activation-fn`` takes for GPT-2, LLaMA and T5.
ACTIVATIONS: dict[str, Activation] = {
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
    "silu": F.silu,
}


def activation(name: str, gated: bool) -> Activation:
    """The activation of that name; gated, of the first half of its input, times the second half.

    Raises:
        UserError: no such name.
    """
    if name not in ACTIVATIONS:
        raise UserError(f"--activation-fn {name!r} is unknown here; choose from {', '.join(ACTIVATIONS)}")
    return partial(gate, ACTIVATIONS[name]) if gated else ACTIVATIONS[name]


def gate(function: Activation, x: Tensor) -> Tensor:
    """(..., 2 F) to (..., F)."""
    gates, values = x.chunk(2, dim=-1)
    return function(gates) * values
