"""Validation and ``predict`` of whole questions: long contexts in bounded memory, 2.0's rule, given decisions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from squad_support import make_document, write_bpe, write_json
from support import POLICY_FLAGS, architecture, build_switchable, run_command
from torch.testing import assert_close

from fairseq_switchdec.config import LexicoPolicyCriterionConfig, SwitchableSquadConfig
from fairseq_switchdec.criterions.lexico_policy_criterion import LexicoPolicyCriterion
from fairseq_switchdec.predict import command
from fairseq_switchdec.predict.worker import Worker
from fairseq_switchdec.tasks import switchable_squad
from fairseq_switchdec.tasks.switchable_squad import SwitchableSquadTask

WINDOW = ["--squad-window", 48, "--squad-stride", 12, "--squad-question", 20]
LONG = ' The "sea" is the end.' * 24


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two paragraphs of three questions; the second one's context is long."""
    folder = write_bpe(tmp_path_factory.mktemp("squad"))
    write_json(folder / "train.json", make_document(10, seed=2, impossible=True))
    document = make_document(2, seed=4, impossible=True)
    document["data"][1]["paragraphs"][0]["context"] += LONG
    write_json(folder / "valid.json", document)
    return folder


@pytest.fixture(scope="module")
def checkpoint(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    run_command(
        "train", data, "--user-dir", "fairseq_switchdec", "--task", "switchable_squad", *WINDOW,
        *architecture("switchable_bart_base"), "--share-all-embeddings", *POLICY_FLAGS, "--save-dir", folder,
        "--max-source-positions", 64, "--max-target-positions", 64, "--max-update", 2, "--batch-size", 8,
        "--optimizer", "adam", "--lr", 3e-3, "--cpu", "--num-workers", 0, "--no-epoch-checkpoints",
    )  # fmt: skip
    return folder / "checkpoint_last.pt"


def predict(
    monkeypatch: pytest.MonkeyPatch, checkpoint: Path, source: Path, output: Path, *extra: Any
) -> list[dict[str, Any]]:
    """The command in this process; the lines it wrote."""
    words = ["predict", "--task", "switchable_squad", "--path", checkpoint, "--input", source, "--output", output]
    monkeypatch.setattr("sys.argv", list(map(str, [*words, "--cpu", *extra])))
    command.cli_main()
    return [json.loads(line) for line in output.read_text().splitlines()]


@pytest.mark.parametrize("decisions", ["greedy", "random", "shuffled"])
def test_validation_in_parts_counts_the_same(data: Path, monkeypatch: pytest.MonkeyPatch, decisions: str) -> None:
    """A question on a long context is validated a few windows at once: the same loss, answers and cost."""
    cfg = SwitchableSquadConfig(data=str(data), squad_window=48, squad_stride=12, squad_question=20)
    cfg.switch_decisions = decisions
    task = SwitchableSquadTask.setup_task(cfg)
    task.load_dataset("valid")
    dataset = task.dataset("valid")
    sample = dataset.collater([dataset[index] for index in range(6)])
    model = build_switchable(task.dictionary, max_target_positions=64)
    model.register_span_head()
    torch.manual_seed(5)
    for weight in model.parameters():  # outputs that differ between inputs
        torch.nn.init.normal_(weight, std=0.3)
    sizes: list[int] = []
    model.encoder.register_forward_pre_hook(
        lambda module, args, kwargs: sizes.append(len(args[0] if args else kwargs["src_tokens"])), with_kwargs=True
    )
    options = LexicoPolicyCriterionConfig(sentence_avg=False, tpu=False, distributed_world_size=1)
    criterion = LexicoPolicyCriterion(options, task)
    found = []
    for limit in (10_000, 7):
        monkeypatch.setattr(switchable_squad, "VALID_WINDOWS", limit)
        found.append(task.valid_step(sample, model, criterion))
    whole = sample["nsentences"]
    assert whole > 100
    parts = [size for size in sizes if size != whole]
    assert sizes.count(whole) == 2  # the path and keep-all
    if decisions == "shuffled":  # decided for all windows beforehand, once
        ahead = sizes[: -(-whole // 32)]
        assert sum(ahead) == whole and max(ahead) == 32
        parts = parts[len(ahead) :]
    assert max(parts) == 7 and sum(parts) == 2 * whole
    (loss, size, log), (loss_of_parts, size_of_parts, log_of_parts) = found
    assert size == size_of_parts == whole and log.keys() == log_of_parts.keys() and log["_questions"] == 6
    assert_close(loss_of_parts, loss)
    for name, value in log.items():
        assert float(log_of_parts[name]) == pytest.approx(float(value), rel=1e-5), name


def test_long_contexts_are_not_read_ahead_together(
    monkeypatch: pytest.MonkeyPatch, checkpoint: Path, data: Path, tmp_path: Path
) -> None:
    """``--window`` counts windows of contexts: what is held at once is one question more at most; the same answers."""
    held, results = [], Worker.results

    def seen(self: Worker, inputs: list[Any], *rest: Any) -> list[Any]:
        held.append(len(inputs))
        return results(self, inputs, *rest)

    monkeypatch.setattr(Worker, "results", seen)
    found = []
    for window in (1, 8, 1024):
        output = tmp_path / f"{window}.jsonl"
        lines = predict(monkeypatch, checkpoint, data / "valid.json", output, "--window", window)
        found.append([(line["id"], line["text"]) for line in lines])
    alone, few, together = held[:6], held[6:-1], held[-1]  # with --window 1 each question is held by itself
    assert sum(few) == sum(alone) == together > 100
    assert len(few) >= 3 and max(few) < max(alone) + 8
    assert found[0] == found[1] == found[2]


def test_version2_is_found_wherever_the_file_says_it(
    monkeypatch: pytest.MonkeyPatch, checkpoint: Path, tmp_path: Path
) -> None:
    """Lines whose first rows are answerable, and do not say so."""
    row = {"question": "What is the tree?", "context": "The tree is green."}
    rows: list[dict[str, Any]] = [{"id": f"q{number}", **row} for number in range(4)]
    options = ("--squad-version", "auto", "--squad-null-threshold", -1000)
    for name, last in (("two", {"is_impossible": True}), ("one", {})):
        lines = [json.dumps(one) for one in [*rows[:3], {**rows[3], **last}]]
        source = tmp_path / f"{name}.jsonl"
        source.write_bytes(("\ufeff" + "\r\n".join(lines)).encode())
        made = predict(monkeypatch, checkpoint, source, tmp_path / f"{name}.out", *options)
        assert [line["id"] for line in made] == ["q0", "q1", "q2", "q3"]
        assert all((line["text"] == "") == (name == "two") for line in made)


def test_decisions_that_are_given(
    monkeypatch: pytest.MonkeyPatch, checkpoint: Path, data: Path, tmp_path: Path
) -> None:
    """keep-all; random ones by the seed; a file's entries, one window of a context after the other."""

    def run(decisions: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        report = tmp_path / "report.json"
        output = tmp_path / f"{len(list(tmp_path.iterdir()))}.jsonl"
        words = ("--switch-decisions", decisions, "--switch-random-keep", 0.5, "--switch-report", report)
        lines = predict(monkeypatch, checkpoint, data / "valid.json", output, *words)
        return lines, json.loads(report.read_text())["per_input"]

    assert {entry["cost"] for entry in run("keep-all")[1]} == {1.0}
    (lines, drawn), (again, _) = run("random"), run("random")
    assert lines == again and len({entry["cost"] for entry in drawn}) > 5
    file = tmp_path / "decisions.json"
    file.write_text(json.dumps(drawn))
    forced, ran = run(file)
    assert ran == drawn
    assert [line["text"] for line in forced] == [line["text"] for line in lines]
    file.write_text(json.dumps([{"encoder": ["11"], "decoder": ["111"]}]))
    with pytest.raises(SystemExit, match="--switch-decisions .*decisions.json: "):
        run(file)
