"""The cost model: by hand, and equal to what an independent counter sees when the path is run."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from fairseq.sequence_generator import SequenceGenerator
from support import build_switchable
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from fairseq_switchdec.config import LexicoPolicyCriterionConfig
from fairseq_switchdec.cost import (
    Geometry,
    Keep,
    Lengths,
    Skipped,
    cost,
    expected_cost,
    expected_random_cost,
    flops,
    keep_probability_for_cost,
    parts_of_cost,
    same_path,
)
from fairseq_switchdec.criterions.classification import ClassificationObjective
from fairseq_switchdec.decisions import Decisions, DecisionSpace
from fairseq_switchdec.policy import DecisionDistribution, input_uniforms, random_decisions

#: Small numbers for hand arithmetic, all different.
HAND = Geometry(2, 1, encoder_dim=2, decoder_dim=3, encoder_ffn_dim=5, decoder_ffn_dim=7, vocabulary=11)
SPACE = DecisionSpace(2, 1, split_attention=True)

#: Larger than `HAND`, for rates: 3 + 2 layers.
MIDDLE = Geometry(3, 2, encoder_dim=12, decoder_dim=14, encoder_ffn_dim=40, decoder_ffn_dim=48, vocabulary=60)


def lengths(source: list[int], target: list[int], beam: int = 1, incremental: bool = True) -> Lengths:
    """With ``<s>`` and ``</s>``, so that the content is two tokens less."""
    tensor = torch.tensor(source)
    return Lengths(tensor, tensor - 2, torch.tensor(target), beam, incremental)


def decide(attention: str, ffn: str, cross: str, strategy: int) -> Decisions:
    bits = [torch.tensor([[letter == "1" for letter in text]]) for text in (attention, ffn, cross)]
    return Decisions(*bits, torch.tensor([strategy]))


# Source 6, content 4; target 3. Multiply-accumulates of each part, encoder tokens kept n:
#   encoder attention  n x 4 x 2^2 + 2 x n^2 x 2       n = 6: 240, n = 4: 128
#   encoder ffn        n x 2 x 2 x 5                   n = 6: 120, n = 4: 80
#   decoder attention  3 x 4 x 3^2 + 2 x keys x 3      keys 1 + 2 + 3 step by step: 144, 3 x 3 at once: 162
#   cross-attention    3 x (2 x 3^2 + 2 x n x 3) + n x 2 x 2 x 3        n = 6: 162 + 72, n = 4: 126 + 48
#   decoder ffn        3 x 2 x 3 x 7 = 126             output  3 x 3 x 11 = 99
@pytest.mark.parametrize(
    "decisions, incremental, macs",
    [
        (decide("111", "111", "1", 0), True, 2 * (240 + 120) + 144 + 234 + 126 + 99),
        (decide("111", "111", "1", 0), False, 2 * (240 + 120) + 162 + 234 + 126 + 99),
        (decide("111", "111", "1", 6), True, 240 + 120 + 128 + 80 + 144 + 174 + 126 + 99),
        (decide("101", "111", "1", 6), True, 240 + 120 + 80 + 144 + 174 + 126 + 99),
        (decide("111", "101", "1", 0), True, 2 * 240 + 120 + 144 + 234 + 126 + 99),
        (decide("110", "111", "1", 0), True, 2 * (240 + 120) + 234 + 126 + 99),
        (decide("111", "111", "0", 6), True, 240 + 120 + 128 + 80 + 144 + 126 + 99),
        (decide("111", "110", "1", 0), True, 2 * (240 + 120) + 144 + 234 + 99),
        (decide("100", "100", "0", 6), True, 240 + 120 + 99),
    ],
)
def test_by_hand(decisions: Decisions, incremental: bool, macs: int) -> None:
    sizes = lengths([6], [3], incremental=incremental)
    assert flops(HAND, Keep.of(decisions, sizes), sizes).tolist() == [2 * macs]
    assert flops(HAND, Keep.of(decisions, sizes), sizes, policy_flops=31).tolist() == [2 * macs + 31]
    full = 2 * (2 * (240 + 120) + (144 if incremental else 162) + 234 + 126 + 99)
    assert_close(cost(HAND, decisions, sizes), torch.tensor([2 * macs / full], dtype=torch.double))
    expected = torch.tensor([(2 * macs + 31) / (full + 31)], dtype=torch.double)
    assert_close(cost(HAND, decisions, sizes, policy_flops=31), expected)


def test_beam_by_hand() -> None:
    """All that decoding steps run is done for each hypothesis; keys and values of the source once an input.

    Self-attention compares a hypothesis with all four's keys: 2 x 4 x (1 + 2 + 3) x 3 = 144 instead of 36.
    """
    sizes = lengths([6], [3], beam=4)
    macs = 2 * (240 + 120) + 4 * (144 - 36 + 144 + 162 + 126 + 99) + 72
    assert flops(HAND, Keep.of(SPACE.keep_all(1), sizes), sizes).tolist() == [2 * macs]


# --- the independent counter ---


@pytest.fixture(scope="module", params=[False, True], ids=["joint", "split"])
def model(request: pytest.FixtureRequest, dictionary: Any) -> Any:
    """Encoder and decoder of different widths."""
    return build_switchable(
        dictionary, decoder_embed_dim=14, share_all_embeddings=False, switch_split_attention=request.param
    )


def draw(space: DecisionSpace, batch: int, seed: int, keep: float = 0.45) -> Decisions:
    return random_decisions(space, input_uniforms(seed, 0, torch.arange(batch), space.num_sublayers + 1), keep)


def sources(batch: int, length: int) -> torch.Tensor:
    tokens = torch.randint(4, 54, (batch, length), generator=torch.Generator().manual_seed(length))
    tokens[:, 0], tokens[:, -1] = 0, 2
    return tokens


def counted(run: Any) -> int:
    """FLOPs that torch's counter sees. It does not know attention's fused kernels on every device, so those are off."""
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


@pytest.mark.parametrize("length, target", [(17, 9), (2, 1), (3, 12)])
def test_equals_the_counter_with_teacher_forcing(model: Any, length: int, target: int) -> None:
    tokens, previous = sources(1, length), sources(1, target + 1)[:, :-1]
    sizes = lengths([length], [target], incremental=False)
    space = model.encoder.space
    strategies = set()
    for seed in range(5):
        decisions = draw(space, 1, seed)
        if seed == 0:
            decisions = space.keep_all(1)
        strategies.add(int(decisions.token_strategy))
        seen = counted(lambda decisions=decisions: model(tokens, None, previous, decisions=decisions))
        assert flops(model.geometry, Keep.of(decisions, sizes), sizes).tolist() == [seen]
    assert len(strategies) > 2, "token dropping is among them"


def test_equals_the_counter_for_a_batch_of_mixed_decisions(model: Any) -> None:
    decisions = draw(model.encoder.space, 6, seed=1)
    decisions = Decisions(*decisions.tensors()[:3], torch.full((6,), 5))  # one strategy: no padding
    sizes = lengths([13] * 6, [7] * 6, incremental=False)
    seen = counted(lambda: model(sources(6, 13), None, sources(6, 7), decisions=decisions))
    assert flops(model.geometry, Keep.of(decisions, sizes), sizes).sum() == seen


@pytest.mark.parametrize("per_layer", [False, True])
def test_equals_the_counter_with_the_policy_deciding(dictionary: Any, per_layer: bool) -> None:
    model = build_switchable(dictionary, switch_per_layer=per_layer)
    tokens, previous = sources(1, 11), sources(1, 5)
    sizes = lengths([11], [5], incremental=False)
    for bias in (0.0, -4.0, 3.0):
        for head in model.policy.sublayer_heads:
            head.bias.fill_(bias)
            head.bias[::2] *= -1
        model.policy.token_head.bias[4] = bias
        with torch.no_grad():
            decisions = model(tokens, None, previous)[1]["decisions"]
        seen = counted(lambda: model(tokens, None, previous))
        expected = flops(model.geometry, Keep.of(decisions, sizes), sizes, model.policy.flops())
        assert expected.tolist() == [seen]


@pytest.mark.parametrize("beam", [1, 4])
def test_equals_the_counter_in_generation(model: Any, dictionary: Any, beam: int) -> None:
    batch, length, steps = 3, 15, 4
    generator = SequenceGenerator([model], dictionary, beam_size=beam, max_len_b=steps - 1, min_len=steps - 1)
    sizes = lengths([length] * batch, [steps] * batch, beam=beam)
    tokens = sources(batch, length)
    for seed in range(2):
        decisions = draw(model.encoder.space, batch, seed)
        decisions = Decisions(*decisions.tensors()[:3], torch.full((batch,), 3 * seed + 2))  # one strategy: no padding
        net_input = {"src_tokens": tokens, "src_lengths": sizes.source, "decisions": decisions}
        found = []
        seen = counted(lambda: found.extend(generator.generate([model], {"net_input": net_input})))  # noqa: B023
        assert {len(hypothesis["tokens"]) for input_ in found for hypothesis in input_} == {steps}
        assert flops(model.geometry, Keep.of(decisions, sizes), sizes).sum() == seen


@pytest.mark.parametrize("length", [2, 3, 17])
def test_equals_the_counter_in_classification(dictionary: Any, length: int) -> None:
    """The decoder reads the whole input at once, and a head its last state; nothing is projected on the vocabulary."""
    model = build_switchable(dictionary)
    model.register_classification_head("kinds", num_classes=3, inner_dim=9)
    objective = ClassificationObjective(LexicoPolicyCriterionConfig(classification_head_name="kinds"))
    tokens = sources(2, length)
    inputs = {"src_tokens": tokens, "src_lengths": None, "prev_output_tokens": tokens.roll(1, 1)}
    for seed in range(4):
        decisions = draw(model.encoder.space, 2, seed)
        decisions = Decisions(*decisions.tensors()[:3], torch.full((2,), seed))  # one strategy: no padding
        sample = {"net_input": inputs, "target": torch.tensor([[0], [2]]), "ntokens": 2 * length}
        seen = counted(lambda: objective.loss(model, sample, decisions))  # noqa: B023
        sizes = objective.lengths(model, sample)
        assert flops(objective.geometry(model), Keep.of(decisions, sizes), sizes).sum() == seen


def test_a_span_head_is_priced_as_a_vocabulary_of_two(model: Any) -> None:
    tokens = sources(1, 9)
    head = torch.nn.Linear(14, 2)
    sizes = lengths([9], [9], incremental=False)
    decisions = draw(model.encoder.space, 1, seed=4)
    seen = counted(lambda: head(model(tokens, None, tokens, features_only=True, decisions=decisions)[0]))
    assert flops(replace(model.geometry, vocabulary=2), Keep.of(decisions, sizes), sizes).tolist() == [seen]


# --- the share ---


def test_cost_is_a_share() -> None:
    space = DecisionSpace(3, 2, split_attention=True)
    decisions = draw(space, 200, seed=2, keep=0.3)
    source = torch.randint(2, 60, (200,))
    sizes = Lengths(source, source - 2, torch.randint(1, 30, (200,)), beam=4)
    shares = cost(MIDDLE, decisions, sizes, policy_flops=100)
    assert shares.dtype == torch.double and shares.shape == (200,)
    assert (shares > 0).all() and (shares <= 1).all() and shares.min() < 0.6
    assert torch.equal(cost(MIDDLE, space.keep_all(200), sizes), torch.ones(200, dtype=torch.double))
    assert torch.equal(cost(MIDDLE, space.keep_all(200), sizes, 100), torch.ones(200, dtype=torch.double))


def test_every_decision_to_skip_lowers_the_cost() -> None:
    space = DecisionSpace(3, 2, split_attention=True)
    sizes = lengths([14], [6], beam=2)
    for start in (space.keep_all(1), draw(space, 1, seed=3)):
        keep, strategy = space.flat(start)
        before = cost(MIDDLE, start, sizes)
        for column in (keep[0] & space.open_sublayers()).nonzero().squeeze(1).tolist():
            fewer = keep.clone()
            fewer[0, column] = False
            assert cost(MIDDLE, space.decisions(fewer, strategy), sizes) < before
    by_strategy = [cost(MIDDLE, space.decisions(keep, torch.tensor([s])), sizes).item() for s in range(7)]
    assert by_strategy[0] > by_strategy[1] > by_strategy[2] > by_strategy[3]
    assert by_strategy[0] > by_strategy[4] > by_strategy[5] > by_strategy[6]


def test_inputs_are_priced_one_by_one() -> None:
    space = DecisionSpace(3, 2)
    decisions, sizes = draw(space, 5, seed=4), lengths([9, 4, 30, 2, 17], [3, 8, 1, 2, 5], beam=3)
    together = cost(MIDDLE, decisions, sizes, 50)
    for row in range(5):
        one = Lengths(*(tensor[row : row + 1] for tensor in (sizes.source, sizes.content, sizes.target)), beam=3)
        assert cost(MIDDLE, decisions.select([row]), one, 50) == together[row]


def test_pricing_changes_nothing() -> None:
    space = DecisionSpace(3, 2)
    decisions, sizes = draw(space, 5, seed=4), lengths([9, 4, 30, 2, 17], [3, 8, 1, 2, 5])
    before = Decisions(*(tensor.clone() for tensor in decisions.tensors()))
    cost(MIDDLE, decisions, sizes)
    Skipped.of(decisions, sizes)
    Keep.of(decisions, sizes)
    assert decisions.equal(before)


def test_skipped_shares_by_hand() -> None:
    sizes = lengths([6, 12], [3, 3])
    decisions = Decisions.cat([decide("101", "110", "0", 6), decide("111", "111", "1", 0)])
    skipped = Skipped.of(decisions, sizes)
    assert_close(skipped.attention, torch.tensor([1.5 / 3, 0.0], dtype=torch.double))  # half of the decoder's layer
    assert_close(skipped.ffn, torch.tensor([1 / 3, 0.0], dtype=torch.double))
    assert_close(skipped.tokens.double(), torch.tensor([2 / 6, 0.0], dtype=torch.double))


@pytest.mark.parametrize(
    "space",
    [
        DecisionSpace(3, 2),
        DecisionSpace(4, 0),
        DecisionSpace(3, 2, ("attention", "ffn"), split_attention=True),
        DecisionSpace(3, 2, ("ffn", "token"), ("encoder",)),
    ],
)
def test_any_path_costs_the_sum_of_its_parts(space: DecisionSpace) -> None:
    geometry = MIDDLE if space.decoder_layers else Geometry(4, 0, 12, 12, 40, 0, 60, key_dim=6, ffn_products=3)
    sizes = lengths([9, 4, 30, 2, 17], [3, 8, 1, 2, 5], beam=3)
    found = parts_of_cost(geometry, space, sizes, policy_flops=5000)
    assert found.shape == (5, 7, 1 + space.num_sublayers) and not found.requires_grad
    assert torch.equal(found[:, 0, 1:].any(0), space.open_sublayers()) and (found >= 0).all()
    keep, strategy = torch.rand(40, space.num_sublayers) < 0.5, torch.arange(40) % 7
    for row in range(5):
        path = space.decisions(keep, strategy)
        kept, used = space.flat(path)
        runs = torch.cat([torch.ones(40, 1), kept], dim=1).double()
        whole = Lengths(*(each[row].expand(40) for each in (sizes.source, sizes.content, sizes.target)), sizes.beam)
        assert_close((found[row, used] * runs).sum(1), cost(geometry, path, whole, policy_flops=5000))


# --- what a policy's probabilities cost ---


@pytest.mark.parametrize(
    "space",
    [
        DecisionSpace(3, 2, split_attention=True),
        DecisionSpace(3, 2, ("attention", "ffn")),
        DecisionSpace(3, 2, scope=("decoder",)),
    ],
)
def test_expected_cost_is_the_mean_over_sampled_decisions(space: DecisionSpace) -> None:
    count, generator = 6000, torch.Generator().manual_seed(8)
    sizes = lengths([9, 25, 12], [3, 8, 12], beam=4)
    repeated = Lengths(*(t.repeat(count) for t in (sizes.source, sizes.content, sizes.target)), beam=4)
    logits = torch.randn(3, space.num_sublayers, generator=generator), torch.randn(3, 7, generator=generator)
    distribution = DecisionDistribution(*(part.repeat(count, 1) for part in logits))
    uniforms = torch.rand(3 * count, space.num_sublayers + 1, generator=generator)
    sampled = space.decisions(*distribution.sample(uniforms[:, :-1], uniforms[:, -1], 0.0))
    costs = cost(MIDDLE, sampled, repeated, policy_flops=50).view(count, 3)
    expected = expected_cost(MIDDLE, space, *DecisionDistribution(*logits).probabilities(), sizes, policy_flops=50)
    assert costs.std(0).min() > 0.01, "or the test would show nothing"
    assert ((costs.mean(0) - expected).abs() <= 5 * costs.std(0) / count**0.5).all()


def test_same_path() -> None:
    """On a short text a strategy may drop nothing, or what another drops."""
    sizes = lengths([7] * 6, [3] * 6)  # 5 content tokens: dropped 0, 0, 1, 1, 1, 1, 2
    one = Decisions.cat([decide("111", "101", "1", strategy) for strategy in (0, 2, 4, 4, 0, 0)])
    two = Decisions.cat(
        [
            decide("111", "101", "1", 1),
            decide("111", "101", "1", 3),
            decide("111", "101", "1", 5),
            decide("111", "101", "1", 2),
            decide("111", "111", "1", 0),
            decide("111", "101", "0", 1),
        ]
    )
    assert same_path(one, two, sizes).tolist() == [True, True, False, False, False, False]


# --- random decisions of a given cost ---


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("split", [False, True])
def test_expected_random_cost_is_the_mean_over_random_decisions(keep: float, split: bool) -> None:
    space, count = DecisionSpace(3, 2, split_attention=split), 4000
    sizes = lengths([9, 25, 3], [3, 8, 12], beam=4)
    repeated = Lengths(*(t.repeat(count) for t in (sizes.source, sizes.content, sizes.target)), beam=4)
    uniforms = torch.rand(3 * count, space.num_sublayers + 1, generator=torch.Generator().manual_seed(8))
    costs = cost(MIDDLE, random_decisions(space, uniforms, keep), repeated)
    error = costs.mean() - expected_random_cost(MIDDLE, sizes, keep)
    # 5 standard errors of the mean; rounding alone where nothing is random.
    assert abs(error) <= 5 * costs.std() / (3 * count) ** 0.5 + 1e-12


def test_keep_probability_inverts_the_expected_cost() -> None:
    sizes = lengths([9, 25, 3], [3, 8, 12], beam=4)
    keeps = [step / 10 for step in range(11)]
    costs = [expected_random_cost(MIDDLE, sizes, keep) for keep in keeps]
    assert costs == sorted(set(costs)) and costs[-1] == 1.0
    for keep, expected in zip(keeps, costs):
        assert keep_probability_for_cost(MIDDLE, sizes, expected) == pytest.approx(keep, abs=1e-9)


def test_a_cost_below_what_always_runs_is_refused() -> None:
    sizes = lengths([9], [3])
    least = expected_random_cost(MIDDLE, sizes, 0.0)
    with pytest.raises(ValueError, match=f"what always runs costs {least:.3f}"):
        keep_probability_for_cost(MIDDLE, sizes, least - 0.01)
