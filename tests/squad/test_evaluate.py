"""Exact match and F1: by hand, and published systems' answers to their published figures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from squad_support import make_document, write_json
from support import run_command

from fairseq_switchdec.errors import UserError
from fairseq_switchdec.squad.command import choose, read_golds, read_predictions, split_n_best
from fairseq_switchdec.squad.evaluate import best_threshold, normalize, score_one, summary

GOLDS = {"a": ("the Red House", "house"), "b": (), "c": ("blue",)}


def test_normalization() -> None:
    assert normalize("  The Cat's, an  APPLE!") == "cats apple"
    assert normalize("anthem theatre") == "anthem theatre" and normalize("The a an.") == ""


@pytest.mark.parametrize(
    ("prediction", "answers", "exact", "overlap"),
    [
        ("red house", ("the Red House", "house"), 1, 1),
        ("a big red house", ("red house",), 0, 0.8),
        ("house house", ("house",), 0, 2 / 3),
        ("tree", ("house",), 0, 0),
    ],
)
def test_both_versions_by_hand(prediction: str, answers: tuple[str, ...], exact: float, overlap: float) -> None:
    for version2 in (False, True):
        assert score_one(prediction, answers, version2=version2) == (exact, pytest.approx(overlap))


def test_where_the_versions_differ() -> None:
    assert score_one("the", ("a",), version2=False) == (1, 0)  # no word is left of either
    assert score_one("the", ("a",), version2=True) == (1, 1)
    assert score_one("", (), version2=True) == (1, 1) and score_one("x", (), version2=True) == (0, 0)
    predictions = {"a": "house", "b": "", "d": "?"}
    first = summary({"a": GOLDS["a"], "c": GOLDS["c"]}, predictions, version2=False)
    second = summary(GOLDS, predictions, version2=True)
    assert (first["exact"], first["total"], first["missing"], first["unknown"]) == (50, 2, 1, 2)
    assert (second["exact"], second["total"], second["HasAns_total"], second["NoAns_f1"]) == (100, 2, 1, 100)


def test_the_best_threshold_is_that_of_trying_all() -> None:
    golds = {"a": ("x",), "b": (), "c": ("y",), "d": (), "e": ("z",)}
    answers = {"a": "x", "b": "x", "c": "y w", "d": "q", "e": "no"}
    odds = {"a": -5.0, "b": 1.0, "c": 0.5, "d": 0.5, "e": -2.0}
    found = best_threshold(golds, answers, odds)
    tried = {}
    for limit in [-100.0, *odds.values()]:
        given, _ = choose(golds, answers, odds, str(limit), version2=True)
        tried[limit] = summary(golds, given, version2=True)
    assert found.exact == pytest.approx(max(result["exact"] for result in tried.values()))
    assert found.f1 == pytest.approx(max(result["f1"] for result in tried.values()))
    for measure, limit in (("exact", found.exact_threshold), ("f1", found.f1_threshold)):
        given, _ = choose(golds, answers, odds, str(limit), version2=True)
        assert summary(golds, given, version2=True)[measure] == pytest.approx(getattr(found, measure))


@pytest.mark.parametrize(
    ("version", "system", "exact", "overlap"),
    [
        ("1.1", "logistic_regression_stanford", 40.142, 50.982),
        ("1.1", "match_lstm_ensemble_smu", 67.635, 76.756),
        ("2.0", "nlnet_single_msra", 75.828, 78.778),
    ],
)
def test_published_systems(shared_data: Path, version: str, system: str, exact: float, overlap: float) -> None:
    folder = shared_data / "squad"
    golds, version2 = read_golds(str(folder / f"dev-v{version}.json.gz"))
    assert version2 == (version == "2.0")
    predictions = read_predictions(str(folder / "predictions" / f"{system}.json.gz"))
    result = summary(golds, predictions, version2=version2)
    assert (round(result["exact"], 3), round(result["f1"], 3)) == (exact, overlap)


def test_the_command(tmp_path: Path) -> None:
    data = write_json(tmp_path / "dev.json", make_document(2, impossible=True))
    golds, _ = read_golds(str(data))
    lines = []
    for identity, answers in golds.items():
        odds = -3.0 if answers else 1.5
        n_best = [{"text": answers[0] if answers else "red", "score": 2.0}, {"text": "", "score": 2.0 + odds}]
        lines.append(json.dumps({"id": identity, "text": "red", "null_odds": odds, "n_best": n_best}))
    made = tmp_path / "predictions.jsonl"
    made.write_text("\n".join(lines) + "\n")
    out, figures = tmp_path / "chosen.json", tmp_path / "figures.json"
    common = ["--data", data, "--json", figures]
    shown = run_command(
        "squad-score", *common, "--n-best", made, "--null-threshold", "tune", "--write-predictions", out
    )
    result = json.loads(figures.read_text())
    assert result["exact"] == result["best_f1"] == 100 and result["best_f1_threshold"] == -3.0
    assert "exact                  100.000" in shown.stdout
    assert {identity for identity, text in json.loads(out.read_text()).items() if not text} == {"0-2", "1-2"}
    run_command("squad-score", *common, "--predictions", out)
    assert json.loads(figures.read_text())["exact"] == 100
    refused = run_command("squad-score", *common, "--n-best", data, check=False)
    assert refused.returncode == 1 and "--n-best" in refused.stdout and "Traceback" not in refused.stdout


def test_golds_count_wherever_they_stand(tmp_path: Path) -> None:
    """SQuAD's scripts do not look at ``answer_start``."""
    entries = [
        {"id": "moved", "question": "q", "answers": [{"text": "red", "answer_start": 0}]},
        {"id": "two", "question": "q", "answers": [{"text": "red", "answer_start": 13}, {"text": "a hue"}]},
        {"id": "none", "question": "q", "answers": []},
    ]
    paragraph = {"context": "The house is red.", "qas": entries}
    golds, version2 = read_golds(str(write_json(tmp_path / "data.json", {"data": [{"paragraphs": [paragraph]}]})))
    assert golds == {"moved": ("red",), "two": ("red", "a hue"), "none": ()} and not version2
    found = summary(golds, {"moved": "red", "two": "hue", "none": "red"}, version2=False)
    assert found["exact"] == pytest.approx(200 / 3) and found["total"] == 3


def test_odds_that_are_no_number(tmp_path: Path) -> None:
    path = write_json(tmp_path / "n_best.json", {})
    with pytest.raises(UserError, match="the entry 'a' is none that predict writes"):
        split_n_best(str(path), {"a": {"n_best": [], "null_odds": "x"}})
    with pytest.raises(UserError, match="the entry 'a' is none that predict writes"):
        split_n_best(str(path), {"a": {"n_best": [], "null_odds": float("nan")}})


def test_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_bytes('\ufeff{"id": "a", "text": "red"}\r\n'.encode())
    assert read_predictions(str(path)) == {"a": "red"}
