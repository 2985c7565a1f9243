"""The learner: evidence adds up whatever the split, statistics, averages, resumption, ranks."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector
from torch.testing import assert_close

from fairseq_switchdec.decisions import DecisionSpace
from fairseq_switchdec.dial import Dial
from fairseq_switchdec.policy import SwitchPolicy
from fairseq_switchdec.rl import (
    Evidence,
    FixedRule,
    LearnerState,
    Observation,
    PolicyLearner,
    QualityRule,
    Weights,
    num_effects,
)
from fairseq_switchdec.rl.learner import CAUTION_AT_ONCE, CAUTION_PACE, SCALARS

DIM = 4
SPACE = DecisionSpace(3, 2)
DEFAULT_RULE = QualityRule()


class Setup:
    """A policy, its learner and the observations its rule saw."""

    def __init__(
        self,
        rule: Callable[[Observation], Weights] = DEFAULT_RULE,
        statistics: int = 0,
        per_layer: bool = False,
        base_rate: float = 1e-2,
        dial: Dial | None = None,
    ):
        torch.manual_seed(5)
        self.policy = SwitchPolicy(SPACE, DIM, 6, per_layer, dial)
        self.state = LearnerState(self.policy)
        self.seen: list[Observation] = []

        def watched(seen: Observation) -> Weights:
            self.seen.append(seen)
            return rule(seen)

        self.learner = PolicyLearner(self.policy, self.state, watched, base_rate, statistics)

    @property
    def theta(self) -> Tensor:
        return parameters_to_vector(self.policy.parameters()).clone()

    @property
    def everything(self) -> dict[str, Tensor]:
        """What a checkpoint holds."""
        model = nn.ModuleDict({"policy": self.policy, "state": self.state})
        return {name: value.clone() for name, value in model.state_dict().items()}

    def evidence(self, seed: int, inputs: int = 8) -> list[Evidence]:
        """One input's evidence each; every 4th is compared, of the others one runs its greedy path."""
        generator = torch.Generator().manual_seed(seed)

        def draw(*size: int) -> Tensor:
            return torch.randn(size, generator=generator)

        return [
            Evidence(
                gradients=(gradients := draw(3, self.theta.numel()) * torch.tensor([[index % 4 > 0]] * 2 + [[tried]])),
                half=gradients * (index % 2),
                decided=int(index % 4 > 0),
                sampled=int(tried),
                surveyed=0,
                violation=float(draw()) * (index % 4 == 0),
                compared=int(index % 4 == 0),
                quality=float(draw().abs()),
                cost=draw(self.state.mean_costs.size(1)).sigmoid(),
                expected_cost=draw(self.state.mean_costs.size(1)).sigmoid(),
                products=(decisions := draw(num_effects(SPACE)).double() * tried).outer(decisions),
                losses=decisions * float(draw()),
                parts=draw(7, 1 + SPACE.num_sublayers).double(),
                inputs=1,
                features=draw(1, len(self.policy.stages), DIM) * 2 + 3,
            )
            for index, tried in enumerate([each % 4 > 0 and each != 1 for each in range(inputs)])
        ]


def merge(parts: Sequence[Evidence]) -> Evidence:
    """The evidence of a batch made of these."""
    names = ("gradients", "half", "cost", "expected_cost", "products", "losses", "parts", *SCALARS)
    sums: dict[str, Any] = {name: sum(getattr(part, name) for part in parts) for name in names}
    return Evidence(**sums, features=torch.cat([part.features for part in parts]))


def assert_same(first: dict[str, Tensor], second: dict[str, Tensor], **tolerance: float) -> None:
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert_close(second[name], value, msg=lambda text, name=name: f"{name}: {text}", **tolerance)


def update(
    setup: Setup, *micro_batches: Evidence, learning_rate: float = 1e-2, settled: float = 1.0
) -> dict[str, float]:
    setup.learner.reset()
    for evidence in micro_batches:
        setup.learner.accumulate(evidence)
    return setup.learner.step(learning_rate, settled)


