"""One checkpoint, any budget: what a dial is made of, and the real commands with ``--switch-budget``."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support import POLICY_FLAGS, SWITCHABLE_FLAGS, architecture, generate, run_command, train_flags
from torch import Tensor
from torch.testing import assert_close

from fairseq_switchdec.config import LexicoPolicyCriterionConfig, check_learning_options
from fairseq_switchdec.decisions import DecisionSpace
from fairseq_switchdec.dial import AUTO, AUTO_SHARE, Dial
from fairseq_switchdec.errors import CallError, UserError
from fairseq_switchdec.generation.decision_source import DecisionSource
from fairseq_switchdec.models.bart.model import SwitchableBARTModel
from fairseq_switchdec.models.hub import SwitchableGeneratorHub
from fairseq_switchdec.policy import GreedyChoice, SwitchPolicy

SPACE = DecisionSpace(3, 2)


@pytest.mark.parametrize("auto", [False, True])
def test_a_budget_lies_between_two_knots(auto: bool) -> None:
    dial = Dial(0.4, 0.6, auto)
    assert_close(dial.knots, torch.tensor([0.4, 0.45, 0.5, 0.55, 0.6]))
    columns = dial.columns(torch.tensor([0.4, 0.6, 0.475, 0.54]))
    rest = [0.0] * auto
    expected = [[1, 0, 0, 0, 0], [0, 0, 0, 0, 1], [0, 0.5, 0.5, 0, 0], [0, 0, 0.2, 0.8, 0]]
    assert_close(columns, torch.tensor([[*map(float, row), *rest] for row in expected]), atol=1e-5, rtol=0)
    if auto:
        assert dial.columns(torch.tensor([AUTO])).tolist() == [[0, 0, 0, 0, 0, 1]]


def test_training_draws_budgets_from_the_whole_range() -> None:
    uniforms = torch.rand(4000, generator=torch.Generator().manual_seed(1))
    keep_all = torch.arange(4000) % 4 == 0
    drawn = Dial(0.4, 1.0).draw(uniforms, keep_all)
    assert 0.4 <= float(drawn.min()) < 0.41 and 0.99 < float(drawn.max()) <= 1 and abs(float(drawn.mean()) - 0.7) < 0.01
    drawn = Dial(0.4, 1.0, auto=True).draw(uniforms, keep_all)
    assert bool((drawn[keep_all] == AUTO).all()), "their keep-all loss bounds what auto may lose"
    asked = drawn[~keep_all]
    assert float((asked == AUTO).float().mean()) == pytest.approx(AUTO_SHARE, abs=0.02)
    assert 0.4 <= float(asked[asked != AUTO].min()) < 0.41 and float(asked.max()) > 0.99


def test_validation_asks_for_every_knot_in_turn() -> None:
    dial = Dial(0.5, 0.6, auto=True)
    assert_close(dial.in_turn(torch.tensor([0, 1, 2, 3, 4, 11])), torch.tensor([0.5, 0.55, 0.6, AUTO, 0.5, AUTO]))
    assert dial.holds(AUTO) and dial.holds(0.5) and dial.holds(0.6)
    assert not dial.holds(0.49) and not dial.holds(0.61) and not Dial(0.5, 0.6).holds(AUTO)


def dialled(auto: bool = True, per_layer: bool = False) -> SwitchPolicy:
    torch.manual_seed(3)
    return SwitchPolicy(SPACE, 6, 10, per_layer, Dial(0.4, 0.6, auto))


@pytest.mark.parametrize("per_layer", [False, True])
def test_a_new_policy_decides_alike_for_every_budget_and_a_moved_one_does_not(per_layer: bool) -> None:
    policy = dialled(per_layer=per_layer)
    features = torch.randn(3, len(policy.stages), 6)
    low, high = torch.full((3,), 0.4), torch.full((3,), 0.6)
    plain = SwitchPolicy(SPACE, 6, 10, per_layer)
    plain.load_state_dict({name: value for name, value in policy.state_dict().items() if "budget" not in name})
    for budgets in (low, high, None):
        assert torch.equal(policy(features, budgets).sublayer_logits, plain(features).sublayer_logits)
    with torch.no_grad():
        for parameter in policy.budget_hidden.parameters():
            parameter[:, 0] = torch.randn(10)
        for head in policy.sublayer_heads.parameters():
            head.add_(torch.randn(head.shape))
    assert not torch.equal(policy(features, low).sublayer_logits, policy(features, high).sublayer_logits)
    own = policy(features, torch.tensor([0.4, 0.5, AUTO]))
    for row, budget in enumerate((0.4, 0.5, AUTO)):
        alone = policy(features[row : row + 1], torch.tensor([budget]))
        assert_close(own.sublayer_logits[row], alone.sublayer_logits[0])
        assert_close(own.token_logits[row], alone.token_logits[0])


def test_every_budget_has_a_caution_of_its_own() -> None:
    """What moves one knot moves it alone, and what lies between two of them by half."""
    policy = dialled()
    features = torch.randn(1, 1, 6)

    def logits(budget: float) -> Tensor:
        distribution = policy(features, torch.tensor([budget]))
        assert distribution.token_logits is not None
        return torch.cat([distribution.sublayer_logits[0], distribution.token_logits[0, :1]])

    budgets = (0.4, 0.425, 0.45, 0.6, AUTO)
    before = [logits(budget) for budget in budgets]
    change = torch.zeros(policy.dial.size)
    change[0] = 2.0
    for bias in policy.keep_biases():
        bias += change
    moved = [float((logits(budget) - old).mean()) for budget, old in zip(budgets, before)]
    assert moved == pytest.approx([2.0, 1.0, 0.0, 0.0, 0.0], abs=1e-4)


def test_a_policy_for_budgets_only_wants_one() -> None:
    policy = dialled(auto=False)
    features = torch.randn(2, 1, 6)
    with pytest.raises(UserError, match="budgets from 0.4 to 0.6 of the FLOPs: give --switch-budget"):
        policy(features)
    with torch.no_grad():
        policy.budget_sublayers[0].copy_(torch.randn(10, 5))
    policy.default_budget = 0.45
    assert torch.equal(policy(features).sublayer_logits, policy(features, torch.full((2,), 0.45)).sublayer_logits)


# --- what is asked for ---


def source(budget: Any, decisions: str = "greedy") -> DecisionSource:
    return DecisionSource(
        SimpleNamespace(switch_decisions=decisions, seed=1, switch_random_keep=0.8, switch_budget=budget)
    )


def asked(of: DecisionSource, ids: list[int]) -> list[float] | None:
    choice = of(SPACE, torch.tensor(ids), dict)
    assert isinstance(choice, GreedyChoice)
    return None if choice.budgets is None else [round(budget, 6) for budget in choice.budgets.tolist()]


def test_budgets_by_input(tmp_path: Path) -> None:
    file = tmp_path / "budgets"
    file.write_text("0.5\nauto\n.6\n\n")
    assert asked(source(str(file)), [2, 0, 1]) == [0.6, 0.5, AUTO]
    source(str(file)).check_count(3)
    with pytest.raises(UserError, match="--switch-budget holds 3 budgets, one a line: there are 4 inputs"):
        source(str(file)).check_count(4)
    with pytest.raises(UserError, match="--switch-budget holds 3 budgets, but there are more inputs"):
        asked(source(str(file)), [3])
    rows = source(str(file))(SPACE, torch.tensor([7, 8]), dict, torch.tensor([0, 0]))
    assert isinstance(rows, GreedyChoice) and rows.budgets is not None and rows.budgets.tolist() == [0.5, 0.5]
    assert asked(source("0.7"), [3, 0]) == [0.7, 0.7] and asked(source("auto"), [2]) == [AUTO]
    assert asked(source(None), [2]) is None
    one = source("0.7")
    with one.asking([0.5, "auto"], 2):
        assert asked(one, [0, 1]) == [0.5, AUTO]
    with one.asking(0.6, 2):
        assert asked(one, [0, 1]) == [0.6, 0.6]
    with pytest.raises(UserError, match="2 budgets for 3 sentences: give one for each"), one.asking([0.5, 0.6], 3):
        pass
    assert asked(one, [0]) == [0.7]
    source("0.4").check(dialled())
    source("auto").check(dialled())
    source(None).check(dialled())


@pytest.mark.parametrize(
    "budget, message",
    [
        ("1.2", r"--switch-budget '1.2' must be in \(0, 1\], or auto"),
        ("0", r"--switch-budget '0' must be in \(0, 1\]"),
        ("nan", r"--switch-budget 'nan' must be in"),
        ("budgets.txt", r"--switch-budget 'budgets.txt' must be in \(0, 1\], or auto \(there is no such file either\)"),
        ("FILE 0.5\nhalf\n", r"--switch-budget .*budgets, line 2: 'half' must be in"),
        ("FILE \n", r"--switch-budget .*budgets is empty"),
    ],
)
def test_wrong_budgets(tmp_path: Path, budget: str, message: str) -> None:
    if budget.startswith("FILE "):
        (tmp_path / "budgets").write_text(budget[5:])
        budget = str(tmp_path / "budgets")
    with pytest.raises(UserError, match=message):
        source(budget)


def test_budgets_that_a_policy_does_not_know() -> None:
    with pytest.raises(UserError, match="--switch-budget 0.7: .*budgets from 0.4 to 0.6 of the FLOPs and auto"):
        source("0.7").check(dialled())
    with pytest.raises(UserError, match="--switch-budget auto: .*budgets from 0.4 to 0.6"):
        source("auto").check(dialled(auto=False))
    with pytest.raises(UserError, match="budgets from 0.4 to 0.6 of the FLOPs: give --switch-budget"):
        source(None).check(dialled(auto=False))
    with pytest.raises(UserError, match="not trained for a range of budgets.*--policy-flops-budget LOW:HIGH"):
        source("0.5").check(SwitchPolicy(SPACE, 6, 10))
    with pytest.raises(
        UserError, match="--switch-budget 0.5 asks the policy, which --switch-decisions keep-all does not use"
    ):
        source("0.5", "keep-all")


# --- the commands ---

BUDGETS = ["--policy-flops-budget", "0.6:1.0"]


def train(corpus: Path, folder: Path, updates: int, *extra: Any, check: bool = True) -> str:
    return run_command(
        "train", corpus, *SWITCHABLE_FLAGS, "--arch", "switchable_bart_tiny", *POLICY_FLAGS,
        *train_flags(folder, updates, *extra), check=check,
    ).stdout  # fmt: skip


def validate(corpus: Path, checkpoint: Path, *extra: Any, check: bool = True) -> str:
    return run_command(
        "validate", corpus, *SWITCHABLE_FLAGS, "--path", checkpoint, "--cpu", "--batch-size", 5, "--log-format", "json",
        "--num-workers", 0, *extra, check=check,
    ).stdout  # fmt: skip


@pytest.fixture(scope="module")
def dial_run(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    folder = tmp_path_factory.mktemp("dial")
    output = train(corpus, folder, 4, *BUDGETS)
    return SimpleNamespace(checkpoint=folder / "checkpoint_last.pt", output=output)


@pytest.fixture(scope="module")
def reader(dial_run: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose policy reads its input and its budget: more of which, more is kept."""
    state = torch.load(dial_run.checkpoint, map_location="cpu", weights_only=False)
    weights = {name[len("encoder.policy.") :]: value for name, value in state["model"].items() if ".policy." in name}
    generator = torch.Generator().manual_seed(3)
    head, shifts = weights["sublayer_heads.0.weight"], weights["budget_sublayers.0"]
    head.copy_(4 * torch.randn(head.shape, generator=generator))
    weights["sublayer_heads.0.bias"].zero_()
    shifts.copy_(torch.linspace(-8, 8, 10).expand(shifts.shape))
    path = tmp_path_factory.mktemp("reader") / "checkpoint.pt"
    torch.save(state, path)
    return path


