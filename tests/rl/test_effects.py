"""What is known of each decision: fitted to tries, shrunk to its kind, differentiated exactly."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from fairseq_switchdec.decisions import DecisionSpace
from fairseq_switchdec.rl.effects import expected_effect, filling_price, fit, kinds, num_effects, skips

SPACE = DecisionSpace(3, 2)
SPLIT = DecisionSpace(3, 2, split_attention=True)


def sums(tries: Tensor, losses: Tensor) -> tuple[Tensor, Tensor]:
    return tries.T @ tries, tries.T @ losses


def one_try(space: DecisionSpace, place: int) -> Tensor:
    x = torch.zeros(1, num_effects(space), dtype=torch.float64)
    x[0, place] = 1
    return x


def test_skips_by_hand() -> None:
    keep = torch.ones(2, SPACE.num_sublayers, dtype=torch.bool)
    keep[0, 3] = keep[1, 6] = False
    found = skips(SPACE, SPACE.decisions(keep, torch.tensor([0, 5])))
    expected = torch.zeros(2, num_effects(SPACE), dtype=torch.float64)
    expected[0, 3] = expected[1, 6] = expected[1, SPACE.num_sublayers + 5] = 1
    assert torch.equal(found, expected)


@pytest.mark.parametrize("space", [SPACE, SPLIT, DecisionSpace(4, 0)])
def test_many_tries_of_several_decisions_at_once_tell_them_apart(space: DecisionSpace) -> None:
    generator = torch.Generator().manual_seed(1)
    count, size = 3000, num_effects(space)
    keep = torch.rand(count, space.num_sublayers, generator=generator) < 0.7
    tries = skips(space, space.decisions(keep, torch.randint(7, (count,), generator=generator)))
    truth = torch.rand(size, generator=generator).double() * (tries.sum(0) > 0)
    losses = tries @ truth + 0.1 * torch.randn(count, generator=generator).double()
    assert_close(fit(space, *sums(tries, losses)), truth, rtol=0, atol=0.02)


def test_what_was_never_tried_counts_as_its_kind_does() -> None:
    """Two attention sublayers were tried, which lose 0.1 and 0.3, one feed-forward one, and one token strategy."""
    first_strategy = SPACE.num_sublayers
    tries = torch.cat([one_try(SPACE, place) for place in (1, 2, 6, first_strategy + 2)])
    found = fit(SPACE, *sums(tries, torch.tensor([0.1, 0.3, 0.0, 0.5], dtype=torch.float64)))
    # A try weighs as much as what is thought of its kind.
    assert_close(found[:5], torch.tensor([0.0, 0.15, 0.25, 0.2, 0.2], dtype=torch.float64))
    assert not found[5:10].any()
    # Strategy 2 drops 20 % of the tokens, 3 and 6 drop 30 and 50 %.
    dropped = torch.tensor([0, 0.1, 0.2, 0.3, 1 / 4, 1 / 3, 1 / 2], dtype=torch.float64)
    assert_close(found[first_strategy:], 2.5 * dropped)


def test_nothing_is_known_before_every_kind_was_tried() -> None:
    space = DecisionSpace(3, 2, ("attention", "ffn"))
    tries, losses = torch.cat([one_try(space, 1), one_try(space, 6)]), torch.tensor([0.4, 0.2], dtype=torch.float64)
    assert not fit(space, *sums(tries[:1], losses[:1])).any()
    assert_close(fit(space, *sums(tries, losses))[[1, 2, 6, 7]], torch.tensor([0.4, 0.4, 0.2, 0.2]).double())


def test_what_gains_is_not_thought_to_gain_everywhere() -> None:
    space = DecisionSpace(3, 2, ("attention",))
    found = fit(space, *sums(one_try(space, 1), torch.tensor([-0.4], dtype=torch.float64)))
    assert found[1] == pytest.approx(-0.2) and not found[2:].any()


def test_tries_the_other_way_round_tell_the_same() -> None:
    """To keep what the greedy path skips, and to gain by it."""
    space, loss = DecisionSpace(3, 2, ("ffn",)), torch.tensor([0.4], dtype=torch.float64)
    there, back = one_try(space, 7), -one_try(space, 7)
    found = fit(space, *sums(there, loss))
    assert found.any() and torch.equal(found, fit(space, *sums(back, -loss)))


@pytest.mark.parametrize("candidates", [("attention",), ("ffn", "token"), ("token",)])
def test_closed_decisions_have_no_effect(candidates: tuple[str, ...]) -> None:
    space = DecisionSpace(3, 2, candidates, ("encoder",))
    opened = torch.cat([space.open_sublayers(), torch.tensor([False] + [space.token_open] * 6)])
    assert torch.equal(kinds(space).sum(0) > 0, opened) and len(kinds(space)) == len(candidates)
    tries = torch.eye(num_effects(space), dtype=torch.float64)  # of a training that began with all of them open
    found = fit(space, *sums(tries, torch.ones(len(tries), dtype=torch.float64)))
    assert torch.equal(found > 0, opened)


def test_nothing_known_is_nothing() -> None:
    size = num_effects(SPLIT)
    zero = torch.zeros(size, dtype=torch.float64)
    assert torch.equal(fit(SPLIT, torch.zeros(size, size, dtype=torch.float64), zero), zero)


def parts() -> Tensor:
    """Of a cost of which sublayers 1 to 4 take .1 each, all strategies alike, and the rest always runs."""
    found = torch.zeros(7, 1 + SPACE.num_sublayers, dtype=torch.float64)
    found[:, 0], found[:, 2:6] = 0.6, 0.1
    return found


def budgets(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_a_price_skips_what_saves_more_than_it_loses() -> None:
    """Three sublayers lose .1, .2 and .4 nats: for .9 one must go, for .8 two, for .75 all three; the fourth is never
    worth it. For .5 no path is known.
    """
    effects = torch.zeros(num_effects(SPACE), dtype=torch.float64)
    effects[1:5] = budgets(0.1, 0.2, 0.4, 9.0)
    found = filling_price(effects, parts() * (1 + 1e-7), budgets(1.0, 0.901, 0.801, 0.75, 0.5))
    assert_close(found, budgets(20.0, 1.0, 0.5, 0.25, 0.05), rtol=0.02, atol=0)


def test_a_price_chooses_one_token_strategy() -> None:
    """Strategies 1 and 3 save .1 and .3 and lose .05 and .45 nats: the third only where a nat is worth less than half
    of what it adds to the first's saving.
    """
    effects, costs = torch.zeros(num_effects(SPACE), dtype=torch.float64), parts()
    tokens = SPACE.num_sublayers
    effects[1:5] = 9.0
    effects[tokens + 1 :] = budgets(0.05, 9.0, 0.45, 9.0, 9.0, 9.0)
    costs[:, 0] -= budgets(0, 0.1, 0.2, 0.3, 0.25, 0.33, 0.5)
    assert_close(filling_price(effects, costs, budgets(0.95, 0.801)), budgets(2.0, 0.5), rtol=0.02, atol=0)
    assert torch.equal(filling_price(0 * effects, costs, budgets(0.5, 0.9)), budgets(1.0, 1.0))


def test_a_price_counts_what_sublayers_save_beside_dropped_tokens() -> None:
    """A strategy that is free and halves everything leaves .05 to each sublayer: .5 is reached by it alone, .47 by one
    sublayer more, which loses .1.
    """
    effects, costs = torch.zeros(num_effects(SPACE), dtype=torch.float64), parts()
    effects[1:5], effects[SPACE.num_sublayers + 1 :] = budgets(0.1, 9.0, 9.0, 9.0), 9.0
    effects[SPACE.num_sublayers + 6] = 1e-9
    costs[6] *= 0.5
    assert_close(filling_price(effects, costs, budgets(0.501, 0.47)), budgets(20.0, 0.5), rtol=0.02, atol=0)


def test_expected_effect_by_hand() -> None:
    keep = torch.full((1, SPACE.num_sublayers), 0.9)
    tokens = torch.tensor([[0.4, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1]])
    effects = torch.arange(num_effects(SPACE)).double()
    found = expected_effect(effects, keep, tokens)
    assert float(found) == pytest.approx(0.1 * sum(range(10)) + 0.4 * 10 + 0.1 * sum(range(11, 17)), rel=1e-5)
    without = expected_effect(effects, keep, None)
    assert float(without) == pytest.approx(4.5, rel=1e-5)
