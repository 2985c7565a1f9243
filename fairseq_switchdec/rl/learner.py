"""The policy's side of Algorithm 1: accumulate an update's evidence, weigh it by a rule, take one Adam step."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

from ..policy import Float32Module, SwitchPolicy
from .rules import Observation, Weights

logger = logging.getLogger(__name__)

#: Decay of the averages over updates.
AVERAGE_DECAY = 0.9
ADAM_BETAS = (0.9, 0.98)
#: How fast caution moves, in logits an update, as a multiple of the policy's learning rate; and how far at once.
CAUTION_PACE, CAUTION_AT_ONCE = 25.0, 1.0


class LearnerState(Float32Module):
    """What the learner must not forget between a checkpoint and its resumption, as buffers saved with the model.

    (fairseq saves a task's state but does not load it back on resuming.) ``P`` policy parameters, ``S`` stages,
    ``D`` features, ``K`` costs that are held: one, or at every knot of a dial.
    """

    adam_step: Tensor
    exp_avg: Tensor
    exp_avg_sq: Tensor
    gradient_average: Tensor
    constraint_average: Tensor
    expected_average: Tensor
    average_weight: Tensor
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
        self.register_buffer("gradient_average", torch.zeros(2, parameters))  # g_q, g_c
        self.register_buffer("constraint_average", torch.zeros(2 + costs))  # q - c, q, costs
        # Expected costs, and their weight: old checkpoints lack them.
        self.register_buffer("expected_average", torch.zeros(costs + 1))
        self.register_buffer("average_weight", torch.zeros(3))  # of the gradients, of q - c, of q and costs
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
        averages = ("gradient_average", "constraint_average", "expected_average", "average_weight")
        for name in ("adam_step", "exp_avg", "exp_avg_sq", *averages, "caution"):
            getattr(self, name).zero_()
        # Not infinite: fairseq's moving average of a model multiplies every buffer by a decay, which may be 0.
        self.best_quality.fill_(torch.finfo(torch.float32).max)
        self.weights.fill_(1.0)


#: Numbers of `Evidence`, in the order of its `Evidence.totals`; after them its costs.
SCALARS = ("sampled", "violation", "compared", "quality", "inputs")


@dataclass(frozen=True)
class Evidence:
    """What one micro-batch adds to an update; sums over its inputs, so that any split of a batch adds up to the same.

    Attributes:
        gradients: (2, P), `policy_gradients` for quality and for cost, over ``sampled`` inputs.
        half: (2, P), the same over those of them with an odd id: how far the two halves of an update disagree says how
            noisy its gradients are.
        sampled: inputs whose loss was measured on a path that training tried.
        violation: sum of q - c over the ``compared`` inputs, whose keep-all loss is known.
        compared: number of those.
        quality: sum of the greedy path's loss, nats a token, over ``inputs``.
        cost: (K,), sum of the greedy path's cost over ``inputs``: one or, of a dial, if they were asked for each knot.
        expected_cost: (K,), as much of the cost that the policy's probabilities expect.
        inputs: all inputs of the micro-batch.
        features: (inputs, S, D).
    """

    gradients: Tensor
    half: Tensor
    sampled: int
    violation: float
    compared: int
    quality: float
    cost: Tensor
    expected_cost: Tensor
    inputs: int
    features: Tensor

    def totals(self) -> Tensor:
        """Everything in one float64 vector that can be added up over micro-batches and ranks.

        In double precision the order of the additions leaves no trace in the policy's float32: a batch on one process
        and the same batch on eight move it alike. Adam would scale up what rounding leaves of a vanishing gradient.
        """
        features = self.features.double()
        scalars = [getattr(self, name) for name in SCALARS]
        costs = (self.cost, self.expected_cost)
        parts = (torch.tensor(scalars, dtype=torch.float64), *costs, self.gradients, self.half, features.sum(0))
        return torch.cat([part.to(features).flatten() for part in (*parts, features.square().sum(0))])


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
        self.adam = torch.optim.Adam([self.flat], betas=ADAM_BETAS)
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
                probabilities pass a half, many of them at once, which is too late early in training.
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
        sampled, violation, compared, quality, inputs = totals[: len(SCALARS)].tolist()
        if inputs == 0 or not bool(totals.isfinite().all()):  # one NaN would stay in the averages for good
            return {}
        cost, expected, gradients, half, feature_sum, feature_square_sum = self._split(totals[len(SCALARS) :])
        if not self.standardized and self.state.feature_count < self.statistics_inputs:
            self._gather_statistics(inputs, feature_sum, feature_square_sum)
            return {}
        if sampled:
            self._average(0, self.state.gradient_average, gradients / sampled)
        if compared:
            self._average(1, self.state.constraint_average[:1], totals.new_tensor([violation / compared]))
        one = totals.new_ones(1)
        self._average(2, self.state.constraint_average[1:], torch.cat([one * quality, cost]) / inputs)
        expected_average = self.state.expected_average
        expected_average.lerp_(torch.cat([expected / inputs, one]).to(expected_average), 1 - AVERAGE_DECAY)
        seen = self._observation(settled)
        weights = self.rule(seen)
        self.state.weights.copy_(torch.tensor([weights.quality, weights.cost]))
        self._move(weights.quality * seen.quality_gradient + weights.cost * seen.cost_gradient, learning_rate)
        self._be_cautious(weights, learning_rate)
        noise = ((gradients - 2 * half) / max(sampled, 1)).norm(dim=1).tolist()
        return {
            "weight_quality": weights.quality,
            "weight_cost": weights.cost,
            "violation": seen.quality_violation,
            "gradient_quality": float(seen.quality_gradient.norm()),
            "gradient_cost": float(seen.cost_gradient.norm()),
            "noise_quality": noise[0],
            "noise_cost": noise[1],
            "caution": float(self.state.caution.sum(0).mean()),
        }

    def _sizes(self) -> list[int]:
        """Of the parts of `Evidence.totals` after the scalars."""
        costs, features = self.state.expected_average.numel() - 1, self.state.feature_sum.numel()
        return [costs, costs, 2 * self.flat.numel(), 2 * self.flat.numel(), features, features]

    def _split(self, totals: Tensor) -> tuple[Tensor, ...]:
        cost, expected, gradients, half, *features = totals.split(self._sizes())
        features = [each.view(self.state.feature_sum.shape) for each in features]
        return cost, expected, gradients.view(2, -1), half.view(2, -1), *features

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

    def _average(self, kind: int, average: Tensor, value: Tensor) -> None:
        """Move one of the averages; what an update did not measure stays where it was."""
        average.lerp_(value.to(average), 1 - AVERAGE_DECAY)
        weight = self.state.average_weight[kind]
        weight.lerp_(torch.ones_like(weight), 1 - AVERAGE_DECAY)

    def _observation(self, settled: float) -> Observation:
        state = self.state
        weight = state.average_weight.clamp(min=1 - AVERAGE_DECAY)  # the averages started at zero
        quality_gradient, cost_gradient = state.gradient_average / weight[0]
        violation, quality = (state.constraint_average[:2] / weight[1:]).tolist()
        cost = (state.constraint_average[2:] / weight[2]).double().cpu()
        *_, expected_weight = state.expected_average.tolist()
        expected = state.expected_average[:-1].double().cpu()
        if expected_weight > 0:
            cost = settled * cost + (1 - settled) * expected / expected_weight
        state.best_quality.clamp_(max=quality)
        best, caution = float(state.best_quality), state.caution.reshape(2, -1)[0].cpu().clone()
        return Observation(quality_gradient, cost_gradient, violation, quality, best, cost, caution)

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
    def _be_cautious(self, weights: Weights, learning_rate: float) -> None:
        """Move what all decisions to keep have in common towards the constraint, or as far as it leaves room.

        A proportional-integral controller: what is asked for adds up; and too little caution is answered at once with
        more, which is taken back when it is no longer asked for. Room to skip is only used while the policy still
        learns which decisions to skip.
        """
        if self.base_rate == 0:  # the policy is to stay as it is
            return
        lasting, at_once = self.state.caution.view(2, -1)
        before = (lasting + at_once).double()
        violation, remedy = (torch.as_tensor(each).to(before).view(-1) for each in (weights.violation, weights.remedy))
        room = (violation < 0) & (remedy > 0)
        rate = torch.full_like(violation, self.base_rate).masked_fill(room, learning_rate)
        lasting += (CAUTION_PACE * rate * violation * remedy).to(lasting)
        at_once.copy_(CAUTION_AT_ONCE * violation.clamp(min=0) * remedy.clamp(min=0))
        change = ((lasting + at_once).double() - before).to(lasting)
        for bias in self.policy.keep_biases():
            bias += change