@pytest.mark.parametrize("statistics", [0, 20])
@pytest.mark.parametrize("split", [[8], [4, 4], [1, 2, 5], [1] * 8])
def test_any_split_of_a_batch_is_the_same_update(split: list[int], statistics: int) -> None:
    whole, parts = Setup(statistics=statistics), Setup(statistics=statistics)
    for seed in range(5):
        evidence = whole.evidence(seed)
        update(whole, merge(evidence))
        micro_batches, start = [], 0
        for size in split:
            micro_batches.append(merge(evidence[start : start + size]))
            start += size
        update(parts, *micro_batches)
    assert whole.seen and not torch.equal(whole.theta, Setup().theta)
    # Sums in another order: of float64's rounding little is left. (`merge` makes its own sums in float32.)
    assert_same(whole.everything, parts.everything, rtol=1e-5, atol=1e-6)


def test_reset_forgets() -> None:
    clean, interrupted = Setup(), Setup()
    first, second = merge(clean.evidence(0)), merge(clean.evidence(1))
    interrupted.learner.accumulate(replace(first, gradients=first.gradients * float("nan")))
    interrupted.learner.reset()
    for setup in (clean, interrupted):
        setup.learner.accumulate(second)
        assert setup.learner.step(1e-2)
    assert_same(clean.everything, interrupted.everything, rtol=0, atol=0)


def test_a_step_ends_the_update() -> None:
    setup = Setup()
    update(setup, merge(setup.evidence(0)))
    before = setup.everything
    assert setup.learner.step(1e-2) == {}, "nothing left of the last update"
    assert_same(before, setup.everything, rtol=0, atol=0)


def test_an_update_without_evidence_does_nothing() -> None:
    for statistics in (0, 100):
        setup = Setup(statistics=statistics)
        before = setup.everything
        assert setup.learner.step(1e-2) == {} and setup.learner.step(1e-2, all_reduce=lambda totals: totals) == {}
        assert_same(before, setup.everything, rtol=0, atol=0)
        assert not setup.seen


def test_the_order_of_addition_leaves_no_trace() -> None:
    """A gradient beside others a million times as large that cancel: float32 sums would lose its digits."""
    forth, back = Setup(), Setup()
    evidence = forth.evidence(1, inputs=4)
    large = evidence[2].gradients + 1e6
    parts = [replace(evidence[2], gradients=large), evidence[2], replace(evidence[3], gradients=-large)]
    update(forth, *parts)
    update(back, *reversed(parts))
    assert_same(forth.everything, back.everything, rtol=1e-6, atol=1e-12)
    assert_close(forth.state.mean_gradients / 0.1, evidence[2].gradients / 3, rtol=1e-5, atol=1e-9)


def test_a_trained_policy_keeps_its_statistics() -> None:
    """Also under a larger --policy-statistics-inputs than the one it was trained with."""
    trained = Setup(statistics=8)
    update(trained, merge(trained.evidence(0)))
    mean = trained.policy.feature_mean.clone()
    trained.state.restart()
    later = PolicyLearner(trained.policy, trained.state, DEFAULT_RULE, 1e-2, statistics_inputs=1000)
    later.accumulate(merge(trained.evidence(1)))
    assert later.step(1e-2), "it learns at once"
    assert torch.equal(trained.policy.feature_mean, mean)


@pytest.mark.parametrize("per_layer", [False, True])
def test_statistics_standardize_the_features_before_anything_is_learned(per_layer: bool) -> None:
    setup = Setup(statistics=20, per_layer=per_layer)
    new = setup.theta
    features = []
    for seed in range(3):  # 8, 16, 24 inputs
        assert torch.equal(setup.policy.feature_std, torch.ones_like(setup.policy.feature_std))
        evidence = merge(setup.evidence(seed))
        features.append(evidence.features)
        assert update(setup, evidence) == {}
    everything = torch.cat(features)
    assert_close(setup.policy.feature_mean, everything.mean(0))
    assert_close(setup.policy.feature_std, everything.std(0, unbiased=False))
    assert torch.equal(setup.theta, new) and not setup.seen and not setup.state.mean_weights.any()
    standardized = (everything - setup.policy.feature_mean) / setup.policy.feature_std
    assert_close(standardized.mean(0), torch.zeros_like(setup.policy.feature_mean), rtol=0, atol=1e-5)
    mean = setup.policy.feature_mean.clone()
    assert update(setup, merge(setup.evidence(9)))["weight_cost"] == 1.0
    assert not torch.equal(setup.theta, new)
    assert torch.equal(setup.policy.feature_mean, mean) and setup.state.feature_count == 24, "gathered once"


