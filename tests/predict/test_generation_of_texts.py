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
    assert reports[0]["cost"] == pytest.approx(reports[1]["cost"])


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

    (tmp_path / "texts").write_bytes(b"\xef\xbb\xbf w1 w2 \n\xff\n\nw3\n")
    found = predict(tmp_path / "texts", output="lines.jsonl")
    assert [line.get("error") for line in found] == [None, "not UTF-8: invalid start byte at byte 0",
                                                     "the text is empty", None]  # fmt: skip


def test_texts_begin_as_in_training(predict, switchable_run, tmp_path):
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


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--beam", 0), "--beam 0 must be 1 or more"),
        (("--tokenizer-json", "some.json"), "--tokenizer-json and --no-bpe name different BPEs"),
        (("--input", "nowhere.txt"), "--input nowhere.txt cannot be read"),
        (("--switch-budget", 0.6), "--switch-budget: this policy was not trained for a range of budgets"),
    ],
)
def test_mistakes_are_said_before_work_starts(predict, corpus, words, message, tmp_path, monkeypatch):
    source = corpus.parent / "test.source"
    with pytest.raises(SystemExit, match=message):
        predict(source, *words)
    assert not list(tmp_path.glob("out*"))


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
