"""``--arch switchable_bart``: fairseq's BART with a policy and sublayers that can be skipped."""

from __future__ import annotations

import logging
import os
from argparse import ArgumentParser
from typing import Any, Optional

import torch
from fairseq import checkpoint_utils
from fairseq.dataclass.utils import gen_parser_from_dataclass
from fairseq.models import register_model, register_model_architecture
from fairseq.models.bart import BARTModel
from fairseq.models.bart.model import bart_base_architecture, bart_large_architecture
from fairseq.models.transformer import TransformerConfig
from torch import Tensor, nn

from ...compat.user_dir import register_tasks_and_models
from ...config import DecisionOptions, build_space, check_range
from ...cost import Geometry
from ...decisions import Decisions
from ...errors import UserError
from ...policy import Chooser, SwitchPolicy
from ...rl import LearnerState
from ...runtime.packing import PackableModel
from ..decoder import SwitchableDecoder
from ..encoder import SwitchableEncoder
from .hub import SwitchableHubInterface
from .plain import UNSUPPORTED, drop_duplicates, locate, read_switchable, split_projections

logger = logging.getLogger(__name__)


@register_model("switchable_bart")
class SwitchableBARTModel(PackableModel, BARTModel):
    """BART that decides for each input what to run of itself.

    Parameter names are BART's, and ``encoder.policy.*`` and ``learner_state.*`` beside them. A plain BART checkpoint
    loads with a new policy, whose greedy path keeps everything.
    """

    def __init__(self, args: Any, encoder: SwitchableEncoder, decoder: SwitchableDecoder):
        super().__init__(args, encoder, decoder)
        encoder.policy.reset_parameters()  # after BART's initialization of all linear layers
        self.learner_state = LearnerState(encoder.policy)
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

    @property
    def policy(self) -> SwitchPolicy:
        """The policy network."""
        return self.encoder.policy

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
    def build_encoder(cls, args: Any, src_dict: Any, embed_tokens: nn.Embedding) -> SwitchableEncoder:
        """The encoder, which holds the policy."""
        cfg = TransformerConfig.from_namespace(args)
        space = build_space(args, cfg.encoder.layers, cfg.decoder.layers)
        policy = SwitchPolicy(space, cfg.encoder.embed_dim, args.switch_policy_dim, bool(args.switch_per_layer))
        return SwitchableEncoder(cfg, src_dict, embed_tokens, space, policy)

    @classmethod
    def build_decoder(cls, args: Any, tgt_dict: Any, embed_tokens: nn.Embedding) -> SwitchableDecoder:
        """The decoder."""
        return SwitchableDecoder(TransformerConfig.from_namespace(args), tgt_dict, embed_tokens)

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
        **unused: Any,
    ) -> tuple[Tensor, dict[str, Any]]:
        """Logits (B, T, V) under each input's decisions, and a dict with ``decisions`` and the policy's ``features``.

        Args:
            decisions: see `SwitchableEncoder.forward`; None = the policy's greedy path.
            classification_head_name: logits (B, classes) of that head, on the decoder's last real position: the one
                that stands for the last ``</s>`` of the input, whether the decoder's tokens are shifted or not.
            span_scores: scores (B, T, 2) of the span head on the decoder's top states.
        """
        if torch.is_grad_enabled() and self.packed is not None:  # packed products have no gradients
            self.unpack()
        encoder_out = self.encoder(src_tokens, src_lengths, token_embeddings=token_embeddings, decisions=decisions)
        features_only = features_only or span_scores or classification_head_name is not None
        x, extra = self.decoder(prev_output_tokens, encoder_out=encoder_out, features_only=features_only)
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
        """fairseq's hub interface over a checkpoint; of a plain BART, switchable, with a policy that keeps everything.

        Args:
            model_name_or_path: folder of the checkpoint, or fairseq's name for a released model.
            data_name_or_path: folder of the dictionaries; one that begins with "." is taken from the checkpoint's.
            overrides: options to change, such as ``switch_decisions``.
        """
        register_tasks_and_models()  # a checkpoint names its task
        folder, overrides = locate(model_name_or_path, data_name_or_path, overrides, cls.hub_models())
        overrides.update(bpe=bpe, load_checkpoint_heads=True, sample_break_mode=sample_break_mode)
        file = os.path.join(folder, checkpoint_file)
        # fairseq frees the state, as large as the model, once it is loaded: no name here may hold it.
        load = checkpoint_utils.load_model_ensemble_and_task
        models, cfg, task = load([file], state=read_switchable(file, overrides))
        return SwitchableHubInterface(cfg, task, models[0])

    def set_beam_size(self, beam: int) -> None:
        """Nothing to prepare: the decoder sees the hypotheses of an input from the shapes."""

    def upgrade_state_dict_named(self, state_dict: dict[str, Tensor], name: str) -> None:
        """Make a plain BART checkpoint's state fit: copies out, projections apart, a new policy in.

        Raises:
            UserError: the checkpoint's geometry or dictionary differs.
        """
        drop_duplicates(state_dict)
        split_projections(state_dict)
        own = self.state_dict()
        if not any(key.startswith("encoder.policy.") for key in state_dict):
            logger.info("the checkpoint has no policy: a new one starts by keeping everything")
        if self.span_head is None:
            for key in [key for key in state_dict if key.startswith("span_head.")]:
                logger.info("the checkpoint's %s is left out: this task answers no questions", key)
                del state_dict[key]
        for key, value in own.items():
            if key.startswith(("encoder.policy.", "learner_state.", "span_head.")) or key.endswith("coder.version"):
                state_dict.setdefault(key, value)
        super().upgrade_state_dict_named(state_dict, name)
        check_fits(state_dict, self.state_dict(), len(self.encoder.dictionary))


def check_fits(state_dict: dict[str, Tensor], own: dict[str, Tensor], dictionary_size: int) -> None:
    """Refuse a checkpoint whose tensors are not this model's.

    Raises:
        UserError: naming the difference and what to do about it.
    """
    embedding = "encoder.embed_tokens.weight"
    rows = state_dict[embedding].size(0)
    if embedding in own and rows != own[embedding].size(0):
        raise UserError(
            f"the checkpoint embeds {rows} tokens, the data's dictionary has {dictionary_size}: binarize the data with "
            "the checkpoint's own dict.txt (fairseq-preprocess --srcdict dict.txt --tgtdict dict.txt)"
        )
    missing = sorted(own.keys() - state_dict.keys())
    unknown = sorted(state_dict.keys() - own.keys())
    differing = sorted(key for key in own.keys() & state_dict.keys() if own[key].shape != state_dict[key].shape)
    if not (missing or unknown or differing):
        return
    details = [f"{key} is {shape(state_dict[key])} there, {shape(own[key])} here" for key in differing]
    details += [f"{key} is missing there" for key in missing] + [f"{key} is unknown here" for key in unknown]
    more = f", and {len(details) - 3} more" if len(details) > 3 else ""
    raise UserError(
        f"the checkpoint's geometry differs from the model's: {'; '.join(details[:3])}{more}. Give the checkpoint's "
        "--arch and its --encoder-layers, --decoder-layers, --encoder-embed-dim, --encoder-ffn-embed-dim, "
        "--max-source-positions, --switch-policy-dim, --switch-split-attention and --switch-per-layer"
    )


def shape(tensor: Tensor) -> str:
    """A tensor's shape, readable."""
    return "x".join(map(str, tensor.shape)) or "a scalar"


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
