"""Decoder-only models: GPT-2, and LLaMA with all that shares its architecture."""

from __future__ import annotations

import json
import logging
from argparse import ArgumentParser
from functools import partial
from typing import Any, ClassVar

from fairseq.models import FairseqEncoderDecoderModel, register_model, register_model_architecture
from torch import nn

from ...blocks import LayerConfig, RMSNorm, Rotary, SwitchableCausalLayer, activation, pre_norm
from ...config import build_space, flag
from ...cost import Geometry
from ...errors import UserError
from ...runtime.packing import TokenEmbedding
from ..embeddings import Embeddings
from ..options import COMMON, Option, add_options, build_policy, fill, fill_decisions, symbols
from ..switchable import SwitchableModel
from .prompt import PromptFormat
from .stack import ContinuationDecoder, PromptEncoder

logger = logging.getLogger(__name__)

CAUSAL = {
    "decoder_layers": Option(int, "layers"),
    "decoder_embed_dim": Option(int, "size of the hidden states"),
    "decoder_ffn_embed_dim": Option(int, "size of the feed-forward sublayers' hidden states"),
    "decoder_attention_heads": Option(int, "heads"),
    "decoder_kv_heads": Option(int, "heads of keys and values, which groups of heads share; 0 = one for each", 0),
    "decoder_head_dim": Option(int, "size of a head; 0 = hidden states / heads", 0),
    "max_positions": Option(int, "tokens of the longest prompt and its continuation together"),
    "prompt_prefix": Option(str, "symbols of the dictionary that a prompt begins with, joined by spaces", ""),
    "prompt_suffix": Option(str, "symbols that a prompt ends with, after the article", ""),
    **COMMON,
}
ROTARY = {
    "rope_theta": Option(float, "base of the rotary positions' wave lengths", 10000.0),
    "rope_scaling": Option(str, "scaling of rotary positions, a JSON object as Hugging Face's models have it", ""),
}

GPT2_SIZES = {"max_positions": 1024, "norm_eps": 1e-5, "activation_fn": "gelu_tanh", "dropout": 0.1}
LLAMA_SIZES = {
    "decoder_layers": 32, "decoder_embed_dim": 4096, "decoder_ffn_embed_dim": 11008, "decoder_attention_heads": 32,
    "max_positions": 2048, "norm_eps": 1e-6, "activation_fn": "silu", "share_decoder_input_output_embed": False,
}  # fmt: skip


def gpt2_sizes(layers: int, dim: int, heads: int) -> dict[str, Any]:
    """Of one of the released models."""
    return {
        **GPT2_SIZES,
        "decoder_layers": layers,
        "decoder_embed_dim": dim,
        "decoder_ffn_embed_dim": 4 * dim,
        "decoder_attention_heads": heads,
    }


#: By --arch; for LLaMA they come from the checkpoint, else they are those of the 7 B of LLaMA 1.
SIZES: dict[str, dict[str, Any]] = {
    "switchable_gpt2": gpt2_sizes(12, 768, 12),
    "switchable_gpt2_medium": gpt2_sizes(24, 1024, 16),
    "switchable_gpt2_large": gpt2_sizes(36, 1280, 20),
    "switchable_gpt2_xl": gpt2_sizes(48, 1600, 25),
    "switchable_gpt2_tiny": {**gpt2_sizes(2, 64, 4), "max_positions": 256},
    "switchable_llama": LLAMA_SIZES,
    "switchable_llama_tiny": {
        **LLAMA_SIZES, "decoder_layers": 2, "decoder_embed_dim": 64, "decoder_ffn_embed_dim": 172,
        "decoder_attention_heads": 4, "decoder_kv_heads": 2, "max_positions": 256,
        "share_decoder_input_output_embed": True,
    },
}  # fmt: skip


