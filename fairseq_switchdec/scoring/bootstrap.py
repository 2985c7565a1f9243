"""Confidence intervals by resampling the inputs (Koehn, 2004)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Interval(NamedTuple):
    """A mean and its confidence interval, in the unit of what was averaged."""

    mean: float
    low: float
    high: float


def bootstrap(values: np.ndarray, *, samples: int = 2000, confidence: float = 0.95, seed: int = 0) -> Interval:
    """The mean of some inputs' scores, and where it would lie for other inputs of the same kind.

    Args:
        values: ``[N]``, one score of each input.

    Raises:
        ValueError: no vector, or there is no input.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or not values.size:
        raise ValueError(f"expected a non-empty vector, got shape {values.shape}")
    rng = np.random.RandomState(seed)
    means = np.array([values[rng.randint(values.size, size=values.size)].mean() for _ in range(samples)])
    low, high = np.percentile(means, [50 * (1 - confidence), 50 * (1 + confidence)])
    return Interval(float(values.mean()), float(low), float(high))


def paired_bootstrap(
    scores: np.ndarray, baseline: np.ndarray, *, samples: int = 2000, confidence: float = 0.95, seed: int = 0
) -> Interval:
    """How much better ``scores`` are than ``baseline`` on the same inputs.

    The inputs, not the two systems, are drawn with replacement: what makes an input hard is common to both.

    Args:
        scores, baseline: ``[N]``, one measure of each input, in the same order.

    Raises:
        ValueError: shapes differ, or there is no input.
    """
    scores, baseline = np.asarray(scores, dtype=np.float64), np.asarray(baseline, dtype=np.float64)
    if scores.shape != baseline.shape or scores.ndim != 1 or not scores.size:
        raise ValueError(f"expected two equal non-empty vectors, got shapes {scores.shape} and {baseline.shape}")
    return bootstrap(scores - baseline, samples=samples, confidence=confidence, seed=seed)
