"""BART's encoder and decoder layers (post-norm), each sublayer skippable for each input.

Parameter names are fairseq's, so official checkpoints load. fairseq's own layers are not subclassed: their residual
hook runs after the work is done, and 0.12.2's encoder layer carries copies of all its weights.
"""

from __future__ import annotations

from typing import Any

import torch
from fairseq import utils
from torch import Tensor, nn

from ..decisions import Decisions
from .attention import Attention
from .cache import LayerCache
from .skipping import run_rows


class SwitchableLayer(nn.Module):
    """What encoder and decoder layers share: self-attention, feed-forward and the residual around them.

    Args:
        cfg: fairseq's ``TransformerConfig``.
        side: its ``encoder`` or ``decoder`` part.
        index: the layer's column in `Decisions`, counted through encoder and decoder.
    """

    def __init__(self, cfg: Any, side: Any, index: int):
        super().__init__()
        self.index = index
        self.self_attn = Attention(side.embed_dim, side.embed_dim, side.attention_heads, cfg.attention_dropout)
        self.self_attn_layer_norm = nn.LayerNorm(side.embed_dim)
        self.fc1 = nn.Linear(side.embed_dim, side.ffn_embed_dim)
        self.fc2 = nn.Linear(side.ffn_embed_dim, side.embed_dim)
        self.final_layer_norm = nn.LayerNorm(side.embed_dim)
        self.activation = utils.get_activation_fn(cfg.activation_fn)
        self.dropout = nn.Dropout(cfg.dropout)
        # fairseq's older name for the same option still wins there when only it is set.
        self.activation_dropout = nn.Dropout(float(cfg.activation_dropout) or float(cfg.relu_dropout or 0))

    def add(self, x: Tensor, branch: Tensor, norm: nn.LayerNorm) -> Tensor:
        """The residual connection, normalized after (BART)."""
        return norm(x + self.dropout(branch))

    def feed_forward(self, x: Tensor) -> Tensor:
        """The feed-forward sublayer, (..., D)."""
        hidden = self.activation_dropout(self.activation(self.fc1(x)))
        return self.add(x, self.fc2(hidden), self.final_layer_norm)


class SwitchableEncoderLayer(SwitchableLayer):
    """x -> self-attention -> feed-forward, (B, S, D)."""

    def attend(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """The self-attention sublayer; ``mask`` bool (B, 1, 1, S), True = real token."""
        keys, values = self.self_attn.keys_values(x)
        return self.add(x, self.self_attn(x, keys, values, mask), self.self_attn_layer_norm)

    def forward(self, x: Tensor, mask: Tensor | None, decisions: Decisions) -> Tensor:
        """Run what each input keeps."""
        x = run_rows(self.attend, decisions.rows("attention", self.index, x.device), x, mask)
        return run_rows(self.feed_forward, decisions.rows("ffn", self.index, x.device), x)


class SwitchableDecoderLayer(SwitchableLayer):
    """x -> self-attention -> cross-attention -> feed-forward.

    x is (B, G, T, D): the G hypotheses (beams) of an input share its decisions and its encoder states, so they stay
    together; cross-attention sees them as G x T queries over one set of keys and values.
    """

    def __init__(self, cfg: Any, index: int, decoder_index: int):
        super().__init__(cfg, cfg.decoder, index)
        self.decoder_index = decoder_index
        dim = cfg.decoder.embed_dim
        self.encoder_attn = Attention(dim, cfg.encoder.embed_dim, cfg.decoder.attention_heads, cfg.attention_dropout)
        self.encoder_attn_layer_norm = nn.LayerNorm(dim)

    def attend(self, x: Tensor, mask: Tensor | None, cache: LayerCache | None) -> Tensor:
        """The self-attention sublayer; ``mask`` bool (B, 1, 1, T, T) or None for plain causal attention."""
        queries = x.flatten(0, 1)
        keys, values = self.self_attn.keys_values(queries)
        if cache is not None:
            keys, values = cache.append(keys, values)
        if mask is not None:
            mask = mask.expand(-1, x.size(1), -1, -1, -1).flatten(0, 1)
        causal = cache is None and mask is None
        context = self.self_attn(queries, keys, values, mask, causal)
        return self.add(x, context.view_as(x), self.self_attn_layer_norm)

    def source_keys_values(
        self, source: Tensor, rows: Tensor | None, cache: LayerCache | None
    ) -> tuple[Tensor, Tensor]:
        """Keys and values of the encoder states, (B, S', D), of the inputs in ``rows``; computed once an input."""
        if cache is not None and cache.source is not None:
            return cache.source
        pair = self.encoder_attn.keys_values(source if rows is None else source.index_select(0, rows))
        if cache is not None:
            cache.source = pair
        return pair

    def cross_attend(self, x: Tensor, mask: Tensor | None, keys: Tensor, values: Tensor) -> Tensor:
        """The cross-attention sublayer; ``mask`` bool (B, 1, 1, S'), True = real token."""
        context = self.encoder_attn(x.flatten(1, 2), keys, values, mask)
        return self.add(x, context.view_as(x), self.encoder_attn_layer_norm)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None,
        source: Tensor,
        source_mask: Tensor | None,
        decisions: Decisions,
        cache: LayerCache | None = None,
    ) -> Tensor:
        """Run what each input keeps; with a cache, x holds the newest position only."""
        rows = decisions.rows("attention", self.index, x.device)
        x = run_rows(lambda x, mask: self.attend(x, mask, cache), rows, x, mask)
        rows = decisions.rows("cross_attention", self.decoder_index, x.device)
        keys, values = self.source_keys_values(source, rows, cache)
        x = run_rows(lambda x, mask: self.cross_attend(x, mask, keys, values), rows, x, source_mask)
        return run_rows(self.feed_forward, decisions.rows("ffn", self.index, x.device), x)


def attention_mask(padding_mask: Tensor | None) -> Tensor | None:
    """bool (B, S), True = padding, to bool (B, 1, 1, S), True = may be attended to."""
    return None if padding_mask is None else ~padding_mask[:, None, None, :]


def causal_mask(padding_mask: Tensor) -> Tensor:
    """Causal attention that never sees padding, for left-padded targets: bool (B, 1, 1, T, T).

    A padding position may see itself, since attention over nothing is not a number.
    """
    size = padding_mask.size(1)
    causal = torch.ones(size, size, dtype=torch.bool, device=padding_mask.device).tril()
    mask = causal & ~padding_mask[:, None, None, None, :]
    return mask | torch.eye(size, dtype=torch.bool, device=padding_mask.device)
