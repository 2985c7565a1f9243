"""The encoder of BART and T5; it makes the decisions and drops the tokens (paper, section 3.1)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Optional

import torch
from fairseq.models import FairseqEncoder
from torch import Tensor, nn

from ..blocks import RelativeBias
from ..cost import Lengths
from ..decisions import Decisions
from ..policy import Chooser, GreedyChoice, SwitchPolicy, pool
from ..runtime.checkpointing import run_layer
from ..runtime.ragged import Ragged
from ..tokens import kept_tokens
from .embeddings import Embeddings, Embeds

#: Runs some layers in a row, on the tokens of all inputs, (N, D).
RunLayers = Callable[[slice, Tensor, Ragged, Decisions], Tensor]


class SwitchableEncoder(FairseqEncoder, Embeds):
    """Token and position embeddings, the first layer, the policy's decisions, token dropping, the other layers.

    Args:
        policy: makes the decisions, of its space.
        max_positions: longest source, in tokens.
        layer_norm: of the last layer's output, or None.
        relative_positions: what self-attention adds to its scores, or None.
        checkpoint_activations: recompute layers in the backward pass, instead of keeping their activations.
    """

    def __init__(
        self,
        dictionary: Any,
        embeddings: Embeddings,
        layers: Iterable[nn.Module],
        policy: SwitchPolicy,
        max_positions: int,
        layer_norm: nn.Module | None = None,
        relative_positions: RelativeBias | None = None,
        checkpoint_activations: bool = False,
    ):
        super().__init__(dictionary)
        self.padding_idx = dictionary.pad()
        self.register_buffer("version", torch.Tensor([3]))  # as in stock fairseq: old checkpoints are told by it
        self.max_source_positions = max_positions
        self.set_embeddings(embeddings)
        self.layers = nn.ModuleList(layers)
        self.layer_norm = layer_norm
        self.relative_positions = relative_positions
        self.policy = policy
        self.space = policy.space
        self.checkpoint_activations = checkpoint_activations

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
            ``beams`` decoder rows an input, 1 until a generator expands the batch; ``src_tokens`` [(B, S)].
        """
        real = src_tokens.ne(self.padding_idx)
        x = self.embed_tokens(src_tokens) if token_embeddings is None else token_embeddings
        x = self.embed(x[real], None if self.embed_positions is None else self.embed_positions(src_tokens)[real])
        encoded = self.decide_and_run(x, real, lambda decided: self.kept_tokens(src_tokens, decided), decisions)
        if self.layer_norm is not None:
            encoded["encoder_out"] = [self.dropout(self.layer_norm(x)) for x in encoded["encoder_out"]]
        return {**encoded, "src_tokens": [src_tokens]}

    def decide_and_run(
        self,
        x: Tensor,
        real: Tensor,
        kept_tokens: Callable[[Decisions], Tensor],
        decisions: Decisions | Chooser | None,
        run: RunLayers | None = None,
    ) -> dict[str, Any]:
        """The layers, the policy's decisions between them as soon as it can read what they depend on.

        Args:
            x: (N, D), the embedded tokens of all inputs.
            real: bool (B, S), where they are.
            kept_tokens: which of them stay, bool (B, S).
            run: as `run`, which is the default.
        """
        run = run or self.run
        tokens = Ragged(real.sum(1).tolist(), x.device)
        choose = None if isinstance(decisions, Decisions) else (decisions or GreedyChoice())
        decided = decisions if isinstance(decisions, Decisions) else self.space.keep_all(len(tokens))
        features = []
        stages = 0 if choose is None else len(self.policy.stages)
        first = max(1, stages)
        for index in range(first):
            x = run(slice(index, index + 1), x, tokens, decided)
            if choose is not None:
                features.append(pool(x.detach(), tokens.size))
                decided = self.policy.decide(index, features[-1], choose, decided)
            if index == 0 and bool(decided.token_strategy.any()):
                kept = kept_tokens(decided)
                x, tokens = x[kept[real]], tokens.keep(kept[real], kept.sum(1).tolist())
        x = run(slice(first, None), x, tokens, decided)
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
                part = run_layer(layer, recompute, part, piece.layout, decided, self.relative_positions)
            parts.append(part)
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    @property
    def droppable_ends(self) -> tuple[bool, bool]:
        """Whether the first and the last word of a source may be dropped; here they are no ends, ``</s>`` is."""
        return True, True

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
        return self.select_encoder_out(encoder_out, (new_order[::beams] // beams).cpu())

    def select_encoder_out(self, encoder_out: dict[str, Any], inputs: Tensor) -> dict[str, Any]:
        """That of some inputs, int64 (n,) on the host."""
        index, tokens = encoder_out["tokens"].select(inputs)
        return {
            **encoder_out,
            "encoder_out": [x.index_select(0, index) for x in encoder_out["encoder_out"]],
            "src_tokens": [x.index_select(0, inputs.to(x.device)) for x in encoder_out["src_tokens"]],
            "tokens": tokens,
            "decisions": encoder_out["decisions"].select(inputs),
            "features": None,
        }
