"""The decision space: layout, what is closed, and forced decisions."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fairseq_switchdec.decisions import CANDIDATES, SCOPES, Decisions, DecisionSpace


def random_flat(space: DecisionSpace, batch: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    keep = torch.rand(batch, space.num_sublayers, generator=generator) < 0.5
    return keep, torch.randint(7, (batch,), generator=generator)


def test_layout_by_hand() -> None:
    space = DecisionSpace(3, 2)
    assert (space.num_layers, space.num_sublayers) == (5, 10)
    assert space.layer_of_sublayer().tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4]
    assert space.open_sublayers().int().tolist() == [0, 1, 1, 1, 1, 0, 1, 1, 1, 1]
    keep = torch.tensor([[1, 0, 1, 0, 1, 1, 1, 0, 0, 1]]).bool()
    decisions = space.decisions(keep, torch.tensor([4]))
    assert decisions.attention_keep.int().tolist() == [[1, 0, 1, 0, 1]]
    assert decisions.ffn_keep.int().tolist() == [[1, 1, 0, 0, 1]]
    assert decisions.cross_attention_keep.int().tolist() == [[0, 1]], "cross-attention goes with self-attention"
    assert decisions.token_strategy.tolist() == [4]


def test_split_attention_by_hand() -> None:
    space = DecisionSpace(3, 2, split_attention=True)
    assert space.num_sublayers == 12
    assert space.layer_of_sublayer().tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 3, 4]
    assert space.open_sublayers()[10:].all()
    keep = torch.ones(1, 12, dtype=torch.bool)
    keep[0, 11] = False
    decisions = space.decisions(keep, torch.tensor([0]))
    assert decisions.attention_keep.all() and decisions.ffn_keep.all()
    assert decisions.cross_attention_keep.tolist() == [[True, False]]
    encoder_only = DecisionSpace(3, 2, scope=("encoder",), split_attention=True)
    assert not encoder_only.open_sublayers()[10:].any()
    ffn_only = DecisionSpace(3, 2, ("ffn",), split_attention=True)
    assert ffn_only.open_sublayers().int().tolist() == [0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 0, 0]


@pytest.mark.parametrize("split", [False, True])
def test_flat_inverts_decisions(split: bool) -> None:
    space = DecisionSpace(4, 3, split_attention=split)
    keep, strategy = random_flat(space, 9)
    flat, token_strategy = space.flat(space.decisions(keep, strategy))
    assert torch.equal(flat, keep | ~space.open_sublayers())
    assert torch.equal(token_strategy, strategy)
    again = space.decisions(flat, token_strategy)
    assert again.equal(space.decisions(keep, strategy))


@pytest.mark.parametrize(
    "candidates, scope, attention, ffn, token",
    [
        (("attention",), SCOPES, "01111", "00000", False),
        (("ffn",), SCOPES, "00000", "01111", False),
        (("token",), SCOPES, "00000", "00000", True),
        (CANDIDATES, ("encoder",), "01100", "01100", True),
        (CANDIDATES, ("decoder",), "00011", "00011", False),
        (("token", "ffn"), ("decoder", "encoder"), "00000", "01111", True),
    ],
)
def test_closed_stays_kept(
    candidates: tuple[str, ...], scope: tuple[str, ...], attention: str, ffn: str, token: bool
) -> None:
    space = DecisionSpace(3, 2, candidates, scope)
    assert "".join(map(str, space.open_sublayers().int().tolist())) == attention + ffn
    assert space.token_open == token
    none = space.decisions(torch.zeros(2, 10, dtype=torch.bool), torch.tensor([6, 1]))
    assert torch.equal(none.attention_keep[0], torch.tensor([bit == "0" for bit in attention]))
    assert torch.equal(none.ffn_keep[1], torch.tensor([bit == "0" for bit in ffn]))
    assert none.token_strategy.tolist() == ([6, 1] if token else [0, 0])


def test_making_decisions_leaves_its_inputs_alone() -> None:
    space = DecisionSpace(3, 2)
    keep, strategy = torch.zeros(2, 10, dtype=torch.bool), torch.tensor([6, 1])
    space.decisions(keep, strategy)
    assert not keep.any() and strategy.tolist() == [6, 1]


@pytest.mark.parametrize("space", [DecisionSpace(2, 1), DecisionSpace(3, 2, split_attention=True)])
def test_keep_all(space: DecisionSpace) -> None:
    decisions = space.keep_all(3)
    assert len(decisions) == 3
    assert decisions.attention_keep.shape == decisions.ffn_keep.shape == (3, space.num_layers)
    assert decisions.cross_attention_keep.shape == (3, space.decoder_layers)
    assert decisions.attention_keep.all() and decisions.ffn_keep.all() and decisions.cross_attention_keep.all()
    assert decisions.token_strategy.tolist() == [0, 0, 0] and decisions.token_strategy.dtype == torch.long


def test_rows() -> None:
    space = DecisionSpace(2, 2, split_attention=True)
    keep = torch.ones(3, space.num_sublayers, dtype=torch.bool)
    keep[0, 1] = False  # attention of layer 1
    keep[:, 4 + 2] = False  # feed-forward of layer 2
    keep[1:, 8 + 1] = False  # cross-attention of decoder layer 1
    decisions = space.decisions(keep, torch.zeros(3, dtype=torch.long))
    assert decisions.rows("attention", 0) is None
    some = decisions.rows("attention", 1)
    assert some is not None and some.tolist() == [1, 2] and some.dtype == torch.long
    assert decisions.rows("attention", 1) is some, "computed once"
    nobody = decisions.rows("ffn", 2)
    assert nobody is not None and nobody.shape == (0,)
    cross = decisions.rows("cross_attention", 1)
    assert cross is not None and cross.tolist() == [0]
    assert decisions.rows("attention", 3) is None, "the self-attention of the same layer runs"


def test_select_and_cat() -> None:
    space = DecisionSpace(3, 2, split_attention=True)
    decisions = space.decisions(*random_flat(space, 5))
    assert decisions.rows("attention", 1) is not None  # its memory must not travel with a selection
    picked = decisions.select([3, 0, 3])
    for tensor, source in zip(picked.tensors(), decisions.tensors()):
        assert torch.equal(tensor, source[torch.tensor([3, 0, 3])])
    expected = decisions.attention_keep[[3, 0, 3], 1]
    rows = picked.rows("attention", 1)
    assert (expected.all() and rows is None) or torch.equal(rows, expected.nonzero().squeeze(1))
    parts = [decisions.select([0]), decisions.select(torch.tensor([1, 2])), decisions.select([3, 4])]
    assert Decisions.cat(parts).equal(decisions)
    assert not Decisions.cat(parts[::-1]).equal(decisions)
    assert len(decisions.select([])) == 0


@pytest.mark.parametrize("split", [False, True])
def test_json_round_trip(split: bool) -> None:
    space = DecisionSpace(3, 2, split_attention=split)
    decisions = space.decisions(*random_flat(space, 6))
    assert space.from_json(decisions.to_json()).equal(decisions)


def entry(**changes: Any) -> dict[str, Any]:
    """A valid entry for 2 + 1 layers, changed."""
    return {"attention_keep": [1, 0, 1], "ffn_keep": [True, True, False], "token_strategy": 5, **changes}


def test_from_json_by_hand() -> None:
    space = DecisionSpace(2, 1, ("ffn",), ("decoder",))  # does not bind forced decisions
    decisions = space.from_json([entry(), entry(cross_attention_keep=[False])])
    assert decisions.attention_keep.tolist() == [[True, False, True]] * 2
    assert decisions.ffn_keep.tolist() == [[True, True, False]] * 2
    assert decisions.cross_attention_keep.tolist() == [[True], [False]]
    assert decisions.token_strategy.tolist() == [5, 5]
    assert [tensor.dtype for tensor in decisions.tensors()] == [torch.bool] * 3 + [torch.long]


@pytest.mark.parametrize(
    "wrong, named",
    [
        ([1, 2], "JSON object"),
        ("keep", "JSON object"),
        (entry(attention_keep=[1, 1]), "'attention_keep' must be a list of 3 booleans"),
        (entry(attention_keep=None), "'attention_keep'"),
        (entry(ffn_keep=[1, 1, 2]), "'ffn_keep' must be a list of 3 booleans"),
        (entry(ffn_keep=[1, 1, "1"]), "'ffn_keep'"),
        (entry(ffn_keep="111"), "'ffn_keep'"),
        ({"attention_keep": [1, 1, 1], "token_strategy": 0}, "'ffn_keep'"),
        (entry(cross_attention_keep=[1, 1]), "'cross_attention_keep' must be a list of 1 booleans"),
        (entry(token_strategy=7), "'token_strategy'"),
        (entry(token_strategy=-1), "'token_strategy'"),
        (entry(token_strategy=True), "'token_strategy'"),
        (entry(token_strategy=1.0), "'token_strategy'"),
        (entry(token_strategy=None), "'token_strategy'"),
        (entry(attention_keep=[0, 1, 1]), "first encoder layer"),
        (entry(ffn_keep=[False, True, True]), "first encoder layer"),
    ],
)
def test_from_json_says_what_is_wrong_where(wrong: Any, named: str) -> None:
    with pytest.raises(ValueError) as error:
        DecisionSpace(2, 1).from_json([entry(), wrong])
    assert "entry 1" in str(error.value) and named in str(error.value)


@pytest.mark.parametrize(
    "arguments, named",
    [
        ((3, 2, ("attention", "heads")), ("--switch-candidates", "'heads'", "attention, ffn, token")),
        ((3, 2, ()), ("--switch-candidates", "nothing chosen")),
        ((3, 2, ("ffn",), ("middle",)), ("--switch-scope", "'middle'", "encoder, decoder")),
        ((3, 2, ("ffn",), ()), ("--switch-scope", "nothing chosen")),
        ((1, 2), ("--encoder-layers 1", "at least 2")),
    ],
)
def test_refused_spaces(arguments: tuple[Any, ...], named: tuple[str, ...]) -> None:
    with pytest.raises(ValueError) as error:
        DecisionSpace(*arguments)
    assert all(text in str(error.value) for text in named)


def test_a_space_with_nothing_open_is_refused() -> None:
    with pytest.raises(ValueError, match=r"--switch-candidates token with --switch-scope decoder leaves nothing"):
        DecisionSpace(3, 2, ("token",), ("decoder",))
