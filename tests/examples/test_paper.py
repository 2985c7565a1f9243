"""The paper's tables: the plan, the stages, the students, the report. That the whole runs is for a person to see."""

from __future__ import annotations

import json
import math
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
from generated_files import write_generated
from test_pretrained import Recorded

from examples.common import comparison
from examples.common.files import write_lines, write_text
from examples.common.stages import Stages
from examples.paper import __main__ as paper
from examples.paper import plan, report, run, student
from examples.pretrained import __main__ as pretrained
from fairseq_switchdec.errors import UserError

pytest.importorskip("transformers")
from models.backbones import make_pair


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    for path in comparison.text_files(tmp_path):
        write_lines(path, ["text"])
    return tmp_path


def test_a_table_that_is_none():
    with pytest.raises(UserError, match="table '5' is none of these: 2, 3, 7, 8, 9, 10, 11, all"):
        plan.chosen(["2", "5"])
    with pytest.raises(UserError, match="no table is named"):
        plan.chosen([])
    assert plan.chosen(["8", "2", "8"]) == ["2", "8"] and plan.chosen(["all"]) == list(plan.TABLES)


def test_every_row_can_be_made():
    for table in plan.TABLES.values():
        assert set(table.columns) <= report.COLUMNS.keys()
        for row in table.rows:
            assert row == plan.FIRST_WORDS or plan.SYSTEMS[row].training in plan.TRAININGS
    for system in plan.SYSTEMS.values():
        training = plan.TRAININGS[system.training]
        assert (training.student is not None) == (system.decisions == "student" or training.pruned)
        assert not system.exits or "early_exit_criterion" in training.flags
        assert system.like in plan.SYSTEMS


def test_what_a_system_is_like_comes_before_it():
    found = plan.runs(["8"], 3)
    assert found.index(("ours", 2)) < found.index(("random", 2)) and found.index(("ours", 1)) < found.index(
        ("static", 1)
    )
    assert ("lambda 0.2", 1) in found and ("lambda 0.2", 2) not in found and ("plain", 3) in found
    assert len(found) == len(set(found))


def test_the_list(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["paper", "--list", "--seeds", "1"])
    paper.main()
    shown = capsys.readouterr().out
    assert shown.count("fine-tunings, about") == len(plan.TABLES) and "   2  plain fine-tuning" in shown


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "no table is named"),
        (["2", "--seeds", "0"], "--seeds 0 must be 1 or more"),
        (["2", "--flops-budget", "0"], r"--flops-budget 0.0 must be in \(0, 1\]"),
        (["2", "--rounds", "-1"], "--rounds -1 must be 0 or more"),
        (["3", "--valid-pairs", "10"], "--valid-pairs 10: early exits need 11 to choose a threshold"),
        (["2", "--device", "tpu"], "--device 'tpu' is unknown; choose from auto, cpu, cuda"),
        (["2", "--backbone", "gpt"], "--backbone 'gpt' is unknown; choose from smollm2, bart"),
        (["2", "--checkpoint", "none"], "--checkpoint .*none lacks model.pt: give a folder that import wrote"),
        (["2", "--checkpoint", "none", "--backbone", "bart"], "--checkpoint and --backbone both name a model"),
        (["2", "--escape"], "--escape is about the files of --data"),
        (["2", "--data", "none"], "--data .*none lacks train.source"),
    ],
)
def test_options_are_checked_first(tmp_path, flags, message):
    with pytest.raises(UserError, match=message):
        paper_of([*flags, "--out", str(tmp_path / "out")])


def go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> run.Paper:
    """With stages that only write down what they would run."""
    entry = {"attention_keep": [True], "ffn_keep": [True], "cross_attention_keep": [], "token_strategy": 0}
    monkeypatch.setattr(pretrained, "Stages", Recorded)
    monkeypatch.setattr(run.report, "write", lambda *arguments: None)
    monkeypatch.setattr(run, "keep_for_report", lambda *arguments: 0.75)
    monkeypatch.setattr(run, "commit", lambda: "abc")
    monkeypatch.setattr(run.json, "loads", lambda text: {"per_input": [entry], "cost": 0.9})
    read, imported = run.read_options, str(tmp_path / "out" / "model" / "model.pt")
    options = Namespace(prompt_suffix="9 8", prompt_prefix=None)
    monkeypatch.setattr(run, "read_options", lambda path: options if path == imported else read(path))
    made = paper_of([*words, "--out", str(tmp_path / "out")])
    made.run()
    return made


def paper_of(words: list[str]) -> run.Paper:
    args = paper.parse_args(words)
    return run.Paper(args, paper.read_settings(args, run.Settings))


