"""Inputs side by side: what is gathered for attention and merged again is what each input alone would be."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fairseq_switchdec.runtime import ragged as ragged_module
from fairseq_switchdec.runtime.ragged import FILL, Ragged

LENGTHS = [[1], [4], [3, 3, 3], [8, 7, 7], [2, 9, 4, 9, 1, 8, 5], [1, 2, 3, 4, 5], [10, 10, 5, 5]]


def states(lengths: list[int], seed: int = 0) -> Tensor:
    return torch.randn(sum(lengths), 3, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("lengths", LENGTHS)
def test_buckets_hold_every_input_once(lengths: list[int]) -> None:
    ragged = Ragged(lengths, "cpu")
    x = states(lengths)
    alone = x.split(lengths)
    seen = []
    for bucket in ragged.buckets:
        part = bucket.gather(x)
        assert part.shape == (len(bucket.inputs), bucket.width, 3)
        for row, i in enumerate(bucket.inputs):
            assert FILL * bucket.width <= lengths[i] <= bucket.width
            assert torch.equal(part[row, : lengths[i]], alone[i])
            real = torch.arange(bucket.width) < lengths[i]
            assert bool(real.all()) if bucket.mask is None else torch.equal(bucket.mask[row, 0, 0], real)
        seen += bucket.inputs
    assert sorted(seen) == list(range(len(lengths)))


@pytest.mark.parametrize("lengths", LENGTHS)
def test_merge_is_the_inverse_of_gather(lengths: list[int]) -> None:
    ragged, x = Ragged(lengths, "cpu"), states(lengths)
    x.requires_grad_()
    merged = ragged.merge([bucket.gather(x) for bucket in ragged.buckets])
    assert torch.equal(merged, x)
    merged.sum().backward()
    assert torch.equal(x.grad, torch.ones_like(x)), "padding brings no gradients"


@pytest.mark.parametrize("lengths", LENGTHS)
def test_select(lengths: list[int]) -> None:
    ragged, x = Ragged(lengths, "cpu"), states(lengths)
    for inputs in ([], [len(lengths) - 1], list(range(0, len(lengths), 2))):
        index, part = ragged.select(torch.tensor(inputs, dtype=torch.long))
        assert part.lengths == tuple(lengths[i] for i in inputs)
        assert torch.equal(x[index], torch.cat([x[:0], *(x.split(lengths)[i] for i in inputs)]))
        assert ragged.select(torch.tensor(inputs, dtype=torch.long))[1] is part, "computed once a batch"


def test_equal_lengths_are_not_copied() -> None:
    x = states([6, 6])
    ragged = Ragged([6, 6], "cpu")
    part = ragged.buckets[0].gather(x)
    assert part.data_ptr() == x.data_ptr() and ragged.merge([part]).data_ptr() == x.data_ptr()


@pytest.mark.parametrize("lengths", [*LENGTHS, [2, 30, 3, 1, 6, 7, 5]])
def test_pieces_are_the_whole(lengths: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ragged_module, "PIECE", 9)
    ragged, x = Ragged(lengths, "cpu"), states(lengths)
    assert [piece.layout for piece in ragged.pieces()] == [ragged]  # gradients are wanted
    with torch.no_grad():
        pieces = ragged.pieces()
    assert [i for piece in pieces for i in piece.inputs] == list(range(len(lengths)))
    assert torch.equal(torch.cat([x[piece.tokens] for piece in pieces]), x)
    for piece in pieces:
        assert piece.layout.lengths == tuple(lengths[i] for i in piece.inputs)
        assert sum(piece.layout.lengths) <= 9 or len(piece.inputs) == 1
