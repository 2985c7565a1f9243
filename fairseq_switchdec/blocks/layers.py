"""Transformer layers, each sublayer skippable for each input; what the backbones differ in is given to a layer.

Parameter names are fairseq's, so official checkpoints load. fairseq's own layers are not subclassed: their residual
hook runs after the work is done, and 0.12.2's encoder layer carries copies of all its weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from ..decisions import Decisions
from ..runtime.cache import LayerCache, SourceKeys
from ..runtime.packing import Packs
from ..runtime.ragged import Ragged
from ..runtime.skipping import run_rows
from .activations import Activation
from .attention import Attention
from .positions import RelativeBias

Sublayer = Callable[[Tensor], Tensor]

#: Tokens whose hidden states in a feed-forward network, several times as large, are there at a time.
BLOCK = 256


def post_norm(x: Tensor, sublayer: Sublayer, norm: nn.Module, dropout: Sublayer) -> Tensor:
    """The residual connection, normalized after (BART)."""
    return norm(x + dropout(sublayer(x)))


def pre_norm(x: Tensor, sublayer: Sublayer, norm: nn.Module, dropout: Sublayer) -> Tensor:
    """The residual connection around a sublayer that reads normalized states (GPT-2, T5, LLaMA)."""
    return x + dropout(sublayer(norm(x)))


@dataclass(frozen=True)
class LayerConfig:
    """What a layer is made of; what is not said here is said in `Attention`.

    Attributes:
        dim: D.
        ffn_dim: F, of the feed-forward's hidden states.
        activation: of what ``fc1`` gives.
        gated: ``fc1`` gives 2 F, of which the activation makes F.
        norm: makes the normalization of D numbers.
        connect: the residual connection.
        source_dim: size of the encoder's states, for cross-attention.
    """

    dim: int
    ffn_dim: int
    heads: int
    activation: Activation
    key_value_heads: int | None = None
    head_dim: int | None = None
    source_dim: int | None = None
    bias: bool = True
    scaled: bool = True
    gated: bool = False
    norm: Callable[[int], nn.Module] = nn.LayerNorm
    connect: Callable[[Tensor, Sublayer, nn.Module, Sublayer], Tensor] = post_norm
    dropout: float = 0.0
    attention_dropout: float = 0.0
    activation_dropout: float = 0.0

    def attention(self, source_dim: int | None = None) -> Attention:
        """Self-attention, or attention to states of another size."""
        return Attention(
            self.dim,
            self.heads,
            source_dim,
            self.key_value_heads,
            self.head_dim,
            self.bias,
            self.scaled,
            self.attention_dropout,
        )


class SwitchableLayer(Packs):
    """What all layers share: self-attention, feed-forward and the residual around them.

    Args:
        index: the layer's column in `Decisions`, counted through encoder and decoder.
    """

    products = {"fc1": ("fc1",), "fc2": ("fc2",)}

    def __init__(self, config: LayerConfig, index: int):
        super().__init__()
        self.index = index
        self.self_attn = config.attention()
        self.self_attn_layer_norm = config.norm(config.dim)
        self.fc1 = nn.Linear(config.dim, config.ffn_dim * (2 if config.gated else 1), config.bias)
        self.fc2 = nn.Linear(config.ffn_dim, config.dim, config.bias)
        self.final_layer_norm = config.norm(config.dim)
        self.activation = config.activation
        self.dropout = nn.Dropout(config.dropout)
        self.activation_dropout = nn.Dropout(config.activation_dropout)
        self._connect = config.connect

    def connect(self, x: Tensor, sublayer: Sublayer, norm: nn.Module) -> Tensor:
        """x with a sublayer's result added, and normalized."""
        return self._connect(x, sublayer, norm, self.dropout if self.training else unchanged)

    def feed_forward(self, x: Tensor) -> Tensor:
        """The feed-forward sublayer, (..., D)."""
        return self.connect(x, self.transform, self.final_layer_norm)

    def transform(self, x: Tensor) -> Tensor:
        """What the feed-forward network makes of (..., D)."""
        if x.dim() == 2 and len(x) > BLOCK and x.device.type == "cpu" and not torch.is_grad_enabled():
            return torch.cat([self.transform(part) for part in x.split(BLOCK)])
        hidden = self.activation(self.fc1(x))
        if self.training:
            hidden = self.activation_dropout(hidden)
        return self.fc2(hidden)


def unchanged(x: Tensor) -> Tensor:
    """Dropout outside of training, without a module's call."""
    return x


