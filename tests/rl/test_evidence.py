"""What the criterion makes of a batch for the learner: what was tried, sums; and what it tells the learner."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support import build_switchable, task_of
from torch.testing import assert_close

from fairseq_switchdec.config import LexicoPolicyCriterionConfig
from fairseq_switchdec.cost import cost, expected_cost, parts_of_cost
from fairseq_switchdec.criterions import lexico_policy_criterion as module
from fairseq_switchdec.criterions.lexico_policy_criterion import LexicoPolicyCriterion
from fairseq_switchdec.criterions.objective import GenerationObjective, PathLoss
from fairseq_switchdec.policy import input_uniforms
from fairseq_switchdec.rl import (
    SURVEY_INPUTS,
    OneDeviation,
    PooledDeviation,
    SampledPaths,
    Tries,
    Weights,
    num_effects,
    policy_gradients,
    price,
    skips,
)
from fairseq_switchdec.tasks.switching import SwitchingTask

PADDING = 1
#: Of 100, of which the policy learns for 90.
UPDATE = 50


def make_criterion(dictionary: Any, **options: Any) -> LexicoPolicyCriterion:
    fairseqs = {"sentence_avg": False, "tpu": False, "distributed_world_size": 1, "seed": 3, "max_update": 100}
    config = LexicoPolicyCriterionConfig(**{**fairseqs, **options})
    task = task_of(dictionary)
    task.build_objective = lambda options: GenerationObjective(options, PADDING)
    task.sum_over_ranks = lambda totals: totals
    return LexicoPolicyCriterion(config, task)


@pytest.fixture
def sample(batch: dict[str, Any]) -> dict[str, Any]:
    inputs = {"src_tokens": batch["src_tokens"], "src_lengths": batch["src_lengths"]}
    target = torch.cat([batch["prev"][:, 1:], torch.full((5, 1), PADDING)], dim=1)
    return {
        "id": batch["id"],
        "net_input": {**inputs, "prev_output_tokens": batch["prev"]},
        "target": target,
        "ntokens": int(target.ne(PADDING).sum()),
    }


@pytest.fixture
def model(dictionary: Any, stock: Any) -> Any:
    """In the middle of a training: weights 50 and 1."""
    model = build_switchable(dictionary, stock, dropout=0.0)
    model.learner_state.weights.copy_(torch.tensor([50.0, 1.0]))
    model.learner_state.mean_costs.fill_(0.7)
    tries = torch.randn(50, num_effects(model.encoder.space), generator=torch.Generator().manual_seed(1)).double()
    model.learner_state.surveyed.fill_(SURVEY_INPUTS)
    model.learner_state.effect_products.copy_(tries.T @ tries)
    model.learner_state.effect_losses.copy_(tries.sum(0))
    return model


class Watched:
    """Keeps what a function of the criterion's module was called with."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str):
        self.calls: list[tuple[Any, ...]] = []
        function = getattr(module, name)

        def watched(*arguments: Any) -> Any:
            self.calls.append(arguments)
            return function(*arguments)

        monkeypatch.setattr(module, name, watched)


