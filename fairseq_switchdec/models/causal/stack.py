"""A decoder-only model as fairseq's encoder and decoder: one stack of layers reads the prompt and then continues it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ...blocks import Angles, PromptKeys, SwitchableCausalLayer
from ...cost import Lengths
from ...decisions import Decisions
from ...errors import UserError
from ...policy import SwitchPolicy
from ...runtime.cache import DecoderCache, SourceKeys
from ...runtime.checkpointing import run_layer
from ...runtime.ragged import Ragged
from ...tokens import kept_tokens
from ..decoder import OutputDecoder
from ..embeddings import Embeddings
from ..encoder import SwitchableEncoder
from .prompt import PromptFormat, Prompts


class PromptCache:
    """What a prompt leaves behind: every layer's keys and values.

    Attributes:
        keys: of each layer, laid out as `layout` of those inputs that run its attention says.
        layouts: of the tokens that each layer saw.
    """

    def __init__(self, layers: int, first: Ragged):
        self.keys: list[PromptKeys] = [None] * layers
        self.layouts = [first] * layers
        self.taken = False

    def take(self) -> None:
        """Generation holds the keys in its own slots, once: they are given to one decoder.

        Raises:
            RuntimeError: they were given already.
        """
        if self.taken:
            raise RuntimeError("the prompt's keys were given to another decoding: run the encoder again")
        self.taken = True


class PromptEncoder(SwitchableEncoder):
    """Reads prompts: embeddings, the first layer, the policy's decisions, token dropping, the other layers.

    The policy reads the mean over all tokens but the last, from which the decoder writes.

    Args:
        prompts: makes them of sources.
    """

    def __init__(
        self,
        dictionary: Any,
        embeddings: Embeddings,
        layers: Iterable[SwitchableCausalLayer],
        policy: SwitchPolicy,
        prompts: PromptFormat,
        layer_norm: nn.Module,
        checkpoint_activations: bool = False,
    ):
        super().__init__(
            dictionary,
            embeddings,
            layers,
            policy,
            max_positions=prompts.room + 1,  # fairseq counts </s>
            layer_norm=layer_norm,
            checkpoint_activations=checkpoint_activations,
        )
        self.prompts = prompts

    def forward(
        self,
        src_tokens: Tensor,
        src_lengths: Tensor | None = None,
        return_all_hiddens: bool = False,
        token_embeddings: Tensor | None = None,
        decisions: Any = None,
    ) -> dict[str, Any]:
        """Read a batch, int64 (B, S): see `SwitchableEncoder.forward`.

        Returns:
            besides, ``prompt``: the `PromptCache`; ``last`` and ``position``, int64 (B,): each prompt's last token, and
            where it stands.
        """
        prompts = self.prompts(src_tokens)
        read = prompts.read
        tokens = prompts.tokens[read]
        places = torch.arange(read.size(1), device=read.device).expand_as(read)[read]
        x = self.embed_at(tokens, places)
        cache = PromptCache(len(self.layers), Ragged((), x.device))
        drop = partial(self.kept_tokens_of, prompts)
        encoded = self.decide_and_run(x, read, drop, decisions, partial(self.run_prompt, cache))
        more = {"prompt": cache, "last": prompts.last, "position": prompts.lengths - 1, "src_tokens": [src_tokens]}
        return {**encoded, **more}

    @property
    def droppable_ends(self) -> tuple[bool, bool]:
        """See `SwitchableEncoder.droppable_ends`: a prompt's first and last token stay, whatever they are."""
        return bool(self.prompts.prefix), bool(self.prompts.suffix)

    def embed_at(self, tokens: Tensor, places: Tensor) -> Tensor:
        """Embedded tokens, int64 (...,), which stand at ``places``: (..., D)."""
        return self.embed(
            self.embed_tokens(tokens), None if self.embed_positions is None else self.embed_positions(places)
        )

    def run_prompt(self, cache: PromptCache, layers: slice, x: Tensor, tokens: Ragged, decisions: Decisions) -> Tensor:
        """As `SwitchableEncoder.run`; every layer's keys go into the cache."""
        recompute = self.checkpoint_activations and self.training
        indices = range(len(self.layers))[layers]
        parts, kept = [], {index: [] for index in indices}
        for piece in tokens.pieces():
            part, decided = x[piece.tokens], decisions.select(piece.inputs)
            for index in indices:
                part, keys = run_layer(self.layers[index], recompute, part, piece.layout, decided)
                if keys is not None:
                    kept[index].append(keys)
            parts.append(part)
        for index in indices:
            cache.layouts[index] = tokens
            if kept[index]:
                cache.keys[index] = tuple(map(torch.cat, zip(*kept[index])))
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def kept_tokens_of(self, prompts: Prompts, decisions: Decisions) -> Tensor:
        """bool (B, P): tokens of the prompts that stay."""
        strategy = decisions.token_strategy.to(prompts.tokens.device)
        return kept_tokens(prompts.article, prompts.read & ~prompts.article, strategy)

    def lengths(self, src_tokens: Tensor, target: Tensor, beam: int, incremental: bool = True) -> Lengths:
        """See `SwitchableEncoder.lengths`."""
        prompts = self.prompts(src_tokens)
        article = prompts.article.sum(1)
        return Lengths(prompts.lengths.cpu() - 1, article.cpu(), target.cpu(), beam, incremental)

    def select_encoder_out(self, encoder_out: dict[str, Any], inputs: Tensor) -> dict[str, Any]:
        """See `SwitchableEncoder.select_encoder_out`; the prompts' keys are the generator's by now."""
        index = inputs.to(encoder_out["last"].device)
        parts = {name: encoder_out[name].index_select(0, index) for name in ("last", "position")}
        return {**super().select_encoder_out(encoder_out, inputs), **parts}


