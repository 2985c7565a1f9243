"""Reading SQuAD's JSON: good files in every form, and what is said of bad rows."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from squad_support import make_document, write_json

from fairseq_switchdec.errors import UserError
from fairseq_switchdec.squad.examples import Problems, Question, read_questions


def read(path: Path, strict: bool = False) -> list[Question]:
    return list(read_questions(str(path), Problems(str(path), strict)))


@pytest.mark.parametrize("name", ["d.json", "d.json.gz"])
def test_a_document(tmp_path: Path, name: str) -> None:
    document = make_document(3, impossible=True)
    questions = read(write_json(tmp_path / name, document), strict=True)
    assert len(questions) == 9 and questions[0].context is questions[2].context
    for question in questions:
        for answer in question.answers:
            assert question.context[answer.start : answer.start + len(answer.text)] == answer.text
    assert [question.impossible for question in questions[:3]] == [False, False, True]
    assert all(question.trainable for question in questions)


def test_lines_are_a_stream_and_a_bad_one_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [json.dumps({"id": f"q{n}", "question": "Who?", "context": "He."}) for n in range(4)]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join([rows[0], rows[1][:-3], "", "[1]", rows[2], "[" * 100_000, rows[3]]))
    problems = Problems(str(path))
    stream = read_questions(str(path), problems)
    with caplog.at_level(logging.WARNING):
        assert next(stream).id == "q0" and problems.count == 0
        assert [question.id for question in stream] == ["q2", "q3"]
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 3 and "line 2: malformed JSON" in told[0] and "line 4" in told[1] and "line 6" in told[2]
    with pytest.raises(UserError, match="rows.jsonl: line 2: malformed JSON"):
        read(path, strict=True)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_marks_of_other_editors(tmp_path: Path, end: str) -> None:
    """A byte order mark, lines that end as on Windows, NUL bytes."""
    rows = [{"id": f"q{n}", "question": "Who\0?", "context": "He."} for n in range(2)]
    lines = [json.dumps(row) for row in rows]
    (tmp_path / "rows.jsonl").write_bytes(("\ufeff" + end.join([*lines, "\0", lines[0].replace("q0", "\0")])).encode())
    assert [question.text for question in read(tmp_path / "rows.jsonl")] == ["Who\0?"] * 2
    text = "\ufeff" + json.dumps(make_document(2), indent=1).replace("\n", end)
    (tmp_path / "d.json").write_bytes(text.encode())
    assert len(read(tmp_path / "d.json", strict=True)) == 4


BAD_ENTRIES: list[tuple[dict[str, Any], str, bool]] = [  # entry, what is said, whether it can be asked still
    ({"question": "?"}, "no 'id'", False),
    ({"id": 7, "question": "?"}, "no 'id'", False),
    ({"id": "a", "question": 7}, "no 'question'", False),
    ({"id": "a", "question": "?", "answers": [{"text": "green", "answer_start": 0}]}, "not at character 0", True),
    ({"id": "a", "question": "?", "answers": [{"text": "red", "answer_start": -3}]}, "not at character -3", True),
    ({"id": "a", "question": "?", "answers": [{"text": "red"}]}, "without 'text' or 'answer_start'", True),
    ({"id": "a", "question": "?", "answers": {}}, "'answers' is no list", True),
    ({"id": "a", "question": " "}, "an empty question", True),
    ({"id": "a", "question": "?", "is_impossible": float("nan")}, "'is_impossible' is neither true nor false", True),
    ({"id": "a", "question": "?", "answers": [{"text": "red", "answer_start": float("inf")}]}, "without 'text'", True),
    ({"id": "a", "question": float("-inf")}, "no 'question'", False),
    ({"id": "0-0", "question": "again?"}, "stood in an earlier row", False),
]


@pytest.mark.parametrize(("entry", "message", "kept"), BAD_ENTRIES)
def test_bad_rows(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, entry: dict[str, Any], message: str, kept: bool
) -> None:
    document = make_document(2)
    paragraph = {"context": "all is red", "qas": [entry]}
    document["data"][0]["paragraphs"] += [paragraph, {"context": "x"}]
    document["data"].insert(1, {"title": "no paragraphs"})
    path = write_json(tmp_path / "d.json", document)
    questions = read(path)
    assert len(questions) == 4 + kept
    assert not kept or not questions[2].answers
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 3 and "article 1, paragraph 2, question 1" in told[0] and message in told[0]
    assert "article 1, paragraph 3: no list 'qas'" in told[1] and "article 2: no list 'paragraphs'" in told[2]
    with pytest.raises(UserError, match="article 1, paragraph 2, question 1"):
        read(path, strict=True)


@pytest.mark.parametrize("context", ["", "   ", None, 3])
def test_empty_contexts(tmp_path: Path, caplog: pytest.LogCaptureFixture, context: Any) -> None:
    content = {"data": [{"paragraphs": [{"context": context, "qas": [{"id": "a", "question": "?"}]}]}]}
    questions = read(write_json(tmp_path / "d.json", content))
    assert [question.id for question in questions] == (["a"] if isinstance(context, str) else [])
    assert "question 1 (id a)" in caplog.text and "context" in caplog.text


def test_a_malformed_document_gives_its_whole_paragraphs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = json.dumps(make_document(4), indent=1)
    broken = text.replace('"id": "1-0",', '"id": "1-0"', 1)  # a comma is missing
    path = tmp_path / "d.json"
    path.write_text(broken)
    assert [question.id for question in read(path)] == ["0-0", "0-1", "2-0", "2-1", "3-0", "3-1"]
    assert "the paragraph at line" in caplog.text and "it is left out" in caplog.text
    caplog.clear()
    path.write_text(text[: text.rindex("]")])  # cut off after the last paragraph
    assert len(read(path)) == 8 and "outside its paragraphs" in caplog.text
    with pytest.raises(UserError, match="malformed JSON"):
        read(path, strict=True)


@pytest.mark.parametrize("content", [b"{", b"[1, 2]", b'{"data": 3}', b"\xff\xfe{}", b"[" * 200_000, b""])
def test_what_is_no_squad_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "d.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match="d.json"):
        read(path)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="absent.json cannot be read"):
        read(tmp_path / "absent.json")
    (tmp_path / "no.json.gz").write_bytes(b"not compressed")
    with pytest.raises(UserError, match="no.json.gz cannot be read"):
        read(tmp_path / "no.json.gz")
