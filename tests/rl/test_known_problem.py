"""`quality` and `budget` find the best decisions of a made-up problem, known by enumeration.

Inputs of three types need different sublayers and tokens. The policy sees a noisy embedding of the type; the loss of a
path is read from a table, its cost from the real cost model; everything else is what training runs: one decision tried
an input, a share of keep-all inputs, advantages over the greedy path, the learner and the rule.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from fairseq_switchdec.cost import Geometry, Lengths, cost, expected_cost, parts_of_cost
from fairseq_switchdec.decisions import NUM_TOKEN_STRATEGIES, Decisions, DecisionSpace
from fairseq_switchdec.dial import AUTO, Dial
from fairseq_switchdec.policy import DecisionDistribution, SwitchPolicy, input_uniforms
from fairseq_switchdec.rl import (
    BudgetRule,
    DialRule,
    Evidence,
    LearnerState,
    Observation,
    OneDeviation,
    PolicyLearner,
    PooledDeviation,
    QualityRule,
    Tries,
    Weights,
    policy_gradients,
    price,
    skips,
)

SPACE = DecisionSpace(3, 2)
GEOMETRY = Geometry(3, 2, encoder_dim=64, decoder_dim=64, encoder_ffn_dim=256, decoder_ffn_dim=256, vocabulary=100)
TYPES, FEATURES = 3, 8

#: Nats a token of the full model, and its share by which rule `quality` lets the greedy path's loss exceed that.
KEEP_ALL_LOSS, SLACK = 1.0, 0.05

#: What skipping a sublayer loses in nats a token, and dropping tokens twice as much, where an input needs neither ...
MILD = 0.002
#: ... and where it does: more than the slack of all types together.
VITAL = 0.3

#: For each type, the open sublayers (attention, then feed-forward, of layers 1 to 4) and strategies 1 to 6.
NEEDS = (
    ("VVmm" "mVmV", "mmmVVV"),  # needs its head: the tail may go
    ("mVVm" "VmVm", "VVVmmm"),  # redundant: every other token may go
    ("mmVV" "VVmm", "VVVVVV"),  # needs all of its tokens
)  # fmt: skip


def loss_tables() -> tuple[Tensor, Tensor]:
    """Nats that a type loses by skipping each sublayer, (types, num_sublayers), and by each strategy, (types, 7)."""
    prices = {"m": MILD, "V": VITAL}
    sublayers = torch.zeros(TYPES, SPACE.num_sublayers)
    sublayers[:, SPACE.open_sublayers()] = torch.tensor([[prices[need] for need in needs] for needs, _ in NEEDS])
    tokens = torch.tensor([[0.0] + [2 * prices[need] for need in needs] for _, needs in NEEDS])
    return sublayers, tokens


def path_loss(types: Tensor, decisions: Decisions) -> Tensor:
    """Nats a token, (B,)."""
    sublayer_loss, token_loss = loss_tables()
    keep, strategy = SPACE.flat(decisions)
    return KEEP_ALL_LOSS + (sublayer_loss[types] * ~keep).sum(1) + token_loss[types, strategy]


def path_cost(decisions: Decisions) -> Tensor:
    """Cost of inputs of one length, so that each type has one best decision: (B,)."""
    return cost(GEOMETRY, decisions, lengths(len(decisions))).float()


def expected_costs(distribution: DecisionDistribution) -> Tensor:
    """What a policy expects to run: (B,)."""
    keep, tokens = distribution.probabilities()
    return expected_cost(GEOMETRY, SPACE, keep, tokens, lengths(len(keep)))


def lengths(inputs: int) -> Lengths:
    each = torch.ones(inputs, dtype=torch.long)
    return Lengths(22 * each, 20 * each, 5 * each)


# --- by enumeration ---


def every_decision() -> Decisions:
    """All 2^8 x 7 decisions of the space."""
    free = SPACE.open_sublayers().nonzero().squeeze(1)
    bits = torch.tensor(list(itertools.product([False, True], repeat=free.numel())))
    keep = torch.ones(len(bits), SPACE.num_sublayers, dtype=torch.bool)
    keep[:, free] = bits
    strategies = torch.arange(NUM_TOKEN_STRATEGIES).repeat_interleave(len(bits))
    return SPACE.decisions(keep.repeat(NUM_TOKEN_STRATEGIES, 1), strategies)


def pareto(objective: Tensor, constraint: Tensor) -> list[tuple[float, float, int]]:
    """(objective, constraint, index) of the decisions that none is better than in both: no others can be best."""
    front: list[tuple[float, float, int]] = []
    for item in sorted(zip(objective.tolist(), constraint.tolist(), range(len(objective)))):
        if not front or item[1] < front[-1][1]:
            front.append(item)
    return front


def enumerated_best(minimize: str, limit: float) -> Decisions:
    """Each type's decision in the best combination of one decision a type.

    Args:
        minimize: ``cost``, with the types' mean loss within the limit; or ``loss``, with their mean cost within it.
    """
    everything = every_decision()
    fronts = []
    for index in range(TYPES):
        values = {
            "loss": path_loss(torch.full((len(everything),), index), everything),
            "cost": path_cost(everything),
        }
        fronts.append(pareto(values.pop(minimize), values.popitem()[1]))
    combinations = (
        (sum(objective for objective, _, _ in parts), [index for _, _, index in parts])
        for parts in itertools.product(*fronts)
        if sum(constraint for _, constraint, _ in parts) <= TYPES * limit
    )
    return everything.select(min(combinations)[1])


# --- by learning ---

UPDATES, INPUTS, STATISTICS_UPDATES = 300, 192, 5
LEARNING_RATE, FLOOR, KEEP_ALL_SHARE, NOISE = 1e-2, 0.02, 0.25, 0.1


def draw(inputs: int) -> tuple[Tensor, Tensor]:
    """Types, (B,), and what the policy reads of them, (B, 1, FEATURES)."""
    types = torch.randint(TYPES, (inputs,))
    return types, (torch.eye(TYPES, FEATURES)[types] + 0.1 * torch.randn(inputs, FEATURES)).unsqueeze(1)


def learn(rule: Callable[[Observation], Weights], seed: int, dial: Dial | None = None) -> SwitchPolicy:
    """A policy after learning."""
    torch.manual_seed(seed)
    policy = SwitchPolicy(SPACE, FEATURES, 32, dial=dial)
    learner = PolicyLearner(policy, LearnerState(policy), rule, LEARNING_RATE, STATISTICS_UPDATES * INPUTS)
    for update in range(UPDATES):
        types, features = draw(INPUTS)
        ids = torch.arange(update * INPUTS, (update + 1) * INPUTS)
        uniforms = input_uniforms(seed, update, ids, SPACE.num_sublayers + 3)
        progress = min(1.0, update / (0.9 * UPDATES))
        learner.accumulate(evidence(policy, learner.state, types, features, uniforms, progress))
        learner.step(LEARNING_RATE * (1 - progress), progress)
    return policy


def decided(policy: SwitchPolicy, budget: float | None = None) -> Decisions:
    """Each type's greedy decision."""
    budgets = None if budget is None else torch.full((TYPES,), budget)
    return SPACE.decisions(*policy(torch.eye(TYPES, FEATURES).unsqueeze(1), budgets).greedy())


