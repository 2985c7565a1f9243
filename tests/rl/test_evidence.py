"""What the criterion makes of a batch for the learner: limits, baseline, sums; and what it tells the learner."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support import build_switchable, task_of
from torch.testing import assert_close

from fairseq_switchdec.config import LexicoPolicyCriterionConfig
from fairseq_switchdec.cost import cost
from fairseq_switchdec.criterions import lexico_policy_criterion as module
from fairseq_switchdec.criterions.lexico_policy_criterion import LexicoPolicyCriterion
from fairseq_switchdec.criterions.objective import GenerationObjective, PathLoss
from fairseq_switchdec.rl import score_function_gradients
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
    """In the middle of a training: weights 50 and 1, a baseline of .01."""
    model = build_switchable(dictionary, stock, dropout=0.0)
    model.learner_state.weights.copy_(torch.tensor([50.0, 1.0]))
    model.learner_state.sampled_average.copy_(torch.tensor([0.01, 0.5, 1.0]) * 0.7)
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


@pytest.mark.parametrize(
    "rule, limit", [("quality", 1 / 50), ("budget", 1 / 50), ("fixed", math.inf), ("eq7", math.inf)]
)
def test_evidence_by_hand(
    monkeypatch: pytest.MonkeyPatch, dictionary: Any, model: Any, sample: dict[str, Any], rule: str, limit: float
) -> None:
    criterion = make_criterion(dictionary, policy_rule=rule, policy_keep_all_share=0.4)
    paths: list[PathLoss] = []
    loss = criterion.objective.loss

    def recorded(*arguments: Any) -> PathLoss:
        paths.append(loss(*arguments))
        return paths[-1]

    monkeypatch.setattr(criterion.objective, "loss", recorded)
    gradients = Watched(monkeypatch, "score_function_gradients")
    evidence = criterion.rollout(model.train(), sample, update_num=3).evidence
    assert evidence is not None
    sampled, greedy = paths
    explored = torch.tensor([not path.equal(model.encoder.space.keep_all(1)) for path in split(sampled)])
    assert 0 < explored.sum() < 5 and evidence.sampled == explored.sum()

    limited = (sampled.quality - greedy.quality).clamp(-limit, limit)
    assert (limited != sampled.quality - greedy.quality).any() == (limit < math.inf), "or the test would show nothing"
    lengths = criterion.objective.lengths(model, sample, sampled)
    costs = [cost(model.geometry, path.decisions, lengths, model.encoder.policy.flops()) for path in paths]
    expected = torch.stack([limited - 0.01, (costs[0] - costs[1]).float()], dim=1) * explored.unsqueeze(1)
    ((policy, features, decisions, advantages, floor),) = gradients.calls
    assert_close(advantages, expected)
    assert_close(evidence.gradients, score_function_gradients(policy, features, decisions, expected, floor))
    assert evidence.advantage == pytest.approx(float(limited[explored].sum()), rel=1e-5)
    assert evidence.sampled_cost == pytest.approx(float(costs[0][explored].sum()), rel=1e-5)
    assert evidence.cost == pytest.approx(float(costs[1].sum()), rel=1e-5)
    bound = 1.05 * sampled.quality
    assert evidence.violation == pytest.approx(float((greedy.quality - bound)[~explored].sum()), rel=1e-5)


def split(path: PathLoss) -> list[Any]:
    return [path.decisions.select([row]) for row in range(len(path.decisions))]


def test_a_baseline_made_with_wider_limits_is_limited_too(
    monkeypatch: pytest.MonkeyPatch, dictionary: Any, model: Any, sample: dict[str, Any]
) -> None:
    model.learner_state.sampled_average[0] = 0.7 * 0.6
    gradients = Watched(monkeypatch, "score_function_gradients")
    criterion = make_criterion(dictionary, policy_rule="budget", policy_keep_all_share=0.0)
    criterion.rollout(model.train(), sample, update_num=3)
    advantages = gradients.calls[0][3][:, 0]
    assert advantages.min() >= -2 / 50 - 1e-6 and advantages.max() <= 1e-6


def test_a_new_training_begins_with_new_weights_and_baseline(
    monkeypatch: pytest.MonkeyPatch, dictionary: Any, model: Any, sample: dict[str, Any]
) -> None:
    """Its first micro-batch is not weighed as the last training's was; one that goes on is."""
    limits = Watched(monkeypatch, "limited_advantages")
    optimizer = SimpleNamespace(backward=lambda loss: loss.backward())
    for update_num, limit in ((3, 1 / 50), (0, 1.0)):
        criterion = make_criterion(dictionary)
        SwitchingTask.train_step(None, sample, model, criterion, optimizer, update_num)  # type: ignore[arg-type]
        assert limits.calls[-1][2] == pytest.approx(limit)
    assert model.learner_state.baseline == 0.0


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