def test_training_and_validation_say_what_was_asked_and_reached(corpus: Path, dial_run: SimpleNamespace) -> None:
    logs = [json.loads(line[line.index("{") :]) for line in dial_run.output.splitlines() if '"valid_cost"' in line]
    in_turn = (2 * sum(0.6 + 0.05 * knot for knot in range(9)) + 0.6 + 0.65 + 0.7 + 0.75) / 22
    assert float(logs[-1]["valid_budget"]) == pytest.approx(in_turn, abs=1e-4), "24 inputs, 9 knots and auto in turn"
    assert 0.6 < float(logs[-1]["valid_budget_cost"]) <= 1
    assert '"valid_budget": "0.7"' in validate(corpus, dial_run.checkpoint, "--switch-budget", 0.7)
    assert '"valid_budget"' not in validate(corpus, dial_run.checkpoint), "by itself"


def test_one_checkpoint_at_several_budgets(corpus: Path, reader: Path, tmp_path: Path) -> None:
    costs = {}
    for budget in ("0.6", "0.8", "1.0", "auto"):
        path = tmp_path / f"{budget}.json"
        output = generate(corpus, reader, "--switch-budget", budget, "--switch-report", path)
        report = json.loads(path.read_text())
        key = "auto" if budget == "auto" else str(float(budget))
        assert report["budgets"] == {key: {"inputs": 20, "cost": pytest.approx(report["cost"])}}
        shown = budget if budget == "auto" else f"{float(budget):.1%}"
        assert f"Budget asked for -> reached: {shown} -> {report['cost']:.1%}" in output
        costs[budget] = report["cost"]
    assert costs["0.6"] < costs["0.8"] < costs["1.0"]

    # Each input its own budget, in a file, by shards and through the hub: as if asked alone.
    lines = ["0.6", "auto", "1.0", "0.8"] * 5
    (tmp_path / "budgets").write_text("\n".join(lines))
    flags = ("--switch-budget", tmp_path / "budgets", "--switch-report", tmp_path / "mixed.json")
    generate(corpus, reader, *flags)
    mixed = json.loads((tmp_path / "mixed.json").read_text())
    assert set(mixed["budgets"]) == {"0.6", "0.8", "1.0", "auto"}
    path_names = ("attention_keep", "ffn_keep", "token_strategy", "target_tokens")
    for budget in ("0.6", "0.8", "1.0", "auto"):
        alone = {entry["id"]: entry for entry in json.loads((tmp_path / f"{budget}.json").read_text())["per_input"]}
        for entry in mixed["per_input"]:
            if lines[entry["id"]] == budget:
                assert [entry[name] for name in path_names] == [alone[entry["id"]][name] for name in path_names]
    for shard in (0, 1):
        generate(corpus, reader, *flags, "--num-shards", 2, "--shard-id", shard)
    run_command("report", "merge", tmp_path / "merged.json", *sorted(tmp_path.glob("mixed.shard-*.json")))
    merged = json.loads((tmp_path / "merged.json").read_text())
    del merged["seconds"], mixed["seconds"]
    assert merged == mixed


