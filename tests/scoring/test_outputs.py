"""Reading outputs: plain text, fairseq-generate's files, shards, and what an interrupted run leaves."""

from __future__ import annotations

import gzip

import pytest

from fairseq_switchdec.errors import UserError
from fairseq_switchdec.scoring.outputs import read_lines, read_outputs, read_texts


def generated(*ids: int) -> str:
    """What fairseq-generate prints, in an order of its own, two hypotheses for each input."""
    lines = ["2026-01-01 | INFO | fairseq_cli.generate | {...}"]
    for i in reversed(ids):
        lines += [f"S-{i}\tsource {i}", f"T-{i}\treference {i}"]
        for text in (f"best {i}\twith a tab", f"second {i}"):
            lines += [f"H-{i}\t-0.5\t7 8", f"D-{i}\t-0.5\t{text}", f"P-{i}\t-0.1 -0.9"]
    return "\n".join([*lines, "Generate test with beam=4: ROUGE-1 5.00", ""])


def test_fairseq_generates_file(tmp_path):
    path = tmp_path / "generate-test.txt"
    path.write_text(generated(0, 1, 12))
    found = read_outputs([path])
    assert found.hypotheses == {i: f"best {i}\twith a tab" for i in (0, 1, 12)}
    assert found.references == {i: f"reference {i}" for i in (0, 1, 12)}
    assert read_texts(path, "sources") == {i: f"source {i}" for i in (0, 1, 12)}


def test_shards_are_one_system(tmp_path):
    paths = [tmp_path / "0.txt", tmp_path / "1.txt"]
    for path, ids in zip(paths, ((0, 3), (1, 2))):
        path.write_text(generated(*ids))
    found = read_outputs(paths)
    assert sorted(found.hypotheses) == sorted(found.references) == [0, 1, 2, 3]
    with pytest.raises(UserError, match="0.txt holds input 0, which a file before it holds too"):
        read_outputs([*paths, paths[0]])


def test_plain_text_keeps_its_lines(tmp_path):
    path = tmp_path / "plain.gz"
    path.write_bytes(gzip.compress("one\u2028still one\r\n\nthree".encode()))
    assert read_lines(path) == ["one\u2028still one", "", "three"]
    assert read_outputs([path]).hypotheses == {0: "one\u2028still one", 1: "", 2: "three"}
    assert read_texts(path, "references")[2] == "three"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (generated(0, 1)[:-60], "ends within a line: the run that wrote it was interrupted"),
        (generated(0, 1).replace("D-0", "X-0"), r"2 references \(T-\) but 1 hypotheses \(D-\)"),
        ("", "is empty"),
        (b"\xff\xfe", "is no UTF-8 text"),
        (gzip.compress(b"packed text")[:-6], "cannot be read"),
    ],
    ids=["cut", "no hypothesis", "empty", "encoding", "cut gzip"],
)
def test_damaged_files_are_refused(tmp_path, content, message):
    path = tmp_path / "file"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=message):
        read_outputs([path])


def test_missing_file_and_plain_shards(tmp_path):
    with pytest.raises(UserError, match="nowhere cannot be read: No such file"):
        read_outputs([tmp_path / "nowhere"])
    (tmp_path / "plain").write_text("text\n")
    with pytest.raises(UserError, match="of plain text, give one file for a system"):
        read_outputs([tmp_path / "plain"] * 2)
