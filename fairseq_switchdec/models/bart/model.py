"""``--arch switchable_bart``: fairseq's BART with a policy and sublayers that can be skipped."""

from __future__ import annotations

import logging
from argparse import ArgumentParser
from typing import Any, Optional

import torch
from fairseq import utils
from fairseq.dataclass.utils import gen_parser_from_dataclass
from fairseq.models import register_model, register_model_architecture
from fairseq.models.bart import BARTModel
from fairseq.models.bart.model import bart_base_architecture, bart_large_architecture
from fairseq.models.transformer import TransformerConfig
from fairseq.modules import PositionalEmbedding
from torch import Tensor, nn

from ...blocks import LayerConfig, SwitchableDecoderLayer, SwitchableEncoderLayer
from ...config import DecisionOptions, build_space, check_range
from ...cost import Geometry
from ...decisions import Decisions
from ...errors import UserError
from ...policy import Chooser
from ...runtime.loading import allocated
from ...runtime.packing import TokenEmbedding
from ..decoder import SwitchableDecoder
from ..embeddings import Embeddings
from ..encoder import SwitchableEncoder
from ..hub import SwitchableHubInterface
from ..options import build_policy
from ..switchable import SwitchableModel
from .plain import UNSUPPORTED, drop_duplicates, read_switchable, split_projections

logger = logging.getLogger(__name__)


@register_model("switchable_bart")
class SwitchableBARTModel(SwitchableModel, BARTModel):
    """BART that decides for each input what to run of itself.

    Parameter names are BART's, and ``encoder.policy.*`` and ``learner_state.*`` beside them. A plain BART checkpoint
    loads with a new policy, whose greedy path keeps everything.
    """

    size_flags = (
        "--encoder-layers, --decoder-layers, --encoder-embed-dim, --encoder-ffn-embed-dim, --max-source-positions"
    )
    hub_interface = SwitchableHubInterface

    def __init__(self, args: Any, encoder: SwitchableEncoder, decoder: SwitchableDecoder):
        super().__init__(args, encoder, decoder)
        self.set_up_policy()
        self.register_module("span_head", None)
        cfg = self.cfg
        self.geometry = Geometry(
            encoder_layers=cfg.encoder.layers,
            decoder_layers=cfg.decoder.layers,
            encoder_dim=cfg.encoder.embed_dim,
            decoder_dim=cfg.decoder.embed_dim,
            encoder_ffn_dim=cfg.encoder.ffn_embed_dim,
            decoder_ffn_dim=cfg.decoder.ffn_embed_dim,
            vocabulary=decoder.output_projection.out_features,
        )

    def register_classification_head(self, *args: Any, **kwargs: Any) -> None:
        """fairseq's hook."""
        with allocated():
            super().register_classification_head(*args, **kwargs)

    def register_span_head(self) -> None:
        """Give the model a head for question answering: a token's scores as first and as last one of an answer."""
        self.span_head = nn.Linear(self.cfg.decoder.embed_dim, 2)
        nn.init.normal_(self.span_head.weight, std=0.02)
        nn.init.zeros_(self.span_head.bias)

    @staticmethod
    def add_args(parser: ArgumentParser) -> None:
        """BART's options and ours."""
        BARTModel.add_args(parser)
        gen_parser_from_dataclass(parser, DecisionOptions(), delete_default=True)

    @classmethod
    def build_model(cls, args: Any, task: Any) -> SwitchableBARTModel:
        """Build the model for a task's dictionaries.

        Raises:
            UserError: an option that does not fit, before anything is built.
        """
        for name in UNSUPPORTED:
            if getattr(args, name, None):
                raise UserError(f"--{name.replace('_', '-')} is not supported by switchable_bart: leave it out")
        check_range("switch_policy_dim", args.switch_policy_dim, "1 or more", lambda value: value >= 1)
        build_space(args, args.encoder_layers, args.decoder_layers)
        return super().build_model(args, task)

    @classmethod
    def build_embedding(cls, cfg: Any, dictionary: Any, embed_dim: int, path: str | None = None) -> TokenEmbedding:
        """fairseq's hook."""
        made = super().build_embedding(cfg, dictionary, embed_dim, path)
        return TokenEmbedding(len(dictionary), embed_dim, made.padding_idx, _weight=made.weight)

    @classmethod
    def build_encoder(cls, args: Any, src_dict: Any, embed_tokens: nn.Embedding) -> SwitchableEncoder:
        """The encoder, which holds the policy."""
        cfg = TransformerConfig.from_namespace(args)
        space = build_space(args, cfg.encoder.layers, cfg.decoder.layers)
        config = layer_config(cfg, cfg.encoder)
        return SwitchableEncoder(
            src_dict,
            embeddings(cfg, cfg.encoder, embed_tokens, cfg.max_source_positions),
            [SwitchableEncoderLayer(config, index) for index in range(cfg.encoder.layers)],
            build_policy(args, space, cfg.encoder.embed_dim),
            max_positions=cfg.max_source_positions,
            checkpoint_activations=cfg.checkpoint_activations,
        )

    @classmethod
    def build_decoder(cls, args: Any, tgt_dict: Any, embed_tokens: nn.Embedding) -> SwitchableDecoder:
        """The decoder."""
        cfg = TransformerConfig.from_namespace(args)
        first, config = cfg.encoder.layers, layer_config(cfg, cfg.decoder)
        return SwitchableDecoder(
            tgt_dict,
            embeddings(cfg, cfg.decoder, embed_tokens, cfg.max_target_positions),
            [SwitchableDecoderLayer(config, first + index, index) for index in range(cfg.decoder.layers)],
            first=first,
            share_output=cfg.share_decoder_input_output_embed,
            max_positions=cfg.max_target_positions,
            checkpoint_activations=cfg.checkpoint_activations,
        )

    def forward(
        self,
        src_tokens: Tensor,
        src_lengths: Tensor | None,
        prev_output_tokens: Tensor,
        features_only: bool = False,
        classification_head_name: Optional[str] = None,
        token_embeddings: Tensor | None = None,
        decisions: Optional[Decisions | Chooser] = None,
        span_scores: bool = False,
        return_all_hiddens: bool = False,
        **unused: Any,
    ) -> tuple[Tensor, dict[str, Any]]:
        """Logits (B, T, V) under each input's decisions, and a dict with ``decisions`` and the policy's ``features``.

        Args:
            decisions: see `SwitchableEncoder.forward`; None = the policy's greedy path.
            classification_head_name: logits (B, classes) of that head, on the decoder's last real position: the one
                that stands for the last ``</s>`` of the input, whether the decoder's tokens are shifted or not.
            span_scores: scores (B, T, 2) of the span head on the decoder's top states.
        """
        x, extra = super().forward(
            src_tokens,
            src_lengths,
            prev_output_tokens,
            features_only or span_scores or classification_head_name is not None,
            token_embeddings,
            decisions,
            return_all_hiddens,
        )
        if classification_head_name is not None:
            last = prev_output_tokens.ne(self.decoder.padding_idx).long().cumsum(1).argmax(1)
            x = self.classification_heads[classification_head_name](x[torch.arange(len(x), device=x.device), last])
        elif span_scores:
            x = self.span_head(x)
        return x, extra

    @classmethod
    def from_pretrained(
        cls,
        model_name_or_path: str,
        checkpoint_file: str = "model.pt",
        data_name_or_path: str = ".",
        bpe: Optional[str] = "gpt2",
        sample_break_mode: str = "eos",
        **overrides: Any,
    ) -> SwitchableHubInterface:
        """See `SwitchableModel.from_pretrained`; with the classification heads that the checkpoint has."""
        overrides.update(load_checkpoint_heads=True, sample_break_mode=sample_break_mode)
        interface: SwitchableHubInterface = super().from_pretrained(
            model_name_or_path, checkpoint_file, data_name_or_path, bpe, **overrides
        )
        return interface

    @classmethod
    def read_checkpoint(cls, path: str, overrides: dict[str, Any]) -> dict[str, Any]:
        """See `SwitchableModel.read_checkpoint`; a plain BART's too."""
        return read_switchable(path, overrides)

    def upgrade_state_dict_named(self, state_dict: dict[str, Tensor], name: str) -> None:
        """Make a plain BART checkpoint's state fit: copies out, projections apart, a new policy in.

        Raises:
            UserError: the checkpoint's geometry or dictionary differs.
        """
        drop_duplicates(state_dict)
        split_projections(state_dict)
        if self.span_head is None:
            for key in [key for key in state_dict if key.startswith("span_head.")]:
                logger.info("the checkpoint's %s is left out: this task answers no questions", key)
                del state_dict[key]
        else:
            for key, value in self.span_head.state_dict().items():
                state_dict.setdefault(f"span_head.{key}", value)
        super().upgrade_state_dict_named(state_dict, name)


