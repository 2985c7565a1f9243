"""The policy and its distributions, by enumeration of small decision spaces."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch.testing import assert_close

from fairseq_switchdec.decisions import CANDIDATES, NUM_TOKEN_STRATEGIES, Decisions, DecisionSpace
from fairseq_switchdec.policy import (
    DecisionDistribution,
    GreedyChoice,
    SwitchPolicy,
    input_uniforms,
    pool,
    random_decisions,
)

#: 4 open sublayers and the 7 strategies: 112 decisions.
SMALL = DecisionSpace(2, 1)
SPACES = [
    SMALL,
    DecisionSpace(2, 2, split_attention=True),
    DecisionSpace(2, 1, ("attention",)),
    DecisionSpace(2, 1, ("token",)),
]


def random_policy(space: DecisionSpace, dim: int = 6, hidden: int = 10, per_layer: bool = False) -> SwitchPolicy:
    """A policy that reads its input: the heads' weights are not zero."""
    torch.manual_seed(1)
    policy = SwitchPolicy(space, dim, hidden, per_layer)
    for parameter in policy.parameters():
        parameter += 0.7 * torch.randn_like(parameter)
    policy.feature_mean.normal_()
    policy.feature_std.uniform_(0.5, 2)
    return policy


def every_decision(space: DecisionSpace) -> Decisions:
    """All decisions of a space, each once."""
    free = space.open_sublayers().nonzero().squeeze(1).tolist()
    strategies = range(NUM_TOKEN_STRATEGIES if space.token_open else 1)
    rows = list(itertools.product(*([[False, True]] * len(free)), strategies))
    keep = torch.ones(len(rows), space.num_sublayers, dtype=torch.bool)
    for row, (*bits, _) in enumerate(rows):
        keep[row, free] = torch.tensor(bits, dtype=torch.bool)
    return space.decisions(keep, torch.tensor([row[-1] for row in rows]))


def repeated(distribution: DecisionDistribution, row: int, times: int) -> DecisionDistribution:
    """One input's distribution for many."""
    tokens = distribution.token_logits
    return DecisionDistribution(
        distribution.sublayer_logits[row].expand(times, -1), None if tokens is None else tokens[row].expand(times, -1)
    )


def one_distribution(space: DecisionSpace, seed: int = 0) -> DecisionDistribution:
    generator = torch.Generator().manual_seed(seed)
    return DecisionDistribution(
        torch.randn(3, space.num_sublayers, generator=generator) * 2, torch.randn(3, 7, generator=generator) * 2
    )


# --- the distribution ---


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("floor", [0.0, 0.02, 0.14])
def test_probabilities_of_all_decisions_sum_to_one(space: DecisionSpace, floor: float) -> None:
    decisions = every_decision(space)
    for row in range(3):
        log_prob = repeated(one_distribution(space), row, len(decisions)).log_prob(space, decisions, floor)
        assert_close(log_prob.exp().sum(), torch.tensor(1.0))


def test_log_prob_by_hand() -> None:
    space = DecisionSpace(2, 1, ("ffn", "token"))  # open: feed-forward of layers 1 and 2
    logits = torch.full((1, 6), 9.0)
    logits[0, 4], logits[0, 5] = math.log(3), math.log(1 / 4)  # keep with 3/4 and 1/5
    distribution = DecisionDistribution(logits, torch.log(torch.tensor([[6.0, 1, 1, 1, 1, 1, 1]])))
    keep = torch.tensor([[False, False, False, False, True, False]])  # closed columns stay kept and do not count
    decisions = space.decisions(keep, torch.tensor([2]))
    assert_close(distribution.log_prob(space, decisions, 0.0), torch.tensor([3 / 4 * 4 / 5 * 1 / 12]).log())
    with_floor = (0.1 + 0.8 * 3 / 4) * (1 - (0.1 + 0.8 / 5)) * (0.1 + 0.3 / 12)
    assert_close(distribution.log_prob(space, decisions, 0.1), torch.tensor([with_floor]).log())


