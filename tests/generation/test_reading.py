"""Whether the policy reads its input: what a report says, on made-up losses and by the real command."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from support import generate, run_command

from fairseq_switchdec.cost import Geometry, Lengths
from fairseq_switchdec.decisions import DecisionSpace
from fairseq_switchdec.generation.reading import compare, comparison, comparison_line, path_counts
from fairseq_switchdec.policy import GreedyChoice

SPACE = DecisionSpace(3, 2)


def own_path(index: int):
    """Two inputs of three skip a feed-forward sublayer, the third another."""
    decisions = SPACE.keep_all(1)
    decisions.ffn_keep[0, 1 if index % 3 else 2] = False
    return decisions


class MadeUp:
    """An objective whose loss is 1 on an input's own path, and 3 on another."""

    def loss(self, model, sample, decisions):
        own = [own_path(index) for index in sample["id"].tolist()]
        ran = type(own[0]).cat(own) if isinstance(decisions, GreedyChoice) else decisions
        right = [ran.select([row]).equal(path) for row, path in enumerate(own)]
        return SimpleNamespace(decisions=ran, quality=torch.tensor([1.0 if is_own else 3.0 for is_own in right]))

    def geometry(self, model):
        return Geometry(3, 2, 12, 12, 20, 28, 54)

    def lengths(self, model, sample):
        return Lengths(*torch.full((3, len(sample["id"])), 9))


def made_up(batch_size: int):
    ids = torch.tensor([5, 3, 8, 0, 1, 4, 10, 7, 2])
    model = SimpleNamespace(eval=lambda: None, policy=SimpleNamespace(flops=lambda: 100))
    return compare(model, MadeUp(), [{"id": part} for part in ids.split(batch_size)], 1, lambda ids: GreedyChoice())


def test_losses_of_each_kind():
    found = made_up(4)
    assert sorted(found) == [0, 1, 2, 3, 4, 5, 7, 8, 10]
    assert all(kinds["greedy"]["loss"] == 1 for kinds in found.values())
    # The path of most: right for all but 0 and 3. Shuffled: as the permutation has it, but not right for all.
    assert {index for index, kinds in found.items() if kinds["static"]["loss"] == 3} == {0, 3}
    assert {kinds["shuffled"]["loss"] for kinds in found.values()} == {1.0, 3.0}
    assert all(0 < kinds["static"]["cost"] < kinds["greedy"]["cost"] < 1 for kinds in found.values())  # no policy ran
    assert made_up(2) == found


def test_summary():
    entries = [{"id": index, "compared": kinds} for index, kinds in made_up(9).items()] + [{"id": 99}]
    summary = comparison(entries)
    assert summary["inputs"] == 9
    mean, low, high = summary["static"]["excess"]
    assert mean == pytest.approx(4 / 9) and 0 <= low < mean < high <= 2
    assert summary["static"]["loss"] == pytest.approx(13 / 9) and "excess" not in summary["greedy"]
    assert comparison(entries[::-1]) == summary and comparison([{"id": 3}]) == {}
    counts = path_counts(Counter({"a": 3, "b": 1}))
    assert counts == {"paths": 2, "most_frequent_path": 0.75} and path_counts(Counter())["paths"] == 0
    assert comparison_line(counts) == "2 different paths, the most frequent for 75% of inputs"
    line = comparison_line(counts | {"compared": summary})
    assert re.search(r"loss of 9 targets: 1.000 nats a token, with another input's decisions \+\d", line)


@pytest.fixture(scope="module")
def reader(switchable_run, tmp_path_factory):
    """A checkpoint whose policy decides differently for every input."""
    state = torch.load(switchable_run.checkpoint, map_location="cpu", weights_only=False)
    head = state["model"]["encoder.policy.sublayer_heads.0.weight"]
    generator = torch.Generator().manual_seed(3)
    head.copy_(8 * torch.randn(head.shape, generator=generator))
    state["model"]["encoder.policy.sublayer_heads.0.bias"].zero_()
    path = tmp_path_factory.mktemp("reader") / "checkpoint.pt"
    torch.save(state, path)
    return path


def test_report_of_a_run_and_of_its_shards(corpus, reader, tmp_path):
    flags = ("--switch-compare", 7, "--switch-report", tmp_path / "report.json")
    output = generate(corpus, reader, *flags)
    whole = json.loads((tmp_path / "report.json").read_text())
    assert whole["paths"] > 3 and f"{whole['paths']} different paths" in output
    compared = {entry["id"]: entry["compared"] for entry in whole["per_input"] if "compared" in entry}
    assert len(compared) == 7 == whole["compared"]["inputs"] and {0, 19} < compared.keys()
    assert whole["compared"]["shuffled"]["excess"][0] != 0
    for shard in (0, 1):
        generate(corpus, reader, *flags, "--num-shards", 2, "--shard-id", shard)
    run_command("report", "merge", tmp_path / "merged.json", *sorted(tmp_path.glob("report.shard-*.json")))
    merged = json.loads((tmp_path / "merged.json").read_text())
    del merged["seconds"], whole["seconds"]
    assert merged == whole

    # The loss of a target under the policy's decisions is what fairseq scores it with.
    scored = generate(corpus, reader, "--score-reference")
    scores = {int(index): float(score) for index, score in re.findall(r"^H-(\d+)\t(\S+)\t", scored, flags=re.M)}
    for index, kinds in compared.items():
        assert kinds["greedy"]["loss"] == pytest.approx(-scores[index] * math.log(2), abs=2e-4)


def test_nothing_is_compared_where_nothing_is_chosen_greedily(corpus, reader, tmp_path):
    generate(corpus, reader, "--switch-report", tmp_path / "off.json", "--switch-compare", 0)
    forced = ("--switch-decisions", "random", "--switch-report", tmp_path / "random.json")
    generate(corpus, reader, *forced)
    for name in ("off", "random"):
        report = json.loads((tmp_path / f"{name}.json").read_text())
        assert "compared" not in report and report["paths"] > 3
    output = generate(corpus, reader, "--switch-compare", -1, check=False)
    assert "--switch-compare -1 must be 0 or more" in output and "Traceback" not in output
