"""Inputs of unequal lengths side by side, so that padding costs nothing.

The encoder's states are (N, D): all tokens of the first input, then of the second, and so on. Linear layers and norms
run on them as they are. Attention runs on *buckets*, inputs of about one length padded to a common width. Dropping
tokens (paper, section 3.1) therefore saves what it promises even where every input of a batch drops another share.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")

#: The shortest input of a bucket is at least this share as long as the longest.
FILL = 7 / 8

#: Tokens that a sublayer's hidden states fit a processor's cache with; more at once only make it wait for memory.
PIECE = 1024


@dataclass(frozen=True, eq=False)
class Bucket:
    """Inputs that attention pads to a common width.

    Attributes:
        inputs: their places in the batch, n of them.
        width: the longest one's length.
        index: int64 (n x width,), which tokens; None when these are all tokens of the batch in their order.
        mask: bool (n, 1, 1, width), True = real token; None when none is padding.
    """

    inputs: tuple[int, ...]
    width: int
    index: Tensor | None
    mask: Tensor | None

    def gather(self, x: Tensor) -> Tensor:
        """The bucket's part, (n, width, D), of the tokens of all inputs, (N, D); padding repeats a real token."""
        tokens = x if self.index is None else x.index_select(0, self.index)
        return tokens.unflatten(0, (len(self.inputs), self.width))


class Piece(NamedTuple):
    """Some inputs that a model runs on before it turns to the next.

    Attributes:
        inputs: their places in the batch.
        tokens: where their tokens are.
        layout: the layout of those.
    """

    inputs: list[int]
    tokens: slice
    layout: Ragged


class Ragged:
    """Where each input's tokens are.

    Args:
        lengths: tokens of each input, at least 1; they stay on the host, where control flow needs them.
        device: of the index tensors.
        positions: int64 (N,), where each token stood before some were dropped; None = an input's tokens count 0, 1, ...
    """

    def __init__(self, lengths: Sequence[int], device: torch.device | str, positions: Tensor | None = None):
        self.lengths = tuple(lengths)
        self.counts = torch.tensor(self.lengths, dtype=torch.long)  # the same, as a tensor on the host
        self.device = device
        self._positions = positions
        self._selected: dict[tuple[int, ...], tuple[Tensor, Ragged]] = {}
        self._memo: dict[int, tuple[Any, Any]] = {}

    def __len__(self) -> int:
        return len(self.lengths)

    @cached_property
    def ends(self) -> Tensor:
        """int64 (B,), on the host: one past each input's last token."""
        return self.counts.cumsum(0)

    @cached_property
    def size(self) -> Tensor:
        """int64 (B,): the lengths, on the device."""
        return self.counts.to(self.device)

    @property
    def in_place(self) -> bool:
        """Whether no token was dropped."""
        return self._positions is None

    @cached_property
    def positions(self) -> Tensor:
        """int64 (N,), on the device: where each token of its input stands."""
        if self._positions is not None:
            return self._positions
        starts = (self.ends - self.counts).repeat_interleave(self.counts)
        return (torch.arange(sum(self.lengths)) - starts).to(self.device)

    def memo(self, key: Any, compute: Callable[[], T]) -> T:
        """What ``compute`` returns, computed once for this layout and that object."""
        if id(key) not in self._memo:
            self._memo[id(key)] = key, compute()
        return self._memo[id(key)][1]

    def keep(self, kept: Tensor, lengths: Sequence[int]) -> Ragged:
        """The layout of some tokens, bool (N,), which leave each input so many; they keep their positions."""
        return Ragged(lengths, self.device, self.positions[kept])

    def select(self, inputs: Tensor | None) -> tuple[Tensor | None, Ragged]:
        """Some inputs, int64 (n,) on the host: which tokens are theirs, int64, and the layout of those tokens.

        None means all inputs, and all tokens (`Decisions.rows`).
        """
        if inputs is None:
            return None, self
        key = tuple(inputs.tolist())
        if key not in self._selected:
            part = Ragged([self.lengths[i] for i in key], self.device)
            shift = self.ends[inputs] - part.ends
            tokens = (torch.arange(sum(part.lengths)) + shift.repeat_interleave(part.counts)).to(self.device)
            part._positions = None if self._positions is None else self._positions[tokens]
            self._selected[key] = tokens, part
        return self._selected[key]

    def pieces(self) -> list[Piece]:
        """Neighbouring inputs of at most `PIECE` tokens together, or one that has more; all in one piece on a GPU, or
        where gradients are wanted."""
        if torch.is_grad_enabled() or torch.device(self.device).type != "cpu":
            return [Piece(list(range(len(self))), slice(None), self)]
        return self._pieces

    @cached_property
    def _pieces(self) -> list[Piece]:
        groups: list[list[int]] = []
        for i, length in enumerate(self.lengths):
            if groups and sum(self.lengths[j] for j in groups[-1]) + length <= PIECE:
                groups[-1].append(i)
            else:
                groups.append([i])
        ends = self.ends.tolist()
        tokens = [slice(ends[group[0]] - self.lengths[group[0]], ends[group[-1]]) for group in groups]
        return [Piece(group, part, self.select(torch.tensor(group))[1]) for group, part in zip(groups, tokens)]

    @cached_property
    def buckets(self) -> list[Bucket]:
        """Longest inputs first."""
        groups: list[list[int]] = []
        for i in sorted(range(len(self)), key=lambda i: -self.lengths[i]):
            if groups and self.lengths[i] >= FILL * self.lengths[groups[-1][0]]:
                groups[-1].append(i)
            else:
                groups.append([i])
        return [self._bucket(group) for group in groups]

    def _bucket(self, inputs: list[int]) -> Bucket:
        width = self.lengths[inputs[0]]
        lengths = self.counts[inputs].unsqueeze(1)
        position = torch.arange(width)
        tokens = self.ends[inputs].unsqueeze(1) - lengths + position.minimum(lengths - 1)
        real = position < lengths
        whole = len(inputs) == len(self) and bool(real.all()) and inputs == sorted(inputs)
        mask = None if bool(real.all()) else real[:, None, None, :].to(self.device)
        return Bucket(tuple(inputs), width, None if whole else tokens.flatten().to(self.device), mask)

    def merge(self, parts: Sequence[Tensor]) -> Tensor:
        """The buckets' results, (n, width, D) each, as tokens of all inputs again, (N, D)."""
        if self.buckets[0].index is None:
            return parts[0].flatten(0, 1)
        return torch.cat([part.flatten(0, 1) for part in parts]).index_select(0, self._token_order)

    @cached_property
    def _token_order(self) -> Tensor:
        """Where each token is in the buckets laid end to end, int64 (N,)."""
        starts, begin = [0] * len(self), 0
        for bucket in self.buckets:
            for row, i in enumerate(bucket.inputs):
                starts[i] = begin + row * bucket.width
            begin += len(bucket.inputs) * bucket.width
        shift = torch.tensor(starts) - self.ends + self.counts
        return (torch.arange(sum(self.lengths)) + shift.repeat_interleave(self.counts)).to(self.device)
