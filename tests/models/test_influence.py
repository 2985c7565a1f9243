"""What layers change, measured on every backbone, and the policy that starts from it."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from backbones import make_pair
from support import build_stock, build_switchable, make_dictionary
from torch import Tensor
from torch.testing import assert_close

from fairseq_switchdec.decisions import DecisionSpace
from fairseq_switchdec.policy import INFLUENCE_REACH, INITIAL_KEEP, SwitchPolicy
from fairseq_switchdec.rl import LayerInfluence

SPACE = DecisionSpace(3, 2)
START = math.log(INITIAL_KEEP / (1 - INITIAL_KEEP))


def batch(dictionary: Any, sources: list[list[int]], targets: list[list[int]]) -> dict[str, Any]:
    """Inputs of a model, sources padded on the left and targets on the right."""
    pad = dictionary.pad()
    width, length = (max(map(len, rows)) for rows in (sources, targets))
    return {
        "src_tokens": torch.tensor([[pad] * (width - len(row)) + row for row in sources]),
        "src_lengths": torch.tensor([len(row) for row in sources]),
        "prev_output_tokens": torch.tensor([row + [pad] * (length - len(row)) for row in targets]),
    }


def measured(model: Any, inputs: dict[str, Any]) -> Tensor:
    """Of one pass on the keep-all path."""
    keep_all = model.encoder.space.keep_all(len(inputs["src_tokens"]))
    with torch.no_grad(), LayerInfluence(model) as influence:
        model(**inputs, decisions=keep_all)
    return influence.measured


@pytest.fixture(params=["bart", "gpt2", "llama", "t5"])
def model(request: pytest.FixtureRequest) -> Any:
    if request.param != "bart":
        return make_pair(request.param).ours
    dictionary = make_dictionary()
    return build_switchable(dictionary, build_stock(dictionary))


def test_measured_for_real_tokens_only(model: Any) -> None:
    """A batch says what its inputs say one by one, and what the layers were seen to read and give."""
    dictionary = model.encoder.dictionary
    sources, targets = [[5, 6, 7, 8, 9, 2], [10, 2], [11, 12, 13, 2]], [[2, 5], [2, 6, 7, 8, 9], [2]]
    seen: dict[int, list[tuple[Tensor, Tensor]]] = {}
    layers = [*model.encoder.layers, *(model.decoder.layers if model.encoder.space.decoder_layers else [])]

    def record(index: int, x: Tensor, output: Any) -> None:
        y = output[0] if isinstance(output, tuple) else output
        seen.setdefault(index, []).append((x.flatten(0, -2), y.flatten(0, -2)))

    hooks = [
        layer.register_forward_hook(lambda _, inputs, output, index=index: record(index, inputs[0], output))
        for index, layer in enumerate(layers)
    ]
    alone = sum(measured(model, batch(dictionary, [s], [t])) for s, t in zip(sources, targets))
    for hook in hooks:
        hook.remove()
    assert isinstance(alone, Tensor) and alone.shape == (2, len(layers)) and alone.gt(0).all()
    assert len({round(float(each), 6) for each in alone[0] / alone[1]}) == len(layers), "layers differ"
    for index, pairs in seen.items():
        before, after = (torch.cat(part).double() for part in zip(*pairs))
        cosines = (before * after).sum(1) / (before.norm(dim=1) * after.norm(dim=1))
        assert_close(alone[:, index], torch.tensor([float((1 - cosines).sum()), len(cosines)], dtype=torch.float64))
    assert_close(measured(model, batch(dictionary, sources, targets)), alone, rtol=1e-4, atol=1e-6)


def test_hooks_are_gone_afterwards(model: Any) -> None:
    inputs = batch(model.encoder.dictionary, [[5, 6, 2]], [[2, 5]])
    first = measured(model, inputs)
    with pytest.raises(ZeroDivisionError), LayerInfluence(model):
        raise ZeroDivisionError
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert_close(measured(model, inputs), first, rtol=0, atol=0)


@pytest.mark.parametrize("per_layer", [False, True])
def test_odds_of_keeping_follow_the_square_of_the_influence(per_layer: bool) -> None:
    policy = SwitchPolicy(SPACE, 4, 6, per_layer)
    influence = torch.tensor([9.0, 0.05, 0.1, 0.2, 0.1])  # the first layer is not open, whatever it changes
    policy.start_from(7 * influence)
    features = torch.randn(5, len(policy.stages), 4)
    distribution = policy(features)
    square = math.log(4)
    layers = torch.tensor([START + INFLUENCE_REACH, START - square, START, START + square, START])
    expected = layers[SPACE.layer_of_sublayer()].expand(5, -1)
    assert_close(distribution.sublayer_logits, expected)
    assert distribution.greedy()[0].all()


def test_no_influence_makes_a_greedy_path_skip() -> None:
    policy = SwitchPolicy(SPACE, 4, 6)
    policy.start_from(torch.tensor([1.0, 0.0, 1.0, 1e9, 1.0]))
    logits = policy(torch.zeros(1, 1, 4)).sublayer_logits
    assert logits.isfinite().all() and 0 < float(logits.min()) < float(logits.max())
    assert float(logits.min()) == pytest.approx(START - INFLUENCE_REACH, rel=1e-5)


def test_tokens_only_have_no_layers_to_tell_apart() -> None:
    policy = SwitchPolicy(DecisionSpace(3, 2, candidates=("token",)), 4, 6)
    policy.start_from(torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]))
    assert policy(torch.zeros(1, 1, 4)).sublayer_logits.eq(policy.sublayer_heads[0].bias[0]).all()


@pytest.mark.parametrize("options", [{"split_attention": True}, {"scope": ("encoder",)}])
def test_closed_layers_do_not_move_the_others(options: dict[str, Any]) -> None:
    space = DecisionSpace(3, 2, **options)
    policy = SwitchPolicy(space, 4, 6)
    decoder = 0.1 if "scope" in options else 0.2
    policy.start_from(torch.tensor([9.0, 0.1, 0.2, decoder, 0.2]))
    layer = space.layer_of_sublayer()
    logits = policy(torch.zeros(1, 1, 4)).sublayer_logits[0]
    middle = 0.1 if "scope" in options else 0.2  # the lower median of layers 1 and 2; of 1 to 4
    for index, influence in ((1, 0.1), (2, 0.2)):
        expected = START + 2 * math.log(influence / middle)
        assert_close(logits[layer == index], torch.full_like(logits[layer == index], expected))
