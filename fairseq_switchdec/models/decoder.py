"""The decoder of BART and T5, for training and for step-by-step generation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Optional

import torch
from fairseq.models import FairseqIncrementalDecoder
from torch import Tensor, nn

from ..blocks import RelativeBias, causal_mask
from ..runtime.cache import DecoderCache
from ..runtime.checkpointing import run_layer
from ..runtime.lookup import Lookahead, Lookup
from ..runtime.packing import Packs
from .embeddings import Embeddings, Embeds

CACHE = "switchable_decoder_cache"
LOOKAHEAD = "switchable_decoder_lookahead"


class OutputDecoder(FairseqIncrementalDecoder, Packs):
    """What every decoder ends with, and what fairseq's generator asks of one."""

    products = {"output_projection": ("output_projection",)}
    #: How much is guessed from the source in decoding with one hypothesis; None: nothing.
    lookup: Lookup | None = None
    #: Of the batch that was last decoded so, how many runs each input took; None where nothing was guessed.
    runs: list[int] | None = None

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
        self.tie_output()
        self.max_target_positions = max_positions
        self.absent = list(absent)
        self.output_scale = scale

    def unpack(self) -> None:
        """See `Packs`; the embedding has the output projection's weight."""
        super().unpack()
        self.tie_output()

    def tie_output(self) -> None:
        """Let a shared output projection have the embedding's weight, whatever they were given."""
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
        extra = {"attn": [None], "decisions": encoder_out["decisions"], "features": encoder_out["features"]}
        if incremental_state is not None and not features_only and not return_all_hiddens:
            ahead = self.start_lookahead(prev_output_tokens, encoder_out, incremental_state)
            if ahead is not None:
                return self.known_logits(prev_output_tokens, encoder_out, incremental_state[CACHE], ahead), extra
        states: list[Tensor] | None = [] if return_all_hiddens else None
        x = self.extract_features(prev_output_tokens, encoder_out, incremental_state, states)
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
        if incremental_state is None:
            return self.extract_whole(prev_output_tokens, encoder_out, states)
        beams, length = prev_output_tokens.size(0) // len(encoder_out["decisions"]), prev_output_tokens.size(1)
        if CACHE not in incremental_state:
            incremental_state[CACHE] = self.new_cache(encoder_out, beams)
        cache = incremental_state[CACHE]
        cache.advance()
        newest = prev_output_tokens[:, -1].unflatten(0, (-1, beams))
        steps = torch.full((1, 1), length - 1, device=newest.device)
        return self.run_step(newest, steps, encoder_out, cache, states).flatten(0, 1)

    def extract_whole(
        self, prev_output_tokens: Tensor, encoder_out: dict[str, Any], states: list[Tensor] | None
    ) -> Tensor:
        """`extract_features` of whole targets."""
        raise NotImplementedError

    def run_step(
        self,
        tokens: Tensor,
        steps: Tensor,
        encoder_out: dict[str, Any],
        cache: DecoderCache,
        states: list[Tensor] | None = None,
    ) -> Tensor:
        """`extract_step`, in inference mode where no gradients are wanted: without autograd's records of views and
        versions a step of SmolLM2 takes nine tenths of the time.

        Not the first one with these inputs, in which decisions and layouts note what gradients may be wanted through
        later. Hooks see tensors of inference mode.
        """
        first, cache.settled = not cache.settled, True
        if first or states is not None or torch.is_grad_enabled():
            return self.extract_step(tokens, steps, encoder_out, cache, states)
        with torch.inference_mode():
            x = self.extract_step(tokens, steps, encoder_out, cache)
        return x.clone()  # an ordinary tensor, which may be written to

    def extract_step(
        self,
        tokens: Tensor,
        steps: Tensor,
        encoder_out: dict[str, Any],
        cache: DecoderCache,
        states: list[Tensor] | None = None,
    ) -> Tensor:
        """The top layer's hidden states, (B, n, 1, D), of the n tokens of each input that have the cache's newest
        slots.

        Args:
            tokens: int64 (B, n).
            steps: int64, broadcast to that: which decoding step reads a token.
        """
        raise NotImplementedError

    @staticmethod
    def through(
        layers: Iterable[nn.Module], x: Tensor, states: list[Tensor] | None, run: Callable[[int, Any, Tensor], Tensor]
    ) -> Tensor:
        """x after ``run(index, layer, x)`` of all layers; ``states`` gets it before and after each."""
        for index, layer in enumerate(layers):
            if states is not None:
                states.append(x)
            x = run(index, layer, x)
        if states is not None:
            states.append(x)
        return x

    def new_cache(self, encoder_out: dict[str, Any], beams: int) -> DecoderCache:
        """The cache of a decoding that begins."""
        raise NotImplementedError

    def start_lookahead(
        self, prev_output_tokens: Tensor, encoder_out: dict[str, Any], incremental_state: dict[str, Any]
    ) -> Lookahead | None:
        """What is computed ahead in this decoding, if anything is, begun with its first step: with `lookup` and one
        hypothesis an input.
        """
        if LOOKAHEAD in incremental_state:
            known: Lookahead = incremental_state[LOOKAHEAD]
            return known
        if prev_output_tokens.size(1) > 1:
            return None
        self.runs = None
        if self.lookup is None or len(prev_output_tokens) > len(encoder_out["decisions"]):
            return None
        words = self.output_embedding[0].num_embeddings  # of a dictionary that the source's need not be
        sources = [
            row[(row != self.padding_idx) & (row < words)].tolist() for row in encoder_out["src_tokens"][0].cpu()
        ]
        incremental_state[CACHE] = self.new_cache(encoder_out, 1)
        created = Lookahead(sources, self.lookup, self.max_positions(), self.dictionary.eos())
        incremental_state[LOOKAHEAD], self.runs = created, created.runs
        return created

    def known_logits(
        self, prev_output_tokens: Tensor, encoder_out: dict[str, Any], cache: DecoderCache, ahead: Lookahead
    ) -> Tensor:
        """Logits of the newest position, (B, 1, V), which may be known already."""

        def run(tokens: Tensor, steps: Tensor) -> Tensor:
            cache.open(steps)
            return self.output_layer(self.run_step(tokens, steps, encoder_out, cache).squeeze(2))

        return ahead.answer(prev_output_tokens[:, -1], run, cache).unsqueeze(1)

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
        if LOOKAHEAD in incremental_state:
            incremental_state[LOOKAHEAD].select(new_order)

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

    def extract_whole(
        self, prev_output_tokens: Tensor, encoder_out: dict[str, Any], states: list[Tensor] | None
    ) -> Tensor:
        """See `OutputDecoder.extract_whole`."""
        decisions = encoder_out["decisions"]
        beams, length = prev_output_tokens.size(0) // len(decisions), prev_output_tokens.size(1)
        if self.start is not None:
            first = prev_output_tokens.new_full((len(prev_output_tokens), 1), self.start)
            prev_output_tokens = torch.cat([first, prev_output_tokens[:, 1:]], dim=1)
        positions = None if self.embed_positions is None else self.embed_positions(prev_output_tokens)
        x = self.embed(self.embed_tokens(prev_output_tokens), positions).unflatten(0, (-1, beams))
        mask = None
        if self.relative_positions is not None:
            mask = self.relative_positions.causal(x.size(0), length)
        else:
            padding = prev_output_tokens.eq(self.padding_idx)
            # On the right, as fairseq pads targets by default, causal attention hides padding from every real token.
            mask = causal_mask(padding) if bool(padding[:, 0].any()) else None
        return self.run_layers(x, mask, encoder_out, None, states).flatten(0, 1)

    def extract_step(
        self,
        tokens: Tensor,
        steps: Tensor,
        encoder_out: dict[str, Any],
        cache: DecoderCache,
        states: list[Tensor] | None = None,
    ) -> Tensor:
        """See `OutputDecoder.extract_step`."""
        if self.start is not None:
            tokens = tokens.where(steps != 0, tokens.new_tensor(self.start))
        x = self.embed(self.embed_tokens(tokens), self.positions_at(steps)).unsqueeze(2)
        (slots,) = cache.slots
        mask = slots.mask if self.relative_positions is None else self.relative_positions.step(slots, steps)
        return self.run_layers(x, mask, encoder_out, cache, states)

    def run_layers(
        self,
        x: Tensor,
        mask: Tensor | None,
        encoder_out: dict[str, Any],
        cache: DecoderCache | None,
        states: list[Tensor] | None,
    ) -> Tensor:
        """All layers, and the norm after the last one, on (B, G, T, D)."""
        source, tokens, decisions = encoder_out["encoder_out"][0], encoder_out["tokens"], encoder_out["decisions"]
        recompute = self.checkpoint_activations and self.training

        def run(index: int, layer: nn.Module, x: Tensor) -> Tensor:
            part = None if cache is None else cache.layers[index]
            return run_layer(layer, recompute, x, mask, source, tokens, decisions, part)

        x = self.through(self.layers, x, states, run)
        return x if self.layer_norm is None else self.dropout(self.layer_norm(x))

    def new_cache(self, encoder_out: dict[str, Any], beams: int) -> DecoderCache:
        """See `OutputDecoder.new_cache`."""
        device = encoder_out["encoder_out"][0].device
        return DecoderCache(encoder_out["decisions"], beams, self.first, len(self.layers), device)
