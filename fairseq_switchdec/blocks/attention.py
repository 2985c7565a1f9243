"""Multi-head attention, its heads equal or grouped, batch first; parameter names are fairseq's."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..runtime.packing import Packs, bf16_products
from .positions import Angles, turn

#: Attention weights that are there at a time.
SCORES = 4 << 20

#: Up to so many queries, reading the keys takes the time; a decoding step has one query for each hypothesis.
FEW_QUERIES = 32


class Attention(Packs):
    """Attention whose projections are apart from its core, so that keys and values can be cached.

    Args:
        dim: D, size of the queries' own states and of the outputs.
        heads: H.
        source_dim: size of what keys and values are projected from; None = D, of the queries' own states.
        key_value_heads: K, a divisor of H; H / K neighbouring heads share keys and values. None = H.
        head_dim: d; None = D / H.
        bias: whether the projections have one.
        scaled: divide scores by the root of d.
        dropout: of the attention weights, in training.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        source_dim: int | None = None,
        key_value_heads: int | None = None,
        head_dim: int | None = None,
        bias: bool = True,
        scaled: bool = True,
        dropout: float = 0.0,
    ):
        super().__init__()
        if source_dim is None:
            self.products = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "out_proj": ("out_proj",)}
            source_dim = dim
        else:
            self.products = {name: (name,) for name in ("q_proj", "out_proj")} | {"kv_proj": ("k_proj", "v_proj")}
        self.qkv_proj: nn.Module | None = None
        self.kv_proj: nn.Module | None = None
        self.dtype: torch.dtype | None = None  # of keys and values where it is not the projections'
        self.heads = heads
        self.head_dim = head_dim or dim // heads
        self.group = heads // (key_value_heads or heads)  # heads that share keys and values
        self.unscaled = 1.0 if scaled else self.head_dim**0.5
        self.dropout = dropout
        query_dim = self.heads * self.head_dim
        self.key_dim = query_dim // self.group
        self.q_proj = nn.Linear(dim, query_dim, bias)
        self.k_proj = nn.Linear(source_dim, self.key_dim, bias)
        self.v_proj = nn.Linear(source_dim, self.key_dim, bias)
        self.out_proj = nn.Linear(query_dim, dim, bias)

    def pack(self, precision: str) -> None:
        """See `Packs`; keys and values are bfloat16 where weights have fewer bits and the processor likes it."""
        rounded = precision != "fp32" and bf16_products()
        self.dtype = torch.bfloat16 if rounded else self.q_proj.weight.dtype
        super().pack(precision)

    def split_heads(self, x: Tensor) -> Tensor:
        """(B, T, heads x d) to (B, heads, T, d)."""
        return x.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)

    def keys_values(self, source: Tensor) -> tuple[Tensor, ...]:
        """Keys and values of a source, (..., source_dim): (..., K x d) each."""
        if self.kv_proj is not None:
            return self.kv_proj(source).to(self.dtype).chunk(2, dim=-1)
        return self.k_proj(source), self.v_proj(source)

    def queries_keys_values(self, x: Tensor, angles: Angles | None = None) -> tuple[Tensor, ...]:
        """What self-attention needs of x, (..., D): (..., H x d), (..., K x d), (..., K x d).

        Args:
            angles: by which queries and keys are turned (rotary positions).
        """
        sizes = [self.heads * self.head_dim, self.key_dim]
        if self.qkv_proj is not None:
            *queries_keys, values = self.qkv_proj(x).to(self.dtype).split([sum(sizes), self.key_dim], dim=-1)
        else:
            queries, *keys, values = self.q_proj(x), *self.keys_values(x)
            queries_keys = [queries, *keys] if angles is None else [torch.cat([queries, *keys], dim=-1)]
        if angles is not None:
            queries_keys = [turn(part.unflatten(-1, (-1, self.head_dim)), angles).flatten(-2) for part in queries_keys]
        if len(queries_keys) == 1:
            queries_keys = queries_keys[0].split(sizes, dim=-1)
        return (*queries_keys, values)

    def attend(
        self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None, causal: bool = False
    ) -> Tensor:
        """The context of every query, (B, T, H x d), before the output projection.

        Args:
            queries: (B, T, H x d).
            keys, values: (B, K, S, d).
            mask: broadcast to (B, H, T, S); bool, True = may be attended to, or float, added to the scores.
            causal: position t sees keys up to t; not together with a mask.
        """
        split = self.split_heads(queries.to(keys.dtype))
        if self.unscaled != 1:
            split = split * self.unscaled
        if mask is not None and mask.dtype != torch.bool:
            mask = mask.to(split.dtype)
        if causal or torch.is_grad_enabled() or self.training:
            context = self.attend_fused(split, keys, values, mask, causal)
        elif queries.size(1) <= FEW_QUERIES:
            context = attend_by_products(split, keys, values, mask)
        elif keys.dtype == torch.bfloat16 and keys.device.type == "cpu":
            # torch's fused kernel is half as fast on processors without AMX.
            context = attend_in_parts(split, keys, values, mask)
        else:
            context = self.attend_fused(split, keys, values, mask)
        return context.transpose(1, 2).flatten(2)

    def attend_fused(
        self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, causal: bool = False
    ) -> Tensor:
        """By torch's kernel, (B, H, T, d) as the queries; keys of a group of heads are repeated for it."""
        if self.group > 1:
            keys, values = (x.repeat_interleave(self.group, dim=1) for x in (keys, values))
        dropout = self.dropout if self.training else 0.0
        return F.scaled_dot_product_attention(queries, keys, values, mask, dropout, causal)


def attend_in_parts(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    """`attend_by_products` of one input at a time, and of as many heads as `SCORES` has room for."""
    group = queries.size(1) // keys.size(1)
    heads = max(1, SCORES // (group * queries.size(2) * keys.size(2)))

    def split(x: Tensor | None, dim: int, size: int, parts: int) -> Sequence[Tensor | None]:
        return [x] * parts if x is None or x.size(dim) == 1 else x.split(size, dim)

    contexts = []
    for one in zip(queries.split(1), keys.split(1), values.split(1), split(mask, 0, 1, len(keys))):
        parts = [part.split(size, 1) for part, size in zip(one, (group * heads, heads, heads))]
        parts.append(split(one[3], 1, group * heads, len(parts[0])))
        contexts.append(torch.cat([attend_by_products(*part) for part in zip(*parts)], dim=1))
    return torch.cat(contexts)


def attend_by_products(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    """Attention as two matrix products, (B, H, T, d), which holds all weights, (B, H, T, S), at once.

    The queries of the heads that share keys multiply them together.
    """
    shape = queries.shape
    batch_keys, group = keys.shape[:2], shape[1] // keys.size(1)
    scaled = queries.reshape(-1, group * shape[2], shape[3]) * shape[3] ** -0.5
    scores = torch.bmm(scaled, keys.flatten(0, 1).transpose(1, 2))
    if mask is not None:
        heads = scores.view(*batch_keys, group, shape[2], -1)
        mask = mask.unsqueeze(2)  # with heads of its own only where none share keys
        heads = heads.masked_fill_(~mask, -torch.inf) if mask.dtype == torch.bool else heads.add_(mask)
    return torch.bmm(scores.softmax(-1), values.flatten(0, 1)).view(shape)