def test_a_constant_feature_does_not_divide_by_zero() -> None:
    setup = Setup(statistics=8)
    evidence = merge(setup.evidence(0))
    update(setup, replace(evidence, features=torch.full_like(evidence.features, 0.37)))
    logits = setup.policy(torch.full((1, 1, DIM), 0.37)).sublayer_logits
    assert logits.isfinite().all() and (setup.policy.feature_std > 0).all()


@pytest.mark.parametrize("settled", [0.0, 0.3, 1.0])
def test_averages_by_hand(settled: float) -> None:
    """Bias-corrected averages over updates: weights .1 x .9^age, of costs .5 x .5^age, divided by their sum."""
    setup = Setup()
    updates = [merge(setup.evidence(seed)) for seed in range(4)]
    best = float("inf")
    for count in range(1, 5):
        logged = update(setup, updates[count - 1], settled=settled)

        def average(values: list[Tensor], decay: float = 0.9) -> Tensor:
            weights = torch.tensor([decay**age for age in range(len(values))][::-1])
            return sum(weight * value for weight, value in zip(weights / weights.sum(), values))  # type: ignore[return-value]

        so_far, seen = updates[:count], setup.seen[-1]
        known, cost_gradient = average([one.gradients[:2] / one.decided for one in so_far])
        told = average([one.gradients[2] / one.sampled for one in so_far])
        quality_gradient = known + told
        assert_close(seen.quality_gradient, quality_gradient)
        assert_close(seen.cost_gradient, cost_gradient)
        violation = float(average([torch.tensor(one.violation / one.compared) for one in so_far]))
        quality = float(average([torch.tensor(one.quality / one.inputs) for one in so_far]))
        best = min(best, quality)
        assert seen.quality_violation == pytest.approx(violation, rel=1e-5)
        assert seen.quality == pytest.approx(quality, rel=1e-5)
        assert seen.best_quality == pytest.approx(best, rel=1e-5)
        greedy_cost = float(average([one.cost / one.inputs for one in so_far], 0.5))
        expected_cost = float(average([one.expected_cost / one.inputs for one in so_far], 0.5))
        assert_close(seen.parts, average([one.parts / one.inputs for one in so_far]))
        assert torch.equal(seen.effects, setup.state.effects(SPACE)) and seen.effects.any()
        assert float(seen.cost) == pytest.approx(settled * greedy_cost + (1 - settled) * expected_cost, rel=1e-5)
        assert logged["violation"] == seen.quality_violation
        assert logged["gradient_quality"] == pytest.approx(float(quality_gradient.norm()), rel=1e-5)
        assert logged["gradient_cost"] == pytest.approx(float(cost_gradient.norm()), rel=1e-5)


@pytest.mark.parametrize("missing", ["compared", "decided", "sampled"])
def test_an_update_that_measured_no_constraint_or_gradient_says_nothing_about_it(missing: str) -> None:
    """With few inputs an update, none may have run the keep-all path: then q - c is unknown, not 0."""
    setup = Setup()
    chosen = [merge([part for part in setup.evidence(0) if getattr(part, missing)])]
    chosen.append(merge([part for part in setup.evidence(1) if not getattr(part, missing)]))
    update(setup, chosen[0])
    update(setup, chosen[1])
    first, second = setup.seen
    if missing == "compared":
        assert second.quality_violation == pytest.approx(first.quality_violation, rel=1e-5)
    if missing == "decided":
        assert_close(second.quality_gradient, first.quality_gradient)
        assert_close(second.cost_gradient, first.cost_gradient)
    if missing == "sampled":
        told = chosen[0].gradients[2] / chosen[0].sampled
        assert_close(setup.state.mean_gradients[2] / setup.state.mean_weights[1], told)
        assert torch.equal(second.effects, first.effects), "and what is known does not fade"
        assert not torch.equal(second.cost_gradient, first.cost_gradient)


