"""Layouts of processes agree and a killed run resumes; both scripts run longer by hand (see their first lines)."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import kill_and_resume
import pytest
from layouts import BATCH_SIZE, BATCHES, LAYOUTS, TOLERANCE, backend_flags, compare, make_start, run, train_command
from support import make_corpus

#: Four processes take turns on a small machine: SWITCHDEC_SLOW_TESTS=1 runs them too.
SLOW = bool(os.environ.get("SWITCHDEC_SLOW_TESTS"))


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Batches that no layout divides evenly, and a model to start from."""
    folder = tmp_path_factory.mktemp("uneven")
    data = make_corpus(folder, {"train": BATCHES * BATCH_SIZE, "valid": 15})
    return SimpleNamespace(data=data, start=make_start(data, folder / "start"))


by_hand = pytest.mark.skipif(not SLOW, reason="SWITCHDEC_SLOW_TESTS=1 runs it")


@pytest.mark.parametrize("backend", ["legacy_ddp", pytest.param("pytorch_ddp", marks=by_hand)])
def test_layouts_agree(uneven: SimpleNamespace, tmp_path: Path, backend: str) -> None:
    """20 updates, of which the 7th, 14th and so on have a process without a batch."""
    flags = ["--finetune-from-model", uneven.start, "--max-update", 20, *backend_flags(backend)]
    for differences in compare(uneven.data, tmp_path, *flags, layouts=LAYOUTS if SLOW else LAYOUTS[:2]).values():
        assert len(differences) > 300
        assert {name: value for name, value in differences.items() if not value <= TOLERANCE} == {}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds processes in /proc")
def test_a_killed_run_ends_like_an_undisturbed_one(corpus: Path, tmp_path: Path) -> None:
    def arguments(name: str) -> list[str]:
        return train_command(corpus, tmp_path / name, 1, 2, *kill_and_resume.FLAGS, "--max-update", 16)

    start = time.perf_counter()
    run(arguments("whole"))
    moment = 0.75 * (time.perf_counter() - start)
    kill_and_resume.trial(arguments("killed"), tmp_path / "killed", [moment])
    assert kill_and_resume.unequal(tmp_path / "whole", tmp_path / "killed") == []
    # Started once more: a finished run stays as it is.
    assert "nothing is left to train" in run(arguments("killed"))
    assert kill_and_resume.unequal(tmp_path / "whole", tmp_path / "killed") == []
