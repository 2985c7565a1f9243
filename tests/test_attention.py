"""Attention and feed-forward networks give the same in parts, which bound what they hold at a time."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support import build_switchable
from torch import Tensor

from fairseq_switchdec.blocks import attention, layers


def masks(inputs: int, heads: int, queries: int, keys: int) -> dict[str, Tensor | None]:
    generator = torch.Generator().manual_seed(1)
    each = torch.rand(inputs, 1, 1, keys, generator=generator) < 0.7
    each[..., 0] = True
    return {
        "none": None,
        "of inputs": each,
        "of heads": torch.randn(1, heads, queries, keys, generator=generator),
        "of both": torch.randn(inputs, heads, queries, keys, generator=generator),
    }


@pytest.mark.parametrize("group", [1, 2])
@pytest.mark.parametrize("kind", ["none", "of inputs", "of heads", "of both"])
@pytest.mark.parametrize("room", [1, 2 * 7 * 9, 4 * 7 * 9, 1 << 20])
def test_attention_in_parts(monkeypatch: pytest.MonkeyPatch, room: int, kind: str, group: int) -> None:
    mask = masks(3, 6, 7, 9)[kind]
    if group > 1 and kind in ("of heads", "of both"):
        pytest.skip("no model has both")
    queries = torch.randn(3, 6, 7, 4)
    keys, values = torch.randn(2, 3, 6 // group, 9, 4)
    repeated = (x.repeat_interleave(group, 1) for x in (keys, values))
    expected = torch.nn.functional.scaled_dot_product_attention(queries, *repeated, attn_mask=mask)
    sizes: list[int] = []
    whole = attention.attend_by_products
    monkeypatch.setattr(attention, "SCORES", room)
    monkeypatch.setattr(
        attention, "attend_by_products", lambda q, *rest: sizes.append(q.shape[:3].numel()) or whole(q, *rest)
    )
    found = attention.attend_in_parts(queries, keys, values, mask)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert max(sizes) * 9 <= max(room, group * 7 * 9), "more than there is room for"
    assert len(sizes) == 3 * -(-6 // (group * max(1, room // (group * 7 * 9))))


@pytest.mark.parametrize("size", [1, 5, 64])
def test_feed_forward_in_blocks(monkeypatch: pytest.MonkeyPatch, dictionary: Any, size: int) -> None:
    layer = build_switchable(dictionary).encoder.layers[1]
    x = torch.randn(17, 12)
    expected = layer.transform(x)
    seen: list[int] = []
    layer.fc2.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    monkeypatch.setattr(layers, "BLOCK", size)
    with torch.no_grad():
        torch.testing.assert_close(layer.transform(x), expected.detach(), rtol=1e-5, atol=1e-6)
    assert max(seen) == min(size, 17) and sum(seen) == 17
    assert layer.transform(x).requires_grad and seen[-1] == 17, "training keeps all activations anyway"
