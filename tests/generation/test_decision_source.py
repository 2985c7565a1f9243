"""Decisions by input id: random, shuffled, forced from a file, and what is wrong with a file."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from fairseq_switchdec.decisions import Decisions, DecisionSpace
from fairseq_switchdec.errors import UserError
from fairseq_switchdec.generation.decision_source import DecisionSource, GreedyRecorder, permuted
from fairseq_switchdec.policy import DecisionDistribution, GreedyChoice

SPACE = DecisionSpace(3, 2)


def source(choice: str, seed: int = 1, keep: float = 0.6, budget: str | None = None) -> DecisionSource:
    options = {"switch_decisions": choice, "seed": seed, "switch_random_keep": keep, "switch_budget": budget}
    return DecisionSource(SimpleNamespace(**options))


def no_greedy() -> dict[int, Decisions]:
    raise AssertionError("greedy decisions were not asked for")


def entry(**changes: Any) -> dict[str, Any]:
    return {"attention_keep": [True] * 5, "ffn_keep": [True] * 5, "token_strategy": 0, **changes}


def test_greedy_is_left_to_the_model():
    choice = source("greedy")(SPACE, torch.arange(3), no_greedy)
    assert isinstance(choice, GreedyChoice) and choice.budgets is None


def test_keep_all():
    assert source("keep-all")(SPACE, torch.arange(3), no_greedy).equal(SPACE.keep_all(3))


def test_random_depends_on_seed_and_id_only():
    ids = torch.tensor([40, 3, 7, 12, 99, 5, 1, 0])
    decided = source("random")(SPACE, ids, no_greedy)
    order = torch.tensor([6, 2, 0, 1, 7, 3, 5, 4])
    assert source("random")(SPACE, ids[order], no_greedy).equal(decided.select(order))
    assert source("random")(SPACE, ids[2:3], no_greedy).equal(decided.select([2]))
    assert not source("random", seed=2)(SPACE, ids, no_greedy).equal(decided)


def test_shuffled_gives_every_input_another_ones_decisions():
    greedy = {index: SPACE.keep_all(1) for index in range(6)}
    for index, decisions in greedy.items():
        decisions.token_strategy.fill_(index)
    shuffled = permuted(greedy, seed=4)
    given = [int(shuffled[index].token_strategy) for index in range(6)]
    assert sorted(given) == list(range(6))
    assert all(index != other for index, other in enumerate(given))
    table = source("shuffled", seed=4)(SPACE, torch.tensor([2, 5]), lambda: greedy)
    assert table.token_strategy.tolist() == [given[2], given[5]]


def test_file_entries_are_taken_in_turn(tmp_path):
    path = tmp_path / "forced.json"
    path.write_text(json.dumps([entry(token_strategy=2), entry(ffn_keep=[True, False, True, True, True])]))
    decided = source(str(path))(SPACE, torch.tensor([0, 1, 3, 2]), no_greedy)
    assert decided.token_strategy.tolist() == [2, 0, 0, 2]
    assert decided.ffn_keep[:, 1].tolist() == [True, False, False, True]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (entry(attention_keep=[True] * 4), "attention_keep.*5 booleans.*3 encoder and 2 decoder"),
        (entry(ffn_keep=[1, 1, 1, 1, 2]), "ffn_keep"),
        (entry(attention_keep=[False] + [True] * 4), "skips the first encoder layer"),
        (entry(token_strategy=7), "token_strategy.*0 to 6"),
        (entry(token_strategy=True), "token_strategy"),
        ([entry(), 3], "entry 1 is not a JSON object"),
        ([], "empty"),
    ],
)
def test_wrong_file(tmp_path, content, message):
    path = tmp_path / "forced.json"
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=f"--switch-decisions.*{message}"):
        source(str(path))(SPACE, torch.arange(2), no_greedy)


def test_file_that_cannot_be_read(tmp_path):
    (tmp_path / "broken.json").write_text('{"attention_keep": [')
    with pytest.raises(UserError, match="not JSON"):
        source(str(tmp_path / "broken.json"))
    with pytest.raises(UserError, match="'greddy' is neither greedy, keep-all.*No such file"):
        source("greddy")


def test_keep_probability_out_of_range():
    with pytest.raises(UserError, match="--switch-random-keep 1.5"):
        source("random", keep=1.5)


def test_recorder_completes_stage_by_stage():
    recorder = GreedyRecorder(SPACE, 2)
    logits = torch.tensor([[-1.0, 2.0], [3.0, -0.5]])
    recorder(DecisionDistribution(logits, torch.eye(7)[[3, 1]]), torch.tensor([1, 6]))
    recorder(DecisionDistribution(-torch.ones(2, 1), None), torch.tensor([9]))
    assert recorder.decisions.attention_keep[:, 1].tolist() == [False, True]
    assert recorder.decisions.ffn_keep.tolist() == [[True, True, True, True, False], [True, False, True, True, False]]
    assert recorder.decisions.token_strategy.tolist() == [3, 1]
