"""Each branch of each weight rule, by hand arithmetic."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from fairseq_switchdec.rl import BudgetRule, Eq7Rule, FixedRule, Observation, QualityRule
from fairseq_switchdec.rl.effects import EXTREME_PRICE
from fairseq_switchdec.rl.rules import MARGIN, MAX_MULTIPLIER, PRICE, barrier_multiplier


def observation(**changes: Any) -> Observation:
    """|g_q|^2 = 5, |g_c|^2 = 10, <g_q, g_c> = 1."""
    values = dict(
        quality_gradient=torch.tensor([2.0, 1.0, 0.0]),
        cost_gradient=torch.tensor([0.0, 1.0, 3.0]),
        quality_violation=0.0,
        quality=2.0,
        best_quality=2.0,
        cost=torch.tensor([0.7]),
        caution=torch.zeros(1),
        effects=torch.zeros(12, dtype=torch.float64),
        parts=torch.zeros(7, 6, dtype=torch.float64),
    )
    return Observation(**{**values, **changes})


@pytest.mark.parametrize(
    "violation, expected",
    [(0.0, 0.0), (0.1, 1.0), (0.05, 0.5), (0.2, 2.0), (9.0, 2.0), (-0.05, -0.5), (-0.1, -1.0), (-9.0, -1.0)],
)
@pytest.mark.parametrize("rule", [QualityRule(0.05), QualityRule(0.0, 0.1), QualityRule(0.02, 0.06)])
def test_quality_rule_measures_the_violation_in_units_of_its_slack(
    rule: QualityRule, violation: float, expected: float
) -> None:
    """The loss is 2 and may be exceeded by .1."""
    weights = rule(observation(quality_violation=violation))
    assert weights == (PRICE, 1.0, pytest.approx(expected), 1), "and keeping more remedies it"


@pytest.mark.parametrize(
    "caution, factor",
    [(-50.0, math.e**-5), (-3.0, math.e**-0.75), (0.0, 1.0), (1.0, math.e), (5.0, math.e**5), (50.0, math.e**5)],
)
@pytest.mark.parametrize("rule, price", [(QualityRule(), PRICE), (BudgetRule(0.7), MARGIN)])
def test_the_price_follows_caution(rule: QualityRule | BudgetRule, price: float, caution: float, factor: float) -> None:
    weights = rule(observation(caution=torch.tensor([caution])))
    assert (weights.quality, weights.cost) == (pytest.approx(price * factor), 1.0)


@pytest.mark.parametrize("caution", [0.0, 1.0])
def test_the_price_of_a_budget_is_half_of_where_what_is_known_fills_it(caution: float) -> None:
    """Three sublayers save .1 each and lose .1, .2 and .4 nats: for .9 one must go, for .8 two, for .75 all three."""
    effects, parts = torch.zeros(12, dtype=torch.float64), torch.zeros(7, 6, dtype=torch.float64)
    effects[1:4], parts[:, 0], parts[:, 2:5] = torch.tensor([0.1, 0.2, 0.4], dtype=torch.float64), 0.7, 0.1
    seen = observation(effects=effects, parts=parts, caution=torch.tensor([caution]))
    for budget, highest in ((0.9001, 1.0), (0.8001, 0.5), (0.75, 0.25), (0.5, 1 / EXTREME_PRICE), (1.0, EXTREME_PRICE)):
        found = BudgetRule(budget)(seen).quality / math.exp(caution) / MARGIN
        assert found == pytest.approx(highest, rel=0.02) and found <= highest * (1 + 1e-9)
    assert QualityRule()(seen).quality == pytest.approx(math.exp(caution))


def test_a_slack_of_zero_still_has_a_unit() -> None:
    assert QualityRule(0.0)(observation(quality_violation=0.01)).violation == pytest.approx(0.5)
    assert QualityRule(0.0)(observation(quality=0.0, quality_violation=0.0)).violation == 0.0


@pytest.mark.parametrize("cost, violation", [(0.7, 0), (0.75, 1), (0.72, 0.4), (1.0, 1), (0.66, -0.8), (0.1, -1)])
def test_budget_rule_measures_the_distance_from_its_budget(cost: float, violation: float) -> None:
    weights = BudgetRule(0.7)(observation(cost=torch.tensor([cost], dtype=torch.double)))
    assert weights == (MARGIN, 1.0, pytest.approx(violation), -1), "and keeping less remedies it"


@pytest.mark.parametrize(
    "quality, expected",
    [(2.0, 0.0), (2.9, 0.0), (3.0, 0.0), (4.0, (2 - 1) / 10), (12.0, (10 - 1) / 10), (1e4, MAX_MULTIPLIER)],
)
def test_eq7_rule(quality: float, expected: float) -> None:
    """phi = q - c with c the least loss so far: 2."""
    assert Eq7Rule()(observation(quality=quality)) == (1.0, pytest.approx(expected), 0.0, 0)


@pytest.mark.parametrize("weight", [0.0, 0.2, 1.5])
def test_fixed_rule_looks_at_nothing(weight: float) -> None:
    worst = observation(
        quality_violation=9.0, quality=50.0, cost=torch.ones(1), cost_gradient=torch.full((3,), float("nan"))
    )
    assert FixedRule(weight)(worst) == (1.0, weight, 0.0, 0)


@pytest.mark.parametrize("phi", [0.0, 0.5, 2.0, 5.0])
def test_eq7s_step_is_the_dynamic_barrier(phi: float) -> None:
    """The one nearest to g_q among those with <g_c, e> >= phi."""
    seen = observation(quality=2.0 + phi)
    weights = Eq7Rule()(seen)
    step = weights.quality * seen.quality_gradient + weights.cost * seen.cost_gradient
    descent = float(step @ seen.cost_gradient)
    assert descent >= phi - 1e-5
    assert weights.cost == 0 or descent == pytest.approx(phi, rel=1e-5), "and no more than needed"


@pytest.mark.parametrize("norm", [0.0, 1e-30, 1e-15])
def test_a_vanishing_norm_neither_divides_by_zero_nor_passes_the_cap(norm: float) -> None:
    vanishing = torch.tensor([norm, 0.0, 0.0])
    objective = torch.tensor([1.0, 2.0, 3.0])
    assert barrier_multiplier(0.5, vanishing, objective) == MAX_MULTIPLIER
    assert barrier_multiplier(-0.5, vanishing, objective) == 0.0
    assert barrier_multiplier(0.0, torch.zeros(3), objective) == 0.0


def test_the_multiplier_is_a_plain_number_between_its_bounds() -> None:
    generator = torch.Generator().manual_seed(0)
    seen = set()
    for _ in range(300):
        constraint, objective = torch.randn(2, 5, generator=generator) * torch.rand(2, 1, generator=generator) ** 3
        phi = float(torch.randn((), generator=generator))
        value = barrier_multiplier(phi, constraint, objective)
        exact = (phi - constraint @ objective) / (constraint @ constraint)
        assert isinstance(value, float)
        assert_close(torch.tensor(value), exact.clamp(0.0, MAX_MULTIPLIER))
        seen.add("least" if value == 0.0 else "cap" if value == MAX_MULTIPLIER else "between")
    assert seen == {"least", "cap", "between"}
