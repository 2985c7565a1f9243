"""From a model's scores of starts and ends to answers: the best spans, an n-best list, the choice to give no answer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .tokens import Tokens
from .windows import Window


@dataclass(frozen=True)
class AnswerOptions:
    """How answers are chosen.

    Attributes:
        longest: tokens of the longest answer.
        n_best: candidates of a question that are kept.
        null_threshold: no answer is given where its score exceeds that of the best answer by more than this; None
            where every question has an answer (1.1).
    """

    longest: int = 30
    n_best: int = 20
    null_threshold: float | None = None


@dataclass(frozen=True)
class Scores:
    """What the model says about one window of a context, in log units.

    Attributes:
        start, end: float (W,), of each token of the context in the window as the answer's first and last one.
        null: that the window holds no answer.
    """

    start: np.ndarray
    end: np.ndarray
    null: float


@dataclass(frozen=True)
class Candidate:
    """A possible answer.

    Attributes:
        text: as it stands in the context; empty = no answer.
        start, end: its characters [start, end) there; both 0 for no answer.
        score: start's and end's together.
        probability: among the candidates of its question.
    """

    text: str
    start: int
    end: int
    score: float
    probability: float = 0.0


@dataclass(frozen=True)
class Prediction:
    """What is answered to a question.

    Attributes:
        text: the answer, empty where none is given.
        candidates: the best first; that of no answer is among them under 2.0's rule.
        null_odds: score of no answer less that of the best answer; what a threshold is compared with.
    """

    text: str
    candidates: tuple[Candidate, ...]
    null_odds: float

    def to_json(self) -> list[dict[str, Any]]:
        """The candidates as an n-best file holds them."""
        return [
            {
                "text": one.text, "start": one.start, "end": one.end,
                "score": round(one.score, 5), "probability": round(one.probability, 6),
            }
            for one in self.candidates
        ]  # fmt: skip


def best_spans(scores: Scores, window: Window, longest: int, count: int) -> list[tuple[float, int, int]]:
    """The spans of a window with the highest scores.

    Returns:
        Score, first and last token of the context, the best first. A span starts where this window knows most of its
        token's surroundings, and has at most ``longest`` tokens.
    """
    first, last = window.best_begin - window.begin, window.best_end - window.begin
    width = min(longest, len(scores.end))
    if last <= first or width < 1:
        return []
    padded = np.concatenate([np.asarray(scores.end, dtype=np.float64), np.full(width - 1, -np.inf)])
    ends = np.lib.stride_tricks.sliding_window_view(padded, width)[first:last]  # (starts, width)
    sums = np.asarray(scores.start, dtype=np.float64)[first:last, None] + ends
    flat = sums.ravel()
    chosen = np.argpartition(-flat, count - 1)[:count] if count < flat.size else np.arange(flat.size)
    chosen = chosen[np.lexsort((chosen, -flat[chosen]))]  # of equal ones the earliest
    spans = [(float(flat[index]), *divmod(int(index), width)) for index in chosen if np.isfinite(flat[index])]
    return [(score, window.begin + first + row, window.begin + first + row + more) for score, row, more in spans]


def predict(
    context: str, tokens: Tokens, windows: Sequence[Window], scores: Sequence[Scores], options: AnswerOptions
) -> Prediction:
    """The answer to a question from its windows' scores, and the candidates beside it.

    Args:
        tokens: of the context.
        windows, scores: all of the question's.
    """
    best: dict[str, Candidate] = {}
    for window, score in zip(windows, scores):
        for value, first, last in best_spans(score, window, options.longest, options.n_best):
            start, end = tokens.characters(first, last)
            text = context[start:end]
            if text.strip() and (text not in best or best[text].score < value):
                best[text] = Candidate(text, start, end, value)
    found = sorted(best.values(), key=lambda one: (-one.score, one.start, one.end))[: options.n_best]
    null = min((score.null for score in scores), default=0.0)
    odds = null - found[0].score if found else math.inf
    answer = found[0].text if found else ""
    if options.null_threshold is not None or not found:
        found = sorted([*found, Candidate("", 0, 0, null)], key=lambda one: (-one.score, one.start, one.end))
        if options.null_threshold is not None and odds > options.null_threshold:
            answer = ""
    return Prediction(answer, with_probabilities(found), odds)


def with_probabilities(candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """The candidates with the softmax of their scores."""
    scores = np.array([one.score for one in candidates], dtype=np.float64)
    shares = np.exp(scores - scores.max())
    shares /= shares.sum()
    return tuple(
        Candidate(one.text, one.start, one.end, one.score, float(share)) for one, share in zip(candidates, shares)
    )
