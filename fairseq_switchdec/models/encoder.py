"""BART's encoder with skippable sublayers; it makes the decisions and drops the tokens (paper, section 3.1)."""

from __future__ import annotations

from typing import Any, Optional

import torch
from fairseq.models import FairseqEncoder
from torch import Tensor, nn

from ..blocks import SwitchableEncoderLayer
from ..cost import Lengths
from ..decisions import Decisions, DecisionSpace
from ..policy import Chooser, SwitchPolicy, choose_greedy, pool
from ..runtime.checkpointing import run_layer
from ..runtime.ragged import Ragged
from ..tokens import kept_tokens
from .embedding import Embeds


class SwitchableEncoder(FairseqEncoder, Embeds):
    """Token and position embeddings, the first layer, the policy's decisions, token dropping, the other layers.

    Args:
        cfg: fairseq's ``TransformerConfig``.
        space: which decisions are open.
        policy: makes them.
    """

    def __init__(
        self, cfg: Any, dictionary: Any, embed_tokens: nn.Embedding, space: DecisionSpace, policy: SwitchPolicy
    ):
        super().__init__(dictionary)
        self.register_buffer("version", torch.Tensor([3]))  # as in stock fairseq: old checkpoints are told by it
        self.max_source_positions = cfg.max_source_positions
        self.build_embeddings(cfg, cfg.encoder, embed_tokens, cfg.max_source_positions)
        self.layers = nn.ModuleList(SwitchableEncoderLayer(cfg, cfg.encoder, i) for i in range(cfg.encoder.layers))
        self.space = space
        self.policy = policy
        self.checkpoint_activations = cfg.checkpoint_activations

    def max_positions(self) -> int:
        """Longest source, in tokens."""
        return self.max_source_positions

    def forward(
        self,
        src_tokens: Tensor,
        src_lengths: Tensor | None = None,
        return_all_hiddens: bool = False,
        token_embeddings: Tensor | None = None,
        decisions: Optional[Decisions | Chooser] = None,
    ) -> dict[str, Any]:
        """Encode a batch, int64 (B, S).

        Args:
            decisions: what every input runs, or how to choose it from the policy's distribution; None = greedily.

        Returns:
            ``encoder_out`` [(N, D)]: the kept tokens of all inputs side by side; ``tokens``: their `Ragged` layout;
            ``decisions``; ``features`` (B, stages, D) that the policy read, None where decisions were given;
            ``beams`` decoder rows an input, 1 until a generator expands the batch.
        """
        real = src_tokens.ne(self.padding_idx)
        x = self.embed_tokens(src_tokens) if token_embeddings is None else token_embeddings
        x = self.embed(x[real], self.embed_positions(src_tokens)[real])
        tokens = Ragged(real.sum(1).tolist(), x.device)

        choose = None if isinstance(decisions, Decisions) else (decisions or choose_greedy)
        decided = decisions if isinstance(decisions, Decisions) else self.space.keep_all(src_tokens.size(0))
        features = []
        stages = 0 if choose is None else len(self.policy.stages)
        first = max(1, stages)
        for index in range(first):
            x = self.run(slice(index, index + 1), x, tokens, decided)
            if choose is not None:
                features.append(pool(x.detach(), tokens.size))
                decided = self.policy.decide(index, features[-1], choose, decided)
            if index == 0 and bool(decided.token_strategy.any()):
                kept = self.kept_tokens(src_tokens, decided)
                x, tokens = x[kept[real]], Ragged(kept.sum(1).tolist(), x.device)
        x = self.run(slice(first, None), x, tokens, decided)
        return {
            "encoder_out": [x],
            "tokens": tokens,
            "decisions": decided,
            "features": torch.stack(features, dim=1) if features else None,
            "beams": 1,
        }

    def run(self, layers: slice, x: Tensor, tokens: Ragged, decisions: Decisions) -> Tensor:
        """Some layers in a row, on the tokens of all inputs, (N, D); inputs never read each other's."""
        recompute = self.checkpoint_activations and self.training
        parts = []
        for piece in tokens.pieces():
            part, decided = x[piece.tokens], decisions.select(piece.inputs)
            for layer in list(self.layers)[layers]:
                part = run_layer(layer, recompute, part, piece.layout, decided)
            parts.append(part)
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def content_mask(self, src_tokens: Tensor) -> Tensor:
        """bool (B, S): tokens that may be dropped: neither padding nor ``<s>`` nor ``</s>``."""
        specials = (self.padding_idx, self.dictionary.bos(), self.dictionary.eos())
        return torch.stack([src_tokens.ne(special) for special in specials]).all(0)

    def lengths(self, src_tokens: Tensor, target: Tensor, beam: int, incremental: bool = True) -> Lengths:
        """What the cost model needs to know of a batch, (B, S), and its int64 (B,) target lengths."""
        source = src_tokens.ne(self.padding_idx).sum(1).cpu()
        return Lengths(source, self.content_mask(src_tokens).sum(1).cpu(), target.cpu(), beam, incremental)

    def kept_tokens(self, src_tokens: Tensor, decisions: Decisions) -> Tensor:
        """bool (B, S): the real tokens that stay."""
        content = self.content_mask(src_tokens)
        special = src_tokens.ne(self.padding_idx) & ~content
        return kept_tokens(content, special, decisions.token_strategy.to(src_tokens.device))

    def reorder_encoder_out(self, encoder_out: dict[str, Any], new_order: Tensor) -> dict[str, Any]:
        """Follow the generator, which first repeats every input for its hypotheses and later drops finished inputs.

        Encoder states stay one an input: the decoder attends from all of an input's hypotheses to them at once.
        """
        batch, beams = len(encoder_out["decisions"]), encoder_out["beams"]
        if new_order.numel() > batch * beams:
            return {**encoder_out, "beams": new_order.numel() // batch}
        if new_order.numel() == batch * beams:  # inputs never trade places
            return encoder_out
        inputs = (new_order[::beams] // beams).cpu()
        index, tokens = encoder_out["tokens"].select(inputs)
        return {
            "encoder_out": [x.index_select(0, index) for x in encoder_out["encoder_out"]],
            "tokens": tokens,
            "decisions": encoder_out["decisions"].select(inputs),
            "features": None,
            "beams": beams,
        }
