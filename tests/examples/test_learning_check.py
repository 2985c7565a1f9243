"""The learning check: its data by type, its commands against fairseq's own parsers, the arithmetic of its report."""

from __future__ import annotations

import importlib
import json
import math
import random
import subprocess
import sys
from argparse import Namespace
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import pytest
from fairseq import options

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "learning_check"


@pytest.fixture(scope="module")
def example():
    """The example's modules, imported as its run.sh does: from their own folder."""
    before = list(sys.path)
    sys.path[:0] = [str(EXAMPLE), str(EXAMPLE.parent)]
    try:
        names = ("make_data", "check_commands", "check_report", "learning_check", "scale_weights")
        yield SimpleNamespace(**{name: importlib.import_module(name) for name in names})
    finally:
        sys.path[:] = before


# --- data ---


@pytest.mark.parametrize("seed", range(20))
def test_each_type_can_lose_what_it_says(example, seed: int) -> None:
    data = example.make_data
    for kind in data.TYPES:
        source, target = data.make_pair(kind, random.Random(seed))
        assert source[0] == kind and len(source) - 1 in data.LENGTHS and len(target) == data.COPIED[kind]
        symbols, shorter = source[1:], source[: math.floor(0.7 * len(source))]
        if kind == "FIRST":
            assert symbols[:6] == target and shorter[1:7] == target
        elif kind == "DOUBLE":  # every 2nd token of the source, the type counted, is one of each pair
            assert symbols[::2] == symbols[1::2] == source[2::2] and source[2::2][-6:] == target
            assert source[0::2][1:] == symbols[1::2]
        elif kind == "LAST":
            assert symbols[-6:] == target
        else:
            assert [token for token in source[1:] if token not in data.SYMBOLS] == target
            assert all(token in alphabet for token, alphabet in zip(target, data.MARKED_SYMBOLS))


def test_data_is_reproducible_balanced_and_noisy(example, tmp_path: Path) -> None:
    data = example.make_data
    pairs = list(data.make_pairs(400, "a"))
    assert pairs == list(data.make_pairs(400, "a")) != list(data.make_pairs(400, "b"))
    assert [source.split()[0] for source, _ in pairs] == list(data.TYPES) * 100
    first = [(source.split()[1:7], target.split()) for source, target in pairs[::4]]
    changed = sum(a != b for source, target in first for a, b in zip(source, target)) / 600
    assert 0.02 < changed < 0.09
    sizes = ["--short", "16", "--train", "8", "--valid", "4"]
    subprocess.run([sys.executable, EXAMPLE / "make_data.py", tmp_path, *sizes], check=True)
    train, valid = ((tmp_path / f"{split}.source").read_text().splitlines() for split in ("train", "valid"))
    assert len(train) == 8 and len(valid) == 4 and train[:4] != valid
    lengths = [len(line.split()) - 1 for line in (tmp_path / "short.source").read_text().splitlines()]
    assert set(lengths) == {12} and len(lengths) == 16


def test_noise_floor_is_the_entropy_of_the_targets(example) -> None:
    data = example.make_data
    wrong = data.NOISE / 200
    unmarked = [1 - data.NOISE + wrong] + [wrong] * 199
    marked = [1 - data.NOISE] + [wrong] * 200  # noise is an unmarked symbol
    entropies = [-sum(p * math.log(p) for p in probabilities) for probabilities in (unmarked, marked)]
    total = 18 * entropies[0] + 5 * entropies[1]  # and four ends that are certain
    assert data.noise_floor() == pytest.approx(total / 27)


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


