"""``python -m fairseq_switchdec score``: its table, its file and its refusals."""

from __future__ import annotations

import gzip
import json
import os
import sys

import numpy as np
import pytest
from support import run_command

from fairseq_switchdec.errors import UserError
from fairseq_switchdec.scoring import command, perl

REFERENCES = ["Red green blue.", "One two three.", "Sun moon stars.", "North south."]


@pytest.fixture
def files(tmp_path, monkeypatch):
    """References, a perfect system, one that fails on the first input, and articles whose lead is half right."""
    monkeypatch.chdir(tmp_path)
    texts = {
        "references": REFERENCES,
        "good": REFERENCES,
        "bad": ["nothing", *REFERENCES[1:]],
        "articles": [f"{text} Other words here. " * 3 for text in REFERENCES],
    }
    for name, lines in texts.items():
        (tmp_path / name).write_text("\n".join(lines) + "\n")
    return tmp_path


def score(monkeypatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["score", *arguments, "--processes", "1"])
    command.cli_main()


def test_systems_are_compared_with_the_first(files, monkeypatch, capsys):
    flags = "--hypotheses good --hypotheses other=bad --references references --source articles --json out.json"
    score(monkeypatch, *flags.split(), "--lead", "2")
    result = json.loads((files / "out.json").read_text())
    assert result["baseline"] == "good" and result["pairs"] == 4
    systems = result["systems"]
    assert list(systems) == ["good", "other", "lead-2"]
    assert systems["good"]["rougeL"] == {"mean": 100, "low": 100, "high": 100}
    difference = systems["other"]["minus_baseline"]["rougeL"]
    assert difference["mean"] == pytest.approx(-25) and difference["low"] < -25 < difference["high"] <= 0
    assert systems["lead-2"]["rouge1"]["mean"] == pytest.approx((3 * 200 * 0.5 / 1.5 + 200 * 0.4 / 1.4) / 4)
    table = capsys.readouterr().out
    assert "| system | ROUGE-1 | ROUGE-2 | ROUGE-L | R-L minus good |" in table
    assert "| other | 75.00 [" in table and "| -25.00 [" in table and "4 pairs" in table


def test_another_seed_moves_the_interval_only():
    rng = np.random.RandomState(1)
    references, texts = ([" ".join(rng.choice(list("abcdefgh"), 8)) for _ in range(60)] for _ in range(2))
    rows = [command.score(references, {"a": texts}, seed, 1)["systems"]["a"] for seed in (0, 0, 5)]
    assert rows[0] == rows[1] != rows[2]
    for measure, found in rows[0].items():
        assert found["mean"] == rows[2][measure]["mean"]
        assert found["low"] == pytest.approx(rows[2][measure]["low"], abs=1)


def test_files2rouge_stands_beside(files, monkeypatch, capsys):
    seen = []

    def perl_rouge(references, hypotheses, tokenized):
        seen.append((references, hypotheses, tokenized))
        return [perl.Interval(40.0, 39.0, 41.0)] * 3

    monkeypatch.setattr(command, "find_files2rouge", lambda: None)
    monkeypatch.setattr(command, "perl_rouge", perl_rouge)
    score(monkeypatch, "--hypotheses", "bad", "--references", "references", "--files2rouge")
    assert seen == [(REFERENCES, ["nothing", *REFERENCES[1:]], False)]
    assert "ROUGE-L (1.5.5) |" in capsys.readouterr().out


def test_numbers_are_suspected(files, monkeypatch, capsys):
    (files / "ids").write_text("31414 232\n" * 4)
    score(monkeypatch, "--hypotheses", "ids", "--references", "references")
    assert "ids holds numbers only: was --bpe forgotten" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--hypotheses good", r"good holds no references \(T- lines\): give --references FILE"),
        ("--hypotheses short --references references", r"short has 3 texts, references 4: 1 are missing there \(.*: 3"),
        ("--hypotheses good --references short", "good has 4 texts, short 3: 1 have no reference"),
        ("--hypotheses a=good --hypotheses a=bad --references references", "two systems are called a"),
        ("--hypotheses good --references references --json no/such/out", "--json no/such/out cannot be written"),
        ("--hypotheses good --references references --ptb", "--ptb finds no stanford-corenlp"),
        ("--hypotheses good --references references --corenlp-jar no.jar", "--corenlp-jar no.jar is no file"),
        ("--hypotheses good --references references --files2rouge", "Install it from its repository"),
        ("--hypotheses good --references references --lead 0", "--lead and --processes must be 1 or more"),
    ],
    ids=lambda value: value if value.startswith("--") else "",
)
def test_mistakes(files, monkeypatch, flags, message):
    (files / "short").write_text("\n".join(REFERENCES[:3]) + "\n")
    monkeypatch.delenv("CLASSPATH", raising=False)
    monkeypatch.setitem(sys.modules, "files2rouge", None)
    with pytest.raises(UserError, match=message):
        score(monkeypatch, *flags.split())


def test_simcls(shared_data, tmp_path):
    """Published with ROUGE-1.5.5: 46.67 / 22.15 / 43.54 over 11,490 pairs; rouge-score is to lie 0 to 0.5 below.

    Every sixteenth pair keeps the test short, and then the interval has to hold the figure; FULL_SIZE=1 takes all.
    """
    step = 1 if os.environ.get("FULL_SIZE") else 16
    folder = shared_data / "rouge" / "simcls_cnndm"
    for name in ("ours", "reference"):
        lines = gzip.decompress((folder / f"test.cnndm.{name}.gz").read_bytes()).decode().splitlines(keepends=True)
        assert len(lines) == 11490
        (tmp_path / name).write_text("".join(lines[::step]), encoding="utf-8")
    flags = ("--references", tmp_path / "reference", "--json", tmp_path / "out.json")
    run_command("score", "--hypotheses", f"simcls={tmp_path / 'ours'}", *flags)
    found = json.loads((tmp_path / "out.json").read_text())["systems"]["simcls"]
    for measure, published in (("rouge1", 46.67), ("rouge2", 22.15), ("rougeL", 43.54)):
        low, high = (found[measure]["mean"],) * 2 if step == 1 else (found[measure]["low"], found[measure]["high"])
        assert low < published < high + 0.5, measure
        assert high - low < 2.5, measure
