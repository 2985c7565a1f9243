"""Pictures of reports: what is drawn, the files, and mistakes; drawn without a screen."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fairseq_switchdec.cost import Geometry, Lengths
from fairseq_switchdec.decisions import DecisionSpace
from fairseq_switchdec.errors import UserError
from fairseq_switchdec.generation.report import SwitchReport
from fairseq_switchdec.pictures import command
from fairseq_switchdec.pictures.draw import (
    Point,
    decisions_figure,
    histogram,
    new_figure,
    quality_figure,
    sublayer_table,
)

pytest.importorskip("matplotlib")


def write_report(path: Path, space: DecisionSpace, compared: bool = True, inputs: int = 40, seed: int = 1) -> Path:
    """Two paths: every third input skips an attention and drops tokens, the others a feed-forward sublayer."""
    keep = torch.ones(inputs, space.num_sublayers, dtype=torch.bool)
    third = torch.arange(inputs) % 3 == 0
    keep[third, 1] = False
    keep[~third, space.num_layers + 2] = False
    decisions = space.decisions(keep, third.long() * 3)
    layers = (space.encoder_layers, space.decoder_layers)
    lengths = Lengths(torch.full((inputs,), 30), torch.full((inputs,), 28), torch.full((inputs,), 6), beam=2)
    report = SwitchReport(str(path))
    generator = np.random.RandomState(seed)
    if compared:
        kinds = {"greedy": 1.0, "shuffled": 1.5, "static": 1.2}
        report.compared = {
            index: {kind: {"loss": loss + generator.rand(), "cost": 0.8} for kind, loss in kinds.items()}
            for index in range(0, inputs, 2)
        }
    report.add(torch.arange(inputs), decisions, Geometry(*layers, 16, 16, 32, 32, 60), lengths, 0, 1.0)
    report.write()
    return path


def plot(monkeypatch: pytest.MonkeyPatch, *arguments: Any) -> None:
    monkeypatch.setattr(sys, "argv", ["plot", *map(str, arguments)])
    command.cli_main()


@pytest.mark.parametrize(
    "space, names",
    [
        (
            DecisionSpace(2, 2),
            "e1 attention,e1 ffn,tokens,e2 attention,e2 ffn,d1 attention,d1 cross,d1 ffn,d2 attention,d2 cross,d2 ffn",
        ),
        (DecisionSpace(3, 0), "1 attention,1 ffn,tokens,2 attention,2 ffn,3 attention,3 ffn"),
    ],
)
def test_table_of_sublayers(tmp_path: Path, space: DecisionSpace, names: str) -> None:
    entries = json.loads(write_report(tmp_path / "report.json", space).read_text())["per_input"]
    labels, ran = sublayer_table(entries)
    assert ",".join(labels) == names and ran.shape == (40, len(labels))
    third = np.arange(40) % 3 == 0
    skipped = "e2 attention" if space.decoder_layers else "2 attention"
    assert (ran[:, labels.index(skipped)] == ~third).all()
    assert (ran[third, labels.index("tokens")] == pytest.approx(1 - 8 / 30)) and (ran[~third, 2] == 1).all()
    assert ran.min(0)[:2].tolist() == [1, 1]  # the first layer always runs


def test_picture_of_one_report_shows_what_ran(tmp_path: Path) -> None:
    entries = json.loads(write_report(tmp_path / "report.json", DecisionSpace(3, 2)).read_text())["per_input"]
    inputs, runs, cost, paths = decisions_figure(entries, "title").axes
    labels, ran = sublayer_table(entries)
    order = np.argsort([entry["cost"] for entry in entries], kind="stable")
    assert np.array_equal(inputs.images[0].get_array(), ran[order])
    assert [bar.get_height() for bar in runs.patches] == pytest.approx(ran.mean(0).tolist())
    assert [text.get_text() for text in runs.get_xticklabels()] == labels
    assert sum(bar.get_height() for bar in cost.patches) == 40
    assert [bar.get_height() for bar in paths.patches] == [26, 14] and "2 different paths" in paths.get_title()
    kinds = [f"kind {index % 2}" for index in range(40)]
    grouped = decisions_figure(entries, "title", kinds).axes[0]
    assert [text.get_text() for text in grouped.get_yticklabels()] == ["kind 0", "kind 1"]
    assert grouped.get_yticks().tolist() == [0, 20]


def test_quality_against_cost_has_each_systems_interval() -> None:
    points = [
        Point("a", 0.5, 2.0, 1.5, 2.25, "x"),
        Point("b", 0.75, 3.0, 3.0, 3.0, "x"),
        Point("c", 1.0, 4.0, 3.0, 4.5),
    ]
    axes = quality_figure(points, "ROUGE-L").axes[0]
    (first, second) = axes.containers
    assert np.allclose(first.lines[0].get_xydata(), [(0.5, 2.0), (0.75, 3.0)])
    assert np.allclose(first.lines[2][0].get_segments(), [[(0.5, 1.5), (0.5, 2.25)], [(0.75, 3.0), (0.75, 3.0)]])
    assert first.lines[0].get_marker() != second.lines[0].get_marker()  # told apart without colour
    assert [text.get_text() for text in axes.texts] == ["a", "b", "c"]
    axes = quality_figure([points[0], points[2], points[0]._replace(name="d")], "ROUGE-L").axes[0]
    assert [text.get_text() for text in axes.texts] == ["a, d", "c"], "the names of one place stand side by side"


def test_all_inputs_are_in_the_histogram() -> None:
    axes = new_figure(3, 3).subplots()
    histogram(axes, [("", np.array([0.31, 0.5, 1.0, 1.0 + 1e-9]))])
    assert sum(bar.get_height() for bar in axes.patches) == 4


@pytest.mark.parametrize("name", ["one.png", "one.svg", "one.pdf"])
def test_the_command_draws_one_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, capsys: Any) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    report = write_report(tmp_path / "report.json", DecisionSpace(3, 2))
    starts = {"one.png": b"\x89PNG", "one.svg": b"<?xml", "one.pdf": b"%PDF"}
    plot(monkeypatch, report, "--out", tmp_path / name)
    content = (tmp_path / name).read_bytes()
    assert content.startswith(starts[name]) and f"wrote {tmp_path / name}" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == [name, "report.json"]


def test_the_command_draws_several_reports_and_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = write_report(tmp_path / "one.json", DecisionSpace(3, 2))
    two = write_report(tmp_path / "two.json", DecisionSpace(3, 0), seed=2)
    drawn: list[Any] = []
    monkeypatch.setattr(command, "save", lambda figure, path: drawn.append(figure))
    plot(monkeypatch, one, f"second={two}", "--out", tmp_path / "x.svg")
    quality, costs = drawn[0].axes
    assert {text.get_text() for text in quality.texts} == {"one", "second"} and len(quality.containers) == 3
    assert [text.get_text() for text in costs.get_legend().get_texts()] == ["one", "second"]
    measures = {measure: {"mean": 30.0, "low": 29.0, "high": 31.5} for measure in ("rouge1", "rouge2", "rougeL")}
    (tmp_path / "scores.json").write_text(json.dumps({"systems": {"plain": measures, "one": measures}}))
    plot(monkeypatch, one, "--scores", tmp_path / "scores.json", "--out", tmp_path / "x.svg")
    (scored,) = drawn[1].axes[0].containers
    cost = json.loads(one.read_text())["cost"]
    assert np.allclose(scored.lines[0].get_xydata(), [(1.0, 30.0), (cost, 30.0)])


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["none.json"], "none.json cannot be read: No such file"),
        (["broken.json"], "broken.json is no file that --switch-report wrote"),
        (["other.json"], "other.json is no file that --switch-report wrote"),
        (["empty.json"], "empty.json holds no inputs"),
        (["good.json", "good.json"], "two reports are called good: give names"),
        (["good.json", "a=quiet.json"], "report a says nothing of quality: generate with --switch-compare"),
        (["good.json", "--out", "x.gif"], "--out x.gif must end in .png, .svg, .pdf"),
        (["good.json", "--out", "nowhere/x.png"], "--out nowhere/x.png cannot be written"),
        (["good.json", "--scores", "none.json"], "--scores none.json cannot be read"),
        (["good.json", "--scores", "good.json"], "--scores good.json is no file that score --json wrote"),
        (["good.json", "--scores", "scores.json"], "--scores scores.json has no system good, only other"),
    ],
)
def test_mistakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str) -> None:
    monkeypatch.chdir(tmp_path)
    write_report(tmp_path / "good.json", DecisionSpace(3, 2))
    write_report(tmp_path / "quiet.json", DecisionSpace(3, 2), compared=False)
    (tmp_path / "broken.json").write_text('{"per_input": [')
    (tmp_path / "other.json").write_text('{"per_input": [{"id": 3}]}')
    (tmp_path / "empty.json").write_text('{"per_input": []}')
    measures = {measure: {"mean": 30.0, "low": 29.0, "high": 31.5} for measure in ("rouge1", "rouge2", "rougeL")}
    (tmp_path / "scores.json").write_text(json.dumps({"systems": {"other": measures}}))
    before = sorted(tmp_path.iterdir())
    out = [] if "--out" in arguments else ["--out", "x.png"]
    with pytest.raises(UserError, match=message):
        plot(monkeypatch, *arguments, *out)
    assert sorted(tmp_path.iterdir()) == before


def test_without_matplotlib_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = write_report(tmp_path / "report.json", DecisionSpace(3, 2))
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UserError, match="pip install matplotlib"):
        plot(monkeypatch, report, "--out", tmp_path / "x.png")