@pytest.mark.parametrize("space", SPACES)
def test_entropy_by_enumeration(space: DecisionSpace) -> None:
    decisions, distribution = every_decision(space), one_distribution(space)
    expected = []
    for row in range(3):
        log_prob = repeated(distribution, row, len(decisions)).log_prob(space, decisions, 0.0)
        expected.append(-(log_prob.exp() * log_prob).sum())
    assert_close(distribution.entropy(space), torch.stack(expected))


def test_entropy_of_certainty_is_zero() -> None:
    certain = DecisionDistribution(torch.full((1, 6), 200.0), torch.tensor([[500.0, 0, 0, 0, 0, 0, 0]]))
    assert certain.entropy(SMALL).item() == 0
    assert DecisionDistribution(torch.full((1, 6), -200.0), certain.token_logits).entropy(SMALL).item() == 0


@pytest.mark.parametrize("floor", [0.0, 0.02, 0.1])
def test_samples_come_as_often_as_their_probabilities_say(floor: float) -> None:
    count = 40_000
    distribution = one_distribution(SMALL)
    uniforms = torch.rand(count, SMALL.num_sublayers + 1, generator=torch.Generator().manual_seed(2))
    for row in range(3):
        keep, tokens = repeated(distribution, row, count).sample(uniforms[:, :-1], uniforms[:, -1], floor)
        expected_keep, expected_tokens = repeated(distribution, row, 1).probabilities(floor)
        assert tokens is not None and expected_tokens is not None
        frequencies = torch.cat([keep.float().mean(0), tokens.bincount(minlength=7) / count])
        expected = torch.cat([expected_keep[0], expected_tokens[0]])
        # 5 standard deviations of a binomial frequency: one false alarm in 1.7 million for each of 13 x 9 frequencies.
        bound = 5 * (expected * (1 - expected) / count).sqrt()
        assert ((frequencies - expected).abs() <= bound).all()
        assert (expected_keep >= floor).all() and (expected_keep <= 1 - floor).all()
        assert (expected_tokens >= floor * (1 - 1e-6)).all()
        assert_close(expected_tokens.sum(), torch.tensor(1.0))


def test_sample_at_the_edges_of_the_unit_interval() -> None:
    # Strategies 0 and 1 have probability 1/2 each; the others cannot happen.
    tokens = torch.tensor([[0.0, 0, -1e9, -1e9, -1e9, -1e9, -1e9]]).expand(4, -1)
    distribution = DecisionDistribution(torch.zeros(4, 1), tokens)
    below_one = 1 - 2**-24
    keep, strategy = distribution.sample(
        torch.tensor([[0.0], [0.5], [0.5 - 2**-24], [below_one]]),
        torch.tensor([0.0, 0.5, 0.5 - 2**-24, below_one]),
        0.0,
    )
    assert keep.squeeze(1).tolist() == [True, False, True, False], "P(u < p) = p needs u = p to fall outside"
    assert strategy is not None
    assert strategy[:3].tolist() == [0, 1, 0]
    assert strategy[3] == 1, "a strategy of probability 0 is never drawn"


def test_certain_decisions_are_always_drawn() -> None:
    uniforms = torch.tensor([0.0, 0.3, 1 - 2**-24])
    for logit, kept in ((50.0, True), (-200.0, False)):
        distribution = DecisionDistribution(
            torch.full((3, 2), logit), torch.tensor([[0.0, 0, 0, 0, 0, 0, 200]]).expand(3, 7)
        )
        keep, strategy = distribution.sample(uniforms.unsqueeze(1).expand(3, 2), uniforms, 0.0)
        assert (keep == kept).all() and strategy is not None and (strategy == 6).all()