def test_tries_are_remembered_from_the_first_update_on_and_fade() -> None:
    """Also while the features are standardized and the policy stands still; not in updates that tried nothing."""
    setup = Setup(statistics=20)
    parts = [merge(setup.evidence(seed)) for seed in range(4)]
    for part in parts:
        update(setup, part)
        nothing = dict(sampled=0, products=0 * part.products, losses=0 * part.losses)
        update(setup, replace(part, **nothing))
    update(setup, replace(parts[0], sampled=0, surveyed=8, products=0 * part.products, losses=0 * part.losses))
    assert setup.state.surveyed == 8
    fading = [0.98**age for age in (4, 3, 2, 1)]
    assert_close(setup.state.effect_products, sum(weight * part.products for weight, part in zip(fading, parts)))
    assert_close(setup.state.effect_losses, sum(weight * part.losses for weight, part in zip(fading, parts)))


def test_noise_is_how_far_the_halves_of_an_update_disagree() -> None:
    """Of 400 inputs whose gradients are drawn, the standard error of their mean. Of quality it is that of a sum: what
    was known of all of them, and what the 100 tell that tried something.
    """
    setup, spread = Setup(), torch.tensor([[2.0], [0.5], [1.5]])
    parameters = setup.theta.numel()
    each = 3.0 + spread * torch.randn(400, 3, parameters, generator=torch.Generator().manual_seed(1))
    each[100:, 2] = 0.0
    sums = dict(gradients=each.sum(0), half=each[::2].sum(0), decided=400, sampled=100)
    evidence = replace(merge(setup.evidence(0)), **sums)
    logged = update(setup, evidence)
    variances = {"quality": 2.0**2 / 400 + 1.5**2 / 100, "cost": 0.5**2 / 400}
    for name, variance in variances.items():
        assert logged[f"noise_{name}"] == pytest.approx((parameters * variance) ** 0.5, rel=0.1)
    assert logged["gradient_quality"] == pytest.approx(6 * parameters**0.5, rel=0.05)


def test_a_new_training_forgets() -> None:
    setup = Setup()
    clean = copy.deepcopy(setup.state.state_dict())
    update(setup, merge(setup.evidence(0)))
    setup.state.surveyed += 48
    assert setup.state.mean_costs.any() and setup.state.mean_losses.any() and setup.state.effect_products.any()
    setup.state.restart()
    assert_same(clean, setup.state.state_dict(), rtol=0, atol=0)


def test_the_first_step_is_adams() -> None:
    """A descent: the first Adam step moves every parameter by the learning rate against the sign of e,
    where e is more than rounding.
    """
    setup = Setup(rule=FixedRule(0.5))
    before = setup.theta
    evidence = merge(setup.evidence(0))
    update(setup, evidence, learning_rate=1e-3)
    known, by_cost = evidence.gradients[:2] / evidence.decided
    direction = known + evidence.gradients[2] / evidence.sampled + 0.5 * by_cost
    direction /= 1 + 0.5
    assert_close(setup.theta, before - 1e-3 * direction / (direction.abs() + 1e-5), rtol=1e-5, atol=1e-6)


def test_steps_equal_torchs_adam() -> None:
    setup = Setup(rule=FixedRule(0.5))
    reference = setup.theta.requires_grad_()
    adam = torch.optim.Adam([reference], lr=1e-2, betas=(0.9, 0.98), eps=1e-5)
    for seed in range(5):
        update(setup, merge(setup.evidence(seed)))
        reference.grad = (setup.seen[-1].quality_gradient + 0.5 * setup.seen[-1].cost_gradient) / 1.5
        adam.step()
        assert_close(setup.theta, reference.detach())


def biases(setup: Setup) -> Tensor:
    """Those of keeping sublayers and tokens, which caution moves together."""
    return torch.cat(setup.policy.keep_biases()).clone()


