"""What the estimators of the policy's gradient expect, by enumerating every decision; and what they try."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor
from torch.func import functional_call
from torch.testing import assert_close

from fairseq_switchdec.decisions import NUM_TOKEN_STRATEGIES, Decisions, DecisionSpace
from fairseq_switchdec.policy import DecisionDistribution, SwitchPolicy, input_uniforms
from fairseq_switchdec.rl import Exploration, OneDeviation, SampledPaths, policy_gradients

DIM = 5


def make_policy(space: DecisionSpace, per_layer: bool = False) -> SwitchPolicy:
    torch.manual_seed(3)
    policy = SwitchPolicy(space, DIM, 6, per_layer)
    for parameter in policy.parameters():
        parameter += 0.5 * torch.randn_like(parameter)
    return policy


def every_decision(space: DecisionSpace) -> Decisions:
    free = space.open_sublayers().nonzero().squeeze(1).tolist()
    rows = list(itertools.product(*([[False, True]] * len(free)), range(7 if space.token_open else 1)))
    keep = torch.ones(len(rows), space.num_sublayers, dtype=torch.bool)
    for row, (*bits, _) in enumerate(rows):
        keep[row, free] = torch.tensor(bits, dtype=torch.bool)
    return space.decisions(keep, torch.tensor([row[-1] for row in rows]))


def codes(space: DecisionSpace, decisions: Decisions) -> list[int]:
    """A number for each different decision."""
    keep, strategy = space.flat(decisions)
    return ((keep.long() << torch.arange(space.num_sublayers)).sum(1) * 7 + strategy).tolist()


def exact_gradients(
    policy: SwitchPolicy, features: Tensor, decisions: Decisions, values: Tensor, floor: float
) -> Tensor:
    """Autograd of the expected values, (K, P), for one input's features and every decision's values (n, K)."""
    parameters = {name: value.detach().requires_grad_() for name, value in policy.named_parameters()}
    distribution = functional_call(policy, parameters, (features.expand(len(decisions), -1, -1),))
    probability = distribution.log_prob(policy.space, decisions, floor).exp()
    rows = []
    for value in values.unbind(1):
        gradients = torch.autograd.grad(
            (probability * value).sum(), list(parameters.values()), retain_graph=True, allow_unused=True
        )
        pairs = zip(parameters.values(), gradients)
        rows.append(torch.cat([torch.zeros_like(p).flatten() if g is None else g.flatten() for p, g in pairs]))
    return torch.stack(rows)


def score_function_gradients(
    policy: SwitchPolicy, features: Tensor, decisions: Decisions, advantages: Tensor, floor: float
) -> Tensor:
    count = len(decisions)
    paths = SampledPaths(torch.rand(count, policy.space.num_sublayers + 1), torch.zeros(count, dtype=torch.bool), floor)
    return policy_gradients(
        policy, features, lambda distribution: paths.surrogate(distribution, policy.space, decisions), advantages
    )


@pytest.mark.parametrize("floor", [0.0, 0.02])
@pytest.mark.parametrize(
    "space, per_layer",
    [
        (DecisionSpace(2, 1), False),
        (DecisionSpace(2, 1), True),
        (DecisionSpace(3, 1, ("attention", "token")), True),
        (DecisionSpace(2, 1, ("ffn", "attention"), split_attention=True), False),
        (DecisionSpace(2, 1, ("token",)), False),
    ],
)
def test_expectation_is_the_exact_gradient(space: DecisionSpace, per_layer: bool, floor: float) -> None:
    policy = make_policy(space, per_layer)
    decisions = every_decision(space)
    features = torch.randn(1, len(policy.stages), DIM)
    values = torch.randn(len(decisions), 2)  # a quality loss and a cost for each decision
    exact = exact_gradients(policy, features, decisions, values, floor)
    repeated = features.expand(len(decisions), -1, -1)
    probability = policy(repeated).log_prob(space, decisions, floor).exp().unsqueeze(1)
    for baseline in (torch.zeros(2), values[0], torch.tensor([3.0, -7.0])):
        estimate = score_function_gradients(policy, repeated, decisions, probability * (values - baseline), floor)
        # Sums of some hundred float32 terms, of which a baseline's cancel.
        assert_close(estimate, exact, rtol=1e-4, atol=2e-5)
    assert exact.abs().max() > 1e-2, "or the test would show nothing"


def test_sampled_estimates_average_to_the_exact_gradient() -> None:
    space, floor, count = DecisionSpace(2, 1), 0.02, 20_000
    policy = make_policy(space)
    features = torch.randn(1, 1, DIM)
    decisions = every_decision(space)
    values = torch.randn(len(decisions), 2)
    index = {code: row for row, code in enumerate(codes(space, decisions))}
    repeated = features.expand(count, -1, -1)
    chooser = SampledPaths(torch.rand(count, space.num_sublayers + 1), torch.zeros(count, dtype=torch.bool), floor)
    sampled = space.decisions(*chooser(policy(repeated), policy.stages[0]))
    found = values[[index[code] for code in codes(space, sampled)]]
    estimate = score_function_gradients(policy, repeated, sampled, found, floor) / count
    exact = exact_gradients(policy, features, decisions, values, floor)
    # Monte Carlo: the error falls with the root of the count, and the direction is the exact one.
    assert torch.cosine_similarity(estimate, exact, dim=1).min() > 0.98
    assert ((estimate - exact).norm(dim=1) < 0.15 * exact.norm(dim=1)).all()


def test_sums_over_inputs_and_separates_advantages() -> None:
    space = DecisionSpace(3, 2)
    policy = make_policy(space, per_layer=True)
    features = torch.randn(4, 3, DIM)
    uniforms = input_uniforms(0, 0, torch.arange(4), space.num_sublayers + 1)
    decisions = space.decisions(uniforms[:, :-1] < 0.5, torch.tensor([0, 6, 3, 1]))
    advantages = torch.randn(4, 3)
    together = score_function_gradients(policy, features, decisions, advantages, 0.02)
    assert together.shape == (3, sum(parameter.numel() for parameter in policy.parameters()))
    apart = sum(
        score_function_gradients(policy, features[i : i + 1], decisions.select([i]), advantages[i : i + 1], 0.02)
        for i in range(4)
    )
    assert_close(together, apart)
    one = score_function_gradients(policy, features, decisions, advantages[:, 1:2], 0.02)
    assert_close(together[1:2], one)


# --- one decision changed ---


def additive_losses(space: DecisionSpace, decisions: Decisions, seed: int = 7) -> Tensor:
    """A loss and a cost, (n, 2), to which every sublayer and every token strategy adds its own part."""
    generator = torch.Generator().manual_seed(seed)
    parts = torch.randn(space.num_sublayers, 2, generator=generator)
    of_strategy = torch.randn(NUM_TOKEN_STRATEGIES, 2, generator=generator)
    keep, strategy = space.flat(decisions)
    return keep.float() @ parts + of_strategy[strategy]


def deviate(
    policy: SwitchPolicy, features: Tensor, uniforms: Tensor, keep_all: Tensor | None = None, floor: float = 0.02
) -> tuple[OneDeviation, Decisions]:
    keep_all = torch.zeros(len(uniforms), dtype=torch.bool) if keep_all is None else keep_all
    exploration = OneDeviation(uniforms, keep_all, floor, policy.space, policy.stages)
    decided = policy.space.keep_all(len(uniforms))
    for index in range(len(policy.stages)):
        decided = policy.decide(index, features[:, index], exploration, decided)
    return exploration, decided


@pytest.mark.parametrize("floor", [0.0, 0.02, 0.1])
@pytest.mark.parametrize(
    "space, per_layer",
    [
        (DecisionSpace(2, 1), False),
        (DecisionSpace(3, 1), True),
        (DecisionSpace(4, 0), False),
        (DecisionSpace(3, 1, ("ffn", "token")), True),
        (DecisionSpace(2, 1, ("ffn", "attention"), split_attention=True), False),
        (DecisionSpace(2, 1, ("token",)), False),
        (DecisionSpace(3, 2, scope=("decoder",)), True),
    ],
)
def test_where_losses_add_up_one_deviation_expects_the_exact_gradient(
    space: DecisionSpace, per_layer: bool, floor: float
) -> None:
    policy = make_policy(space, per_layer)
    features = torch.randn(1, len(policy.stages), DIM)
    every = every_decision(space)
    exact = exact_gradients(policy, features, every, additive_losses(space, every), 0.0)
    # Places for evenly spaced numbers: their frequencies are their probabilities.
    side = 300 if per_layer else 20_000
    place = (torch.arange(side) + 0.5) / side
    uniforms = torch.cartesian_prod(place, place) if per_layer else torch.stack([place, place], dim=1)
    repeated = features.expand(len(uniforms), -1, -1)
    exploration, tried = deviate(policy, repeated, uniforms, floor=floor)
    greedy = space.decisions(*policy(repeated).greedy())
    differences = additive_losses(space, tried) - additive_losses(space, greedy)
    estimate = policy_gradients(
        policy, repeated, lambda distribution: exploration.surrogate(distribution, space, tried), differences
    ) / len(uniforms)
    assert exact.abs().max() > 1e-2, "or the test would show nothing"
    assert_close(estimate, exact, rtol=2e-2, atol=2e-2 * float(exact.abs().max()))


@pytest.mark.parametrize("per_layer", [False, True])
def test_one_decision_is_changed_and_only_an_open_one(per_layer: bool) -> None:
    space, count = DecisionSpace(3, 2, ("attention", "token"), ("encoder",)), 4000
    policy = make_policy(space, per_layer)
    features = torch.randn(1, len(policy.stages), DIM).expand(count, -1, -1)
    keep_all = torch.arange(count) % 4 == 0
    uniforms = input_uniforms(1, 2, torch.arange(count), 4)
    exploration, tried = deviate(policy, features, uniforms, keep_all)
    keep, strategy = space.flat(tried)
    greedy_keep, greedy_strategy = space.flat(space.decisions(*policy(features).greedy()))
    assert keep[keep_all].all() and not strategy[keep_all].any()
    changed = (keep != greedy_keep).sum(1) + (strategy != greedy_strategy)
    assert (changed[~keep_all] == 1).all()
    assert torch.equal((keep != greedy_keep)[~keep_all].any(0), space.open_sublayers())
    assert len(strategy[~keep_all].unique()) == NUM_TOKEN_STRATEGIES
    # A policy of one stage tries a place as often as it deviates there itself, but not more rarely than the floor.
    if not per_layer:
        probability = policy(features[:1]).probabilities()[0][0]
        deviating = torch.where(greedy_keep[0], 1 - probability, probability).clamp(min=0.02)[space.open_sublayers()]
        found = (keep != greedy_keep)[~keep_all].float().mean(0)[space.open_sublayers()]
        assert_close(found / found.sum(), deviating / deviating.sum(), rtol=0, atol=0.05)
    assert (exploration.weight >= 1 - 1e-9).all()


def test_one_deviation_tells_what_can_be_spared_where_sampled_paths_drown() -> None:
    """One sublayer whose skip loses 4 nats beside five whose skip loses .05: what an estimate says of the five."""
    space, count, vital = DecisionSpace(4, 0), 20_000, 1
    policy = make_policy(space)
    policy.sublayer_heads[0].bias += 3  # the greedy path keeps all, the vital one too
    features = torch.randn(1, 1, DIM).expand(count, -1, -1)
    uniforms, nobody = torch.rand(count, space.num_sublayers + 1), torch.zeros(count, dtype=torch.bool)
    others = space.open_sublayers()
    others[vital] = False

    def loss(decisions: Decisions) -> Tensor:
        keep, _ = space.flat(decisions)
        return 0.05 * (~keep & others).sum(1) + 4.0 * ~keep[:, vital]

    def clearness(exploration: Exploration) -> Tensor:
        """Mean over standard deviation of an input's gradient by the others' logits: below 0, keeping is better."""
        distribution = policy(features)
        decisions = space.decisions(*exploration(distribution, policy.stages[0]))
        logits = distribution.sublayer_logits.detach().requires_grad_()
        with torch.enable_grad():
            again = DecisionDistribution(logits, distribution.token_logits.detach())
            surrogate = exploration.surrogate(again, space, decisions).sum()
        (scores,) = torch.autograd.grad(surrogate, logits)
        greedy = space.decisions(*distribution.greedy())
        gradients = (scores * (loss(decisions) - loss(greedy)).unsqueeze(1))[:, others]
        return gradients.mean(0) / gradients.std(0)

    local = clearness(OneDeviation(uniforms, nobody, 0.02, space, policy.stages))
    assert (local < 0).all()
    assert (local < 3 * clearness(SampledPaths(uniforms, nobody, 0.02)).clamp(max=0)).all()


def test_leaves_policy_and_features_alone() -> None:
    policy = make_policy(DecisionSpace(2, 1))
    features = torch.randn(2, 1, DIM, requires_grad=True)
    before = [parameter.clone() for parameter in policy.parameters()]
    with torch.no_grad():  # as called within a step that needs no gradient itself
        gradients = score_function_gradients(policy, features, policy.space.keep_all(2), torch.ones(2, 2), 0.02)
    assert not gradients.requires_grad and gradients.any()
    assert features.grad is None
    for parameter, value in zip(policy.parameters(), before):
        assert not parameter.requires_grad and parameter.grad is None and torch.equal(parameter, value)


def test_inputs_without_an_advantage_count_for_nothing_however_sure_the_policy_is() -> None:
    policy = make_policy(DecisionSpace(2, 1))
    for head in policy.sublayer_heads:
        head.bias += 40  # sigmoid is 1 in float32
    gradients = score_function_gradients(
        policy, torch.randn(3, 1, DIM), policy.space.keep_all(3), torch.tensor([[0.0, 0], [1, 0], [0, 0]]), 0.0
    )
    assert gradients.isfinite().all() and not gradients[1].any()


# --- sampled paths ---


def test_sampled_paths_samples_and_keeps_all_where_told() -> None:
    space = DecisionSpace(3, 2)
    policy = make_policy(space)
    count = 64
    uniforms = input_uniforms(1, 2, torch.arange(count), space.num_sublayers + 1)
    keep_all = torch.arange(count) % 4 == 0
    distribution = policy(torch.randn(count, 1, DIM))
    keep, tokens = SampledPaths(uniforms, keep_all, 0.02)(distribution, policy.stages[0])
    expected, strategies = distribution.sample(uniforms[:, :-1], uniforms[:, -1], 0.02)
    assert tokens is not None and strategies is not None
    assert keep[keep_all].all() and not tokens[keep_all].any()
    assert torch.equal(keep[~keep_all], expected[~keep_all]) and torch.equal(tokens[~keep_all], strategies[~keep_all])
    assert not expected[keep_all].all() and strategies[keep_all].any(), "or the test would show nothing"


def test_sampled_paths_gives_every_stage_its_own_numbers() -> None:
    space = DecisionSpace(4, 2, split_attention=True)
    policy = make_policy(space, per_layer=True)
    features = torch.randn(8, len(policy.stages), DIM)
    uniforms = input_uniforms(1, 2, torch.arange(8), space.num_sublayers + 1)
    chooser = SampledPaths(uniforms, torch.zeros(8, dtype=torch.bool), 0.02)
    decided = space.keep_all(8)
    for index in range(len(policy.stages)):
        decided = policy.decide(index, features[:, index], chooser, decided)
    at_once = policy(features).sample(uniforms[:, :-1], uniforms[:, -1], 0.02)
    assert decided.equal(space.decisions(*at_once))
