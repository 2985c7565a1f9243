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
from ..runtime.cache import LayerCache, SourceKeys
from ..runtime.packing import Packs
from ..runtime.ragged import Ragged
from ..runtime.skipping import run_rows
from .attention import Attention


class SwitchableLayer(Packs):
    """What encoder and decoder layers share: self-attention, feed-forward and the residual around them.

    Args:
        cfg: fairseq's ``TransformerConfig``.
        side: its ``encoder`` or ``decoder`` part.
        index: the layer's column in `Decisions`, counted through encoder and decoder.
    """

    products = {"fc1": ("fc1",), "fc2": ("fc2",)}

    def __init__(self, cfg: Any, side: Any, index: int):
        super().__init__()
        self.index = index
        self.self_attn = Attention(side.embed_dim, None, side.attention_heads, cfg.attention_dropout)
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
        return norm(x + (self.dropout(branch) if self.training else branch))

    def feed_forward(self, x: Tensor) -> Tensor:
        """The feed-forward sublayer, (..., D)."""
        hidden = self.activation(self.fc1(x))
        if self.training:
            hidden = self.activation_dropout(hidden)
        return self.add(x, self.fc2(hidden), self.final_layer_norm)


class SwitchableEncoderLayer(SwitchableLayer):
    """x -> self-attention -> feed-forward, on the tokens of all inputs side by side, (N, D)."""

    def attend(self, x: Tensor, tokens: Ragged) -> Tensor:
        """The self-attention sublayer of inputs with the layout ``tokens``."""
        attention = self.self_attn
        queries, keys, values = attention.queries_keys_values(x)
        contexts = [
            attention.attend(
                bucket.gather(queries),
                attention.split_heads(bucket.gather(keys)),
                attention.split_heads(bucket.gather(values)),
                bucket.mask,
            )
            for bucket in tokens.buckets
        ]
        return self.add(x, attention.out_proj(tokens.merge(contexts)), self.self_attn_layer_norm)

    def forward(self, x: Tensor, tokens: Ragged, decisions: Decisions) -> Tensor:
        """Run what each input keeps."""
        index, part = tokens.select(decisions.rows("attention", self.index))
        x = run_rows(lambda x: self.attend(x, part), index, x)
        index, _ = tokens.select(decisions.rows("ffn", self.index))
        return run_rows(self.feed_forward, index, x)


class SwitchableDecoderLayer(SwitchableLayer):
    """x -> self-attention -> cross-attention -> feed-forward.

    x is (B, G, T, D): the G hypotheses (beams) of an input share its decisions and its encoder states, so they stay
    together; cross-attention sees them as G x T queries over one set of keys and values, and so does self-attention in
    a decoding step, where T is 1 (`fairseq_switchdec.runtime.cache`).
    """

    def __init__(self, cfg: Any, index: int, decoder_index: int):
        super().__init__(cfg, cfg.decoder, index)
        self.decoder_index = decoder_index
        dim = cfg.decoder.embed_dim
        self.encoder_attn = Attention(dim, cfg.encoder.embed_dim, cfg.decoder.attention_heads, cfg.attention_dropout)
        self.encoder_attn_layer_norm = nn.LayerNorm(dim)

    def attend(self, x: Tensor, mask: Tensor | None, cache: LayerCache | None) -> Tensor:
        """The self-attention sublayer.

        Args:
            mask: bool; without a cache (B, 1, 1, T, T) or None for plain causal attention, with one
                (B, 1, G, capacity), which slots a hypothesis sees.
        """
        attention = self.self_attn
        rows = x.flatten(0, 1) if cache is None else x.flatten(1, 2)
        queries, keys, values = attention.queries_keys_values(rows)
        keys, values = attention.split_heads(keys), attention.split_heads(values)
        if cache is not None:
            assert mask is not None
            keys, values = cache.keys.put(keys), cache.values.put(values)
            mask = mask[..., : keys.size(2)]
        elif mask is not None:
            mask = mask.expand(-1, x.size(1), -1, -1, -1).flatten(0, 1)
        context = attention.attend(queries, keys, values, mask, causal=mask is None)
        return self.add(x, attention.out_proj(context).view_as(x), self.self_attn_layer_norm)

    def source_keys(self, source: Tensor, tokens: Ragged, rows: Tensor | None, cache: LayerCache | None) -> SourceKeys:
        """Keys and values of the encoder states, (N, D), of the inputs in ``rows``; computed once an input."""
        if cache is not None and cache.source is not None:
            return cache.source
        index, tokens = tokens.select(rows)
        source = source if index is None else source.index_select(0, index)
        keys = SourceKeys(self.encoder_attn, source, tokens)
        if cache is not None:
            cache.source = keys
        return keys

    def cross_attend(self, x: Tensor, keys: SourceKeys) -> Tensor:
        """The cross-attention sublayer."""
        attention = self.encoder_attn
        context = keys.attend(attention, attention.q_proj(x.flatten(1, 2)))
        return self.add(x, attention.out_proj(context).view_as(x), self.encoder_attn_layer_norm)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None,
        source: Tensor,
        tokens: Ragged,
        decisions: Decisions,
        cache: LayerCache | None = None,
    ) -> Tensor:
        """Run what each input keeps; with a cache, x holds the newest position only.

        Args:
            source: (N, D) encoder states, laid out as ``tokens`` says.
        """
        rows = decisions.rows("attention", self.index, x.device)
        x = run_rows(lambda x, mask: self.attend(x, mask, cache), rows, x, mask)
        rows = decisions.rows("cross_attention", self.decoder_index, x.device)
        if rows is None or rows.numel() > 0:
            keys = self.source_keys(source, tokens, decisions.rows("cross_attention", self.decoder_index), cache)
            x = run_rows(lambda x: self.cross_attend(x, keys), rows, x)
        return run_rows(self.feed_forward, decisions.rows("ffn", self.index, x.device), x)


def causal_mask(padding_mask: Tensor) -> Tensor:
    """Causal attention that never sees padding, for left-padded targets: bool (B, 1, 1, T, T).

    A padding position may see itself, since attention over nothing is not a number.
    """
    size = padding_mask.size(1)
    causal = torch.ones(size, size, dtype=torch.bool, device=padding_mask.device).tril()
    mask = causal & ~padding_mask[:, None, None, None, :]
    return mask | torch.eye(size, dtype=torch.bool, device=padding_mask.device)
