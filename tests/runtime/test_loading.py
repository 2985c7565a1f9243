"""A model that is loaded to be run takes the checkpoint's tensors, and leaves nothing of the file behind."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import fairseq_cli.generate
import fairseq_cli.interactive
import fairseq_cli.validate
import pytest
import torch
from fairseq import checkpoint_utils
from fairseq.data import Dictionary
from in_process import Training
from support import PRECISIONS, REPO, build_switchable, make_dictionary, model_args

from fairseq_switchdec.compat.checkpoints import to_be_run
from fairseq_switchdec.compat.user_dir import register_tasks_and_models
from fairseq_switchdec.models.bart.model import switchable_bart_base
from fairseq_switchdec.models.bart.plain import read_switchable
from fairseq_switchdec.runtime import loading

register_tasks_and_models()  # a checkpoint names its task

takes = pytest.mark.skipif(not loading.CAN_ASSIGN, reason="torch < 2.1 copies")
maps = pytest.mark.skipif(
    not sys.platform.startswith("linux") or tuple(map(int, torch.__version__.split(".")[:2])) < (2, 6),
    reason="looks at what Linux has mapped; torch < 2.6 maps no checkpoints",
)


@pytest.fixture(params=[2, loading.LARGE], ids=["all", "large"])
def unallocated(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests' models are tiny: let also their tensors count as large."""
    monkeypatch.setattr(loading, "LARGE", request.param)


def load(state: dict[str, Any], path: Path) -> Any:
    (model,), _, _ = checkpoint_utils.load_model_ensemble_and_task([str(path)], state=state)
    return model


def is_mapped(path: Path) -> bool:
    return str(path) in Path("/proc/self/maps").read_text()


@takes
def test_the_tensors_are_the_checkpoints(switchable_run: SimpleNamespace, unallocated: None) -> None:
    path = switchable_run.checkpoint
    state = checkpoint_utils.load_checkpoint_to_cpu(str(path))
    weights = dict(state["model"])
    expected = {name: value.clone() for name, value in weights.items()}
    model = load(state, path)
    found = model.state_dict()
    assert found.keys() == expected.keys()
    for name, value in found.items():
        assert torch.equal(value, expected[name]), name
        assert value.data_ptr() == weights[name].data_ptr(), f"{name} was copied"
    assert model.decoder.output_projection.weight is model.encoder.embed_tokens.weight
    assert not any(parameter.requires_grad for parameter in model.encoder.policy.parameters())
    model.load_state_dict({name: value + 1 for name, value in expected.items()})
    assert all(value.data_ptr() == weights[name].data_ptr() for name, value in model.state_dict().items()), (
        "whoever loads another state copies it"
    )


@takes
def test_a_checkpoint_of_half_the_bits(switchable_run: SimpleNamespace, unallocated: None) -> None:
    state = checkpoint_utils.load_checkpoint_to_cpu(str(switchable_run.checkpoint))
    halved = {name: value.half() if value.dtype == torch.float32 else value for name, value in state["model"].items()}
    state["model"] = dict(halved)
    for name, value in load(state, switchable_run.checkpoint).state_dict().items():
        assert value.dtype != torch.float16 and torch.equal(value, halved[name].to(value.dtype)), name


def test_a_plain_checkpoint_gets_a_policy(stock_checkpoint: Path, corpus: Path, unallocated: None) -> None:
    """It has no tensors for it: these are drawn, though the model's are not."""
    overrides = {"task": "switchable_task", "data": str(corpus)}
    model = load(read_switchable(str(stock_checkpoint), overrides), stock_checkpoint)
    policy = model.encoder.policy.state_dict()
    assert not any(value.is_meta for value in model.state_dict().values())
    assert policy["networks.0.0.weight"].std() > 0 and all(value.isfinite().all() for value in policy.values())
    with torch.no_grad():
        _, extra = model.eval()(torch.tensor([[5, 6, 7, 2]]), None, torch.tensor([[2, 5]]))
    assert extra["decisions"].equal(model.encoder.space.keep_all(1))


def test_a_head_that_the_checkpoint_may_lack_has_numbers(unallocated: None) -> None:
    with loading.unallocated():
        model = build_switchable(make_dictionary())
        model.register_classification_head("kinds", num_classes=300, inner_dim=300)
    weights = {name: value for name, value in model.state_dict().items() if name.startswith("classification_heads.")}
    assert len(weights) == 4 and not any(value.is_meta or not value.isfinite().all() for value in weights.values())
    assert not any(value.is_meta for value in model.encoder.policy.state_dict().values())


@takes
def test_what_has_no_numbers_is_not_run(switchable_run: SimpleNamespace) -> None:
    state = checkpoint_utils.load_checkpoint_to_cpu(str(switchable_run.checkpoint))
    name = "encoder.layers.0.fc1.weight"
    state["model"][name] = state["model"][name].to("meta")
    with pytest.raises(AssertionError, match="encoder.layers.0.fc1.weight"):
        load(state, switchable_run.checkpoint)


