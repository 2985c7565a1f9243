"""SQuAD's JSON, version 1.1 or 2.0, and the same questions one a line: read, checked, told row by row what is wrong.

A file is one document, ``{"data": [{"paragraphs": [{"context", "qas": [...]}]}]}``, or where its name ends in
``.jsonl`` one object a line, ``{"id", "question", "context"}`` with ``answers`` and ``is_impossible`` if known, which
is read as a stream. Either may be compressed (``.gz``).
"""

from __future__ import annotations

import gzip
import json
import logging
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from ..errors import UserError

logger = logging.getLogger(__name__)

#: Where a paragraph begins in a document; inside a JSON string its quotes would be escaped.
PARAGRAPH = re.compile(r'\{\s*"(?:context|qas)"\s*:')


@dataclass(frozen=True)
class Answer:
    """An answer as it stands in the context: ``context[start : start + len(text)] == text``, in characters."""

    text: str
    start: int


@dataclass(frozen=True)
class Question:
    """A question on a context.

    Attributes:
        row: where it stands in its file, for messages.
        context: one object for all questions of a paragraph.
        answers: the gold answers that hold; none where they are unknown.
        golds: what all gold answers say, wherever they stand: what SQuAD's scripts score by.
        impossible: 2.0's questions that the context does not answer; None where that is unknown.
    """

    id: str
    row: str
    text: str
    context: str
    answers: tuple[Answer, ...] = ()
    impossible: bool | None = None
    golds: tuple[str, ...] = ()

    @property
    def trainable(self) -> bool:
        """Whether it says what is right."""
        return bool(self.answers) or self.impossible is True


class Problems:
    """What is wrong with rows of a file: a warning each, or the end of the command.

    Args:
        path: the file.
        strict: the first problem raises a `UserError`.

    Attributes:
        count: of the problems so far.
    """

    def __init__(self, path: str, strict: bool = False):
        self.path = path
        self.strict = strict
        self.count = 0

    def __call__(self, row: str, message: str, left_out: bool = True) -> None:
        """Args:
        left_out: the row is; otherwise it is used as the message says.
        """
        self.count += 1
        if self.strict:
            raise UserError(f"{self.path}: {row}: {message}")
        logger.warning("%s: %s: %s", self.path, row, message)


def read_questions(path: str, problems: Problems) -> Iterator[Question]:
    """The questions of a file, in its order; a row that cannot be used is reported and left out.

    Raises:
        UserError: the file cannot be read, is no SQuAD file, or ``problems`` is strict.
    """
    seen: set[str] = set()
    rows = read_lines(path, problems) if is_lines(path) else read_document(path, problems)
    for row, context, entry in rows:
        question = check(row, context, entry, problems)
        if question is None:
            continue
        if question.id in seen:
            problems(row, f"the id {question.id!r} stood in an earlier row: this one is left out")
            continue
        seen.add(question.id)
        yield question


def is_lines(path: str) -> bool:
    """Whether a file's name says that it holds one object a line."""
    return path.endswith((".jsonl", ".jsonl.gz"))


def open_bytes(path: str) -> IO[bytes]:
    """A file to read, decompressed.

    Raises:
        UserError: there is none.
    """
    try:
        return cast("IO[bytes]", gzip.open(path)) if path.endswith(".gz") else Path(path).open("rb")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None


def read_lines(path: str, problems: Problems) -> Iterator[tuple[str, Any, Any]]:
    """Row, context and entry of a file of one object a line."""
    with open_bytes(path) as file:
        try:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                row = f"line {number}"
                try:
                    entry = json.loads(line)
                except (ValueError, RecursionError) as error:
                    problems(row, f"malformed JSON ({error}): the line is left out")
                    continue
                yield row, entry.get("context") if isinstance(entry, dict) else None, entry
        except (OSError, EOFError, zlib.error) as error:
            raise UserError(f"{path} cannot be read: {error}") from None


def read_document(path: str, problems: Problems) -> Iterator[tuple[str, Any, Any]]:
    """Row, context and entry of a SQuAD document; of a malformed one, those of the paragraphs that are whole."""
    try:
        with open_bytes(path) as file:
            text = file.read().decode("utf-8-sig")
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text (byte {error.start}): convert it, or name another file") from None
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        where = position(text, error.pos) if isinstance(error, json.JSONDecodeError) else "the file"
        if PARAGRAPH.search(text) is None:
            raise UserError(f"{path}: {where}: malformed JSON ({error}): give a file in SQuAD's format") from None
        paragraphs = whole_paragraphs(text, problems)
    else:
        paragraphs = document_paragraphs(path, document, problems)
    for row, paragraph in paragraphs:
        entries = paragraph.get("qas") if isinstance(paragraph, dict) else None
        if not isinstance(entries, list):
            problems(row, "no list 'qas': the paragraph is left out")
            continue
        for number, entry in enumerate(entries, start=1):
            yield f"{row}, question {number}", paragraph.get("context"), entry


