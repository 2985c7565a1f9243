"""Seconds instead of FLOPs: the cost model's arithmetic, the files it is kept in, and the real commands."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support import POLICY_FLAGS, SWITCHABLE_FLAGS, architecture, generate, run_command, train_flags
from torch import Tensor
from torch.testing import assert_close

from fairseq_switchdec.calibrate import parse_args
from fairseq_switchdec.cost import Geometry, Keep, Lengths, cost, expected_cost
from fairseq_switchdec.decisions import Decisions, DecisionSpace
from fairseq_switchdec.errors import UserError
from fairseq_switchdec.policy import DecisionDistribution, random_decisions
from fairseq_switchdec.seconds import Seconds, counts, fit, machine, nonnegative_least_squares, nothing

MODELS = {
    "bart": (DecisionSpace(3, 2, split_attention=True), Geometry(3, 2, 12, 12, 20, 28, 54)),
    "gpt2": (DecisionSpace(5, 0), Geometry(5, 0, 12, 12, 48, 48, 54)),
}
SETTING = {"machine": "a made-up one", "precision": "fp32", "batch_size": 1, "beam": 4}


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> tuple[DecisionSpace, Geometry]:
    return MODELS[request.param]


def paths(space: DecisionSpace, number: int) -> tuple[Decisions, Lengths]:
    """Random ones of unequal lengths, every third of which is only encoded."""
    generator = torch.Generator().manual_seed(4)
    decisions = random_decisions(space, torch.rand(number, space.num_sublayers + 1, generator=generator), 0.6)
    source = torch.randint(5, 60, (number,), generator=generator)
    target = torch.randint(2, 40, (number,), generator=generator)
    target[::3] = 0
    return decisions, Lengths(source, source - 2, target, beam=4)


def coefficients(geometry: Geometry) -> dict[str, float]:
    names = list(counts(geometry, *nothing(geometry)))
    return {name: 1e-3 * (index + 1) for index, name in enumerate(names)}


def test_counts_by_hand() -> None:
    space, geometry = MODELS["bart"]
    forced = {"attention_keep": [1, 1, 0, 1, 0], "ffn_keep": [1, 0, 1, 1, 1], "cross_attention_keep": [0, 1]}
    decisions = space.from_json([{**forced, "token_strategy": 0}])
    lengths = Lengths(*(torch.tensor([number]) for number in (10, 8, 4)), beam=4)
    found = {name: float(count) for name, count in counts(geometry, Keep.of(decisions, lengths), lengths).items()}
    assert found == {
        "input": 1, "input_tokens": 10, "input_pairs": 100, "output": 1, "steps": 4,
        "attention": 1, "attention_tokens": 10, "attention_pairs": 100, "ffn": 1, "ffn_tokens": 10,
        "step_attention": 4, "step_attention_pairs": 10, "cross_attention_tokens": 10, "step_cross_attention": 4,
        "step_cross_attention_pairs": 40, "step_ffn": 8,
    }  # fmt: skip
    space, geometry = MODELS["gpt2"]
    forced = {"attention_keep": [1, 1, 0, 1, 0], "ffn_keep": [1, 0, 1, 1, 1], "token_strategy": 0}
    decisions = space.from_json([forced])
    found = {name: float(count) for name, count in counts(geometry, Keep.of(decisions, lengths), lengths).items()}
    assert found == {
        "input": 1, "input_tokens": 10, "input_pairs": 100, "output": 1, "steps": 4, "steps_pairs": 50,
        "attention": 2, "attention_tokens": 20, "attention_pairs": 200, "ffn": 3, "ffn_tokens": 30,
        "step_attention": 8, "step_attention_pairs": 100, "step_ffn": 12,
    }  # fmt: skip


def test_what_is_dropped_costs_no_seconds(model: tuple[DecisionSpace, Geometry]) -> None:
    space, geometry = model
    seconds = Seconds(geometry, coefficients(geometry), 0.5, SETTING)
    lengths = Lengths(*(torch.tensor([number] * 2) for number in (40, 38, 4)))
    decisions = space.keep_all(2)
    decisions.token_strategy[1] = 1
    whole, dropped = seconds.spend(Keep.of(decisions, lengths), lengths)
    assert dropped < whole and seconds.spend(Keep.of(decisions, lengths), lengths, 1)[0] == pytest.approx(whole + 0.5)
    assert cost(seconds, decisions, lengths, 1).tolist() == [1.0, pytest.approx(float((dropped + 0.5) / (whole + 0.5)))]


def test_fit_finds_the_coefficients_of_made_up_seconds(model: tuple[DecisionSpace, Geometry]) -> None:
    space, geometry = model
    decisions, lengths = paths(space, 200)
    true = Seconds(geometry, {**coefficients(geometry), "attention": 0.0}, 0.0, SETTING)
    measured = true.spend(Keep.of(decisions, lengths), lengths)
    noise = torch.randn(200, generator=torch.Generator().manual_seed(2), dtype=torch.double)
    exact = fit(geometry, Keep.of(decisions, lengths), lengths, measured)
    for name, value in true.coefficients.items():
        assert exact[name] == pytest.approx(value, rel=1e-3, abs=1e-6), name
    noisy = fit(geometry, Keep.of(decisions, lengths), lengths, measured * (1 + 0.03 * noise))
    assert min(noisy.values()) >= 0
    unseen, sizes = paths(space, 60)
    predicted = Seconds(geometry, noisy, 0.0, SETTING).spend(Keep.of(unseen, sizes), sizes)
    errors = (predicted / true.spend(Keep.of(unseen, sizes), sizes) - 1).abs()
    assert float(errors.quantile(0.9)) < 0.03 and float(errors.median()) < 0.01


@pytest.mark.parametrize("seed", range(5))
def test_nonnegative_least_squares_is_the_best_of_all_supports(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    matrix, target = torch.randn(9, 5, generator=generator).double(), torch.randn(9, generator=generator).double()
    best = torch.zeros(5, dtype=torch.double)

    def error(x: Tensor) -> float:
        return float((matrix @ x - target).norm())

    for support in itertools.chain.from_iterable(itertools.combinations(range(5), size) for size in range(1, 6)):
        x = torch.zeros(5, dtype=torch.double)
        x[list(support)] = torch.linalg.lstsq(matrix[:, list(support)], target.unsqueeze(1)).solution.squeeze(1)
        if bool((x >= 0).all()) and error(x) < error(best):
            best = x
    assert_close(nonnegative_least_squares(matrix, target), best)


def test_expected_seconds_are_the_mean_over_decisions() -> None:
    """Sublayers are independent and seconds linear in them, so the closed form holds for both cost models."""
    space, geometry = DecisionSpace(2, 1), Geometry(2, 1, 12, 12, 20, 28, 54)
    seconds = Seconds(geometry, coefficients(geometry), 0.01, SETTING)
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(1, space.num_sublayers, generator=generator), torch.randn(1, 7, generator=generator)
    keep, tokens = DecisionDistribution(*logits).probabilities()
    assert tokens is not None
    lengths = Lengths(*(torch.tensor([number]) for number in (20, 18, 7)))
    total = 0.0
    for bits in itertools.product([False, True], repeat=space.num_sublayers):
        chosen = torch.tensor([bits])
        chance = float(torch.where(chosen, keep, 1 - keep).prod())
        for strategy in range(7):
            decisions = space.decisions(chosen, torch.tensor([strategy]))
            total += chance * float(tokens[0, strategy]) * float(cost(seconds, decisions, lengths, 1))
    assert float(expected_cost(seconds, space, keep, tokens, lengths, 1)) == pytest.approx(total, rel=1e-6)


# --- files ---


def write(path: Path, **changes: Any) -> Path:
    _, geometry = MODELS["bart"]
    content = Seconds(geometry, coefficients(geometry), 0.01, SETTING).to_json()
    path.write_text(json.dumps({**content, **changes}))
    return path


def test_a_file_holds_it(tmp_path: Path) -> None:
    _, geometry = MODELS["bart"]
    read = Seconds.read(str(write(tmp_path / "here.json", checked={"median_error": 0.1})), "--flag here.json")
    assert read == Seconds(geometry, coefficients(geometry), 0.01, SETTING)
    read.check_geometry(geometry, "here.json")
    read.check_setting({"machine": "a made-up one", "beam": 4}, "here.json", "--force")
    with pytest.raises(
        UserError, match=r"here.json was measured on another geometry: decoder_layers is 2 there, 4 here"
    ):
        read.check_geometry(replace(geometry, decoder_layers=4), "here.json")
    with pytest.raises(UserError, match="measured with precision fp32, this run has int8: .* give --force to go on"):
        read.check_setting({"precision": "int8"}, "here.json", "--force")
    assert "threads, torch" in machine(torch.device("cpu"))


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 9},
        {"geometry": {"layers": 3}},
        {"seconds": {}},
        {"policy_seconds": None},
        {"policy_seconds": -1.0},
        {"seconds": 3},
    ],
)
def test_broken_files(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="--flag here.json is no file of python -m fairseq_switchdec calibrate"):
        Seconds.read(str(write(tmp_path / "here.json", **changes)), "--flag here.json")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "cut.json").write_text('{"format": 1, ')
    with pytest.raises(UserError, match="--flag here.json is no file of"):
        Seconds.read(str(tmp_path / "cut.json"), "--flag here.json")
    with pytest.raises(UserError, match="--flag here.json cannot be read: No such file.*: calibrate makes it"):
        Seconds.read(str(tmp_path / "none.json"), "--flag here.json")


# --- the commands ---


@pytest.fixture(scope="module")
def calibrated(corpus: Path, switchable_run: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model's seconds here; not believed, only used."""
    path = tmp_path_factory.mktemp("calibrated") / "here.json"
    output = run_command(
        "calibrate", "--path", switchable_run.checkpoint, "--output", path, "--cpu", "--beam", 2, "--paths", 8,
        "--batch-size", 4, "--repeats", 1, "--source-lengths", "6,20", "--target-lengths", "3,8",
    ).stdout  # fmt: skip
    assert f"wrote {path}: seconds of 10 other paths are predicted within" in output
    content = json.loads(path.read_text())
    assert content["beam"] == 2 and len(content["checked"]["seconds"]) == 10 and content["policy_seconds"] > 0
    return path


