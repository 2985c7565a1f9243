"""The GLUE examples: their fairseq commands parse, and the comparison's figures are read and shown rightly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from fairseq import options
from support import REPO

from examples.glue import from_scratch, train
from examples.glue.from_scratch import OURS, PLAIN, Settings
from fairseq_switchdec.cost import Geometry, Lengths, expected_random_cost
from fairseq_switchdec.errors import UserError


def finetuning(*words: str) -> Any:
    """The options of fairseq-train that examples.glue.train gives."""
    given = train.command(*train.parse_args([*words, "--bart", "b.pt", "--save-dir", "out"]))
    return options.parse_args_and_arch(options.get_training_parser(), given)


#: Table 15: classes, learning rate, inputs of an update, updates, warm-up.
TABLE_15 = {"MNLI": (3, 5e-6, 128, 30968, 1858), "RTE": (2, 1e-5, 32, 1018, 61), "SST-2": (2, 5e-6, 128, 5233, 314)}


@pytest.mark.parametrize("gpus", [1, 8])
@pytest.mark.parametrize("task", TABLE_15)
def test_finetuning_has_the_papers_settings(task: str, gpus: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPO)
    given = [task, "bin", "--gpus", str(gpus), "--batch-size", "4", "--seed", "5"]
    args, plain = finetuning(*given), finetuning(*given, "--plain")
    for found in (args, plain):
        batch = found.batch_size * found.update_freq[0] * gpus
        schedule = (found.max_update, found.warmup_updates)
        assert (found.num_classes, found.lr[0], batch, *schedule) == TABLE_15[task]
        assert int(found.total_num_update) == found.max_update and found.seed == 5
        assert (found.dropout, found.attention_dropout, found.distributed_world_size) == (0.1, 0.1, gpus)
    assert (args.arch, plain.arch) == ("switchable_bart", "bart_large")
    assert args.policy_decisions == "learned" and plain.add_prev_output_tokens


def test_gpus_that_cannot_share_an_update_are_refused() -> None:
    with pytest.raises(UserError, match="--batch-size 16 on --gpus 8 cannot make updates of 32 inputs"):
        finetuning("RTE", "bin", "--gpus", "8")


@pytest.mark.parametrize("task", [PLAIN, OURS])
def test_training_parses(task: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPO)
    ours = task is OURS
    model = ["--arch", "switchable_bart_base" if ours else "bart_base"]
    model += ["--criterion", "lexico_policy_criterion" if ours else "sentence_prediction"]
    words = ["bin", *task, *model, *from_scratch.training(Settings(), "MNLI", Path("out"), 1e-3, 70)]
    parsed = options.parse_args_and_arch(options.get_training_parser(), words)
    assert (parsed.num_classes, parsed.max_update, parsed.warmup_updates) == (3, 70, 7)
    assert parsed.encoder_embed_dim == parsed.decoder_embed_dim == 64


def test_validation_parses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPO)
    command = from_scratch.validate(Path("bin"), Path("model.pt"), OURS, "--switch-decisions", "keep-all")
    assert command[1:4] == ["-m", "fairseq_switchdec", "validate"]
    parsed = options.parse_args_and_arch(options.get_validation_parser(), command[4:])
    assert (parsed.path, parsed.valid_subset, parsed.switch_decisions) == ("model.pt", "valid", "keep-all")


def test_figures_and_table(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text('x | INFO | valid | {"valid_accuracy": "75.5", "valid_cost": "0.5", "valid_loss": "0.7"}\n')
    found = from_scratch.figures(log)
    assert found == {"accuracy": 75.5, "cost": 0.5, "loss": 0.7}
    shown = from_scratch.table({"plain": {"accuracy": 80.0}, "learned": found}, {"start": 12.4})
    assert "| plain | 80.00 | 100.0 % | 0.0 % | 0.0 % | 0.0 % |" in shown
    assert "| learned | 75.50 | 50.0 % |" in shown and "start 12." in shown


def test_random_decisions_cost_as_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The keep probability inverts the expected cost of a classifier's inputs."""
    from types import SimpleNamespace

    import numpy as np
    from fairseq.data import data_utils

    (tmp_path / "input0").mkdir()
    sizes = np.array([5, 9, 30])  # with </s>
    monkeypatch.setattr(data_utils, "load_indexed_dataset", lambda *_: SimpleNamespace(sizes=sizes))
    s, head = Settings(), 64 * 66
    keep = from_scratch.random_keep(tmp_path, s, head, 0.6)
    content = torch.from_numpy(sizes).long() - 1
    lengths = Lengths(content + 2, content, content + 2, incremental=False)
    geometry = Geometry(s.layers, s.layers, s.dim, s.dim, s.ffn_dim, s.ffn_dim, 0, head)
    assert expected_random_cost(geometry, lengths, keep) == pytest.approx(0.6, abs=1e-3)
    assert from_scratch.random_keep(tmp_path, s, head, 0.01) == 0  # what always runs costs more
