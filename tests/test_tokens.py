"""The seven token strategies, by hand, and dropping against a row-by-row reference."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fairseq_switchdec.decisions import NUM_TOKEN_STRATEGIES
from fairseq_switchdec.tokens import kept_tokens, num_dropped

#: Twelve content tokens: 10, 20, 30 % are 1, 2, 3 of them; every 4th, 3rd, 2nd are 3, 4, 6.
BY_HAND = {
    0: "111111111111",
    1: "111111111110",
    2: "111111111100",
    3: "111111111000",
    4: "111011101110",
    5: "110110110110",
    6: "101010101010",
}


def bits(text: str) -> Tensor:
    return torch.tensor([letter == "1" for letter in text])


def masks(kinds: list[str]) -> tuple[Tensor, Tensor]:
    """Content and special masks of rows like ``PPSCCCS``: padding, special, content."""
    return tuple(torch.tensor([[letter == kind for letter in row] for row in kinds]) for kind in "CS")  # type: ignore


@pytest.mark.parametrize("strategy", range(NUM_TOKEN_STRATEGIES))
@pytest.mark.parametrize("left, right", [(0, 0), (3, 0), (0, 3), (2, 1)])
def test_by_hand(strategy: int, left: int, right: int) -> None:
    content, special = masks(["P" * left + "S" + "C" * 12 + "S" + "P" * right])
    expected = bits("0" * left + "1" + BY_HAND[strategy] + "1" + "0" * right)
    assert torch.equal(kept_tokens(content, special, torch.tensor([strategy]))[0], expected)


def test_percentages_count_content_only() -> None:
    # 9 content tokens among 14 real ones: 10 % of the content is none at all, 30 % are two.
    content, special = masks(["SSSCCCCCCCCCSS"] * 2)
    kept = kept_tokens(content, special, torch.tensor([1, 3]))
    assert torch.equal(kept, torch.stack([bits("1" * 14), bits("111" + "1111111" + "00" + "11")]))


def test_specials_inside_stay_and_do_not_count() -> None:
    content, special = masks(["SCCSCCS"] * 2)
    kept = kept_tokens(content, special, torch.tensor([6, 5]))
    # Content tokens 2 and 4 fall to every 2nd, token 3 to every 3rd, wherever the separator stands.
    assert torch.equal(kept, torch.stack([bits("1101101"), bits("1111011")]))


@pytest.mark.parametrize(
    "total, expected",
    [
        (0, [0, 0, 0, 0, 0, 0, 0]),
        (1, [0, 0, 0, 0, 0, 0, 0]),
        (2, [0, 0, 0, 0, 0, 0, 1]),
        (10, [0, 1, 2, 3, 2, 3, 5]),
        (12, [0, 1, 2, 3, 3, 4, 6]),
        (1022, [0, 102, 204, 306, 255, 340, 511]),
    ],
)
def test_num_dropped_by_hand(total: int, expected: list[int]) -> None:
    content = torch.full((NUM_TOKEN_STRATEGIES,), total)
    assert num_dropped(content, torch.arange(NUM_TOKEN_STRATEGIES)).tolist() == expected


def random_batch(seed: int, batch: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Content, special (one a row at least) and strategies, padding left, right and inside."""
    generator = torch.Generator().manual_seed(seed)
    kind = torch.multinomial(torch.tensor([0.2, 0.1, 0.7]), batch * width, True, generator=generator).view(batch, width)
    kind[torch.arange(batch), torch.randint(width, (batch,), generator=generator)] = 1
    return kind == 2, kind == 1, torch.randint(NUM_TOKEN_STRATEGIES, (batch,), generator=generator)


@pytest.mark.parametrize("batch, width", [(1, 1), (1, 2), (7, 2), (40, 33)])
def test_num_dropped_agrees_with_kept_tokens(batch: int, width: int) -> None:
    content, special, strategy = random_batch(width, batch, width)
    kept = kept_tokens(content, special, strategy)
    assert torch.equal((content & ~kept).sum(1), num_dropped(content.sum(1), strategy))
    assert torch.equal(kept & ~content, special), "specials stay, padding goes"