def train(corpus: Path, folder: Path, *extra: Any, check: bool = True) -> str:
    return run_command(
        "train", corpus, *SWITCHABLE_FLAGS, *architecture("switchable_bart_base"), *POLICY_FLAGS,
        *train_flags(folder, 4, *extra), check=check,
    ).stdout  # fmt: skip


def test_training_for_seconds_and_a_report_of_them(corpus: Path, calibrated: Path, tmp_path: Path) -> None:
    budget = ("--policy-rule", "budget", "--policy-flops-budget", "0.8", "--policy-statistics-inputs", 12)
    output = train(corpus, tmp_path / "model", "--policy-cost", calibrated, *budget)
    assert '"valid_seconds_cost": "' in output and '"valid_cost": "' in output
    checkpoint, report = tmp_path / "model" / "checkpoint_last.pt", tmp_path / "report.json"
    output = generate(corpus, checkpoint, "--switch-report", report, "--switch-seconds", calibrated)
    assert "of its seconds)" in output
    content = json.loads(report.read_text())
    assert 0 < content["seconds_cost"] <= 1 and len(content["per_input"]) == 20
    calibrated.rename(calibrated.with_name("away.json"))
    validated = run_command(
        "validate", corpus, *SWITCHABLE_FLAGS, "--path", checkpoint, "--cpu", "--batch-size", 5, "--log-format", "json"
    ).stdout  # where the file is not
    calibrated.with_name("away.json").rename(calibrated)
    assert '"valid_cost": "' in validated and '"valid_seconds_cost"' not in validated
    assert all(entry["seconds"] > 0 and 0 < entry["seconds_cost"] <= 1 for entry in content["per_input"])


