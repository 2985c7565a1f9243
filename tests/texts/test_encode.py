"""``python -m fairseq_switchdec encode``: line by line, whole or not at all."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from support import run_command

from fairseq_switchdec.errors import UserError
from fairseq_switchdec.texts import command
from fairseq_switchdec.texts.command import encode_file
from fairseq_switchdec.texts.tokenizer import TextTokenizer

RAW = "One line.\nAnn: hi\\nBob: \\\\n?\n\n  spaces \r\nU+2028:\u2028, form feed:\x0c\nthe last </s> <|im_end|>"


def encode(monkeypatch: pytest.MonkeyPatch, *words: Any) -> None:
    monkeypatch.setattr(sys, "argv", ["encode", *map(str, words)])
    command.cli_main()


@pytest.mark.parametrize("flags", [[], ["--escape"], ["--workers", 1]])
@pytest.mark.parametrize("at_once", [(2, 1000), (1000, 12), (1000, 1000)])
def test_a_text_a_line(files, kind, tmp_path, monkeypatch, capsys, flags, at_once):
    monkeypatch.setattr(command, "LINES", at_once[0])
    monkeypatch.setattr(command, "BYTES", at_once[1])
    (tmp_path / "in").write_bytes(RAW.encode())
    encode(monkeypatch, "--tokenizer-json", files[kind], *flags, tmp_path / "in", tmp_path / "out")
    texts = RAW.replace("\r", "").split("\n")
    if flags == ["--escape"]:
        texts[1] = "Ann: hi\nBob: \\n?"
    tokenizer = TextTokenizer(str(files[kind]))
    lines = (tmp_path / "out").read_text().split("\n")
    assert lines == [*(tokenizer.encode(text) for text in texts), ""]
    assert lines[2] == ""
    assert f"6 lines, {sum(len(line.split()) for line in lines):,} tokens" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


def test_as_a_command(files, tmp_path):
    """In a process of its own, to a name that is a link, from an empty file too."""
    (tmp_path / "in").write_text("a text\n" * 10_000)
    (tmp_path / "real").write_text("old")
    (tmp_path / "out").symlink_to("real")
    run_command("encode", "--tokenizer-json", files["llama"], tmp_path / "in", tmp_path / "out")
    assert (tmp_path / "real").read_text() == f"{TextTokenizer(str(files['llama'])).encode('a text')}\n" * 10_000
    (tmp_path / "in").write_text("")
    run_command("encode", "--tokenizer-json", files["llama"], tmp_path / "in", tmp_path / "out")
    assert (tmp_path / "out").read_text() == "" and (tmp_path / "out").is_symlink()


def test_what_is_no_utf_8(files, tmp_path, monkeypatch):
    """The line is named, and an earlier output stays."""
    (tmp_path / "in").write_bytes(b"good\n\nna\xefve\ngood\n")
    (tmp_path / "out").write_text("old")
    monkeypatch.setattr(command, "LINES", 1)
    with pytest.raises(UserError, match=r"INPUT .*in: line 3 is no UTF-8 text"):
        encode(monkeypatch, "--tokenizer-json", files["llama"], tmp_path / "in", tmp_path / "out")
    assert (tmp_path / "out").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


@pytest.mark.parametrize(
    ("flags", "source", "output", "message"),
    [
        ([], "none", "out", "INPUT .*none cannot be read: No such file"),
        ([], ".", "out", "INPUT .* cannot be read: Is a directory"),
        ([], "in", "no/out", "OUTPUT .*no/out cannot be written"),
        ([], "in", ".", "OUTPUT .* cannot be written: it is no file"),
        ([], "in", "in", "OUTPUT .*in is INPUT"),
        (["--workers", "0"], "in", "out", "--workers 0 must be 1 or more"),
        (["--tokenizer-json", "none"], "in", "out", "--tokenizer-json none cannot be read"),
    ],
)
def test_mistakes(files, tmp_path, monkeypatch, flags, source, output, message):
    (tmp_path / "in").write_text("text\n")
    paths: list[Path] = [tmp_path / source, tmp_path / output]
    with pytest.raises(UserError, match=message):
        encode(monkeypatch, "--tokenizer-json", files["llama"], *flags, *paths)
    assert (tmp_path / "in").read_text() == "text\n"


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    class Full:
        """Encodes until there is no room."""

        def encode_batch(self, texts: list[str]) -> list[str]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / "text").write_text("one\ntwo\n")
    with (tmp_path / "text").open("rb") as source, pytest.raises(UserError, match="cannot be written: No space left"):
        encode_file(source, Full(), str(tmp_path / "ids"), False)
    assert [path.name for path in tmp_path.iterdir()] == ["text"]
