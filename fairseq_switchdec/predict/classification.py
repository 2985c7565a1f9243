"""``predict`` for sentence classification and regression: rows of GLUE's files in, JSON lines out."""

from __future__ import annotations

import json
import re
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from typing import Any

import torch
from fairseq.data import data_utils, encoders
from torch import Tensor

from ..cost import Geometry, Lengths
from ..criterions.classification import head_geometry
from ..errors import UserError
from ..glue.rows import BadRow, Row, read_rows
from ..glue.tasks import GLUE, STSB_SCALE, glue_task
from ..squad.tokens import bound_cache
from .predictor import Encoded, RowError, Unusable, check_numbers, read_lengths


def add_predict_args(parser: ArgumentParser) -> None:
    """The task's own options."""
    parser.add_argument("--glue-task", required=True, help=f"columns and labels of --input: {', '.join(GLUE)}")


class ClassificationPredictor:
    """A `Predictor`: one input a row, a label or a number out.

    A line is ``{"index", "label", "scores": {label: probability}}``, of STS-B ``{"index", "score"}``, with ``gold``
    where the file tells it; of a row that cannot be predicted ``{"index", "error"}``.

    Args:
        task: `SwitchableSentencePredictionTask`.
        args: the command's options.

    Raises:
        UserError: the BPE is missing, or the model is of another task.
    """

    unit = "row"
    rows_are_lines = True

    def __init__(self, task: Any, args: Namespace, model: Any):
        self.task, self.args = task, args
        self.glue = glue_task("--glue-task", args.glue_task)
        self.head = task.cfg.classification_head_name
        heads = {name.split(".")[1] for name in args.weights if name.startswith("classification_heads.")}
        if self.head not in heads:
            known = ", ".join(sorted(heads)) or "none"
            raise UserError(f"--path {args.path} has no classification head {self.head!r} (it has: {known})")
        self.labels = [] if task.cfg.regression_target else task.labels()
        if sorted(self.labels) != sorted(self.glue.labels):
            wanted, found = (", ".join(labels) or "a number" for labels in (self.glue.labels, self.labels))
            raise UserError(
                f"--glue-task {args.glue_task} asks for {wanted}, the model predicts {found}: name the task that "
                "it was trained for"
            )
        if not (args.gpt2_encoder_json and args.gpt2_vocab_bpe):
            raise UserError(
                "--gpt2-encoder-json and --gpt2-vocab-bpe are missing: name the BPE's files of the training"
            )
        names = Namespace(bpe="gpt2", gpt2_encoder_json=args.gpt2_encoder_json, gpt2_vocab_bpe=args.gpt2_vocab_bpe)
        self.bpe = encoders.build_bpe(names)
        self.dictionary = task.source_dictionary
        self.limit = min(task.max_positions(), *model.max_positions())
        self.truncate = str(task.cfg.shorten_method) == "truncate"

    def settings(self) -> dict[str, Any]:
        """The task and how it reads its inputs."""
        cfg = self.task.cfg
        tokens = [cfg.init_token, cfg.separator_token]
        return {"glue_task": self.args.glue_task, "limit": self.limit, "truncate": self.truncate, "tokens": tokens}

    def rows(self, path: str) -> Iterator[Any]:
        """The file's rows."""
        for row in read_rows(path, self.glue):
            yield Unusable(row.line, row.index, row.reason) if isinstance(row, BadRow) else row

    def encode(self, row: Row) -> Encoded:
        """``<s> first </s>`` and, of a pair, ``</s> second </s>``, as the task's options say."""
        words = sum(len(text.split()) for text in row.texts)
        if words > self.limit and not self.truncate:  # each is a token at least
            raise self.too_long(f"{words} words")
        bound_cache(self.bpe.bpe)
        cfg = self.task.cfg
        parts = []
        for text, first in zip(row.texts, (cfg.init_token, cfg.separator_token)):
            ids = self.bpe.encode(beginning(text, self.limit))
            tokens = self.dictionary.encode_line(ids, add_if_not_exist=False, append_eos=True).long()
            parts += [tokens if first is None else torch.cat([tokens.new_tensor([first]), tokens])]
        tokens = torch.cat(parts)
        if tokens.numel() > self.limit and not self.truncate:
            raise self.too_long(f"{tokens.numel()} tokens")
        return Encoded([tokens[: self.limit]], row)

    def too_long(self, length: str) -> RowError:
        """Says what to do about it."""
        return RowError(
            f"{length}, and the limit is {self.limit} tokens; a model trained with --shorten-method truncate cuts"
        )

    def batch(self, inputs: list[Tensor]) -> dict[str, Any]:
        """As fairseq's task collates: the decoder reads the input, its last token in front."""
        pad = self.dictionary.pad()
        return {
            "src_tokens": data_utils.collate_tokens(inputs, pad),
            "src_lengths": torch.tensor([tokens.numel() for tokens in inputs]),
            "prev_output_tokens": data_utils.collate_tokens([tokens.roll(1) for tokens in inputs], pad),
        }

    def run(self, model: Any, net_input: dict[str, Any]) -> list[list[float]]:
        """The probabilities of the labels, or the number."""
        scores = model(**net_input, classification_head_name=self.head)[0].float()
        check_numbers(scores, self.args.path)
        return (scores if self.task.cfg.regression_target else scores.softmax(1)).tolist()

    def geometry(self, model: Any) -> Geometry:
        """With the head instead of the output projection."""
        return head_geometry(model, self.head)

    def lengths(self, model: Any, net_input: dict[str, Any], results: list[Any]) -> Lengths:
        """Of the inputs, which the decoder reads too."""
        return read_lengths(model, net_input)

    def write(self, encoded: Encoded, results: list[list[float]]) -> str:
        """A line of JSON."""
        (values,) = results
        line: dict[str, Any] = {"index": encoded.row.index}
        if self.labels:
            line["label"] = self.labels[max(range(len(self.labels)), key=values.__getitem__)]
            line["scores"] = {label: round(value, 6) for label, value in zip(self.labels, values)}
        else:
            line["score"] = round(values[0] * STSB_SCALE, 6)
        if encoded.row.label is not None:
            line["gold"] = encoded.row.label
        return json.dumps(line, ensure_ascii=False) + "\n"

    def write_bad(self, row: Any, reason: str) -> str:
        """A line that keeps the row's place."""
        return json.dumps({"index": row.index, "error": reason}, ensure_ascii=False) + "\n"


def beginning(text: str, words: int) -> str:
    """A text up to its ``words``-th word: what follows cannot be within as many tokens."""
    for number, match in enumerate(re.finditer(r"\S+", text), 1):
        if number == words:
            return text[: match.end()]
    return text
