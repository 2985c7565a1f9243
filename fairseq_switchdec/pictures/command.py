"""``python -m fairseq_switchdec plot``: pictures of one ``--switch-report``, or of several beside each other."""

from __future__ import annotations

import argparse
import json
import math
import os
from typing import Any

import numpy as np

from ..errors import UserError
from ..files import check_writable, named_file
from ..generation.reading import PATH
from ..scoring.bootstrap import bootstrap
from ..scoring.rouge import MEASURES, TITLES
from .draw import FORMATS, Point, decisions_figure, new_figure, quality_figure, save

#: What targets were compared under, for people; and what a picture needs of every input.
KINDS = {"greedy": "its own decisions", "shuffled": "another input's", "static": "the most frequent path"}
NEEDED = {*PATH, "cost", "tokens_dropped"}


def get_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(
        description="One report: what each input runs, its cost, the paths. Several: quality against cost, with 95 %% "
        "intervals; quality is the loss of the targets that the reports compared (--switch-compare), or ROUGE.",
    )
    parser.add_argument("reports", nargs="+", metavar="[NAME=]REPORT", help="file that --switch-report wrote")
    parser.add_argument("--out", required=True, metavar="FILE", help=f"picture to write: {', '.join(FORMATS)}")
    parser.add_argument("--scores", metavar="FILE", help="file that score --json wrote, of systems with these NAMEs")
    parser.add_argument(
        "--measure", choices=MEASURES, default=MEASURES[-1], help="measure of --scores (default: %(default)s)"
    )
    parser.add_argument("--title", help="title of the picture, for one report")
    return parser


def cli_main() -> None:
    """Read the options and the reports, draw, write the file, say its name.

    Raises:
        UserError: a mistake in them; no file is written then.
    """
    args = get_parser().parse_args()
    if os.path.splitext(args.out)[1].lower() not in FORMATS:
        raise UserError(f"--out {args.out} must end in {', '.join(FORMATS)}")
    check_writable("--out", args.out)
    new_figure(1, 1)  # says what is missing
    reports = read_reports(args.reports)
    if args.scores is not None:
        points, quality = scored(args.scores, args.measure, reports), TITLES[MEASURES.index(args.measure)]
    elif len(reports) > 1:
        points, quality = compared(reports), "loss of the targets, nats a token (less is better)"
    if args.scores is None and len(reports) == 1:
        ((name, report),) = reports.items()
        figure = decisions_figure(report["per_input"], args.title or name)
    else:
        figure = quality_figure(points, quality, [(name, costs(report)) for name, report in reports.items()])
    save(figure, args.out)
    print(f"wrote {args.out}")


def read_reports(words: list[str]) -> dict[str, dict[str, Any]]:
    """Reports by name; one without a name has that of its file.

    Raises:
        UserError: which one is none, holds no inputs, or has the name of another.
    """
    reports: dict[str, dict[str, Any]] = {}
    for word in words:
        name, path = named_file(word)
        name = name or os.path.splitext(os.path.basename(path))[0]
        if name in reports:
            raise UserError(f"two reports are called {name}: give names, as in NAME={path}")
        reports[name] = read_report(path)
    return reports


def read_report(path: str) -> dict[str, Any]:
    """A report with at least one input.

    Raises:
        UserError: the file is none.
    """
    try:
        with open(path, encoding="utf-8") as file:
            report = json.load(file)
        entries = report["per_input"]
        complete = all(entry.keys() >= NEEDED and isinstance(entry["cost"], (int, float)) for entry in entries)
        lengths = {tuple(len(entry[name]) for name in PATH[:3]) for entry in entries}
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        complete, entries, lengths = False, [], set()
    if not complete or len(lengths) > 1:
        raise UserError(f"{path} is no file that --switch-report wrote")
    if not entries:
        raise UserError(f"{path} holds no inputs: there is nothing to draw")
    return report


def costs(report: dict[str, Any]) -> np.ndarray:
    """Of every input."""
    return np.array([entry["cost"] for entry in report["per_input"]])


def compared(reports: dict[str, dict[str, Any]]) -> list[Point]:
    """The loss of every report's targets against its cost, under each kind of decisions that was compared.

    Raises:
        UserError: a report has compared nothing.
    """
    points = []
    for name, report in reports.items():
        entries = [entry["compared"] for entry in report["per_input"] if "compared" in entry]
        if not entries:
            raise UserError(
                f"report {name} says nothing of quality: generate with --switch-compare above 0 and greedy decisions "
                "on data with targets, or give --scores"
            )
        for kind, label in KINDS.items():
            interval = bootstrap(np.array([entry[kind]["loss"] for entry in entries]))
            share = math.fsum(entry[kind]["cost"] for entry in entries) / len(entries)
            points.append(Point(name, share, *interval, label))
    return points


def scored(path: str, measure: str, reports: dict[str, dict[str, Any]]) -> list[Point]:
    """ROUGE of every report's texts against its cost; of a system without a report, at the cost of everything.

    Raises:
        UserError: the file is none, or lacks a report's system.
    """
    try:
        with open(path, encoding="utf-8") as file:
            systems = json.load(file)["systems"]
        intervals = {name: systems[name][measure] for name in systems}
        points = {
            name: Point(name, 1.0, *(float(interval[part]) for part in ("mean", "low", "high")))
            for name, interval in intervals.items()
        }
    except OSError as error:
        raise UserError(f"--scores {path} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"--scores {path} is no file that score --json wrote") from None
    for name, report in reports.items():
        if name not in points:
            raise UserError(
                f"--scores {path} has no system {name}, only {', '.join(points)}: name the reports as there"
            )
        points[name] = points[name]._replace(cost=float(costs(report).mean()))
    return list(points.values())
