"""The weight rules of the constrained step (paper, section 3.3, Eq. 6 and 7).

Every rule gives the weights of one step e = w_q * g_q + w_c * g_c, descended: theta <- theta - gamma * e, where g_q is
the gradient of the expected quality loss and g_c that of the expected cost. Quality is a loss: lower is better. Adam is
given e / (w_q + w_c): what it takes for rounding then does not depend on what a nat weighs.

| rule      | what it is for                           | weights                                       |
|-----------|------------------------------------------|-----------------------------------------------|
| `quality` | least cost, quality loss q within c      | w_c = 1, w_q = price; constraint q <= c       |
| `budget`  | best quality, cost within a budget       | w_c = 1, w_q = price; constraint cost <= b    |
| `eq7`     | as printed: phi = q - c on the cost side | w_q = 1, w_c = lambda, c = least loss so far  |
| `fixed`   | ablation "-CO" of Table 8                | w_q = 1, w_c = lambda, a constant             |

A multiplier as in Eq. 7 does not hold a constraint: |g|^2 grows with the number of decisions and phi does not, the
gradients are noisy, and the greedy path is a step function of theta, so that a violation shows late and many decisions
flip at once. `quality` and `budget` therefore meet theirs by *caution*, one number that
`fairseq_switchdec.rl.PolicyLearner` adds to the logits of all decisions to keep: the one direction of theta that surely
leads there, followed as far as the constraint is from being met ("to satisfy the constraint as soon as possible",
section 3.3). The gradients tell the decisions apart, and the price of quality follows the caution that is needed:
from 1 or, of a single budget, from half of the one at which what is known of the decisions would use it up
(`fairseq_switchdec.rl.effects`). With a dial, every budget that can be asked for has a caution and a price of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..dial import Dial
from .effects import filling_price

RULES = ("quality", "budget", "eq7", "fixed")

#: Multipliers of `eq7` are capped: gradients estimated by score function are noisy, and their norms can all but vanish.
MAX_MULTIPLIER = 20.0
#: What a nat a token weighs while there is no caution, where all of the computation weighs 1.
PRICE = 1.0
#: Of the price at which what is known would just use up a budget: the decisions that this takes are then worth it
#: clearly, not barely, and found sooner.
MARGIN = 0.5
#: Negative caution lowers the price by this share of what positive caution raises it by, on a logarithmic scale.
FALL = 0.25
#: The price rises or falls by at most this power of e.
LARGEST_EXPONENT = 5.0
#: A loss cannot be held more closely than by this share of it.
LEAST_ALLOWANCE = 0.01
#: The unit of a cost's distance from its budget.
BUDGET_ALLOWANCE = 0.05


class Weights(NamedTuple):
    """What a rule says of an update.

    Attributes:
        quality: weight of the quality gradient.
        cost: weight of the cost gradient.
        violation: how far the constraint is from being met, in units of what it allows; negative within it. Of a dial,
            the constraint of every column, (C,).
        remedy: what meets it: 1, keep more; -1, keep less; 0, there is no constraint. Of a dial, (C,).
    """

    quality: float
    cost: float
    violation: float | Tensor = 0.0
    remedy: int | Tensor = 0

    @property
    def ratio(self) -> float:
        """Lambda of Eq. 4: how many nats a token weigh as much as all of the computation."""
        return self.cost / max(self.quality, 1e-8)


@dataclass(frozen=True)
class Observation:
    """What a rule sees of an update: averages over the whole effective batch.

    Attributes:
        quality_gradient: g_q, (P,).
        cost_gradient: g_c, (P,).
        quality_violation: q - c of rule `quality`: greedy path's loss over its bound (nats a token).
        quality: greedy path's loss q.
        best_quality: the least q so far, Eq. 7's "minimal loss".
        cost: in (0, 1], the greedy path's and what the policy expects, weighed as `PolicyLearner.step` says: (1,) or,
            of a dial, (K,), what it would be if all inputs were asked for each knot.
        caution: logits by which all updates so far have raised every decision to keep, without what was given at once:
            (1,), or (C,) by the dial's column.
        effects: float64 (D,), what each decision is known to lose, `effects.fit`.
        parts: float64 (7, 1 + num_sublayers), what the cost adds up from, `cost.parts_of_cost`.
    """

    quality_gradient: Tensor
    cost_gradient: Tensor
    quality_violation: float
    quality: float
    best_quality: float
    cost: Tensor
    caution: Tensor
    effects: Tensor
    parts: Tensor


def price(caution: Tensor) -> Tensor:
    """Weight of the quality gradient where the cost's is 1, of any shape.

    It grows as the odds of keeping were raised, and falls more slowly as they were lowered: what the policy tries at a
    low price is what the model is trained on.
    """
    exponent = torch.where(caution > 0, caution, FALL * caution).double()
    return PRICE * exponent.clamp(-LARGEST_EXPONENT, LARGEST_EXPONENT).exp()


def barrier_multiplier(phi: float, constraint_gradient: Tensor, objective_gradient: Tensor) -> float:
    """max((phi - <g_constraint, g_objective>) / |g_constraint|^2, 0), at most `MAX_MULTIPLIER`."""
    numerator = phi - float(constraint_gradient @ objective_gradient)
    squared_norm = float(constraint_gradient @ constraint_gradient)
    if numerator <= 0:
        return 0.0
    if numerator >= MAX_MULTIPLIER * squared_norm:  # also where the norm vanishes
        return MAX_MULTIPLIER
    return numerator / squared_norm


@dataclass(frozen=True)
class QualityRule:
    """Quality first, cost as far as it does not hurt (text around Eq. 6).

    Args:
        slack: share of the keep-all path's loss by which the greedy path's may exceed it.
        slack_nats: and by this many nats a token.
    """

    slack: float = 0.05
    slack_nats: float = 0.0

    def __call__(self, seen: Observation) -> Weights:
        return Weights(float(price(seen.caution)), 1.0, self.violation(seen), remedy=1)

    def violation(self, seen: Observation) -> float:
        """In [-1, 2], see `Weights`."""
        allowed = max(self.slack * seen.quality + self.slack_nats, LEAST_ALLOWANCE * seen.quality, 1e-6)
        return min(max(seen.quality_violation / allowed, -1.0), 2.0)


@dataclass(frozen=True)
class BudgetRule:
    """Best quality subject to a budget on the computation ("constraint satisfaction on computation"): it is used up."""

    budget: float

    def __call__(self, seen: Observation) -> Weights:
        violation = (float(seen.cost) - self.budget) / BUDGET_ALLOWANCE
        known = MARGIN * filling_price(seen.effects, seen.parts, torch.tensor([self.budget], dtype=torch.float64))
        return Weights(float(known * price(seen.caution)), 1.0, min(max(violation, -1.0), 1.0), remedy=-1)


@dataclass(frozen=True)
class DialRule:
    """Rule `budget` for every knot of a dial at once and, where it has that, rule `quality` for `AUTO`.

    What an input's quality gradient weighs, the `price` of what it was asked for, is in the gradient already.
    """

    dial: Dial
    quality: QualityRule

    def __call__(self, seen: Observation) -> Weights:
        violation = ((seen.cost.double() - self.dial.knots.double()) / BUDGET_ALLOWANCE).clamp(-1, 1)
        remedy = torch.full_like(violation, -1)
        if self.dial.auto:
            violation = torch.cat([violation, violation.new_tensor([self.quality.violation(seen)])])
            remedy = torch.cat([remedy, remedy.new_ones(1)])
        return Weights(1.0, 1.0, violation, remedy)


@dataclass(frozen=True)
class Eq7Rule:
    """Eq. 7 and the line below it, as printed: raises lambda when quality is bad. Kept for comparison."""

    def __call__(self, seen: Observation) -> Weights:
        phi = seen.quality - seen.best_quality
        return Weights(1.0, barrier_multiplier(phi, seen.cost_gradient, seen.quality_gradient))


@dataclass(frozen=True)
class FixedRule:
    """Eq. 4 with a constant lambda (Table 8, "-CO")."""

    weight: float

    def __call__(self, seen: Observation) -> Weights:
        return Weights(1.0, self.weight)
