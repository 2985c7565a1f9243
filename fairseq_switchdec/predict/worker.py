"""What a process with a model does of ``predict``: the results of a window of rows.

A window's batches depend on nothing but the rows and the options, so whichever process runs it, and whenever, writes
the same.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..decisions import Decisions
from ..generation.decision_source import GreedyRecorder
from ..generation.report import SwitchReport, synchronize
from .predictor import Encoded, Predictor


@dataclass(frozen=True)
class Window:
    """Rows to predict together.

    Attributes:
        first: the first one's place in the file, from 0.
        before: inputs of all windows before this one: an input's id is its place among all.
        rows: each with what the model reads, or with what is wrong with it.
    """

    first: int
    before: int
    rows: list[tuple[Any, Encoded | str]]

    @property
    def inputs(self) -> int:
        """How many the model reads."""
        return sum(len(item.inputs) for _, item in self.rows if isinstance(item, Encoded))


@dataclass(frozen=True)
class Done:
    """A window's results.

    Attributes:
        text: lines of the output.
        report: lines of JSON, what every input ran.
        rows, inputs, bad: of the window: rows of the file, inputs of the model, rows that could not be predicted.
        seconds: of running the model, where there is a report.
    """

    text: str
    report: str
    rows: int
    inputs: int
    bad: int
    seconds: float


class Worker:
    """Predicts windows.

    Args:
        task: decides, see `SwitchingTask.run_decisions`.
        model: on its device, in evaluation mode.
        args: the command's options.

    Attributes:
        show: is called with how many inputs of a window are done, and of how many.
    """

    show: Callable[[int, int], None] | None = None

    def __init__(self, task: Any, model: Any, predictor: Predictor, args: Any):
        self.task, self.model, self.predictor, self.args = task, model, predictor, args
        self.device = model.encoder.embed_tokens.weight.device

    def __call__(self, window: Window) -> Done:
        """The results, in the rows' order."""
        usable = [(window.first + place, item) for place, (_, item) in enumerate(window.rows)]
        found = [(tokens, row) for row, item in usable if isinstance(item, Encoded) for tokens in item.inputs]
        report = None if self.args.switch_report is None else SwitchReport(None)
        given = iter(self.results([tokens for tokens, _ in found], [row for _, row in found], window.before, report))
        texts = [
            self.predictor.write(item, [next(given) for _ in item.inputs])
            if isinstance(item, Encoded)
            else self.predictor.write_bad(row, item)
            for row, item in window.rows
        ]
        entries = [] if report is None else sorted(report.inputs, key=lambda entry: entry["id"])
        lines = "".join(json.dumps(entry) + "\n" for entry in entries)
        bad = sum(isinstance(item, str) for _, item in window.rows)
        return Done("".join(texts), lines, len(window.rows), len(found), bad, 0.0 if report is None else report.seconds)

    def results(self, inputs: list[Tensor], rows: list[int], before: int, report: SwitchReport | None) -> list[Any]:
        """One result an input, in their order.

        Args:
            rows: each input's row in the file, from 0.
            before: see `Window`.
            report: gets what every input ran; None: nobody asks.
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
            if self.show is not None:
                self.show(done, len(inputs))
        return results

    def batch(self, ids: Tensor, rows: Tensor, net_input: dict[str, Any], report: SwitchReport | None) -> list[Any]:
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
        if report is not None:
            lengths = self.predictor.lengths(self.model, net_input, results)
            policy_flops, budgets = (0, None) if greedy is None else (encoder.policy.flops(), greedy.budgets)
            ran = decisions if greedy is None else greedy.decisions
            geometry, runs = self.predictor.geometry(self.model), self.model.decoder.runs
            report.add(ids, ran, geometry, lengths, policy_flops, seconds, budgets, runs)
        return results


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