def document_paragraphs(path: str, document: Any, problems: Problems) -> Iterator[tuple[str, Any]]:
    """Row and paragraph of a document.

    Raises:
        UserError: it is no SQuAD document.
    """
    articles = document.get("data") if isinstance(document, dict) else None
    if not isinstance(articles, list):
        raise UserError(f"{path} has no list 'data': give a file in SQuAD's format, or one of .jsonl lines")
    for number, article in enumerate(articles, start=1):
        paragraphs = article.get("paragraphs") if isinstance(article, dict) else None
        if not isinstance(paragraphs, list):
            problems(f"article {number}", "no list 'paragraphs': the article is left out")
            continue
        for place, paragraph in enumerate(paragraphs, start=1):
            yield f"article {number}, paragraph {place}", paragraph


def whole_paragraphs(text: str, problems: Problems) -> Iterator[tuple[str, Any]]:
    """The paragraphs of a malformed document that are well formed themselves; the others are reported."""
    decoder = json.JSONDecoder()
    match = PARAGRAPH.search(text)
    if match is not None and '"' not in text[: match.start()]:
        problems("the file", "malformed JSON before its first paragraph")
    broken = False
    end = 0
    while match is not None:
        row = position(text, match.start())
        end = match.end()
        try:
            paragraph, end = decoder.raw_decode(text, match.start())
        except (ValueError, RecursionError) as error:
            broken = True
            problems(f"the paragraph at {row}", f"malformed JSON ({error}): it is left out")
        else:
            yield f"paragraph at {row}", paragraph
        match = PARAGRAPH.search(text, end)
    if not broken:
        problems("the file", "malformed JSON outside its paragraphs; all of these are read")


def position(text: str, index: int) -> str:
    """Where a character stands, for people."""
    line = text.count("\n", 0, index) + 1
    return f"line {line} column {index - text.rfind(chr(10), 0, index)}"


def check(row: str, context: Any, entry: Any, problems: Problems) -> Question | None:
    """A row as a question; None where it cannot be one. Wrong answers are reported and left out."""
    if not isinstance(entry, dict):
        problems(row, "not a JSON object: it is left out")
        return None
    identity = entry.get("id")
    if not isinstance(identity, str) or not identity:
        problems(row, "no 'id' that is a text: it is left out")
        return None
    row = f"{row} (id {identity})"
    text = entry.get("question")
    for name, value in (("question", text), ("context", context)):
        if not isinstance(value, str):
            problems(row, f"no {name!r} that is a text: the question is left out")
            return None
        if not value.strip():
            problems(row, f"an empty {name}" + (": its answer is empty" if name == "context" else ""), left_out=False)
    impossible = entry.get("is_impossible")
    if impossible is not None and not isinstance(impossible, bool):
        problems(row, "'is_impossible' is neither true nor false: it is taken as unknown", left_out=False)
        impossible = None
    answers = [] if impossible else check_answers(row, context, entry.get("answers", []), problems)
    golds = () if impossible else gold_texts(entry.get("answers", []))
    return Question(identity, row, cast(str, text), context, tuple(answers), impossible, golds)


def gold_texts(entries: Any) -> tuple[str, ...]:
    """The texts of a row's answers."""
    texts = [entry.get("text") for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    return tuple(text for text in texts if isinstance(text, str))


def check_answers(row: str, context: str, entries: Any, problems: Problems) -> list[Answer]:
    """The gold answers that stand in the context where they say."""
    if not isinstance(entries, list):
        problems(row, "'answers' is no list: it is taken as one without answers", left_out=False)
        return []
    answers = []
    for entry in entries:
        text = entry.get("text") if isinstance(entry, dict) else None
        start = entry.get("answer_start") if isinstance(entry, dict) else None
        if not isinstance(text, str) or not isinstance(start, int) or isinstance(start, bool) or not text:
            problems(row, "an answer without 'text' or 'answer_start': that answer is left out", left_out=False)
        elif start < 0 or context[start : start + len(text)] != text:
            problems(
                row,
                f"the answer {shorten(text)!r} is not at character {start} of its context: that answer is left out",
                left_out=False,
            )
        else:
            answers.append(Answer(text, start))
    return answers


def shorten(text: str, limit: int = 60) -> str:
    """A text for a message."""
    return text if len(text) <= limit else text[: limit - 3] + "..."