def evidence(
    policy: SwitchPolicy,
    state: LearnerState,
    types: Tensor,
    features: Tensor,
    uniforms: Tensor,
    progress: float,
) -> Evidence:
    """What the criterion gathers, with losses from the tables."""
    keep_all, dial = uniforms[:, -2] < KEEP_ALL_SHARE, policy.dial
    budgets = None if dial is None else dial.draw(uniforms[:, -1], keep_all)
    distribution = policy(features, budgets)
    estimator, deviating = (PooledDeviation, uniforms[:, 2] >= progress) if dial is None else (OneDeviation, None)
    exploration = estimator(uniforms[:, :-2], keep_all, FLOOR, SPACE, policy.stages, budgets, deviating)
    chosen = exploration(distribution, policy.stages[0])
    sampled, greedy = (SPACE.decisions(*choice) for choice in (chosen, distribution.greedy()))
    losses = [path_loss(types, path) + NOISE * torch.randn(len(types)) for path in (sampled, greedy)]
    costs = [path_cost(path) for path in (sampled, greedy)]
    held = [costs[1].sum().view(1), expected_costs(distribution).sum().view(1)]
    weights = torch.stack([~keep_all, ~keep_all, exploration.explored], dim=1).double()
    if dial is not None and budgets is not None:
        weights[:, [0, 2]] *= (dial.columns(budgets).double() @ price(state.caution[0])).unsqueeze(1)
        knots = len(dial.knots)
        asked = policy(features.repeat(knots, 1, 1), dial.knots.repeat_interleave(len(types)))
        costs_of_all = (path_cost(SPACE.decisions(*asked.greedy())), expected_costs(asked))
        held = [each.view(knots, -1).sum(1) for each in costs_of_all]
    tried = exploration.explored.unsqueeze(1)
    tries = Tries(
        SPACE,
        sampled,
        torch.stack([losses[0] - losses[1], costs[0] - costs[1]], dim=1) * tried,
        state.effects(SPACE),
        lambda keep, tokens: expected_cost(GEOMETRY, SPACE, keep, tokens, lengths(len(types))),
    )
    skipped = (skips(SPACE, sampled) - skips(SPACE, greedy)) * tried
    halves = torch.stack([weights, weights * (torch.arange(len(types)) % 2).unsqueeze(1)])
    gradients = policy_gradients(policy, features, lambda d: exploration.objectives(d, tries), halves, budgets)
    return Evidence(
        gradients=gradients[0],
        half=gradients[1],
        decided=int((~keep_all).sum()),
        sampled=int(exploration.explored.sum()),
        surveyed=0,
        violation=float(((losses[1] - losses[0] * (1 + SLACK)) * keep_all).sum()),
        compared=int(keep_all.sum()),
        quality=float(losses[1].sum()),
        cost=held[0],
        expected_cost=held[1],
        products=skipped.T @ skipped,
        losses=skipped.T @ tries.advantages[:, 0].double(),
        parts=parts_of_cost(GEOMETRY, SPACE, lengths(len(types))).sum(0),
        inputs=len(types),
        features=features,
    )


