"""How training tries decisions, and how the policy's gradient is estimated from what they led to.

| estimator        | an input tries                                          | its advantage is the credit of         |
|------------------|---------------------------------------------------------|----------------------------------------|
| `local`          | its greedy path with one decision changed               | that decision alone                    |
| `score-function` | every decision sampled, s ~ pi, a ~ eta (Eq. 2, 3, 5)   | all decisions that were sampled alike  |

With dozens of sublayers the paper's estimator drowns: a few of them cannot be spared, and whatever else the same path
skipped shares their blame. A path that differs in one place from the greedy one, whose loss is known, tells exactly
what that place is worth there: "local expectation gradients" (Titsias and Lazaro-Gredilla, 2015) with one variable
drawn for each input. It also trains the model on what it is going to run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from ..decisions import NUM_TOKEN_STRATEGIES, Decisions, DecisionSpace
from ..policy import Chooser, DecisionDistribution

ESTIMATORS = ("local", "score-function")
#: No decision is tried with less than this probability, relative to others, even with ``--policy-floor 0``.
LEAST_CHANCE = 1e-6


class Exploration(Chooser, Protocol):
    """A chooser of training, and what its choices are differentiated by."""

    def surrogate(self, distribution: DecisionDistribution, space: DecisionSpace, decisions: Decisions) -> Tensor:
        """(B,), whose gradient times an input's advantage estimates the policy's gradient.

        Args:
            distribution: of all columns, with gradient.
            decisions: what was chosen.
        """
        ...


class SampledPaths:
    """Every decision is sampled: s ~ pi(.|x), a ~ eta(.|x) (Eq. 2 and 3); differentiated by log pi, as in Eq. 5.

    Args:
        uniforms: float32 (B, num_sublayers + 1) in [0, 1), see `fairseq_switchdec.policy.input_uniforms`.
        keep_all: bool (B,), inputs that keep everything instead.
        floor: no choice is sampled with less than this probability.
        budgets: see `fairseq_switchdec.policy.Chooser`.
    """

    def __init__(self, uniforms: Tensor, keep_all: Tensor, floor: float, budgets: Tensor | None = None):
        self.budgets = budgets
        self.uniforms = uniforms
        self.keep_all = keep_all
        self.floor = floor

    def __call__(self, distribution: DecisionDistribution, columns: Tensor) -> tuple[Tensor, Tensor | None]:
        """`Exploration`."""
        device = distribution.sublayer_logits.device
        uniforms, keep_all = self.uniforms.to(device), self.keep_all.to(device)
        keep, tokens = distribution.sample(uniforms[:, columns.to(device)], uniforms[:, -1], self.floor)
        return or_keep_all(keep, tokens, keep_all)

    def surrogate(self, distribution: DecisionDistribution, space: DecisionSpace, decisions: Decisions) -> Tensor:
        """`Exploration`."""
        return distribution.log_prob(space, decisions, self.floor)


class OneDeviation:
    """The greedy path with one decision changed, drawn as likely as the policy itself deviates there.

    With d_c the probability of another choice than the greedy one at place c (a sublayer, or one of the other token
    strategies), place c is drawn with probability v_c / V, v_c = max(d_c, floor), V their sum. Then
    V / v_c * grad d_c * (f(changed) - f(greedy)) is, expected, sum_c grad d_c * (f(changed at c) - f(greedy)): the
    gradient of E f but for paths that deviate twice.

    Args:
        uniforms: float32 (B, 2 or more) in [0, 1): the first chooses a place, the second a stage of a policy that has
            several (a stage is as likely as it has open decisions).
        keep_all: bool (B,), inputs that keep everything instead.
        floor: see above.
        space: whose open decisions are tried.
        stages: of the policy.
        budgets: see `fairseq_switchdec.policy.Chooser`.
    """

    def __init__(
        self,
        uniforms: Tensor,
        keep_all: Tensor,
        floor: float,
        space: DecisionSpace,
        stages: Sequence[Tensor],
        budgets: Tensor | None = None,
    ):
        self.budgets = budgets
        self.uniforms = uniforms
        self.keep_all = keep_all
        self.floor = max(floor, LEAST_CHANCE)
        self.space = space
        opened = space.open_sublayers()
        counts = [int(opened[columns].sum()) for columns in stages]
        counts[0] += (NUM_TOKEN_STRATEGIES - 1) * space.token_open
        shares = torch.tensor(counts, dtype=torch.double) / sum(counts)
        self.stage = draw(shares.expand(len(uniforms), -1), uniforms[:, 1])
        self.stage_share = shares[self.stage]
        self.first_columns = [int(columns[0]) for columns in stages]
        #: Of each input: where it deviates, a column or ``num_sublayers`` + a token strategy; and V / v_c.
        self.place = torch.zeros(len(uniforms), dtype=torch.long)
        self.weight = torch.zeros(len(uniforms), dtype=torch.double)

    def __call__(self, distribution: DecisionDistribution, columns: Tensor) -> tuple[Tensor, Tensor | None]:
        """`Exploration`."""
        device = distribution.sublayer_logits.device
        keep, tokens = distribution.greedy()
        greedy_keep, greedy_tokens = keep.cpu(), None if tokens is None else tokens.cpu()
        chance = self.chances(distribution, columns, greedy_keep, greedy_tokens)
        here = self.stage == self.first_columns.index(int(columns[0]))
        chance[~here, 0] = 1.0  # of those that deviate elsewhere: anything that can be drawn from
        place = draw(chance, self.uniforms[:, 0])
        weight = chance.sum(1) / chance.gather(1, place.unsqueeze(1)).squeeze(1) / self.stage_share
        count = len(columns)
        rows = (here & (place < count)).nonzero().squeeze(1)
        greedy_keep[rows, place[rows]] ^= True
        if greedy_tokens is not None:
            greedy_tokens = torch.where(here & (place >= count), place - count, greedy_tokens)
        flat = torch.cat([columns.cpu(), self.space.num_sublayers + torch.arange(NUM_TOKEN_STRATEGIES)])
        self.place[here], self.weight[here] = flat[place[here]], weight[here]
        chosen_tokens = None if greedy_tokens is None else greedy_tokens.to(device)
        return or_keep_all(greedy_keep.to(device), chosen_tokens, self.keep_all.to(device))

    def chances(
        self, distribution: DecisionDistribution, columns: Tensor, keep: Tensor, tokens: Tensor | None
    ) -> Tensor:
        """v_c of each place, float64 (B, n) or (B, n + 7) on the CPU; 0 where closed, and for the greedy choice."""
        probability, token_probability = (None if p is None else p.double().cpu() for p in distribution.probabilities())
        assert probability is not None
        deviating = torch.where(keep, 1 - probability, probability).clamp(min=self.floor)
        chance = deviating * self.space.open_sublayers()[columns.cpu()]
        if token_probability is None or tokens is None:
            return chance
        others = token_probability.clamp(min=self.floor).scatter(1, tokens.unsqueeze(1), 0.0)
        return torch.cat([chance, others * self.space.token_open], dim=1)

    def surrogate(self, distribution: DecisionDistribution, space: DecisionSpace, decisions: Decisions) -> Tensor:
        """`Exploration`."""
        device = distribution.sublayer_logits.device
        kept, _ = space.flat(decisions)
        keep, tokens = distribution.probabilities()
        chosen = torch.where(kept.to(device), keep, 1 - keep)
        if tokens is not None:
            chosen = torch.cat([chosen, tokens], dim=1)
        return chosen.gather(1, self.place.to(device).unsqueeze(1)).squeeze(1) * self.weight.to(chosen)


def draw(chances: Tensor, uniforms: Tensor) -> Tensor:
    """Indices int64 (B,) drawn with probability proportional to float64 (B, n), by numbers in [0, 1)."""
    steps = chances.cumsum(1)
    points = uniforms.double() * steps[:, -1]
    return torch.searchsorted(steps, points.unsqueeze(1), right=True).squeeze(1).clamp(max=chances.size(1) - 1)


def or_keep_all(keep: Tensor, tokens: Tensor | None, keep_all: Tensor) -> tuple[Tensor, Tensor | None]:
    """Some inputs keep everything instead."""
    return keep | keep_all.unsqueeze(1), None if tokens is None else tokens.masked_fill(keep_all, 0)
