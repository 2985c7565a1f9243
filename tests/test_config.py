"""Options: every mistake is a UserError that names its flag, and the table has every option once."""

from __future__ import annotations

import dataclasses
import itertools
import re
from types import SimpleNamespace
from typing import Any

import pytest

from fairseq_switchdec.config import (
    DecisionOptions,
    LearningOptions,
    LexicoPolicyCriterionConfig,
    RunOptions,
    SquadOptions,
    SwitchableTaskConfig,
    SwitchConfig,
    build_rule,
    build_space,
    check_distributed,
    check_learning_options,
    flag,
    options_table,
    split_names,
)
from fairseq_switchdec.errors import UserError
from fairseq_switchdec.rl import RULES, BudgetRule, Eq7Rule, FixedRule, QualityRule


def decision_options(**changes: Any) -> SimpleNamespace:
    defaults = {item.name: item.default for item in dataclasses.fields(DecisionOptions)}
    return SimpleNamespace(**{**defaults, **changes})


@pytest.mark.parametrize(
    "changes, named",
    [
        ({"switch_candidates": "attention,heads"}, ["--switch-candidates", "'heads'", "attention, ffn, token"]),
        ({"switch_candidates": ""}, ["--switch-candidates", "nothing chosen"]),
        ({"switch_candidates": " , "}, ["--switch-candidates", "nothing chosen"]),
        ({"switch_candidates": "Attention"}, ["--switch-candidates", "'Attention'"]),
        ({"switch_scope": "middle"}, ["--switch-scope", "'middle'", "encoder, decoder"]),
        ({"switch_scope": ""}, ["--switch-scope", "nothing chosen"]),
    ],
)
def test_refused_decision_options(changes: dict[str, Any], named: list[str]) -> None:
    with pytest.raises(UserError) as error:
        build_space(decision_options(**changes), 3, 2)
    assert all(text in str(error.value) for text in named)


def test_an_encoder_of_one_layer_is_refused() -> None:
    with pytest.raises(UserError, match="--encoder-layers 1.*at least 2"):
        build_space(decision_options(), 1, 2)


def test_build_space() -> None:
    space = build_space(decision_options(switch_candidates=" token , ffn", switch_scope="decoder,"), 3, 2)
    assert (space.candidates, space.scope, space.split_attention) == (("token", "ffn"), ("decoder",), False)
    assert build_space(decision_options(switch_split_attention=True), 3, 2).num_sublayers == 12


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    "name, value",
    [
        ("policy_rule", "best"),
        ("policy_rule", ""),
        ("policy_flops_budget", 0.0),
        ("policy_flops_budget", 1.1),
        ("policy_flops_budget", -0.5),
        ("policy_flops_budget", NAN),
        ("policy_floor", -0.01),
        ("policy_floor", 0.14),
        ("policy_floor", 0.5),
        ("policy_floor", NAN),
        ("policy_random_keep", -0.1),
        ("policy_random_keep", 1.5),
        ("policy_keep_all_share", -0.1),
        ("policy_keep_all_share", 1.5),
        ("policy_lr", -1e-3),
        ("policy_lr", INF),
        ("policy_lambda", -0.2),
        ("policy_lambda", NAN),
        ("policy_statistics_inputs", -1),
        ("policy_quality_slack", NAN),
        ("policy_quality_slack", INF),
        ("policy_quality_slack_nats", INF),
        ("policy_cost_beam", 0),
    ],
)
def test_refused_learning_options(name: str, value: Any) -> None:
    options = LearningOptions()
    setattr(options, name, value)
    with pytest.raises(UserError) as error:
        check_learning_options(options)
    message = str(error.value)
    assert flag(name) in message and str(value) in message
    if isinstance(value, str):
        choices = RULES if name == "policy_rule" else ("learned", "random", "keep-all")
        assert all(choice in message for choice in choices), "says what there is to choose from"
    else:
        assert "must be" in message


