"""Packed weights give the same results, or nearly so, and can be unpacked where nothing was rounded."""

from __future__ import annotations

import copy

import pytest
import torch
from support import PRECISIONS, build_switchable, make_dictionary, marked
from torch import nn

from fairseq_switchdec.errors import UserError
from fairseq_switchdec.runtime import packing
from fairseq_switchdec.runtime.packing import BFloat16Linear, Int8Linear, OneDNNLinear, PackedLinear, TokenEmbedding

#: Root mean square of the error over that of the result, for weights and inputs drawn from normal distributions.
ERROR = {PackedLinear: 1e-6, OneDNNLinear: 1e-6, BFloat16Linear: 4e-3, Int8Linear: 1.2e-2}

if not torch.backends.mkldnn.is_available():
    pytest.skip("this torch has no oneDNN", allow_module_level=True)


def linears(bias: bool = True) -> list[nn.Linear]:
    torch.manual_seed(0)
    return [nn.Linear(48, size, bias) for size in (32, 32, 20)]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", marked(ERROR))
@pytest.mark.parametrize("shape", [(1,), (5,), (2, 3), (70,)])
@torch.no_grad()
def test_one_product_for_several_layers(kind, bias, shape) -> None:
    layers, x = linears(bias), torch.randn(*shape, 48)
    expected = torch.cat([layer(x) for layer in layers], dim=-1)
    found = kind(layers)(x)
    assert found.shape == expected.shape
    error = (found.float() - expected).square().mean().sqrt() / expected.square().mean().sqrt()
    assert error < ERROR[kind]
    if kind in (BFloat16Linear, Int8Linear):
        assert error > ERROR[kind] / 20, "or it would not have rounded"


@torch.no_grad()
def test_int8_results_do_not_depend_on_the_batch() -> None:
    """torch's own dynamic quantization has one range for all rows: an outlier in one would blur the others."""
    packed, x = Int8Linear(linears()), torch.randn(9, 48)
    x[3] *= 1000
    assert torch.equal(packed(x)[:3], packed(x[:3]))


