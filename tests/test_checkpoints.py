"""What becomes of the policy in fairseq's other uses of checkpoints: moving average, averaging, fine-tuning, kills."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from fairseq import checkpoint_utils
from fairseq.checkpoint_utils import load_checkpoint_to_cpu, load_model_ensemble
from fairseq.dataclass.configs import CheckpointConfig
from in_process import Training
from torch.testing import assert_close

from fairseq_switchdec.errors import UserError
from fairseq_switchdec.rl.learner import AVERAGES


def average(paths: list[Path], target: Path) -> None:
    """What fairseq's ``scripts/average_checkpoints.py`` writes: the first file with the mean of all models' tensors."""
    states = [load_checkpoint_to_cpu(str(path)) for path in paths]
    for name in states[0]["model"]:
        total = torch.stack([state["model"][name].float() for state in states]).sum(0)
        states[0]["model"][name] = total / len(states)
    torch.save(states[0], target)


def test_an_averaged_checkpoint_runs_and_trains_on(corpus: Path, tmp_path: Path) -> None:
    training = Training(corpus, tmp_path / "training")
    paths = []
    for index in range(2):
        training.update(2 * index, 2 * index + 1)
        paths.append(shutil.copy(training.save(), tmp_path / f"{index}.pt"))
    first, second = (load_checkpoint_to_cpu(str(path))["model"] for path in paths)
    (tmp_path / "averaged").mkdir()
    average([Path(path) for path in paths], tmp_path / "averaged" / "checkpoint_last.pt")

    (model,), _ = load_model_ensemble([str(tmp_path / "averaged" / "checkpoint_last.pt")])
    bias = "encoder.policy.token_head.bias"
    assert_close(model.state_dict()[bias], (first[bias] + second[bias]) / 2)
    sample = training.batches[0]
    with torch.no_grad():
        logits, extra = model.eval()(**sample["net_input"])
    assert logits.isfinite().all() and len(extra["decisions"]) == len(sample["id"])

    resumed = Training(corpus, tmp_path / "averaged", load=True)
    assert float(resumed.policy["learner_state.adam_step"]) == 1.5, "moments and their age are averaged alike"
    assert resumed.update(4, 5) is not None
    assert all(value.isfinite().all() for value in resumed.policy.values())
    assert not torch.equal(resumed.policy[bias], model.state_dict()[bias]), "the policy learns on"


@pytest.mark.parametrize("flags", [(), ("--ema-start-update", 2), ("--ema-fp32", "--memory-efficient-fp16")])
def test_the_moving_average_has_a_policy(corpus: Path, tmp_path: Path, flags: tuple[str, ...]) -> None:
    training = Training(corpus, tmp_path, "--store-ema", "--ema-decay", 0.75, *flags)
    name = "encoder.policy.token_head.bias"
    expected = training.trainer.ema.get_model().state_dict()[name].clone()
    for index in range(3):
        training.update(2 * index, 2 * index + 1)
        decay = 0 if "--ema-start-update" in flags and index + 1 < 2 else 0.75
        expected = decay * expected + (1 - decay) * training.policy[name]
    averaged = training.trainer.ema.get_model().state_dict()
    assert_close(averaged[name], expected)
    assert [key for key, value in averaged.items() if not value.isfinite().all()] == []

    training.save()
    resumed = Training(corpus, tmp_path, "--store-ema", "--ema-decay", 0.75, *flags, load=True)
    for run in (training, resumed):
        run.update(6)
    models = [run.trainer.ema.get_model().state_dict() for run in (training, resumed)]
    assert [key for key in models[0] if not torch.equal(models[0][key], models[1][key])] == []


@pytest.mark.parametrize("flags", [(), ("--ema-fp32",)])
def test_the_moving_average_begins_at_a_checkpoint_without_one(
    corpus: Path, stock_checkpoint: Path, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    """fairseq's own way from a plain BART ends in "KeyError: 'model'"."""
    flags = ("--store-ema", "--ema-decay", "0.75", *flags)
    run = Training(corpus, tmp_path, "--finetune-from-model", stock_checkpoint, *flags, load=True)
    begun = run.state()
    average = run.trainer.ema.get_model()
    assert [key for key, value in average.state_dict().items() if not torch.equal(value, begun[key])] == []
    run.update(0)
    name = "decoder.layers.1.fc1.weight"
    assert_close(average.state_dict()[name], 0.75 * begun[name] + 0.25 * run.state()[name])
    run.save()
    resumed = Training(corpus, tmp_path, "--finetune-from-model", stock_checkpoint, *flags, load=True)
    assert torch.equal(resumed.trainer.ema.get_model().state_dict()[name], average.state_dict()[name])