def test_greedy_is_the_most_likely_decision() -> None:
    for space in SPACES:
        decisions, distribution = every_decision(space), one_distribution(space, seed=4)
        greedy = space.decisions(*distribution.greedy())
        for row in range(3):
            best = repeated(distribution, row, len(decisions)).log_prob(space, decisions, 0.0).argmax()
            assert greedy.select([row]).equal(decisions.select([int(best)]))


def test_greedy_keeps_at_one_half() -> None:
    keep, tokens = DecisionDistribution(torch.tensor([[0.0, -1e-6, 1e-6]]), None).greedy()
    assert keep.tolist() == [[True, False, True]] and tokens is None


# --- the network ---


@pytest.mark.parametrize("per_layer", [False, True])
def test_a_new_policy_keeps_everything(per_layer: bool) -> None:
    space = DecisionSpace(4, 3, split_attention=True)
    policy = SwitchPolicy(space, 6, 10, per_layer)
    features = torch.randn(5, len(policy.stages), 6) * 100
    distribution = policy(features)
    keep, tokens = distribution.probabilities()
    assert_close(keep, torch.full((5, space.num_sublayers), 0.95))
    assert_close(tokens, torch.tensor([[0.4] + [0.1] * 6]).expand(5, 7))
    assert space.decisions(*distribution.greedy()).equal(space.keep_all(5))


