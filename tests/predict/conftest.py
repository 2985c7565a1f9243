"""What the tests of ``predict`` share: a small classifier, and the command for texts."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from glue_data import make_bpe, prepared, write_sst2
from support import POLICY_FLAGS, architecture, run_command

from fairseq_switchdec.predict import command

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


@pytest.fixture
def predict(monkeypatch: pytest.MonkeyPatch, corpus: Path, switchable_run: SimpleNamespace, tmp_path: Path) -> Any:
    """The command in this process, with the search of `support.generate`; the lines it wrote."""

    def run(source: Path, *extra: Any, output: str = "out.jsonl") -> list[dict[str, Any]]:
        words = ["predict", "--task", "switchable_task", "--path", switchable_run.checkpoint, "--input", source]
        words += ["--output", tmp_path / output, "--beam", 2, "--max-len-b", 8, "--batch-size", 4, "--cpu", "--no-bpe"]
        monkeypatch.setattr("sys.argv", [str(word) for word in (*words, *extra) if word is not None])
        command.cli_main()
        return [json.loads(line) for line in (tmp_path / output).read_text().splitlines()]

    return run
