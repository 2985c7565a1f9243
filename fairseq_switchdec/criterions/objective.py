"""What the criterion asks its task for: the loss of a batch on a path, and what that path's cost depends on.

A task gives its `Objective` by ``build_objective(options)``; all else in Algorithm 1 is the same for every task.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from fairseq.criterions.label_smoothed_cross_entropy import label_smoothed_nll_loss
from torch import Tensor

from ..config import LexicoPolicyCriterionConfig
from ..cost import Geometry, Lengths, Prices
from ..decisions import Decisions
from ..errors import UserError
from ..policy import Chooser
from ..seconds import Seconds


@dataclass(frozen=True)
class PathLoss:
    """The loss of a batch under its decisions.

    Attributes:
        total: summed over what is predicted, with gradient: the loss that trains the model.
        quality: float32 (B,), the quality loss of each input, a mean (lower is better), detached.
        weight: (B,), over how much it is a mean: target tokens, or 1.
        decisions: the path.
        features: (B, stages, D) that the policy read, or None.
        measures: what else is logged, by name: (B,) each, detached; its mean over the inputs is shown, and that over
            the inputs on the keep-all path as ``keep_all_NAME``.
    """

    total: Tensor
    quality: Tensor
    weight: Tensor
    decisions: Decisions
    features: Tensor | None
    measures: dict[str, Tensor] = field(default_factory=dict)


class Objective:
    """What a task trains its model for.

    Args:
        options: the criterion's.
    """

    def __init__(self, options: LexicoPolicyCriterionConfig):
        self.options = options

    def loss(self, model: Any, sample: dict[str, Any], decisions: Decisions | Chooser | None) -> PathLoss:
        """Run a batch on the path that ``decisions`` say (None = greedy)."""
        raise NotImplementedError

    def weight(self, sample: dict[str, Any]) -> int:
        """The sum of `PathLoss.weight`: what the loss is a mean over, unless ``--sentence-avg``."""
        raise NotImplementedError

    def geometry(self, model: Any) -> Geometry:
        """The sizes of what runs, for its FLOPs."""
        raise NotImplementedError

    def prices(self, model: Any) -> Prices:
        """What the policy is to save, see ``--policy-cost``: FLOPs, unless a task knows better.

        Raises:
            UserError: it does not.
        """
        if self.options.policy_cost != "flops":
            raise UserError(
                f"--policy-cost {self.options.policy_cost}: seconds are known of generation only: leave it out"
            )
        return self.geometry(model)

    def lengths(self, model: Any, sample: dict[str, Any]) -> Lengths:
        """The lengths of what runs, for the cost."""
        raise NotImplementedError


class GenerationObjective(Objective):
    """Label-smoothed likelihood of the target tokens; the cost is that of generating as many by beam search."""

    def __init__(self, options: LexicoPolicyCriterionConfig, padding_idx: int):
        super().__init__(options)
        self.padding_idx = padding_idx
        self.seconds: Seconds | None = None

    def loss(self, model: Any, sample: dict[str, Any], decisions: Decisions | Chooser | None) -> PathLoss:
        """`PathLoss.quality` is the negative log-likelihood in nats a token."""
        output = model(**sample["net_input"], decisions=decisions)
        log_probs = model.get_normalized_probs(output, log_probs=True)
        target = model.get_targets(sample, output)
        absent = getattr(model.decoder, "absent", [])
        smoothed, nll = smoothed_loss(log_probs, target, self.options.label_smoothing, self.padding_idx, absent)
        tokens = target.ne(self.padding_idx).sum(1)
        per_input = nll.detach().float().reshape(len(target), -1).sum(1) / tokens
        return PathLoss(smoothed.sum(), per_input, tokens, output[1]["decisions"], output[1]["features"])

    def weight(self, sample: dict[str, Any]) -> int:
        """Target tokens."""
        return sample["ntokens"]

    def geometry(self, model: Any) -> Geometry:
        """The model's, output projection included."""
        return model.geometry

    def prices(self, model: Any) -> Prices:
        """FLOPs, or the seconds of ``--policy-cost FILE``; a checkpoint may be validated where that file is not.

        Raises:
            UserError: which cannot be read, or were measured on another model.
        """
        path = self.options.policy_cost
        if path == "flops" or (self.seconds is None and not model.training and not os.path.exists(path)):
            return self.geometry(model)
        if self.seconds is None:
            self.seconds = Seconds.read(path, f"--policy-cost {path}")
            self.seconds.check_geometry(model.geometry, f"--policy-cost {path}")
        return self.seconds

    def lengths(self, model: Any, sample: dict[str, Any]) -> Lengths:
        """As many decoding steps as there are target tokens."""
        target = sample["target"].ne(self.padding_idx).sum(1)
        return model.encoder.lengths(sample["net_input"]["src_tokens"], target, self.options.policy_cost_beam)


def smoothed_loss(
    log_probs: Tensor, target: Tensor, epsilon: float, padding_idx: int, absent: Sequence[int] = ()
) -> tuple[Tensor, Tensor]:
    """fairseq's label-smoothed loss and the likelihood in it; what cannot be written, and has a log-probability of
    minus infinity, has no share of the smoothing.

    Args:
        log_probs: (B, T, V).
        target: int64 (B, T).
        absent: columns of symbols that cannot be written.
    """
    smoothed, nll = label_smoothed_nll_loss(log_probs, target, epsilon, padding_idx, reduce=False)
    if not absent:
        return smoothed, nll
    if epsilon == 0:
        return nll, nll
    others = -log_probs.index_fill(-1, torch.tensor(absent, device=log_probs.device), 0.0).sum(-1, keepdim=True)
    share = epsilon / (log_probs.size(-1) - len(absent) - 1)
    others = others.masked_fill(target.eq(padding_idx).unsqueeze(-1), 0.0).view_as(nll)
    return (1 - epsilon - share) * nll + share * others, nll
