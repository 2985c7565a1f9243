"""``predict`` for generation: texts in, what the model writes for each as JSON lines out; nothing is binarized."""

from __future__ import annotations

import copy
import json
import logging
import os
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from fairseq.data import data_utils, encoders
from fairseq.dataclass.configs import GenerationConfig
from torch import Tensor

from ..cost import Geometry, Lengths
from ..errors import UserError
from ..generation.lengths import check_batch, check_lengths
from ..generation.report import decoding_steps
from ..generation.run_settings import file_or_word, source_settings
from ..glue.rows import LONGEST_WORD
from ..squad.tokens import bound_cache
from .predictor import Encoded, RowError, check_numbers
from .text_rows import TextRow, is_parquet, read_texts

#: fairseq's options of beam search; the same search gives the same bytes when a run goes on, so none of them samples.
DECODING = {
    "beam": int,
    "max_len_a": float,
    "max_len_b": int,
    "min_len": int,
    "lenpen": float,
    "no_repeat_ngram_size": int,
}
TOKENIZER = "tokenizer.json"

logger = logging.getLogger(__name__)


def add_writing_args(parser: ArgumentParser) -> None:
    """How texts are read and written."""
    fields = GenerationConfig.__dataclass_fields__
    for name, kind in DECODING.items():
        default, text = fields[name].default, fields[name].metadata["help"]
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, default=default, help=f"{text} (%(default)s)")
    guessing = "with --beam 1, guess tokens from the text: auto, off, or how many (%(default)s)"
    parser.add_argument("--switch-lookup", default="auto", metavar="N", help=guessing)
    parser.add_argument("--truncate-source", action="store_true", help="cut texts that are too long for the model")
    parser.add_argument(
        "--tokenizer-json",
        metavar="FILE",
        help=f"the model's tokenizer; by default {TOKENIZER} beside the checkpoint or in --data, if it is there",
    )
    parser.add_argument("--no-bpe", action="store_true", help="texts are words of the dictionary, in and out")
    parser.add_argument(
        "--begin-with-bos",
        choices=("yes", "no"),
        help="whether the texts of the training began with <s>, for a checkpoint that does not say",
    )


def add_predict_args(parser: ArgumentParser) -> None:
    """The task's own options."""
    add_writing_args(parser)
    parser.add_argument("--text-column", default="text", metavar="NAME", help="key or column of a text (%(default)s)")
    parser.set_defaults(window=256)  # what a kill loses at most


@dataclass(frozen=True)
class Written:
    """What the model writes for an input.

    Attributes:
        text: the best hypothesis.
        score: its log-probability (natural; fairseq prints base 2), normalized by length as ``--lenpen`` says.
        steps: decoding steps of the input, its longest hypothesis' tokens.
    """

    text: str
    score: float
    steps: int


