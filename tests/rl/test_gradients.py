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
from fairseq_switchdec.rl import (
    LEAST_DOUBT,
    Exploration,
    OneDeviation,
    PooledDeviation,
    SampledPaths,
    Tries,
    num_effects,
    policy_gradients,
)

DIM = 5


def make_policy(space: DecisionSpace, per_layer: bool = False) -> SwitchPolicy:
    torch.manual_seed(3)
    policy = SwitchPolicy(space, DIM, 6, per_layer)
    for parameter in policy.parameters():
        parameter += 0.5 * torch.randn_like(parameter)
    return policy


def make_unsure(policy: SwitchPolicy) -> None:
    """Bring all probabilities away from 0 and 1."""
    for head in (*policy.sublayer_heads, policy.token_head):
        assert isinstance(head, torch.nn.Linear)
        head.weight *= 0.2
        head.bias *= 0.2
        head.bias -= head.bias.mean()


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
    return estimate_of(paths, policy, features, decisions, advantages)


def estimate_of(
    exploration: Exploration,
    policy: SwitchPolicy,
    features: Tensor,
    tried: Decisions,
    advantages: Tensor,
    effects: Tensor | None = None,
    prices: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """The gradients, (K, P), where a cost is what the parts of `additive` sum up to."""
    space = policy.space
    tries = Tries(
        space,
        tried,
        advantages,
        torch.zeros(num_effects(space), dtype=torch.float64) if effects is None else effects,
        lambda keep, tokens: expected_sum(keep, tokens, *prices) if prices else advantages[:, 1],
    )
    weights = torch.ones(len(advantages), advantages.size(1) + 1)
    *gradients, told = policy_gradients(policy, features, lambda d: exploration.objectives(d, tries), weights)
    return torch.stack([gradients[0] + told, *gradients[1:]])


def expected_sum(keep: Tensor, tokens: Tensor | None, parts: Tensor, of_strategy: Tensor) -> Tensor:
    """What is expected of a sum of one number for every sublayer kept and one for the token strategy, (B,)."""
    assert tokens is not None
    return keep @ parts + tokens @ of_strategy


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
    advantages = torch.randn(4, 2)
    together = score_function_gradients(policy, features, decisions, advantages, 0.02)
    assert together.shape == (2, sum(parameter.numel() for parameter in policy.parameters()))
    apart = sum(
        score_function_gradients(policy, features[i : i + 1], decisions.select([i]), advantages[i : i + 1], 0.02)
        for i in range(4)
    )
    assert_close(together, apart)
    swapped = score_function_gradients(policy, features, decisions, advantages.flip(1), 0.02)
    assert_close(together, swapped.flip(0))


# --- one decision changed ---


def additive_parts(space: DecisionSpace) -> tuple[Tensor, Tensor]:
    """What every open sublayer that runs adds to loss and cost, (n, 2), and every token strategy, (7, 2)."""
    generator = torch.Generator().manual_seed(7)
    parts = torch.randn(space.num_sublayers, 2, generator=generator) * space.open_sublayers().unsqueeze(1)
    return parts, torch.randn(NUM_TOKEN_STRATEGIES, 2, generator=generator) * space.token_open


def additive_losses(space: DecisionSpace, decisions: Decisions) -> Tensor:
    """A loss and a cost, (n, 2), of these parts."""
    parts, of_strategy = additive_parts(space)
    keep, strategy = space.flat(decisions)
    return keep.float() @ parts + of_strategy[strategy]


def additive_effects(space: DecisionSpace) -> Tensor:
    """What each decision loses of the first of these sums."""
    parts, of_strategy = additive_parts(space)
    return torch.cat([-parts[:, 0], of_strategy[:, 0] - of_strategy[0, 0]]).double()


def deviate(
    policy: SwitchPolicy,
    features: Tensor,
    uniforms: Tensor,
    keep_all: Tensor | None = None,
    floor: float = 0.02,
    estimator: type[OneDeviation] = PooledDeviation,
) -> tuple[OneDeviation, Decisions]:
    keep_all = torch.zeros(len(uniforms), dtype=torch.bool) if keep_all is None else keep_all
    exploration = estimator(uniforms, keep_all, floor, policy.space, policy.stages)
    decided = policy.space.keep_all(len(uniforms))
    for index in range(len(policy.stages)):
        decided = policy.decide(index, features[:, index], exploration, decided)
    return exploration, decided


@pytest.mark.parametrize("known", ["not pooled", "nothing", "everything", "the wrong things"])
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
    space: DecisionSpace, per_layer: bool, floor: float, known: str
) -> None:
    """Whatever is thought to be known of the decisions beforehand."""
    policy = make_policy(space, per_layer)
    make_unsure(policy)
    features = torch.randn(1, len(policy.stages), DIM)
    keep, tokens = policy(features).probabilities()
    assert tokens is not None and tokens.min() > LEAST_DOUBT
    assert LEAST_DOUBT < keep.min() < 0.5 < keep.max() < 1 - LEAST_DOUBT
    every = every_decision(space)
    exact = exact_gradients(policy, features, every, additive_losses(space, every), 0.0)
    effects = additive_effects(space)
    if known != "everything":
        opened = torch.cat([space.open_sublayers(), torch.tensor([False] + [space.token_open] * 6)])
        effects = (known == "the wrong things") * opened * torch.linspace(-1, 2, len(effects), dtype=torch.float64)
    # Places for evenly spaced numbers: their frequencies are their probabilities.
    side = 300 if per_layer else 20_000
    place = (torch.arange(side) + 0.5) / side
    uniforms = torch.cartesian_prod(place, place) if per_layer else torch.stack([place, place], dim=1)
    repeated = features.expand(len(uniforms), -1, -1)
    estimator = OneDeviation if known == "not pooled" else PooledDeviation
    exploration, tried = deviate(policy, repeated, uniforms, floor=floor, estimator=estimator)
    greedy = space.decisions(*policy(repeated).greedy())
    differences = additive_losses(space, tried) - additive_losses(space, greedy)
    parts, of_strategy = additive_parts(space)
    prices = parts[:, 1], of_strategy[:, 1]
    estimate = estimate_of(exploration, policy, repeated, tried, differences, effects, prices) / len(uniforms)
    assert exact.abs().max() > 1e-2, "or the test would show nothing"
    tolerance = 1e-3 if known == "everything" else 2e-2
    assert_close(estimate[0], exact[0], rtol=tolerance, atol=tolerance * float(exact[0].abs().max()))
    tolerance = 2e-2 if known == "not pooled" else 1e-3  # pooled, a cost is not estimated
    assert_close(estimate[1], exact[1], rtol=tolerance, atol=tolerance * float(exact[1].abs().max()))


