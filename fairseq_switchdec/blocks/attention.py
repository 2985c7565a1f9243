"""Multi-head attention with BART's parameter names, batch first."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..runtime.packing import Packs

#: Up to so many queries, reading the keys takes the time; a decoding step has one query for each hypothesis.
FEW_QUERIES = 32


class Attention(Packs):
    """Attention whose projections are apart from its core, so that keys and values can be cached.

    Args:
        dim: D, size of queries and outputs.
        source_dim: size of what keys and values are projected from; None = D, of the queries' own states.
        heads: H, a divisor of D.
        dropout: of the attention weights, in training.
    """

    def __init__(self, dim: int, source_dim: int | None, heads: int, dropout: float):
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
        self.dropout = dropout
        self.q_proj = nn.Linear(dim, dim)
        self.k_proj = nn.Linear(source_dim, dim)
        self.v_proj = nn.Linear(source_dim, dim)
        self.out_proj = nn.Linear(dim, dim)

    def pack(self, precision: str) -> None:
        """See `Packs`; keys and values are bfloat16 where weights have fewer bits."""
        self.dtype = self.q_proj.weight.dtype if precision == "fp32" else torch.bfloat16
        super().pack(precision)

    def split_heads(self, x: Tensor) -> Tensor:
        """(B, T, D) to (B, H, T, D / H)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def keys_values(self, source: Tensor) -> tuple[Tensor, ...]:
        """Keys and values of a source, (..., source_dim): (..., D) each."""
        if self.kv_proj is not None:
            return self.kv_proj(source).to(self.dtype).chunk(2, dim=-1)
        return self.k_proj(source), self.v_proj(source)

    def queries_keys_values(self, x: Tensor) -> tuple[Tensor, ...]:
        """What self-attention needs of x, (..., D): (..., D) each."""
        if self.qkv_proj is not None:
            return self.qkv_proj(x).to(self.dtype).chunk(3, dim=-1)
        return self.q_proj(x), *self.keys_values(x)

    def attend(
        self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None, causal: bool = False
    ) -> Tensor:
        """The context of every query, (B, T, D), before the output projection.

        Args:
            queries: (B, T, D).
            keys, values: (B, H, S, D / H).
            mask: bool, broadcast to (B, H, T, S), True = may be attended to.
            causal: position t sees keys up to t; not together with a mask.
        """
        split = self.split_heads(queries.to(keys.dtype))
        if causal or torch.is_grad_enabled() or self.training:
            dropout = self.dropout if self.training else 0.0
            context = F.scaled_dot_product_attention(split, keys, values, mask, dropout, causal)
        elif queries.size(1) <= FEW_QUERIES:
            context = attend_by_products(split, keys, values, mask)
        elif keys.dtype == torch.bfloat16 and keys.device.type == "cpu":
            # torch's fused kernel is half as fast on processors without AMX; one input at a time bounds the memory.
            masks = [None] * len(keys) if mask is None else mask.split(1)
            parts = zip(split.split(1), keys.split(1), values.split(1), masks)
            context = torch.cat([attend_by_products(*part) for part in parts])
        else:
            context = F.scaled_dot_product_attention(split, keys, values, mask)
        return context.transpose(1, 2).flatten(2)


def attend_by_products(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    """Attention as two matrix products, (B, H, T, D / H), which holds all weights, (B, H, T, S), at once."""
    batch_heads = queries.shape[:2]
    scaled = queries.flatten(0, 1) * queries.size(-1) ** -0.5
    scores = torch.bmm(scaled, keys.flatten(0, 1).transpose(1, 2))
    if mask is not None:
        scores.unflatten(0, batch_heads).masked_fill_(~mask, -torch.inf)
    return torch.bmm(scores.softmax(-1), values.flatten(0, 1)).unflatten(0, batch_heads)