def test_training_has_tensors_of_its_own(corpus: Path, switchable_run: SimpleNamespace, tmp_path: Path) -> None:
    """A training's file is written anew while it goes on."""
    flags = ("--finetune-from-model", switchable_run.checkpoint)
    training = Training(corpus, tmp_path, *flags, load=True)
    before = training.trainer.optimizer.params
    held = {parameter.data_ptr() for group in training.trainer.optimizer.param_groups for parameter in group["params"]}
    assert before and {value.data_ptr() for value in before} <= held
    assert not is_mapped(switchable_run.checkpoint) if sys.platform.startswith("linux") else True


@maps
@pytest.mark.parametrize("precision", ["fp32", *PRECISIONS])
def test_a_packed_model_leaves_the_file(switchable_run: SimpleNamespace, precision: str) -> None:
    path = switchable_run.checkpoint
    with to_be_run():
        state = checkpoint_utils.load_checkpoint_to_cpu(str(path))
    model = load(state, path)
    del state
    assert is_mapped(path)
    model.make_generation_fast_()
    model.pack(precision)
    gc.collect()
    assert not is_mapped(path), "whatever is written there now would be the model's weights"


@maps
def test_commands_map_and_python_code_does_not(switchable_run: SimpleNamespace) -> None:
    """A script may write the file that it has loaded a model from."""
    path = switchable_run.checkpoint
    (own,), _ = checkpoint_utils.load_model_ensemble([str(path)])
    assert not is_mapped(path)
    for command in (fairseq_cli.generate, fairseq_cli.interactive):
        (model,), _ = call_from(command, "load_model_ensemble", [str(path)])
        assert is_mapped(path)
        del model
        gc.collect()
        assert not is_mapped(path)
    (model,), _, _ = call_from(fairseq_cli.validate, "load_model_ensemble_and_task", [str(path)])
    assert not is_mapped(path), "which is not packed, and would read the file to the end"
    assert all(torch.equal(value, own.state_dict()[name]) for name, value in model.state_dict().items())


def call_from(command: ModuleType, function: str, *arguments: Any) -> Any:
    """What a command gets from a function of fairseq.checkpoint_utils."""
    return eval(f"checkpoint_utils.{function}(*arguments)", vars(command), {"arguments": arguments})


PROGRAM = """
import sys, threading, time
import torch
from fairseq import checkpoint_utils
from fairseq_switchdec.compat.checkpoints import to_be_run
from fairseq_switchdec.compat.user_dir import register_tasks_and_models

def megabytes():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon")) / 1024

def watch():
    while True:
        seen.append(megabytes())
        time.sleep(0.002)

register_tasks_and_models()
torch.set_num_threads(1)
torch.zeros(1, dtype=torch.int8)
small, path, data = sys.argv[1:]
with to_be_run():
    checkpoint_utils.load_model_ensemble_and_task([small], {"data": data})  # imports what loading needs
    before, seen = megabytes(), []
    threading.Thread(target=watch, daemon=True).start()
    (model,), _, _ = checkpoint_utils.load_model_ensemble_and_task([path], {"data": data})
loaded = megabytes() - before
model.make_generation_fast_()
model.pack("int8")
print(loaded, max(seen) - before)
"""


def save(path: Path, corpus: Path, dim: int) -> Path:
    """A checkpoint of a model with 4 + 4 layers."""
    sizes = {"encoder_embed_dim": dim, "encoder_ffn_embed_dim": 4 * dim, "decoder_ffn_embed_dim": 4 * dim}
    layers = {"encoder_layers": 4, "decoder_layers": 4, "encoder_attention_heads": 8, "decoder_attention_heads": 8}
    args: Namespace = model_args(**sizes, **layers)
    model = build_switchable(Dictionary.load(str(corpus / "dict.source.txt")), **sizes, **layers)
    switchable_bart_base(args)
    args.arch, args.task, args.data = "switchable_bart_base", "switchable_task", str(corpus)
    args.source_lang, args.target_lang = "source", "target"
    history = [{"criterion_name": "", "optimizer_name": "", "lr_scheduler_state": {}, "num_updates": 0}]
    extra = {"train_iterator": {"epoch": 1}, "val_loss": None}
    torch.save({"args": args, "model": model.state_dict(), "optimizer_history": history, "extra_state": extra}, path)
    return path


@maps
def test_loading_in_int8_never_holds_the_float_weights(corpus: Path, tmp_path: Path) -> None:
    """In memory of the process's own, that is: what is mapped the system takes back whenever it needs it."""
    small, path = save(tmp_path / "small.pt", corpus, 64), save(tmp_path / "model.pt", corpus, 512)
    megabytes = path.stat().st_size / 2**20
    assert megabytes > 100
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(small), str(path), str(corpus)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPO)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    loaded, peak = map(float, done.stdout.split()[-2:])
    assert loaded < 0.25 * megabytes  # copied once it would be 1
    assert peak < megabytes  # and 2 beside a model of random weights
