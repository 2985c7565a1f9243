"""Training through fairseq-train: logs, resuming, accumulation, ablations, refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from support import (
    DATA_FLAGS,
    POLICY_FLAGS,
    SWITCHABLE_FLAGS,
    architecture,
    generate,
    run_command,
    train_flags,
)

RESET = ("--reset-optimizer", "--reset-dataloader", "--reset-meters", "--reset-lr-scheduler")


def train(corpus: Path, folder: Path, updates: int, *extra: Any, check: bool = True, **environment: str) -> str:
    arguments = [*SWITCHABLE_FLAGS, *architecture("switchable_bart_base"), *POLICY_FLAGS]
    return run_command(
        "train", corpus, *arguments, *train_flags(folder, updates, *extra), check=check, **environment
    ).stdout


def records(log: str, kind: str) -> list[dict[str, Any]]:
    """fairseq's JSON log lines of one kind."""
    marker = f"| {kind} | "
    return [json.loads(line.split(marker)[1]) for line in log.splitlines() if marker in line]


def model_state(folder: Path) -> dict[str, torch.Tensor]:
    from fairseq.checkpoint_utils import load_checkpoint_to_cpu

    return load_checkpoint_to_cpu(str(folder / "checkpoint_last.pt"))["model"]


def assert_equal_states(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor], **tolerance: float) -> None:
    assert first.keys() == second.keys()
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, msg=lambda text, name=name: f"{name}: {text}", **tolerance)


def test_log_holds_what_the_issue_of_learning_needs(switchable_run):
    inner = records(switchable_run.log, "train_inner")[-1]
    for name in (
        "loss", "nll_loss", "keep_all_nll_loss", "greedy_nll_loss", "cost", "attention_skipped", "ffn_skipped",
        "tokens_dropped", "policy_weight_quality", "policy_weight_cost", "policy_entropy", "reward", "advantage_std",
    ):  # fmt: skip
        assert float(inner[name]) == float(inner[name]), name
    valid = records(switchable_run.log, "valid")[-1]
    assert 0 < float(valid["valid_cost"]) <= 1
    assert float(valid["valid_loss"]) >= float(valid["valid_nll_loss"]) * 0.9
    assert "valid_keep_all_nll_loss" in valid


def test_policy_moves_apart_from_the_model(switchable_run):
    state = model_state(switchable_run.folder)
    assert float(state["learner_state.feature_count"]) >= 32
    assert float(state["learner_state.adam_step"]) > 10
    assert state["encoder.policy.feature_std"].ne(1).all()
    assert state["encoder.policy.sublayer_heads.0.weight"].abs().sum() > 0


def test_resumed_equals_uninterrupted(corpus, stock_checkpoint, tmp_path):
    """Bit for bit: weights, policy, its optimizer and running averages."""
    start = ("--restore-file", stock_checkpoint, *RESET, "--save-interval-updates", 7)
    schedule = ("--policy-total-updates", 14)
    train(corpus, tmp_path / "whole", 14, *start, *schedule)
    train(corpus, tmp_path / "parts", 7, *start, *schedule)
    train(corpus, tmp_path / "parts", 14, *schedule)
    assert_equal_states(model_state(tmp_path / "whole"), model_state(tmp_path / "parts"), rtol=0, atol=0)


def test_accumulated_equals_one_batch(corpus, stock_checkpoint, tmp_path):
    """Four batches of 6 accumulated are a batch of 24: the rule sees the whole effective batch."""
    common = ("--restore-file", stock_checkpoint, *RESET, "--dropout", 0, "--required-batch-size-multiple", 1)
    common += ("--data-buffer-size", 0, "--policy-statistics-inputs", 24)
    train(corpus, tmp_path / "whole", 5, *common, "--batch-size", 120, "--update-freq", 1)
    train(corpus, tmp_path / "parts", 5, *common, "--batch-size", 30, "--update-freq", 4)
    whole, parts = (
        {k: v for k, v in model_state(tmp_path / name).items() if "k_proj.bias" not in k} for name in ("whole", "parts")
    )
    # A key's bias has no gradient (softmax ignores it): Adam scales what rounding leaves of it to full steps.
    assert_equal_states(whole, parts, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "flags",
    [
        ("--policy-rule", "budget", "--policy-flops-budget", 0.8, "--switch-scope", "encoder"),
        ("--policy-rule", "eq7", "--switch-candidates", "token"),
        ("--policy-rule", "fixed", "--policy-lambda", 1.0, "--switch-per-layer"),
        ("--policy-decisions", "random", "--switch-split-attention"),
        ("--policy-decisions", "keep-all", "--checkpoint-activations"),
        ("--sentence-avg", "--policy-rule", "budget", "--policy-keep-all-share", 0, "--policy-floor", 0),
        ("--policy-rule", "budget", "--switch-per-layer", "--switch-split-attention"),
        ("--policy-rule", "budget", "--policy-flops-budget", "0.6:1", "--policy-estimator", "pooled"),
        ("--memory-efficient-fp16", "--clip-norm", 1.0),
    ],
    ids=lambda flags: " ".join(map(str, flags)),
)
def test_ablations_run(corpus, tmp_path, flags):
    log = train(corpus, tmp_path, 6, *flags)
    final = records(log, "valid")[-1]
    assert 0 < float(final["valid_cost"]) <= 1
    assert float(final["valid_nll_loss"]) < 8
    closed = {"--switch-candidates": "valid_ffn_skipped", "--policy-decisions": "valid_tokens_dropped"}
    for flag, name in closed.items():
        if flag in flags:
            assert float(final[name]) == 0


