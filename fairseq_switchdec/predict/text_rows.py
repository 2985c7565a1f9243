"""Texts to write from: JSON lines, or a text a line; read one at a time, a bad one is reported in its place."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..errors import UserError
from ..glue.rows import is_text, open_bytes
from .predictor import Unusable


@dataclass(frozen=True)
class TextRow:
    """One input.

    Attributes:
        line: 1-based line of the file, for messages.
        index: its name: ``id`` or ``index`` of its JSON line, a string or a whole number; else its 0-based place.
        text: what the model reads.
    """

    line: int
    index: str
    text: str


def read_texts(path: str, column: str) -> Iterator[TextRow | Unusable]:
    """The texts of a file, which may be compressed (``.gz``).

    Args:
        path: ``.jsonl`` holds an object a line; any other file a text a line, without the white space around it.
        column: the key of the text in an object.

    Raises:
        UserError: the file cannot be read.
    """
    objects = path.lower().removesuffix(".gz").endswith(".jsonl")
    try:
        with open_bytes(path) as file:
            for line, raw in enumerate(file, 1):
                yield read_object(line, raw, column) if objects else read_line(line, raw)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None


def read_line(line: int, raw: bytes) -> TextRow | Unusable:
    """A line of text."""
    try:
        return checked(line, str(line - 1), raw.decode("utf-8-sig" if line == 1 else "utf-8").strip())
    except UnicodeDecodeError as error:
        return Unusable(line, str(line - 1), f"not UTF-8: {error.reason} at byte {error.start}")


def read_object(line: int, raw: bytes, column: str) -> TextRow | Unusable:
    """A line of JSON."""
    place = str(line - 1)
    if not raw.strip():
        return Unusable(line, place, "the line is empty")
    try:
        content: Any = json.loads(raw.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        return Unusable(line, place, f"not JSON: {error}")
    if not isinstance(content, dict):
        return Unusable(line, place, "not a JSON object")
    name = content.get("id", content.get("index"))
    index = str(name) if type(name) in (str, int) and is_text(str(name)) else place
    if not isinstance(content.get(column), str):
        return Unusable(line, index, f"no text {column!r} (--text-column)")
    return checked(line, index, content[column])


def checked(line: int, index: str, text: str) -> TextRow | Unusable:
    """The row, unless its text is empty or cannot be written."""
    if not is_text(text):
        return Unusable(line, index, "half a surrogate pair, which is no character")
    return TextRow(line, index, text) if text.strip() else Unusable(line, index, "the text is empty")
