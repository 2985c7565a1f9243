"""``python -m fairseq_switchdec squad-score``: exact match and F1 of answers that exist."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping
from typing import Any

from ..errors import UserError
from ..files import check_writable, write_text
from .evaluate import Threshold, best_threshold, summary
from .examples import Problems, open_bytes, read_questions

TUNE = "tune"


def get_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(
        description="Exact match and F1 as SQuAD's official scripts compute them, and 2.0's best threshold.",
    )
    parser.add_argument("--data", required=True, metavar="FILE", help="SQuAD's JSON with the gold answers")
    given = parser.add_mutually_exclusive_group(required=True)
    given.add_argument("--predictions", metavar="FILE", help="what predict wrote, or JSON: an answer for every id")
    given.add_argument(
        "--n-best", metavar="FILE", help="what predict wrote: answers are chosen anew from its candidates"
    )
    parser.add_argument(
        "--null-threshold", metavar="X", default="0",
        help="with --n-best and 2.0: the answer is empty where the score of no answer exceeds the best answer's "
        "by more than X; "
        f"{TUNE!r} finds the X with the best F1 on this data (default: 0)",
    )  # fmt: skip
    parser.add_argument("--write-predictions", metavar="FILE", help="with --n-best: write the answers chosen")
    parser.add_argument("--version", choices=("1.1", "2.0"), help="version to follow (default: as the data says)")
    parser.add_argument("--json", metavar="FILE", help="write the figures to this file too")
    return parser


def cli_main() -> None:
    """Read the options, score, print, write.

    Raises:
        UserError: a mistake in them or in the files.
    """
    args = get_parser().parse_args()
    for flag in ("write_predictions", "json"):
        if getattr(args, flag):
            check_writable("--" + flag.replace("_", "-"), getattr(args, flag))
    if args.write_predictions and not args.n_best:
        raise UserError("--write-predictions writes what is chosen from --n-best: give that")
    golds, version2 = read_golds(args.data)
    version2 = version2 if args.version is None else args.version == "2.0"
    if args.n_best:
        answers, odds = split_n_best(args.n_best, read_object("--n-best", args.n_best))
        predictions, tuned = choose(golds, answers, odds, args.null_threshold, version2)
    else:
        predictions, tuned = read_predictions(args.predictions), {}
    result = {"version": "2.0" if version2 else "1.1", **summary(golds, predictions, version2=version2), **tuned}
    for key, value in result.items():
        print(f"{key:<22} {value:.3f}" if isinstance(value, float) else f"{key:<22} {value}")
    if args.write_predictions:
        write_text(args.write_predictions, json.dumps(predictions) + "\n")
    if args.json:
        write_text(args.json, json.dumps(result, indent=1) + "\n")


def read_golds(path: str) -> tuple[dict[str, tuple[str, ...]], bool]:
    """Gold answers by id, and whether the data is of version 2.0. Where an answer stands does not matter here.

    Raises:
        UserError: the file cannot be read or holds no question.
    """
    golds, version2 = {}, False
    for question in read_questions(path, Problems(path)):
        golds[question.id] = question.golds
        version2 |= question.impossible is not None
    if not golds:
        raise UserError(f"--data {path} holds no question")
    return golds, version2


def read_object(flag: str, path: str) -> dict[str, Any]:
    """A JSON object by ids, or what ``predict`` wrote, its lines by their ids.

    Raises:
        UserError: the file is neither.
    """
    try:
        with open_bytes(path) as file:
            text = file.read().decode("utf-8-sig")
        lines = text.splitlines()
        if lines and lines[0].startswith('{"id":'):
            return {line["id"]: line for line in map(json.loads, lines)}
        content = json.loads(text)
    except (ValueError, KeyError, TypeError, RecursionError, OSError, EOFError) as error:
        raise UserError(f"{flag} {path}: neither JSON nor what predict writes ({error})") from None
    if not isinstance(content, dict):
        raise UserError(f"{flag} {path}: not a JSON object from ids to answers")
    return content


def read_predictions(path: str) -> dict[str, str]:
    """Answers by id; that to a row with an error is empty.

    Raises:
        UserError: the file holds something else.
    """
    answers = {}
    for identity, entry in read_object("--predictions", path).items():
        answer = entry.get("text", "" if "error" in entry else None) if isinstance(entry, dict) else entry
        if not isinstance(answer, str):
            raise UserError(f"--predictions {path}: the answer to {identity!r} is no text")
        answers[identity] = answer
    return answers


def split_n_best(path: str, entries: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, float]]:
    """The best answer of every question and the odds of giving none.

    Raises:
        UserError: the file holds something else.
    """
    answers: dict[str, str] = {}
    odds: dict[str, float] = {}
    for identity, entry in entries.items():
        try:
            texts = [one["text"] for one in entry.get("n_best", []) if one["text"]]
            answers[identity] = texts[0] if texts else ""
            null_odds = entry.get("null_odds")
            odds[identity] = float("inf") if null_odds is None else float(null_odds)
            if math.isnan(odds[identity]):
                raise ValueError("no number")
        except (TypeError, KeyError, AttributeError, ValueError):
            raise UserError(f"--n-best {path}: the entry {identity!r} is none that predict writes") from None
    return answers, odds


def choose(
    golds: Mapping[str, Any], answers: dict[str, str], odds: dict[str, float], threshold: str, version2: bool
) -> tuple[dict[str, str], dict[str, float]]:
    """The answers after the threshold, and what tuning it found.

    Raises:
        UserError: the threshold is no number.
    """
    if not version2:
        return answers, {}
    tuned: dict[str, float] = {}
    if threshold == TUNE:
        best: Threshold = best_threshold(golds, answers, odds)
        limit = best.f1_threshold
        tuned = {
            "best_exact": best.exact, "best_exact_threshold": best.exact_threshold,
            "best_f1": best.f1, "best_f1_threshold": best.f1_threshold,
        }  # fmt: skip
    else:
        try:
            limit = float(threshold)
        except ValueError:
            raise UserError(f"--null-threshold {threshold} must be a number, or {TUNE!r}") from None
    return {i: "" if odds.get(i, -float("inf")) > limit else answer for i, answer in answers.items()}, tuned