@pytest.mark.parametrize("per_layer", [False, True])
@pytest.mark.parametrize("remedy", [1, -1, 0])
@pytest.mark.parametrize("settled", [1.0, 0.25])
def test_caution_by_hand(remedy: int, per_layer: bool, settled: float) -> None:
    """What is asked for adds up: at the base rate, but room to skip more at today's. Caution is also given at once, and
    then taken back; boldness is not, and grows as training settles.
    """
    violations = [1.0, 2.0, -1.0, -0.5, 0.0, 0.25]
    violated = CAUTION_PACE * 0.02
    room = CAUTION_PACE * 1e-3 if remedy == 1 else violated
    steps = [violated, 2 * violated, -room, -0.5 * room, 0.0, 0.25 * violated]
    asked = iter(violations)
    setup = Setup(lambda seen: Weights(0.0, 0.0, next(asked), remedy), per_layer=per_layer, base_rate=0.02)
    start, before, lasting = setup.theta, biases(setup), 0.0
    for seed, (violation, step) in enumerate(zip(violations, steps)):
        logged = update(setup, merge(setup.evidence(seed)), learning_rate=1e-3, settled=settled)
        lasting += remedy * step * (settled if remedy == -1 else 1.0)
        at_once = CAUTION_AT_ONCE * max(violation, 0.0) if remedy == 1 else 0.0
        assert logged["caution"] == pytest.approx(lasting + at_once, abs=1e-6)
        assert_close(biases(setup), before + lasting + at_once)
    assert len(before) == SPACE.num_sublayers + 1
    assert int((setup.theta != start).sum()) == (len(before) if remedy else 0), "and nothing else moves"


def test_a_dials_cautions_all_keep_their_pace_from_the_first_update_on() -> None:
    """By column; a single budget's waits for its price."""
    dial, progress = Dial(0.5, 0.6, auto=True), 0.25
    violation, remedy = torch.tensor([1.0, -0.5, 0.0, 2.0]), torch.tensor([-1, -1, -1, 1])
    setup = Setup(lambda seen: Weights(1.0, 1.0, violation, remedy), base_rate=0.02, dial=dial)
    assert len(violation) == dial.size
    update(setup, merge(setup.evidence(0)), settled=progress)
    assert_close(setup.state.caution[0], CAUTION_PACE * 0.02 * violation * remedy)
    assert_close(setup.state.caution[1], CAUTION_AT_ONCE * torch.tensor([0.0, 0.0, 0.0, 2.0]))
    single = Setup(lambda seen: Weights(1.0, 1.0, 1.0, -1), base_rate=0.02)
    update(single, merge(single.evidence(0)), settled=progress)
    assert float(single.state.caution[0]) == pytest.approx(-progress * CAUTION_PACE * 0.02)


def test_caution_makes_every_decision_to_keep_likelier() -> None:
    cautious = Setup(lambda seen: Weights(1.0, 1.0, 2.0, 1))
    features = torch.randn(5, 1, DIM)
    before, tokens_before = cautious.policy(features).probabilities()
    update(cautious, merge(cautious.evidence(0)), learning_rate=0.0)
    after, tokens = cautious.policy(features).probabilities()
    assert bool((after > before).all()) and tokens is not None and tokens_before is not None
    assert bool((tokens[:, 0] > tokens_before[:, 0]).all()) and bool((tokens[:, 1:] < tokens_before[:, 1:]).all())


def test_a_policy_lr_of_zero_moves_nothing_whatever_the_rule() -> None:
    setup = Setup(lambda seen: Weights(1.0, 1.0, 2.0, 1), base_rate=0.0)
    before = setup.theta
    for seed in range(3):
        assert update(setup, merge(setup.evidence(seed)), learning_rate=0.0)
    assert torch.equal(setup.theta, before)


def test_a_learning_rate_of_zero_moves_nothing() -> None:
    setup = Setup(FixedRule(1.0))
    update(setup, merge(setup.evidence(0)))
    before, state = setup.theta, setup.everything
    logged = update(setup, merge(setup.evidence(1)), learning_rate=0.0)
    assert torch.equal(setup.theta, before)
    assert logged["weight_quality"] == 1.0 and setup.state.adam_step == 2
    assert not torch.equal(setup.everything["state.exp_avg"], state["state.exp_avg"]), "the averages go on"


