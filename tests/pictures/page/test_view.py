"""The data of one input, as the page and other programs get it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from page_support import ONE_STACK, TWO_STACKS, entries_of, make_report

from fairseq_switchdec.decisions import DecisionSpace
from fairseq_switchdec.pictures.page.dropped import SourceRule
from fairseq_switchdec.pictures.page.view import Source, input_view

WORDS = "one two three four five six".split()


@pytest.mark.parametrize(
    "space, layers", [(TWO_STACKS, {"encoder": 3, "decoder": 2}), (ONE_STACK, {"layers": 4})], ids=["two", "one"]
)
def test_every_decision_is_in_the_grid(tmp_path: Path, space: DecisionSpace, layers: dict[str, int]) -> None:
    for entry in entries_of(make_report(tmp_path, [6] * 9, space)):
        stacks = input_view(entry)["path"]["stacks"]
        assert {stack["name"]: len(stack["sublayers"][0]["keep"]) for stack in stacks} == layers
        lines: dict[str, list[bool]] = {"attention": [], "cross": [], "ffn": []}
        for stack in stacks:
            for sublayer in stack["sublayers"]:
                kinds = {"self-attention": "attention", "cross-attention": "cross", "feed-forward": "ffn"}
                lines[kinds.get(sublayer["name"], sublayer["name"])] += sublayer["keep"]
        assert lines["attention"] == entry["attention_keep"] and lines["ffn"] == entry["ffn_keep"]
        assert lines["cross"] == entry["cross_attention_keep"]


def test_what_does_not_run_is_said_in_words(tmp_path: Path) -> None:
    entry = entries_of(make_report(tmp_path, [6]))[0]
    entry |= {"attention_keep": [True, False, False, True, False], "ffn_keep": [True] * 5}
    entry |= {"cross_attention_keep": [True, True]}
    assert input_view(entry)["path"]["skipped"] == (
        "attention of encoder layers 2, 3; self-attention of decoder layer 2"
    )
    assert input_view(entry | {"attention_keep": [True] * 5})["path"]["skipped"] == "nothing"
    entry["cross_attention_keep"] = [True, False]
    assert input_view(entry)["path"]["skipped"] == "attention of encoder layers 2, 3 and decoder layer 2"


def test_dropped_tokens_are_marked(tmp_path: Path) -> None:
    entry = entries_of(make_report(tmp_path, [6], strategies=[6]))[0]
    view = input_view(entry, Source(" ".join(WORDS), WORDS), "out", "ref")
    assert view["source"] == [(0, "one"), (1, " two"), (0, " three"), (1, " four"), (0, " five"), (1, " six")]
    assert (view["known"], view["dropped"], view["path"]["strategy"]) == (True, 3, "every 2nd")
    assert (view["hypothesis"], view["reference"], view["id"]) == ("out", "ref", 0)
    assert view["tokens_dropped"] == pytest.approx(3 / 7) and json.loads(json.dumps(view))


@pytest.mark.parametrize("words", [None, WORDS[:-1], [*WORDS, "seven"]], ids=["none", "fewer", "more"])
def test_words_that_the_report_does_not_count_are_not_marked(tmp_path: Path, words: list[str] | None) -> None:
    entry = entries_of(make_report(tmp_path, [6], strategies=[6]))[0]
    view = input_view(entry, Source("the text", words))
    assert view["source"] == [(0, "the text")] and not view["known"] and view["dropped"] == 3


def test_what_was_cut_off_is_told_from_what_was_dropped(tmp_path: Path) -> None:
    entry = entries_of(make_report(tmp_path, [4], strategies=[6]))[0]
    view = input_view(entry, Source(" ".join(WORDS), WORDS), rule=SourceRule(limit=4))
    assert view["source"] == [(0, "one"), (1, " two"), (0, " three"), (1, " four"), (3, " five six")]


def test_without_texts(tmp_path: Path) -> None:
    view = input_view(entries_of(make_report(tmp_path, [6]))[0])
    assert (view["source"], view["known"], view["hypothesis"], view["reference"]) == (None, False, None, None)
