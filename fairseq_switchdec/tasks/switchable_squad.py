"""``--task switchable_squad``: question answering by spans, SQuAD 1.1 and 2.0 (section 4.1).

    DATA/train.json valid.json      SQuAD's files, or .jsonl, or compressed (.gz)
    DATA/dict.txt                   the model's dictionary
    DATA/encoder.json vocab.bpe     the BPE, unless --gpt2-encoder-json and --gpt2-vocab-bpe name another place

Question and context go to the encoder and, whole, to the decoder; a span head scores the decoder's top states. Tokens
are dropped from the encoder's states only, so every word keeps a state to be scored by.
"""

from __future__ import annotations

import logging
from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from fairseq import utils
from fairseq.data import Dictionary
from fairseq.logging import metrics
from fairseq.tasks import FairseqTask, register_task
from torch import Tensor
from tqdm import tqdm

from ..config import LexicoPolicyCriterionConfig, SwitchableSquadConfig, check_choice, check_range
from ..criterions.span import SpanObjective, window_scores
from ..errors import UserError
from ..predict.squad import OPTIONS, SquadPredictor, add_predict_args
from ..squad.answers import AnswerOptions, Prediction, Scores, predict
from ..squad.dataset import Encoded, SpanDataset, encode_questions
from ..squad.evaluate import score_one
from ..squad.examples import Problems, read_questions
from ..squad.tokens import OffsetBPE
from ..squad.windows import WindowOptions
from .switching import SwitchingTask

logger = logging.getLogger(__name__)

#: How the file of a split may end, in the order in which they are looked for.
SUFFIXES = (".json", ".json.gz", ".jsonl", ".jsonl.gz")
VERSIONS = ("auto", "1.1", "2.0")
#: Windows that validation runs at once; a long context alone may have a thousand.
VALID_WINDOWS = 64