class SwitchableCausalModel(SwitchableModel, FairseqEncoderDecoderModel):
    """A decoder-only model that reads an article as a prompt and decides what to run of itself for the whole of it.

    To fairseq it is an encoder, which reads the prompt, and a decoder, which continues it with the same layers.

    Attributes:
        name: as registered.
        options: the backbone's.
        gated: whether the feed-forward is.
        bias: whether linear layers have one.
    """

    name: ClassVar[str]
    options: ClassVar[dict[str, Option]]
    gated: ClassVar[bool]
    bias: ClassVar[bool]
    size_flags = "--decoder-layers, --decoder-embed-dim, --decoder-ffn-embed-dim, --max-positions"

    def __init__(self, args: Any, encoder: PromptEncoder, decoder: ContinuationDecoder):
        super().__init__(encoder, decoder)
        self.args = args
        for name, module in encoder.named_modules():
            if isinstance(module, (nn.Linear, nn.Embedding)) and not name.startswith("policy."):
                nn.init.normal_(module.weight, std=0.02)
                if getattr(module, "bias", None) is not None:
                    nn.init.zeros_(module.bias)
        if not decoder.share_output:
            nn.init.normal_(decoder.output_projection.weight, std=0.02)
        self.set_up_policy()
        attention = encoder.layers[0].self_attn
        self.geometry = Geometry(
            encoder_layers=args.decoder_layers,
            decoder_layers=0,
            encoder_dim=args.decoder_embed_dim,
            decoder_dim=args.decoder_embed_dim,
            encoder_ffn_dim=args.decoder_ffn_embed_dim,
            decoder_ffn_dim=0,
            vocabulary=len(decoder.dictionary),
            attention_dim=attention.heads * attention.head_dim,
            key_dim=attention.key_dim,
            ffn_products=3 if self.gated else 2,
        )

    @classmethod
    def add_args(cls, parser: ArgumentParser) -> None:
        """The backbone's options, and those of the decisions."""
        add_options(parser, cls.options)

    @classmethod
    def build_model(cls, args: Any, task: Any) -> SwitchableCausalModel:
        """Build the model for a task's dictionary.

        Raises:
            UserError: options that do not fit each other, before anything is built.
        """
        fill(args, cls.options, SIZES.get(getattr(args, "arch", ""), SIZES[cls.name]))
        if task.source_dictionary != task.target_dictionary:
            raise UserError(f"--arch {args.arch} has one dictionary: binarize with --joined-dictionary")
        if set(args.switch_scope.split(",")) != {"encoder", "decoder"}:
            raise UserError(f"--switch-scope {args.switch_scope}: a decoder-only model has one stack: leave it out")
        space = build_space(args, args.decoder_layers, 0)
        dictionary = task.source_dictionary
        absent = symbols(dictionary, args.absent_symbols)
        prompts = prompt_format(args, dictionary, absent)
        dim, rotary, config = args.decoder_embed_dim, cls.rotary(args), cls.layer_config(args)
        positions = None if rotary is not None else nn.Embedding(args.max_positions, dim)
        encoder = PromptEncoder(
            dictionary,
            Embeddings(TokenEmbedding(len(dictionary), dim), positions, dropout=args.dropout),
            [SwitchableCausalLayer(config, index, rotary) for index in range(args.decoder_layers)],
            build_policy(args, space, dim),
            prompts,
            config.norm(dim),
            args.checkpoint_activations,
        )
        shared = bool(args.share_decoder_input_output_embed)
        return cls(args, encoder, ContinuationDecoder(dictionary, encoder, shared, args.max_target_positions, absent))

    @classmethod
    def rotary(cls, args: Any) -> Rotary | None:
        """Rotary positions, or None."""
        return None

    @classmethod
    def norm(cls, args: Any) -> Any:
        """Makes the normalization of so many numbers."""
        raise NotImplementedError

    @classmethod
    def layer_config(cls, args: Any) -> LayerConfig:
        """What a layer is made of."""
        heads = args.decoder_attention_heads
        if not args.decoder_head_dim and args.decoder_embed_dim % heads:
            raise UserError(f"--decoder-embed-dim {args.decoder_embed_dim} must be a multiple of its {heads} heads")
        if args.decoder_kv_heads and heads % args.decoder_kv_heads:
            raise UserError(f"--decoder-attention-heads {heads} must be a multiple of --decoder-kv-heads")
        return LayerConfig(
            dim=args.decoder_embed_dim,
            ffn_dim=args.decoder_ffn_embed_dim,
            heads=heads,
            activation=activation(args.activation_fn, cls.gated),
            key_value_heads=args.decoder_kv_heads or None,
            head_dim=args.decoder_head_dim or None,
            bias=cls.bias,
            gated=cls.gated,
            norm=cls.norm(args),
            connect=pre_norm,
            dropout=args.dropout,
            attention_dropout=args.attention_dropout,
            activation_dropout=args.activation_dropout,
        )


