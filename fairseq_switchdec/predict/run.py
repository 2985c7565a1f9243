"""The loop of ``predict``: windows of rows, batches of like lengths, results in the file's order.

    rows -> window (--window inputs) -> inputs sorted by length -> batches -> model -> results in order -> journal

A window's batches depend on nothing but the rows and the options, so a resumed run computes what the killed one would
have, to the bit. Memory holds one window: rows of many inputs, such as questions on long contexts, fill it sooner.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import math
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from ..decisions import Decisions
from ..errors import UserError
from ..generation.decision_source import GreedyRecorder
from ..generation.reading import path_counts, path_key
from ..generation.report import SwitchReport, asked_and_reached, summary_lines, synchronize
from .journal import Journal
from .predictor import Encoded, Predictor, RowError, Unusable

logger = logging.getLogger(__name__)

#: Shares of a report that are means over the inputs.
SHARES = ("cost", "attention_skipped", "ffn_skipped", "tokens_dropped")


class Runner:
    """Predicts a file.

    Args:
        task: decides, see `SwitchingTask.run_decisions`.
        model: on its device, in evaluation mode.
        args: the command's options.
    """

    def __init__(self, task: Any, model: Any, predictor: Predictor, args: Any):
        self.task, self.model, self.predictor, self.args = task, model, predictor, args
        self.device = model.encoder.embed_tokens.weight.device

    def predict(self, run: dict[str, Any], total: int | None) -> str:
        """Read ``--input``, write ``--output``; a line that says what was done.

        Args:
            run: what makes this run the same as another.
            total: number of rows, where it is known.

        Raises:
            UserError: a row cannot be predicted and ``--strict`` is given; nothing is left behind.
        """
        journal = Journal(self.args.output, run)
        done = journal.progress.rows
        if done:
            logger.info("going on after %d %ss of an interrupted run", done, self.predictor.unit)
        rows = itertools.islice(self.predictor.rows(self.args.input), done, None)
        try:
            with tqdm(total=total, initial=done, unit=f" {self.predictor.unit}s", mininterval=1, miniters=0) as bar:
                encoded = ((row, self.encode(row)) for row in rows)
                for window in windows(encoded, self.args.window):
                    self.window(window, journal, bar)
                    bar.update(len(window))
        except BadRowError as error:
            journal.discard()
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

    def window(self, rows: list[tuple[Any, Encoded | str]], journal: Journal, bar: tqdm) -> None:
        """Predict some rows and add them to the journal."""
        first = journal.progress.rows
        usable = [(first + place, item) for place, (_, item) in enumerate(rows) if isinstance(item, Encoded)]
        found = [(tokens, row) for row, item in usable for tokens in item.inputs]
        inputs = [tokens for tokens, _ in found]
        report = SwitchReport(None)
        results = self.results(inputs, [row for _, row in found], journal.progress.inputs, report, bar)
        given = iter(results)
        texts, bad = [], 0
        for row, item in rows:
            if isinstance(item, Encoded):
                texts.append(self.predictor.write(item, [next(given) for _ in item.inputs]))
            else:
                bad += 1
                texts.append(self.predictor.write_bad(row, item))
        entries = sorted(report.inputs, key=lambda entry: entry["id"])
        lines = "".join(json.dumps(entry) + "\n" for entry in entries)
        journal.append("".join(texts), lines, len(rows), len(inputs), bad, report.seconds)

    def encode(self, row: Any) -> Encoded | str:
        """A row for the model, or what is wrong with it, which is said."""
        try:
            if isinstance(row, Unusable):
                raise RowError(row.reason)
            return self.predictor.encode(row)
        except RowError as error:
            where = getattr(row, "place", f"line {row.line}")  # a file that is one document has no lines
            place = f"{self.args.input}, {where} ({self.predictor.unit} {row.index}): {error}"
            if self.args.strict:
                raise BadRowError(place) from None
            logger.warning("%s; it is not predicted", place)
            return str(error)

    def results(self, inputs: list[Tensor], rows: list[int], before: int, report: SwitchReport, bar: tqdm) -> list[Any]:
        """One result an input, in their order.

        Args:
            rows: each input's row in the file, from 0.
            before: inputs of earlier windows: an input's id is its place among all.
            report: gets what every input ran.
            bar: shows how many inputs are done; a single row may have a thousand.
        """
        results: list[Any] = [None] * len(inputs)
        done = 0
        for places in batches([tokens.numel() for tokens in inputs], self.args.batch_size, self.args.max_tokens):
            net_input = self.predictor.batch([inputs[place] for place in places])
            net_input = {name: value.to(self.device) for name, value in net_input.items()}
            ids = torch.tensor(places) + before
            of_rows = torch.tensor([rows[place] for place in places])
            for place, result in zip(places, self.batch(ids, of_rows, net_input, report)):
                results[place] = result
            done += len(places)
            bar.set_postfix_str(f"{done} of {len(inputs)} inputs read ahead", refresh=False)
            bar.update(0)
        return results

    def batch(self, ids: Tensor, rows: Tensor, net_input: dict[str, Any], report: SwitchReport) -> list[Any]:
        """The results of a batch under its decisions."""
        encoder = self.model.encoder
        start = time.perf_counter()
        with torch.no_grad():
            decisions = self.task.run_decisions(self.model, {"id": ids, "rows": rows, "net_input": net_input})
            greedy = None
            if not isinstance(decisions, Decisions):
                decisions = greedy = GreedyRecorder(encoder.space, len(ids), decisions.budgets)
            results = self.predictor.run(self.model, {**net_input, "decisions": decisions})
        synchronize(self.device)
        seconds = time.perf_counter() - start
        if self.args.switch_report is not None:
            read = net_input["prev_output_tokens"].ne(encoder.padding_idx).sum(1)
            lengths = encoder.lengths(net_input["src_tokens"], read, beam=1, incremental=False)
            policy_flops, budgets = (0, None) if greedy is None else (encoder.policy.flops(), greedy.budgets)
            ran = decisions if greedy is None else greedy.decisions
            report.add(ids, ran, self.predictor.geometry(self.model), lengths, policy_flops, seconds, budgets)
        return results


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


def batches(lengths: list[int], batch_size: int, max_tokens: int | None) -> Iterator[list[int]]:
    """Places of inputs of like lengths: at most ``batch_size``, with padding ``max_tokens`` tokens, or one."""
    batch: list[int] = []
    for place in sorted(range(len(lengths)), key=lengths.__getitem__):
        tokens = lengths[place] * (len(batch) + 1)
        if batch and (len(batch) == batch_size or (max_tokens is not None and tokens > max_tokens)):
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


def write_report(path: str, entries: str, seconds: float, run: dict[str, Any]) -> dict[str, Any]:
    """Make the ``--switch-report`` from a file of its entries, one a line, without holding them; its summary."""

    def each() -> Iterator[dict[str, Any]]:
        with open(entries, encoding="utf-8") as lines:
            yield from map(json.loads, lines)

    count = sum(1 for _ in each())
    total: dict[str, Any] = {"inputs": count}
    total |= {name: math.fsum(entry[name] for entry in each()) / max(count, 1) for name in SHARES}
    total |= {"flops": math.fsum(entry["flops"] for entry in each()), "seconds": seconds}
    total |= asked_and_reached(each())
    total |= path_counts(Counter(map(path_key, each())))
    temporary = f"{os.path.realpath(path)}.{os.getpid()}.tmp"
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(json.dumps({**total, "run": run}, indent=1)[:-2] + ',\n "per_input": [')
            for number, entry in enumerate(each()):
                file.write(("," if number else "") + "\n  " + json.dumps(entry))
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
