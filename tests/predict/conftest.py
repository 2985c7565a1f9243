"""A small classifier that the tests of ``predict`` and of its task share."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from glue_data import make_bpe, prepared, write_sst2
from support import POLICY_FLAGS, architecture, run_command

TASK = ["--user-dir", "fairseq_switchdec", "--task", "switchable_sentence_prediction"]
COMMON = [
    "--init-token", 0, "--separator-token", 2, "--max-positions", 40, "--batch-size", 12, "--optimizer", "adam", "--lr",
    3e-3, "--cpu", "--seed", 3, "--num-workers", 0, "--no-epoch-checkpoints", "--log-format", "json", "--log-interval",
    2, "--max-source-positions", 64, "--max-target-positions", 64, "--share-all-embeddings",
]  # fmt: skip


@pytest.fixture(scope="session")
def bpe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bpe(tmp_path_factory.mktemp("bpe"))


@pytest.fixture(scope="session")
def classifier(bpe: Path, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A switchable classifier of made-up reviews: its data, checkpoint and log."""
    folder = tmp_path_factory.mktemp("classifier")
    data = write_sst2(folder / "SST-2")
    binary = prepared("SST-2", data, bpe, folder / "bin")
    result = run_command(
        "train", binary, *TASK, *architecture("switchable_bart_base"), *POLICY_FLAGS, *COMMON, "--num-classes", 2,
        "--save-dir", folder, "--max-update", 20, "--best-checkpoint-metric", "accuracy",
        "--maximize-best-checkpoint-metric",
    )  # fmt: skip
    return SimpleNamespace(
        data=data, binary=binary, checkpoint=folder / "checkpoint_last.pt", log=result.stdout, folder=folder
    )
