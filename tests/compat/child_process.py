"""Runs this interpreter in a child process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PTH = REPOSITORY / "fairseq_switchdec/compat/fairseq_switchdec.pth"
TINY_BART = (
    "--arch bart_base --task translation --encoder-layers 1 --decoder-layers 1 --encoder-embed-dim 16 "
    "--decoder-embed-dim 16 --encoder-ffn-embed-dim 14 --decoder-ffn-embed-dim 14 --encoder-attention-heads 2 "
    "--decoder-attention-heads 2 --optimizer adam --lr 0.001 --max-tokens 200 --max-update 2 --cpu"
).split()


def environment(*path: Path) -> dict[str, str]:
    """The variables of a child process that finds modules in ``path``, and shares the machine."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path)), "OMP_NUM_THREADS": "1"}


def run_python(*args: str, path: tuple[Path, ...] = (REPOSITORY,), cwd: Path | None = None, check: bool = True):
    """Run this interpreter in a child process and return what it wrote."""
    done = subprocess.run(
        [sys.executable, *map(str, args)], env=environment(*path), cwd=cwd, capture_output=True, text=True
    )
    assert not check or done.returncode == 0, done.stderr
    return done