@pytest.mark.parametrize("options", [{}, {"policy_rule": "budget"}, {"policy_rule": "fixed"}, {"policy_rule": "eq7"}])
@pytest.mark.parametrize("named", ["auto", "local", "pooled", "score-function"])
def test_evidence_by_hand(
    monkeypatch: pytest.MonkeyPatch,
    dictionary: Any,
    model: Any,
    sample: dict[str, Any],
    options: dict[str, str],
    named: str,
) -> None:
    options = {**options, "policy_estimator": named}
    criterion = make_criterion(dictionary, policy_keep_all_share=0.4, **options)
    paths: list[PathLoss] = []
    loss = criterion.objective.loss

    def recorded(*arguments: Any) -> PathLoss:
        paths.append(loss(*arguments))
        return paths[-1]

    monkeypatch.setattr(criterion.objective, "loss", recorded)
    gradients = Watched(monkeypatch, "policy_gradients")
    evidence = criterion.rollout(model.train(), sample, UPDATE).evidence
    assert evidence is not None
    sampled, greedy = paths
    policy, space = model.encoder.policy, model.encoder.space
    uniforms = input_uniforms(3, UPDATE, sample["id"], space.num_sublayers + 2)
    keep_all = uniforms[:, -1] < 0.4

    # What was tried: one decision of the paths printed in the paper, or all of them.
    assert sampled.features is not None
    distribution = policy(sampled.features)
    automatic = "score-function" if options.get("policy_rule") in ("fixed", "eq7") else "pooled"
    estimator = automatic if named == "auto" else named
    deviating = uniforms[:, 2] >= UPDATE / 90
    exploration = {
        "local": OneDeviation(uniforms[:, :-1], keep_all, 0.02, space, policy.stages),
        "pooled": PooledDeviation(uniforms[:, :-1], keep_all, 0.02, space, policy.stages, None, deviating),
        "score-function": SampledPaths(uniforms[:, :-1], keep_all, 0.02),
    }[estimator]
    explored = ~keep_all & deviating if estimator == "pooled" else ~keep_all
    assert 0 < explored.sum() < 5 and evidence.sampled == explored.sum()
    assert 0 < keep_all.sum() < 5 - explored.sum() or estimator != "pooled", "some run the greedy path"
    tried = space.decisions(*exploration(distribution, policy.stages[0]))
    assert tried.equal(sampled.decisions)

    lengths = criterion.objective.lengths(model, sample)
    costs = [cost(model.geometry, path.decisions, lengths, policy.flops()) for path in paths]
    differences = torch.stack([sampled.quality - greedy.quality, (costs[0] - costs[1]).float()], dim=1)
    ((_, features, _, weights, budgets),) = gradients.calls
    assert budgets is None
    odd = sample["id"] % 2 == 1
    assert torch.equal(weights[..., 2].bool(), torch.stack([explored, explored & odd]))
    assert torch.equal(weights[..., 0].bool(), torch.stack([~keep_all, ~keep_all & odd]))
    assert torch.equal(weights[..., 1], weights[..., 0]) and weights.max() == 1
    assert evidence.decided == int((~keep_all).sum())
    differs = (skips(space, tried) - skips(space, greedy.decisions)) * explored.unsqueeze(1)
    assert (differs.abs().sum(1) > 0).equal(explored) or estimator == "score-function"
    tries = Tries(
        space,
        tried,
        differences * explored.unsqueeze(1),
        model.learner_state.effects(space),
        lambda keep, tokens: expected_cost(model.geometry, space, keep, tokens, lengths, policy.flops()),
    )
    expected = policy_gradients(policy, features, lambda d: exploration.objectives(d, tries), weights)
    assert expected.any() and not torch.equal(*expected)
    assert_close(evidence.gradients, expected[0])
    assert_close(evidence.half, expected[1])
    assert_close(evidence.products, sum(torch.outer(x, x) for x in differs))
    parts = parts_of_cost(model.geometry, space, lengths, policy.flops()).sum(0)
    assert_close(evidence.parts, parts if options.get("policy_rule") == "budget" else torch.zeros_like(parts))
    assert_close(evidence.losses, sum(x * float(y) for x, y in zip(differs, differences[:, 0])))
    assert float(evidence.cost) == pytest.approx(float(costs[1].sum()), rel=1e-5)
    between = expected_cost(model.geometry, space, *distribution.probabilities(), lengths, policy.flops())
    assert float(evidence.expected_cost) == pytest.approx(float(between.sum()), rel=1e-5)
    bound = 1.05 * sampled.quality
    assert evidence.violation == pytest.approx(float((greedy.quality - bound)[keep_all].sum()), rel=1e-5)


@pytest.mark.parametrize("estimator", ["local", "pooled", "score-function"])
def test_with_a_dial_quality_has_the_price_of_what_was_asked_for(
    monkeypatch: pytest.MonkeyPatch, dictionary: Any, stock: Any, sample: dict[str, Any], estimator: str
) -> None:
    """And the cost is weighed as always."""
    dialled = {"policy_rule": "quality", "policy_flops_budget": "0.4:1"}
    model = build_switchable(dictionary, stock, dropout=0.0, **dialled).train()
    dial, state = model.encoder.policy.dial, model.learner_state
    state.caution[0].copy_(torch.linspace(-2, 2, dial.size))
    gradients = Watched(monkeypatch, "policy_gradients")
    criterion = make_criterion(dictionary, policy_keep_all_share=0.4, policy_estimator=estimator, **dialled)
    evidence = criterion.rollout(model, sample, UPDATE).evidence
    ((_, _, _, (weights, _), budgets),) = gradients.calls
    assert evidence is not None and 0 < evidence.sampled <= evidence.decided < 5
    run = weights[:, 1]
    assert run.sum() == evidence.decided and set(run.tolist()) == {0.0, 1.0}
    prices = (dial.columns(budgets).double() @ price(state.caution[0])).to(weights)
    assert len(prices.unique()) > 2
    assert_close(weights[:, 0], run * prices)
    assert_close(weights[:, 2], weights[:, 0] * (weights[:, 2] > 0))
    assert int((weights[:, 2] > 0).sum()) == evidence.sampled


