"""Damaged and malicious files in the released format: refused by everything that reads one, and nothing is executed."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fairseq import checkpoint_utils
from official import write
from support import REPO, SWITCHABLE_FLAGS

from fairseq_switchdec.compat.checkpoints import load_checkpoint
from fairseq_switchdec.errors import CallError, UserError
from fairseq_switchdec.export import export
from fairseq_switchdec.models import SwitchableBARTModel

FORMATS = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])

READERS: dict[str, Callable[[Path], Any]] = {
    "--restore-file": lambda path: checkpoint_utils.load_checkpoint_to_cpu(str(path)),  # what the trainer calls
    "--path": lambda path: checkpoint_utils.load_model_ensemble([str(path)]),  # what fairseq-generate calls
    "from_pretrained": lambda path: SwitchableBARTModel.from_pretrained(str(path.parent), path.name, bpe=None),
    "export": lambda path: export(str(path), str(path.parent / "exported.pt")),
}


class Payload:
    """Pickled as a call that leaves a file behind."""

    def __init__(self, canary: Path):
        self.canary = canary

    def __reduce__(self):
        return os.system, (f"touch {self.canary}",)


def put_in_args(state: dict[str, Any], payload: Payload) -> None:
    state["args"].user_dir = payload


def put_in_weights(state: dict[str, Any], payload: Payload) -> None:
    state["model"]["encoder.version"] = payload


def put_beside(state: dict[str, Any], payload: Payload) -> None:
    state["extra_state"]["note"] = [payload]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_refused(read: Callable[[Path], Any], path: Path, message: str) -> None:
    """One message that names the file; every file as it was, and none beside them."""
    before = contents(path.parent)
    with pytest.raises((UserError, CallError), match=message) as caught:
        read(path)
    assert path.name in str(caught.value) and "\n" not in str(caught.value)
    assert contents(path.parent) == before


@FORMATS
@pytest.mark.parametrize("put", [put_in_args, put_in_weights, put_beside])
@pytest.mark.parametrize("reader", READERS)
def test_malicious_pickle(tmp_path, zipped, put, reader):
    path = write("bart.large.cnn", tmp_path, zipped=zipped)
    state = torch.load(path, weights_only=False)
    put(state, Payload(tmp_path / "canary"))
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    assert_refused(READERS[reader], path, r"model\.pt holds \S*system, which no fairseq 0\.12\.2 checkpoint does")
    torch.load(path, weights_only=False)  # an ordinary loader would have
    assert (tmp_path / "canary").exists()


@FORMATS
@pytest.mark.parametrize("reader", READERS)
def test_cut_short(tmp_path, zipped, reader):
    path = write("bart.large.cnn", tmp_path, zipped=zipped)
    whole = path.read_bytes()
    for size in (0, 1, 100, 5_000, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        assert_refused(READERS[reader], path, r"model\.pt cannot be read as a checkpoint .*: copy or download it again")


@pytest.mark.parametrize("reader", READERS)
def test_flipped_bit_in_the_weights(tmp_path, reader):
    path = write("bart.large.cnn", tmp_path, zipped=True)
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 1
    path.write_bytes(whole)
    assert_refused(READERS[reader], path, r"wrong checksum of \S+/data/\d+\)")


def test_flipped_bits_anywhere(tmp_path):
    """In a zip file whatever loads is what was written; the older format has no checksum for its numbers."""
    path = write("bart.large.mnli", tmp_path, zipped=True)
    whole = path.read_bytes()
    with path.open("rb") as file:
        expected = load_checkpoint(file)
    generator = random.Random(0)
    refused = 0
    for _ in range(150):
        flipped = bytearray(whole)
        flipped[generator.randrange(len(whole))] ^= 1 << generator.randrange(8)
        path.write_bytes(flipped)
        with path.open("rb") as file:
            try:
                state = load_checkpoint(file)
            except UserError as error:
                assert "model.pt" in str(error)
                refused += 1
                continue
        assert state["args"] == expected["args"] and state["model"].keys() == expected["model"].keys()
        assert all(torch.equal(state["model"][key], value) for key, value in expected["model"].items())
    assert refused > 130


@pytest.mark.parametrize("command", ["train", "generate"])
def test_commands_end_with_one_message(corpus, tmp_path, command):
    state = torch.load(write("bart.large.cnn", tmp_path), weights_only=False)
    put_in_args(state, Payload(tmp_path / "canary"))
    path = tmp_path / "model.pt"
    torch.save(state, path, _use_new_zipfile_serialization=False)
    flags: dict[str, list[Any]] = {
        "generate": ["--path", path],
        "train": ["--arch", "switchable_bart_tiny", "--criterion", "lexico_policy_criterion", "--restore-file", path,
                  "--save-dir", tmp_path, "--batch-size", 4, "--lr", 0.1, "--optimizer", "adam", "--max-update", 1],
    }  # fmt: skip
    before = contents(tmp_path)
    words = [sys.executable, "-m", "fairseq_switchdec", command, corpus, *SWITCHABLE_FLAGS, "--cpu", *flags[command]]
    result = subprocess.run(list(map(str, words)), cwd=REPO, capture_output=True, text=True, timeout=300)
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert result.stderr.splitlines()[-1].startswith(f"fairseq_switchdec: {path} holds")
    assert contents(tmp_path) == before
