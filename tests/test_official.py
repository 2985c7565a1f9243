"""Checkpoints as released: each kind loads, keep-all equals stock fairseq on the same file, and so does the export."""

from __future__ import annotations

import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
from fairseq import checkpoint_utils
from fairseq.data import Dictionary
from fairseq.models.bart import BARTModel
from fairseq.tasks.translation import TranslationConfig, TranslationTask
from official import KINDS, write
from support import DATA_FLAGS, POLICY_FLAGS, REPO, SWITCHABLE_FLAGS, run_command
from test_generation import BEAM, hypotheses

from fairseq_switchdec.config import SwitchableTaskConfig
from fairseq_switchdec.errors import CallError, UserError
from fairseq_switchdec.export import export
from fairseq_switchdec.models import SwitchableBARTModel
from fairseq_switchdec.tasks.switchable_task import SwitchableTask

SOURCES = [[0, 5, 9, 23, 11, 40, 2], [0, 17, 30, 2], [0, 44, 8, 12, 2]]
SMALL_SIZES = ["--encoder-layers", 3, "--decoder-layers", 2, "--encoder-embed-dim", 24, "--encoder-ffn-embed-dim", 96]
HEADS = ["--encoder-attention-heads", 3, "--decoder-attention-heads", 3]


@pytest.fixture(scope="module", params=KINDS)
def release(request, tmp_path_factory) -> tuple[str, Path]:
    """A kind's name and folder: model.pt with projections apart, fused.pt with the same weights in the older form."""
    folder = tmp_path_factory.mktemp(request.param)
    (write(request.param, folder, fused=True)).rename(folder / "fused.pt")
    write(request.param, folder)
    return request.param, folder


def outputs(hub: Any) -> list[Any]:
    """Logits of a batch; the head's where there is one; best hypotheses where the task can generate from the hub."""
    hub.eval()
    source = torch.tensor([[0, 5, 9, 23, 11, 40, 2], [0, 17, 30, 2, 1, 1, 1]])
    previous = torch.tensor([[2, 0, 5, 6], [2, 0, 7, 8]])
    with torch.no_grad():
        found = [hub.model(source, torch.tensor([7, 4]), previous)[0]]
        if "mnli" in hub.model.classification_heads:
            return [*found, hub.predict("mnli", torch.tensor(SOURCES[:1]))]
        beams = hub.generate([torch.tensor(tokens) for tokens in SOURCES], beam=4, max_len_b=10)
        return [*found, *(best["tokens"] for best, *_ in beams)]


def load(model: Any, folder: Path, file: str = "model.pt") -> Any:
    return model.from_pretrained(str(folder), file, bpe=None)


def assert_same(found: list[Any], expected: list[Any]) -> None:
    assert len(found) == len(expected) > 1
    for one, other in zip(found, expected):
        torch.testing.assert_close(one, other, rtol=0, atol=2e-5)


class TestHubInterface:
    def test_keep_all_equals_stock_and_so_does_the_export(self, release):
        _, folder = release
        expected = outputs(load(BARTModel, folder))
        assert expected[0].std() > 0.1
        ours = load(SwitchableBARTModel, folder)
        assert isinstance(ours.model, SwitchableBARTModel)
        assert_same(outputs(ours), expected)

        # What fairseq-train would write of it, and back again to what stock fairseq reads.
        state = torch.load(folder / "model.pt", weights_only=False)
        state["args"].arch = "switchable_bart"
        state["args"].task = {"translation": "switchable_task"}.get(state["args"].task, state["args"].task)
        torch.save({**state, "model": ours.model.state_dict()}, folder / "switchable.pt")
        export(str(folder / "switchable.pt"), str(folder / "exported.pt"))
        exported = torch.load(folder / "exported.pt", weights_only=False)
        released = torch.load(folder / "model.pt", weights_only=False)
        assert exported["model"].keys() == released["model"].keys()
        for key, value in released["model"].items():
            torch.testing.assert_close(exported["model"][key], value, rtol=0, atol=0)
        assert (folder / "exported.pt").stat().st_size < 1.1 * (folder / "model.pt").stat().st_size
        assert not any(word in str(exported["args"]) for word in ("switch", "policy", "/checkpoint"))
        assert_same(outputs(load(BARTModel, folder, "exported.pt")), expected)

    def test_options_can_be_overridden(self, tmp_path):
        write("bart.large.cnn", tmp_path)
        hub = SwitchableBARTModel.from_pretrained(str(tmp_path), bpe=None, switch_decisions="keep-all", dropout=0.3)
        assert hub.task.cfg.switch_decisions == "keep-all" and hub.model.args.dropout == 0.3

    def test_missing_files(self, tmp_path):
        with pytest.raises(CallError, match="no folder nowhere"):
            SwitchableBARTModel.from_pretrained("nowhere")
        with pytest.raises(CallError, match=r"model\.pt: No such file"):
            SwitchableBARTModel.from_pretrained(str(tmp_path))


