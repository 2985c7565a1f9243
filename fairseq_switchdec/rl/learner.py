"""The policy's side of Algorithm 1: accumulate an update's evidence, weigh it by a rule, take one Adam step."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

from ..decisions import NUM_TOKEN_STRATEGIES, DecisionSpace
from ..policy import Float32Module, SwitchPolicy
from .effects import fit, num_effects
from .rules import Observation, Weights

logger = logging.getLogger(__name__)

#: Decay of the averages over updates: of gradients and losses, which are noisy; of costs, which are not, and by which
#: caution overshoots if they are old; and of what is known of each decision, which changes as the model learns.
AVERAGE_DECAY, COST_DECAY, EFFECT_DECAY = 0.9, 0.5, 0.98
AVERAGES = ("mean_gradients", "mean_losses", "mean_costs", "mean_parts", "mean_weights")
#: An element of the gradient that is rounding alone must not be scaled up to a whole step.
ADAM_BETAS, ADAM_EPS = (0.9, 0.98), 1e-5
#: How fast caution moves, in logits an update, as a multiple of the policy's learning rate; and how far at once.
CAUTION_PACE, CAUTION_AT_ONCE = 25.0, 1.0


class LearnerState(Float32Module):
    """What the learner must not forget between a checkpoint and its resumption, as buffers saved with the model.

    (fairseq saves a task's state but does not load it back on resuming.) ``P`` policy parameters, ``S`` stages,
    ``F`` features, ``D`` decisions (`effects.num_effects`), ``K`` costs that are held: one, or at every knot of a dial.
    """

    adam_step: Tensor
    exp_avg: Tensor
    exp_avg_sq: Tensor
    mean_gradients: Tensor
    surveyed: Tensor
    mean_losses: Tensor
    mean_costs: Tensor
    mean_parts: Tensor
    mean_weights: Tensor
    effect_products: Tensor
    effect_losses: Tensor
    best_quality: Tensor
    weights: Tensor
    caution: Tensor
    feature_sum: Tensor
    feature_square_sum: Tensor
    feature_count: Tensor

    def __init__(self, policy: SwitchPolicy):
        super().__init__()
        parameters = sum(parameter.numel() for parameter in policy.parameters())
        costs, cautions = (1, 1) if policy.dial is None else (len(policy.dial.knots), policy.dial.size)
        self.register_buffer("adam_step", torch.zeros(()))
        self.register_buffer("exp_avg", torch.zeros(parameters))
        self.register_buffer("exp_avg_sq", torch.zeros(parameters))
        # g_q as far as it was known before, g_c, and what tries tell of g_q besides.
        self.register_buffer("mean_gradients", torch.zeros(3, parameters))
        self.register_buffer("mean_losses", torch.zeros(2))  # q - c, q
        self.register_buffer("mean_costs", torch.zeros(2, costs))  # of the greedy path, and as expected
        parts = NUM_TOKEN_STRATEGIES, 1 + policy.space.num_sublayers
        self.register_buffer("mean_parts", torch.zeros(parts, dtype=torch.float64))
        # Of the gradients that are known, of what tries tell, of q - c, of q, of costs, of their parts.
        self.register_buffer("mean_weights", torch.zeros(6))
        # What was found of each decision, see `effects.fit`, sums of thousands of tries; and the inputs that tried
        # every token strategy.
        decisions = num_effects(policy.space)
        self.register_buffer("effect_products", torch.zeros(decisions, decisions, dtype=torch.float64))
        self.register_buffer("effect_losses", torch.zeros(decisions, dtype=torch.float64))
        self.register_buffer("surveyed", torch.zeros(()))
        self.register_buffer("best_quality", torch.empty(()))
        self.register_buffer("weights", torch.ones(2))  # the rule's last ones: quality, cost
        # Logits: what lasts, and what was added at once; of a dial, by column.
        self.register_buffer("caution", torch.zeros(2) if policy.dial is None else torch.zeros(2, cautions))
        # Sums of thousands of squares, of which the variance keeps a small difference.
        self.register_buffer("feature_sum", torch.zeros_like(policy.feature_mean, dtype=torch.float64))
        self.register_buffer("feature_square_sum", torch.zeros_like(policy.feature_mean, dtype=torch.float64))
        self.register_buffer("feature_count", torch.zeros(()))
        self.restart()

    def restart(self) -> None:
        """Begin a new training: forget Adam's moments, the averages and the weights. The features' statistics belong
        to the trained policy and stay.
        """
        known = ("effect_products", "effect_losses", "surveyed")
        for name in ("adam_step", "exp_avg", "exp_avg_sq", *AVERAGES, *known, "caution"):
            getattr(self, name).zero_()
        # Not infinite: fairseq's moving average of a model multiplies every buffer by a decay, which may be 0.
        self.best_quality.fill_(torch.finfo(torch.float32).max)
        self.weights.fill_(1.0)

    def effects(self, space: DecisionSpace) -> Tensor:
        """What each decision was found to lose, nats a token: float64 (D,) on the CPU."""
        return fit(space, self.effect_products, self.effect_losses)


#: Numbers of `Evidence`, in the order of its `Evidence.totals`; after them its costs.
SCALARS = ("decided", "sampled", "surveyed", "violation", "compared", "quality", "inputs")


@dataclass(frozen=True)
class Evidence:
    """What one micro-batch adds to an update; sums over its inputs, so that any split of a batch adds up to the same.

    Attributes:
        gradients: (3, P), `policy_gradients` for quality as far as it was known before and for cost, over the
            ``decided`` inputs, and for what tries tell of quality besides, over the ``sampled`` ones.
        half: (3, P), the same over those of them with an odd id: how far the two halves of an update disagree says how
            noisy its gradients are.
        decided: inputs that ran a path of the policy's.
        sampled: those of them that tried another one than the greedy path.
        surveyed: inputs that tried every token strategy.
        violation: sum of q - c over the ``compared`` inputs, whose keep-all loss is known.
        compared: number of those.
        quality: sum of the greedy path's loss, nats a token, over ``inputs``.
        cost: (K,), sum of the greedy path's cost over ``inputs``: one or, of a dial, if they were asked for each knot.
        expected_cost: (K,), as much of the cost that the policy's probabilities expect.
        products: float64 (D, D), see `effects.fit`, over the ``sampled`` and the ``surveyed`` inputs; with
        losses: float64 (D,).
        parts: float64 (7, 1 + num_sublayers), sum of `cost.parts_of_cost` over ``inputs``; 0 but for a single budget.
        inputs: all inputs of the micro-batch.
        features: (inputs, S, F).
    """

    gradients: Tensor
    half: Tensor
    decided: int
    sampled: int
    surveyed: int
    violation: float
    compared: int
    quality: float
    cost: Tensor
    expected_cost: Tensor
    products: Tensor
    losses: Tensor
    parts: Tensor
    inputs: int
    features: Tensor

    def totals(self) -> Tensor:
        """Everything in one float64 vector that can be added up over micro-batches and ranks.

        In double precision the order of the additions leaves no trace in the policy's float32: a batch on one process
        and the same batch on eight move it alike. Adam would scale up what rounding leaves of a vanishing gradient.
        """
        features = self.features.double()
        scalars = [getattr(self, name) for name in SCALARS]
        sums = (self.cost, self.expected_cost, self.products, self.losses, self.parts, self.gradients, self.half)
        parts = (torch.tensor(scalars, dtype=torch.float64), *sums, features.sum(0), features.square().sum(0))
        return torch.cat([part.to(features).flatten() for part in parts])


class PolicyLearner:
    """theta <- theta - gamma * e (Eq. 6), with gradients of the whole effective batch.

    Args:
        policy: its parameters are moved in place.
        state: averages and optimizer moments, see `LearnerState`.
        rule: weights of the two gradients (`fairseq_switchdec.rl.rules`).
        base_rate: the learning rate before it falls, at which the constraint is met to the end.
        statistics_inputs: the policy stands still until its features are standardized by this many training inputs.
    """

    def __init__(
        self,
        policy: SwitchPolicy,
        state: LearnerState,
        rule: Callable[[Observation], Weights],
        base_rate: float,
        statistics_inputs: int = 3000,
    ):
        self.policy = policy
        self.state = state
        self.rule = rule
        self.statistics_inputs = statistics_inputs
        self.base_rate = base_rate
        self.totals: Tensor | None = None
        # Told by the policy, not by the count: a trained policy keeps the statistics it was trained with.
        self.standardized = bool(policy.feature_std.ne(1).any())
        self.flat = nn.Parameter(parameters_to_vector(policy.parameters()).detach().clone())
        self.adam = torch.optim.Adam([self.flat], betas=ADAM_BETAS, eps=ADAM_EPS)
        # Adam moves these in place, so the buffers are its state, saved and restored with the model.
        self.adam.state[self.flat] = {
            "step": state.adam_step,
            "exp_avg": state.exp_avg,
            "exp_avg_sq": state.exp_avg_sq,
        }

    def reset(self) -> None:
        """Forget what was accumulated: a new update begins (or the last one was skipped)."""
        self.totals = None

    def accumulate(self, evidence: Evidence) -> None:
        """Add one micro-batch's evidence."""
        totals = evidence.totals()
        self.totals = totals if self.totals is None else self.totals + totals

    def step(
        self,
        learning_rate: float,
        settled: float = 1.0,
        all_reduce: Callable[[Tensor], Tensor] | None = None,
    ) -> dict[str, float]:
        """End an update: add up all ranks, weigh the gradients, move the policy.

        Args:
            learning_rate: gamma_t.
            settled: in [0, 1], weight of the greedy path in the cost that a budget is held against; what the policy
                expects has the rest. That moves with every probability; the greedy path's cost moves only when
                probabilities pass a half, many of them at once, which is too late early in training. A single
                budget's caution moves as much more slowly.
            all_reduce: sum of a float64 vector over all ranks; every rank must call.

        Returns:
            the rule's weights, gradient norms and constraint, for logging; empty while statistics are gathered. The
            gradients' norms are those of their averages over updates; ``noise`` is the length of the standard error
            of this update's.
        """
        totals = self.totals
        if totals is None:  # a rank whose micro-batches were all dummies still takes part
            totals = torch.zeros(len(SCALARS) + sum(self._sizes()), dtype=torch.float64, device=self.flat.device)
        self.reset()
        if all_reduce is not None:
            totals = all_reduce(totals)
        decided, sampled, surveyed, violation, compared, quality, inputs = totals[: len(SCALARS)].tolist()
        if inputs == 0 or not bool(totals.isfinite().all()):  # one NaN would stay in the averages for good
            return {}
        sums = self._split(totals[len(SCALARS) :])
        cost, expected, products, losses, parts, gradients, half, feature_sum, feature_square_sum = sums
        if sampled or surveyed:
            self._remember(products, losses)
        self.state.surveyed += surveyed
        if not self.standardized and self.state.feature_count < self.statistics_inputs:
            self._gather_statistics(inputs, feature_sum, feature_square_sum)
            return {}
        counts = totals.new_tensor([decided, decided, sampled]).clamp(min=1).unsqueeze(1)
        gradients, noise = gradients / counts, (gradients - 2 * half) / counts
        if decided:
            self._average(0, self.state.mean_gradients[:2], gradients[:2])
        if sampled:
            self._average(1, self.state.mean_gradients[2], gradients[2])
        if compared:
            self._average(2, self.state.mean_losses[0], totals.new_tensor(violation / compared))
        self._average(3, self.state.mean_losses[1], totals.new_tensor(quality / inputs))
        self._average(4, self.state.mean_costs, torch.stack([cost, expected]) / inputs, COST_DECAY)
        self._average(5, self.state.mean_parts, parts / inputs)
        seen = self._observation(settled)
        weights = self.rule(seen)
        self.state.weights.copy_(torch.tensor([weights.quality, weights.cost]))
        direction = weights.quality * seen.quality_gradient + weights.cost * seen.cost_gradient
        self._move(direction / max(weights.quality + weights.cost, 1e-8), learning_rate)
        self._be_cautious(weights, learning_rate, settled)
        return {
            "weight_quality": weights.quality,
            "weight_cost": weights.cost,
            "violation": seen.quality_violation,
            "gradient_quality": float(seen.quality_gradient.norm()),
            "gradient_cost": float(seen.cost_gradient.norm()),
            "noise_quality": float((noise[0] + noise[2]).norm()),
            "noise_cost": float(noise[1].norm()),
            "caution": float(self.state.caution.sum(0).mean()),
        }

    def _sizes(self) -> list[int]:
        """Of the parts of `Evidence.totals` after the scalars."""
        state = self.state
        costs, features, gradients = state.mean_costs.size(1), state.feature_sum.numel(), 3 * self.flat.numel()
        effects = [state.effect_products.numel(), state.effect_losses.numel(), state.mean_parts.numel()]
        return [costs, costs, *effects, gradients, gradients, features, features]

    def _split(self, totals: Tensor) -> tuple[Tensor, ...]:
        cost, expected, products, losses, parts, gradients, half, *features = totals.split(self._sizes())
        features = [each.view(self.state.feature_sum.shape) for each in features]
        products, parts = products.view_as(self.state.effect_products), parts.view_as(self.state.mean_parts)
        return cost, expected, products, losses, parts, gradients.view(3, -1), half.view(3, -1), *features

    def _remember(self, products: Tensor, losses: Tensor) -> None:
        self.state.effect_products.mul_(EFFECT_DECAY).add_(products)
        self.state.effect_losses.mul_(EFFECT_DECAY).add_(losses)

    def _gather_statistics(self, inputs: float, feature_sum: Tensor, feature_square_sum: Tensor) -> None:
        state, policy = self.state, self.policy
        state.feature_sum += feature_sum
        state.feature_square_sum += feature_square_sum
        state.feature_count += inputs
        if state.feature_count >= self.statistics_inputs:
            mean = state.feature_sum / state.feature_count
            variance = state.feature_square_sum / state.feature_count - mean.square()
            logger.info("features are standardized by %d inputs: the policy starts to learn", int(state.feature_count))
            policy.feature_mean.copy_(mean)
            policy.feature_std.copy_(variance.clamp(min=1e-8).sqrt())
            self.standardized = True

    def _average(self, kind: int, average: Tensor, value: Tensor, decay: float = AVERAGE_DECAY) -> None:
        """Move one of the averages; what an update did not measure stays where it was."""
        average.lerp_(value.to(average), 1 - decay)
        weight = self.state.mean_weights[kind]
        weight.lerp_(torch.ones_like(weight), 1 - decay)

    def _observation(self, settled: float) -> Observation:
        state = self.state
        weight = state.mean_weights.clamp(min=1 - AVERAGE_DECAY)  # the averages started at zero
        known, cost_gradient, told = state.mean_gradients / weight[[0, 0, 1]].unsqueeze(1)
        violation, quality = (state.mean_losses / weight[2:4]).tolist()
        greedy, expected = (state.mean_costs / weight[4]).double().cpu()
        cost = settled * greedy + (1 - settled) * expected
        state.best_quality.clamp_(max=quality)
        best, caution = float(state.best_quality), state.caution.reshape(2, -1)[0].cpu().clone()
        effects, parts = state.effects(self.policy.space), (state.mean_parts / weight[5]).cpu()
        gradients = known + told, cost_gradient
        return Observation(*gradients, violation, quality, best, cost, caution, effects, parts)

    @torch.no_grad()
    def _move(self, direction: Tensor, learning_rate: float) -> None:
        self.flat.copy_(parameters_to_vector(self.policy.parameters()))
        self.flat.grad = direction
        self.adam.param_groups[0]["lr"] = learning_rate
        self.adam.step()
        start = 0
        for parameter in self.policy.parameters():  # copied: vector_to_parameters would make them views of one storage
            parameter.copy_(self.flat[start : start + parameter.numel()].view_as(parameter))
            start += parameter.numel()

    @torch.no_grad()
    def _be_cautious(self, weights: Weights, learning_rate: float, settled: float) -> None:
        """Move what all decisions to keep have in common towards the constraint, or as far as it leaves room.

        A proportional-integral controller: what is asked for adds up; and too little caution is answered at once with
        more, which is taken back when it is no longer asked for. Room to skip is only used while the policy still
        learns which decisions to skip; and a single budget is not pressed for before its price has had the time to fill
        it.
        """
        if self.base_rate == 0:  # the policy is to stay as it is
            return
        lasting, at_once = self.state.caution.view(2, -1)
        before = (lasting + at_once).double()
        violation, remedy = (torch.as_tensor(each).to(before).view(-1) for each in (weights.violation, weights.remedy))
        room = (violation < 0) & (remedy > 0)
        rate = torch.full_like(violation, self.base_rate).masked_fill(room, learning_rate)
        if self.policy.dial is None:
            rate = torch.where(remedy < 0, settled * rate, rate)
        lasting += (CAUTION_PACE * rate * violation * remedy).to(lasting)
        at_once.copy_(CAUTION_AT_ONCE * violation.clamp(min=0) * remedy.clamp(min=0))
        change = ((lasting + at_once).double() - before).to(lasting)
        for bias in self.policy.keep_biases():
            bias += change
