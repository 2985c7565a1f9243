"""Training, validation, export and prediction of a classifier, through the real command lines and files."""

from __future__ import annotations

import json
import math
import os
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import COMMON, TASK
from fairseq.checkpoint_utils import load_checkpoint_to_cpu, load_model_ensemble_and_task
from glue_data import prepared, write_stsb
from support import POLICY_FLAGS, architecture, run_command
from torch.testing import assert_close

from fairseq_switchdec.export import export
from fairseq_switchdec.predict import command
from fairseq_switchdec.predict.classification import ClassificationPredictor
from fairseq_switchdec.predict.journal import Journal
from fairseq_switchdec.predict.predictor import Encoded
from fairseq_switchdec.predict.run import windows
from fairseq_switchdec.predict.worker import batches
from fairseq_switchdec.squad import tokens

KEEP_ALL = ("--switch-decisions", "keep-all")


def records(log: str, kind: str) -> list[dict[str, Any]]:
    marker = f"| {kind} | "
    return [json.loads(line.split(marker)[1]) for line in log.splitlines() if marker in line]


def predict(
    monkeypatch: pytest.MonkeyPatch, classifier: SimpleNamespace, bpe: Path, source: Path, output: Path, *extra: Any
) -> list[dict[str, Any]]:
    """The command in this process; the lines it wrote."""
    words = [
        "predict", "--task", "switchable_sentence_prediction", "--path", classifier.checkpoint, "--input", source,
        "--output", output, "--glue-task", "SST-2", "--gpt2-encoder-json", bpe / "encoder.json", "--gpt2-vocab-bpe",
        bpe / "vocab.bpe", "--batch-size", 4, "--window", 8, "--cpu", *extra,
    ]  # fmt: skip
    monkeypatch.setattr("sys.argv", list(map(str, words)))
    command.cli_main()
    return [json.loads(line) for line in output.read_text().splitlines()]


# --- training ---


def test_training_logs_accuracy_and_cost(classifier):
    inner, valid = records(classifier.log, "train_inner")[-1], records(classifier.log, "valid")[-1]
    for name in ("loss", "nll_loss", "accuracy", "keep_all_accuracy", "cost", "greedy_nll_loss"):
        assert float(inner[name]) == float(inner[name]), name
    assert 0 < float(valid["valid_cost"]) <= 1
    assert 0 <= float(valid["valid_accuracy"]) <= 100
    assert abs(float(valid["valid_accuracy"]) * 24 / 100 - round(float(valid["valid_accuracy"]) * 24 / 100)) < 1e-3


def test_validate_runs_forced_decisions(classifier):
    result = run_command(
        "validate", classifier.binary, *TASK, "--path", classifier.checkpoint, "--batch-size", 8, "--cpu",
        "--valid-subset", "valid", "--switch-decisions", "keep-all", "--log-format", "json", "--num-workers", 0,
    )  # fmt: skip
    found = records(result.stdout, "valid")[-1]
    assert float(found["valid_cost"]) == 1
    assert found["valid_accuracy"] == found["valid_keep_all_accuracy"]


def test_regression_trains_and_predicts_what_validation_counts(monkeypatch, bpe, tmp_path):
    data = write_stsb(tmp_path / "STS-B")
    binary = prepared("STS-B", data, bpe, tmp_path / "bin")
    log = run_command(
        "train", binary, *TASK, *architecture("switchable_bart_base"), *POLICY_FLAGS, *COMMON, "--num-classes", 1,
        "--regression-target", "--save-dir", tmp_path / "model", "--max-update", 3,
    ).stdout  # fmt: skip
    valid = records(log, "valid")[-1]
    assert 0 < float(valid["valid_loss"]) < 20 and "valid_accuracy" not in valid
    assert (binary / "label" / "train.label").read_text().splitlines()[0] in ("0", "0.5")
    model = SimpleNamespace(checkpoint=tmp_path / "model" / "checkpoint_last.pt")
    lines = predict(monkeypatch, model, bpe, data / "dev.tsv", tmp_path / "out.jsonl", "--glue-task", "STS-B")
    squares = [((line["score"] - float(line["gold"])) / 5) ** 2 for line in lines]
    assert len(squares) == 24
    assert sum(squares) / 24 / math.log(2) == pytest.approx(float(valid["valid_loss"]), abs=2e-3)  # fairseq logs bits
    with pytest.raises(SystemExit, match="asks for 0, 1, the model predicts a number: name the task"):
        predict(monkeypatch, model, bpe, data / "dev.tsv", tmp_path / "no.jsonl")