@pytest.mark.parametrize("tables", [["2"], ["3", "8"], ["all"]])
def test_stages(tmp_path, monkeypatch, capsys, corpus, tables):
    """They are as many as they say, in an order in which each finds what it needs; tables share models."""
    made = go(tmp_path, monkeypatch, *tables, "--data", str(corpus), "--seeds", "2")
    lines = [line for line in capsys.readouterr().out.split("\n") if line.startswith("[")]  # a suffix has newlines
    assert lines[-1].startswith(f"[{len(lines)}/{made.stages.total}]") and len(lines) == made.stages.total
    commands = [line.split(" ") for line in lines]
    trained = [words for words in commands if "train" in words]
    assert len(trained) == len(made.trainings)
    seeds = {words[words.index("--save-dir") + 1]: words[words.index("--seed") + 1] for words in trained}
    assert seeds[str(tmp_path / "out/models/ours-2")] == "2" and len(seeds) == len(trained)
    for words in trained:
        assert not {plan.BUDGET, plan.FILE, plan.TEACHER} & {*words}
        decided = words.count("--policy-decisions") and words[words.index("--policy-decisions") + 1] != "random"
        assert ("--policy-lr" in words) == (not decided)
    if tables != ["2"]:
        assert any(
            words[words.index("--switch-decisions") + 1].endswith("even.json")
            for words in commands
            if "generate" in words
        )
        generated = [words for words in commands if "generate" in words and "early_exit_task" in words]
        assert all(words[words.index("--exit-threshold") + 1].endswith("-1.json") for words in generated) and generated
        assert "--switch-random-keep 0.750" in "\n".join(lines) and "paths/ours-1.json" in "\n".join(lines)


def test_a_student_that_switches(tmp_path, monkeypatch, capsys, corpus):
    """It starts from a smaller model, and what is left of the budget is its own."""
    go(tmp_path, monkeypatch, "3", "--data", str(corpus), "--seeds", "1")
    shown = capsys.readouterr().out
    (words,) = (line.split(" ") for line in shown.split("\n") if "models/student-ours-1" in line and " train " in line)
    assert words[words.index("--policy-flops-budget") + 1] == f"{0.75 / 0.9:.4f}"
    starts = [after for before, after in zip(words, words[1:]) if before == "--finetune-from-model"]
    assert starts[-1] == str(tmp_path / "out/pruned/model/model.pt"), "of a flag given twice, the last counts"
    assert "--prompt-prefix  --prompt-suffix 9 8" in " ".join(words), "an exported folder does not hold them"
    assert f"--prune {tmp_path}/out/students/influence-half.json" in shown and "--cost 0.866 " in shown


def save_model(folder: Path, **options: Any) -> list[str]:
    folder.mkdir()
    for name in ("dict.txt", "tokenizer.json"):
        (folder / name).write_text("")
    torch.save({"args": Namespace(**options), "model": {}}, folder / "model.pt")
    return ["--checkpoint", str(folder)]


BART = {
    f"{side}_{what}": 2 for side in ("encoder", "decoder") for what in ("layers", "embed_dim", "ffn_embed_dim")
} | {"encoder_attention_heads": 2, "decoder_attention_heads": 2}  # fmt: skip


def test_your_own_model(tmp_path, monkeypatch, capsys, corpus):
    """A BART's sizes are given to the trainings; early exits and students are for one stack of layers."""
    sizes = {**BART, "max_source_positions": 1024, "max_target_positions": 1024, "activation_fn": "relu"}
    words = save_model(tmp_path / "bart", arch="bart_large", **sizes)
    made = go(tmp_path, monkeypatch, "3", *words, "--data", str(corpus), "--seeds", "1", "--device", "cpu")
    assert {system for system, _ in made.runs} == {"plain", "plain int8", "ours", "ours int8"}
    shown = capsys.readouterr().out
    lines = [line for line in shown.split("\n") if line.startswith("[")]
    assert len(lines) == made.stages.total and " import " not in shown
    (training,) = (line for line in lines if "models/ours-1" in line and " train " in line)
    assert f"--finetune-from-model {tmp_path}/bart/model.pt" in training
    assert "--arch switchable_bart --share-all-embeddings --encoder-layers 2" in training
    assert all("--max-source-positions 1024" in line for line in lines if " generate " in line or " validate " in line)
    assert "--max-source-positions 128" not in shown and "--activation-fn relu" in training
    assert " --cpu" in training
    words = save_model(tmp_path / "gpt2", arch="switchable_gpt2_medium", _name="switchable_gpt2")
    made = paper_of(["3", *words, "--data", str(corpus), "--out", str(tmp_path / "other")])
    assert made.architecture == ["--arch", "switchable_gpt2_medium"] and ("FREE", 1) in made.runs
    words = save_model(tmp_path / "scaled", arch="bart_large", no_scale_embedding=False, **sizes)
    with pytest.raises(UserError, match="a BART that scales its embeddings cannot be tuned here"):
        paper_of(["3", *words, "--data", str(corpus), "--out", str(tmp_path / "third")])
    words = save_model(tmp_path / "other-model", arch="transformer")
    with pytest.raises(UserError, match="holds a model transformer: give a folder that import wrote"):
        paper_of(["3", *words, "--data", str(corpus), "--out", str(tmp_path / "third")])


