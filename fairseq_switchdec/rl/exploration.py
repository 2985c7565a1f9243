"""How training tries decisions, and how the policy's gradient is estimated from what they led to.

| estimator        | an input tries                                          | its advantage is the credit of         |
|------------------|---------------------------------------------------------|----------------------------------------|
| `local`          | its greedy path with one decision changed               | that decision alone                    |
| `pooled`         | the same, or its greedy path itself                     | that decision, where it is unlike what |
|                  |                                                         | all tries of it together have found    |
| `score-function` | every decision sampled, s ~ pi, a ~ eta (Eq. 2, 3, 5)   | all decisions that were sampled alike  |

With dozens of sublayers the paper's estimator drowns: a few of them cannot be spared, and whatever else the same path
skipped shares their blame. A path that differs in one place from the greedy one, whose loss is known, tells exactly
what that place is worth there: "local expectation gradients" (Titsias and Lazaro-Gredilla, 2015) with one variable
drawn for each input. It also trains the model on what it is going to run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from ..decisions import NUM_TOKEN_STRATEGIES, Decisions, DecisionSpace
from ..policy import INITIAL_KEEP, Chooser, DecisionDistribution
from .effects import expected_effect, num_effects

ESTIMATORS = ("local", "pooled", "score-function")
#: No decision is tried with less than this probability, relative to others, even with ``--policy-floor 0``.
LEAST_CHANCE = 1e-6
#: What is known of all inputs together makes no decision surer than a new policy's: neither the loss that is expected
#: nor the cost pushes any further than this. Where a decision is all but certain for every input, tries can no longer
#: show that it is right for most of them only.
LEAST_DOUBT = 0.999 * (1 - INITIAL_KEEP)


@dataclass(frozen=True)
class Tries:
    """What the inputs of a micro-batch tried, and what came of it.

    Attributes:
        space: the decisions that are open.
        decisions: the paths that were tried.
        advantages: float32 (B, 2), loss (nats a token) and cost of the tried path minus the greedy one's.
        effects: float64 (D,), what each decision was found to lose so far, `effects.fit`.
        expected_cost: of probabilities of running, (B, num_sublayers), and of the token strategies, (B, 7) or None:
            float64 (B,), with gradient.
    """

    space: DecisionSpace
    decisions: Decisions
    advantages: Tensor
    effects: Tensor
    expected_cost: Callable[[Tensor, Tensor | None], Tensor]


class Exploration(Chooser, Protocol):
    """A chooser of training, and how the policy's gradient is estimated from its choices.

    Attributes:
        explored: bool (B,), inputs that try something.
    """

    explored: Tensor

    def objectives(self, distribution: DecisionDistribution, tries: Tries) -> Tensor:
        """(B, 3), whose gradients estimate each input's: of the expected loss as far as it was known before, of the
        expected cost, and of what the tries of the inputs that `explored` tell of the loss besides.

        Args:
            distribution: of all columns, with gradient.
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
        self.explored = ~keep_all
        self.floor = floor

    def __call__(self, distribution: DecisionDistribution, columns: Tensor) -> tuple[Tensor, Tensor | None]:
        """`Exploration`."""
        device = distribution.sublayer_logits.device
        uniforms, keep_all = self.uniforms.to(device), self.keep_all.to(device)
        keep, tokens = distribution.sample(uniforms[:, columns.to(device)], uniforms[:, -1], self.floor)
        return or_keep_all(keep, tokens, keep_all)

    def objectives(self, distribution: DecisionDistribution, tries: Tries) -> Tensor:
        """`Exploration`."""
        log_prob = distribution.log_prob(tries.space, tries.decisions, self.floor)
        return told_by_tries(log_prob, tries.advantages)


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
        deviating: bool (B,), inputs that change a decision, where the others run their greedy path; None = all.
    """

    def __init__(
        self,
        uniforms: Tensor,
        keep_all: Tensor,
        floor: float,
        space: DecisionSpace,
        stages: Sequence[Tensor],
        budgets: Tensor | None = None,
        deviating: Tensor | None = None,
    ):
        self.budgets = budgets
        self.uniforms = uniforms
        self.keep_all = keep_all
        self.explored = ~keep_all if deviating is None else ~keep_all & deviating
        self.floor = max(floor, LEAST_CHANCE)
        self.space = space
        weights = self.weights_of(stages)
        shares = weights / weights.sum()
        self.stage = draw(shares.expand(len(uniforms), -1), uniforms[:, 1])
        self.stage_share = shares[self.stage]
        self.first_columns = [int(columns[0]) for columns in stages]
        #: Of each input: where it deviates, a column or ``num_sublayers`` + a token strategy; and V / v_c.
        self.place = torch.zeros(len(uniforms), dtype=torch.long)
        #: And what it changed, as `effects.skips` counts it.
        self.changed = torch.zeros(len(uniforms), num_effects(space), dtype=torch.double)
        self.weight = torch.zeros(len(uniforms), dtype=torch.double)

    def weights_of(self, stages: Sequence[Tensor]) -> Tensor:
        """How likely a deviation in each stage is, relative to the others: float64 (S,)."""
        opened = self.space.open_sublayers()
        counts = torch.stack([opened[columns].sum() for columns in stages]).double()
        counts[0] += (NUM_TOKEN_STRATEGIES - 1) * self.space.token_open
        return counts

    def __call__(self, distribution: DecisionDistribution, columns: Tensor) -> tuple[Tensor, Tensor | None]:
        """`Exploration`."""
        device = distribution.sublayer_logits.device
        keep, tokens = distribution.greedy()
        greedy_keep, greedy_tokens = keep.cpu(), None if tokens is None else tokens.cpu()
        chance = self.chances(distribution, columns, greedy_keep, greedy_tokens)
        here = self.explored & (self.stage == self.first_columns.index(int(columns[0])))
        chance[~here, 0] = 1.0  # of those that deviate elsewhere: anything that can be drawn from
        place = draw(chance, self.uniforms[:, 0])
        weight = chance.sum(1) / chance.gather(1, place.unsqueeze(1)).squeeze(1) / self.stage_share
        count = len(columns)
        flat = torch.cat([columns.cpu(), self.space.num_sublayers + torch.arange(NUM_TOKEN_STRATEGIES)])
        self.place[here], self.weight[here] = flat[place[here]], weight[here]
        rows = (here & (place < count)).nonzero().squeeze(1)
        self.changed[rows, flat[place[rows]]] = torch.where(greedy_keep[rows, place[rows]], 1.0, -1.0).double()
        greedy_keep[rows, place[rows]] ^= True
        if greedy_tokens is not None:
            rows = (here & (place >= count)).nonzero().squeeze(1)
            strategies = self.changed[:, self.space.num_sublayers :]
            strategies[rows, greedy_tokens[rows]] = -1.0
            strategies[rows, place[rows] - count] = 1.0
            strategies[:, 0] = 0.0
            greedy_tokens[rows] = place[rows] - count
        chosen_tokens = None if greedy_tokens is None else greedy_tokens.to(device)
        return or_keep_all(greedy_keep.to(device), chosen_tokens, self.keep_all.to(device))

    def chances(
        self, distribution: DecisionDistribution, columns: Tensor, keep: Tensor, tokens: Tensor | None
    ) -> Tensor:
        """v_c of each place, float64 (B, n) or (B, n + 7) on the CPU; 0 where closed, and for the greedy choice."""
        probability, token_probability = (None if p is None else p.double().cpu() for p in distribution.probabilities())
        assert probability is not None
        deviating = torch.where(keep, 1 - probability, probability).clamp(min=self.floor)
        deviating = deviating * self.space.open_sublayers()[columns.cpu()]
        if token_probability is None or tokens is None:
            return deviating
        others = token_probability.clamp(min=self.floor).scatter(1, tokens.unsqueeze(1), 0.0)
        return torch.cat([deviating, others * self.space.token_open], dim=1)

    def objectives(self, distribution: DecisionDistribution, tries: Tries) -> Tensor:
        """`Exploration`."""
        return told_by_tries(self.chance(distribution, tries), tries.advantages)

    def chance(self, distribution: DecisionDistribution, tries: Tries) -> Tensor:
        """Probability of what was changed, weighed by how rarely it is: (B,), with gradient."""
        device = distribution.sublayer_logits.device
        kept, _ = tries.space.flat(tries.decisions)
        keep, tokens = distribution.probabilities()
        chosen = torch.where(kept.to(device), keep, 1 - keep)
        if tokens is not None:
            chosen = torch.cat([chosen, tokens], dim=1)
        return chosen.gather(1, self.place.to(device).unsqueeze(1)).squeeze(1) * self.weight.to(chosen)


class PooledDeviation(OneDeviation):
    """One decision changed, and what all tries together have found of each (`effects.fit`).

    What they found, a model m of f, is differentiated exactly, and so is the expected cost, which needs no tries;
    f(changed) - f(greedy) - m estimates the rest. (A decision of a policy with stages also changes what later stages
    read: the tries' losses hold that, the exact cost does not.)

    A kind of decision is drawn first, attention, feed-forward, cross-attention and tokens alike, then a place c of that
    kind with probability v_c / V: else the one decision on tokens would be tried as rarely as one of dozens of
    sublayers. (With stages: a stage and a kind, by the kind's decisions there; then a place.)
    """

    #: Float64: (D, kinds), what is open and of which kind; (S, kinds), a kind's share of its decisions in each stage.
    kind: Tensor
    share: Tensor

    def weights_of(self, stages: Sequence[Tensor]) -> Tensor:
        """`OneDeviation`."""
        space = self.space
        kind = torch.arange(space.num_sublayers) // space.num_layers
        kind = one_hot(torch.cat([kind, kind.new_full((NUM_TOKEN_STRATEGIES,), int(kind[-1]) + 1)]))
        opened = torch.cat([space.open_sublayers(), torch.full((NUM_TOKEN_STRATEGIES,), space.token_open)])
        self.kind = (kind * opened.unsqueeze(1)).double()
        counts = torch.stack([self.kind[columns].sum(0) for columns in stages])
        counts[0] += self.kind[space.num_sublayers :].sum(0)
        self.share = counts / counts.sum(0).clamp(min=1)
        return self.share.sum(1)

    def chances(
        self, distribution: DecisionDistribution, columns: Tensor, keep: Tensor, tokens: Tensor | None
    ) -> Tensor:
        """`OneDeviation`, summing up to each kind's share in this stage."""
        chances = super().chances(distribution, columns, keep, tokens)
        kind = torch.cat([self.kind[columns.cpu()], self.kind[self.space.num_sublayers :]])[: chances.size(1)]
        share = self.share[self.first_columns.index(int(columns[0]))]
        return chances * (share / (chances @ kind).clamp(min=LEAST_CHANCE) @ kind.T)

    def objectives(self, distribution: DecisionDistribution, tries: Tries) -> Tensor:
        """`Exploration`."""
        chance = self.chance(distribution, tries)
        unexplained = tries.advantages[:, 0].cpu().double() - self.changed @ tries.effects
        harm, gain = tries.effects.clamp(min=0), tries.effects.clamp(max=0)
        towards_keeping, away = doubtful(distribution, 0.0, 1 - LEAST_DOUBT), doubtful(distribution, LEAST_DOUBT, 1.0)
        loss = expected_effect(harm, *towards_keeping) + expected_effect(gain, *away)
        cost = tries.expected_cost(*away)
        return torch.stack([loss, cost.to(chance), chance * unexplained.to(chance)], dim=1)


def told_by_tries(likelihood: Tensor, advantages: Tensor) -> Tensor:
    """`Exploration.objectives` of an estimator that knows nothing but the tries: (B, 3)."""
    loss, cost = (advantages.to(likelihood) * likelihood.unsqueeze(1)).unbind(1)
    return torch.stack([torch.zeros_like(loss), cost, loss], dim=1)


def doubtful(distribution: DecisionDistribution, least: float, most: float) -> tuple[Tensor, Tensor | None]:
    """Probabilities of keeping each sublayer, (B, n), and of the token strategies, (B, 7), with gradient only where
    keeping, and not dropping as a strategy does, is between ``least`` and ``most`` likely.
    """
    keep, tokens = distribution.probabilities()
    if tokens is not None:
        dropping = tokens[:, 1:].clamp(1 - most, 1 - least)
        tokens = torch.cat([1 - dropping.sum(1, keepdim=True), dropping], dim=1)
    return keep.clamp(least, most), tokens


def draw(chances: Tensor, uniforms: Tensor) -> Tensor:
    """Indices int64 (B,) drawn with probability proportional to float64 (B, n), by numbers in [0, 1)."""
    steps = chances.cumsum(1)
    points = uniforms.double() * steps[:, -1]
    return torch.searchsorted(steps, points.unsqueeze(1), right=True).squeeze(1).clamp(max=chances.size(1) - 1)


def or_keep_all(keep: Tensor, tokens: Tensor | None, keep_all: Tensor) -> tuple[Tensor, Tensor | None]:
    """Some inputs keep everything instead."""
    return keep | keep_all.unsqueeze(1), None if tokens is None else tokens.masked_fill(keep_all, 0)
