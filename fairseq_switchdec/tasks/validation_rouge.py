"""``--eval-rouge``: ROUGE of the validation set's generated texts, for ``--best-checkpoint-metric rougeL``.

As fairseq's ``--eval-bleu``, on the path that ``--switch-decisions`` says (greedy). ROUGE of a set is the mean over its
pairs, so the sums of batches and processes are all that is logged.
"""

from __future__ import annotations

import json
import logging
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from fairseq import utils
from fairseq.data import encoders
from fairseq.dataclass.configs import GenerationConfig
from fairseq.logging import metrics

from ..config import RunOptions, flag
from ..errors import UserError
from ..scoring.rouge import MEASURES, UNKNOWN, looks_undecoded, rouge_scores

logger = logging.getLogger(__name__)

COUNT = "_rouge_pairs"


class ValidationRouge:
    """Generates for a validation batch and scores what comes out.

    Args:
        task: builds and runs the generator.
        model: the model that is trained, not wrapped.

    Raises:
        UserError: an option that cannot be meant, or a file of the BPE that is missing, before training starts.
    """

    def __init__(self, task: Any, model: Any, options: RunOptions):
        self.task, self.options = task, options
        generation = json_options("eval_rouge_args", options)
        known = {item.name for item in fields(GenerationConfig)}
        unknown = sorted(generation.keys() - known)
        if unknown:
            raise UserError(
                f"--eval-rouge-args: {unknown[0]!r} is no generation option of fairseq's, such as max_len_b"
            )
        self.models = [model]
        self.generator = task.build_generator(self.models, Namespace(**generation))
        detok = {"tokenizer": options.eval_rouge_detok, **json_options("eval_rouge_detok_args", options)}
        bpe = {"bpe": options.eval_rouge_bpe, **json_options("eval_rouge_bpe_args", options)}
        try:
            self.tokenizer = encoders.build_tokenizer(Namespace(**detok))
            self.bpe = encoders.build_bpe(Namespace(**bpe))
        except KeyError as error:
            raise UserError(f"--eval-rouge-bpe or --eval-rouge-detok: fairseq has no {error}") from None
        except (OSError, ImportError, ValueError) as error:
            raise UserError(f"--eval-rouge-bpe {options.eval_rouge_bpe} cannot be set up: {error}") from None

    def __call__(self, sample: dict[str, Any]) -> dict[str, float]:
        """Sums over a batch, for `log_rouge`."""
        if sample.get("target") is None:
            raise UserError("--eval-rouge needs targets, which the validation data lacks")
        beams = self.task.inference_step(self.generator, self.models, sample)
        hypotheses = [self.decode(hypotheses[0]["tokens"]) for hypotheses in beams]
        padding = self.task.target_dictionary.pad()
        references = [self.decode(utils.strip_pad(target, padding), reference=True) for target in sample["target"]]
        if self.options.eval_rouge_print_samples:
            logger.info("example hypothesis: %s", hypotheses[0])
            logger.info("example reference: %s", references[0])
        if looks_undecoded(references):
            logger.warning("--eval-rouge compares numbers, not words: add --eval-rouge-bpe gpt2 and its -args")
        scores = rouge_scores(references, hypotheses)
        return {f"_{name}_sum": float(total) for name, total in zip(MEASURES, scores.sum(axis=0))} | {
            COUNT: float(len(scores))
        }

    def decode(self, tokens: Any, reference: bool = False) -> str:
        """Words of a row of tokens; unknown ones in a reference match nothing."""
        text = self.task.target_dictionary.string(tokens.int().cpu(), self.options.eval_rouge_remove_bpe)
        if self.bpe is not None:
            text = self.bpe.decode(text)  # GPT-2's knows <unk>, and no other word that is no number
        if self.tokenizer is not None:
            text = self.tokenizer.decode(text)
        return text.replace("<unk>", UNKNOWN) if reference else text


def log_rouge(logging_outputs: Sequence[dict[str, Any]]) -> None:
    """Log the means over the pairs of some batches; fairseq weighs them by their number of pairs."""

    def total(key: str) -> float:
        return float(utils.item(sum(log.get(key, 0) for log in logging_outputs)))

    pairs = total(COUNT)
    if pairs > 0:
        for name in MEASURES:
            metrics.log_scalar(name, total(f"_{name}_sum") / pairs, pairs, round=2)


def json_options(name: str, options: RunOptions) -> dict[str, Any]:
    """The object that an option's JSON is.

    Raises:
        UserError: it is none.
    """
    text = getattr(options, name)
    try:
        found = json.loads(text)
    except ValueError as error:
        raise UserError(f"{flag(name)} {text}: not JSON ({error})") from None
    if not isinstance(found, dict):
        raise UserError(f"{flag(name)} {text}: not a JSON object, such as '{{\"beam\": 4}}'")
    return found