def test_a_bart_from_scratch(tmp_path, monkeypatch, capsys, corpus):
    """It is trained first, from no checkpoint, and what follows starts from it."""
    words = ("--data", str(corpus), "--seeds", "1", "--backbone", "bart", "--scratch-updates", "300", "--rounds", "0")
    made = go(tmp_path, monkeypatch, "2", *words)
    lines = [line for line in capsys.readouterr().out.split("\n") if line.startswith("[")]
    assert len(lines) == made.stages.total
    scratch, *tuned = (line for line in lines if " train " in line)
    assert "--finetune-from-model" not in scratch and "--max-update 300" in scratch and "--train 2400" in "".join(lines)
    assert len(tuned) == 2
    for line in tuned:
        assert line.split(" --finetune-from-model ")[-1].startswith(f"{tmp_path}/out/models/scratch/")
        assert "--arch switchable_bart_base" in line and "--max-update 100" in line


def test_a_gpu_that_is_not_there(tmp_path, corpus):
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(UserError, match="--device cuda: torch sees no GPU"):
        paper_of(["2", "--data", str(corpus), "--device", "cuda", "--out", str(tmp_path / "out")])


def test_on_a_gpu_no_row_is_int8(tmp_path, monkeypatch, corpus):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    made = paper_of(["3", "--data", str(corpus), "--out", str(tmp_path / "out")])
    assert not [system for system, _ in made.runs if "int8" in system] and made.device == []


def test_results_of_two_commits_are_not_mixed(tmp_path, monkeypatch, corpus):
    go(tmp_path, monkeypatch, "2", "--data", str(corpus), "--seeds", "1")
    monkeypatch.setattr(run, "commit", lambda: "def")
    words = ["2", "--data", str(corpus), "--seeds", "1", "--out", str(tmp_path / "out")]
    with pytest.raises(UserError, match="holds results of commit abc, this is def: --fresh starts over, --mix goes on"):
        paper_of(words).check_commit()
    paper_of([*words, "--mix"]).check_commit()
    with pytest.raises(UserError, match="holds results of commit abc, this is def"):
        paper_of(words).check_commit()


def test_the_most_frequent_path():
    def entry(strategy: int) -> dict[str, Any]:
        keep = {"attention_keep": [True], "ffn_keep": [False], "cross_attention_keep": []}
        return {"id": strategy, "cost": 0.5, **keep, "token_strategy": strategy}

    found = run.most_frequent([entry(0), entry(3), entry(5), entry(3)])
    assert found["token_strategy"] == 3 and found.keys() == {*run.PATH}


# --- students ---


def samples(model: Any, *lengths: int) -> list[dict[str, Any]]:
    """Batches of one input and its target."""
    generator, eos = torch.Generator().manual_seed(1), model.encoder.dictionary.eos()
    batches = []
    for length in lengths:
        tokens = torch.randint(10, 50, (1, length), generator=generator)
        net_input = {
            "src_tokens": torch.cat([tokens, tokens.new_tensor([[eos]])], dim=1),
            "src_lengths": torch.tensor([length + 1]),
            "prev_output_tokens": torch.cat([tokens.new_tensor([[eos]]), tokens[:, :4]], dim=1),
        }
        target = torch.cat([tokens[:, :4], tokens.new_tensor([[eos]])], dim=1)
        batches.append({"id": torch.tensor([0]), "net_input": net_input, "target": target})
    return batches


