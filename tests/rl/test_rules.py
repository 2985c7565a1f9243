"""Each branch of each weight rule, by hand arithmetic."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.testing import assert_close

from fairseq_switchdec.rl import BudgetRule, Eq7Rule, FixedRule, Observation, QualityRule
from fairseq_switchdec.rl.rules import MAX_MULTIPLIER, barrier_multiplier


def observation(**changes: Any) -> Observation:
    """|g_q|^2 = 5, |g_c|^2 = 10, <g_q, g_c> = 1."""
    values = dict(
        quality_gradient=torch.tensor([2.0, 1.0, 0.0]),
        cost_gradient=torch.tensor([0.0, 1.0, 3.0]),
        quality_violation=0.0,
        quality=2.0,
        best_quality=2.0,
        cost=0.7,
    )
    return Observation(**{**values, **changes})


@pytest.mark.parametrize(
    "violation, expected",
    [
        (0.4, (4 - 1) / 5),  # phi = 10 x .4
        (1.1, (11 - 1) / 5),
        (0.35, 0.5),  # (3.5 - 1) / 5 is the lower bound
        (0.2, 0.5),  # (2 - 1) / 5 is below it
        (-3.0, 0.5),  # well within the bound on quality
        (10.1, MAX_MULTIPLIER),  # (101 - 1) / 5 is the cap
        (1e6, MAX_MULTIPLIER),
        (float("inf"), MAX_MULTIPLIER),
        (float("-inf"), 0.5),
    ],
)
def test_quality_rule(violation: float, expected: float) -> None:
    weights = QualityRule()(observation(quality_violation=violation))
    assert weights.cost == 1.0
    assert weights.quality == pytest.approx(expected, rel=1e-6)


def test_quality_rule_without_a_lower_bound_lets_mu_be_zero() -> None:
    assert QualityRule(least=0.0)(observation(quality_violation=0.1)).quality == 0.0  # phi = <g_q, g_c>
    assert QualityRule(least=0.0)(observation(quality_violation=0.15)).quality == pytest.approx(0.1)


def test_quality_rule_weighs_conflict() -> None:
    """Gradients that disagree ask for more of the quality's: -<g_q, g_c> = 4 here."""
    seen = observation(cost_gradient=torch.tensor([-1.0, -2.0, 3.0]), quality_violation=0.0)
    assert QualityRule()(seen).quality == pytest.approx(4 / 5)


@pytest.mark.parametrize("violation", [0.0, 0.4, 1.1, 3.0])
def test_quality_rule_is_the_dynamic_barrier(violation: float) -> None:
    """Its step is the one nearest to g_c among those with <g_q, e> >= phi."""
    seen = observation(quality_violation=violation)
    rule = QualityRule(least=0.0)
    weights = rule(seen)
    step = weights.quality * seen.quality_gradient + weights.cost * seen.cost_gradient
    descent = float(step @ seen.quality_gradient)
    phi = rule.alpha * violation
    assert descent >= phi - 1e-5
    assert weights.quality == 0 or descent == pytest.approx(phi, rel=1e-5), "and no more than needed"


@pytest.mark.parametrize(
    "cost, expected",
    [
        (0.7, 0.0),  # at the budget: (0 - 1) / 10 < 0
        (0.1, 0.0),
        (1.0, 0.0),  # (.3 - 1) / 10 < 0: descending quality lowers the cost fast enough
    ],
)
def test_budget_rule_leaves_cost_alone_within_the_budget(cost: float, expected: float) -> None:
    assert BudgetRule(0.7)(observation(cost=cost)) == (1.0, expected)


def test_budget_rule() -> None:
    conflict = observation(quality_gradient=torch.tensor([2.0, 1.0, -1.0]), cost=0.9)  # <g_q, g_c> = -2
    assert BudgetRule(0.7)(conflict) == (1.0, pytest.approx((0.2 + 2) / 10))
    assert BudgetRule(0.7, alpha=10.0)(conflict) == (1.0, pytest.approx((2.0 + 2) / 10))
    assert BudgetRule(0.7, alpha=1e4)(conflict) == (1.0, MAX_MULTIPLIER)
    assert BudgetRule(0.9)(conflict) == (1.0, pytest.approx(2 / 10)), "at the budget the cost must not rise"


@pytest.mark.parametrize(
    "quality, expected",
    [(2.0, 0.0), (2.9, 0.0), (3.0, 0.0), (4.0, (2 - 1) / 10), (12.0, (10 - 1) / 10), (1e4, MAX_MULTIPLIER)],
)
def test_eq7_rule(quality: float, expected: float) -> None:
    """phi = q - c with c the least loss so far: 2."""
    assert Eq7Rule()(observation(quality=quality)) == (1.0, pytest.approx(expected))


@pytest.mark.parametrize("weight", [0.0, 0.2, 1.5])
def test_fixed_rule_looks_at_nothing(weight: float) -> None:
    worst = observation(quality_violation=9.0, quality=50.0, cost=1.0, cost_gradient=torch.full((3,), float("nan")))
    assert FixedRule(weight)(worst) == (1.0, weight)


@pytest.mark.parametrize("norm", [0.0, 1e-30, 1e-15])
def test_a_vanishing_norm_neither_divides_by_zero_nor_passes_the_cap(norm: float) -> None:
    vanishing = torch.tensor([norm, 0.0, 0.0])
    objective = torch.tensor([1.0, 2.0, 3.0])
    assert barrier_multiplier(0.5, vanishing, objective, 0.5) == MAX_MULTIPLIER
    assert barrier_multiplier(-0.5, vanishing, objective, 0.5) == 0.5
    assert barrier_multiplier(-0.5, vanishing, objective, 0.0) == 0.0
    assert barrier_multiplier(0.0, torch.zeros(3), objective, 0.5) == 0.5
    assert barrier_multiplier(0.0, torch.zeros(3), objective, 0.0) == 0.0


def test_the_multiplier_is_a_plain_number_between_its_bounds() -> None:
    generator = torch.Generator().manual_seed(0)
    seen = set()
    for _ in range(300):
        constraint, objective = torch.randn(2, 5, generator=generator) * torch.rand(2, 1, generator=generator) ** 3
        phi = float(torch.randn((), generator=generator))
        value = barrier_multiplier(phi, constraint, objective, 0.5)
        exact = (phi - constraint @ objective) / (constraint @ constraint)
        assert isinstance(value, float)
        assert_close(torch.tensor(value), exact.clamp(0.5, MAX_MULTIPLIER))
        seen.add("least" if value == 0.5 else "cap" if value == MAX_MULTIPLIER else "between")
    assert seen == {"least", "cap", "between"}
