"""The loop of ``predict``: windows of rows out, results in the file's order back.

    rows -> window (--window inputs) -> a worker: inputs sorted by length, batches, model -> results in order -> journal

A resumed run computes what the killed one would have, to the bit. Memory holds one window, with ``--engine ray`` a few
for each worker: rows of many inputs, such as questions on long contexts, fill it sooner.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import math
import os
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from tqdm import tqdm

from ..errors import UserError
from ..generation.reading import path_counts, path_key
from ..generation.report import asked_and_reached, looked_up, summary_lines
from .journal import Journal
from .predictor import Encoded, Predictor, RowError, Unusable
from .worker import Done, Window

logger = logging.getLogger(__name__)

#: Shares of a report that are means over the inputs.
SHARES = ("cost", "attention_skipped", "ffn_skipped", "tokens_dropped")


class Runner:
    """Predicts a file.

    Args:
        args: the command's options.
        work: gives the results of windows, in their order.
    """

    def __init__(self, predictor: Predictor, args: Any, work: Callable[[Iterable[Window]], Iterator[Done]]):
        self.predictor, self.args, self.work = predictor, args, work
        self.bar: Any = None

    def predict(self, run: dict[str, Any], total: int | None) -> str:
        """Read ``--input``, write ``--output``; a line that says what was done.

        Args:
            run: what makes this run the same as another.
            total: number of rows, where it is known.

        Raises:
            UserError: a row cannot be predicted and ``--strict`` is given; nothing is left behind, but for what an
                interrupted run had done, which a command without ``--strict`` goes on from.
        """
        journal = Journal(self.args.output, run)
        done = journal.progress.rows
        if done:
            logger.info("going on after %d %ss of an interrupted run", done, self.predictor.unit)
        rows = itertools.islice(self.predictor.rows(self.args.input), done, None)
        try:
            unit = f" {self.predictor.unit}s"
            with tqdm(total=total, initial=done, unit=unit, mininterval=1, miniters=0) as self.bar:
                encoded = ((row, self.encode(row)) for row in rows)
                cut = windows(encoded, self.args.window)
                for result in self.work(placed(cut, done, journal.progress.inputs)):
                    journal.append(result.text, result.report, result.rows, result.inputs, result.bad, result.seconds)
                    self.bar.update(result.rows)
        except BadRowError as error:
            journal.close() if done else journal.discard()
            raise UserError(f"{error} (--strict)") from None
        except BaseException:
            journal.close()
            raise
        progress = journal.progress
        if self.args.switch_report is not None:
            total_of = write_report(self.args.switch_report, journal.report, progress.seconds, run)
            print(summary_lines(total_of))
        journal.finish()
        bad = f", {progress.bad} of them could not be predicted" if progress.bad else ""
        return f"wrote {self.args.output}: {progress.rows} {self.predictor.unit}s{bad}"

    def show(self, done: int, inputs: int) -> None:
        """Beside the bar: how much of a window is done; a single row may have a thousand inputs."""
        self.bar.set_postfix_str(f"{done} of {inputs} inputs read ahead", refresh=False)
        self.bar.update(0)

    def encode(self, row: Any) -> Encoded | str:
        """A row for the model, or what is wrong with it, which is said."""
        try:
            if isinstance(row, Unusable):
                raise RowError(row.reason)
            return self.predictor.encode(row)
        except RowError as error:
            counted = "line" if self.predictor.rows_are_lines else "row"
            where = getattr(row, "place", f"{counted} {row.line}")  # a file that is one document has no lines
            place = f"{self.args.input}, {where} ({self.predictor.unit} {row.index}): {error}"
            if self.args.strict:
                raise BadRowError(place) from None
            logger.warning("%s; it is not predicted", place)
            return str(error)


class BadRowError(Exception):
    """A bad row under ``--strict``."""


def windows(rows: Iterable[tuple[Any, Encoded | str]], size: int) -> Iterator[list[tuple[Any, Encoded | str]]]:
    """Lists of rows that end where they hold ``size`` inputs together; a row that has none counts as one."""
    window, inputs = [], 0
    for row, item in rows:
        window.append((row, item))
        inputs += len(item.inputs) if isinstance(item, Encoded) else 1
        if inputs >= size:
            yield window
            window, inputs = [], 0
    if window:
        yield window


def placed(cut: Iterable[list[tuple[Any, Encoded | str]]], first: int, before: int) -> Iterator[Window]:
    """Windows that know their place: after so many rows and inputs."""
    for rows in cut:
        window = Window(first, before, rows)
        yield window
        first, before = first + len(rows), before + window.inputs


def write_report(path: str, entries: str, seconds: float, run: dict[str, Any]) -> dict[str, Any]:
    """Make the ``--switch-report`` from a file of its entries, one a line, without holding them; its summary."""

    def each() -> Iterator[dict[str, Any]]:
        with open(entries, encoding="utf-8") as lines:
            yield from map(json.loads, lines)

    columns = {name: array("d") for name in (*SHARES, "flops")}
    paths: Counter[str] = Counter()
    for entry in each():
        paths[path_key(entry)] += 1
        for name, column in columns.items():
            column.append(entry[name])
    count = len(columns["flops"])
    total: dict[str, Any] = {"inputs": count}
    total |= {name: math.fsum(columns[name]) / max(count, 1) for name in SHARES}
    total |= {"flops": math.fsum(columns["flops"]), "seconds": seconds}
    total |= asked_and_reached(each()) | looked_up(each()) | path_counts(paths)
    temporary = f"{os.path.realpath(path)}.{os.getpid()}.tmp"
    try:
        with open(temporary, "w", encoding="utf-8") as file, open(entries, encoding="utf-8") as lines:
            file.write(json.dumps({**total, "run": run}, indent=1)[:-2] + ',\n "per_input": [')
            for number, line in enumerate(lines):
                file.write(("," if number else "") + "\n  " + line.rstrip("\n"))
            file.write("\n ]\n}")
        os.replace(temporary, os.path.realpath(path))
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)
    return total


def file_digest(path: str) -> tuple[str, int]:
    """A file's digest and its number of lines.

    Raises:
        UserError: it cannot be read.
    """
    found, lines = hashlib.blake2b(digest_size=16), 0
    if os.path.exists(path) and not os.path.isfile(path):
        what = "a folder" if os.path.isdir(path) else "a pipe or a device"
        raise UserError(f"--input {path} is {what}: name a file: it is read twice, and once more after a kill")
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                found.update(block)
                lines += block.count(b"\n")
    except OSError as error:
        raise UserError(f"--input {path} cannot be read: {error.strerror}") from None
    return found.hexdigest(), lines
