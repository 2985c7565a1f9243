"""Text files of the quickstart: written whole or not at all, read with their lines as they are."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

SPLITS = ("train", "valid", "test")


def write_text(path: Path, text: str) -> None:
    """Write to a temporary name, then rename: what stands under ``path`` is always complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


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
