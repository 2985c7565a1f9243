"""The weight rules of the constrained step (paper, section 3.3, Eq. 6 and 7).

Every rule gives the weights of one step e = w_q * g_q + w_c * g_c, descended: theta <- theta - gamma * e, where g_q is
the gradient of the expected quality loss and g_c that of the expected cost. Quality is a loss: lower is better.

| rule      | objective, constraint                    | weights                                        |
|-----------|------------------------------------------|------------------------------------------------|
| `quality` | least cost, quality loss within a bound  | w_c = 1, w_q = mu, phi = alpha (q - c)         |
| `budget`  | best quality, cost within a budget       | w_q = 1, w_c = lambda, phi = alpha (cost - b)  |
| `eq7`     | as printed: phi = q - c on the cost side | w_q = 1, w_c = lambda, c = least loss so far   |
| `fixed`   | ablation "-CO" of Table 8                | w_q = 1, w_c = lambda, a constant              |

`quality` and `budget` are the dynamic barrier of Gong, Liu and Liu (NeurIPS 2021) and of its opposite problem.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

RULES = ("quality", "budget", "eq7", "fixed")

#: Multipliers are capped: gradients estimated by score function are noisy, and their norms can all but vanish.
MAX_MULTIPLIER = 20.0


class Weights(NamedTuple):
    """Weights of the quality gradient and of the cost gradient."""

    quality: float
    cost: float


@dataclass(frozen=True)
class Observation:
    """What a rule sees of an update: averages over the whole effective batch.

    Attributes:
        quality_gradient: g_q, (P,).
        cost_gradient: g_c, (P,).
        quality_violation: q - c of rule `quality`: greedy path's loss over its bound (nats a token).
        quality: greedy path's loss q.
        best_quality: the least q so far, Eq. 7's "minimal loss".
        cost: greedy path's cost in (0, 1].
    """

    quality_gradient: Tensor
    cost_gradient: Tensor
    quality_violation: float
    quality: float
    best_quality: float
    cost: float


def barrier_multiplier(phi: float, constraint_gradient: Tensor, objective_gradient: Tensor, least: float) -> float:
    """max((phi - <g_constraint, g_objective>) / |g_constraint|^2, 0), kept within [least, `MAX_MULTIPLIER`]."""
    numerator = phi - float(constraint_gradient @ objective_gradient)
    squared_norm = float(constraint_gradient @ constraint_gradient)
    if numerator <= least * squared_norm:
        return least
    if numerator >= MAX_MULTIPLIER * squared_norm:  # also where the norm vanishes
        return MAX_MULTIPLIER
    return numerator / squared_norm


@dataclass(frozen=True)
class QualityRule:
    """Quality first, cost as far as it does not hurt (text around Eq. 6).

    mu has a lower bound: the greedy path's loss is a step function of theta, so violations show late, and without the
    bound the policy has gone too far by then.
    """

    alpha: float = 10.0
    least: float = 0.5

    def __call__(self, seen: Observation) -> Weights:
        phi = self.alpha * seen.quality_violation
        return Weights(barrier_multiplier(phi, seen.quality_gradient, seen.cost_gradient, self.least), 1.0)


@dataclass(frozen=True)
class BudgetRule:
    """Best quality subject to a budget on the computation ("constraint satisfaction on computation")."""

    budget: float
    alpha: float = 1.0

    def __call__(self, seen: Observation) -> Weights:
        phi = self.alpha * (seen.cost - self.budget)
        return Weights(1.0, barrier_multiplier(phi, seen.cost_gradient, seen.quality_gradient, 0.0))


@dataclass(frozen=True)
class Eq7Rule:
    """Eq. 7 and the line below it, as printed: raises lambda when quality is bad. Kept for comparison."""

    def __call__(self, seen: Observation) -> Weights:
        phi = seen.quality - seen.best_quality
        return Weights(1.0, barrier_multiplier(phi, seen.cost_gradient, seen.quality_gradient, 0.0))


@dataclass(frozen=True)
class FixedRule:
    """Eq. 4 with a constant lambda (Table 8, "-CO")."""

    weight: float

    def __call__(self, seen: Observation) -> Weights:
        return Weights(1.0, self.weight)