@pytest.mark.parametrize("interrupted_after", [1, 2, 3, 5])
def test_resuming_equals_going_on(interrupted_after: int) -> None:
    """Statistics end with the second update, so the interruptions fall before, at and after that point."""
    straight = Setup(statistics=16)
    resumed = Setup(statistics=16)
    for seed in range(7):
        update(straight, merge(straight.evidence(seed)))
        if seed == interrupted_after:
            checkpoint = resumed.everything
            resumed = Setup(statistics=16)
            with torch.no_grad():
                for parameter in resumed.policy.parameters():
                    parameter.normal_()
            model = nn.ModuleDict({"policy": resumed.policy, "state": resumed.state})
            model.load_state_dict(checkpoint)
        update(resumed, merge(resumed.evidence(seed)))
    assert straight.seen and not torch.equal(straight.theta, Setup().theta)
    assert_same(straight.everything, resumed.everything, rtol=0, atol=0)


def test_a_learner_made_after_loading_goes_on_too() -> None:
    straight = Setup()
    for seed in range(3):
        update(straight, merge(straight.evidence(seed)))
    policy, state = copy.deepcopy(straight.policy), LearnerState(straight.policy)
    state.load_state_dict(copy.deepcopy(straight.state.state_dict()))
    later = PolicyLearner(policy, state, QualityRule(), 1e-2, 0)
    evidence = merge(straight.evidence(3))
    update(straight, evidence)
    later.accumulate(evidence)
    later.step(1e-2)
    assert torch.equal(parameters_to_vector(policy.parameters()), straight.theta)
    assert torch.equal(state.exp_avg_sq, straight.state.exp_avg_sq)


def sent_by(learner: PolicyLearner) -> Tensor:
    """What a rank hands to the sum over ranks, found on a copy: its own update is not ended."""
    sent = []

    def record(totals: Tensor) -> Tensor:
        sent.append(totals.clone())
        return totals

    copy.deepcopy(learner).step(0.0, all_reduce=record)
    return sent[0]


@pytest.mark.parametrize("statistics", [0, 16])
@pytest.mark.parametrize("idle", [False, True])
def test_two_ranks_equal_one_with_both_ranks_inputs(statistics: int, idle: bool) -> None:
    """``idle``: the second rank's micro-batches were all dummies; it takes part with zeros."""
    alone, ranks = Setup(statistics=statistics), [Setup(statistics=statistics) for _ in range(2)]
    for seed in range(5):
        evidence = alone.evidence(seed)
        shares = [evidence[:5], [] if idle else evidence[5:]]
        update(alone, merge(shares[0] + shares[1]))
        for rank, share in zip(ranks, shares):
            rank.learner.reset()
            if share:
                rank.learner.accumulate(merge(share))
        sent = [sent_by(rank.learner) for rank in ranks]
        assert sent[0].shape == sent[1].shape and sent[0].dtype == torch.float64
        total = sent[0] + sent[1]
        for rank in ranks:
            rank.learner.step(1e-2, all_reduce=lambda _, total=total: total)
    assert_same(ranks[0].everything, ranks[1].everything, rtol=0, atol=0)
    assert_same(alone.everything, ranks[0].everything, rtol=1e-5, atol=1e-6)
    assert alone.seen


def test_state_is_never_rounded_and_follows_the_model() -> None:
    setup = Setup()
    model = nn.ModuleDict({"policy": setup.policy, "state": setup.state, "other": nn.Linear(2, 2)})
    model.half()
    assert model["other"].weight.dtype == torch.float16
    assert all(value.dtype in (torch.float32, torch.float64) for value in setup.state.state_dict().values())
    assert update(setup, merge(setup.evidence(0))), "and the learner still works"
    assert setup.state.adam_step == 1, "on the buffers that a checkpoint saves"


def test_evidence_in_half_precision_is_summed_in_full() -> None:
    setup = Setup(statistics=100)
    evidence = merge(setup.evidence(0))
    setup.learner.accumulate(
        replace(evidence, features=torch.full((90, 1, DIM), 100.0, dtype=torch.float16), inputs=90)
    )
    setup.learner.accumulate(
        replace(evidence, features=torch.full((10, 1, DIM), 100.0, dtype=torch.float16), inputs=10)
    )
    setup.learner.step(1e-2)
    assert_close(setup.policy.feature_mean, torch.full((1, DIM), 100.0))