@register_task("switchable_squad", dataclass=SwitchableSquadConfig)
class SwitchableSquadTask(SwitchingTask, FairseqTask):
    """Windows of questions for a model with a span head; exact match and F1 at validation."""

    cfg: SwitchableSquadConfig
    head = ("switchable_squad", "register_span_head")

    def __init__(self, cfg: SwitchableSquadConfig, dictionary: Dictionary):
        super().__init__(cfg)
        self.set_up_switching(cfg)
        self.dictionary = dictionary
        self.check()
        self.tokenizer: OffsetBPE | None = None
        self.objective: SpanObjective | None = None

    def check(self) -> None:
        """Refuse options that cannot be meant.

        Raises:
            UserError: naming the flag.
        """
        cfg = self.cfg
        check_choice("squad_version", cfg.squad_version, VERSIONS)
        for name in ("squad_longest_answer", "squad_n_best"):
            check_range(name, getattr(cfg, name), "1 or more", lambda value: value >= 1)
        self.windows = WindowOptions(cfg.squad_window, cfg.squad_stride, cfg.squad_question)
        self.windows.check()

    @classmethod
    def setup_task(cls, cfg: SwitchableSquadConfig, **kwargs: Any) -> SwitchableSquadTask:
        """fairseq's hook.

        Raises:
            UserError: the data folder has no dict.txt.
        """
        path = Path(cfg.data, "dict.txt")
        if not path.is_file():
            raise UserError(f"{path} does not exist: copy the model's dict.txt into the data folder")
        return cls(cfg, Dictionary.load(str(path)))

    @property
    def source_dictionary(self) -> Dictionary:
        """The model's dictionary."""
        return self.dictionary

    @property
    def target_dictionary(self) -> Dictionary:
        """The same."""
        return self.dictionary

    def max_positions(self) -> tuple[int, int]:
        """Windows are never longer, on either side."""
        return self.cfg.squad_window, self.cfg.squad_window

    # --- data ---

    def bpe(self) -> OffsetBPE:
        """The BPE, read once."""
        if self.tokenizer is None:
            json_file = self.cfg.gpt2_encoder_json or str(Path(self.cfg.data, "encoder.json"))
            merges = self.cfg.gpt2_vocab_bpe or str(Path(self.cfg.data, "vocab.bpe"))
            self.tokenizer = OffsetBPE(json_file, merges, self.dictionary)
        return self.tokenizer

    def load_dataset(self, split: str, combine: bool = False, **kwargs: Any) -> None:
        """Read a split's file: windows of questions with an answer for ``train``, whole questions for all others.

        Raises:
            UserError: there is no such file, or nothing to learn from in it.
        """
        path = self.split_file(split)
        problems = Problems(path)
        questions = [question for question in read_questions(path, problems) if question.context.strip()]
        version2 = self.version2(any(question.impossible is not None for question in questions))
        training = split == "train"
        usable = [question for question in questions if question.trainable and (version2 or question.answers)]
        if len(usable) < len(questions):
            logger.warning(
                "%s: %d of %d questions say no answer: left out", path, len(questions) - len(usable), len(questions)
            )
        if not usable:
            raise UserError(f"{path} holds no question with an answer in its context")
        bar = tqdm(usable, desc=f"tokens of {split}", unit=" questions", disable=None, leave=False)
        encoded = list(encode_questions(bar, self.bpe(), self.windows, problems))
        data = SpanDataset(encoded, self.dictionary, whole=not training, version2=version2)
        self.datasets[split] = data
        # Decisions of a whole run (shuffled) are made for so many windows at once, not for so many questions.
        self.run_dataset = data if training else SpanDataset(encoded, self.dictionary, whole=False, version2=version2)
        logger.info(
            "%s: %d questions, %d windows, SQuAD %s, %d problems",
            path, len(encoded), data.first[-1], "2.0" if version2 else "1.1", problems.count,
        )  # fmt: skip

    def split_file(self, split: str) -> str:
        """The file of a split.

        Raises:
            UserError: there is none.
        """
        for suffix in SUFFIXES:
            path = Path(self.cfg.data, split + suffix)
            if path.is_file():
                return str(path)
        raise UserError(f"{self.cfg.data} has no {split}.json: copy SQuAD's file there under this name")

    def version2(self, says_so: bool) -> bool:
        """Whether questions may have no answer."""
        return says_so if self.cfg.squad_version == "auto" else self.cfg.squad_version == "2.0"

    def filter_indices_by_size(self, indices: Any, *args: Any, **kwargs: Any) -> Any:
        """fairseq's hook: windows are cut to fit, none is left out."""
        return indices

    # --- model ---

    def build_model(self, cfg: Any, from_checkpoint: bool = False) -> Any:
        """The model with a span head.

        Raises:
            UserError: a window exceeds the model's positions; and see `SwitchingTask.build_model`.
        """
        model = super().build_model(cfg, from_checkpoint)
        positions = min(model.encoder.max_positions(), model.decoder.max_positions())
        if self.cfg.squad_window > positions:
            raise UserError(f"--squad-window {self.cfg.squad_window} exceeds the model's {positions} positions")
        model.register_span_head()
        return model

    def build_objective(self, options: LexicoPolicyCriterionConfig) -> SpanObjective:
        """Where answers begin and end."""
        self.objective = SpanObjective(options)
        return self.objective

    # --- prediction ---

    @staticmethod
    def add_predict_args(parser: ArgumentParser) -> None:
        """Options of ``predict`` for this task."""
        add_predict_args(parser)

    def build_predictor(self, args: Any, model: Any) -> SquadPredictor:
        """What ``predict`` runs."""
        for name in (*OPTIONS, "gpt2_encoder_json", "gpt2_vocab_bpe"):
            if getattr(args, name) is not None:
                setattr(self.cfg, name, getattr(args, name))
        self.check()
        return SquadPredictor(self, args, model)

    # --- validation ---

    def valid_step(self, sample: Any, model: Any, criterion: Any, **kwargs: Any) -> tuple[Tensor, int, dict[str, Any]]:
        """A batch of whole questions, run `VALID_WINDOWS` at once: memory does not grow with a context's length."""

        def in_parts(model: Any, sample: Any) -> tuple[Tensor, int, dict[str, Any]]:
            losses, sizes, logs = zip(*(criterion(model, part) for part in parts(sample, VALID_WINDOWS)))
            return sum(losses), sum(sizes), {name: sum(log[name] for log in logs) for name in logs[0]}

        return super().valid_step(sample, model, in_parts, **kwargs)

    def validation_log(self, sample: Any, model: Any) -> dict[str, Any]:
        """Sums of exact match and F1 over a batch's questions, on the path run and on the keep-all path."""
        assert self.objective is not None
        found, self.objective.validated = self.objective.validated, []
        scores = [torch.cat(found[path::2]) for path in (0, 1)]  # of each part the path run, then the keep-all one
        log: dict[str, Any] = {}
        for name, one in zip(("", "keep_all_"), scores):
            results = self.score_batch(sample, one)
            exact, overlap = (sum(column) for column in zip(*results))
            log |= {f"_{name}em": 100 * exact, f"_{name}f1": 100 * overlap, "_questions": len(results)}
        return log

    def score_batch(self, sample: Any, scores: Tensor) -> list[tuple[float, float]]:
        """Exact match and F1 of every question of a validation batch."""
        version2 = sample["version2"]
        windows = iter(window_scores(sample["context"], scores))
        results = []
        for one in sample["questions"]:
            answer = self.answer(one, [next(windows) for _ in one.windows], version2).text
            results.append(score_one(answer, one.question.golds, version2=version2))
        return results

    def answer(self, one: Encoded, scores: Sequence[Scores], version2: bool) -> Prediction:
        """The answer to a question from the scores of its windows."""
        threshold = self.cfg.squad_null_threshold if version2 else None
        options = AnswerOptions(self.cfg.squad_longest_answer, self.cfg.squad_n_best, threshold)
        return predict(one.question.context, one.context, one.windows, scores, options)

    def reduce_metrics(self, logging_outputs: list[dict[str, Any]], criterion: Any) -> None:
        """The criterion's metrics, and ``em``, ``f1``, ``keep_all_em``, ``keep_all_f1`` in percent."""
        super().reduce_metrics(logging_outputs, criterion)
        questions = sum(log.get("_questions", 0) for log in logging_outputs)
        if questions:
            for name in ("em", "f1", "keep_all_em", "keep_all_f1"):
                total = float(utils.item(sum(log.get(f"_{name}", 0) for log in logging_outputs)))
                metrics.log_scalar(name, total / float(questions), float(questions), round=3)


def parts(sample: dict[str, Any], size: int) -> Iterator[dict[str, Any]]:
    """A batch's windows, at most ``size`` at once, as batches without their questions."""
    for begin in range(0, len(sample["id"]), size):
        rows = slice(begin, begin + size)
        net_input = {name: value[rows] for name, value in sample["net_input"].items()}
        yield {
            "id": sample["id"][rows],
            "nsentences": len(net_input["src_lengths"]),
            "ntokens": int(net_input["src_lengths"].sum()),
            "net_input": net_input,
            "context": sample["context"][rows],
            "spans": sample["spans"][rows],
        }
