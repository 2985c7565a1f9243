"""Token and position embeddings, which BART's encoder and decoder have alike."""

from __future__ import annotations

from typing import Any

from fairseq.modules import PositionalEmbedding
from torch import Tensor, nn


class Embeds(nn.Module):
    """Gives an encoder or a decoder ``embed_tokens``, ``embed_positions`` and ``layernorm_embedding``."""

    def build_embeddings(self, cfg: Any, side: Any, embed_tokens: nn.Embedding, positions: int) -> None:
        """Make the embeddings.

        Args:
            cfg: fairseq's ``TransformerConfig``.
            side: its ``encoder`` or ``decoder`` part.
            positions: longest sequence, in tokens.
        """
        self.embed_tokens = embed_tokens
        self.padding_idx = embed_tokens.padding_idx
        self.embed_scale = 1.0 if cfg.no_scale_embedding else side.embed_dim**0.5
        self.embed_positions = PositionalEmbedding(positions, side.embed_dim, self.padding_idx, side.learned_pos)
        self.layernorm_embedding = nn.LayerNorm(side.embed_dim) if cfg.layernorm_embedding else None
        self.dropout = nn.Dropout(cfg.dropout)

    def embed(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """(B, T, D) from embedded tokens and positions, (B, T, D) each."""
        x = self.embed_scale * tokens + positions
        if self.layernorm_embedding is not None:
            x = self.layernorm_embedding(x)
        return self.dropout(x)