@torch.no_grad()
def test_int8_of_constant_rows_and_columns() -> None:
    layer = nn.Linear(48, 7)
    layer.weight[2] = 0
    x = torch.cat([torch.zeros(1, 48), torch.full((1, 48), 5.0)])
    torch.testing.assert_close(Int8Linear([layer])(x), layer(x), rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("rows", [16, 17, 33, 65, 130])
@torch.no_grad()
def test_rows_are_rounded_up_to_few_numbers_of_them(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """oneDNN compiles a product for each number of rows and keeps it: hundreds of MB if every batch had another."""
    packed, seen = OneDNNLinear(linears()), []
    x = torch.randn(rows, 48)
    expected = packed(x)
    product = torch.ops.mkldnn._linear_pointwise
    monkeypatch.setattr(
        torch.ops.mkldnn, "_linear_pointwise", lambda x, *rest: seen.append(len(x)) or product(x, *rest), raising=False
    )
    assert torch.equal(packed(x), expected) and len(expected) == rows
    assert seen[0] >= rows and seen[0] % (1 if rows <= 16 else 4 if rows <= 64 else 32) == 0


@pytest.mark.parametrize("kind", marked([OneDNNLinear, BFloat16Linear]))
@torch.no_grad()
def test_a_copy_of_a_packed_layer(kind) -> None:
    packed, x = kind(linears()), torch.randn(3, 48)
    assert torch.equal(copy.deepcopy(packed)(x), packed(x))


@pytest.mark.parametrize("kind", [PackedLinear, OneDNNLinear])
def test_unpacking(kind) -> None:
    layers = linears()
    for layer, again in zip(layers, kind(layers).unpack()):
        assert torch.equal(again.weight, layer.weight) and torch.equal(again.bias, layer.bias)


@pytest.mark.parametrize("precision", PRECISIONS)
@torch.no_grad()
def test_an_embedding_in_fewer_bits(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "ROWS", 16)  # of 50: the last part is shorter
    embedding, tokens = TokenEmbedding(50, 48, padding_idx=1), torch.tensor([[0, 1, 49], [17, 16, 2]])
    embedding.weight[2] = 0
    expected = embedding(tokens)
    bound = expected.abs().amax(-1, keepdim=True) / 250  # half a step of int8; bfloat16 has 8 bits
    embedding.pack(precision)
    found = embedding(tokens)
    assert found.dtype == torch.float32 and embedding.weight.element_size() < 4
    assert ((found - expected).abs() <= bound).all()
    assert not torch.equal(found, expected) and (found[0, 1] == 0).all() and (found[1, 2] == 0).all()


@pytest.mark.parametrize("precision", ["fp32", *PRECISIONS])
def test_nothing_is_held_twice(precision: str) -> None:
    """Of a packed model, the matrices that are left as parameters are the embeddings of positions."""
    model, _ = inference_model(precision)
    left = {name for name, value in model.named_parameters() if value.dim() > 1 and ".policy." not in name}
    tokens = {"encoder.embed_tokens.weight"} if precision == "fp32" else set()
    assert left == tokens | {f"{side}.embed_positions.weight" for side in ("encoder", "decoder")}
    assert model.decoder.embed_tokens is model.encoder.embed_tokens


def inference_model(precision: str):
    model = build_switchable(make_dictionary())
    model._is_generation_fast = True  # what fairseq's prepare_for_inference_ leaves behind
    state = {name: value.clone() for name, value in model.state_dict().items()}
    model.pack(precision)
    return model, state


@pytest.mark.parametrize("use", ["move", "cast", "save"])
def test_a_packed_model_unpacks_when_it_is_used_as_parameters(use: str) -> None:
    model, state = inference_model("fp32")
    assert "encoder.layers.0.fc1.weight" not in dict(model.named_parameters())
    if use == "move":
        model.to("cpu")
    elif use == "cast":
        model.double()
    found = model.state_dict()
    assert found.keys() == state.keys()
    for name, value in state.items():
        assert torch.equal(found[name].float(), value.float()), name
    assert model.decoder.output_projection.weight is model.decoder.embed_tokens.weight


def test_half_precision_comes_back_from_packing() -> None:
    model = build_switchable(make_dictionary()).half()
    model._is_generation_fast = True
    model.pack("fp32")
    assert {value.dtype for name, value in model.state_dict().items() if name.endswith((".weight", ".bias"))} == {
        torch.float16,
        torch.float32,  # the policy
    }
    assert model.encoder.layers[0].fc1.bias.dtype == torch.float16


def test_gradients_come_from_unpacked_weights() -> None:
    model, _ = inference_model("fp32")
    tokens = torch.tensor([[5, 6, 7, 2]])
    model(tokens, None, tokens)[0].sum().backward()
    assert model.packed is None and model.encoder.layers[0].fc1.weight.grad.abs().sum() > 0
    rounded, _ = inference_model("int8")
    with pytest.raises(UserError, match="torch.no_grad"):
        rounded(tokens, None, tokens)


def test_a_part_of_a_packed_model_is_not_saved_as_if_it_were_whole() -> None:
    model, _ = inference_model("fp32")
    with pytest.raises(UserError, match="take the whole model's"):
        model.encoder.state_dict()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_rounded_weights_are_not_passed_off_as_the_models(precision: str) -> None:
    model, _ = inference_model(precision)
    for use in (model.state_dict, model.double):
        with pytest.raises(UserError, match=f"--switch-precision {precision} has rounded"):
            use()


def test_only_a_model_that_will_not_be_trained_is_packed() -> None:
    model = build_switchable(make_dictionary())
    model.pack("fp32")  # validation during training builds generators too
    assert model.packed is None


def test_half_precision_goes_with_fp32_only() -> None:
    model = build_switchable(make_dictionary()).half()
    model._is_generation_fast = True
    with pytest.raises(UserError, match="--switch-precision int8.*--fp16"):
        model.pack("int8")


def test_a_processor_without_bfloat16_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fairseq_switchdec.runtime.packing.bf16_products", lambda: False)
    with pytest.raises(UserError, match="--switch-precision bf16 needs a processor with AVX-512.*use fp32 or int8"):
        inference_model("bf16")
