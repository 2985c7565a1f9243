"""What only a GPU can run: half precision as fairseq does it there; the processor's share is in test_precision.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from fairseq.checkpoint_utils import load_checkpoint_to_cpu
from support import POLICY_FLAGS, SWITCHABLE_FLAGS, architecture, run_command, train_flags

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


@pytest.mark.parametrize(
    "flags",
    [
        ("--fp16",),
        ("--fp16", "--fp16-init-scale", 2**24, "--clip-norm", 0.1),  # the first updates overflow
        ("--memory-efficient-fp16",),
        ("--amp",),
        ("--amp", "--fp16-init-scale", 2**24, "--checkpoint-activations"),
    ],
    ids=lambda flags: " ".join(map(str, flags)),
)
def test_the_policy_learns_in_float32(corpus: Path, tmp_path: Path, flags: tuple[Any, ...]) -> None:
    words = [word for word in train_flags(tmp_path, 12, *flags) if word != "--cpu"]
    log = run_command(
        "train", corpus, *SWITCHABLE_FLAGS, *architecture("switchable_bart_base"), *POLICY_FLAGS,
        "--policy-statistics-inputs", 0, *words,
    ).stdout  # fmt: skip
    state = load_checkpoint_to_cpu(str(tmp_path / "checkpoint_last.pt"))["model"]
    assert float(state["learner_state.adam_step"]) == 12, "as many steps as updates, skipped ones not among them"
    assert all(value.isfinite().all() for name, value in state.items() if "policy" in name or "learner" in name)
    if 2**24 in flags:
        assert "overflow detected" in log
