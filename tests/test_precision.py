"""Mixed precision, clipping and skipped updates leave the policy alone; the GPU's half of it is in test_gpu.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from in_process import Training

#: fairseq flattens fp16's master weights on a GPU only.
FP16 = ("--fp16", "--fp16-no-flatten-grads")
MODES = {
    "fp32": (),
    "fp16": FP16,
    "memory-efficient-fp16": ("--memory-efficient-fp16",),
    "bf16": ("--bf16",),
    "memory-efficient-bf16": ("--memory-efficient-bf16",),
    "amp": ("--amp",),
}
HALF = {"fp16": torch.float16, "memory-efficient-fp16": torch.float16}
HALF |= {"bf16": torch.bfloat16, "memory-efficient-bf16": torch.bfloat16}


def assert_same(first: dict[str, Any], second: dict[str, Any]) -> None:
    """Bit for bit."""
    assert first.keys() == second.keys()
    assert [name for name, value in first.items() if not torch.equal(value, second[name])] == []


@pytest.fixture
def overflow_on_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """fairseq's trainer moves a skipped update's gradient norm to the GPU, whatever it trains on."""
    monkeypatch.setattr(torch.Tensor, "cuda", lambda tensor, *_, **__: tensor)


@pytest.mark.parametrize("mode", MODES)
def test_policy_is_learned_in_float32(corpus: Path, tmp_path: Path, mode: str) -> None:
    training = Training(corpus, tmp_path, *MODES[mode])
    before = training.policy
    for index in range(4):
        assert training.update(2 * index, 2 * index + 1) is not None
    policy = training.policy
    assert {value.dtype for value in policy.values()} == {torch.float32, torch.float64}
    assert all(value.isfinite().all() for value in policy.values())
    assert not torch.equal(policy["encoder.policy.token_head.bias"], before["encoder.policy.token_head.bias"])
    assert policy["learner_state.adam_step"] == 4
    assert training.model.encoder.layers[0].fc1.weight.dtype == HALF.get(mode, torch.float32)
    trained = sum(p.numel() for p in training.model.parameters() if p.requires_grad)
    groups = training.trainer.optimizer.optimizer.param_groups
    assert sum(p.numel() for group in groups for p in group["params"]) == trained, "fairseq's optimizer has w alone"
    assert not any(p.requires_grad for p in training.model.policy.parameters())


def test_amp_is_bfloat16_on_a_processor(corpus: Path, tmp_path: Path) -> None:
    training, dtypes = Training(corpus, tmp_path, "--amp"), set()
    layer = training.model.encoder.layers[0].fc1
    layer.register_forward_hook(lambda module, inputs, output: dtypes.add(output.dtype))
    training.update(0, 1)
    assert dtypes == {torch.bfloat16}
    assert layer.weight.grad is None or layer.weight.grad.dtype == torch.float32
    assert {p.dtype for p in training.model.parameters()} <= {torch.float32, torch.float64}


@pytest.mark.parametrize("mode", ["memory-efficient-fp16", "amp"])
def test_resumed_equals_uninterrupted(corpus: Path, tmp_path: Path, mode: str) -> None:
    """Not so with --fp16: it keeps w twice, and fairseq saves the half precision copy alone."""
    whole = Training(corpus, tmp_path, *MODES[mode])
    whole.update(0, 1)
    whole.save()
    resumed = Training(corpus, tmp_path, *MODES[mode], load=True)
    for training in (whole, resumed):
        training.update(2, 3)
        training.update(4)
    assert_same(whole.state(), resumed.state())


@pytest.mark.parametrize(
    ("mode", "first", "second"),
    [
        ("fp32", ("--clip-norm", 0), ("--clip-norm", 1e-3)),
        ("fp16", ("--clip-norm", 0), ("--clip-norm", 1e-3)),
        ("fp16", ("--fp16-init-scale", 4), ("--fp16-init-scale", 64)),
        ("memory-efficient-fp16", ("--fp16-init-scale", 4), ("--fp16-init-scale", 64)),
    ],
)
def test_neither_clipped_nor_scaled(
    corpus: Path, tmp_path: Path, mode: str, first: tuple[Any, ...], second: tuple[Any, ...]
) -> None:
    policies = []
    for flags in (first, second):
        training = Training(corpus, tmp_path, *MODES[mode], *flags)
        training.update(0, 1)
        policies.append(training.policy)
    assert_same(*policies)
    assert policies[0]["learner_state.exp_avg"].abs().max() > 0


@pytest.mark.parametrize("mode", ["fp16", "memory-efficient-fp16"])
@pytest.mark.usefixtures("overflow_on_processor")
def test_an_update_that_overflows_is_forgotten(corpus: Path, tmp_path: Path, mode: str) -> None:
    training = Training(corpus, tmp_path / "overflow", *MODES[mode], "--fp16-init-scale", 2**24)
    before = training.state()
    assert training.update(0, 1) is None and training.trainer.get_num_updates() == 0
    assert_same(training.state(), before)
    while training.update(2, 3) is None:
        assert_same(training.state(), before)
    undisturbed = Training(corpus, tmp_path / "undisturbed", *MODES[mode], "--fp16-init-scale", 4)
    undisturbed.update(2, 3)
    assert_same(training.policy, undisturbed.policy)
    assert training.policy["learner_state.adam_step"] == 1


@pytest.mark.skipif(not hasattr(torch.amp, "GradScaler"), reason="this torch scales no gradients on a processor")
@pytest.mark.parametrize("retries", [0, 20])
def test_a_step_that_amp_skips_is_skipped(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, retries: int
) -> None:
    """fairseq comes to the end of such an update all the same, once for each time that it tries the batch again."""

    class OnProcessor(torch.amp.GradScaler):
        def __init__(self, init_scale: float):
            super().__init__("cpu", init_scale=float(init_scale))

    monkeypatch.setattr(torch.cuda.amp, "GradScaler", OnProcessor)
    flags = ("--amp", "--amp-batch-retries", retries, "--fp16-init-scale")
    training = Training(corpus, tmp_path / "overflow", *flags, 2**127)
    before = training.state()
    logged = training.update(0, 1)
    undisturbed = Training(corpus, tmp_path / "undisturbed", *flags, 4)
    undisturbed.update(0, 1)
    assert training.trainer.optimizer.scaler.get_scale() < 2**127, "it overflowed"
    if retries:
        assert logged is not None and training.policy["learner_state.adam_step"] == 1
        assert_same(training.policy, undisturbed.policy)
    else:
        assert logged is None
        assert_same(training.state(), before)


def test_recomputed_activations_change_nothing(corpus: Path, tmp_path: Path) -> None:
    kept, recomputed = (Training(corpus, tmp_path, *flags) for flags in ((), ("--checkpoint-activations",)))
    for training in (kept, recomputed):
        training.update(0, 1)
        training.update(2)
    assert recomputed.model.encoder.checkpoint_activations
    assert_same(kept.state(), recomputed.state())
