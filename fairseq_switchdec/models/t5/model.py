"""``--arch switchable_t5``: T5, versions 1.0 and 1.1, with a policy and sublayers that can be skipped."""

from __future__ import annotations

from argparse import ArgumentParser
from functools import partial
from typing import Any

from fairseq.models import FairseqEncoderDecoderModel, register_model, register_model_architecture
from torch import nn

from ...blocks import (
    LayerConfig,
    RelativeBias,
    RMSNorm,
    SwitchableDecoderLayer,
    SwitchableEncoderLayer,
    activation,
    pre_norm,
)
from ...config import build_space
from ...cost import Geometry
from ...decisions import DecisionSpace
from ...errors import UserError
from ...runtime.packing import TokenEmbedding
from ..decoder import SwitchableDecoder
from ..embeddings import Embeddings
from ..encoder import SwitchableEncoder
from ..options import COMMON, Option, add_options, build_policy, fill, fill_decisions, symbols
from ..switchable import SwitchableModel

SIDES = {
    f"{side}_{name}": Option(int, help.format(side))
    for side in ("encoder", "decoder")
    for name, help in (
        ("layers", "layers of the {}"),
        ("embed_dim", "size of the {}'s hidden states"),
        ("ffn_embed_dim", "size of its feed-forward sublayers' hidden states"),
        ("attention_heads", "heads of the {}"),
    )
}
OPTIONS = {
    **SIDES,
    "head_dim": Option(int, "size of a head"),
    "relative_buckets": Option(int, "distances that have a bias of their own", 32),
    "relative_max_distance": Option(int, "distance from which on all have the same bias", 128),
    "gated": Option(bool, "gated feed-forward sublayers (version 1.1)", False),
    **COMMON,
}


def sizes(layers: int, dim: int, ffn_dim: int, heads: int, head_dim: int = 64) -> dict[str, Any]:
    """Of one of the released models, version 1.0."""
    both = {"layers": layers, "embed_dim": dim, "ffn_embed_dim": ffn_dim, "attention_heads": heads}
    found = {f"{side}_{name}": value for side in ("encoder", "decoder") for name, value in both.items()}
    return {**found, "head_dim": head_dim, "norm_eps": 1e-6, "activation_fn": "relu", "dropout": 0.1}


SIZES = {
    "switchable_t5": sizes(12, 768, 3072, 12),
    "switchable_t5_small": sizes(6, 512, 2048, 8),
    "switchable_t5_large": sizes(24, 1024, 4096, 16),
    "switchable_t5_tiny": sizes(2, 64, 256, 4, 16),
}


@register_model("switchable_t5")
class SwitchableT5Model(SwitchableModel, FairseqEncoderDecoderModel):
    """T5 that decides for each input what to run: RMS norm before sublayers, relative positions, no biases."""

    size_flags = "--encoder-layers, --decoder-layers, --encoder-embed-dim, --head-dim, --gated"

    def __init__(self, args: Any, encoder: SwitchableEncoder, decoder: SwitchableDecoder):
        super().__init__(encoder, decoder)
        self.args = args
        self.initialize(args)
        self.set_up_policy()
        self.geometry = Geometry(
            encoder_layers=args.encoder_layers,
            decoder_layers=args.decoder_layers,
            encoder_dim=args.encoder_embed_dim,
            decoder_dim=args.decoder_embed_dim,
            encoder_ffn_dim=args.encoder_ffn_embed_dim,
            decoder_ffn_dim=args.decoder_ffn_embed_dim,
            vocabulary=len(decoder.dictionary),
            attention_dim=args.head_dim * args.encoder_attention_heads,
            ffn_products=3 if args.gated else 2,
        )

    def initialize(self, args: Any) -> None:
        """Random weights as T5's: of scores that are not scaled, so queries start small."""
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear) and module.weight.device.type != "meta" and ".policy." not in name:
                std = module.in_features**-0.5 * (args.head_dim**-0.5 if name.endswith("q_proj") else 1)
                nn.init.normal_(module.weight, std=std)
            elif isinstance(module, RelativeBias):
                nn.init.normal_(module.weight, std=args.encoder_embed_dim**-0.5)
        nn.init.normal_(self.encoder.embed_tokens.weight)

    @classmethod
    def add_args(cls, parser: ArgumentParser) -> None:
        """The backbone's options, and those of the decisions."""
        add_options(parser, OPTIONS)

    @classmethod
    def build_model(cls, args: Any, task: Any) -> SwitchableT5Model:
        """Build the model for a task's dictionary.

        Raises:
            UserError: options that do not fit each other, before anything is built.
        """
        fill(args, OPTIONS, SIZES.get(getattr(args, "arch", ""), SIZES["switchable_t5"]))
        if task.source_dictionary != task.target_dictionary:
            raise UserError("--arch switchable_t5 has one dictionary: binarize with --joined-dictionary")
        if (args.encoder_embed_dim, args.encoder_attention_heads) != (
            args.decoder_embed_dim,
            args.decoder_attention_heads,
        ):
            raise UserError("--decoder-embed-dim and --decoder-attention-heads must be the encoder's, as T5's are")
        dictionary = task.source_dictionary
        space = build_space(args, args.encoder_layers, args.decoder_layers)
        embeddings = Embeddings(TokenEmbedding(len(dictionary), args.encoder_embed_dim), dropout=args.dropout)
        encoder = build_encoder(args, dictionary, embeddings, space)
        return cls(args, encoder, build_decoder(args, dictionary, embeddings))


