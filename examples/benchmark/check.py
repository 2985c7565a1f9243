"""Before anything is timed: do the systems compute the same with the same weights?

Two inputs, two random targets, teacher forcing. The keep-all logits of ours and of Hugging Face are compared with the
reference's; of CTranslate2, which tells no logits, and of llama.cpp the log-probabilities of the target words are. In
fp32 they must agree; of other precisions the difference is shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .processes import Workers
from .setup import TITLES, Lane, Setup, check_case

#: Largest difference allowed in fp32. The logits' standard deviation is 3; float32's rounding adds up to some 1e-5 in
#: BART-large, a weight in the wrong place to 1 or more.
TOLERANCE = 1e-3


def compare(reference: np.ndarray, found: np.ndarray, target: np.ndarray) -> tuple[str, float]:
    """What was compared, and the largest absolute difference.

    Args:
        reference: logits (B, T, V).
        found: the same of another system, or log-probabilities (B, T) of ``target``, int64 (B, T).
    """
    if found.ndim == reference.ndim:
        return "logits", float(np.abs(found - reference).max())
    exact = reference.astype(np.float64)
    highest = exact.max(-1, keepdims=True)
    log_probs = exact - highest - np.log(np.exp(exact - highest).sum(-1, keepdims=True))
    chosen = np.take_along_axis(log_probs, target[..., None], axis=-1)[..., 0]
    return "log-probabilities of a target", float(np.abs(found - chosen).max())


def run(workers: Workers, setups: Mapping[Lane, Setup]) -> list[dict[str, Any]]:
    """Check every lane that runs; the first of ``setups`` is the reference.

    Raises:
        SystemExit: one that should agree does not: its times would be of another model.
    """
    results: list[dict[str, Any]] = []
    first, reference = next(iter(setups)), None
    for lane in list(workers.running):
        answer = workers.ask(lane, "check")
        if answer is None:
            continue
        found = np.load(answer["file"])
        if lane == first:
            reference = found
            continue
        if reference is None:
            raise SystemExit(f"{first}, which all is compared with, could not be run")
        what, difference = compare(reference, found, check_case(setups[lane])[1])
        tolerance = TOLERANCE if lane.precision == "fp32" else None
        entry = {"system": lane.system, "precision": lane.precision, "compared": what, "with": TITLES[first.system]}
        results.append({**entry, "max_abs_difference": difference, "tolerance": tolerance})
        print(line(results[-1]), flush=True)
        if not np.isfinite(difference) or (tolerance is not None and difference > tolerance):
            raise SystemExit(f"{lane} does not compute what {first} computes with these weights: not timed")
    return results


def line(result: dict[str, Any]) -> str:
    """A result for people."""
    bound = "" if result["tolerance"] is None else f" (at most {result['tolerance']:g} allowed)"
    what = f"{result['compared']} of {result['system']} {result['precision']}"
    return f"Check: {what} differ from {result['with']}'s by at most {result['max_abs_difference']:.2g}{bound}."
