"""``fairseq-generate --num-shards`` over several processes: together what one process does, a lost one redone alone."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from support import DATA_FLAGS, SWITCHABLE_FLAGS, run_command

from fairseq_switchdec.scoring.outputs import read_outputs

SHARDS = 3


def generate(corpus: Path, checkpoint: Path, folder: Path, *extra: Any, check: bool = True) -> str:
    """5 batches of 4 inputs, results to the folder."""
    return run_command(
        "generate", corpus, *DATA_FLAGS, *SWITCHABLE_FLAGS, "--path", checkpoint, "--gen-subset", "test", "--cpu",
        "--beam", 2, "--min-len", 8, "--max-len-b", 8, "--no-repeat-ngram-size", 1, "--batch-size", 4,
        "--num-workers", 0, "--scoring", "rouge", "--results-path", folder, *extra, check=check,
    ).stdout  # fmt: skip


@pytest.fixture(scope="module")
def runs(corpus, switchable_run, tmp_path_factory):
    """A run of one process and one of three, under permuted decisions, which depend on the whole data set."""
    folder = tmp_path_factory.mktemp("shards")
    flags = ("--switch-report", folder / "report.json", "--switch-decisions", "shuffled")
    for shard in range(SHARDS):
        own = ("--num-shards", SHARDS, "--shard-id", shard)
        generate(corpus, switchable_run.checkpoint, folder / f"shard{shard}", *flags, *own)
    generate(corpus, switchable_run.checkpoint, folder / "whole", *flags)
    return folder


def test_reports_merge_into_that_of_one_process(runs):
    whole = json.loads((runs / "report.json").read_text())
    parts = [runs / f"report.shard-{shard}-of-{SHARDS}.json" for shard in range(SHARDS)]
    assert [json.loads(part.read_text())["inputs"] for part in parts] == [8, 8, 4]
    output = run_command("report", "merge", runs / "merged.json", *parts).stdout
    assert "Switchable decisions: 20 inputs at" in output
    merged = json.loads((runs / "merged.json").read_text())
    assert merged.pop("seconds") > 0 and whole.pop("seconds") > 0
    assert merged == whole
    assert len({json.dumps(entry["ffn_keep"]) for entry in whole["per_input"]} | {"", str(whole["cost"])}) > 2


def test_texts_of_all_shards_are_those_of_one_process(runs):
    whole = read_outputs([runs / "whole" / "generate-test.txt"])
    assert read_outputs([runs / f"shard{shard}" / "generate-test.txt" for shard in range(SHARDS)]) == whole
    assert sorted(whole.hypotheses) == list(range(20)) and len(set(whole.hypotheses.values())) > 5


def test_a_lost_shard_is_asked_for(runs):
    parts = [runs / f"report.shard-{shard}-of-{SHARDS}.json" for shard in (0, 2)]
    result = run_command("report", "merge", runs / "none.json", *parts, check=False)
    assert result.returncode == 1 and not (runs / "none.json").exists()
    assert re.search(r"of 3 shards 1 is missing, 8 of 20 inputs \(ids .*\): run .*--shard-id 1 again", result.stdout)


@pytest.mark.parametrize(
    ("shards", "shard", "message"),
    [(3, 3, r"--shard-id 3 must be in \[0, 3\), with --num-shards 3"), (9, 0, "is 5 batches: give fewer shards")],
    ids=["id", "batches"],
)
def test_mistakes(corpus, switchable_run, tmp_path, shards, shard, message):
    flags = ("--num-shards", shards, "--shard-id", shard)
    output = generate(corpus, switchable_run.checkpoint, tmp_path, *flags, check=False)
    output += (tmp_path / "generate-test.txt").read_text()
    assert "Traceback" not in output and re.search(message, output), output[-2000:]
