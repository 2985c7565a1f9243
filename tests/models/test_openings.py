"""A model remembers whether its texts began with ``<s>``."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from fairseq_switchdec.models.openings import Openings

BOS = 0


def texts(*first: int) -> list[Tensor]:
    return [torch.tensor([token, 7, 2]) for token in first]


class Pairs(SimpleNamespace):
    def __len__(self) -> int:
        return len(self.src)


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        ([BOS, BOS, BOS], [5, 6, 7], (True, False)),
        ([5, BOS, 6], [BOS, BOS, BOS], (False, True)),
        ([5] * 250 + [BOS], [BOS] * 250 + [5], (False, False)),
    ],
)
def test_learns_from_all_texts(source: list[int], target: list[int], expected: tuple[bool, bool]) -> None:
    openings = Openings()
    assert (openings.source, openings.target) == (None, None)
    openings.learn(Pairs(src=texts(*source), tgt=texts(*target)), BOS)
    assert (openings.source, openings.target) == expected
    restored = Openings()
    restored.load_state_dict(openings.state_dict())
    assert (restored.half().source, restored.target) == expected


def test_opens_a_source_as_in_training() -> None:
    openings, bare, opened = Openings(), torch.tensor([5, 6, 2]), torch.tensor([BOS, 5, 6, 2])
    for known, expected in ((0.5, bare), (0.0, bare), (1.0, opened)):
        openings.with_bos.fill_(known)
        assert torch.equal(openings.open(bare, BOS), expected)
        assert torch.equal(openings.open(opened, BOS), opened)
    assert openings.open(torch.tensor([], dtype=torch.long), BOS).tolist() == [BOS]


def test_an_average_of_checkpoints_keeps_what_they_agree_on() -> None:
    """A moving average that began before training knows in the long run."""
    with_bos, without = torch.tensor([1.0, 1.0]), torch.tensor([1.0, 0.0])
    openings = Openings()
    openings.with_bos.copy_((with_bos + without) / 2)
    assert (openings.source, openings.target) == (True, None)
    openings = Openings()
    for _ in range(3):
        openings.with_bos.mul_(0.75).add_(with_bos, alpha=0.25)
    assert openings.source is None
    for _ in range(20):
        openings.with_bos.mul_(0.75).add_(with_bos, alpha=0.25)
    assert openings.source is True
