"""What the criterion makes of a batch for the learner: what was tried, sums; and what it tells the learner."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support import build_switchable, task_of
from torch.testing import assert_close

from fairseq_switchdec.config import LexicoPolicyCriterionConfig
from fairseq_switchdec.cost import cost, expected_cost
from fairseq_switchdec.criterions import lexico_policy_criterion as module
from fairseq_switchdec.criterions.lexico_policy_criterion import LexicoPolicyCriterion
from fairseq_switchdec.criterions.objective import GenerationObjective, PathLoss
from fairseq_switchdec.policy import input_uniforms
from fairseq_switchdec.rl import OneDeviation, SampledPaths, Weights, policy_gradients
from fairseq_switchdec.tasks.switching import SwitchingTask

PADDING = 1


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
    model.learner_state.expected_average.copy_(torch.tensor([0.9, 1.0]) * 0.7)
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
@pytest.mark.parametrize("named", ["auto", "local", "score-function"])
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
    evidence = criterion.rollout(model.train(), sample, update_num=3).evidence
    assert evidence is not None
    sampled, greedy = paths
    policy, space = model.encoder.policy, model.encoder.space
    uniforms = input_uniforms(3, 3, sample["id"], space.num_sublayers + 2)
    explored = uniforms[:, -1] >= 0.4
    assert 0 < explored.sum() < 5 and evidence.sampled == explored.sum()

    # What was tried: one decision of the paths printed in the paper, or all of them.
    assert sampled.features is not None
    distribution = policy(sampled.features)
    local = named == "local" or (named == "auto" and options.get("policy_rule") in (None, "budget"))
    exploration = (
        OneDeviation(uniforms[:, :-1], ~explored, 0.02, space, policy.stages)
        if local
        else SampledPaths(uniforms[:, :-1], ~explored, 0.02)
    )
    tried = space.decisions(*exploration(distribution, policy.stages[0]))
    assert tried.equal(sampled.decisions)

    lengths = criterion.objective.lengths(model, sample)
    costs = [cost(model.geometry, path.decisions, lengths, policy.flops()) for path in paths]
    differences = torch.stack([sampled.quality - greedy.quality, (costs[0] - costs[1]).float()], dim=1)
    ((_, features, _, advantages, budgets),) = gradients.calls
    assert budgets is None
    assert_close(advantages[:, :2], differences * explored.unsqueeze(1))
    expected = policy_gradients(policy, features, lambda d: exploration.surrogate(d, space, tried), advantages[:, :2])
    assert expected.any()
    assert_close(evidence.gradients, expected)
    odd = [row for row, index in enumerate(sample["id"].tolist()) if index % 2]
    alone = torch.zeros_like(advantages[:, :2])
    alone[odd] = advantages[odd, :2]
    assert_close(
        evidence.half, policy_gradients(policy, features, lambda d: exploration.surrogate(d, space, tried), alone)
    )
    assert float(evidence.cost) == pytest.approx(float(costs[1].sum()), rel=1e-5)
    between = expected_cost(model.geometry, space, *distribution.probabilities(), lengths, policy.flops())
    assert float(evidence.expected_cost) == pytest.approx(float(between.sum()), rel=1e-5)
    bound = 1.05 * sampled.quality
    assert evidence.violation == pytest.approx(float((greedy.quality - bound)[~explored].sum()), rel=1e-5)


def test_a_path_that_is_the_greedy_one_moves_nothing(
    monkeypatch: pytest.MonkeyPatch, dictionary: Any, model: Any, sample: dict[str, Any]
) -> None:
    """What rounding leaves between the losses of one path under two names is no advantage."""
    gradients = []
    for same in (False, True):
        monkeypatch.setattr(module, "same_path", lambda first, *_, same=same: torch.full((len(first),), same))
        evidence = make_criterion(dictionary).rollout(model.train(), sample, update_num=3).evidence
        assert evidence is not None and evidence.sampled > 0
        gradients.append(evidence.gradients)
    assert gradients[0].any() and not gradients[1].any()


def test_a_new_training_begins_with_a_new_learner(dictionary: Any, model: Any, sample: dict[str, Any]) -> None:
    """Already its first micro-batch sees no weights of the last training's; one that goes on does."""
    optimizer = SimpleNamespace(backward=lambda loss: loss.backward())
    for update_num, ratio in ((3, 1 / 50), (0, 1.0)):
        criterion = make_criterion(dictionary)
        _, _, log = SwitchingTask.train_step(None, sample, model, criterion, optimizer, update_num)  # type: ignore[arg-type]
        assert Weights(*model.learner_state.weights.tolist()).ratio == pytest.approx(ratio)
        assert log["sampled"] > 0
    assert not model.learner_state.expected_average.any()


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