def test_reset_parameters_makes_a_new_policy() -> None:
    policy = random_policy(SMALL)
    policy.reset_parameters()
    assert_close(policy(torch.randn(2, 1, 6)).probabilities()[0], torch.full((2, 6), 0.95))
    assert not any(parameter.requires_grad for parameter in policy.parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_stays_in_float32_whatever_the_model_is_cast_to(dtype: torch.dtype) -> None:
    policy = random_policy(DecisionSpace(3, 2), per_layer=True)
    model = torch.nn.ModuleDict({"policy": policy, "other": torch.nn.Linear(2, 2)})
    before = {name: value.clone() for name, value in policy.state_dict().items()}
    model.to(dtype)
    assert model["other"].weight.dtype == dtype
    for name, value in policy.state_dict().items():
        assert value.dtype == torch.float32 and torch.equal(value, before[name])
    features = torch.randn(4, 3, 6).to(dtype)
    distribution = policy(features)
    assert distribution.sublayer_logits.dtype == torch.float32
    assert_close(distribution.sublayer_logits, policy(features.float()).sublayer_logits)


def test_autocast_does_not_reach_it() -> None:
    policy = random_policy(SMALL)
    features = torch.randn(4, 1, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = policy(features)
    assert torch.equal(inside.sublayer_logits, policy(features).sublayer_logits)


def test_no_parameter_needs_a_gradient() -> None:
    policy = SwitchPolicy(DecisionSpace(3, 2), 6, 10, per_layer=True)
    assert list(policy.parameters()) and not any(parameter.requires_grad for parameter in policy.parameters())


def test_features_are_standardized() -> None:
    policy = random_policy(SMALL)
    features = torch.randn(4, 1, 6)
    expected = policy(features)
    shifted = features * 3 + 5
    policy.feature_mean.mul_(3).add_(5)
    policy.feature_std.mul_(3)
    assert_close(policy(shifted).sublayer_logits, expected.sublayer_logits)
    assert_close(policy(shifted).token_logits, expected.token_logits)


def test_flops_counts_every_linear_layer() -> None:
    assert SwitchPolicy(SMALL, 6, 10).flops() == 2 * (6 * 10 + 10 * 6 + 10 * 7)
    # Two stages, the encoder's and the decoder's, with 4 and 2 of the 6 columns.
    assert SwitchPolicy(SMALL, 6, 10, per_layer=True).flops() == 2 * (2 * 6 * 10 + 10 * 4 + 10 * 2 + 10 * 7)


# --- stages ---


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("encoder_layers", [2, 3, 5])
def test_stages_cover_every_column_once(encoder_layers: int, split: bool) -> None:
    space = DecisionSpace(encoder_layers, 2, split_attention=split)
    assert [columns.tolist() for columns in SwitchPolicy(space, 6, 10).stages] == [list(range(space.num_sublayers))]
    stages = SwitchPolicy(space, 6, 10, per_layer=True).stages
    assert len(stages) == encoder_layers, "stage k reads the output of encoder layer k"
    assert torch.equal(torch.cat(stages).sort().values, torch.arange(space.num_sublayers))
    layers = space.layer_of_sublayer()
    for index, columns in enumerate(stages[:-1]):
        decided = set(layers[columns].tolist())
        assert decided == ({0, 1} if index == 0 else {index + 1}), "an encoder layer is decided by the one before it"
    assert set(layers[stages[-1]].tolist()) == {encoder_layers, encoder_layers + 1}


@pytest.mark.parametrize("split", [False, True])
def test_forward_equals_stage_by_stage(split: bool) -> None:
    space = DecisionSpace(4, 2, split_attention=split)
    policy = random_policy(space, per_layer=True)
    features = torch.randn(5, 4, 6)
    distribution = policy(features)
    decided = space.keep_all(5)
    for index, columns in enumerate(policy.stages):
        stage = policy.stage(index, features[:, index])
        assert torch.equal(distribution.sublayer_logits[:, columns], stage.sublayer_logits)
        assert (stage.token_logits is not None) == (index == 0)
        before = decided
        decided = policy.decide(index, features[:, index], GreedyChoice(), decided)
        others = torch.ones(space.num_sublayers, dtype=torch.bool)
        others[columns] = False
        assert torch.equal(space.flat(decided)[0][:, others], space.flat(before)[0][:, others])
    assert decided.equal(space.decisions(*distribution.greedy()))
    assert not decided.attention_keep.all() and decided.token_strategy.any(), "or the test would show nothing"


def test_decide_opens_nothing_that_is_closed() -> None:
    space = DecisionSpace(3, 2, ("ffn",), ("decoder",))
    policy = random_policy(space)
    for head in policy.sublayer_heads:
        head.bias -= 100
    decided = policy.decide(0, torch.randn(4, 6), GreedyChoice(), space.keep_all(4))
    assert decided.attention_keep.all() and decided.ffn_keep[:, :3].all() and not decided.ffn_keep[:, 3:].any()
    assert not decided.token_strategy.any()


# --- pooling ---


def test_pool_by_hand() -> None:
    x = torch.randn(9, 4)
    pooled = pool(x, torch.tensor([5, 1, 3]))
    assert_close(pooled, torch.stack([x[:5].mean(0), x[5], x[6:].mean(0)]))
    assert pool(x.half(), torch.tensor([9])).dtype == torch.float32


def test_pool_sums_long_half_precision_inputs_in_float32() -> None:
    x = torch.full((4096, 1), 100.0, dtype=torch.float16)  # their sum is beyond half precision
    assert_close(pool(x, torch.tensor([4096])), torch.tensor([[100.0]]))


# --- randomness ---


def test_uniforms_depend_on_the_id_not_on_the_batch() -> None:
    ids = torch.tensor([7, 0, 123_456, 3, 2**32 + 7, 2**40])
    rows = input_uniforms(5, 11, ids, 9)
    order = torch.tensor([3, 5, 0, 4, 2, 1])
    assert torch.equal(input_uniforms(5, 11, ids[order], 9), rows[order])
    assert torch.equal(input_uniforms(5, 11, ids[2:3], 9), rows[2:3])
    assert torch.equal(input_uniforms(5, 11, ids, 4), rows[:, :4]), "a longer row starts as the shorter one"
    assert rows.unique(dim=0).size(0) == len(ids)


@pytest.mark.parametrize("seed", [0, 1, 2**31 - 1, 2**31, 2**32 - 1, -1])
def test_uniforms_differ_by_seed_update_and_id(seed: int) -> None:
    points = [
        (seed, 0, 5),
        (seed, 1, 5),
        (seed, 200_000, 5),
        (seed, 0, 6),
        (seed, 1, 6),
        (seed ^ 1, 0, 5),
        (seed ^ 1, 1, 5),
    ]
    rows = torch.cat([input_uniforms(seed, update, torch.tensor([index]), 8) for seed, update, index in points])
    assert rows.unique(dim=0).size(0) == len(points)


@pytest.mark.parametrize("vary", ["ids", "updates", "columns"])
def test_uniforms_look_uniform(vary: str) -> None:
    count = 4000
    if vary == "ids":
        numbers = input_uniforms(1, 0, torch.arange(count), 1)
    elif vary == "updates":
        numbers = torch.cat([input_uniforms(1, update, torch.tensor([3]), 1) for update in range(count)])
    else:
        numbers = input_uniforms(1, 0, torch.tensor([3]), count)
    assert numbers.dtype == torch.float32 and numbers.min() >= 0 and numbers.max() < 1
    ordered = numbers.flatten().sort().values
    steps = torch.arange(count) / count
    distance = torch.maximum(ordered - steps, steps + 1 / count - ordered).max()
    assert distance < 1.95 / count**0.5, "Kolmogorov-Smirnov at the 0.1 % level"
    flat = numbers.flatten() - 0.5
    correlation = (flat[1:] * flat[:-1]).mean() * 12
    assert abs(correlation) < 5 / count**0.5, "neighbours are independent"


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.8, 1.0])
def test_random_decisions_have_the_stated_rates(keep: float) -> None:
    space, count = DecisionSpace(3, 2, split_attention=True), 20_000
    uniforms = torch.rand(count, space.num_sublayers + 1, generator=torch.Generator().manual_seed(6))
    decisions = random_decisions(space, uniforms, keep)
    flat, strategy = space.flat(decisions)
    expected = torch.where(space.open_sublayers(), keep, 1.0)
    frequencies = torch.cat([flat.float().mean(0), strategy.bincount(minlength=7) / count])
    expected = torch.cat([expected, torch.tensor([keep] + [(1 - keep) / 6] * 6)])
    # 5 standard deviations of a binomial frequency; exact where the probability is 0 or 1.
    assert ((frequencies - expected).abs() <= 5 * (expected * (1 - expected) / count).sqrt() + 1e-7).all()


