"""What ``predict`` asks a task for: a `Predictor` reads rows, encodes them, runs a batch, and writes results.

A task gives one by ``build_predictor(args, model)`` and may add options of its own by ``add_predict_args(parser)``.
Everything else (batches, order, resuming, the report) is done once for all tasks in `fairseq_switchdec.predict.run`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from ..cost import Geometry, Lengths
from ..errors import UserError


class RowError(Exception):
    """A row that cannot be predicted; the message is the reason, without the row's place."""


@dataclass(frozen=True)
class Unusable:
    """A row that the reader could not use.

    Attributes:
        line: its place in the file, from 1.
        index: its name, as far as it is known.
        reason: what is wrong with it.
    """

    line: int
    index: str
    reason: str


@dataclass(frozen=True)
class Encoded:
    """A row as the model reads it.

    Attributes:
        inputs: int64 (S,) each; several where a row is read in windows.
        row: whatever `Predictor.write` needs of it.
    """

    inputs: list[Tensor]
    row: Any

    def __reduce__(self) -> tuple[Any, ...]:
        """For another process: a small tensor takes as long to pickle as to compute with, its numbers do not."""
        return unpacked, ([tokens.tolist() for tokens in self.inputs], self.row)


def unpacked(inputs: list[list[int]], row: Any) -> Encoded:
    """What `Encoded` is pickled as."""
    return Encoded([torch.tensor(tokens, dtype=torch.long) for tokens in inputs], row)


class Predictor(Protocol):
    """A task's side of ``predict``."""

    #: What a row is called in messages and beside the progress bar: "row", "question", ...
    unit: str
    #: Whether the rows are the file's lines, so that their number can be shown.
    rows_are_lines: bool

    def settings(self) -> dict[str, Any]:
        """What the results depend on beside model, input and decisions, in JSON's types: a resumed run compares it."""
        ...

    def rows(self, path: str) -> Iterator[Any]:
        """The rows of a file, one at a time: objects with ``line`` and ``index``, an `Unusable` for a bad one.

        Raises:
            UserError: the file as a whole cannot be read.
        """
        ...

    def encode(self, row: Any) -> Encoded:
        """Raises:
        RowError: this row cannot be predicted.
        """
        ...

    def batch(self, inputs: list[Tensor]) -> dict[str, Any]:
        """The model's ``net_input`` for some inputs: ``src_tokens`` (B, S), ``prev_output_tokens`` (B, T), ..."""
        ...

    def run(self, model: Any, net_input: dict[str, Any]) -> list[Any]:
        """One result an input; ``net_input`` holds ``decisions``. Called without gradients."""
        ...

    def geometry(self, model: Any) -> Geometry:
        """The sizes of what runs, for the report."""
        ...

    def lengths(self, model: Any, net_input: dict[str, Any], results: list[Any]) -> Lengths:
        """The lengths of a batch, on which the cost of its paths depends."""
        ...

    def write(self, encoded: Encoded, results: list[Any]) -> str:
        """The text of a row's results, ends with a newline."""
        ...

    def write_bad(self, row: Any, reason: str) -> str:
        """The text in the place of a row that cannot be predicted, ends with a newline."""
        ...


def read_lengths(model: Any, net_input: dict[str, Any]) -> Lengths:
    """Of a batch that encoder and decoder read once."""
    read = net_input["prev_output_tokens"].ne(model.encoder.padding_idx).sum(1)
    lengths: Lengths = model.encoder.lengths(net_input["src_tokens"], read, beam=1, incremental=False)
    return lengths


def check_numbers(scores: Tensor, path: str) -> None:
    """Refuse what a ruined model says: NaN would go into the output, which is then no JSON.

    Raises:
        UserError: a score is NaN.
    """
    if bool(scores.isnan().any()):
        raise UserError(f"--path {path} gives scores that are no numbers: its training diverged, or leave out --fp16")
