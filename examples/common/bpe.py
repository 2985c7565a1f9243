"""The files of a byte-level BPE in GPT-2's format."""

from __future__ import annotations

from pathlib import Path

from fairseq_switchdec.errors import UserError

BPE_FILES = ("encoder.json", "vocab.bpe", "dict.txt")  # as fairseq releases them for BART


def check_bpe(flag: str, folder: Path) -> None:
    """Refuse a folder that lacks one of `BPE_FILES`.

    Raises:
        UserError: naming the flag and what is missing.
    """
    absent = [name for name in BPE_FILES if not (folder / name).is_file()]
    if absent:
        raise UserError(f"{flag} {folder} lacks {', '.join(absent)}")
