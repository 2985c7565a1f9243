"""Exact match and F1, as the official evaluation scripts of SQuAD 1.1 and 2.0 define them.

The two differ: 1.1 counts a question without a prediction as wrong, 2.0 leaves it out; 2.0 scores no answer as a text
of its own, and drops gold answers that normalization leaves nothing of.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

ARTICLES = re.compile(r"\b(?:a|an|the)\b")
DROP_PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True)
class Threshold:
    """Where no answer is best given: over this difference of scores, and what that gives, in percent."""

    exact: float
    exact_threshold: float
    f1: float
    f1_threshold: float


def normalize(text: str) -> str:
    """Lower case, without punctuation, articles and more than one space."""
    return " ".join(ARTICLES.sub(" ", text.lower().translate(DROP_PUNCTUATION)).split())


def exact_match(prediction: str, gold: str) -> float:
    """1 where the two are the same after normalization, else 0."""
    return float(normalize(prediction) == normalize(gold))


def f1(prediction: str, gold: str, *, null_counts: bool) -> float:
    """Harmonic mean of precision and recall of words, in [0, 1].

    Args:
        null_counts: two texts without words are the same (2.0); they share no word (1.1).
    """
    predicted, expected = normalize(prediction).split(), normalize(gold).split()
    if null_counts and not (predicted and expected):
        return float(predicted == expected)
    shared = sum((Counter(predicted) & Counter(expected)).values())
    if shared == 0:
        return 0.0
    precision, recall = shared / len(predicted), shared / len(expected)
    return 2 * precision * recall / (precision + recall)


def score_one(prediction: str, answers: Sequence[str], *, version2: bool) -> tuple[float, float]:
    """Exact match and F1 of a prediction, in [0, 1]: the best over the gold answers."""
    golds: Sequence[str] = answers
    if version2:
        golds = [answer for answer in answers if normalize(answer)] or [""]
    if not golds:  # 1.1's script has no rule for this
        return 0.0, 0.0
    exact = max(exact_match(prediction, gold) for gold in golds)
    return exact, max(f1(prediction, gold, null_counts=version2) for gold in golds)


def score_all(
    golds: Mapping[str, Sequence[str]], predictions: Mapping[str, str], *, version2: bool
) -> dict[str, tuple[float, float]]:
    """Exact match and F1 of every question that counts, by id.

    Args:
        golds: answers by id; none = the question cannot be answered.
        predictions: by id.
    """
    scores = {}
    for identity, answers in golds.items():
        if identity in predictions:
            scores[identity] = score_one(predictions[identity], answers, version2=version2)
        elif not version2:
            scores[identity] = (0.0, 0.0)
    return scores


def summary(golds: Mapping[str, Sequence[str]], predictions: Mapping[str, str], *, version2: bool) -> dict[str, Any]:
    """The figures of the official script, in percent: ``exact``, ``f1``, ``total``, and under 2.0 both apart for
    questions that have an answer (``HasAns_*``) and that have none (``NoAns_*``)."""
    scores = score_all(golds, predictions, version2=version2)
    result: dict[str, Any] = means(list(scores.values()))
    result["missing"] = sum(identity not in predictions for identity in golds)
    result["unknown"] = sum(identity not in golds for identity in predictions)
    if version2:
        for name, has in (("HasAns", True), ("NoAns", False)):
            part = [score for identity, score in scores.items() if has_answer(golds[identity]) == has]
            if part:
                result |= {f"{name}_{key}": value for key, value in means(part).items()}
    return result


def means(scores: Sequence[tuple[float, float]]) -> dict[str, float]:
    """Means of exact match and F1 in percent, and their number."""
    total = len(scores)
    exact, overlap = (100 * sum(column) / total for column in zip(*scores)) if total else (0.0, 0.0)
    return {"exact": exact, "f1": overlap, "total": total}


def has_answer(answers: Sequence[str]) -> bool:
    """Whether a question can be answered."""
    return len(answers) > 0


def best_threshold(
    golds: Mapping[str, Sequence[str]], answers: Mapping[str, str], null_odds: Mapping[str, float]
) -> Threshold:
    """The thresholds of ``null_odds`` over which giving no answer scores best, by 2.0's rule.

    Args:
        answers: the best answer of every question, whatever its odds.
        null_odds: score of no answer less that of the best answer, by id.
    """
    scores = score_all(golds, answers, version2=True)
    scored = sorted((identity for identity in scores if identity in null_odds), key=lambda i: null_odds[i])
    # No answer to anything scores on the questions without one; each further question answered adds or takes away.
    start = sum(not has_answer(golds[identity]) for identity in golds)
    found = []
    for column in (0, 1):
        gains = [
            scores[identity][column] if has_answer(golds[identity]) else -1.0 if answers[identity] else 0.0
            for identity in scored
        ]
        totals = start + np.concatenate([[0.0], np.cumsum(gains)])
        # Questions of equal odds are answered together: only the last of them is a threshold.
        odds = np.array([null_odds[identity] for identity in scored])
        possible = np.flatnonzero(np.append(True, np.append(odds[:-1] != odds[1:], True) if len(odds) else []))
        best = int(possible[np.argmax(totals[possible])])
        # Below all odds nothing is answered; the least of them answers its question, since only more refuses.
        threshold = float(odds[best - 1]) if best else float(np.nextafter(odds[0], -np.inf)) if len(odds) else 0.0
        found += [100 * float(totals[best]) / max(len(scores), 1), threshold]
    return Threshold(*found)