def test_keep_all_equals_stock_after_export(classifier, tmp_path):
    """The exported file runs as fairseq's own BART with fairseq's own criterion's call, and gives the same logits."""
    plain = tmp_path / "plain.pt"
    export(str(classifier.checkpoint), str(plain))
    args = load_checkpoint_to_cpu(str(plain))["args"]
    assert args.task == args.criterion == "sentence_prediction"
    overrides = {"data": str(classifier.binary)}
    (stock,), _, task = load_model_ensemble_and_task([str(plain)], arg_overrides=overrides)
    (ours,), _, _ = load_model_ensemble_and_task([str(classifier.checkpoint)], arg_overrides=overrides)
    assert type(stock).__module__.startswith("fairseq.")
    task.load_dataset("valid")
    dataset = task.dataset("valid")
    sample = dataset.collater([dataset[index] for index in range(9)])
    head = "sentence_classification_head"
    with torch.no_grad():
        expected = stock.eval()(**sample["net_input"], features_only=True, classification_head_name=head)[0]
        keep_all = ours.encoder.space.keep_all(9)
        found = ours.eval()(**sample["net_input"], classification_head_name=head, decisions=keep_all)[0]
    assert_close(found, expected)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--num-classes", 1), "--num-classes 1, but the labels are 0, 1"),
        ((), "--num-classes is missing"),
        (("--num-classes", 2, "--max-positions", 16), "longer than 16 tokens: add --shorten-method truncate"),
    ],
)
def test_mistakes_end_with_one_message(classifier, tmp_path, flags, message):
    result = run_command(
        "train", classifier.binary, *TASK, *architecture("switchable_bart_base"), *POLICY_FLAGS, *COMMON,
        "--save-dir", tmp_path, "--max-update", 2, *flags, check=False,
    )  # fmt: skip
    assert result.returncode == 1 and "Traceback" not in result.stdout
    assert re.search("fairseq_switchdec: .*" + message, result.stdout), result.stdout[-2000:]


# --- prediction ---


