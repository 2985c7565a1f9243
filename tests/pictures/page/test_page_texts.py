"""Texts by input id, from every kind of file; and which reading of a source the report agrees with."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
from fairseq.data.encoders.characters import Characters
from page_support import entries_of, generated, make_report

from fairseq_switchdec.errors import UserError
from fairseq_switchdec.pictures.page.texts import Texts, read_texts
from fairseq_switchdec.pictures.page.view import input_view

SOURCES = ["the cat sat", "a dog", "on the old mat it sat", "b c d e f"]
NONE = {"results": None, "source": None, "hypotheses": None, "references": None}


def lines(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    return path


def read(report: Path, bpe: Any = None, run: dict[str, Any] | None = None, **files: Any) -> Texts:
    files = {name: [str(path)] if name == "results" else str(path) for name, path in files.items()}
    return read_texts(Namespace(**(NONE | files)), "report.json", entries_of(report), run or {}, bpe)


def counts(texts: list[str], bpe: bool = False) -> list[int]:
    return [len(Characters.encode(text).split() if bpe else text.split()) for text in texts]


def test_results_hold_everything(tmp_path: Path) -> None:
    report = make_report(tmp_path, counts(SOURCES))
    found = read(report, results=generated(tmp_path / "generate-test.txt", dict(enumerate(SOURCES))))
    assert [found.sources[index].words for index in range(4)] == [text.split() for text in SOURCES]
    assert found.hypotheses == {index: f"output {index}" for index in range(4)}
    assert found.references == {index: f"reference {index}" for index in range(4)} and found.note == ""


def test_plain_lines_are_the_same(tmp_path: Path) -> None:
    report = make_report(tmp_path, counts(SOURCES))
    source, out = lines(tmp_path / "source", SOURCES), lines(tmp_path / "out", ["w", "x", "y", "z"])
    found = read(report, source=source, hypotheses=out)
    assert [found.sources[index].words for index in range(4)] == [text.split() for text in SOURCES]
    assert found.hypotheses == dict(enumerate("wxyz")) and found.references == {}


def test_json_lines_as_predict_reads_and_writes_them(tmp_path: Path) -> None:
    report = make_report(tmp_path, counts(SOURCES))
    source = lines(tmp_path / "in.jsonl", [json.dumps({"id": text, "text": text}) for text in SOURCES])
    written = [{"index": "0", "text": "w\nw"}, {"index": "1", "error": "empty"}, *({"text": text} for text in "xyz")]
    found = read(report, source=source, hypotheses=lines(tmp_path / "out.jsonl", list(map(json.dumps, written))))
    assert [found.sources[index].text for index in range(4)] == SOURCES
    assert found.hypotheses == {0: "w\nw", 1: "x", 2: "y", 3: "z"}
    with pytest.raises(UserError, match=r"--hypotheses .*bad.jsonl: not JSON lines with a text"):
        read(report, hypotheses=lines(tmp_path / "bad.jsonl", ["a", "b", "c", "d"]))


def test_a_file_of_its_own_counts_more_than_results(tmp_path: Path) -> None:
    """The BPE's own file, where the output's text does not give its tokens."""
    report = make_report(tmp_path, counts(SOURCES, bpe=True))
    results = generated(tmp_path / "generate-test.txt", dict.fromkeys(range(4), "?"))
    words = [Characters.encode(text) for text in SOURCES]
    found = read(report, Characters, results=results, source=lines(tmp_path / "bpe", words))
    assert [found.sources[index].text for index in range(4)] == SOURCES
    assert found.hypotheses[3] == "output 3"  # was text before


@pytest.mark.parametrize("undecoded", [False, True], ids=["text", "tokens"])
def test_the_report_tells_text_from_tokens(tmp_path: Path, undecoded: bool) -> None:
    report = make_report(tmp_path, counts(SOURCES, bpe=True), strategies=[6] * 4)
    shown = [Characters.encode(text) if undecoded else text for text in SOURCES]
    results = generated(tmp_path / "generate-test.txt", dict(enumerate(shown)))
    found = read(report, Characters, results=results)
    for entry, text in zip(entries_of(report), SOURCES):
        view = input_view(entry, found.sources[entry["id"]])
        assert view["known"] and "".join(piece for _, piece in view["source"]) == text
        assert [piece for state, piece in view["source"] if state] == list(text[1::2])
    assert found.hypotheses[2] == ("output2" if undecoded else "output 2")  # as its source


def test_without_the_bpe_nothing_is_guessed(tmp_path: Path) -> None:
    report = make_report(tmp_path, counts(SOURCES, bpe=True))
    found = read(report, source=lines(tmp_path / "source", SOURCES))
    assert all(source.words is None for source in found.sources.values())
    assert found.sources[1].text == "a dog" and "give its --bpe" in found.note


def test_what_agrees_by_chance_is_not_believed(tmp_path: Path) -> None:
    report = make_report(tmp_path, [3, 7, 7, 7])
    found = read(report, Characters, source=lines(tmp_path / "source", SOURCES))
    assert all(source.words is None for source in found.sources.values())
    assert "Give the --bpe of the data" in found.note


def test_single_sources_that_differ_are_counted(tmp_path: Path) -> None:
    report = make_report(tmp_path, [3, 2, 9, 5])
    found = read(report, source=lines(tmp_path / "source", SOURCES))
    assert [found.sources[index].words is None for index in range(4)] == [False, False, True, False]
    assert "1 of 4 sources" in found.note


def test_sources_that_were_cut(tmp_path: Path) -> None:
    run = {"source": {"limit": 3, "first": True, "last": True}}
    report = make_report(tmp_path, [3, 2, 3, 3], strategies=[4] * 4)
    found = read(report, run=run, source=lines(tmp_path / "source", SOURCES))
    assert all(source.words is not None for source in found.sources.values()) and not found.note


def test_inputs_that_were_left_out(tmp_path: Path) -> None:
    """As too long: a file has a line for each line of the data, or for each input of the report."""
    report = make_report(tmp_path, counts([SOURCES[1], SOURCES[3]]), ids=[1, 3])
    source, out = lines(tmp_path / "source", SOURCES), lines(tmp_path / "out", ["x", "z"])
    found = read(report, source=source, hypotheses=out)
    assert {index: source.text for index, source in found.sources.items()} == {1: "a dog", 3: "b c d e f"}
    assert found.hypotheses == {1: "x", 3: "z"}


@pytest.mark.parametrize("files, message", [
    ({"source": "three"}, "--source three has 3 lines, report.json 4 inputs: give the file"),
    ({"references": "five"}, "--references five has 5 lines, report.json 4 inputs"),
    ({"hypotheses": "missing"}, "missing cannot be read: No such file"),
    ({"source": "empty"}, "empty is empty"),
    ({"source": "latin"}, "latin is no UTF-8 text"),
    ({"results": "three"}, "--results three is no output of fairseq-generate: give plain text to --source"),
    ({"results": "part"}, r"--results part lacks 1 of the 4 inputs of report.json \(ids 2\)"),
    ({"results": "more"}, r"--results more holds 1 inputs more than the 4 inputs of report.json \(ids 4\)"),
], ids=lambda value: " ".join(value.values()) if isinstance(value, dict) else "")  # fmt: skip
def test_mistakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], message: str) -> None:
    monkeypatch.chdir(tmp_path)
    report = make_report(tmp_path, counts(SOURCES))
    lines(Path("three"), SOURCES[:3])
    lines(Path("five"), [*SOURCES, "more"])
    Path("empty").touch()
    Path("latin").write_bytes(b"a\nb\nc\xe9\nd\n")
    generated(Path("part"), {0: "a", 1: "b", 3: "d"})
    generated(Path("more"), dict.fromkeys(range(5), "a"))
    with pytest.raises(UserError, match=message):
        read(report, **files)
