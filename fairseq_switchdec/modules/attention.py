"""Multi-head attention with BART's parameter names, batch first, through ``scaled_dot_product_attention``."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class Attention(nn.Module):
    """Attention of queries over keys and values that are projected apart, so that they can be cached.

    Args:
        dim: D, size of queries and outputs.
        source_dim: size of what keys and values are projected from.
        heads: H, a divisor of D.
        dropout: of the attention weights, in training.
    """

    def __init__(self, dim: int, source_dim: int, heads: int, dropout: float):
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.q_proj = nn.Linear(dim, dim)
        self.k_proj = nn.Linear(source_dim, dim)
        self.v_proj = nn.Linear(source_dim, dim)
        self.out_proj = nn.Linear(dim, dim)

    def split_heads(self, x: Tensor) -> Tensor:
        """(B, T, D) to (B, H, T, D / H)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def keys_values(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of a source, (B, S, source_dim): (B, H, S, D / H) each."""
        return self.split_heads(self.k_proj(source)), self.split_heads(self.v_proj(source))

    def forward(
        self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None, causal: bool = False
    ) -> Tensor:
        """Attend from x, (B, T, D).

        Args:
            keys, values: as from `keys_values`.
            mask: bool, broadcast to (B, H, T, S), True = may be attended to.
            causal: position t sees keys up to t; not together with a mask.
        """
        context = F.scaled_dot_product_attention(
            self.split_heads(self.q_proj(x)),
            keys,
            values,
            attn_mask=mask,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=causal,
        )
        return self.out_proj(context.transpose(1, 2).flatten(2))
