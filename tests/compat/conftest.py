"""A Python whose site-packages hold the .pth file, and a checkpoint that stock fairseq-train wrote."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from child_process import PTH, REPOSITORY, TINY_BART, run_python


@pytest.fixture(scope="session")
def site_with_pth(tmp_path_factory) -> Path:
    """A folder for PYTHONPATH: Python reads the .pth file in it at its start, as it does in site-packages."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copy(PTH, folder)
    (folder / "a_repository.pth").write_text(f"{REPOSITORY}\n")
    (folder / "sitecustomize.py").write_text(f"import site\nsite.addsitedir({str(folder)!r})\n")
    return folder


@pytest.fixture(scope="session")
def checkpoint(corpus, tmp_path_factory) -> Path:
    """What stock fairseq-train saves for BART: Namespaces in cfg, and BLEU's counts as numpy arrays in the meters."""
    folder = tmp_path_factory.mktemp("checkpoints")
    scoring = ("--eval-bleu", "--eval-bleu-detok", "space", "--eval-bleu-args", '{"beam": 1, "max_len_b": 5}')
    run_python("-m", "fairseq_switchdec", "train", corpus, *TINY_BART, *scoring, "--save-dir", folder)
    return folder / "checkpoint_last.pt"
