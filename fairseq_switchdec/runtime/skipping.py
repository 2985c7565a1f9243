"""The one place where skipping happens: the inputs that keep a sublayer run it, the others pass through."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor


def run_rows(sublayer: Callable[..., Tensor], rows: Tensor | None, x: Tensor, *others: Tensor | None) -> Tensor:
    """Run ``sublayer(x, *others)`` for some inputs of a batch only.

    Nothing is computed for the rest: what a skipped sublayer leaves behind is its input (paper, section 3.1).

    Args:
        sublayer: the whole residual branch, its layer norm and dropout included; batch first.
        rows: int64 (n,), the inputs that run it; None = all of them (`Decisions.rows`).
        x: (B, ...) hidden states.
        others: further tensors with a batch dimension that the sublayer reads, or None.

    Returns:
        (B, ...), a new tensor unless nobody runs.
    """
    if rows is None:
        return sublayer(x, *others)
    if rows.numel() == 0:
        return x
    selected = (None if other is None else other.index_select(0, rows) for other in others)
    result = sublayer(x.index_select(0, rows), *selected)
    return x.index_copy(0, rows, result.to(x.dtype))