def test_fine_tuning_starts_from_the_policy_and_resumes_itself(corpus: Path, tmp_path: Path) -> None:
    trained = Training(corpus, tmp_path / "trained", "--policy-statistics-inputs", 12)
    for index in range(3):
        trained.update(index)
    flags = ("--finetune-from-model", trained.save())
    tuning = Training(corpus, tmp_path / "tuned", *flags, load=True)
    bias, mean = "encoder.policy.token_head.bias", "encoder.policy.feature_mean"
    assert tuning.trainer.get_num_updates() == 0
    assert torch.equal(tuning.policy[bias], trained.policy[bias])
    tuning.update(0)
    assert tuning.policy["learner_state.adam_step"] == 1, "another training's moments are forgotten"
    assert torch.equal(tuning.policy[mean], trained.policy[mean]), "what the policy reads stays standardized alike"
    tuning.save()
    resumed = Training(corpus, tmp_path / "tuned", *flags, load=True)
    assert resumed.trainer.get_num_updates() == 1
    for run in (tuning, resumed):
        run.update(1)
    assert [name for name, value in tuning.state().items() if not torch.equal(value, resumed.state()[name])] == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, r"--finetune-from-model nothing\.pt does not exist$"),
        ({"reset_optimizer": True}, r"--finetune-from-model can not be set together with .*reset_dataloader$"),
    ],
)
def test_a_wrong_start_is_said_without_a_traceback(tmp_path: Path, changes: dict[str, bool], message: str) -> None:
    cfg = CheckpointConfig(save_dir=str(tmp_path), finetune_from_model="nothing.pt", **changes)
    trainer = SimpleNamespace(checkpoint_suffix="", data_parallel_rank=0, should_save_checkpoint_on_current_rank=True)
    with pytest.raises(UserError, match=message):
        checkpoint_utils.load_checkpoint(cfg, trainer)


def test_a_copy_of_a_checkpoint_is_whole_or_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill in the middle of fairseq's copy to ``checkpoint_last.pt`` leaves the last one as it was."""
    source, last = tmp_path / "checkpoint1.pt", tmp_path / "checkpoint_last.pt"
    source.write_bytes(b"new" * 1000)
    last.write_bytes(b"old")

    def killed(source: str, target: str) -> None:
        Path(target).write_bytes(b"ne")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", killed)
        with pytest.raises(KeyboardInterrupt):
            checkpoint_utils.PathManager.copy(str(source), str(last), overwrite=True)
    assert last.read_bytes() == b"old"
    assert checkpoint_utils.PathManager.copy(str(source), str(last), overwrite=True)
    assert last.read_bytes() == b"new" * 1000 and sorted(tmp_path.iterdir()) == [source, last]


def test_averages_that_an_older_version_kept_are_left_behind(corpus: Path, tmp_path: Path) -> None:
    """It knew other averages, and nothing of single decisions."""
    training = Training(corpus, tmp_path)
    training.update(0, 1)
    state = load_checkpoint_to_cpu(str(training.save()))
    new = [f"learner_state.{name}" for name in (*AVERAGES, "effect_products", "effect_losses")]
    for name in new:
        del state["model"][name]
    state["model"]["learner_state.weights"] = torch.tensor([4.0, 1.0])
    for name in ("gradient_average", "constraint_average", "expected_average", "average_weight"):
        state["model"][f"learner_state.{name}"] = torch.zeros(3)
    torch.save(state, tmp_path / "checkpoint_last.pt")
    resumed = Training(corpus, tmp_path, load=True)
    assert not any(resumed.policy[name].any() for name in new)
    for name, scale in (("exp_avg", 5), ("exp_avg_sq", 25)):  # Adam was given a sum where it is given a mean
        before, after = (each.policy[f"learner_state.{name}"] for each in (training, resumed))
        assert before.any()
        torch.testing.assert_close(after * scale, before)
    assert float(resumed.policy["learner_state.adam_step"]) == float(training.policy["learner_state.adam_step"])
    assert resumed.update(2, 3) is not None
