"""fairseq's hub interface, which writes what the commands write for a text; what it finds beside a checkpoint."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import torch
from fairseq import file_utils
from fairseq.hub_utils import GeneratorHubInterface
from fairseq.models.bart import BARTHubInterface
from torch import Tensor

from ..errors import UserError, raised_to_caller

#: Files beside a checkpoint, and the option of a BPE that names each: ``hub_utils.from_pretrained`` looks for the first
#: five of them.
BPE_FILES = {
    "code": "bpe_codes",
    "bpecodes": "bpe_codes",
    "sentencepiece.bpe.model": "sentencepiece_model",
    "merges.txt": "bpe_merges",
    "vocab.json": "bpe_vocab",
    "encoder.json": "gpt2_encoder_json",
    "vocab.bpe": "gpt2_vocab_bpe",
    "tokenizer.json": "tokenizer_json",
}


class AsksForBudgets:
    """Comes before a hub interface: its calls take a budget (``--switch-budget``)."""

    task: Any

    def generate(self, tokenized_sentences: Any, *args: Any, switch_budget: Any = None, **kwargs: Any) -> Any:
        """fairseq's, which ``sample`` and ``translate`` hand their options to.

        Args:
            switch_budget: a number or "auto"; or a list of them, one for each sentence.

        Raises:
            CallError: what is asked for cannot be done.
        """
        with raised_to_caller():
            if switch_budget is None:
                return super().generate(tokenized_sentences, *args, **kwargs)  # type: ignore[misc]
            with self.task.source.asking(switch_budget, len(tokenized_sentences)):
                return super().generate(tokenized_sentences, *args, **kwargs)  # type: ignore[misc]


class OpeningTexts(BARTHubInterface):
    """BART's hub interface for texts that begin as those that the model was trained on.

    fairseq's own puts ``<s>`` before every source and makes it the first token of every output, as the released models
    had it. It stays so where the checkpoint does not say how its texts began.
    """

    model: Any

    def encode(self, sentence: str, *addl_sentences: str, no_separator: bool = True) -> Tensor:
        """A sentence's tokens, int64 (S,), cut to the model's positions; several sentences as fairseq joins them."""
        openings, dictionary = self.model.openings, self.task.source_dictionary
        if addl_sentences or openings.source is None:
            return super().encode(sentence, *addl_sentences, no_separator=no_separator)
        tokens = dictionary.encode_line(self.apply_bpe(sentence), add_if_not_exist=False).long()
        tokens, room = openings.open(tokens, dictionary.bos()), self.max_positions[0]
        return tokens if tokens.numel() <= room else torch.cat([tokens[: room - 1], tokens[-1:]])

    def decode(self, tokens: Tensor) -> str:
        """The text of a row of tokens, int64 (T,)."""
        text: str = super(self._above(), self).decode(tokens)
        return text

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """Without fairseq's ``<s>``, where the task knows the first token."""
        return super(self._above(), self).generate(*args, **kwargs)

    def _above(self) -> type:
        """Whose next class says what is right: BART's interface, or the one that all of fairseq's models share."""
        return OpeningTexts if self.model.openings.target is None else BARTHubInterface

    def _build_batches(self, *args: Any, **kwargs: Any) -> Iterator[dict[str, Any]]:
        """fairseq's BART builds batches of all sentences, and of every such batch batches again, whose ids begin at 0:
        the task is told what they are in the call, since its decisions, budgets and report know a sentence by that.
        """
        twice = self.model.openings.target is None
        outer = twice and getattr(self.task, "caller_ids", None) is None  # another task's decisions know no ids
        try:
            for batch in super()._build_batches(*args, **kwargs):
                if outer:
                    self.task.caller_ids = batch["id"]
                yield batch
        finally:
            if outer:
                self.task.caller_ids = None


class SwitchableHubInterface(AsksForBudgets, OpeningTexts):
    """BART's hub interface."""


class SwitchableGeneratorHub(AsksForBudgets, GeneratorHubInterface):
    """fairseq's hub interface of models that generate."""

    def __init__(self, cfg: Any, task: Any, model: Any):
        super().__init__(cfg, task, [model])


def locate(name: str, data: str, options: dict[str, Any], released: dict[str, str]) -> tuple[str, dict[str, Any]]:
    """The folder of a checkpoint, and the options with those of the files beside it.

    Args:
        name: the folder, or a key of ``released``, whose value is where to download it.
        data: folder of the dictionaries; one that begins with "." is taken from the checkpoint's.

    Raises:
        UserError: there is no such folder.
    """
    folder = file_utils.load_archive_file(released.get(name, name))
    data_folder = os.path.abspath(os.path.join(folder or "", data)) if data.startswith(".") else data
    if folder is None or not os.path.isdir(data_folder):
        missing = name if folder is None else data_folder
        raise UserError(
            f"from_pretrained: there is no folder {missing}: name the one that holds the checkpoint or data"
        )
    beside = {option: os.path.join(folder, file) for file, option in BPE_FILES.items()}
    found = {option: path for option, path in beside.items() if os.path.exists(path)}
    return folder, {**found, **options, "data": data_folder}