class GenerationPredictor:
    """A `fairseq_switchdec.predict.predictor.Predictor`: a text in, a text out.

    A line is ``{"index", "text", "score"}``; of a row that cannot be read ``{"index", "error"}``.

    Args:
        task: `SwitchableTask`.
        args: the command's options.

    Raises:
        UserError: an option that cannot be meant, or the BPE is missing.
    """

    unit = "text"

    def __init__(self, task: Any, args: Namespace, model: Any):
        self.rows_are_lines = not is_parquet(getattr(args, "input", ""))
        self.task, self.args, self.openings = task, args, model.openings
        self.check_search(model.max_decoder_positions() - 1)
        if args.begin_with_bos is not None:
            self.openings.with_bos.fill_(float(args.begin_with_bos == "yes"))
        elif self.openings.source is None:
            logger.warning(
                "%s does not say whether its texts began with <s>, as those of the released BARTs do: none is added. "
                "Give --begin-with-bos yes or no", args.path,
            )  # fmt: skip
        self.bpe = build_bpe(args, task.cfg.data)
        self.source, self.target = task.source_dictionary, task.target_dictionary
        self.limit = min(task.cfg.max_source_positions, model.encoder.max_positions())
        self.truncate = args.truncate_source or task.cfg.truncate_source
        self.reading = source_settings(model, Namespace(max_source_positions=self.limit, truncate_source=self.truncate))
        self.generator: Any = None

    def check_search(self, longest: int) -> None:
        """Refuse options of beam search that fairseq would fail at.

        Args:
            longest: tokens that the model can write.

        Raises:
            UserError: naming the flag.
        """
        args = self.args
        if args.beam < 1:
            raise UserError(f"--beam {args.beam} must be 1 or more")
        for name in ("max_len_a", "max_len_b", "min_len", "no_repeat_ngram_size"):
            if getattr(args, name) < 0:
                raise UserError(f"--{name.replace('_', '-')} {getattr(args, name)} must be 0 or more")
        check_lengths(args, longest)

    def searching(self, args: Namespace) -> GenerationPredictor:
        """The same predictor with other options of beam search, those of `DECODING`."""
        other = copy.copy(self)
        other.args, other.generator = args, None
        return other

    def settings(self) -> dict[str, Any]:
        """How texts are read and written."""
        files = ("tokenizer_json", "gpt2_encoder_json", "gpt2_vocab_bpe")
        return {
            "source": self.reading,
            "generation": {name: getattr(self.args, name) for name in DECODING},
            "lookup": self.args.switch_lookup if self.args.beam == 1 else "off",
            "text_column": self.args.text_column,
            "begins_with_bos": [self.openings.source, self.openings.target],
            **{name: file_or_word(getattr(self.args, name)) for name in files},
        }

    def rows(self, path: str) -> Iterator[Any]:
        """The file's texts."""
        yield from read_texts(path, self.args.text_column)

    def encode(self, row: TextRow) -> Encoded:
        """A text's tokens, as ``fairseq-interactive`` makes them of a line."""
        words = row.text
        if self.bpe is not None:
            longest = max(map(len, words.split()), default=0)
            if hasattr(self.bpe, "bpe"):  # GPT-2's
                if longest > LONGEST_WORD:
                    raise RowError(f"a word of {longest} characters (the limit is {LONGEST_WORD})")
                bound_cache(self.bpe.bpe)
            words = self.bpe.encode(words)
        tokens = self.source.encode_line(words, add_if_not_exist=False).long()
        tokens = self.openings.open(tokens, self.source.bos())
        if tokens.numel() > self.limit:
            if not self.truncate:
                raise RowError(f"{tokens.numel()} tokens, and the limit is {self.limit}; --truncate-source cuts")
            tokens = torch.cat([tokens[: self.limit - 1], tokens[-1:]])
        return Encoded([tokens], row)

    def batch(self, inputs: list[Tensor]) -> dict[str, Any]:
        """As fairseq's task collates."""
        return {
            "src_tokens": data_utils.collate_tokens(inputs, self.source.pad(), left_pad=self.task.cfg.left_pad_source),
            "src_lengths": torch.tensor([tokens.numel() for tokens in inputs]),
        }

    def run(self, model: Any, net_input: dict[str, Any]) -> list[Written]:
        """What is written for each input."""
        if self.generator is None:  # the model has its place and precision only now
            self.generator = self.task.build_generator([model], self.args)
        check_batch(self.generator, net_input["src_tokens"])
        prefix = self.openings.prefix(net_input["src_tokens"], self.target.bos())
        found = self.generator.generate([model], {"net_input": net_input}, prefix_tokens=prefix)
        scores = torch.stack([beams[0]["score"] for beams in found]).float()
        check_numbers(scores, self.args.path)
        texts = [self.decode(beams[0]["tokens"]) for beams in found]
        return [Written(*written) for written in zip(texts, scores.tolist(), decoding_steps(found).tolist())]

    def decode(self, tokens: Tensor) -> str:
        """The text of a row of tokens, int64 (T,)."""
        words = self.target.string(tokens.int().cpu())
        return words if self.bpe is None else self.bpe.decode(words)

    def geometry(self, model: Any) -> Geometry:
        """The model's."""
        geometry: Geometry = model.geometry
        return geometry

    def lengths(self, model: Any, net_input: dict[str, Any], results: list[Written]) -> Lengths:
        """Of the texts and what was written."""
        steps = torch.tensor([written.steps for written in results])
        lengths: Lengths = model.encoder.lengths(net_input["src_tokens"], steps, self.args.beam)
        return lengths

    def write(self, encoded: Encoded, results: list[Written]) -> str:
        """A line of JSON."""
        (written,) = results
        line = {"index": encoded.row.index, "text": written.text, "score": round(written.score, 6)}
        return json.dumps(line, ensure_ascii=False) + "\n"

    def write_bad(self, row: Any, reason: str) -> str:
        """A line that keeps the row's place."""
        return json.dumps({"index": row.index, "error": reason}, ensure_ascii=False) + "\n"


def build_bpe(args: Namespace, data: str) -> Any:
    """The BPE that the options name, or the tokenizer.json of the checkpoint; None where there is to be none.

    Raises:
        UserError: none is named, or two.
    """
    gpt2 = {"--gpt2-encoder-json": args.gpt2_encoder_json, "--gpt2-vocab-bpe": args.gpt2_vocab_bpe}
    missing = [flag for flag, file in gpt2.items() if not file]
    if len(missing) == 1:
        raise UserError(f"{missing[0]} is missing: GPT-2's BPE takes both files")
    chosen = {"--gpt2-encoder-json": not missing, "--tokenizer-json": args.tokenizer_json, "--no-bpe": args.no_bpe}
    given = [flag for flag, value in chosen.items() if value]
    if len(given) > 1:
        raise UserError(f"{' and '.join(given)} exclude each other: give one of them")
    if args.no_bpe:
        return None
    if not missing:
        names = {"gpt2_encoder_json": args.gpt2_encoder_json, "gpt2_vocab_bpe": args.gpt2_vocab_bpe}
        return encoders.build_bpe(Namespace(bpe="gpt2", **names))
    if args.tokenizer_json is None:
        places = (os.path.dirname(os.path.abspath(args.path)), data)
        found = (os.path.join(place, TOKENIZER) for place in places)
        args.tokenizer_json = next((path for path in found if os.path.isfile(path)), None)
    if args.tokenizer_json is None:
        raise UserError(
            "which BPE were the texts of the training made with? Give --gpt2-encoder-json and --gpt2-vocab-bpe, or "
            "--tokenizer-json, or --no-bpe where they are words of the dictionary"
        )
    return encoders.build_bpe(
        Namespace(bpe="tokenizer_json", tokenizer_json=args.tokenizer_json, tokenizer_json_escape=False)
    )
