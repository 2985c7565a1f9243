"""The report: its sums, its file, and a path that cannot be written."""

from __future__ import annotations

import json

import pytest
import torch

from fairseq_switchdec.cost import Geometry, Lengths
from fairseq_switchdec.decisions import DecisionSpace
from fairseq_switchdec.errors import UserError
from fairseq_switchdec.generation.report import SwitchReport

GEOMETRY = Geometry(3, 2, 12, 12, 20, 28, 54)


def filled(path) -> SwitchReport:
    report = SwitchReport(path)
    space = DecisionSpace(3, 2)
    decisions = space.keep_all(2)
    decisions.attention_keep[1, [1, 3]] = False
    decisions.cross_attention_keep[1, 0] = False
    decisions.token_strategy[0] = 6
    lengths = Lengths(torch.tensor([12, 8]), torch.tensor([10, 6]), torch.tensor([5, 4]), beam=4)
    report.add(torch.tensor([9, 2]), decisions, GEOMETRY, lengths, policy_flops=100, seconds=1.5)
    report.add(torch.tensor([4]), space.keep_all(1), GEOMETRY, Lengths(*torch.tensor([[8], [6], [3]])), 0, 0.5)
    return report


def test_file(tmp_path):
    path = tmp_path / "report.json"
    report = filled(str(path))
    report.write()
    content = json.loads(path.read_text())
    assert [entry["id"] for entry in content["per_input"]] == [2, 4, 9]
    assert content["inputs"] == 3 and content["seconds"] == 2.0
    assert content["attention_skipped"] == pytest.approx(2 / 5 / 3)
    assert content["ffn_skipped"] == 0
    assert content["tokens_dropped"] == pytest.approx(5 / 12 / 3)
    assert content["cost"] == pytest.approx(sum(entry["cost"] for entry in content["per_input"]) / 3)
    assert content["per_input"][1]["cost"] == 1.0 and content["per_input"][0]["cost"] < 1
    assert content["flops"] == pytest.approx(sum(entry["flops"] for entry in content["per_input"]))
    assert content["per_input"][2]["token_strategy"] == 6
    assert list(tmp_path.iterdir()) == [path]  # no temporary file stays
    assert "3 inputs" in report.lines()


def test_entries_can_be_forced_again(tmp_path):
    path = tmp_path / "report.json"
    filled(str(path)).write()
    entries = json.loads(path.read_text())["per_input"]
    decisions = DecisionSpace(3, 2).from_json(entries)
    assert decisions.token_strategy.tolist() == [0, 0, 6]
    assert decisions.attention_keep[0].tolist() == [True, False, True, False, True]


def test_unfinished_run_leaves_an_old_report_alone(tmp_path):
    path = tmp_path / "report.json"
    path.write_text("old")
    assert filled(str(path)).write(complete=False) == str(path) + ".partial"
    assert path.read_text() == "old"
    assert json.loads((tmp_path / "report.json.partial").read_text())["inputs"] == 3


def test_link_keeps_being_one(tmp_path):
    (tmp_path / "link.json").symlink_to(tmp_path / "report.json")
    filled(str(tmp_path / "link.json")).write()
    assert (tmp_path / "link.json").is_symlink() and (tmp_path / "report.json").is_file()


def test_device_is_refused():
    with pytest.raises(UserError, match="--switch-report /dev/null cannot be written: it is no file"):
        SwitchReport("/dev/null")


@pytest.mark.parametrize("name", ["missing/report.json", "."])
def test_path_that_cannot_be_written(tmp_path, name):
    with pytest.raises(UserError, match="--switch-report .* cannot be written"):
        SwitchReport(str(tmp_path / name))
    assert list(tmp_path.iterdir()) == []