class ContinuationDecoder(OutputDecoder):
    """Continues prompts, with the encoder's layers; its first input stands for the prompt's last token.

    Args:
        encoder: whose layers and embeddings these are; they are no part of this module.
        share_output, max_positions, absent: see `OutputDecoder.set_output`.
    """

    def __init__(
        self,
        dictionary: Any,
        encoder: PromptEncoder,
        share_output: bool,
        max_positions: int,
        absent: Sequence[int] = (),
    ):
        super().__init__(dictionary)
        self.padding_idx = dictionary.pad()
        self.stack = (encoder,)
        self.set_output(encoder.embed_tokens, share_output, max_positions, absent)

    def extract_whole(
        self, prev_output_tokens: Tensor, encoder_out: dict[str, Any], states: list[Tensor] | None
    ) -> Tensor:
        """See `OutputDecoder.extract_whole`.

        Raises:
            UserError: padding comes before a target, which is to continue its prompt at once.
        """
        (stack,) = self.stack
        beams, length = prev_output_tokens.size(0) // len(encoder_out["decisions"]), prev_output_tokens.size(1)
        if bool(prev_output_tokens[:, 0].eq(self.padding_idx).any()):
            raise UserError("targets padded on the left cannot continue a prompt: leave out --left-pad-target")
        first = encoder_out["last"].repeat_interleave(beams).unsqueeze(1)
        tokens = torch.cat([first, prev_output_tokens[:, 1:]], dim=1)
        places = encoder_out["position"].unsqueeze(1) + torch.arange(length, device=tokens.device)
        x = stack.embed_at(tokens, places.repeat_interleave(beams, 0)).unflatten(0, (-1, beams))
        angles = None if stack.layers[0].rotary is None else stack.layers[0].rotary(places.unsqueeze(1))
        return self.run_layers(x, angles, encoder_out, None, states).flatten(0, 1)

    def extract_step(
        self,
        tokens: Tensor,
        steps: Tensor,
        encoder_out: dict[str, Any],
        cache: DecoderCache,
        states: list[Tensor] | None = None,
    ) -> Tensor:
        """See `OutputDecoder.extract_step`."""
        (stack,) = self.stack
        tokens = tokens.where(steps != 0, encoder_out["last"].unsqueeze(1))
        places = encoder_out["position"].unsqueeze(1) + steps
        x = stack.embed_at(tokens, places.expand_as(tokens)).unsqueeze(2)
        angles = None if stack.layers[0].rotary is None else stack.layers[0].rotary(places.unsqueeze(2))
        return self.run_layers(x, angles, encoder_out, cache, states)

    def run_layers(
        self,
        x: Tensor,
        angles: Angles | None,
        encoder_out: dict[str, Any],
        cache: DecoderCache | None,
        states: list[Tensor] | None,
    ) -> Tensor:
        """All layers, and the norm after the last one, on (B, G, T, D)."""
        (stack,) = self.stack
        decisions, prompt = encoder_out["decisions"], encoder_out["prompt"]
        recompute = stack.checkpoint_activations and self.training

        def run(index: int, layer: SwitchableCausalLayer, x: Tensor) -> Tensor:
            mask = source = part = None
            if cache is not None:
                part = cache.layers[index]
                mask = part.slots.mask
            else:
                source = self.prompt_keys(prompt, index, decisions)
            return run_layer(layer.proceed, recompute, x, decisions, angles, mask, source, part)

        return stack.layer_norm(self.through(stack.layers, x, states, run))

    def prompt_keys(self, prompt: Any, index: int, decisions: Decisions) -> SourceKeys | None:
        """A layer's keys of the prompts, of the inputs that run its attention."""
        if prompt.keys[index] is None:
            return None
        _, tokens = prompt.layouts[index].select(decisions.rows("attention", index))
        return SourceKeys(self.stack[0].layers[index].self_attn, prompt.keys[index], tokens)

    def new_cache(self, encoder_out: dict[str, Any], beams: int) -> DecoderCache:
        """See `OutputDecoder.new_cache`; prompts' keys are in the first slots, once for all hypotheses of an input."""
        decisions, prompt = encoder_out["decisions"], encoder_out["prompt"]
        prompt.take()
        (stack,) = self.stack
        device = self.output_embedding[0].weight.device
        cache = DecoderCache(decisions, beams, 0, len(stack.layers), device, prompt.layouts)
        for index, (layer, part) in enumerate(zip(stack.layers, cache.layers)):
            if prompt.keys[index] is not None:
                _, tokens = prompt.layouts[index].select(decisions.rows("attention", index))
                keys, values = prompt.keys[index]
                part.keys.start(keys, layer.self_attn, tokens)
                part.values.start(values, layer.self_attn, tokens)
                prompt.keys[index] = None  # so that no two of all are there at a time
        return cache
