"""Merging the reports of shards: what one process would have written, or a refusal that says what to run again."""

from __future__ import annotations

import copy
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch

from fairseq_switchdec.cost import Geometry, Lengths
from fairseq_switchdec.decisions import DecisionSpace
from fairseq_switchdec.errors import UserError
from fairseq_switchdec.generation import merge
from fairseq_switchdec.generation.report import SwitchReport
from fairseq_switchdec.report_command import cli_main

GEOMETRY = Geometry(3, 2, 12, 12, 20, 28, 54)
RUN = {"model": "m", "decisions": "greedy", "random_keep": 0.8, "seed": 1, "generation": {"beam": 4}}
BATCHES = ([4, 0], [2, 6], [1], [3, 5])


def write(folder, shard: int = 0, shards: int = 1, batches=None, **run) -> str:
    """The report of a process that has generated some batches, of those in ``BATCHES`` that are its own."""
    report = SwitchReport(str(folder / "report.json"), shard, shards)
    report.run |= RUN | run
    own = BATCHES[shard::shards]
    report.expect(sum(map(len, own)), sum(map(len, BATCHES)), "test abc")
    space = DecisionSpace(3, 2)
    for ids in own if batches is None else batches:
        decisions = space.keep_all(len(ids))
        decisions.token_strategy[:] = torch.tensor(ids)
        decisions.ffn_keep[0, ids[0] % 5] = False
        lengths = Lengths(*(torch.tensor([index + more for index in ids]) for more in (12, 10, 5)), beam=4)
        report.add(torch.tensor(ids), decisions, GEOMETRY, lengths, policy_flops=100, seconds=1.5)
    return report.write()


def merged(folder, paths) -> dict:
    """Through the command."""
    sys.argv = ["report", "merge", str(folder / "merged.json"), *paths]
    cli_main()
    return json.loads((folder / "merged.json").read_text())


@pytest.fixture(autouse=True)
def argv(monkeypatch):
    monkeypatch.setattr(sys, "argv", [])


@pytest.mark.parametrize("shards", [2, 3, 4])
def test_merged_equals_one_run(tmp_path, shards, capsys):
    one = json.loads(Path(write(tmp_path)).read_text())
    paths = [write(tmp_path, shard, shards) for shard in reversed(range(shards))]
    found = merged(tmp_path, paths)
    assert found.pop("seconds") == one.pop("seconds") == 6.0
    assert found == one and list(found) == list(one)
    assert [entry["id"] for entry in found["per_input"]] == list(range(7))
    assert "Switchable decisions: 7 inputs at" in capsys.readouterr().out


def test_each_shard_has_its_own_file(tmp_path):
    paths = {write(tmp_path, shard, 3) for shard in range(3)}
    assert paths == {str(tmp_path / f"report.shard-{shard}-of-3.json") for shard in range(3)}


def test_missing_shards_are_named(tmp_path):
    with pytest.raises(
        UserError, match=r"of 4 shards 1, 3 are missing, 4 of 7 inputs \(ids 2, 3, 5, 6\): run .*--shard-id 1"
    ):
        merged(tmp_path, [write(tmp_path, shard, 4) for shard in (0, 2)])
    assert not (tmp_path / "merged.json").exists()


def test_interrupted_shard_is_refused(tmp_path):
    whole, part = write(tmp_path, 0, 2), write(tmp_path, 1, 2, batches=[[2, 6]])
    with pytest.raises(UserError, match="holds 2 of the 4 inputs of shard 1: run .*--num-shards 2 --shard-id 1 again"):
        merged(tmp_path, [whole, part])


def test_a_shard_given_twice(tmp_path):
    path = write(tmp_path, 0, 2)
    shutil.copy(path, tmp_path / "copy.json")
    with pytest.raises(UserError, match="copy.json and .*shard-0-of-2.json are both of shard 0"):
        merged(tmp_path, [path, str(tmp_path / "copy.json")])


def test_other_batches_overlap(tmp_path):
    with pytest.raises(UserError, match="both hold input 4: run all shards with the same --batch-size"):
        merged(tmp_path, [write(tmp_path, 0, 2), write(tmp_path, 1, 2, batches=[[4, 6], [3, 5]])])


@pytest.mark.parametrize(
    ("run", "message"),
    [
        ({"model": "other"}, r"--path \(or --fp16\) differs"),
        ({"generation": {"beam": 5}}, r"the decoding options differs \(generation {'beam': 5}, not {'beam': 4}\)"),
        ({"seed": 2}, "--seed differs"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_another_run(tmp_path, run, message):
    with pytest.raises(UserError, match=message):
        merged(tmp_path, [write(tmp_path, 0, 2), write(tmp_path, 1, 2, **run)])


def test_another_number_of_shards(tmp_path):
    with pytest.raises(UserError, match="is one of 3 shards, .* one of 2"):
        merged(tmp_path, [write(tmp_path, 0, 2), write(tmp_path, 1, 3)])


@pytest.mark.parametrize("content", ["{", "[]", '{"shard": 3}', None], ids=["cut", "list", "other", "unsharded"])
def test_what_is_no_shards_report(tmp_path, content):
    path = write(tmp_path)
    if content is not None:
        Path(path).write_text(content)
    with pytest.raises(UserError, match="is no --switch-report of fairseq-generate with --num-shards"):
        merged(tmp_path, [path])


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match="nowhere cannot be read: No such file"):
        merged(tmp_path, [str(tmp_path / "nowhere")])


def test_inputs_left_out_as_too_long_have_no_ids():
    """Their ids cannot be told from those of a missing shard, so only the count is given."""
    report = {"run": {"inputs": 3}, "shard": {"of": 2}}
    assert merge.missing_inputs({7: "a", 9: "a"}, copy.deepcopy(report)) == "1 of 3 inputs"
