"""Running some rows of a batch equals running all and putting the others back."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from fairseq_switchdec.runtime.skipping import run_rows

X = torch.arange(24.0).view(4, 3, 2)


class Recorder:
    """A sublayer that remembers what it was given."""

    def __init__(self) -> None:
        self.calls: list[tuple[Tensor | None, ...]] = []

    def __call__(self, x: Tensor, *others: Tensor | None) -> Tensor:
        self.calls.append((x, *others))
        return -x - 1


def test_all_rows_run_in_place_of_nothing() -> None:
    sublayer = Recorder()
    mask = torch.ones(4, 3)
    assert torch.equal(run_rows(sublayer, None, X, mask, None), -X - 1)
    assert len(sublayer.calls) == 1
    x, given, none = sublayer.calls[0]
    assert x is X and given is mask and none is None, "nothing is copied when all run"


def test_nobody_runs_nothing() -> None:
    sublayer = Recorder()
    assert run_rows(sublayer, torch.tensor([], dtype=torch.long), X, None) is X
    assert not sublayer.calls


@pytest.mark.parametrize("rows", [[0], [3], [1, 2], [0, 1, 2, 3]])
def test_gathered_equals_masked(rows: list[int]) -> None:
    sublayer = Recorder()
    index = torch.tensor(rows)
    mask = torch.rand(4, 1, 5)
    before = X.clone()
    result = run_rows(sublayer, index, X, mask, None)
    runs = torch.zeros(4, 1, 1, dtype=torch.bool)
    runs[index] = True
    assert torch.equal(result, torch.where(runs, -X - 1, X))
    assert torch.equal(X, before) and result is not X
    x, given, none = sublayer.calls[0]
    assert x is not None and x.size(0) == len(rows), "the others are not computed"
    assert given is not None and torch.equal(given, mask[index]) and none is None


def test_one_input() -> None:
    assert torch.equal(run_rows(Recorder(), torch.tensor([0]), X[:1]), -X[:1] - 1)


def test_gradients_pass_through_and_around() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(2, 2)
    rows = torch.tensor([0, 2])
    runs = torch.tensor([True, False, True, False]).view(4, 1, 1)
    weight = torch.randn(4, 3, 2)
    gradients = []
    for result_of in (lambda x: run_rows(linear, rows, x), lambda x: torch.where(runs, linear(x), x)):
        x = X.clone().requires_grad_()
        linear.zero_grad()
        (result_of(x) * weight).sum().backward()
        assert x.grad is not None and linear.weight.grad is not None
        gradients.append((x.grad, linear.weight.grad.clone()))
    for gathered, masked in zip(*gradients):
        assert_close(gathered, masked)
    assert torch.equal(gradients[0][0][1], weight[1]), "a skipped sublayer is the identity"


def test_a_result_in_another_precision_is_cast_back() -> None:
    """Under autocast a sublayer may answer in half precision."""
    rows = torch.tensor([1])
    result = run_rows(lambda x: x.to(torch.bfloat16) * 2, rows, X)
    assert result.dtype == X.dtype
    assert_close(result[1], X[1] * 2)
    assert torch.equal(result[0], X[0])