@pytest.mark.parametrize(
    "changes, flags, message",
    [
        ({"precision": "int8"}, [], "was measured with precision int8, this run has fp32"),
        ({"machine": "another"}, [], "was measured with machine another, this run has"),
        ({}, ["--beam", 3], "was measured with beam 2, this run has 3"),
        ({}, ["--batch-size", 5], "was measured with batch size 4, this run has 5"),
        ({"seconds": []}, [], "is no file of python -m fairseq_switchdec calibrate"),
    ],
)
def test_seconds_of_something_else(
    corpus: Path, switchable_run: Any, calibrated: Path, tmp_path: Path, changes: Any, flags: list[Any], message: str
) -> None:
    path = tmp_path / "other.json"
    path.write_text(json.dumps({**json.loads(calibrated.read_text()), **changes}))
    report = ("--switch-report", tmp_path / "report.json", "--switch-seconds", path, *flags)
    output = generate(corpus, switchable_run.checkpoint, *report, check=False)
    assert f"--switch-seconds {path} {message}" in output and "Traceback" not in output
    assert "--switch-seconds-force" in output or "seconds" in changes
    if "seconds" not in changes:
        generate(corpus, switchable_run.checkpoint, *report, "--switch-seconds-force")
        assert json.loads((tmp_path / "report.json").read_text())["seconds_cost"] > 0