def test_both_finetunings_differ_in_the_policy_alone(example, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(EXAMPLE.parents[1])  # where run.sh goes, for --user-dir
    c, path = example.check_commands, Path("x")
    plain = vars(parse(c.finetune_plain(path, path, path, 3)))
    switchable = vars(parse(c.finetune_switchable(path, path, path, 3, "budget")))
    assert (plain["encoder_embed_dim"], plain["decoder_layers"]) == (c.DIM, c.LAYERS)
    assert switchable["policy_lr"] == 2e-3 and switchable["policy_flops_budget"] == 0.7
    assert switchable["policy_rule"] == "budget" and switchable["policy_cost_beam"] == c.BEAM
    ours = {name for name in switchable if name.startswith(("policy_", "switch_", "eval_rouge"))}
    differing = {name for name in plain if plain[name] != switchable[name]}
    assert differing == {"user_dir", "task", "arch", "criterion"}
    criterion = {"label_smoothing", "classification_head_name", "regression_target"}  # of all tasks
    assert switchable.keys() - plain.keys() - ours == criterion


def test_other_commands_are_what_fairseq_understands(example, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(EXAMPLE.parents[1])
    c, path = example.check_commands, Path("x")
    assert parse(c.pretrain(path, path, path, 7)).max_update == 7
    flags = ["--switch-decisions", "random", "--switch-random-keep", "0.5"]
    assert parse(c.validate(path, path, 3, *flags)).switch_random_keep == 0.5
    generate = parse(c.generate(path, path, 3, path))
    assert generate.switch_report == "x" and generate.beam == c.BEAM


def test_every_rule_has_its_flags(example) -> None:
    from fairseq_switchdec.config import LearningOptions, flag
    from fairseq_switchdec.rl import RULES

    rules = example.check_commands.RULES
    assert set(rules) == set(RULES)
    assert {word for flags in rules.values() for word in flags[::2]} <= {flag(f.name) for f in fields(LearningOptions)}
    runs = example.learning_check.parse_args(["--full"]).runs
    assert sorted(runs) == sorted((rule, seed) for rule in RULES for seed in (1, 2))
    assert example.learning_check.parse_args(["--rule", "budget", "--seed", "5"]).runs == [("budget", 5)]
    with pytest.raises(SystemExit):
        example.learning_check.parse_args(["--full", "--seed", "5"])


def test_scaling_leaves_embeddings_and_vectors_alone(example, stock) -> None:
    weights = stock.state_dict()
    scaled = example.scale_weights.scale(weights, 5.0)
    changed = {name for name in weights if not scaled[name].equal(weights[name])}
    assert "decoder.layers.0.fc1.weight" in changed and "encoder.layers.1.self_attn.q_proj.weight" in changed
    assert not [name for name in changed if "embed" in name or "norm" in name or "output_projection" in name]


# --- report ---


def figures(nll: float, cost: float) -> dict[str, float]:
    return {"nll": nll, "keep_all": nll, "cost": cost}


def result(example, **changes):
    """A result that reaches every target by nothing."""
    measured = {"greedy": figures(0.53, 0.85), "shuffled": figures(0.84, 0.85), "random": figures(0.94, 0.85)}
    values = {"rule": "quality", "seed": 1, "plain": 0.5, "types": {}, **measured, **changes}
    return example.check_report.Result(**values)


def test_each_target_is_checked(example) -> None:
    assert all(result(example).checks().values())
    misses = {
        "cost": {"greedy": figures(0.53, 0.86)},
        "NLL": {"plain": 0.49},
        "shuffled": {"shuffled": figures(0.82, 0.85)},
        "random": {"random": figures(0.92, 0.85)},
    }
    for target, change in misses.items():
        missed = [name for name, reached in result(example, **change).checks().items() if not reached]
        assert len(missed) == 1 and missed[0].startswith(target)


def test_bits_become_nats(example) -> None:
    measured = example.check_report.measured
    plain = measured({"valid_loss": 1.0})
    assert plain == {"nll": math.log(2), "keep_all": math.log(2), "cost": 1.0}
    record = {"valid_loss": 9.0, "valid_nll_loss": 2.0, "valid_keep_all_nll_loss": 1.0, "valid_cost": 0.7}
    assert measured(record) == {"nll": 2 * math.log(2), "keep_all": math.log(2), "cost": 0.7}


def test_table_shows_what_each_type_skips(example, tmp_path: Path) -> None:
    report, kinds = example.check_report, example.make_data.TYPES
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
    text = report.markdown([result(example, types=types)])
    assert "all reached" in text and "| LAST | 0.50 | `█ ▄` | `█ ·` | last 20 %: 100% |" in text
    assert "missed: cost <= 0.85" in report.markdown([result(example, greedy=figures(0.53, 0.9), types=types)])
