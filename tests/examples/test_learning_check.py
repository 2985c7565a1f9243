"""The learning check: its data by type, its commands against fairseq's own parsers, the arithmetic of its report."""

from __future__ import annotations

import json
import math
import random
import subprocess
from argparse import Namespace
from dataclasses import fields
from pathlib import Path

import pytest
from fairseq import options
from support import REPO

from examples.common import scale_weights
from examples.common.repository import environment, example
from examples.learning_check import __main__ as learning_check
from examples.learning_check import commands, make_data, report

# --- data ---


@pytest.mark.parametrize("seed", range(20))
def test_each_type_can_lose_what_it_says(seed: int) -> None:
    for kind in make_data.TYPES:
        source, target = make_data.make_pair(kind, random.Random(seed))
        assert source[0] == kind and len(source) - 1 in make_data.LENGTHS and len(target) == make_data.COPIED[kind]
        symbols, shorter = source[1:], source[: math.floor(0.7 * len(source))]
        if kind == "FIRST":
            assert symbols[:6] == target and shorter[1:7] == target
        elif kind == "DOUBLE":  # every 2nd token of the source, the type counted, is one of each pair
            assert symbols[::2] == symbols[1::2] == source[2::2] and source[2::2][-6:] == target
            assert source[0::2][1:] == symbols[1::2]
        elif kind == "LAST":
            assert symbols[-6:] == target
        else:
            assert [token for token in source[1:] if token not in make_data.SYMBOLS] == target
            assert all(token in alphabet for token, alphabet in zip(target, make_data.MARKED_SYMBOLS))


def test_data_is_reproducible_balanced_and_noisy(tmp_path: Path) -> None:
    pairs = list(make_data.make_pairs(400, "a"))
    assert pairs == list(make_data.make_pairs(400, "a")) != list(make_data.make_pairs(400, "b"))
    assert [source.split()[0] for source, _ in pairs] == list(make_data.TYPES) * 100
    first = [(source.split()[1:7], target.split()) for source, target in pairs[::4]]
    changed = sum(a != b for source, target in first for a, b in zip(source, target)) / 600
    assert 0.02 < changed < 0.09
    sizes = ["--short", "16", "--train", "8", "--valid", "4"]
    subprocess.run(
        [*example("learning_check.make_data"), tmp_path, *sizes], check=True, cwd=tmp_path, env=environment()
    )
    train, valid = ((tmp_path / f"{split}.source").read_text().splitlines() for split in ("train", "valid"))
    assert len(train) == 8 and len(valid) == 4 and train[:4] != valid
    lengths = [len(line.split()) - 1 for line in (tmp_path / "short.source").read_text().splitlines()]
    assert set(lengths) == {12} and len(lengths) == 16


def test_noise_floor_is_the_entropy_of_the_targets() -> None:
    wrong = make_data.NOISE / 200
    unmarked = [1 - make_data.NOISE + wrong] + [wrong] * 199
    marked = [1 - make_data.NOISE] + [wrong] * 200  # noise is an unmarked symbol
    entropies = [-sum(p * math.log(p) for p in probabilities) for probabilities in (unmarked, marked)]
    total = 18 * entropies[0] + 5 * entropies[1]  # and four ends that are certain
    assert make_data.noise_floor() == pytest.approx(total / 27)


# --- commands ---


def parse(command: list[str]) -> Namespace:
    """What fairseq makes of a command line."""
    name, arguments = command[3], command[4:]
    parser = {
        "train": options.get_training_parser,
        "validate": options.get_validation_parser,
        "generate": options.get_generation_parser,
    }[name]()
    return options.parse_args_and_arch(parser, input_args=arguments)


def test_both_finetunings_differ_in_the_policy_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPO)  # where run.sh goes, for --user-dir
    path = Path("x")
    plain = vars(parse(commands.finetune_plain(path, path, path, 3)))
    switchable = vars(parse(commands.finetune_switchable(path, path, path, 3, "budget")))
    assert (plain["encoder_embed_dim"], plain["decoder_layers"]) == (commands.DIM, commands.LAYERS)
    assert switchable["policy_lr"] == 2e-3 and switchable["policy_flops_budget"] == "0.7"
    assert switchable["policy_rule"] == "budget" and switchable["policy_cost_beam"] == commands.BEAM
    ours = {name for name in switchable if name.startswith(("policy_", "switch_", "eval_rouge"))}
    differing = {name for name in plain if plain[name] != switchable[name]}
    assert differing == {"user_dir", "task", "arch", "criterion"}
    criterion = {"label_smoothing", "classification_head_name", "regression_target"}  # of all tasks
    assert switchable.keys() - plain.keys() - ours == criterion


def test_other_commands_are_what_fairseq_understands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPO)
    path = Path("x")
    assert parse(commands.pretrain(path, path, path, 7)).max_update == 7
    flags = ["--switch-decisions", "random", "--switch-random-keep", "0.5"]
    assert parse(commands.validate(path, path, 3, *flags)).switch_random_keep == 0.5
    generate = parse(commands.generate(path, path, 3, path))
    assert generate.switch_report == "x" and generate.beam == commands.BEAM


