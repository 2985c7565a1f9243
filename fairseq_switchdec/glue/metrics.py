"""GLUE's measures of predictions, in percent, from scikit-learn and scipy; and the file that GLUE's server takes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from ..errors import UserError
from .tasks import GlueTask


def measures(task: GlueTask, gold: Sequence[str], predicted: Sequence[str]) -> dict[str, float]:
    """What GLUE reports of a task.

    Args:
        gold, predicted: labels, or numbers as text; as many.

    Raises:
        UserError: scikit-learn or scipy is not installed, or there is nothing to measure.
    """
    if not gold:
        raise UserError("there is no row with both a label and a prediction")
    try:
        from scipy.stats import pearsonr, spearmanr
        from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef
    except ImportError as error:
        raise UserError(f"GLUE's measures need scikit-learn and scipy: pip install {error.name}") from None
    found = {}
    for name in task.measures:
        if name == "accuracy":
            value = accuracy_score(gold, predicted)
        elif name == "f1":
            value = f1_score(gold, predicted, pos_label=task.labels[1], zero_division=0)
        elif name == "matthews":
            value = matthews_corrcoef(gold, predicted)
        else:
            correlate = pearsonr if name == "pearson" else spearmanr
            value = correlate([float(text) for text in gold], [float(text) for text in predicted])[0]
        found[name] = 100 * float(value)
    return found


def read_predictions(path: str) -> Iterator[dict[str, Any]]:
    """The lines that ``predict`` wrote.

    Raises:
        UserError: the file is none of them.
    """
    number = 0
    try:
        with open(path, encoding="utf-8-sig") as lines:
            for line in lines:
                number += 1
                entry = json.loads(line)
                if not isinstance(entry, dict) or not {"label", "score", "error"} & entry.keys():
                    raise ValueError("neither label, score nor error")
                yield entry
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"{path}, line {number}: not a prediction of fairseq_switchdec predict ({error})") from None


def prediction(entry: dict[str, Any]) -> str:
    """The label or the number, as text."""
    return str(entry["label"] if "label" in entry else entry["score"])


def scored(task: GlueTask, path: str) -> tuple[dict[str, float], int]:
    """The measures of a file, and how many of its rows have no prediction, which the measures leave out."""
    gold, predicted, absent = [], [], 0
    for entry in read_predictions(path):
        if "error" in entry:
            absent += 1
        elif "gold" in entry:
            gold.append(entry["gold"])
            predicted.append(prediction(entry))
    return measures(task, gold, predicted), absent


def submission(task: GlueTask, path: str) -> tuple[str, int]:
    """GLUE's file, ``index`` and ``prediction``, and how many rows had to be filled, for none may be missing.

    A row that could not be predicted gets the first label, or the middle of the scale.
    """
    lines, filled = ["index\tprediction"], 0
    for number, entry in enumerate(read_predictions(path)):
        if "error" in entry:
            filled += 1
            text = task.labels[0] if task.labels else "2.5"
        else:
            text = prediction(entry)
        if not task.labels:
            text = f"{min(5.0, max(0.0, float(text))):.3f}"
        lines.append(f"{entry.get('index', number)}\t{text}")
    return "\n".join(lines) + "\n", filled