def layer_config(cfg: Any, side: Any) -> LayerConfig:
    """What BART's layers are made of.

    Args:
        cfg: fairseq's ``TransformerConfig``.
        side: its ``encoder`` or ``decoder`` part.
    """
    return LayerConfig(
        dim=side.embed_dim,
        ffn_dim=side.ffn_embed_dim,
        heads=side.attention_heads,
        activation=utils.get_activation_fn(cfg.activation_fn),
        source_dim=cfg.encoder.embed_dim,
        dropout=cfg.dropout,
        attention_dropout=cfg.attention_dropout,
        # fairseq's older name for the same option still wins there when only it is set.
        activation_dropout=float(cfg.activation_dropout) or float(cfg.relu_dropout or 0),
    )


def embeddings(cfg: Any, side: Any, tokens: nn.Embedding, positions: int) -> Embeddings:
    """What BART's encoder or decoder embeds with, up to so many positions."""
    return Embeddings(
        tokens,
        PositionalEmbedding(positions, side.embed_dim, tokens.padding_idx, side.learned_pos),
        nn.LayerNorm(side.embed_dim) if cfg.layernorm_embedding else None,
        cfg.dropout,
        1.0 if cfg.no_scale_embedding else side.embed_dim**0.5,
    )


@register_model_architecture("switchable_bart", "switchable_bart")
def switchable_bart(args: Any) -> None:
    """BART-large's geometry."""
    for name, default in DecisionOptions().__dict__.items():
        if name.startswith("switch_"):
            setattr(args, name, getattr(args, name, default))
    bart_large_architecture(args)


@register_model_architecture("switchable_bart", "switchable_bart_base")
def switchable_bart_base(args: Any) -> None:
    """BART-base's geometry."""
    bart_base_architecture(args)
    switchable_bart(args)


@register_model_architecture("switchable_bart", "switchable_bart_tiny")
def switchable_bart_tiny(args: Any) -> None:
    """Small enough to train on a laptop's processor: 2 + 2 layers of 64 dimensions."""
    args.encoder_embed_dim = getattr(args, "encoder_embed_dim", 64)
    args.encoder_ffn_embed_dim = getattr(args, "encoder_ffn_embed_dim", 256)
    args.encoder_layers = getattr(args, "encoder_layers", 2)
    args.encoder_attention_heads = getattr(args, "encoder_attention_heads", 4)
    args.decoder_layers = getattr(args, "decoder_layers", 2)
    args.decoder_attention_heads = getattr(args, "decoder_attention_heads", 4)
    switchable_bart(args)
