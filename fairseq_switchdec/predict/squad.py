"""``predict`` for question answering: SQuAD's files or lines of questions in, JSON lines of n-best answers out."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from fairseq.data import data_utils
from torch import Tensor

from ..config import SquadOptions
from ..cost import Geometry, Lengths
from ..criterions.span import context_places, span_geometry, span_log_probs, window_scores
from ..errors import UserError
from ..squad import dataset
from ..squad.answers import Scores
from ..squad.examples import Problems, Question, read_questions
from ..squad.windows import build_input
from .predictor import Encoded, Unusable, check_numbers, read_lengths
from .run import BadRowError

#: Options of the task that may differ from those of the training.
OPTIONS = ("squad_stride", "squad_longest_answer", "squad_n_best", "squad_null_threshold", "squad_version")


@dataclass(frozen=True)
class Row:
    """A question with its number among the file's rows and its name."""

    line: int
    index: str
    place: str
    question: Question


@dataclass(frozen=True)
class UnusableRow(Unusable):
    """A row that is no question, with its place in the file."""

    place: str


class Untold(Problems):
    """Says nothing: the file is read once more, and then it is said."""

    def __call__(self, row: str, message: str, left_out: bool = True) -> None:
        pass


class Told(Problems):
    """Keeps problems that cost a row, for the runner to tell in their place; warns of the others."""

    def __init__(self, path: str, strict: bool):
        super().__init__(path)
        self.ends = strict
        self.found: list[tuple[str, str]] = []

    def __call__(self, row: str, message: str, left_out: bool = True) -> None:
        if left_out:
            self.found.append((row, message))
        elif self.ends:
            raise BadRowError(f"{self.path}, {row}: {message}")
        else:
            super().__call__(row, message)


def add_predict_args(parser: ArgumentParser) -> None:
    """The task's own options; where they are left out, they are those of the training."""
    fields = SquadOptions.__dataclass_fields__
    for name in OPTIONS:
        kind = type(fields[name].default)
        parser.add_argument("--" + name.replace("_", "-"), type=kind, help=fields[name].metadata["help"])


class SquadPredictor:
    """A `fairseq_switchdec.predict.predictor.Predictor`: windows of a question in, its best answers out.

    A line is ``{"id", "text", "start", "end", "null_odds", "n_best"}``: the answer (empty: none), its characters in the
    context, the score of no answer less the best answer's, and the candidates. A row that cannot be read is
    ``{"id", "row", "error"}``.

    Args:
        task: `SwitchableSquadTask`.
        args: the command's options.

    Raises:
        UserError: the model is of another task.
    """

    unit = "question"
    rows_are_lines = False

    def __init__(self, task: Any, args: Namespace, model: Any):
        if not any(name.startswith("span_head.") for name in args.weights):
            raise UserError(f"--path {args.path} has no span head: name a model trained with --task switchable_squad")
        self.task, self.args = task, args
        self.bpe = task.bpe()
        self.version2 = (
            says_version2(args.input) if task.cfg.squad_version == "auto" else task.cfg.squad_version == "2.0"
        )
        self.problems = Told(args.input, args.strict)

    def settings(self) -> dict[str, Any]:
        """The task's options."""
        cfg = self.task.cfg
        return {name: getattr(cfg, name) for name in SquadOptions.__dataclass_fields__ if name.startswith("squad_")}

    def rows(self, path: str) -> Iterator[Row | Unusable]:
        """The file's questions, and in their places those that cannot be asked."""
        number = 0
        questions = read_questions(path, self.problems)
        while True:
            question = next(questions, None)
            for place, message in self.problems.found:
                number += 1
                yield UnusableRow(number, place, message, place)
            self.problems.found.clear()
            if question is None:
                return
            number += 1
            yield Row(number, question.id, question.row, question)

    def encode(self, row: Row) -> Encoded:
        """The windows of a question."""
        (one,) = dataset.encode_questions([row.question], self.bpe, self.task.windows, self.problems)
        special = self.task.dictionary.bos(), self.task.dictionary.eos()
        inputs = [
            torch.from_numpy(build_input(one.prompt, one.context.ids[window.begin : window.end], *special))
            for window in one.windows
        ]
        return Encoded(inputs, one)

    def batch(self, inputs: list[Tensor]) -> dict[str, Any]:
        """As the task collates."""
        tokens = data_utils.collate_tokens(inputs, self.task.dictionary.pad())
        return {
            "src_tokens": tokens,
            "src_lengths": torch.tensor([one.numel() for one in inputs]),
            "prev_output_tokens": dataset.shift(tokens, self.task.dictionary),
        }

    def run(self, model: Any, net_input: dict[str, Any]) -> list[Scores]:
        """Scores of the tokens of each window."""
        context = context_places(net_input["src_tokens"], net_input["src_lengths"], self.task.dictionary.eos())
        raw, _ = model(**net_input, span_scores=True)
        check_numbers(raw, self.args.path)
        return window_scores(context, span_log_probs(raw, context))

    def geometry(self, model: Any) -> Geometry:
        """With the span head instead of the output projection."""
        return span_geometry(model)

    def lengths(self, model: Any, net_input: dict[str, Any], results: list[Any]) -> Lengths:
        """Of the windows, which the decoder reads too."""
        return read_lengths(model, net_input)

    def write(self, encoded: Encoded, results: list[Scores]) -> str:
        """A line of JSON."""
        one = encoded.row
        found = self.task.answer(one, results, self.version2)
        best = next(candidate for candidate in found.candidates if candidate.text == found.text)
        line = {"id": one.question.id, "text": found.text, "start": best.start, "end": best.end}
        return json.dumps({**line, "null_odds": finite(found.null_odds), "n_best": found.to_json()}) + "\n"

    def write_bad(self, row: Any, reason: str) -> str:
        """A line that keeps the row's place."""
        return json.dumps({"id": row.index, "row": row.place, "error": reason}) + "\n"


def says_version2(path: str) -> bool:
    """Whether any question of a file says whether it has an answer, as 2.0's do; the first that does may come late."""
    return any(question.impossible is not None for question in read_questions(path, Untold(path)))


def finite(value: float) -> float | None:
    """A number that JSON has."""
    return round(value, 5) if abs(value) != float("inf") else None