def test_a_static_student(corpus, tmp_path):
    """Trained and validated on forced decisions, one path or several in turn, and then run on them."""
    path = {"attention_keep": [True, False, True, True, True], "ffn_keep": [True] * 4 + [False], "token_strategy": 3}
    file, report = tmp_path / "student.json", tmp_path / "report.json"
    file.write_text(json.dumps(path))
    rouge = ("--eval-rouge", "--eval-rouge-args", '{"max_len_b": 4}', "--switch-report", tmp_path / "validated.json")
    log = train(corpus, tmp_path / "save", 6, "--policy-decisions", file, *rouge)
    validated = json.loads((tmp_path / "validated.json").read_text())["per_input"]
    assert {name: validated[0][name] for name in path} == path, "ROUGE is of the same path"
    trained, valid = (records(log, name)[-1] for name in ("train", "valid"))
    for name in ("cost", "attention_skipped", "ffn_skipped", "tokens_dropped"):
        assert 0 < float(trained[f"train_{name}"]) < 1 and 0 < float(valid[f"valid_{name}"]) < 1
    assert float(trained["train_attention_skipped"]) == float(trained["train_ffn_skipped"]) == 0.2
    assert "train_keep_all_nll_loss" not in trained, "no input runs another path"
    generate(corpus, tmp_path / "save/checkpoint_last.pt", "--switch-decisions", file, "--switch-report", report)
    assert json.loads(report.read_text())["ffn_skipped"] == pytest.approx(0.2)
    command = ("validate", corpus, "--path", tmp_path / "save/checkpoint_last.pt", *DATA_FLAGS, *SWITCHABLE_FLAGS)
    command += ("--valid-subset", "valid", "--cpu", "--batch-size", 4)
    file.write_text("another file of that name")
    assert "cost 1 " in run_command(*command, "--switch-decisions", "keep-all").stdout
    file.unlink()
    output = run_command(*command).stdout
    assert f"trained with --policy-decisions {file}, which is not here" in output and "cost 1 " in output


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--policy-decisions", "lerned"), "--policy-decisions 'lerned' is neither learned, random, keep-all nor a"),
        (("--switch-candidates", "attention,fnn"), "--switch-candidates: unknown name 'fnn'.*attention, ffn, token"),
        (("--switch-scope", ""), "--switch-scope: nothing chosen"),
        (("--policy-rule", "lexico"), "--policy-rule 'lexico' is unknown; choose from quality, budget, eq7, fixed"),
        (("--policy-flops-budget", 1.2), r"--policy-flops-budget 1.2 must be in \(0, 1\]"),
        (("--encoder-layers", 1), "--encoder-layers 1: .*at least 2"),
        (("--max-source-positions", 8), "longer than --max-source-positions 8.*--truncate-source"),
        (("--encoder-normalize-before",), "--encoder-normalize-before is not supported"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_mistakes_end_with_one_message(corpus, tmp_path, flags, message):
    import re

    result = run_command(
        "train", corpus, *SWITCHABLE_FLAGS, *architecture("switchable_bart_base"), *POLICY_FLAGS,
        *train_flags(tmp_path, 2, *flags), check=False,
    )  # fmt: skip
    assert result.returncode == 1
    assert "Traceback" not in result.stdout
    assert re.search("fairseq_switchdec: .*" + message, result.stdout), result.stdout[-2000:]
    assert not list(tmp_path.glob("*.pt"))


def test_checkpoint_of_another_geometry_is_refused(corpus, stock_checkpoint, tmp_path):
    result = run_command(
        "train", corpus, *SWITCHABLE_FLAGS, *architecture("switchable_bart_base"), *POLICY_FLAGS,
        *train_flags(tmp_path, 2, "--restore-file", stock_checkpoint, "--encoder-ffn-embed-dim", 48), check=False,
    )  # fmt: skip
    assert result.returncode == 1 and "Traceback" not in result.stdout
    assert "geometry differs" in result.stdout and "--encoder-ffn-embed-dim" in result.stdout


def test_a_new_training_forgets_the_last_ones_adam(corpus, switchable_run, tmp_path):
    """But keeps the statistics that belong to the trained policy."""
    train(corpus, tmp_path, 2, "--restore-file", switchable_run.checkpoint, *RESET)
    state = model_state(tmp_path)
    assert float(state["learner_state.adam_step"]) == 2
    assert float(state["learner_state.feature_count"]) >= 32


def test_truncated_sources_are_counted(corpus, tmp_path):
    log = train(corpus, tmp_path, 2, "--max-source-positions", 8, "--truncate-source")
    assert "--truncate-source cuts" in log and "of 120 sources of split 'train' to 8 tokens" in log


def test_criterion_needs_its_task(corpus, tmp_path):
    result = run_command(
        "train", corpus, "--user-dir", "fairseq_switchdec", "--task", "translation",
        *architecture("switchable_bart_base"), *POLICY_FLAGS, *train_flags(tmp_path, 2), check=False,
    )  # fmt: skip
    assert result.returncode == 1 and "needs --task switchable_task" in result.stdout