def test_the_hub_call_takes_a_budget(corpus: Path, dial_run: SimpleNamespace) -> None:
    checkpoint = dial_run.checkpoint
    hub = SwitchableBARTModel.from_pretrained(str(checkpoint.parent), checkpoint.name, str(corpus), bpe=None)
    policy = hub.model.encoder.policy
    seen: list[Any] = []
    stage = policy.stage

    def watched(index: int, features: Tensor, budgets: Tensor | None = None) -> Any:
        seen.append(None if budgets is None else [round(budget, 6) for budget in budgets.tolist()])
        return stage(index, features, budgets)

    policy.stage = watched
    tokens = [hub.task.source_dictionary.encode_line(text).long() for text in ("w1 w2 w3", "w4 w5", "w6 w7 w8")]
    hub.generate(tokens, beam=1)
    hub.generate(tokens, beam=1, switch_budget=[0.6, "auto", 0.9])
    hub.generate(tokens[:1], beam=1, switch_budget=0.8)
    hub.generate(tokens[:1], beam=1)
    assert seen[0] is None and sorted(seen[1]) == [AUTO, 0.6, 0.9] and seen[2:] == [[0.8], None]
    with pytest.raises(CallError, match="switch_budget: 2 budgets for 3 sentences"):
        hub.generate(tokens, switch_budget=[0.6, 0.9])

    # Each sentence gets its own budget, whatever the batches: here sentence i has i + 2 words and budget .6 + i / 10.
    given: dict[int, float] = {}
    encode = hub.model.encoder.forward

    def recorded(src_tokens: Tensor, *rest: Any, decisions: Any = None, **named: Any) -> Any:
        words = src_tokens.ne(1).sum(1) - 1
        given.update(zip((words - 2).tolist(), decisions.budgets.tolist()))
        return encode(src_tokens, *rest, decisions=decisions, **named)

    hub.model.encoder.forward = recorded
    policy.stage = stage
    dictionary = hub.task.source_dictionary
    tokens = [dictionary.encode_line(" ".join(["w1"] * (row + 2))).long() for row in (3, 0, 2, 1)]
    budgets = [0.9, 0.6, 0.8, 0.7]
    single = SwitchableGeneratorHub(hub.cfg, hub.task, hub.model)  # that of the other backbones
    for batch_size in (2, 4):
        for interface in (hub, single):
            interface.cfg.dataset.batch_size = batch_size
            given.clear()
            interface.generate(tokens, beam=1, switch_budget=budgets)
            assert given == {row: pytest.approx(0.6 + row / 10) for row in range(4)}
    with pytest.raises(CallError, match="--switch-budget 0.3: this policy was trained for budgets from 0.6 to 1 of"):
        hub.generate(tokens, switch_budget=0.3)
    with pytest.raises(CallError, match="'much' must be in"):
        hub.generate(tokens, switch_budget="much")


