"""ROUGE-1/2/L for ``--scoring rouge``, and the paired bootstrap that says whether two systems differ (section 4).

The paper's figures come from ROUGE-1.5.5 with Porter stemming. ``rouge-score`` with stemming is within half a point of
it. A hypothesis is one line, so ROUGE-L is that of the whole line; sentences separated by newlines in reference and
hypothesis turn it into the summary-level ROUGE-L (``rougeLsum``) that summarization papers report.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from fairseq.dataclass import FairseqDataclass
from fairseq.scoring import BaseScorer, register_scorer

from fairseq_switchdec.errors import UserError

MEASURES = ("rouge1", "rouge2", "rougeL")


class Interval(NamedTuple):
    """A difference of two means and its confidence interval, in ROUGE points."""

    difference: float
    low: float
    high: float


def rouge_scores(references: Sequence[str], hypotheses: Sequence[str]) -> np.ndarray:
    """F1 of every pair, times 100.

    Returns:
        float64 ``[N, 3]``: ROUGE-1, ROUGE-2, ROUGE-L of each pair. Higher is better.

    Raises:
        UserError: rouge-score is not installed.
        ValueError: the two sequences differ in length.
    """
    if len(references) != len(hypotheses):
        raise ValueError(f"{len(references)} references but {len(hypotheses)} hypotheses")
    try:
        from rouge_score.rouge_scorer import RougeScorer as PairScorer
    except ImportError as error:
        raise UserError("--scoring rouge needs the package rouge-score: pip install rouge-score") from error
    names = (*MEASURES[:2], "rougeLsum")  # equals rougeL when there are no newlines
    scorer = PairScorer(names, use_stemmer=True)
    pairs = (scorer.score(reference, hypothesis) for reference, hypothesis in zip(references, hypotheses))
    scores = [[100 * pair[name].fmeasure for name in names] for pair in pairs]
    return np.array(scores, dtype=np.float64).reshape(-1, len(MEASURES))


def paired_bootstrap(
    scores: np.ndarray, baseline: np.ndarray, *, samples: int = 2000, confidence: float = 0.95, seed: int = 0
) -> Interval:
    """How much better ``scores`` are than ``baseline`` on the same inputs (Koehn, 2004).

    The inputs, not the two systems, are drawn with replacement: what makes an input hard is common to both.

    Args:
        scores, baseline: ``[N]``, one measure of each input, in the same order.

    Raises:
        ValueError: shapes differ, or there is no input.
    """
    scores, baseline = np.asarray(scores, dtype=np.float64), np.asarray(baseline, dtype=np.float64)
    if scores.shape != baseline.shape or scores.ndim != 1 or not scores.size:
        raise ValueError(f"expected two equal non-empty vectors, got shapes {scores.shape} and {baseline.shape}")
    differences = scores - baseline
    rng = np.random.RandomState(seed)
    means = np.array([differences[rng.randint(differences.size, size=differences.size)].mean() for _ in range(samples)])
    low, high = np.percentile(means, [50 * (1 - confidence), 50 * (1 + confidence)])
    return Interval(float(differences.mean()), float(low), float(high))


@dataclass
class RougeConfig(FairseqDataclass):
    """``--scoring rouge`` has no options."""


@register_scorer("rouge", dataclass=RougeConfig)
class RougeScorer(BaseScorer):
    """Mean ROUGE over the pairs of a run; give ``fairseq-generate`` the ``--bpe`` too, so that words are compared."""

    def pair_scores(self) -> np.ndarray:
        """float64 ``[N, 3]``, see :func:`rouge_scores`."""
        return rouge_scores(self.ref, self.pred)

    def score(self) -> float:
        """Mean ROUGE-L; 0 when nothing was added."""
        return self._means()[-1]

    def result_string(self) -> str:
        return "ROUGE-1 {:.2f} ROUGE-2 {:.2f} ROUGE-L {:.2f}".format(*self._means())

    def _means(self) -> list[float]:
        scores = self.pair_scores()
        return scores.mean(axis=0).tolist() if len(scores) else [0.0] * len(MEASURES)
