"""Best spans against enumeration, max-context windows, n-best lists and the choice to give no answer."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fairseq_switchdec.squad.answers import AnswerOptions, Scores, best_spans, predict
from fairseq_switchdec.squad.tokens import Tokens
from fairseq_switchdec.squad.windows import Window, WindowOptions, cut_windows

CONTEXT = "a b c d e f g h i j"


def letters() -> Tokens:
    """One token a letter."""
    starts = np.arange(10) * 2
    return Tokens(np.arange(10, dtype=np.int32), starts, starts + 1)


def scores(count: int, seed: int, null: float = -9.0) -> Scores:
    rng = np.random.RandomState(seed)
    return Scores(rng.randn(count).astype(np.float32), rng.randn(count).astype(np.float32), null)


@pytest.mark.parametrize("longest", [1, 3, 30])
@pytest.mark.parametrize("count", [1, 5, 500])
def test_best_spans_are_those_of_enumeration(longest: int, count: int) -> None:
    window, given = Window(20, 32, 23, 29), scores(12, seed=longest + count)
    every = [
        (float(given.start[first - 20]) + float(given.end[last - 20]), first, last)
        for first in range(23, 29)
        for last in range(first, min(first + longest, 32))
    ]
    expected = sorted(every, key=lambda span: -span[0])[:count]
    found = best_spans(given, window, longest, count)
    assert [span[1:] for span in found] == [span[1:] for span in expected]
    np.testing.assert_allclose([span[0] for span in found], [span[0] for span in expected], rtol=1e-6)


def test_nothing_to_choose_from() -> None:
    empty = Scores(np.zeros(0), np.zeros(0), -1.0)
    assert best_spans(empty, Window(0, 0, 0, 0), 30, 20) == []
    found = predict("", Tokens(*(np.zeros(0, dtype=int),) * 3), [Window(0, 0, 0, 0)], [empty], AnswerOptions())
    assert found.text == "" and found.null_odds == math.inf and [one.text for one in found.candidates] == [""]


def test_one_window_or_several_choose_alike() -> None:
    """The same token scores, cut into windows, give the same answer where no window cuts it off."""
    whole = scores(10, seed=4)
    one = predict(CONTEXT, letters(), [Window(0, 10, 0, 10)], [whole], AnswerOptions(longest=2))
    windows = cut_windows(10, 1, WindowOptions(window=11, stride=2, question=1))
    assert len(windows) == 3
    parts = [Scores(whole.start[w.begin : w.end], whole.end[w.begin : w.end], -9.0) for w in windows]
    several = predict(CONTEXT, letters(), windows, parts, AnswerOptions(longest=2))
    assert several.text == one.text
    assert {(c.start, c.end) for c in several.candidates} <= {(c.start, c.end) for c in one.candidates}


def test_the_n_best_list() -> None:
    tokens = Tokens(np.arange(3), np.array([0, 2, 4]), np.array([1, 3, 5]))
    given = Scores(np.array([0.0, 2.0, 1.0]), np.array([0.0, 2.0, 1.0]), 0.0)
    found = predict("a a b", tokens, [Window(0, 3, 0, 3)], [given], AnswerOptions(1, 20, 0.0))
    assert [(one.text, one.start, one.score) for one in found.candidates] == [
        ("a", 2, 4.0),
        ("b", 4, 2.0),
        ("", 0, 0.0),
    ]
    assert sum(one.probability for one in found.candidates) == pytest.approx(1)
    assert found.candidates[0].probability == pytest.approx(math.exp(4) / (math.exp(4) + math.exp(2) + 1))
    entry = found.to_json()[1]
    assert entry.pop("probability") == pytest.approx(math.exp(2) / (math.exp(4) + math.exp(2) + 1), abs=1e-6)
    assert entry == {"text": "b", "start": 4, "end": 5, "score": 2.0}


@pytest.mark.parametrize(("threshold", "answered"), [(None, True), (1.9, False), (2.1, True)])
def test_the_threshold(threshold: float | None, answered: bool) -> None:
    given = [Scores(np.array([1.0, 0.0]), np.array([0.0, 0.0]), 5.0), Scores(np.array([0.0]), np.array([0.0]), 3.0)]
    windows = [Window(0, 2, 0, 2), Window(2, 3, 2, 3)]
    found = predict(CONTEXT, letters(), windows, given, AnswerOptions(1, 20, threshold))
    assert found.null_odds == pytest.approx(2.0)  # the least null score, 3, less the best span's, 1
    assert found.text == ("a" if answered else "")
    assert ("" in [one.text for one in found.candidates]) == (threshold is not None)