#: Between the cost of the best decisions within it and that of any with one more sublayer kept.
BUDGET = 0.6


@pytest.mark.parametrize("seed", [0, 1])
def test_quality_finds_the_cheapest_decisions_within_the_bound(seed: int) -> None:
    best = enumerated_best("cost", KEEP_ALL_LOSS * (1 + SLACK))
    assert decided(learn(QualityRule(), seed)).to_json() == best.to_json()


@pytest.mark.parametrize("seed", [0, 1])
def test_budget_finds_the_best_decisions_within_the_budget(seed: int) -> None:
    best = enumerated_best("loss", BUDGET)
    assert decided(learn(BudgetRule(BUDGET), seed)).to_json() == best.to_json()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_one_policy_finds_good_decisions_for_every_budget(seed: int) -> None:
    """Left to itself at most one sublayer of one type from the best ones; for a budget nothing vital is skipped, more
    is not worse, and new inputs keep it on average.
    """
    dial, types = Dial(BUDGET, 1.0, auto=True), torch.arange(TYPES)
    policy = learn(DialRule(dial, QualityRule()), seed, dial)
    best, own = enumerated_best("cost", KEEP_ALL_LOSS * (1 + SLACK)), decided(policy, AUTO)
    assert float(path_loss(types, own).mean()) <= KEEP_ALL_LOSS * (1 + SLACK)
    assert float(path_cost(own).mean()) <= float(path_cost(best).mean()) + 0.02
    assert decided(policy, 1.0).equal(SPACE.keep_all(TYPES))
    losses, (_, features) = [], draw(3000)
    for budget in (0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95):
        losses.append(float(path_loss(types, decided(policy, budget)).mean()))
        path = SPACE.decisions(*policy(features, torch.full((3000,), budget)).greedy())
        assert float(path_cost(path).mean()) == pytest.approx(budget, abs=0.01)
    assert losses == sorted(losses, reverse=True) and losses[0] < KEEP_ALL_LOSS + VITAL / TYPES / 4


def test_the_problem_is_what_it_is_said_to_be() -> None:
    """The best decisions differ by type, skip all that is mild and nothing vital, and leave no second choice."""
    bound, types = KEEP_ALL_LOSS * (1 + SLACK), torch.arange(TYPES)
    best = enumerated_best("loss", BUDGET)
    assert best.equal(enumerated_best("cost", bound))
    keep, strategy = SPACE.flat(best)
    assert strategy.tolist() == [3, 6, 0]
    assert torch.equal(keep, loss_tables()[0] != MILD)
    assert path_cost(best).mean() < BUDGET and path_loss(types, best).mean() < bound
    for row, column in SPACE.open_sublayers().expand(TYPES, -1).nonzero().tolist():
        flipped = keep.clone()
        flipped[row, column] ^= True
        other = SPACE.decisions(flipped, strategy)
        if flipped[row, column]:
            assert path_cost(other).mean() > BUDGET
        else:
            assert path_loss(types, other).mean() > bound