@pytest.mark.parametrize(
    "name, value",
    [
        ("policy_flops_budget", 1.0),
        ("policy_flops_budget", 1e-3),
        ("policy_floor", 0.0),
        ("policy_floor", 0.1399),
        ("policy_random_keep", 0.0),
        ("policy_random_keep", 1.0),
        ("policy_lr", 0.0),
        ("policy_statistics_inputs", 0),
        ("policy_quality_slack", -0.01),
        ("policy_cost_beam", 1),
        *[("policy_rule", rule) for rule in RULES],
    ],
)
def test_accepted_learning_options(name: str, value: Any) -> None:
    options = LearningOptions()
    setattr(options, name, value)
    check_learning_options(options)


def test_defaults_are_accepted() -> None:
    check_learning_options(LearningOptions())
    check_learning_options(LexicoPolicyCriterionConfig())
    build_space(decision_options(), 2, 1)


def test_a_user_error_ends_a_command_with_its_message() -> None:
    assert issubclass(UserError, SystemExit) and not issubclass(UserError, Exception)
    assert UserError("mend it").code == "fairseq_switchdec: mend it"


def test_build_rule() -> None:
    options = LearningOptions()
    options.policy_flops_budget, options.policy_lambda = 0.6, 1.5
    rules = {}
    for name in RULES:
        options.policy_rule = name
        rules[name] = build_rule(options)
    assert rules == {"quality": QualityRule(), "budget": BudgetRule(0.6), "eq7": Eq7Rule(), "fixed": FixedRule(1.5)}


def test_split_names() -> None:
    assert split_names("a, b,,c ,") == ("a", "b", "c")
    assert split_names(" ") == ()


def our_fields(part: type) -> list[str]:
    return [
        item.name
        for item in dataclasses.fields(part)
        if item.name.startswith(("switch_", "policy_", "eval_rouge", "squad_"))
    ]


def test_table_has_every_option_once() -> None:
    rows = options_table().splitlines()[2:]
    flags = [re.match(r"\| `(--[a-z-]+)` \| `[^`]+` \| .+ \|$", row) for row in rows]
    assert all(flags), "three columns each"
    listed = [match.group(1) for match in flags if match]
    assert sorted(listed) == sorted(flag(name) for name in our_fields(SwitchConfig))
    assert len(set(listed)) == len(listed)
    assert all(row.count("|") == 4 for row in rows), "no help text breaks the table"


def test_every_option_belongs_to_one_group_of_fairseqs() -> None:
    parts = [our_fields(part) for part in (DecisionOptions, LearningOptions, RunOptions, SquadOptions)]
    together = list(itertools.chain.from_iterable(parts))
    assert sorted(together) == sorted(our_fields(SwitchConfig))
    assert len(set(together)) == len(together)
    assert set(our_fields(LexicoPolicyCriterionConfig)) == set(parts[1])
    assert set(our_fields(SwitchableTaskConfig)) == set(parts[2])


def test_every_option_says_what_it_is_for() -> None:
    for item in dataclasses.fields(SwitchConfig):
        if item.name in our_fields(SwitchConfig):
            assert len(item.metadata.get("help", "")) > 15, item.name


@pytest.mark.parametrize(
    ("ranks", "backend", "unused", "refused"),
    [
        (2, "pytorch_ddp", False, True),
        (2, "pytorch_ddp", True, False),
        (2, "legacy_ddp", False, False),
        (1, "pytorch_ddp", False, False),
    ],
)
def test_ddp_has_to_expect_skipped_sublayers(ranks: int, backend: str, unused: bool, refused: bool) -> None:
    options = SimpleNamespace(
        distributed_world_size=ranks, ddp_backend=backend, find_unused_parameters=unused, tpu=False
    )
    if refused:
        with pytest.raises(UserError, match="--find-unused-parameters"):
            check_distributed(options)
    else:
        check_distributed(options)


def test_a_tpu_is_refused() -> None:
    options = SimpleNamespace(
        distributed_world_size=1, ddp_backend="legacy_ddp", find_unused_parameters=False, tpu=True
    )
    with pytest.raises(UserError, match="--bf16 .* use --amp or --fp16"):
        check_distributed(options)
