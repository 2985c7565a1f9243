"""fairseq's hub interface, with ids that count the caller's sentences; what it finds beside a checkpoint."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from fairseq import file_utils
from fairseq.hub_utils import GeneratorHubInterface
from fairseq.models.bart import BARTHubInterface

from ..errors import UserError

#: Files beside a checkpoint, and the option of a BPE that names each: what ``hub_utils.from_pretrained`` looks for.
BPE_FILES = {
    "code": "bpe_codes",
    "bpecodes": "bpe_codes",
    "sentencepiece.bpe.model": "sentencepiece_model",
    "merges.txt": "bpe_merges",
    "vocab.json": "bpe_vocab",
    "tokenizer.json": "tokenizer_json",
}


class AsksForBudgets:
    """Comes before a hub interface: its calls take a budget (``--switch-budget``)."""

    task: Any

    def generate(self, tokenized_sentences: Any, *args: Any, switch_budget: Any = None, **kwargs: Any) -> Any:
        """fairseq's, which ``sample`` and ``translate`` hand their options to.

        Args:
            switch_budget: a number or "auto"; or a list of them, one for each sentence.
        """
        if switch_budget is None:
            return super().generate(tokenized_sentences, *args, **kwargs)  # type: ignore[misc]
        with self.task.source.asking(switch_budget, len(tokenized_sentences)):
            return super().generate(tokenized_sentences, *args, **kwargs)  # type: ignore[misc]


class SwitchableHubInterface(AsksForBudgets, BARTHubInterface):
    """BART's hub interface.

    It builds batches of all sentences, and of every such batch batches again, whose ids begin at 0: the task is told
    what they are in the call, since its decisions, budgets and report know a sentence by that.
    """

    def _build_batches(self, *args: Any, **kwargs: Any) -> Iterator[dict[str, Any]]:
        outer = getattr(self.task, "caller_ids", None) is None  # another task's decisions know no ids
        try:
            for batch in super()._build_batches(*args, **kwargs):
                if outer:
                    self.task.caller_ids = batch["id"]
                yield batch
        finally:
            if outer:
                self.task.caller_ids = None


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