class SwitchableEncoderLayer(SwitchableLayer):
    """x -> self-attention -> feed-forward, on the tokens of all inputs side by side, (N, D)."""

    def attend(self, x: Tensor, tokens: Ragged, bias: RelativeBias | None) -> Tensor:
        """Self-attention of inputs with the layout ``tokens``."""
        attention = self.self_attn
        queries, keys, values = attention.queries_keys_values(x)
        masks = [bucket.mask for bucket in tokens.buckets] if bias is None else bias.masks(tokens)
        contexts = [
            attention.attend(
                bucket.gather(queries),
                attention.split_heads(bucket.gather(keys)),
                attention.split_heads(bucket.gather(values)),
                mask,
            )
            for bucket, mask in zip(tokens.buckets, masks)
        ]
        return attention.out_proj(tokens.merge(contexts))

    def forward(self, x: Tensor, tokens: Ragged, decisions: Decisions, bias: RelativeBias | None = None) -> Tensor:
        """Run what each input keeps."""
        index, part = tokens.select(decisions.rows("attention", self.index))
        attend = partial(self.attend, tokens=part, bias=bias)
        x = run_rows(lambda x: self.connect(x, attend, self.self_attn_layer_norm), index, x)
        index, _ = tokens.select(decisions.rows("ffn", self.index))
        return run_rows(self.feed_forward, index, x)


class SwitchableDecoderLayer(SwitchableLayer):
    """x -> self-attention -> cross-attention -> feed-forward.

    x is (B, G, T, D): the G hypotheses (beams) of an input share its decisions and its encoder states, so they stay
    together; cross-attention sees them as G x T queries over one set of keys and values, and so does self-attention in
    a decoding step, where T is 1 (`fairseq_switchdec.runtime.cache`).
    """

    def __init__(self, config: LayerConfig, index: int, decoder_index: int):
        super().__init__(config, index)
        self.decoder_index = decoder_index
        self.encoder_attn = config.attention(config.source_dim)
        self.encoder_attn_layer_norm = config.norm(config.dim)

    def attend(self, x: Tensor, mask: Tensor | None, cache: LayerCache | None) -> Tensor:
        """Self-attention.

        Args:
            mask: see `Attention.attend`; without a cache (B, 1, 1 or H, T, T) or None for plain causal attention, with
                one (B, 1 or H, G, capacity), which slots a hypothesis sees.
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
        return attention.out_proj(context).view_as(x)

    def source_keys(self, source: Tensor, tokens: Ragged, rows: Tensor | None, cache: LayerCache | None) -> SourceKeys:
        """Keys and values of the encoder states, (N, D), of the inputs in ``rows``; computed once an input."""
        if cache is not None and cache.source is not None:
            return cache.source
        index, tokens = tokens.select(rows)
        source = source if index is None else source.index_select(0, index)
        keys = SourceKeys.project(self.encoder_attn, source, tokens)
        if cache is not None:
            cache.source = keys
        return keys

    def cross_attend(self, x: Tensor, keys: SourceKeys) -> Tensor:
        """Cross-attention."""
        attention = self.encoder_attn
        context = keys.attend(attention, attention.q_proj(x.flatten(1, 2)))
        return attention.out_proj(context).view_as(x)

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

        def self_attention(x: Tensor, mask: Tensor | None) -> Tensor:
            return self.connect(x, lambda x: self.attend(x, mask, cache), self.self_attn_layer_norm)

        x = run_rows(self_attention, decisions.rows("attention", self.index, x.device), x, mask)
        rows = decisions.rows("cross_attention", self.decoder_index, x.device)
        if rows is None or rows.numel() > 0:
            keys = self.source_keys(source, tokens, decisions.rows("cross_attention", self.decoder_index), cache)
            attend = partial(self.cross_attend, keys=keys)
            x = run_rows(lambda x: self.connect(x, attend, self.encoder_attn_layer_norm), rows, x)
        return run_rows(self.feed_forward, decisions.rows("ffn", self.index, x.device), x)


def causal_mask(padding_mask: Tensor) -> Tensor:
    """Causal attention that never sees padding, for left-padded targets: bool (B, 1, 1, T, T).

    A padding position may see itself, since attention over nothing is not a number.
    """
    size = padding_mask.size(1)
    causal = torch.ones(size, size, dtype=torch.bool, device=padding_mask.device).tril()
    mask = causal & ~padding_mask[:, None, None, None, :]
    return mask | torch.eye(size, dtype=torch.bool, device=padding_mask.device)