def test_a_run_that_is_interrupted_goes_on_to_the_same_policy(corpus: Path, tmp_path: Path) -> None:
    flags = (*BUDGETS, "--save-interval-updates", 4)
    train(corpus, tmp_path / "whole", 8, *flags)
    train(corpus, tmp_path / "parts", 4, *flags, "--policy-total-updates", 8)
    train(corpus, tmp_path / "parts", 8, *flags, "--policy-total-updates", 8)
    states = [
        torch.load(tmp_path / name / "checkpoint_last.pt", map_location="cpu", weights_only=False)["model"]
        for name in ("whole", "parts")
    ]
    assert states[0]["learner_state.caution"].abs().sum() > 0
    for name, value in states[0].items():
        assert torch.equal(states[1][name], value), name


def test_a_policy_without_a_dial_can_be_given_one(corpus: Path, switchable_run: Any, tmp_path: Path) -> None:
    train(
        corpus,
        tmp_path,
        2,
        *BUDGETS,
        "--finetune-from-model",
        switchable_run.checkpoint,
        *architecture("switchable_bart_base"),
    )
    state = torch.load(tmp_path / "checkpoint_last.pt", map_location="cpu", weights_only=False)["model"]
    assert state["encoder.policy.budget_tokens"].shape == (7, 10)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"policy_flops_budget": "0.4:1.0:2"}, "--policy-flops-budget 0.4:1.0:2 must be a number, or a range"),
        ({"policy_flops_budget": "0.4:much"}, "--policy-flops-budget 0.4:much must be a number, or a range"),
        ({"policy_flops_budget": "0.9:0.4"}, "--policy-flops-budget 0.9:0.4 must be a range from less to more"),
        ({"policy_flops_budget": "0.4:1.4"}, r"--policy-flops-budget 1.4 must be in \(0, 1\]"),
        ({"policy_flops_budget": "0.4:nan"}, r"--policy-flops-budget nan must be in \(0, 1\]"),
        ({"policy_rule": "eq7"}, "0.4:1 is a range, which --policy-rule quality and budget can learn, eq7 cannot"),
        ({"policy_decisions": "keep-all"}, "0.4:1 is a range, which --policy-decisions keep-all does not learn"),
    ],
)
def test_wrong_ranges(changes: dict[str, str], message: str) -> None:
    options = LexicoPolicyCriterionConfig(**{"policy_flops_budget": "0.4:1", **changes})
    with pytest.raises(UserError, match=message):
        check_learning_options(options)