def test_layers_without_influence_go_first():
    """One whose sublayers add nothing has none; of the others, each is measured on its own input and output."""
    model = make_pair("llama").ours
    for name in ("self_attn.out_proj", "fc2"):
        model.encoder.layers[1].get_submodule(name).weight.data.zero_()
    found = student.influences(model, samples(model, 5, 9))
    assert found.shape == (3,) and found[1].abs() < 1e-12 and found[[0, 2]].min() > 1e-3
    entry = student.choose("influence", model, samples(model, 5, 9), 0.9, beam=2)
    assert entry["attention_keep"] == entry["ffn_keep"] == [True, False, True] and 0 < entry["cost"] <= 0.9
    assert student.choose("even", model, samples(model, 5), 0.9, beam=2)["attention_keep"] == [True, False, True]
    assert sum(student.choose("even", model, samples(model, 5), 0.55, beam=2)["ffn_keep"]) == 1
    with pytest.raises(UserError, match="--cost 0.01: a model of one layer costs more"):
        student.choose("even", model, samples(model, 5), 0.01, beam=2)
    with pytest.raises(UserError, match="models with one stack of layers"):
        student.choose("even", make_pair("t5").ours, [], 0.9, beam=2)


def test_evenly():
    assert student.evenly(30, 20) >= {0, 29} and len(student.evenly(30, 20)) == 20
    assert student.evenly(5, 3) == {0, 2, 4} and student.evenly(4, 1) == {0}


# --- the report ---


def test_report(tmp_path, monkeypatch, corpus):
    stages = Stages(tmp_path / "out")
    settings = run.Settings(seeds=2)
    runs = plan.runs(["3", "8", "9", "10"], 2)
    epochs = [{"train_train_wall": "5", "train_num_updates": "3"}, {"train_train_wall": "3", "train_num_updates": "4"}]
    records = "".join(f"... | INFO | train | {json.dumps(record)}\n" for record in epochs)
    for system, seed in runs:
        name = f"{system}-{seed}".replace(" ", "-")
        right = 6 if system == "plain" else 3 + seed
        write_generated(stages.out, name, [f"red green blue {i}" if i < right else "no" for i in range(6)])
        training = f"{plan.SYSTEMS[system].training}-{seed}".replace(" ", "-")
        log = f"num. shared model params: 1,234 (num. trained: 9)\n{records}"
        stages.log(f"train-{training}").write_text(log)
    for file, found in (
        ("students/influence-half.json", {"cost": 0.8}),
        *((f"thresholds/{name}-1.json", {"threshold": 1, "least_cost": 0.8}) for name in ("CALM-softmax", "FREE")),
        ("thresholds/CALM-state-1.json", {"threshold": 0.95, "least_cost": 0.8, "curve": []}),
        ("speed/seconds.json", {"ours at 1": {"seconds": 1.5, "memory": 900}}),
    ):
        write_text(stages.out / file, json.dumps(found))
    for seed in (1, 2):
        stages.log(f"loss-ours-{seed}").write_text(f'... | INFO | test | {{"test_nll_loss": "{seed}"}}\n')
    report.write(["3", "8", "9", "10"], settings, runs, stages, corpus, ["abc", "def"])
    text = (stages.out / "results.md").read_text()
    rows = {line.split(" | ")[0][2:]: line.split(" | ") for line in text.split("\n") if line.startswith("| ")}
    assert "### Table 3: other ways to compute less" in text and "Commit abc, def;" in text
    assert rows["first words"][1] == "33.33", "of 'article 3', the 3 is in 'red green blue 3'"
    content = json.loads((stages.out / "results.json").read_text())
    systems = content["systems"]
    assert systems["plain"]["rouge"] == [100.0] * 3 and systems["plain"]["seeds"] == 2
    assert systems["ours"]["rouge"][2] == pytest.approx(75.0), "the mean of four and five of six"
    assert systems["eq7"]["seeds"] == 1 and systems["eq7"]["rouge"][2] == pytest.approx(100 * 4 / 6)
    mean, low, high = systems["ours"]["rougeL_minus_plain"]
    assert mean == pytest.approx(-25.0) and low < mean < high <= 0
    assert systems["ours"]["update"] == 2.0 and systems["ours"]["parameters"] == 1234
    assert systems["ours"]["loss"] == pytest.approx(1.5 * math.log(2)) and "loss" not in systems["plain"]
    assert systems["ours"]["seconds at 1"] == 1.5 and "seconds at 8" not in systems["ours"]
    assert systems["student ours"]["cost"] == pytest.approx(0.8 * systems["student even"]["cost"])
    assert (
        content["thresholds"]["CALM-state-1"]["threshold"] == 0.95
        and "CALM-state-1 0.95 (no less than 80% of the FLOPs with any)" in text
    )
    assert "| plain | 1,234 | 2.00 |  | 2 |" in text
    assert "| ours | 1.040 | 50.0% | 0.0% | 50.0% | 0.0% | 2 |" in text