def prompt_format(args: Any, dictionary: Any, absent: list[int]) -> PromptFormat:
    """How sources become prompts; ``args`` gets the positions that are left for articles and for what is written.

    Raises:
        UserError: prefix and suffix leave no room.
    """
    if args.max_target_positions >= args.max_positions:
        args.max_target_positions = min(256, args.max_positions // 4)
        logger.info("of %d positions, targets get %d", args.max_positions, args.max_target_positions)
    for name in ("prompt_prefix", "prompt_suffix"):
        unknown = [symbol for symbol in getattr(args, name).split() if symbol not in dictionary.indices]
        if unknown:
            raise UserError(f"{flag(name)}: {unknown[0]} is not in the dictionary: give words of dict.txt")
    prefix, suffix = symbols(dictionary, args.prompt_prefix), symbols(dictionary, args.prompt_suffix)
    room = args.max_positions - args.max_target_positions - len(prefix) - len(suffix)
    if room < 1:
        raise UserError(
            f"--prompt-suffix: of the model's {args.max_positions} positions, a target takes "
            f"{args.max_target_positions}, prefix and suffix {len(prefix) + len(suffix)}: an article has no room"
        )
    start = dictionary.eos() if dictionary.bos() in absent else dictionary.bos()
    return PromptFormat(tuple(prefix), tuple(suffix), room, start, dictionary.eos(), dictionary.pad())


@register_model("switchable_gpt2")
class SwitchableGPT2Model(SwitchableCausalModel):
    """GPT-2: learned positions, layer norm before sublayers, biases everywhere."""

    options = CAUSAL
    gated, bias = False, True
    name = "switchable_gpt2"

    @classmethod
    def norm(cls, args: Any) -> Any:
        """See `SwitchableCausalModel.norm`."""
        return partial(nn.LayerNorm, eps=args.norm_eps)


@register_model("switchable_llama")
class SwitchableLlamaModel(SwitchableCausalModel):
    """LLaMA: rotary positions, RMS norm before sublayers, gated feed-forward, no biases, keys shared or not."""

    options = {**CAUSAL, **ROTARY}
    gated, bias = True, False
    name = "switchable_llama"

    @classmethod
    def norm(cls, args: Any) -> Any:
        """See `SwitchableCausalModel.norm`."""
        return partial(RMSNorm, eps=args.norm_eps)

    @classmethod
    def rotary(cls, args: Any) -> Rotary:
        """See `SwitchableCausalModel.rotary`.

        Raises:
            UserError: a scaling that is not understood.
        """
        head_dim = args.decoder_head_dim or args.decoder_embed_dim // args.decoder_attention_heads
        try:
            return Rotary(head_dim, args.rope_theta, json.loads(args.rope_scaling) if args.rope_scaling else None)
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"--rope-scaling {args.rope_scaling!r} is not understood ({error})") from None


for _arch in SIZES:
    _model = SwitchableGPT2Model if "gpt2" in _arch else SwitchableLlamaModel
    register_model_architecture(_model.name, _arch)(fill_decisions)