@pytest.mark.parametrize("flags", [["0.02:1"], ["0.02", "--policy-rule", "budget"]])
def test_a_budget_below_what_always_runs(corpus: Path, tmp_path: Path, flags: list[str]) -> None:
    output = train(corpus, tmp_path, 2, "--policy-flops-budget", *flags, check=False)
    assert f"--policy-flops-budget {flags[0]}: what always runs costs 0." in output and "Traceback" not in output


def test_a_checkpoint_of_another_dial_is_refused(corpus: Path, dial_run: SimpleNamespace, tmp_path: Path) -> None:
    flags = ("--finetune-from-model", dial_run.checkpoint)
    output = train(corpus, tmp_path, 2, *flags, check=False)
    assert "and the range of --policy-flops-budget" in output and "Traceback" not in output
    output = train(corpus, tmp_path, 2, "--policy-flops-budget", "0.55:0.95", *flags, check=False)
    assert "policy was trained with --policy-flops-budget 0.6:1 and --policy-rule quality: give the same" in output
    for command in (generate, validate):
        output = command(corpus, dial_run.checkpoint, "--switch-budget", "0.3", check=False)
        assert "--switch-budget 0.3: this policy was trained for budgets from 0.6 to 1" in output
        assert "Traceback" not in output
    (tmp_path / "budgets").write_text("0.7\n0.8\n")
    output = generate(corpus, dial_run.checkpoint, "--switch-budget", tmp_path / "budgets", check=False)
    assert "--switch-budget holds 2 budgets, one a line: there are 20 inputs" in output and "Traceback" not in output


def test_a_plain_policy_is_asked_for_nothing(corpus: Path, switchable_run: Any, stock_checkpoint: Path) -> None:
    for command in (generate, validate):
        output = command(corpus, switchable_run.checkpoint, "--switch-budget", "0.7", check=False)
        assert "not trained for a range of budgets" in output and "Traceback" not in output
    output = generate(corpus, stock_checkpoint, "--switch-budget", "0.7", check=False)
    assert "not trained for a range of budgets" in output and "Traceback" not in output
