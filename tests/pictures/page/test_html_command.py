"""``report html``: one file from a report and its texts; of a mistake, one message and no file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fairseq.data.encoders.characters import Characters
from page_support import generated, html, make_report

from fairseq_switchdec.errors import UserError

SOURCES = {0: "the cat sat", 1: "a dog", 2: "on a mat"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run's report and output, in the current folder."""
    monkeypatch.chdir(tmp_path)
    make_report(tmp_path, [len(Characters.encode(text).split()) for text in SOURCES.values()], strategies=[6, 4, 0])
    generated(tmp_path / "generate-test.txt", SOURCES)
    return tmp_path


def data_of(page: Path) -> dict[str, Any]:
    text = page.read_text(encoding="utf-8")
    start = text.index('id="data">') + len('id="data">')
    found: dict[str, Any] = json.loads(text[start : text.index("</script>", start)])
    return found


def test_one_file(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    words = ("--results", "generate-test.txt", "--bpe", "characters", "--out", "page.html")
    html(monkeypatch, "report.json", *words)
    inputs = data_of(folder / "page.html")["inputs"]
    assert [entry["known"] for entry in inputs] == [True] * 3
    assert [text for state, text in inputs[1]["source"] if state == 1] == ["o"]  # every 4th of "a", " ", "d", "o", "g"
    assert [entry["hypothesis"] for entry in inputs] == ["output 0", "output 1", "output 2"]
    printed = capsys.readouterr()
    assert "wrote page.html: 3 inputs" in printed.out and "note" not in printed.err
    assert sorted(path.name for path in folder.iterdir()) == ["generate-test.txt", "page.html", "report.json"]


def test_what_is_not_known_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    html(monkeypatch, "report.json", "--results", "generate-test.txt", "--out", "page.html")
    assert [entry["source"] for entry in data_of(folder / "page.html")["inputs"]] == [
        [[0, text]] for text in SOURCES.values()
    ]
    assert "Dropped tokens are not marked" in (folder / "page.html").read_text()
    assert "note: Dropped tokens are not marked" in capsys.readouterr().err


def test_a_report_alone_gives_a_page(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    html(monkeypatch, "report.json", "--out", "page.html", "--title", "A <title>")
    assert "No texts were given" in (folder / "page.html").read_text()
    assert "<title>A &lt;title&gt;</title>" in (folder / "page.html").read_text()


def test_a_bpe_has_its_own_options(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "encoder.json").write_text(
        json.dumps({letter: index for index, letter in enumerate("abcdeghmnost\u0120")})
    )
    (folder / "vocab.bpe").write_text("#version: 0.2\n")
    words = ("--bpe", "gpt2", "--gpt2-encoder-json", "encoder.json", "--gpt2-vocab-bpe", "vocab.bpe")
    html(monkeypatch, "report.json", "--results", "generate-test.txt", "--out", "page.html", *words)
    assert [entry["known"] for entry in data_of(folder / "page.html")["inputs"]] == [True] * 3


@pytest.mark.parametrize("words, message", [
    ("missing.json --out x.html", "missing.json cannot be read: No such file"),
    ("other.json --out x.html", "other.json is no file that --switch-report wrote"),
    ("strange.json --out x.html", "strange.json is no file that --switch-report wrote"),
    ("infinite.json --out x.html", "infinite.json is no file that --switch-report wrote"),
    ("twice.json --out x.html", "twice.json holds an input twice"),
    ("empty.json --out x.html", "empty.json holds no inputs"),
    ("report.json --out nowhere/x.html", "--out nowhere/x.html cannot be written: No such file"),
    ("report.json --out report.json", "--out report.json is one of the files to read"),
    ("report.json --out x.html --results missing.txt", "missing.txt cannot be read: No such file"),
    ("report.json --out x.html --source other.json", "--source other.json has 1 lines, report.json 3 inputs"),
    ("report.json --out x.html --bpe none", "--bpe none is unknown; choose from .*, characters, .*, tokenizer_json"),
    ("report.json --out x.html --bpe tokenizer_json", "--bpe tokenizer_json needs --tokenizer-json FILE"),
    (
        "report.json --out x.html --bpe gpt2 --gpt2-encoder-json no.json --gpt2-vocab-bpe no.bpe",
        "--bpe gpt2 cannot be set up: .*no.json",
    ),
])  # fmt: skip
def test_mistakes(folder: Path, monkeypatch: pytest.MonkeyPatch, words: str, message: str) -> None:
    report = json.loads((folder / "report.json").read_text())
    entries = report["per_input"]
    files = {
        "other": {"per_input": [{"id": 3}]},
        "strange": report | {"per_input": [entries[0] | {"token_strategy": "every"}]},
        "infinite": report | {"per_input": [entries[0] | {"cost": float("nan")}]},
        "twice": report | {"per_input": [entries[0]] * 2},
        "empty": {"per_input": []},
    }
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    before = sorted(folder.iterdir())
    with pytest.raises(UserError, match=message):
        html(monkeypatch, *words.split())
    assert sorted(folder.iterdir()) == before and json.loads((folder / "report.json").read_text()) == report