def build_encoder(args: Any, dictionary: Any, embeddings: Embeddings, space: DecisionSpace) -> SwitchableEncoder:
    """The encoder, which holds the policy."""
    config, dim = layer_config(args, args.encoder_ffn_embed_dim), args.encoder_embed_dim
    return SwitchableEncoder(
        dictionary,
        embeddings,
        [SwitchableEncoderLayer(config, index) for index in range(args.encoder_layers)],
        build_policy(args, space, dim),
        max_positions=args.max_source_positions,
        layer_norm=config.norm(dim),
        relative_positions=relative_bias(args, bidirectional=True),
        checkpoint_activations=args.checkpoint_activations,
    )


def build_decoder(args: Any, dictionary: Any, embeddings: Embeddings) -> SwitchableDecoder:
    """The decoder, which begins with ``<pad>``; with a tied head its states are scaled by D^-1/2 (version 1.0)."""
    config, dim, first = layer_config(args, args.decoder_ffn_embed_dim), args.decoder_embed_dim, args.encoder_layers
    shared = bool(args.share_decoder_input_output_embed)
    return SwitchableDecoder(
        dictionary,
        embeddings,
        [SwitchableDecoderLayer(config, first + index, index) for index in range(args.decoder_layers)],
        first=first,
        share_output=shared,
        max_positions=args.max_target_positions,
        layer_norm=config.norm(dim),
        relative_positions=relative_bias(args, bidirectional=False),
        start=dictionary.pad(),
        absent=symbols(dictionary, args.absent_symbols),
        output_scale=dim**-0.5 if shared else 1.0,
        checkpoint_activations=args.checkpoint_activations,
    )


def layer_config(args: Any, ffn_dim: int) -> LayerConfig:
    """What T5's layers are made of; those of encoder and decoder may differ in their feed-forward's size."""
    return LayerConfig(
        dim=args.encoder_embed_dim,
        ffn_dim=ffn_dim,
        heads=args.encoder_attention_heads,
        activation=activation(args.activation_fn, args.gated),
        head_dim=args.head_dim,
        source_dim=args.encoder_embed_dim,
        bias=False,
        scaled=False,
        gated=args.gated,
        norm=partial(RMSNorm, eps=args.norm_eps),
        connect=pre_norm,
        dropout=args.dropout,
        attention_dropout=args.attention_dropout,
        activation_dropout=args.activation_dropout,
    )


def relative_bias(args: Any, bidirectional: bool) -> RelativeBias:
    """A stack's relative positions."""
    heads, share = args.encoder_attention_heads, not args.checkpoint_activations
    return RelativeBias(args.relative_buckets, args.relative_max_distance, heads, bidirectional, share)


for _arch in SIZES:
    register_model_architecture("switchable_t5", _arch)(fill_decisions)
