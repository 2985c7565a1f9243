"""Texts with options of their own, in one process: what the command writes for them, whatever their neighbours."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from fairseq_switchdec.compat.user_dir import register_tasks_and_models
from fairseq_switchdec.dial import Dial
from fairseq_switchdec.policy import SwitchPolicy
from fairseq_switchdec.predict import command
from fairseq_switchdec.predict.generation import add_writing_args
from fairseq_switchdec.predict.summarizer import Refused, Summarizer, Summary, TextRequest

FORCED = {
    "attention_keep": [True, False, True, True, False],
    "ffn_keep": [True, True, False, False, True],
    "token_strategy": 3,
}
LOADED = {"seed": 1, "switch_decisions": "greedy", "switch_random_keep": None, "max_tokens": None, "batch_size": 4}


def options(checkpoint: Path, *words: Any, budget: str | None = None) -> Namespace:
    register_tasks_and_models()
    parser = ArgumentParser()
    command.add_model_args(parser)
    add_writing_args(parser)
    given = ["--path", checkpoint, "--cpu", "--no-bpe", "--beam", 2, "--max-len-b", 8, *words]
    loaded = Namespace(task="switchable_task", switch_budget=budget, **LOADED)
    return parser.parse_args([str(word) for word in given], loaded)


@pytest.fixture(scope="module")
def summarizer(switchable_run: SimpleNamespace) -> Summarizer:
    return Summarizer.load(options(switchable_run.checkpoint))


@pytest.fixture(scope="module")
def texts(corpus: Path) -> list[str]:
    return (corpus.parent / "test.source").read_text().splitlines()


def test_what_the_command_writes_whatever_the_neighbours(summarizer, texts, predict, corpus, tmp_path):
    (tmp_path / "forced.json").write_text(json.dumps(FORCED))
    kinds: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
        "greedy": ((), {}),
        "keep-all": (("--switch-decisions", "keep-all"), {"decisions": "keep-all"}),
        "forced": (("--switch-decisions", tmp_path / "forced.json"), {"decisions": FORCED}),
        "other": (
            ("--beam", 3, "--lenpen", 2.0, "--min-len", 4, "--no-repeat-ngram-size", 2),
            {"decoding": {"beam": 3, "lenpen": 2.0, "min_len": 4, "no_repeat_ngram_size": 2}},
        ),
    }
    answers = iter(summarizer([TextRequest(text, **fields) for text in texts for _, fields in kinds.values()]))
    found: dict[str, list[Any]] = {name: [] for name in kinds}
    for _ in texts:
        for name in kinds:
            found[name].append(next(answers))
    for name, (flags, _) in kinds.items():
        report = tmp_path / f"{name}.json"
        lines = predict(corpus.parent / "test.source", *flags, "--switch-report", report, output=f"{name}.jsonl")
        for answer, line, entry in zip(found[name], lines, json.loads(report.read_text())["per_input"]):
            assert answer.text == line["text"]
            assert answer.score == pytest.approx(line["score"], abs=1e-5)
            assert {"id": entry["id"], **answer.ran} == entry
    assert len({tuple(answer.text for answer in answers) for answers in found.values()}) == len(kinds)
    assert all(answer.ran["cost"] == 1 for answer in found["keep-all"])


@pytest.mark.parametrize("truncate", [(), ("--truncate-source",)], ids=["whole", "cut"])
def test_an_explained_answer_marks_the_text(summarizer, switchable_run, texts, truncate):
    """Strategy 6 drops every second token that may be dropped; what is cut off was not read."""
    if truncate:
        summarizer, texts = Summarizer.load(options(switchable_run.checkpoint, *truncate)), [" ".join(texts * 9)]
    forced = {**FORCED, "token_strategy": 6}
    requests = [TextRequest(text, decisions=forced, explain=explain) for text in texts for explain in (True, False)]
    answers = summarizer(requests)
    for text, answer, plain in zip(texts, answers[::2], answers[1::2]):
        assert plain.explained == {} and (answer.text, answer.ran) == (plain.text, plain.ran)
        found = json.loads(json.dumps(answer.explained))
        states = [state for state, piece in found["source"] for _ in piece.split()]
        assert "".join(piece for _, piece in found["source"]) == " ".join(text.split()) and found["known"]
        content = answer.ran["content_tokens"]
        assert states[:content] == [place % 2 for place in range(content)] and set(states[content:]) <= {0, 3}
        assert (3 in states) == bool(truncate) and states.count(1) == found["dropped"] > 0
        decoder = {line["name"]: line["keep"] for line in found["path"]["stacks"][1]["sublayers"]}
        assert decoder["feed-forward"] == FORCED["ffn_keep"][3:] and found["path"]["strategy"] == "every 2nd"


def test_a_limit_that_grows_with_the_source_is_each_texts_own(summarizer, texts):
    requests = [TextRequest(text, {"max_len_a": 0.25, "max_len_b": 0}) for text in texts]
    together = summarizer(requests)
    assert [answer.text for answer in together] == [summarizer([request])[0].text for request in requests]
    for answer in together:
        assert answer.ran["target_tokens"] <= answer.ran["source_tokens"] // 4 + 1


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (TextRequest(" \n"), "the text is empty"),
        (TextRequest("w1 \ud800"), "half a surrogate pair, which is no character"),
        (TextRequest("w1 " * 80), "81 tokens, and the limit is 64; --truncate-source cuts"),
        (TextRequest("w1", {"min_len": 9}), "min_len 9 is more than the 8 tokens that max_len_a, max_len_b and"),
        (TextRequest("w1", {"min_len": 48, "max_len_b": 99}), "min_len 48 is more than the 47 tokens"),
        (TextRequest("w1", budget=0.5), "budget: this policy was not trained for a range of budgets"),
        (TextRequest("w1", decisions="keep-all", budget=0.5), "budget asks the policy, which decisions do not use"),
        (TextRequest("w1", decisions={}), "decisions: 'attention_keep' must be a list of 5 booleans (this model has 3"),
        (
            TextRequest("w1", decisions={**FORCED, "ffn_keep": [False] * 5}),
            "decisions skips the first encoder layer, which always runs",
        ),
    ],
)
def test_a_refused_text_costs_its_neighbours_nothing(summarizer, request_, reason):
    neighbour, refused = summarizer([TextRequest("w1 w2"), request_])
    assert isinstance(neighbour, Summary) and neighbour.text
    assert isinstance(refused, Refused) and refused.reason.startswith(reason)


def test_each_text_has_its_own_budget(switchable_run, texts):
    args = options(switchable_run.checkpoint)
    task, model = command.load(args)
    model = command.place(model, args)
    torch.manual_seed(3)
    policy = SwitchPolicy(model.encoder.space, 24, 10, dial=Dial(0.4, 0.8))
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.copy_(torch.randn(parameter.shape))
    model.encoder.policy = policy
    summarizer = Summarizer(task, model, args)
    (refused, *answers) = summarizer([TextRequest(texts[0]), *(TextRequest(text, budget=0.4) for text in texts)])
    assert refused == Refused("this policy decides for budgets from 0.4 to 0.8 of the FLOPs: give budget")
    mixed = summarizer([TextRequest(text, budget=(0.4, 0.8)[place % 2]) for place, text in enumerate(texts)])
    assert [answer.ran["budget"] for answer in mixed[:2]] == [0.4, 0.8]
    for alone, among in list(zip(answers, mixed))[::2]:
        assert alone.ran == among.ran and alone.text == among.text
    assert any(alone.ran["ffn_keep"] != other.ran["ffn_keep"] for alone, other in list(zip(answers, mixed))[1::2])
    for budget, reason in ((0.9, "budget 0.9: this policy was trained for"), ("auto", "budget auto: this policy")):
        assert summarizer([TextRequest("w1", budget=budget)])[0].reason.startswith(reason)
    (kept,) = summarizer([TextRequest("w1", decisions="keep-all")])
    assert kept.ran["cost"] == 1
    summarizer.args.switch_budget = "0.4"
    assert summarizer([TextRequest(texts[0])])[0].ran == answers[0].ran
