"""What budgets on the computation are held against in training."""

from __future__ import annotations

from torch import Tensor

from ..config import LearningOptions, flops_budgets
from ..cost import Lengths, Prices, cost, expected_cost, least_cost
from ..errors import UserError
from ..policy import SwitchPolicy


def knot_costs(policy: SwitchPolicy, prices: Prices, lengths: Lengths, features: Tensor) -> tuple[Tensor, Tensor]:
    """Costs of the greedy path and those that the policy expects, if all inputs were asked for each knot of the dial:
    float64 (K,) each, summed over the inputs.

    Args:
        features: (B, stages, D); with ``--switch-per-layer`` those of the path that was tried.
    """
    assert policy.dial is not None
    knots, inputs = policy.dial.knots, len(features)
    distribution = policy(features.repeat(len(knots), 1, 1), knots.repeat_interleave(inputs))
    lengths = lengths.repeat(len(knots))
    greedy = cost(prices, policy.space.decisions(*distribution.greedy()), lengths, policy.flops())
    expected = expected_cost(prices, policy.space, *distribution.probabilities(), lengths, policy.flops())
    return greedy.view(-1, inputs).sum(1), expected.view(-1, inputs).sum(1)


def check_reachable(options: LearningOptions, policy: SwitchPolicy, prices: Prices, lengths: Lengths) -> None:
    """Refuse a budget that no path of a batch keeps within.

    Raises:
        UserError: with what always runs.
    """
    if options.policy_rule != "budget" and policy.dial is None:
        return
    budget, _ = flops_budgets(options)
    least = float(least_cost(prices, policy.space, lengths, policy.flops()).mean())
    if budget < least:
        raise UserError(
            f"--policy-flops-budget {options.policy_flops_budget}: what always runs costs {least:.3f} of these "
            "inputs' keep-all path: ask for more"
        )
