"""``predict --task switchable_task``: texts in, what fairseq-generate writes for them out, whatever the kills."""

from __future__ import annotations

import gzip
import json
import math
import re
import shutil
from typing import Any

import pytest
import torch
from fairseq.checkpoint_utils import load_checkpoint_to_cpu
from support import generate

from fairseq_switchdec.predict import command
from fairseq_switchdec.predict.journal import Journal


def test_the_same_texts_scores_and_decisions_as_generate(predict, corpus, switchable_run, tmp_path):
    flags = ("--switch-report", tmp_path / "generate.json", "--switch-compare", 0)
    output = generate(corpus, switchable_run.checkpoint, *flags)
    expected = {int(i): (float(s), t) for i, s, t in re.findall(r"^H-(\d+)\t(\S+)\t(.*)$", output, flags=re.M)}
    found = predict(corpus.parent / "test.source", "--switch-report", tmp_path / "predict.json", "--window", 7)
    assert [line["index"] for line in found] == [str(index) for index in range(20)]
    assert len({line["text"] for line in found}) > 2
    for index, line in enumerate(found):
        score, text = expected[index]
        assert line["text"] == text
        assert line["score"] / math.log(2) == pytest.approx(score, abs=1e-4)  # fairseq prints base 2
    reports = [json.loads((tmp_path / f"{name}.json").read_text()) for name in ("generate", "predict")]
    for one, other in zip(*(report["per_input"] for report in reports)):
        assert one == other
    assert reports[0]["run"]["source"] == reports[1]["run"]["source"]
    assert reports[1]["run"]["generation"]["max_len_b"] == reports[0]["run"]["generation"]["max_len_b"] == 8
    assert reports[0]["cost"] == pytest.approx(reports[1]["cost"])


def test_source_lookup_writes_the_same(predict, corpus, tmp_path):
    """And is part of what must be the same for a run to go on."""
    source, flags = corpus.parent / "test.source", ("--beam", 1, "--max-len-b", 30, "--min-len", 20)
    found = {}
    for lookup in ("off", "auto", "5"):
        report, name = tmp_path / f"{lookup}.json", f"{lookup}.jsonl"
        found[lookup] = predict(source, *flags, "--switch-lookup", lookup, "--switch-report", report, output=name)
    for lookup in ("auto", "5"):
        assert [line["text"] for line in found[lookup]] == [line["text"] for line in found["off"]]
        scores = [line["score"] for line in found[lookup]]
        assert scores == pytest.approx([line["score"] for line in found["off"]], abs=1e-4)
    assert "tokens_a_run" not in json.loads((tmp_path / "off.json").read_text())
    assert json.loads((tmp_path / "5.json").read_text())["tokens_a_run"] >= 1
    settings = [json.loads((tmp_path / f"{lookup}.json").read_text())["run"]["lookup"] for lookup in ("off", "auto")]
    assert settings == ["off", "auto"]


def test_killed_it_goes_on_to_the_same_bytes(predict, monkeypatch, corpus, tmp_path):
    class Killed(BaseException):
        """Stands for a signal."""

    source, flags = corpus.parent / "test.source", ("--window", 6, "--switch-decisions", "random")
    predict(source, *flags, "--switch-report", tmp_path / "whole.json", output="whole.jsonl")
    calls, append = [], Journal.append

    def dies(self: Journal, *arguments: Any) -> None:
        calls.append(None)
        if len(calls) in (2, 4):
            raise Killed
        append(self, *arguments)

    monkeypatch.setattr(Journal, "append", dies)
    for _ in range(2):
        with pytest.raises(Killed):
            predict(source, *flags, "--switch-report", tmp_path / "parts.json")
    predict(source, *flags, "--switch-report", tmp_path / "parts.json")
    assert len(calls) == 6  # windows of 6, 6, 6 and 2; two of them twice
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    whole, parts = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("whole", "parts"))
    assert {**whole, "seconds": 0} == {**parts, "seconds": 0}