def test_random_decisions_leave_closed_ones_alone() -> None:
    space = DecisionSpace(3, 2, CANDIDATES[:1], ("decoder",))
    decisions = random_decisions(space, torch.rand(50, space.num_sublayers + 1), 0.0)
    assert decisions.ffn_keep.all() and not decisions.token_strategy.any()
    assert decisions.attention_keep[:, :3].all() and not decisions.attention_keep[:, 3:].any()


@pytest.mark.parametrize("keep", [0.0, 0.5, 1 - 2**-24, 1.0])
def test_random_strategies_stay_in_range_at_the_edges(keep: float) -> None:
    edges = torch.tensor([0.0, 0.5, 0.5 + 2**-24, 1 - 2**-24])
    uniforms = torch.zeros(4, SMALL.num_sublayers + 1)
    uniforms[:, -1] = edges
    strategy = random_decisions(SMALL, uniforms, keep).token_strategy
    assert ((strategy >= 0) & (strategy <= 6)).all()
    assert torch.equal(strategy == 0, edges < keep)


def test_gradients_reach_no_closed_decision() -> None:
    space = DecisionSpace(2, 1, ("attention",))
    logits = torch.randn(2, 6, requires_grad=True)
    tokens = torch.randn(2, 7, requires_grad=True)
    decisions = space.decisions(torch.zeros(2, 6, dtype=torch.bool), torch.tensor([3, 4]))
    DecisionDistribution(logits, tokens).log_prob(space, decisions, 0.02).sum().backward()
    assert logits.grad is not None
    assert torch.equal(logits.grad != 0, space.open_sublayers().expand(2, 6))
    assert tokens.grad is None
