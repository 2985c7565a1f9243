"""Classification and question answering, as exact as the main task: resumed, killed, accumulated, spread over processes
or batched with other inputs, they train and score the same (test_training.py and test_layouts.py have the main task).
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import kill_and_resume
import pytest
import torch
from fairseq import checkpoint_utils
from layouts import LAYOUTS, TOLERANCE, UNLIKE, backend_flags, difference, make_start, outcome, run, train_command
from task_data import count_inputs, make_data
from test_layouts import SLOW, by_hand
from torch.testing import assert_close

from fairseq_switchdec.criterions.span import span_scores

#: Reviews or paragraphs.
SIZES = {
    "switchable_sentence_prediction": {"train": 41, "valid": 15},
    "switchable_squad": {"train": 6, "valid": 5},
}
HEAD = "sentence_classification_head"


@pytest.fixture(scope="module", params=SIZES)
def small(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A task with its data and a model to start from; ``train`` makes the words of fairseq-train."""
    task = request.param
    folder = tmp_path_factory.mktemp(task)
    data = make_data(task, folder, SIZES[task])
    start = make_start(data, folder / "start", task)

    def train(name: Path, processes: int, update_freq: int, *flags: Any) -> list[str]:
        words = ["--finetune-from-model", start, "--policy-statistics-inputs", 12, *flags]
        return train_command(data, name, processes, update_freq, *words, task=task)

    words = train(folder, 1, 1)
    return SimpleNamespace(
        task=task, data=data, start=start, train=train, inputs=count_inputs(words[words.index("train") + 1 :])
    )


def logged(log: str) -> dict[int, dict[str, float]]:
    """What fairseq logged of each update, time and speed aside."""
    marker = "| train_inner | "
    lines = [json.loads(line.split(marker)[1]) for line in log.splitlines() if marker in line]
    unlike = {*UNLIKE, "num_updates"} - {"bsz"}
    return {
        int(line["num_updates"]): {name: float(value) for name, value in line.items() if name not in unlike}
        for line in lines
    }


#: 12 updates, written after 5, in the middle of an epoch.
INTERRUPTED = [
    *kill_and_resume.FLAGS, "--policy-total-updates", 12, "--max-update", 12, "--save-interval-updates", 5,
    "--keep-interval-updates", 9,
]  # fmt: skip


def test_resumed_it_ends_alike(small: SimpleNamespace, tmp_path: Path) -> None:
    """Bit for bit, from the checkpoint of update 5 as from the start."""
    whole = logged(run(small.train(tmp_path / "whole", 1, 2, *INTERRUPTED)))
    (written,) = (tmp_path / "whole").glob("checkpoint_*_5.pt")
    (tmp_path / "parts").mkdir()
    shutil.copy(written, tmp_path / "parts" / "checkpoint_last.pt")
    parts = logged(run(small.train(tmp_path / "parts", 1, 2, *INTERRUPTED)))
    assert kill_and_resume.unequal(tmp_path / "whole", tmp_path / "parts") == []
    assert parts == {update: whole[update] for update in range(6, 13)}
    assert {"policy_weight_quality", "policy_violation", "cost", "greedy_nll_loss"} <= parts[12].keys()
    state = outcome(tmp_path / "whole")
    assert state["learner_state.adam_step"] > 5 and state["learner_state.exp_avg_sq"].sum() > 0


@by_hand
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds processes in /proc")
def test_killed_it_ends_alike(small: SimpleNamespace, tmp_path: Path) -> None:
    moment = time.perf_counter()
    run(small.train(tmp_path / "whole", 1, 2, *INTERRUPTED))
    moment = 0.75 * (time.perf_counter() - moment)
    kill_and_resume.trial(small.train(tmp_path / "killed", 1, 2, *INTERRUPTED), tmp_path / "killed", [moment])
    assert kill_and_resume.unequal(tmp_path / "whole", tmp_path / "killed") == []


def test_accumulated_or_spread_it_equals_one_batch(small: SimpleNamespace, tmp_path: Path) -> None:
    """All data in one batch; as three batches accumulated; over processes, of which one has no batch at the end."""
    third = -(-small.inputs // 3)
    spread = LAYOUTS[1:] if SLOW else LAYOUTS[1:2] if small.task == "switchable_squad" else ()
    whole, *others = [(1, 1, 3 * third), *((*layout, third) for layout in (LAYOUTS[0], *spread))]

    def train(processes: int, update_freq: int, size: int) -> dict[str, torch.Tensor]:
        folder = tmp_path / f"{processes}x{update_freq}"
        # An element whose gradients are but rounding takes a whole step of Adam either way: eps is above rounding.
        flags = ("--batch-size", size, "--max-update", 4, "--disable-validation", "--adam-eps", 1e-6)
        lines = logged(run(small.train(folder, processes, update_freq, *flags, *backend_flags("legacy_ddp"))))
        assert [line["bsz"] for line in lines.values()] == [small.inputs] * 4
        assert lines[4]["policy_gradient_cost"] > 0
        return outcome(folder)

    expected = train(*whole)
    for other in others:
        differences = difference(expected, train(*other))
        assert {name: value for name, value in differences.items() if not value <= TOLERANCE} == {}
        assert len(differences) > 200


def test_a_batch_of_mixed_decisions_equals_one_by_one(small: SimpleNamespace) -> None:
    """The head's scores of padded inputs, each on a path of its own."""
    overrides = {"data": str(small.data)}
    (model,), _, task = checkpoint_utils.load_model_ensemble_and_task([str(small.start)], arg_overrides=overrides)
    task.load_dataset("train")
    dataset = task.dataset("train")
    sample = dataset.collater([dataset[index] for index in range(14)])
    lengths, space = sample["net_input"]["src_lengths"], model.eval().encoder.space
    assert len(set(lengths.tolist())) > 1
    keep = torch.rand(14, space.num_sublayers, generator=torch.Generator().manual_seed(4)) < 0.6
    decisions = space.decisions(keep | ~space.open_sublayers(), torch.arange(14) % 7)

    def scores(batch: dict[str, Any], path: Any) -> torch.Tensor:
        if small.task == "switchable_squad":
            return span_scores(model, batch, path).scores
        return model(**batch["net_input"], classification_head_name=HEAD, decisions=path)[0]

    with torch.no_grad():
        together = scores(sample, decisions)
        for row, length in enumerate(lengths.tolist()):
            one = dataset.collater([dataset[row]])
            assert one["net_input"]["src_tokens"].size(1) == length
            alone = scores(one, decisions.select([row]))[0]
            assert_close(together[row, :length] if together.dim() == 3 else together[row], alone)
        assert not torch.allclose(together, scores(sample, space.keep_all(14)))
