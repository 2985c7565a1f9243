"""Fixtures that tests share; what they are made of is in support.py."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fairseq.checkpoint_utils import load_checkpoint_to_cpu
from fairseq.data import Dictionary
from fairseq.models.bart.model import BARTModel
from support import (
    POLICY_FLAGS,
    REPO,
    SWITCHABLE_FLAGS,
    architecture,
    build_stock,
    build_switchable,
    make_corpus,
    make_dictionary,
    randomize,
    run_command,
    train_flags,
)

from fairseq_switchdec.models.bart.model import SwitchableBARTModel

#: Files of few tests that take long: they come first, so that no process is left alone with one of them at the end.
LONGEST = (
    *("test_summarization.py", "test_backbones_in_training.py", "test_benchmark.py", "test_official.py"),
    *("test_dial.py", "test_layouts.py", "test_exact_other_tasks.py", "test_generation.py", "test_seconds.py"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """pytest's hook."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


@pytest.fixture(scope="session")
def dictionary() -> Dictionary:
    return make_dictionary()


@pytest.fixture(scope="session")
def stock(dictionary: Dictionary) -> BARTModel:
    return build_stock(dictionary)


@pytest.fixture(scope="session")
def switchable(dictionary: Dictionary, stock: BARTModel) -> SwitchableBARTModel:
    """Holds the weights of `stock`; tests must not change it."""
    return build_switchable(dictionary, stock)


@pytest.fixture(scope="session")
def batch() -> dict[str, Any]:
    """Five left-padded sources, 17 to 8 tokens with ``<s>`` and ``</s>``, and right-padded targets."""
    generator = torch.Generator().manual_seed(3)
    source = torch.randint(4, 54, (5, 17), generator=generator)
    source[:, 0], source[:, -1] = 0, 2
    for row, padding in enumerate([0, 3, 5, 9, 0]):
        source[row, :padding] = 1
        source[row, padding] = 0
    previous = torch.randint(4, 54, (5, 9), generator=generator)
    previous[:, 0] = 2
    previous[2, 6:] = 1
    previous[4, 3:] = 1
    return {"id": torch.arange(5), "src_tokens": source, "src_lengths": source.ne(1).sum(1), "prev": previous}


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made-up data that tests share."""
    return make_corpus(tmp_path_factory.mktemp("corpus"), {"train": 120, "valid": 24, "test": 20})


@pytest.fixture(scope="session")
def stock_checkpoint(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of stock BART as stock fairseq writes it, with weights whose outputs differ between inputs."""
    folder = tmp_path_factory.mktemp("stock")
    run_command("train", corpus, "--task", "translation", *architecture("bart_base"), *train_flags(folder, 1))
    path = folder / "checkpoint_last.pt"
    state = load_checkpoint_to_cpu(str(path))
    randomize(state["model"])
    torch.save(state, path)
    return path


@pytest.fixture(scope="session")
def switchable_run(corpus: Path, stock_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A switchable BART fine-tuned from the stock checkpoint: its folder, checkpoint and log."""
    folder = tmp_path_factory.mktemp("switchable")
    result = run_command(
        "train", corpus, *SWITCHABLE_FLAGS, *architecture("switchable_bart_base"), *POLICY_FLAGS,
        *train_flags(folder, 20, "--restore-file", stock_checkpoint, "--label-smoothing", 0.1),
        "--reset-optimizer", "--reset-dataloader", "--reset-meters", "--reset-lr-scheduler",
    )  # fmt: skip
    return SimpleNamespace(folder=folder, checkpoint=folder / "checkpoint_last.pt", log=result.stdout)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real data beside the checkout; tests that use it skip where it is absent."""
    folder = REPO.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no real data beside this checkout")
    return folder