def test_predicts_what_validation_counts(monkeypatch, classifier, bpe, tmp_path):
    """The accuracy of the file is that of fairseq-train's last validation, its cost too."""
    lines = predict(
        monkeypatch, classifier, bpe, classifier.data / "dev.tsv", tmp_path / "out.jsonl",
        "--switch-report", tmp_path / "report.json",
    )  # fmt: skip
    valid = records(classifier.log, "valid")[-1]
    assert len(lines) == 24 and [line["index"] for line in lines] == [str(number) for number in range(24)]
    accuracy = 100 * sum(line["label"] == line["gold"] for line in lines) / 24
    assert accuracy == pytest.approx(float(valid["valid_accuracy"]), abs=1e-3)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["inputs"] == 24 and [entry["id"] for entry in report["per_input"]] == list(range(24))
    assert report["cost"] == pytest.approx(float(valid["valid_cost"]), abs=1e-3)
    assert report["tokens_dropped"] == pytest.approx(float(valid["valid_tokens_dropped"]), abs=1e-3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl", "report.json"]


def test_decisions_that_are_given(monkeypatch, classifier, bpe, tmp_path):
    """keep-all, random ones by the seed, a file's entries in turn; an empty file is refused."""
    file = tmp_path / "decisions.json"

    def run(name: str, decisions: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        report = tmp_path / f"{name}.json"
        words = ("--switch-decisions", decisions, "--switch-random-keep", 0.5, "--switch-report", report)
        lines = predict(monkeypatch, classifier, bpe, classifier.data / "dev.tsv", tmp_path / f"{name}.jsonl", *words)
        return lines, json.loads(report.read_text())["per_input"]

    _, kept = run("kept", "keep-all")
    assert {entry["cost"] for entry in kept} == {1.0}
    random, drawn = run("random", "random")
    names = ("attention_keep", "ffn_keep", "token_strategy")
    ran = [[entry[name] for name in names] for entry in drawn]
    assert len(set(map(str, ran))) > 12
    file.write_text(json.dumps(drawn[:3]))
    lines, forced = run("forced", file)
    assert [[entry[name] for name in names] for entry in forced] == ran[:3] * 8
    for mine, other in zip(lines[:3], random):
        assert mine["scores"] == pytest.approx(other["scores"], abs=2e-6)
    file.write_text("[]")
    with pytest.raises(SystemExit, match="--switch-decisions .*decisions.json: the list is empty"):
        run("refused", file)
    assert not list(tmp_path.glob("refused*"))


def test_every_row_has_its_budget(monkeypatch, classifier, bpe, tmp_path):
    """Also after rows that cannot be predicted, and in a run that was validated with another."""
    run_command(
        "train", classifier.binary, *TASK, *architecture("switchable_bart_base"), *POLICY_FLAGS, *COMMON,
        "--num-classes", 2, "--save-dir", tmp_path, "--max-update", 2, "--policy-flops-budget", "0.6:1.0",
        "--policy-rule", "budget", "--switch-budget", 0.75,
    )  # fmt: skip
    dialled = SimpleNamespace(checkpoint=tmp_path / "checkpoint_last.pt")
    source, budgets, report = tmp_path / "rows.tsv", tmp_path / "budgets", tmp_path / "report.json"
    source.write_text("\n".join(["sentence\tlabel", "fine film\t1", "warm\t7", "dull\t0", "lovely\t1"]))
    budgets.write_text("0.6\n0.7\n0.8\n0.9\n")
    words = ("--switch-budget", budgets, "--switch-report", report)
    lines = predict(monkeypatch, dialled, bpe, source, tmp_path / "out.jsonl", *words)
    assert ["error" in line for line in lines] == [False, True, False, False]
    content = json.loads(report.read_text())
    assert [entry["budget"] for entry in content["per_input"]] == [0.6, 0.8, 0.9]
    assert sorted(content["budgets"]) == ["0.6", "0.8", "0.9"]
    budgets.write_text("0.6\n0.7\n")
    with pytest.raises(SystemExit, match="--switch-budget holds 2 budgets, but there are more inputs"):
        predict(monkeypatch, dialled, bpe, source, tmp_path / "short.jsonl", *words)
    with pytest.raises(SystemExit, match="budgets from 0.6 to 1 of the FLOPs: give --switch-budget"):
        predict(monkeypatch, dialled, bpe, source, tmp_path / "none.jsonl")
    predict(monkeypatch, dialled, bpe, source, tmp_path / "kept.jsonl", "--switch-decisions", "keep-all")


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_precision_is_what_runs(monkeypatch, classifier, bpe, tmp_path, precision):
    packed: list[Any] = []
    run = ClassificationPredictor.run

    def watched(self: Any, model: Any, net_input: dict[str, Any]) -> list[Any]:
        packed.append(model.packed)
        return run(self, model, net_input)

    monkeypatch.setattr(ClassificationPredictor, "run", watched)
    words = ("--switch-precision", precision)
    lines = predict(monkeypatch, classifier, bpe, classifier.data / "dev.tsv", tmp_path / "out.jsonl", *words)
    assert set(packed) == {precision} and len(lines) == 24
    with pytest.raises(SystemExit, match="--fp16 is for a GPU"):
        predict(monkeypatch, classifier, bpe, classifier.data / "dev.tsv", tmp_path / "half.jsonl", "--fp16")


def test_a_ruined_model_is_told(monkeypatch, classifier, bpe, tmp_path):
    state = load_checkpoint_to_cpu(str(classifier.checkpoint))
    state["model"]["decoder.layers.0.fc1.bias"].fill_(math.nan)
    torch.save(state, tmp_path / "ruined.pt")
    ruined = SimpleNamespace(checkpoint=tmp_path / "ruined.pt")
    with pytest.raises(SystemExit, match="ruined.pt gives scores that are no numbers"):
        predict(monkeypatch, ruined, bpe, classifier.data / "dev.tsv", tmp_path / "out.jsonl", *KEEP_ALL)


def test_the_bpe_forgets(monkeypatch, classifier, bpe, tmp_path):
    """Memory does not grow with every new word of a stream."""
    sizes, encode = [], ClassificationPredictor.encode

    def seen(self: ClassificationPredictor, row: Any) -> Encoded:
        made = encode(self, row)
        sizes.append(len(self.bpe.bpe.cache))
        return made

    monkeypatch.setattr(ClassificationPredictor, "encode", seen)
    monkeypatch.setattr(tokens, "REMEMBERED", 20)
    source = tmp_path / "rows.tsv"
    source.write_text("sentence\n" + "".join(f"word{number} more{number}\n" for number in range(60)))
    assert len(predict(monkeypatch, classifier, bpe, source, tmp_path / "out.jsonl")) == 60
    assert 20 < max(sizes) < 40 and sizes.count(min(sizes)) > 1


class Killed(BaseException):
    """Stands for a signal."""


@pytest.mark.parametrize("decisions", ["greedy", "random"])
def test_resumed_has_the_same_bytes(monkeypatch, classifier, bpe, tmp_path, decisions):
    source = classifier.data / "train.tsv"
    flags = ("--switch-decisions", decisions)
    predict(
        monkeypatch,
        classifier,
        bpe,
        source,
        tmp_path / "whole.jsonl",
        *flags,
        "--switch-report",
        tmp_path / "whole.json",
    )
    appended, append = [], Journal.append

    def dies(self: Journal, *arguments: Any) -> None:
        if len(appended) in (2, 5):
            appended.append("killed")
            self.files[0].write(b"half a li")
            self.files[0].flush()
            raise Killed
        appended.append("done")
        append(self, *arguments)

    monkeypatch.setattr(Journal, "append", dies)
    output, report = tmp_path / "parts.jsonl", tmp_path / "parts.json"
    for _ in range(2):
        with pytest.raises(Killed):
            predict(monkeypatch, classifier, bpe, source, output, *flags, "--switch-report", report)
        assert not output.exists()
    predict(monkeypatch, classifier, bpe, source, output, *flags, "--switch-report", report)
    assert appended.count("killed") == 2 and appended.count("done") == 8  # 60 rows in windows of 8: none done twice
    assert output.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    whole, parts = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("whole", "parts"))
    assert {**whole, "seconds": 0} == {**parts, "seconds": 0}


def test_a_plain_checkpoint_goes_on_too(monkeypatch, classifier, bpe, tmp_path):
    """Its policy is made anew by every run, and the same."""
    export(str(classifier.checkpoint), str(tmp_path / "plain.pt"))
    plain = SimpleNamespace(checkpoint=tmp_path / "plain.pt")
    append = Journal.append

    def dies(self: Journal, *arguments: Any) -> None:
        append(self, *arguments)
        raise Killed

    flags = ("--data", classifier.binary)
    dev = classifier.data / "dev.tsv"
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(Journal, "append", dies)
        predict(patched, plain, bpe, dev, tmp_path / "out.jsonl", *flags)
    assert len(predict(monkeypatch, plain, bpe, dev, tmp_path / "out.jsonl", *flags)) == 24


def test_a_checkpoint_without_the_head_is_refused(monkeypatch, classifier, bpe, tmp_path):
    state = load_checkpoint_to_cpu(str(classifier.checkpoint))
    for name in [name for name in state["model"] if name.startswith("classification_heads.")]:
        del state["model"][name]
    torch.save(state, tmp_path / "headless.pt")
    headless = SimpleNamespace(checkpoint=tmp_path / "headless.pt")
    with pytest.raises(SystemExit, match="has no classification head 'sentence_classification_head'"):
        predict(monkeypatch, headless, bpe, classifier.data / "dev.tsv", tmp_path / "out.jsonl")


def test_another_run_does_not_go_on(monkeypatch, classifier, bpe, tmp_path):
    def dies(self: Journal, *arguments: Any) -> None:
        append(self, *arguments)
        raise Killed

    append = Journal.append
    monkeypatch.setattr(Journal, "append", dies)
    output = tmp_path / "out.jsonl"
    with pytest.raises(Killed):
        predict(monkeypatch, classifier, bpe, classifier.data / "dev.tsv", output)
    with pytest.raises(SystemExit, match="of another run: decisions was greedy, now keep-all"):
        predict(monkeypatch, classifier, bpe, classifier.data / "dev.tsv", output, "--switch-decisions", "keep-all")


def test_bad_rows_are_told_and_the_rest_predicted(monkeypatch, classifier, bpe, tmp_path, caplog):
    source = tmp_path / "rows.tsv"
    rows = [
        "fine film \t1",
        "warm\t7",
        " \t1",
        "one\ttwo\t1",
        "grim " * 100_000 + "\t0",
        "x" * 50_000 + "\t1",
        "dull\t0",
    ]
    source.write_bytes("\n".join(["sentence\tlabel", *rows]).encode() + b"\n\xff\xfe\t1\nlovely\t1\n")
    output = tmp_path / "out.jsonl"
    lines = predict(monkeypatch, classifier, bpe, source, output)
    assert [line.get("error", "")[:20] for line in lines] == [
        "", "label '7' is none of", "sentence is empty", "3 tab-separated fiel", "100000 words, and th",
        "sentence holds a wor", "", "not UTF-8: invalid s", "",
    ]  # fmt: skip
    assert "rows.tsv, line 3 (row 1): label '7' is none of 0, 1; it is not predicted" in caplog.text
    good = tmp_path / "good.tsv"
    good.write_text("\n".join(["sentence\tlabel", rows[0], rows[-1], "lovely\t1"]))
    alone = predict(monkeypatch, classifier, bpe, good, tmp_path / "good.jsonl")
    kept = [line for line in lines if "error" not in line]
    for mine, other in zip(kept, alone):
        assert mine["label"] == other["label"]
        assert mine["scores"] == pytest.approx(other["scores"], abs=2e-6)
    with pytest.raises(SystemExit, match=r"rows.tsv, line 3 \(row 1\): label '7' .* \(--strict\)"):
        predict(monkeypatch, classifier, bpe, source, tmp_path / "strict.jsonl", "--strict")
    assert not list(tmp_path.glob("strict*"))


def test_half_a_character_costs_its_row_only(monkeypatch, classifier, bpe, tmp_path):
    source = tmp_path / "rows.jsonl"
    source.write_text('{"sentence": "a \\ud800"}\n{"sentence": "fine"}\n{"index": "\\ud800", "sentence": "fine"}\n')
    lines = predict(monkeypatch, classifier, bpe, source, tmp_path / "out.jsonl")
    assert [line.get("error", "")[:21] for line in lines] == ["half a surrogate pair", "", "half a surrogate pair"]


def test_a_file_without_rows_gives_an_output_without_lines(monkeypatch, classifier, bpe, tmp_path):
    source, output = tmp_path / "rows.tsv", tmp_path / "out.jsonl"
    source.write_text("sentence\tlabel\n")
    assert predict(monkeypatch, classifier, bpe, source, output) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl", "rows.tsv"]


def test_a_pipe_is_refused(monkeypatch, classifier, bpe, tmp_path):
    os.mkfifo(tmp_path / "rows.jsonl")
    with pytest.raises(SystemExit, match="is a pipe or a device: name a file"):
        predict(monkeypatch, classifier, bpe, tmp_path / "rows.jsonl", tmp_path / "out.jsonl")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--task", "translation"), "--task 'translation' cannot predict; choose from switchable_sentence_prediction"),
        (("--glue-task", "MNLI"), "asks for contradiction, neutral, entailment, the model predicts 0, 1"),
        (("--glue-task", "SST2"), "--glue-task 'SST2' is unknown"),
        (("--batch-size", 0), "--batch-size 0 must be 1 or more"),
        (("--switch-decisions", "shuffled"), "use fairseq-validate"),
        (("--path", "nowhere.pt"), "--path nowhere.pt does not exist"),
        (("--input", "nowhere.tsv"), "--input nowhere.tsv cannot be read"),
    ],
)
def test_wrong_options_are_named(monkeypatch, classifier, bpe, tmp_path, flags, message):
    with pytest.raises(SystemExit, match=message):
        predict(monkeypatch, classifier, bpe, classifier.data / "dev.tsv", tmp_path / "out.jsonl", *flags)


def test_an_output_that_is_there_is_kept(monkeypatch, classifier, bpe, tmp_path):
    output = tmp_path / "out.jsonl"
    output.write_text("mine")
    with pytest.raises(SystemExit, match="exists already"):
        predict(monkeypatch, classifier, bpe, classifier.data / "dev.tsv", output)
    assert output.read_text() == "mine"


# --- parts ---


def test_windows_and_batches():
    rows: list[tuple[int, Any]] = [
        (place, Encoded([torch.zeros(1)] * count, None)) for place, count in enumerate([1, 1, 1, 9, 1, 1])
    ]
    assert [[row for row, _ in window] for window in windows(iter(rows), 2)] == [[0, 1], [2, 3], [4, 5]]
    assert [len(window) for window in windows(iter([(0, "bad"), *rows[:2], rows[3]]), 3)] == [3, 1]
    assert list(batches([5, 2, 9, 2, 4], 2, None)) == [[1, 3], [4, 0], [2]]
    assert list(batches([5, 2, 9, 2, 4], 9, 8)) == [[1, 3], [4], [0], [2]]
    assert list(batches([], 2, None)) == []
