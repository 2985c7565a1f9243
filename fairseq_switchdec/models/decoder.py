"""The decoder of BART and T5, for training and for step-by-step generation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Optional

import torch
from fairseq.models import FairseqIncrementalDecoder
from torch import Tensor, nn

from ..blocks import RelativeBias, causal_mask
from ..runtime.cache import DecoderCache
from ..runtime.checkpointing import run_layer
from ..runtime.packing import Packs
from .embeddings import Embeddings, Embeds

CACHE = "switchable_decoder_cache"


class OutputDecoder(FairseqIncrementalDecoder, Packs):
    """What every decoder ends with, and what fairseq's generator asks of one."""

    products = {"output_projection": ("output_projection",)}

    def set_output(
        self, tokens: nn.Embedding, shared: bool, max_positions: int, absent: Sequence[int] = (), scale: float = 1.0
    ) -> None:
        """Make the output projection.

        Args:
            tokens: the embedding.
            shared: with the embedding; a shared one is never allocated: its 206 MB would be the peak of loading
                BART-large.
            max_positions: longest target, in tokens.
            absent: symbols that the model cannot write, as it has no token for them.
            scale: of the states that are projected.
        """
        self.share_output = shared
        self.output_embedding = (tokens,)  # no part of this module
        device = "meta" if shared else None
        self.output_projection = nn.Linear(tokens.embedding_dim, tokens.num_embeddings, bias=False, device=device)
        if shared:
            self.output_projection.weight = tokens.weight
        self.max_target_positions = max_positions
        self.absent = list(absent)
        self.output_scale = scale

    def unpack(self) -> None:
        """See `Packs`; the embedding has the output projection's weight."""
        super().unpack()
        if self.share_output:
            self.output_projection.weight = self.output_embedding[0].weight

    def max_positions(self) -> int:
        """Longest target, in tokens."""
        return self.max_target_positions

    def forward(
        self,
        prev_output_tokens: Tensor,
        encoder_out: Optional[dict[str, Any]] = None,
        incremental_state: Optional[dict[str, Any]] = None,
        features_only: bool = False,
        return_all_hiddens: bool = False,
        **unused: Any,
    ) -> tuple[Tensor, dict[str, Any]]:
        """Decode, int64 (B x G, T); with an incremental state only the last position is computed.

        Returns:
            logits (B x G, T, V), or the top hidden states (B x G, T, D) with ``features_only``; and a dict with the
            encoder's ``decisions`` and ``features``. With ``return_all_hiddens`` it has ``inner_states``, as fairseq's
            decoder gives them: the embedded tokens and each layer's output, (T, B x G, D).
        """
        assert encoder_out is not None
        states: list[Tensor] | None = [] if return_all_hiddens else None
        x = self.extract_features(prev_output_tokens, encoder_out, incremental_state, states)
        extra = {"attn": [None], "decisions": encoder_out["decisions"], "features": encoder_out["features"]}
        if states is not None:
            extra["inner_states"] = [state.flatten(0, 1).transpose(0, 1) for state in states]
        return (x if features_only else self.output_layer(x)), extra

    def extract_features(
        self,
        prev_output_tokens: Tensor,
        encoder_out: dict[str, Any],
        incremental_state: dict[str, Any] | None = None,
        states: list[Tensor] | None = None,
    ) -> Tensor:
        """The top layer's hidden states, (B x G, T, D).

        Args:
            states: gets the embedded tokens and each layer's output, (B, G, T, D).
        """
        raise NotImplementedError

    def output_layer(self, features: Tensor, **unused: Any) -> Tensor:
        """Hidden states (..., D) to logits (..., V)."""
        logits = self.output_projection(features if self.output_scale == 1 else features * self.output_scale)
        if self.absent:
            logits[..., self.absent] = -torch.inf
        return logits

    def reorder_incremental_state_scripting(self, incremental_state: dict[str, Any], new_order: Tensor) -> None:
        """What fairseq's generator calls between decoding steps; its own version asks every module of the decoder."""
        self.reorder_incremental_state(incremental_state, new_order)

    def reorder_incremental_state(self, incremental_state: dict[str, Any], new_order: Tensor) -> None:
        """fairseq's hook for that."""
        if CACHE in incremental_state:
            incremental_state[CACHE].reorder(new_order)

    def upgrade_state_dict_named(self, state_dict: dict[str, Tensor], name: str) -> None:
        """Checkpoints, the official BART ones among them, need not repeat a shared output projection."""
        projection = f"{name}.output_projection.weight"
        for embedding in (f"{name}.embed_tokens.weight", "encoder.embed_tokens.weight"):
            if self.share_output and projection not in state_dict and embedding in state_dict:
                state_dict[projection] = state_dict[embedding]


