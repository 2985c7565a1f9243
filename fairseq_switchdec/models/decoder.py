"""BART's decoder with skippable sublayers, for training and for step-by-step generation."""

from __future__ import annotations

from typing import Any, Optional

import torch
from fairseq.models import FairseqIncrementalDecoder
from torch import Tensor, nn

from ..blocks import SwitchableDecoderLayer
from ..blocks.layers import causal_mask
from ..runtime.cache import DecoderCache
from ..runtime.checkpointing import run_layer
from ..runtime.packing import Packs
from .embedding import Embeds

CACHE = "switchable_decoder_cache"


class SwitchableDecoder(FairseqIncrementalDecoder, Embeds, Packs):
    """Embeddings, the layers, the output projection. Tokens are never dropped here (section 3.1).

    Args:
        cfg: fairseq's ``TransformerConfig``.
    """

    products = {"output_projection": ("output_projection",)}

    def __init__(self, cfg: Any, dictionary: Any, embed_tokens: nn.Embedding):
        super().__init__(dictionary)
        self.register_buffer("version", torch.Tensor([3]))
        self.max_target_positions = cfg.max_target_positions
        self.build_embeddings(cfg, cfg.decoder, embed_tokens, cfg.max_target_positions)
        self.encoder_layers = cfg.encoder.layers
        self.layers = nn.ModuleList(
            SwitchableDecoderLayer(cfg, cfg.encoder.layers + i, i) for i in range(cfg.decoder.layers)
        )
        self.share_output = cfg.share_decoder_input_output_embed
        # A shared one is never allocated: its 206 MB would be the peak of loading BART-large.
        device = "meta" if self.share_output else None
        self.output_projection = nn.Linear(cfg.decoder.embed_dim, len(dictionary), bias=False, device=device)
        if self.share_output:
            self.output_projection.weight = embed_tokens.weight
        self.checkpoint_activations = cfg.checkpoint_activations

    def unpack(self) -> None:
        """See `Packs`; the embedding has the output projection's weight."""
        super().unpack()
        if self.share_output:
            self.output_projection.weight = self.embed_tokens.weight

    def max_positions(self) -> int:
        """Longest target, in tokens."""
        return self.max_target_positions

    def forward(
        self,
        prev_output_tokens: Tensor,
        encoder_out: Optional[dict[str, Any]] = None,
        incremental_state: Optional[dict[str, Any]] = None,
        features_only: bool = False,
        **unused: Any,
    ) -> tuple[Tensor, dict[str, Any]]:
        """Decode, int64 (B x G, T); with an incremental state only the last position is computed.

        Returns:
            logits (B x G, T, V), or the top hidden states (B x G, T, D) with ``features_only``; and a dict with the
            encoder's ``decisions`` and ``features``.
        """
        assert encoder_out is not None
        x = self.extract_features(prev_output_tokens, encoder_out, incremental_state)
        extra = {"attn": [None], "decisions": encoder_out["decisions"], "features": encoder_out["features"]}
        return (x if features_only else self.output_layer(x)), extra

    def extract_features(
        self,
        prev_output_tokens: Tensor,
        encoder_out: dict[str, Any],
        incremental_state: dict[str, Any] | None = None,
    ) -> Tensor:
        """The top layer's hidden states, (B x G, T, D)."""
        source, tokens, decisions = encoder_out["encoder_out"][0], encoder_out["tokens"], encoder_out["decisions"]
        beams = prev_output_tokens.size(0) // len(decisions)
        positions = self.embed_positions(prev_output_tokens, incremental_state=incremental_state)
        cache = mask = None
        if incremental_state is not None:
            prev_output_tokens, positions = prev_output_tokens[:, -1:], positions[:, -1:]
            if CACHE not in incremental_state:
                layers = self.encoder_layers, len(self.layers)
                incremental_state[CACHE] = DecoderCache(decisions, beams, *layers, source.device)
            cache = incremental_state[CACHE]
            mask = cache.advance()
        x = self.embed(self.embed_tokens(prev_output_tokens), positions).unflatten(0, (-1, beams))

        if cache is None:
            padding = prev_output_tokens.eq(self.padding_idx)
            # On the right, as fairseq pads targets by default, causal attention hides padding from every real token.
            mask = causal_mask(padding) if bool(padding[:, 0].any()) else None
        recompute = self.checkpoint_activations and self.training
        for index, layer in enumerate(self.layers):
            part = None if cache is None else cache.layers[index]
            x = run_layer(layer, recompute, x, mask, source, tokens, decisions, part)
        return x.flatten(0, 1)

    def output_layer(self, features: Tensor, **unused: Any) -> Tensor:
        """Hidden states (..., D) to logits (..., V)."""
        return self.output_projection(features)

    def reorder_incremental_state_scripting(self, incremental_state: dict[str, Any], new_order: Tensor) -> None:
        """What fairseq's generator calls between decoding steps; its own version asks every module of the decoder."""
        self.reorder_incremental_state(incremental_state, new_order)

    def reorder_incremental_state(self, incremental_state: dict[str, Any], new_order: Tensor) -> None:
        """fairseq's hook for that."""
        if CACHE in incremental_state:
            incremental_state[CACHE].reorder(new_order)

    def upgrade_state_dict_named(self, state_dict: dict[str, Tensor], name: str) -> None:
        """Older checkpoints, the official BART ones among them, do not repeat a shared output projection."""
        projection, embedding = f"{name}.output_projection.weight", f"{name}.embed_tokens.weight"
        if projection not in state_dict and self.output_projection.weight is self.embed_tokens.weight:
            state_dict[projection] = state_dict[embedding]