def test_strict_keeps_what_an_interrupted_run_had_done(predict, monkeypatch, tmp_path):
    (tmp_path / "texts").write_text("w1\nw2\n" * 2 + "\nw3\n")
    flags, append = ("--window", 2), Journal.append

    def interrupted(self: Journal, *arguments: Any) -> None:
        append(self, *arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(SystemExit, match="interrupted: give the same command again"):
        patched.setattr(Journal, "append", interrupted)
        predict(tmp_path / "texts", *flags)
    with pytest.raises(SystemExit, match=r"line 5 \(text 4\): the text is empty \(--strict\)"):
        predict(tmp_path / "texts", *flags, "--strict")
    assert json.loads((tmp_path / "out.jsonl.journal").read_text())["rows"] >= 2
    assert len(predict(tmp_path / "texts", *flags)) == 6


def test_bad_rows_keep_their_places(predict, tmp_path):
    long = " ".join(["w1"] * 80)
    lines: list[Any] = [
        {"id": "first", "text": "w1 w2"}, "not an object", {"id": 3, "text": "   "}, {"id": 4, "article": "w3"},
        {"index": "five", "text": "\ud800"}, {"text": long}, {"text": "w4 w5 w6"},
    ]  # fmt: skip
    source = tmp_path / "texts.jsonl.gz"
    source.write_bytes(gzip.compress(("\n".join(map(json.dumps, lines)) + "\n{\n").encode()))
    found = predict(source)
    assert [line["index"] for line in found] == ["first", "1", "3", "4", "five", "5", "6", "7"]
    errors = [line.get("error", "") for line in found]
    assert errors[0] == errors[6] == "" and found[0]["text"]
    for error, part in zip(errors[1:6], ("not a JSON object", "empty", "no text 'text'", "surrogate", "81 tokens")):
        assert part in error
    assert errors[5].endswith("the limit is 64; --truncate-source cuts") and errors[7].startswith("not JSON")
    assert "text" in predict(source, "--truncate-source", output="cut.jsonl")[5]
    assert [line["index"] for line in predict(source, "--text-column", "article", output="other.jsonl")][3] == "4"
    with pytest.raises(SystemExit, match=r"texts.jsonl.gz, line 2 \(text 1\): not a JSON object \(--strict\)"):
        predict(source, "--strict", output="strict.jsonl")
    assert not list(tmp_path.glob("strict*"))
    named = [{"id": None, "text": "w1"}, {"id": [2], "text": "w1"}, {"id": True, "text": "w1"}, {"id": 7, "text": "w1"}]
    (tmp_path / "named.JSONL").write_text("\n".join(map(json.dumps, named)) + "\n\n")
    found = predict(tmp_path / "named.JSONL", output="named.out")
    assert [line["index"] for line in found] == ["0", "1", "2", "7", "4"] and found[4]["error"] == "the line is empty"

    (tmp_path / "texts").write_bytes(b"\xef\xbb\xbf w1 w2 \n\xff\n\nw3\n")
    found = predict(tmp_path / "texts", output="lines.jsonl")
    assert [line.get("error") for line in found] == [None, "not UTF-8: invalid start byte at byte 0",
                                                     "the text is empty", None]  # fmt: skip


def test_texts_begin_as_in_training(predict, switchable_run, tmp_path, caplog):
    """A model whose texts began with ``<s>`` reads it, and writes it first."""
    state = load_checkpoint_to_cpu(str(switchable_run.checkpoint))
    assert state["model"]["openings.with_bos"].tolist() == [0, 0]
    state["model"]["openings.with_bos"].fill_(1)
    torch.save(state, tmp_path / "opened.pt")
    (tmp_path / "texts").write_text("w1 w2 w3\n<s> w1 w2 w3\n")
    bare, typed = predict(tmp_path / "texts")
    opened = predict(tmp_path / "texts", "--path", tmp_path / "opened.pt", output="opened.jsonl")
    assert opened[0]["text"] == opened[1]["text"] and opened[0]["score"] == opened[1]["score"]
    assert len({bare["score"], typed["score"], opened[0]["score"]}) == 3
    state["model"]["openings.with_bos"].fill_(0.5)  # an older checkpoint's, or a released one's
    torch.save(state, tmp_path / "silent.pt")
    silent = ("--path", tmp_path / "silent.pt")
    caplog.clear()
    assert predict(tmp_path / "texts", *silent, output="silent.jsonl") == [bare, typed]
    assert "does not say whether its texts began with <s>" in caplog.text
    assert predict(tmp_path / "texts", *silent, "--begin-with-bos", "yes", output="told.jsonl") == opened


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--beam", 0), "--beam 0 must be 1 or more"),
        (("--min-len", 9), "--min-len 9 is more than the 8 tokens that --max-len-b and the model allow"),
        (("--max-len-b", -3), "--max-len-b -3 must be 0 or more"),
        (("--tokenizer-json", "some.json"), "--tokenizer-json and --no-bpe exclude each other"),
        (("--gpt2-encoder-json", __file__), "--gpt2-vocab-bpe is missing: GPT-2's BPE takes both files"),
        (("--workers", 2), "--workers, --worker-cpus and --address are for --engine ray"),
        (("--switch-report", "INPUT"), "--switch-report and --input name one file"),
        (("--output", "INPUT"), "--output and --input name one file"),
        (("--output", "a/../b", "--switch-report", "b"), "--output and --switch-report name one file"),
        (("--input", "nowhere.txt"), "--input nowhere.txt cannot be read"),
        (("--switch-budget", 0.6), "--switch-budget: this policy was not trained for a range of budgets"),
    ],
)
def test_mistakes_are_said_before_work_starts(predict, corpus, words, message, tmp_path, monkeypatch):
    source = corpus.parent / "test.source"
    before = source.read_text()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").mkdir()
    with pytest.raises(SystemExit, match=message):
        predict(source, *(source if word == "INPUT" else word for word in words))
    assert not list(tmp_path.glob("out*")) and source.read_text() == before