def test_training_for_another_models_seconds_is_refused(corpus: Path, tmp_path: Path) -> None:
    output = train(corpus, tmp_path / "model", "--policy-cost", write(tmp_path / "here.json"), check=False)
    assert "here.json was measured on another geometry: encoder_dim is 12 there, 24 here" in output
    output = train(corpus, tmp_path / "model", "--policy-cost", tmp_path / "none.json", check=False)
    assert "--policy-cost" in output and "none.json cannot be read" in output and "Traceback" not in output


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--batch-size", "0"], "--batch-size 0 must be 1 or more"),
        (["--paths", "3"], "--paths 3 must be 8 or more"),
        (["--switch-precision", "fp8"], "--switch-precision 'fp8' is unknown"),
        (["--output", "/nowhere/x.json"], "--output /nowhere/x.json cannot be written"),
    ],
)
def test_wrong_options(tmp_path: Path, flags: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_args(["--path", "x", "--output", str(tmp_path / "x.json"), *flags])


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_what_is_timed_is_what_runs(switchable_run: Any, tmp_path: Path, monkeypatch: Any, precision: str) -> None:
    """Generation packs a model's weights, in the precision that was asked for."""
    from fairseq_switchdec import calibrate as module
    from fairseq_switchdec.compat.user_dir import register_tasks_and_models

    register_tasks_and_models()
    flags = ["--cpu", "--paths", "8", "--repeats", "1", "--source-lengths", "5,9", "--target-lengths", "2,4"]
    named = ["--path", str(switchable_run.checkpoint), "--output", str(tmp_path / "x.json")]
    args = parse_args([*named, *flags, "--switch-precision", precision])
    task, model = module.load(args)
    model = module.place(model, args)
    assert model.packed == precision
    seconds, checked = module.calibrate(task, model, args)
    assert seconds.setting["precision"] == precision and len(checked) == 10
    assert model.packed == precision
    with pytest.raises(UserError, match="--fp16 is for a GPU"):
        module.place(model, parse_args([*named, *flags, "--fp16"]))


def test_lengths_that_do_not_fit(switchable_run: Any, tmp_path: Path) -> None:
    for flags, message in (
        (("--source-lengths", "8,4000"), "--source-lengths 4000: the model has room for"),
        (("--data", "/nowhere"), "--data /nowhere is no folder"),
        (("--target-lengths", "8,8"), "--target-lengths must be two lengths or more"),
    ):
        command = ("calibrate", "--path", switchable_run.checkpoint, "--output", tmp_path / "x.json", "--cpu", *flags)
        output = run_command(*command, check=False).stdout
        assert message in output and "Traceback" not in output and not (tmp_path / "x.json").exists()
