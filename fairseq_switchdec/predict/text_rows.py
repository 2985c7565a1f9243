"""Texts to write from: JSON lines, Parquet, or a text a line; read one by one, a bad one is reported in its place."""

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
        path: ``.jsonl`` holds an object a line, ``.parquet`` a table; any other file a text a line, without the white
            space around it.
        column: the key of the text in an object, or its column.

    Raises:
        UserError: the file cannot be read.
    """
    if is_parquet(path):
        yield from read_table(path, column)
        return
    objects = path.lower().removesuffix(".gz").endswith(".jsonl")
    try:
        with open_bytes(path) as file:
            for line, raw in enumerate(file, 1):
                yield read_object(line, raw, column) if objects else read_line(line, raw)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None


def is_parquet(path: str) -> bool:
    """Whether a file is a table, by its name."""
    return path.lower().endswith(".parquet")


def read_table(path: str, column: str) -> Iterator[TextRow | Unusable]:
    """The texts of a Parquet file, of which a part is held at a time.

    Raises:
        UserError: it cannot be read, or pyarrow is missing.
    """
    try:
        import pyarrow
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise UserError(f"{path}: Parquet files are read with pyarrow: pip install pyarrow") from None
    line = 0
    try:
        with ParquetFile(path) as file:
            types = {part.name: part.type for part in file.schema_arrow}
            if column not in types:
                known = ", ".join(types) or "none"
                raise UserError(f"{path} has no column {column!r} (it has: {known}): name it with --text-column")
            names = [name for name in ("id", "index") if name in types and is_name(types[name])]
            for batch in file.iter_batches(batch_size=1024, columns=list(dict.fromkeys([column, *names]))):
                for row in range(batch.num_rows):
                    line += 1
                    yield read_row(line, batch, row, column)
    except (OSError, pyarrow.ArrowException) as error:
        raise UserError(f"{path} cannot be read after row {line}: {error}") from None


def is_name(kind: Any) -> bool:
    """Whether a column of a type of pyarrow's can hold names of rows: strings or whole numbers."""
    from pyarrow import types

    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_integer(kind))


def read_row(line: int, batch: Any, row: int, column: str) -> TextRow | Unusable:
    """A row of a table's part, a ``pyarrow.RecordBatch``."""
    try:
        content = {name: batch.column(name)[row].as_py() for name in batch.schema.names}
    except ValueError as error:  # such as text that is not UTF-8
        return Unusable(line, str(line - 1), str(error))
    return read_content(line, content, column)


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
    return read_content(line, content, column)


def read_content(line: int, content: dict[str, Any], column: str) -> TextRow | Unusable:
    """An object, or a table's row."""
    place = str(line - 1)
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