def test_the_bpe_must_be_known(monkeypatch, switchable_run, corpus, tmp_path):
    folder = tmp_path / "alone"
    folder.mkdir()
    shutil.copy(switchable_run.checkpoint, folder / "model.pt")
    words = ["predict", "--task", "switchable_task", "--path", folder / "model.pt", "--data", corpus]
    words += ["--input", corpus.parent / "test.source", "--output", tmp_path / "out.jsonl", "--cpu"]
    monkeypatch.setattr("sys.argv", [str(word) for word in words])
    with pytest.raises(SystemExit, match="which BPE were the texts of the training made with"):
        command.cli_main()
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(SystemExit, match=r"alone/tokenizer.json is no tokenizer.json"):
        command.cli_main()


def test_a_parquet_table_gives_what_its_lines_of_json_do(predict, corpus, tmp_path):
    """Names, bad rows and all; a table is read in parts."""
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    lines = (corpus.parent / "test.source").read_text().splitlines()
    rows = [{"id": f"n{number}", "article": text} for number, text in enumerate(lines)]
    rows[3]["article"], rows[5]["article"], rows[7]["id"] = "", None, None
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "rows.parquet", row_group_size=6)
    flags = ("--text-column", "article", "--window", 4)
    found = predict(tmp_path / "rows.parquet", *flags)
    assert found == predict(tmp_path / "rows.jsonl", *flags, output="lines.jsonl")
    assert [line["index"] for line in found] == [f"n{number}" if number != 7 else "7" for number in range(20)]
    assert [line["error"] for line in found if "error" in line] == [
        "the text is empty", "no text 'article' (--text-column)",
    ]  # fmt: skip


def test_a_table_that_cannot_be_read(predict, tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.table({"title": ["w1"], "body": ["w2"]}), tmp_path / "rows.parquet")
    with pytest.raises(SystemExit, match=r"has no column 'text' \(it has: title, body\): name it with --text-column"):
        predict(tmp_path / "rows.parquet")
    content = (tmp_path / "rows.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(content[:-20])
    with pytest.raises(SystemExit, match=r"cut\.parquet cannot be read after row 0"):
        predict(tmp_path / "cut.parquet", "--text-column", "body")


def test_a_bad_row_of_a_table_keeps_its_place(predict, tmp_path, caplog):
    """One that is not UTF-8; what is no name is not read."""
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    texts = pyarrow.array([b"w1 w2", b"\xff\xfe", b"w3"], pyarrow.binary()).view(pyarrow.string())
    stamps = pyarrow.array([1, 2, 3], pyarrow.timestamp("ns"))
    parquet.write_table(pyarrow.table({"text": texts, "id": stamps}), tmp_path / "rows.parquet")
    found = predict(tmp_path / "rows.parquet")
    assert [("error" in line, line["index"]) for line in found] == [(False, "0"), (True, "1"), (False, "2")]
    assert "utf-8" in found[1]["error"] and "rows.parquet, row 2 (text 1)" in caplog.text
