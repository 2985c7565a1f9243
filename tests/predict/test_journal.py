"""An output that two commands want to write, in processes of their own."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support import REPO

from fairseq_switchdec.errors import UserError
from fairseq_switchdec.predict import command, journal
from fairseq_switchdec.predict.journal import Journal

fcntl = pytest.importorskip("fcntl")


def test_two_commands_do_not_write_one_output(
    monkeypatch: pytest.MonkeyPatch, classifier: SimpleNamespace, bpe: Path, tmp_path: Path
) -> None:
    """The second one is refused while the first one lives, and goes on where it was once it is killed."""
    source, output = tmp_path / "rows.tsv", tmp_path / "out.jsonl"
    source.write_text("sentence\tlabel\n" + "fine film\t1\n" * 800)
    words: list[Any] = [
        "predict", "--task", "switchable_sentence_prediction", "--path", classifier.checkpoint, "--input", source,
        "--output", output, "--glue-task", "SST-2", "--gpt2-encoder-json", bpe / "encoder.json", "--gpt2-vocab-bpe",
        bpe / "vocab.bpe", "--batch-size", 4, "--window", 8, "--cpu",
    ]  # fmt: skip
    monkeypatch.setattr("sys.argv", list(map(str, words)))
    first = subprocess.Popen(
        [sys.executable, "-m", "fairseq_switchdec", *map(str, words)],
        cwd=REPO, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        while not (tmp_path / "out.jsonl.journal").exists():
            assert first.poll() is None
            time.sleep(0.01)
        first.send_signal(signal.SIGSTOP)  # so that it does not end meanwhile
        before = {path: path.read_bytes() for path in tmp_path.glob("out.jsonl*")}
        with pytest.raises(UserError, match=f"--output {output} is being written by another process: wait for it"):
            command.cli_main()
        assert {path: path.read_bytes() for path in tmp_path.glob("out.jsonl*")} == before
    finally:
        first.kill()
        first.wait()
    rows = json.loads((tmp_path / "out.jsonl.journal").read_text())["rows"]
    assert 0 < rows < 800
    written, append = [], Journal.append

    def seen(self: Journal, text: str, *rest: Any) -> None:
        written.append(len(text.splitlines()))
        append(self, text, *rest)

    monkeypatch.setattr(Journal, "append", seen)
    command.cli_main()
    assert sum(written) == 800 - rows  # it went on
    assert len(output.read_text().splitlines()) == 800 and not list(tmp_path.glob("out.jsonl.*"))


def test_an_output_is_free_again_once_it_is_left(tmp_path: Path) -> None:
    path = str(tmp_path / "out")
    first = Journal(path, {})
    with pytest.raises(UserError, match="being written by another process"):
        Journal(path, {})
    first.append("a\n", "", 1, 1, 0, 0.0)
    first.close()
    second = Journal(path, {})
    assert second.progress.rows == 1
    second.finish()
    with pytest.raises(UserError, match="exists already"):
        Journal(path, {})
    assert [name.name for name in tmp_path.iterdir()] == ["out"]


def test_a_partial_file_that_was_finished_meanwhile_is_not_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opened by the second process before the first one renamed it: the lock is free then, and the file done."""
    path, flock = str(tmp_path / "out"), fcntl.flock
    first = Journal(path, {})
    first.append("a\n", "", 1, 1, 0, 0.0)

    def late(*arguments: Any) -> None:
        first.finish()
        flock(*arguments)

    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(UserError, match="being written by another process"):
        Journal(path, {})
    assert (tmp_path / "out").read_text() == "a\n" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("system", ["no flock", "no locks in this file system"])
def test_without_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, system: str
) -> None:
    """It works for one process; a file system that has none is told."""

    def flock(*arguments: Any) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(journal, "fcntl", None) if system == "no flock" else monkeypatch.setattr(fcntl, "flock", flock)
    first = Journal(str(tmp_path / "out"), {})
    first.append("a\n", "", 1, 1, 0, 0.0)
    first.close()
    second = Journal(str(tmp_path / "out"), {})
    second.append("b\n", "", 1, 1, 0, 0.0)
    second.finish()
    assert (tmp_path / "out").read_text() == "a\nb\n"
    Journal(str(tmp_path / "other"), {}).discard()
    with pytest.raises(UserError, match="exists already"):
        Journal(str(tmp_path / "out"), {})
    assert [name.name for name in tmp_path.iterdir()] == ["out"]
    assert ("out.partial cannot be locked (No locks available)" in caplog.text) == (system != "no flock")