@pytest.mark.parametrize("estimator", ["local", "pooled", "score-function"])
def test_a_path_that_is_the_greedy_one_moves_nothing(
    monkeypatch: pytest.MonkeyPatch, dictionary: Any, model: Any, sample: dict[str, Any], estimator: str
) -> None:
    """What rounding leaves between the losses of one path under two names is no advantage."""
    gradients = []
    model.learner_state.restart()
    model.learner_state.surveyed.fill_(SURVEY_INPUTS)
    for same in (False, True):
        monkeypatch.setattr(module, "same_path", lambda first, *_, same=same: torch.full((len(first),), same))
        criterion = make_criterion(dictionary, policy_estimator=estimator)
        evidence = criterion.rollout(model.train(), sample, update_num=3).evidence
        assert evidence is not None and evidence.sampled > 0
        gradients.append(evidence.gradients[[0, 2]].sum(0))
        assert evidence.losses.any() != same
    assert gradients[0].any() and not gradients[1].any()


@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.parametrize("estimator", ["local", "pooled", "score-function"])
def test_a_training_begins_by_trying_every_token_strategy(
    dictionary: Any, stock: Any, sample: dict[str, Any], estimator: str, closed: bool
) -> None:
    """On whatever sublayers the greedy path runs, until enough inputs did."""
    candidates = {"switch_candidates": "attention,ffn"} if closed else {}
    model = build_switchable(dictionary, stock, dropout=0.0, **candidates).train()
    space, state = model.encoder.space, model.learner_state
    model.encoder.policy.sublayer_heads[0].bias[1] = -9.0
    model.encoder.policy.token_head.bias[2] += 9.0 * (not closed)
    criterion = make_criterion(dictionary, policy_keep_all_share=0.999999, policy_estimator=estimator)
    evidence = criterion.rollout(model, sample, update_num=3).evidence
    assert evidence is not None and evidence.sampled == 0
    if closed or estimator != "pooled":
        assert evidence.surveyed == 0 and not evidence.products.any()
        return
    assert evidence.surveyed == 5
    keep = torch.ones(5, space.num_sublayers, dtype=torch.bool)
    keep[:, 1] = False
    losses = []
    for strategy in range(7):
        path = space.decisions(keep, torch.full((5,), strategy))
        losses.append(criterion.objective.loss(model, sample, path).quality.double().sum())
    differences = torch.stack(losses) - losses[2]
    expected = torch.cat([torch.zeros(space.num_sublayers).double(), differences])
    expected[space.num_sublayers] = 0.0  # what keeping all tokens loses is 0 by definition
    expected[space.num_sublayers + 2] = -differences.sum()
    assert_close(evidence.losses, expected, rtol=1e-5, atol=1e-5)
    for surveyed, goes_on in ((SURVEY_INPUTS - 1, True), (SURVEY_INPUTS, False)):
        state.surveyed.fill_(surveyed)
        evidence = criterion.rollout(model, sample, update_num=4).evidence
        assert evidence is not None and evidence.surveyed == 5 * goes_on


def test_a_new_training_begins_with_a_new_learner(dictionary: Any, model: Any, sample: dict[str, Any]) -> None:
    """Already its first micro-batch sees no weights of the last training's; one that goes on does."""
    optimizer = SimpleNamespace(backward=lambda loss: loss.backward())
    for update_num, ratio in ((3, 1 / 50), (0, 1.0)):
        criterion = make_criterion(dictionary)
        _, _, log = SwitchingTask.train_step(None, sample, model, criterion, optimizer, update_num)  # type: ignore[arg-type]
        assert Weights(*model.learner_state.weights.tolist()).ratio == pytest.approx(ratio)
        assert log["sampled"] > 0
    assert not model.learner_state.mean_costs.any() and not model.learner_state.effect_losses.any()


@pytest.mark.parametrize(
    "options, update_num, rate, settled",
    [
        ({"max_update": 100}, 0, 1.0, 0.0),
        ({"max_update": 100}, 45, 0.5, 0.5),
        ({"max_update": 100}, 95, 0.0, 1.0),
        ({"max_update": 100, "policy_total_updates": 200}, 45, 0.75, 0.25),
        ({"max_update": 0}, 45, 1.0, 1.0),
    ],
)
def test_the_learner_is_told_how_far_training_is(
    dictionary: Any, model: Any, options: dict[str, Any], update_num: int, rate: float, settled: float
) -> None:
    told: list[tuple[float, float]] = []

    def step(learning_rate: float, settled: float, all_reduce: Any) -> dict[str, float]:
        told.append((learning_rate, settled))
        return {}

    criterion = make_criterion(dictionary, policy_lr=1e-2, **options)
    criterion.learner = SimpleNamespace(step=step)  # type: ignore[assignment]
    criterion.policy_step(model, update_num)
    assert told == [(pytest.approx(rate * 1e-2), pytest.approx(settled))]
