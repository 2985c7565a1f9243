"""Text files, one text a line: written whole or not at all, read with their lines as they are."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from fairseq_switchdec.files import write_text as write_whole

SPLITS = ("train", "valid", "test")


def write_text(path: Path, text: str) -> None:
    """What stands under ``path`` is always complete; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text)


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """One item a line; a line break inside an item would shift all that follow, so it becomes a space."""
    write_text(path, "".join(" ".join(line.split()) + "\n" for line in lines))


def read_lines(path: Path) -> list[str]:
    """Lines split at newlines only (``str.splitlines`` also splits at characters that belong to the text)."""
    text = path.read_text(encoding="utf-8")
    return text.removesuffix("\n").split("\n") if text else []


def count_lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(1 for _ in file)
