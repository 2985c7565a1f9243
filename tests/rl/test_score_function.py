"""The score-function estimator's expectation is the exact gradient, by enumerating every decision."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.func import functional_call
from torch.testing import assert_close

from fairseq_switchdec.decisions import Decisions, DecisionSpace
from fairseq_switchdec.policy import DecisionDistribution, SwitchPolicy, input_uniforms
from fairseq_switchdec.rl import SampledChooser, limited_advantages, score_function_gradients

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
    chooser = SampledChooser(torch.rand(count, space.num_sublayers + 1), torch.zeros(count, dtype=torch.bool), floor)
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


def test_limited_advantages_by_hand() -> None:
    sampled, greedy = torch.tensor([1.0, 1.3, 4.0, 0.2]), torch.tensor([1.0, 1.0, 1.0, 1.0])
    assert_close(limited_advantages(sampled, greedy, 0.5), torch.tensor([0.0, 0.3, 0.5, -0.5]))
    assert_close(limited_advantages(sampled, greedy, math.inf), sampled - greedy)


def test_a_limit_and_a_baseline_tell_what_can_be_spared_from_noise() -> None:
    """One sublayer whose skip loses 4 nats beside five whose skip loses .05: what the estimate says of the five."""
    space, floor, count, vital = DecisionSpace(4, 0), 0.02, 20_000, 1
    policy = make_policy(space)
    distribution = policy(torch.randn(1, 1, DIM).expand(count, -1, -1))
    chooser = SampledChooser(torch.rand(count, space.num_sublayers + 1), torch.zeros(count, dtype=torch.bool), floor)
    keep, tokens = chooser(distribution, policy.stages[0])
    others = space.open_sublayers()
    others[vital] = False
    losses = 0.05 * (~keep & others).sum(1) + 4.0 * ~keep[:, vital]
    logits = distribution.sublayer_logits.detach().requires_grad_()
    with torch.enable_grad():
        sampled = DecisionDistribution(logits, distribution.token_logits.detach())
        log_prob = sampled.log_prob(space, space.decisions(keep, tokens), floor).sum()
    (scores,) = torch.autograd.grad(log_prob, logits)

    def clearness(advantages: Tensor) -> Tensor:
        """Mean over standard deviation of an input's gradient by the others' logits: below 0, keeping is better."""
        gradients = (scores * advantages.unsqueeze(1))[:, others]
        return gradients.mean(0) / gradients.std(0)

    limited = limited_advantages(losses, torch.zeros(count), 0.5)
    assert (clearness(limited - limited.mean()) < 0).all()
    assert (clearness(limited - limited.mean()) < 3 * clearness(losses - losses.mean()).clamp(max=0)).all()


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


# --- the chooser of training ---


def test_sampled_chooser_samples_and_keeps_all_where_told() -> None:
    space = DecisionSpace(3, 2)
    policy = make_policy(space)
    count = 64
    uniforms = input_uniforms(1, 2, torch.arange(count), space.num_sublayers + 1)
    keep_all = torch.arange(count) % 4 == 0
    distribution = policy(torch.randn(count, 1, DIM))
    keep, tokens = SampledChooser(uniforms, keep_all, 0.02)(distribution, policy.stages[0])
    expected, strategies = distribution.sample(uniforms[:, :-1], uniforms[:, -1], 0.02)
    assert tokens is not None and strategies is not None
    assert keep[keep_all].all() and not tokens[keep_all].any()
    assert torch.equal(keep[~keep_all], expected[~keep_all]) and torch.equal(tokens[~keep_all], strategies[~keep_all])
    assert not expected[keep_all].all() and strategies[keep_all].any(), "or the test would show nothing"


def test_sampled_chooser_gives_every_stage_its_own_numbers() -> None:
    space = DecisionSpace(4, 2, split_attention=True)
    policy = make_policy(space, per_layer=True)
    features = torch.randn(8, len(policy.stages), DIM)
    uniforms = input_uniforms(1, 2, torch.arange(8), space.num_sublayers + 1)
    chooser = SampledChooser(uniforms, torch.zeros(8, dtype=torch.bool), 0.02)
    decided = space.keep_all(8)
    for index in range(len(policy.stages)):
        decided = policy.decide(index, features[:, index], chooser, decided)
    at_once = policy(features).sample(uniforms[:, :-1], uniforms[:, -1], 0.02)
    assert decided.equal(space.decisions(*at_once))
