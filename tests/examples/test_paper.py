"""The paper's tables: the plan, the stages, the students, the report. That the whole runs is for a person to see."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from generated_files import write_generated
from test_pretrained import Recorded

from examples.common import comparison
from examples.common.files import write_lines
from examples.common.stages import Stages
from examples.paper import __main__ as paper
from examples.paper import plan, report, student
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
        assert (plan.TRAININGS[system.training].student is not None) == (system.decisions == "student")
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
        (["2", "--escape"], "--escape is about the files of --data"),
        (["2", "--data", "none"], "--data .*none lacks train.source"),
    ],
)
def test_options_are_checked_first(flags, message):
    with pytest.raises(UserError, match=message):
        paper.parse_args(flags)


def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> paper.Paper:
    """With stages that only write down what they would run."""
    entry = {"attention_keep": [True], "ffn_keep": [True], "cross_attention_keep": [], "token_strategy": 0}
    monkeypatch.setattr(pretrained, "Stages", Recorded)
    monkeypatch.setattr(paper.report, "write", lambda *arguments: None)
    monkeypatch.setattr(paper, "keep_for_report", lambda *arguments: 0.75)
    monkeypatch.setattr(paper, "commit", lambda: "abc")
    monkeypatch.setattr(paper.json, "loads", lambda text: {"per_input": [entry]})
    made = paper.Paper(paper.parse_args([*words, "--out", str(tmp_path / "out")]))
    made.run()
    return made


@pytest.mark.parametrize("tables", [["2"], ["3", "8"], ["all"]])
def test_stages(tmp_path, monkeypatch, capsys, corpus, tables):
    """They are as many as they say, in an order in which each finds what it needs; tables share models."""
    made = run(tmp_path, monkeypatch, *tables, "--data", str(corpus), "--seeds", "2")
    lines = [line for line in capsys.readouterr().out.split("\n") if line.startswith("[")]  # a suffix has newlines
    assert lines[-1].startswith(f"[{len(lines)}/{made.stages.total}]") and len(lines) == made.stages.total
    commands = [line.split(" ") for line in lines]
    trained = [words for words in commands if "train" in words]
    assert len(trained) == len(made.trainings)
    seeds = {words[words.index("--save-dir") + 1]: words[words.index("--seed") + 1] for words in trained}
    assert seeds[str(tmp_path / "out/models/ours-2")] == "2" and len(seeds) == len(trained)
    for words in trained:
        assert "BUDGET" not in words and "FILE" not in words
        assert ("--policy-lr" in words) == ("keep-all" not in words and "student" not in " ".join(words))
    if tables != ["2"]:
        assert any(
            words[words.index("--switch-decisions") + 1].endswith("even.json")
            for words in commands
            if "generate" in words
        )
        assert "--switch-random-keep 0.750" in "\n".join(lines) and "paths/ours-1.json" in "\n".join(lines)


def test_results_of_two_commits_are_not_mixed(tmp_path, monkeypatch, corpus):
    run(tmp_path, monkeypatch, "2", "--data", str(corpus), "--seeds", "1")
    monkeypatch.setattr(paper, "commit", lambda: "def")
    args = paper.parse_args(["2", "--data", str(corpus), "--seeds", "1", "--out", str(tmp_path / "out")])
    with pytest.raises(UserError, match="holds results of commit abc, this is def: --fresh starts over, --mix goes on"):
        paper.Paper(args).check_commit()
    args.mix = True
    paper.Paper(args).check_commit()
    args.mix = False
    with pytest.raises(UserError, match="holds results of commit abc, this is def"):
        paper.Paper(args).check_commit()


def test_the_most_frequent_path():
    def entry(strategy: int) -> dict[str, Any]:
        keep = {"attention_keep": [True], "ffn_keep": [False], "cross_attention_keep": []}
        return {"id": strategy, "cost": 0.5, **keep, "token_strategy": strategy}

    found = paper.most_frequent([entry(0), entry(3), entry(5), entry(3)])
    assert found["token_strategy"] == 3 and found.keys() == {*paper.PATH}


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
    settings = paper.Settings(seeds=2)
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
    assert systems["ours"]["seconds"] == pytest.approx(1.5 / 6)
    assert "| plain | 1,234 | 2.00 | 2 |" in text
    assert "| ours | 50.0% | 0.0% | 50.0% | 0.0% | 2 |" in text