class SwitchableDecoder(OutputDecoder, Embeds):
    """Embeddings, the layers, the output projection. Tokens are never dropped here (section 3.1).

    Args:
        first: the first layer's column in `Decisions`.
        share_output: the output projection has the embedding's weight.
        max_positions: longest target, in tokens.
        layer_norm: of the last layer's output, or None.
        relative_positions: what self-attention adds to its scores, or None.
        start: symbol that targets begin with, where it is not fairseq's ``</s>``.
        absent, output_scale: see `OutputDecoder.set_output`.
        checkpoint_activations: recompute layers in the backward pass, instead of keeping their activations.
    """

    def __init__(
        self,
        dictionary: Any,
        embeddings: Embeddings,
        layers: Iterable[nn.Module],
        first: int,
        share_output: bool,
        max_positions: int,
        layer_norm: nn.Module | None = None,
        relative_positions: RelativeBias | None = None,
        start: int | None = None,
        absent: Sequence[int] = (),
        output_scale: float = 1.0,
        checkpoint_activations: bool = False,
    ):
        super().__init__(dictionary)
        self.padding_idx = dictionary.pad()
        self.register_buffer("version", torch.Tensor([3]))
        self.set_embeddings(embeddings)
        self.layers = nn.ModuleList(layers)
        self.layer_norm = layer_norm
        self.relative_positions = relative_positions
        self.first = first
        self.start = start
        self.set_output(embeddings.tokens, share_output, max_positions, absent, output_scale)
        self.checkpoint_activations = checkpoint_activations

    def extract_features(
        self,
        prev_output_tokens: Tensor,
        encoder_out: dict[str, Any],
        incremental_state: dict[str, Any] | None = None,
        states: list[Tensor] | None = None,
    ) -> Tensor:
        """See `OutputDecoder.extract_features`."""
        source, tokens, decisions = encoder_out["encoder_out"][0], encoder_out["tokens"], encoder_out["decisions"]
        beams, length = prev_output_tokens.size(0) // len(decisions), prev_output_tokens.size(1)
        if self.start is not None:
            first = prev_output_tokens.new_full((len(prev_output_tokens), 1), self.start)
            prev_output_tokens = torch.cat([first, prev_output_tokens[:, 1:]], dim=1)
        positions = None
        if self.embed_positions is not None:
            positions = self.embed_positions(prev_output_tokens, incremental_state=incremental_state)
        cache = mask = None
        if incremental_state is not None:
            prev_output_tokens = prev_output_tokens[:, -1:]
            positions = None if positions is None else positions[:, -1:]
            if CACHE not in incremental_state:
                incremental_state[CACHE] = DecoderCache(decisions, beams, self.first, len(self.layers), source.device)
            cache = incremental_state[CACHE]
            cache.advance()
        x = self.embed(self.embed_tokens(prev_output_tokens), positions).unflatten(0, (-1, beams))

        if cache is not None:
            (slots,) = cache.slots
            mask = slots.mask if self.relative_positions is None else self.relative_positions.step(slots, length - 1)
        elif self.relative_positions is not None:
            mask = self.relative_positions.causal(x.size(0), length)
        else:
            padding = prev_output_tokens.eq(self.padding_idx)
            # On the right, as fairseq pads targets by default, causal attention hides padding from every real token.
            mask = causal_mask(padding) if bool(padding[:, 0].any()) else None
        recompute = self.checkpoint_activations and self.training
        for index, layer in enumerate(self.layers):
            if states is not None:
                states.append(x)
            part = None if cache is None else cache.layers[index]
            x = run_layer(layer, recompute, x, mask, source, tokens, decisions, part)
        if states is not None:
            states.append(x)
        if self.layer_norm is not None:
            x = self.dropout(self.layer_norm(x))
        return x.flatten(0, 1)
