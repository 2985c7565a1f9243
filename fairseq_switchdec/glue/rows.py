"""Rows of GLUE's tab-separated files and of JSON lines, read one at a time; a bad one is told, not raised."""

from __future__ import annotations

import gzip
import io
import json
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Union

from ..errors import UserError
from .tasks import GlueTask

#: No word of a language is longer; byte-level BPE takes time in the square of a word's length.
LONGEST_WORD = 2000


@dataclass(frozen=True)
class Row:
    """One input.

    Attributes:
        line: 1-based line of the file, for messages.
        index: the input's name in a submission: its ``index`` column, else its 0-based place among the rows.
        texts: one or two.
        label: as the file has it, or None.
    """

    line: int
    index: str
    texts: tuple[str, ...]
    label: str | None = None


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be used, and why."""

    line: int
    index: str
    reason: str


def read_rows(path: str, task: GlueTask) -> Iterator[Union[Row, BadRow]]:
    """The rows of a file, ``.tsv`` or ``.jsonl``, either also ``.gz``.

    Raises:
        UserError: the file cannot be read, or its header lacks a text column.
    """
    name = path[:-3] if path.endswith(".gz") else path
    try:
        with open_bytes(path) as file:
            yield from json_rows(file, task) if name.endswith(".jsonl") else tsv_rows(file, task, path)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None


def open_bytes(path: str) -> Any:
    """A file, unpacked; lines end at newlines only."""
    if os.path.isdir(path):
        raise UserError(f"{path} is a folder: name a file")
    return io.BufferedReader(gzip.open(path)) if path.endswith(".gz") else open(path, "rb")


def tsv_rows(file: Any, task: GlueTask, path: str) -> Iterator[Union[Row, BadRow]]:
    """Rows of a GLUE file: a header, then as many fields in every row."""
    names: list[str] = list(task.headless)
    for line, raw in enumerate(file, 1):
        place = line - (1 if line > 1 and names and not headless(task, names) else 0) - 1
        try:
            fields = raw.decode("utf-8").rstrip("\r\n").split("\t")
        except UnicodeDecodeError as error:
            yield BadRow(line, str(place), f"not UTF-8: {error.reason} at byte {error.start}")
            continue
        if line == 1:
            header = [field.lstrip("\ufeff") for field in fields]
            if set(task.columns) <= set(header):
                names = header
                continue
            if not task.headless:
                raise UserError(
                    f"{path}: the header lacks {missing(task.columns, header)} (it has: {', '.join(header)})"
                )
        yield row_of(line, place, fields, names, task)


def headless(task: GlueTask, names: list[str]) -> bool:
    """Whether a file began without a header."""
    return bool(task.headless) and names == list(task.headless)


def row_of(line: int, place: int, fields: list[str], names: list[str], task: GlueTask) -> Union[Row, BadRow]:
    """A row of named fields, checked.

    A first column of another name than ``index`` is no index; MRPC's and STS-B's dev files have none.
    """
    values = dict(zip(names, fields))
    index = values.get("index", "") or str(place)
    if len(fields) != len(names):
        return BadRow(line, index, f"{len(fields)} tab-separated fields, the header has {len(names)}")
    return checked(line, index, tuple(values[name] for name in task.columns), values.get(task.label), task)


def json_rows(file: Any, task: GlueTask) -> Iterator[Union[Row, BadRow]]:
    """Rows of JSON lines, whose keys are the columns' names."""
    for line, raw in enumerate(file, 1):
        place = str(line - 1)
        try:
            content = json.loads(raw.decode("utf-8-sig"))
        except (ValueError, RecursionError) as error:
            yield BadRow(line, place, f"not JSON: {error}")
            continue
        if not isinstance(content, dict) or not all(isinstance(content.get(name), str) for name in task.columns):
            yield BadRow(line, place, f"not a JSON object with the texts {', '.join(task.columns)}")
            continue
        label = content.get(task.label)
        texts = tuple(content[name] for name in task.columns)
        yield checked(line, str(content.get("index", place)), texts, None if label is None else str(label), task)


def checked(line: int, index: str, texts: tuple[str, ...], label: str | None, task: GlueTask) -> Union[Row, BadRow]:
    """The row, unless a text is empty or the label unknown."""
    if not all(map(is_text, (index, *texts, label or ""))):
        return BadRow(line, index if is_text(index) else str(line), "half a surrogate pair, which is no character")
    for name, text in zip(task.columns, texts):
        if not text.strip():
            return BadRow(line, index, f"{name} is empty")
        longest = max(map(len, text.split()))
        if longest > LONGEST_WORD:
            return BadRow(line, index, f"{name} holds a word of {longest} characters (the limit is {LONGEST_WORD})")
    if label is not None and task.labels and label not in task.labels:
        return BadRow(line, index, f"label {label!r} is none of {', '.join(task.labels)}")
    if label is not None and not task.labels and not is_score(label):
        return BadRow(line, index, f"score {label!r} is no number from 0 to 5")
    return Row(line, index, texts, label)


def is_text(text: str) -> bool:
    """Whether a text can be written: JSON's escapes can name what is no character."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def is_score(text: str) -> bool:
    """Whether a text is a number from 0 to 5."""
    try:
        return 0 <= float(text) <= 5
    except ValueError:
        return False


def missing(wanted: tuple[str, ...], found: list[str]) -> str:
    """The columns that are not there."""
    return ", ".join(repr(name) for name in wanted if name not in found)