@pytest.mark.parametrize("estimator", [OneDeviation, PooledDeviation])
@pytest.mark.parametrize("per_layer", [False, True])
def test_one_decision_is_changed_and_only_an_open_one(per_layer: bool, estimator: type[OneDeviation]) -> None:
    space, count = DecisionSpace(3, 2, ("attention", "token"), ("encoder",)), 4000
    policy = make_policy(space, per_layer)
    features = torch.randn(1, len(policy.stages), DIM).expand(count, -1, -1)
    keep_all = torch.arange(count) % 4 == 0
    uniforms = input_uniforms(1, 2, torch.arange(count), 4)
    exploration, tried = deviate(policy, features, uniforms, keep_all, estimator=estimator)
    keep, strategy = space.flat(tried)
    greedy_keep, greedy_strategy = space.flat(space.decisions(*policy(features).greedy()))
    assert keep[keep_all].all() and not strategy[keep_all].any()
    changed = (keep != greedy_keep).sum(1) + (strategy != greedy_strategy)
    assert (changed[~keep_all] == 1).all()
    assert torch.equal((keep != greedy_keep)[~keep_all].any(0), space.open_sublayers())
    assert len(strategy[~keep_all].unique()) == NUM_TOKEN_STRATEGIES
    if estimator is PooledDeviation:  # both kinds alike, whatever the stages
        assert float((strategy != greedy_strategy)[~keep_all].float().mean()) == pytest.approx(0.5, abs=0.03)
    # A policy of one stage tries a place (pooled: of its kind) as often as it deviates there itself, but not more
    # rarely than the floor.
    if not per_layer:
        probability = policy(features[:1]).probabilities()[0][0]
        deviating = torch.where(greedy_keep[0], 1 - probability, probability).clamp(min=0.02)[space.open_sublayers()]
        found = (keep != greedy_keep)[~keep_all].float().mean(0)[space.open_sublayers()]
        assert_close(found / found.sum(), deviating / deviating.sum(), rtol=0, atol=0.05)
    assert (exploration.weight[~keep_all] >= 1 - 1e-9).all() and not exploration.weight[keep_all].any()


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("scope", [("encoder", "decoder"), ("decoder",)])
def test_pooled_tries_every_kind_alike_in_every_stage(scope: tuple[str, ...], split: bool) -> None:
    """With a stage a layer, a kind's stages as often as they hold its decisions; tokens in the first one only."""
    space, count = DecisionSpace(4, 2, scope=scope, split_attention=split), 40_000
    policy = make_policy(space, per_layer=True)
    features = torch.randn(1, len(policy.stages), DIM).expand(count, -1, -1)
    uniforms = input_uniforms(1, 2, torch.arange(count), 4)
    exploration, tried = deviate(policy, features, uniforms, estimator=PooledDeviation)
    assert tried.equal(space.decisions(*space.flat(tried)))
    opened = space.open_sublayers()
    found = torch.bincount(exploration.place, minlength=num_effects(space)).double() / count
    assert not found[: space.num_sublayers][~opened].any()
    kinds = [opened & (torch.arange(space.num_sublayers) // space.num_layers == kind) for kind in range(2 + split)]
    sums = [found[: space.num_sublayers][kind].sum() for kind in kinds]
    sums += [found[space.num_sublayers :].sum()] * space.token_open
    assert_close(torch.stack(sums), torch.full((len(sums),), 1 / len(sums)).double(), rtol=0, atol=0.01)
    for kind, columns in itertools.product(kinds, policy.stages):
        share = float(kind[columns].sum() / kind.sum())
        assert float(found[columns][kind[columns]].sum()) == pytest.approx(share / len(sums), abs=0.01)


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
        greedy = space.decisions(*distribution.greedy())
        worse = (loss(decisions) - loss(greedy)).unsqueeze(1).expand(-1, 2)
        unknown = torch.zeros(num_effects(space), dtype=torch.float64)
        tries = Tries(space, decisions, worse, unknown, lambda keep, _: keep.sum(1))
        with torch.enable_grad():
            again = DecisionDistribution(logits, distribution.token_logits.detach())
            losses = exploration.objectives(again, tries)[:, [0, 2]].sum()
        gradients = torch.autograd.grad(losses, logits)[0][:, others]
        return gradients.mean(0) / gradients.std(0)

    local = clearness(OneDeviation(uniforms, nobody, 0.02, space, policy.stages))
    assert (local < 0).all()
    assert (local < 3 * clearness(SampledPaths(uniforms, nobody, 0.02)).clamp(max=0)).all()


@pytest.mark.parametrize("harm", [1.0, -1.0])
@pytest.mark.parametrize("tried", [1, 2, 3])
def test_what_is_known_makes_nothing_surer_than_sure_but_a_try_does(tried: int, harm: float) -> None:
    """Sublayer 1 is surely kept, 3 surely skipped; strategy 2 surely not chosen, 4 surely. To skip loses, or gains."""
    space = DecisionSpace(4, 0)
    logits, token_logits = torch.zeros(1, 8), torch.zeros(1, NUM_TOKEN_STRATEGIES)
    logits[0, 1], logits[0, 3], logits[0, 2] = 5.0, -5.0, 0.5
    token_logits[0, 2], token_logits[0, 4] = -5.0, 5.0
    leaves = logits.requires_grad_(), token_logits.requires_grad_()
    keep = (logits[0] > 0) ^ (torch.arange(8) == tried)
    decisions = space.decisions(keep.unsqueeze(0), torch.zeros(1, dtype=torch.long))
    exploration = PooledDeviation(
        torch.zeros(1, 2), torch.zeros(1, dtype=torch.bool), 0.02, space, [torch.arange(space.num_sublayers)]
    )
    exploration.place[0], exploration.weight[0] = tried, 2.0
    effects = harm * torch.cat([torch.linspace(1, 2, 8), torch.arange(7)]).double()
    tries = Tries(
        space,
        decisions,
        torch.tensor([[0.7, 0.0]]),
        effects,
        lambda keep, tokens: expected_sum(keep, tokens, torch.ones(8), -torch.arange(7.0)),
    )
    with torch.enable_grad():
        loss, cost, told = exploration.objectives(DecisionDistribution(*leaves), tries)[0]
        by_loss, loss_of_tokens = torch.autograd.grad(loss + told, leaves, retain_graph=True)
        by_cost, cost_of_tokens = torch.autograd.grad(cost, leaves)
    slopes = logits[0].sigmoid() * (1 - logits[0].sigmoid())
    expected = -slopes * effects[:8].float()
    expected[1 if harm > 0 else 3] = 0.0
    expected[tried] += (1 if keep[tried] else -1) * slopes[tried] * 2 * 0.7
    assert_close(by_loss[0], expected)
    expected = slopes.clone()
    expected[3] = 0.0
    assert_close(by_cost[0], expected)
    # Of the strategies, the loss moves only what is likely enough, the cost all but what is too likely.
    chosen = token_logits[0].softmax(0).detach().requires_grad_()
    assert (chosen[[0, 1, 2, 3, 5, 6]] < LEAST_DOUBT).all() and chosen[4] > 1 - LEAST_DOUBT
    known = {4: 4.0} if harm > 0 else {k: -float(k) for k in (1, 2, 3, 5, 6)}
    for found, pushed in ((loss_of_tokens, known), (cost_of_tokens, {k: -float(k) for k in (1, 2, 3, 5, 6)})):
        by_probability = torch.tensor([pushed.get(k, 0.0) for k in range(7)])
        with torch.enable_grad():
            again = token_logits[0].detach().requires_grad_()
            (by_hand,) = torch.autograd.grad((again.softmax(0) * by_probability).sum(), again)
        assert_close(found[0], by_hand)


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
