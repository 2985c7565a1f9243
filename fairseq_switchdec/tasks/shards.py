"""Shards of equal weight: what a process does when the others still have a batch and it has none.

fairseq fills uneven shards up with empty batches and runs its first batch in their place, with the gradient times 0.
Its trainer (0.12.2) then looks at an update's last micro-batch only: where that one is empty, the tokens of the real
ones before it (``--update-freq``) are left out of the sample size and of the log, though not of the gradient, which
becomes too large. Here such a batch comes as a real one, marked, and the task gives it no weight.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

MARK = "fills_shard"


class Filled:
    """A collater that makes of no samples a marked batch of one."""

    def __init__(self, collate: Any, filler: dict[str, Any]):
        self.collate = collate
        self.filler = filler

    def __call__(self, samples: list[Any]) -> dict[str, Any]:
        return self.collate(samples) if samples else {**self.filler, MARK: True}


def even_shards(iterator: Any) -> None:
    """Let no process of a fairseq ``EpochBatchIterator`` meet an empty batch."""
    batches = iterator.frozen_batches
    if isinstance(iterator.collate_fn, Filled) or len(batches) % iterator.num_shards == 0:
        return
    filler = iterator.collate_fn([iterator.dataset[batches[0][0]]])
    iterator.collate_fn = Filled(iterator.collate_fn, filler)


def is_filler(sample: dict[str, Any]) -> bool:
    """Whether a batch only fills its shard up."""
    return MARK in sample


def without_weight(loss: Tensor, log: dict[str, Any]) -> tuple[Tensor, int, dict[str, Any]]:
    """A criterion's results for a batch that must not count: the same keys and kinds of values, which the ranks add."""
    zeros = {name: torch.zeros_like(value) if torch.is_tensor(value) else 0 for name, value in log.items()}
    return loss * 0, 0, zeros
