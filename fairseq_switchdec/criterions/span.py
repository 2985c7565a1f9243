"""The objective of question answering: where in the input the answer begins and ends."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..config import LexicoPolicyCriterionConfig
from ..cost import Geometry, Lengths
from ..decisions import Decisions
from ..policy import Chooser
from ..squad.answers import Scores
from .objective import Objective, PathLoss


@dataclass(frozen=True)
class SpanScores:
    """What the model says about a batch.

    Attributes:
        scores: float32 (B, T, 2), log-probabilities of each token as the answer's first and last one; -inf where
            there is neither context nor, on position 0, "no answer".
        decisions: the path.
        features: that the policy read, or None.
    """

    scores: Tensor
    decisions: Decisions
    features: Tensor | None


def span_scores(model: Any, sample: dict[str, Any], decisions: Any) -> SpanScores:
    """Run a batch of windows on the path that ``decisions`` say (None = greedy).

    The decoder reads the whole input one position late, as in pre-training; a token's state is the one that has just
    read it.

    Args:
        sample: with ``context``, int64 (B, 2): where the context stands in each input.
    """
    raw, extra = model(**sample["net_input"], decisions=decisions, span_scores=True)
    return SpanScores(span_log_probs(raw, sample["context"]), extra["decisions"], extra["features"])


def span_log_probs(raw: Tensor, context: Tensor) -> Tensor:
    """Log-probabilities float32 (B, T, 2) of the tokens that may begin or end an answer, from the head's scores.

    Args:
        context: int64 (B, 2), where the context stands in each input.
    """
    raw = raw.float().roll(-1, 1)
    places = torch.arange(raw.size(1), device=raw.device)
    begin, end = context.unsqueeze(2).unbind(1)
    open_places = (places >= begin) & (places < end) | (places == 0)
    return F.log_softmax(raw.masked_fill(~open_places.unsqueeze(2), -torch.inf), dim=1)


def context_places(tokens: Tensor, lengths: Tensor, eos: int) -> Tensor:
    """Where the context stands in each input, int64 (B, 2): after the question's two ``</s>``, before the last one."""
    return torch.stack([tokens.eq(eos).long().argmax(1) + 2, lengths - 1], dim=1)


def window_scores(context: Tensor, scores: Tensor) -> list[Scores]:
    """The scores (B, T, 2) of a batch, one `Scores` an input."""
    values = scores.detach().cpu().numpy()
    return [
        Scores(row[begin:end, 0], row[begin:end, 1], float(row[0, 0] + row[0, 1]))
        for row, (begin, end) in zip(values, context.tolist())
    ]


class SpanObjective(Objective):
    """Cross-entropy in nats of the answer's first and last token, their mean; position 0 where a window has no answer.

    Attributes:
        validated: scores of the batch that is being validated, for the task: of each part of it that on the path run,
            then that on the keep-all path.
    """

    def __init__(self, options: LexicoPolicyCriterionConfig):
        super().__init__(options)
        self.validated: list[Tensor] = []

    def loss(self, model: Any, sample: dict[str, Any], decisions: Decisions | Chooser | None) -> PathLoss:
        """`PathLoss.quality` is that of a window."""
        found = span_scores(model, sample, decisions)
        if not model.training:
            self.validated.append(found.scores)
        losses = F.nll_loss(found.scores[:, :, 0], sample["spans"][:, 0], reduction="none")
        losses = losses + F.nll_loss(found.scores[:, :, 1], sample["spans"][:, 1], reduction="none")
        losses = losses / 2
        weight = torch.ones_like(losses.detach())
        return PathLoss(losses.sum(), losses.detach(), weight, found.decisions, found.features)

    def weight(self, sample: dict[str, Any]) -> int:
        """Windows."""
        return int(sample["net_input"]["src_tokens"].size(0))

    def geometry(self, model: Any) -> Geometry:
        """The model's, with the span head instead of the output projection."""
        return span_geometry(model)

    def lengths(self, model: Any, sample: dict[str, Any]) -> Lengths:
        """The decoder reads as many tokens as the encoder, all at once."""
        return span_lengths(model, sample)


def span_geometry(model: Any) -> Geometry:
    """The sizes of what question answering runs, for the cost."""
    return replace(model.geometry, vocabulary=model.span_head.out_features)


def span_lengths(model: Any, sample: dict[str, Any]) -> Lengths:
    """The lengths of what question answering runs on a batch, for the cost."""
    tokens = sample["net_input"]["src_tokens"]
    return model.encoder.lengths(tokens, sample["net_input"]["src_lengths"], beam=1, incremental=False)
