"""Tiny made-up data of each of our tasks, and the flags that training on it takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from support import DATA_FLAGS, make_corpus

#: The task's flags; all but ``switchable_task`` have one dictionary for both sides.
TASKS: dict[str, list[Any]] = {
    "switchable_task": [*DATA_FLAGS, "--max-target-positions", 48],
    "switchable_sentence_prediction": [
        "--num-classes", 2, "--init-token", 0, "--separator-token", 2, "--max-positions", 40,
        "--max-source-positions", 64, "--max-target-positions", 64, "--share-all-embeddings",
    ],
    "switchable_squad": [
        "--squad-window", 48, "--squad-stride", 12, "--squad-question", 20,
        "--max-source-positions", 64, "--max-target-positions", 64, "--share-all-embeddings",
    ],
}  # fmt: skip


def make_data(task: str, folder: Path, sizes: dict[str, int]) -> Path:
    """The data folder of a task; ``sizes``: pairs, reviews or paragraphs of ``train`` and ``valid``.

    A paragraph has three questions, one of them without an answer, and each question one window or more.
    """
    if task == "switchable_task":
        return make_corpus(folder, sizes)
    if task == "switchable_sentence_prediction":
        from glue_data import make_bpe, prepared, write_sst2

        reviews = write_sst2(folder / "SST-2", sizes["train"], sizes["valid"])
        return prepared("SST-2", reviews, make_bpe(folder / "bpe"), folder / "bin")
    from squad_support import make_document, write_bpe, write_json

    write_bpe(folder / "data")
    for seed, (split, size) in enumerate(sizes.items()):
        write_json(folder / "data" / f"{split}.json", make_document(size, seed=seed, impossible=True))
    return folder / "data"


def count_inputs(words: list[str]) -> int:
    """Training inputs (of question answering: windows) that ``fairseq-train words...`` reads."""
    from fairseq import options, tasks
    from fairseq.dataclass.utils import convert_namespace_to_omegaconf

    cfg = convert_namespace_to_omegaconf(options.parse_args_and_arch(options.get_training_parser(), words))
    task = tasks.setup_task(cfg.task)
    task.load_dataset("train")
    return len(task.dataset("train"))
