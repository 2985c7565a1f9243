"""Token and position embeddings, which encoders and decoders have alike."""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn


class Embeddings(NamedTuple):
    """What an encoder or a decoder embeds its tokens with.

    Attributes:
        tokens: of the dictionary.
        positions: None where a model's attention knows the positions.
        norm: of their sum, or None.
        dropout: of that, in training.
        scale: of the embedded tokens.
    """

    tokens: nn.Embedding
    positions: nn.Module | None = None
    norm: nn.Module | None = None
    dropout: float = 0.0
    scale: float = 1.0


class Embeds(nn.Module):
    """Gives an encoder or a decoder ``embed_tokens``, ``embed_positions`` and ``layernorm_embedding``."""

    def set_embeddings(self, embeddings: Embeddings) -> None:
        """Register the embeddings, those that there are."""
        self.embed_tokens = embeddings.tokens
        self.embed_positions = embeddings.positions
        self.layernorm_embedding = embeddings.norm
        self.embed_scale = embeddings.scale
        self.dropout = nn.Dropout(embeddings.dropout)

    def embed(self, tokens: Tensor, positions: Tensor | None) -> Tensor:
        """(..., D) from embedded tokens and positions, (..., D) each."""
        x = tokens if self.embed_scale == 1 else self.embed_scale * tokens
        if positions is not None:
            x = x + positions
        if self.layernorm_embedding is not None:
            x = self.layernorm_embedding(x)
        return self.dropout(x)

    def positions_at(self, steps: Tensor) -> Tensor | None:
        """The embedded positions of tokens, (..., D), of which no padding comes before; int64 (...,)."""
        if self.embed_positions is None:
            return None
        padding: int = self.embed_positions.padding_idx
        if isinstance(self.embed_positions, nn.Embedding):
            return F.embedding(steps + padding + 1, self.embed_positions.weight)
        # fairseq's sinusoidal table follows no model to its device; its own forward pass moves it in the same way.
        self.embed_positions.weights = self.embed_positions.weights.to(self.embed_positions._float_tensor)
        return F.embedding(steps + padding + 1, self.embed_positions.weights)