def test_loaded_as_fairseq_generate_does(release):
    """Fused projections, no ``<mask>`` in the dictionary; a plain BART runs as a switchable one under our task."""
    name, folder = release
    words = next(folder.rglob("dict*.txt"))
    dictionary = Dictionary.load(str(words))
    assert len(dictionary) == KINDS[name].small().words + 4
    found = []
    for task in (
        TranslationTask(TranslationConfig(), dictionary, dictionary),
        SwitchableTask(SwitchableTaskConfig(), dictionary, dictionary),
    ):
        models, _ = checkpoint_utils.load_model_ensemble([str(folder / "fused.pt")], task=task)
        models[0].eval()
        dataset = task.build_dataset_for_inference([torch.tensor(s) for s in SOURCES], [len(s) for s in SOURCES])
        sample = dataset.collater([dataset[index] for index in range(len(SOURCES))])
        beams = task.inference_step(task.build_generator(models, Namespace(beam=4, max_len_b=10)), models, sample)
        found.append([hypothesis["tokens"] for best in beams for hypothesis in best])
    assert isinstance(models[0], SwitchableBARTModel)
    assert_same(found[1], found[0])


def test_commands(tmp_path):
    """From bart.large.mnli in its oldest form: stock's hypotheses before training, after it at rate 0, and exported."""
    release = write("bart.large.mnli", tmp_path / "release", fused=True)
    for split, size in (("train", 8), ("valid", 4), ("test", 6)):
        lines = "".join(f"{i} {3 * i + 1} {i % 5 + 20} 7 {i + 30}\n" for i in range(size))
        for suffix in ("source", "target"):
            (tmp_path / f"{split}.{suffix}").write_text(lines)
    words = tmp_path / "release/input0/dict.txt"
    splits = [word for split in ("train", "valid", "test") for word in (f"--{split}pref", tmp_path / split)]
    languages = ["--source-lang", "source", "--target-lang", "target"]
    data = tmp_path / "bin"
    run_command("preprocess", *languages, *splits, "--srcdict", words, "--tgtdict", words, "--destdir", data)

    train = run_command(
        "train", data, *languages, *SWITCHABLE_FLAGS, *POLICY_FLAGS, "--arch", "switchable_bart", *SMALL_SIZES, *HEADS,
        "--restore-file", release, "--reset-optimizer", "--reset-dataloader", "--reset-meters", "--optimizer", "adam",
        "--lr", 0, "--batch-size", 4, "--max-update", 1, "--save-dir", tmp_path, "--cpu", "--num-workers", 0,
    ).stdout  # fmt: skip
    assert "deleting classification head (mnli)" in train
    assert "has no policy" in train
    run_command("export", tmp_path / "checkpoint_last.pt", tmp_path / "exported.pt")

    def found(output: str) -> dict[int, tuple[Any, str]]:
        return {index: (pytest.approx(score, abs=1e-5), text) for index, (score, text) in hypotheses(output).items()}

    def generate(path: Path, *task: Any) -> dict[int, tuple[Any, str]]:
        return found(run_command("generate", data, *languages, *task, "--path", path, *BEAM).stdout)

    expected = hypotheses(
        run_command("generate", data, *languages, "--task", "translation", "--path", release, *BEAM).stdout
    )
    assert len(expected) == 6 and len({round(score, 2) for score, _ in expected.values()}) > 4
    assert generate(release, *SWITCHABLE_FLAGS, "--switch-report", tmp_path / "report.json") == expected
    assert generate(tmp_path / "checkpoint_last.pt", *SWITCHABLE_FLAGS) == expected
    assert generate(tmp_path / "exported.pt", "--task", "translation") == expected
    interactive = [sys.executable, "-m", "fairseq_switchdec", "interactive", data, *languages, *SWITCHABLE_FLAGS]
    result = subprocess.run(
        [str(word) for word in (*interactive, "--path", release, *BEAM)],
        cwd=REPO, input=(tmp_path / "test.source").read_text(), capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert found(result.stdout) == expected, result.stderr[-3000:]


@pytest.mark.parametrize(
    ("checkpoint", "out", "message"),
    [
        ("missing.pt", "out.pt", r"missing\.pt: No such file"),
        ("model.pt", "model.pt", "exists already"),
        ("model.pt", "no/folder/out.pt", "no folder that can be written to"),
        ("other.pt", "out.pt", "holds a model transformer, not a BART"),
    ],
)
def test_export_refuses(tmp_path, checkpoint, out, message):
    state = torch.load(write("bart.large", tmp_path), weights_only=False)
    state["args"].arch = "transformer"
    torch.save(state, tmp_path / "other.pt")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    with pytest.raises(UserError, match=message):
        export(str(tmp_path / checkpoint), str(tmp_path / out))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


def test_restore_file_that_does_not_exist(corpus, tmp_path):
    """fairseq would log a line and train from random weights."""
    result = run_command(
        "train", corpus, *DATA_FLAGS, *SWITCHABLE_FLAGS, *POLICY_FLAGS, "--arch", "switchable_bart_tiny", "--cpu",
        "--restore-file", tmp_path / "model.pt", "--save-dir", tmp_path, "--batch-size", 4, "--max-update", 1,
        check=False,
    )  # fmt: skip
    assert result.returncode == 1 and "Traceback" not in result.stdout
    assert f"--restore-file {tmp_path / 'model.pt'} does not exist" in result.stdout