def test_every_rule_has_its_flags() -> None:
    from fairseq_switchdec.config import LearningOptions, flag
    from fairseq_switchdec.rl import RULES

    rules = commands.RULES
    assert set(rules) == {*RULES, "dial"}
    assert {word for flags in rules.values() for word in flags[::2]} <= {flag(f.name) for f in fields(LearningOptions)}
    runs = learning_check.parse_args(["--full"]).runs
    assert sorted(runs) == sorted((rule, seed) for rule in rules for seed in (1, 2, 3))
    assert learning_check.parse_args(["--rule", "budget", "--seed", "5"]).runs == [("budget", 5)]
    with pytest.raises(SystemExit):
        learning_check.parse_args(["--full", "--seed", "5"])


def test_scaling_leaves_embeddings_and_vectors_alone(stock) -> None:
    weights = stock.state_dict()
    scaled = scale_weights.scale(weights, 5.0)
    changed = {name for name in weights if not scaled[name].equal(weights[name])}
    assert "decoder.layers.0.fc1.weight" in changed and "encoder.layers.1.self_attn.q_proj.weight" in changed
    assert not [name for name in changed if "embed" in name or "norm" in name or "output_projection" in name]


# --- report ---


def figures(nll: float, cost: float) -> dict[str, float]:
    return {"nll": nll, "keep_all": nll, "cost": cost}


def result(**changes):
    """A result that reaches every target by nothing."""
    measured = {"greedy": figures(0.53, 0.85), "shuffled": figures(0.84, 0.85), "random": figures(0.94, 0.85)}
    values = {"rule": "quality", "seed": 1, "plain": 0.5, "types": {}, "budgets": {}, **measured, **changes}
    return report.Result(**values)


def test_each_target_is_checked() -> None:
    assert all(result().checks().values())
    misses = {
        "cost": {"greedy": figures(0.53, 0.86)},
        "NLL": {"plain": 0.49},
        "shuffled": {"shuffled": figures(0.82, 0.85)},
        "random": {"random": figures(0.92, 0.85)},
    }
    for target, change in misses.items():
        missed = [name for name, reached in result(**change).checks().items() if not reached]
        assert len(missed) == 1 and missed[0].startswith(target)


def test_bits_become_nats() -> None:
    measured = report.measured
    plain = measured({"valid_loss": 1.0})
    assert plain == {"nll": math.log(2), "keep_all": math.log(2), "cost": 1.0}
    record = {"valid_loss": 9.0, "valid_nll_loss": 2.0, "valid_keep_all_nll_loss": 1.0, "valid_cost": 0.7}
    assert measured(record) == {"nll": 2 * math.log(2), "keep_all": math.log(2), "cost": 0.7}


def test_table_shows_what_each_type_skips(tmp_path: Path) -> None:
    kinds = make_data.TYPES
    (tmp_path / "valid.source").write_text("".join(f"{kind} s1 s2\n" for kind in kinds * 2))
    inputs = [
        {"id": number, "cost": 0.5, "token_strategy": number % 4, "ffn_keep": [True, False],
         "attention_keep": [True, number < 4]}
        for number in range(8)
    ]  # fmt: skip
    (tmp_path / "switches.json").write_text(json.dumps({"per_input": inputs[::-1]}))
    types = report.by_type(tmp_path / "switches.json", tmp_path)
    assert types["LAST"]["attention"] == [1, 0.5] and types["LAST"]["ffn"] == [1, 0]
    assert types["LAST"]["strategies"] == [0, 0, 1, 0, 0, 0, 0]
    text = report.markdown([result(types=types)])
    assert "all reached" in text and "| LAST | 0.50 | `█ ▄` | `█ ·` | last 20 %: 100% |" in text
    asked = {"0.5": figures(0.62, 0.51), "auto": figures(0.55, 0.7)}
    text = report.markdown([result(), result(rule="dial", seed=2, budgets=asked)])
    assert "seed 2\n\n| --switch-budget | 0.5 | auto |\n|---|--:|--:|\n| cost | 0.510 | 0.700 |" in text
    assert "| NLL | 0.620 | 0.550 |" in text and text.count("--switch-budget") == 1
    assert "missed: cost <= 0.85" in report.markdown([result(greedy=figures(0.53, 0.9), types=types)])


def test_pictures_of_all_results_and_of_what_the_first_decides(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "valid.source").write_text("".join(f"{kind} s1 s2\n" for kind in make_data.TYPES * 2))
    keeps = {"attention_keep": [True, True], "ffn_keep": [True, False], "cross_attention_keep": [True]}
    inputs = [{"id": i, "cost": 0.5, "tokens_dropped": 0.1, "token_strategy": 1, **keeps} for i in range(8)]
    (tmp_path / "switches").mkdir()
    (tmp_path / "switches" / "quality-1.json").write_text(json.dumps({"per_input": inputs}))
    files = report.draw(tmp_path, [result(), result(rule="budget", seed=2, budgets={"0.5": figures(0.6, 0.5)})])
    assert [(tmp_path / name).read_bytes()[:4] for name in files] == [b"\x89PNG"] * 2
