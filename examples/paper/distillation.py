"""``--criterion distillation_criterion``: a student without layers also learns what the full model writes.

As in DQ-BART (Li et al., 2022), the student then runs in int8. Its loss is that of the targets and the divergence from
the teacher's distribution at each of their tokens, one as heavy as the other.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from fairseq.checkpoint_utils import load_model_ensemble
from torch import Tensor

from fairseq_switchdec.criterions.lexico_policy_criterion import LexicoPolicyCriterion
from fairseq_switchdec.criterions.objective import GenerationObjective, PathLoss
from fairseq_switchdec.decisions import Decisions
from fairseq_switchdec.errors import UserError
from fairseq_switchdec.policy import Chooser

from .options import DistillationCriterionConfig


class DistillationObjective(GenerationObjective):
    """In training, the loss with the teacher's part.

    Args:
        options: with ``teacher``.
    """

    options: DistillationCriterionConfig
    teacher: Any = None

    def loss(self, model: Any, sample: dict[str, Any], decisions: Decisions | Chooser | None) -> PathLoss:
        """See `GenerationObjective.loss`."""
        if not model.training:
            return super().loss(model, sample, decisions)
        if self.teacher is None:
            (teacher,), _ = load_model_ensemble([self.options.teacher])
            self.teacher = teacher.to(sample["target"].device).eval()
        output = model(**sample["net_input"], decisions=decisions)
        with torch.no_grad():
            keep_all = self.teacher.encoder.space.keep_all(len(sample["target"]))
            taught, _ = self.teacher(**sample["net_input"], decisions=keep_all)
        real = sample["target"].ne(self.padding_idx)
        ours, labels = output[0][real].float().log_softmax(-1), sample["target"][real]
        losses = -ours.gather(-1, labels.unsqueeze(-1)).squeeze(-1)
        total = losses.sum() + divergence(taught[real].float().log_softmax(-1), ours)
        tokens = real.sum(1)
        per_input = losses.new_zeros(real.shape).masked_scatter(real, losses.detach()).sum(1) / tokens
        return PathLoss(total / 2, per_input, tokens, output[1]["decisions"], output[1]["features"])


def divergence(taught: Tensor, ours: Tensor) -> Tensor:
    """Kullback and Leibler's, of log-probabilities (N, V) from the teacher's, in nats, summed over tokens.

    A symbol that neither can write, at minus infinity in both, adds nothing.
    """
    terms = taught.exp() * (taught - ours)
    return terms.masked_fill(taught == -torch.inf, 0.0).sum()


class DistillationCriterion(LexicoPolicyCriterion):
    """All else is as in a student's fine-tuning.

    Raises:
        UserError: no teacher is named, or options that cannot be meant.
    """

    def __init__(self, cfg: DistillationCriterionConfig, task: Any):
        super().__init__(cfg, task)
        if task.trains and not Path(cfg.teacher).is_file():
            raise UserError(f"--teacher {cfg.teacher or '(none)'}: name the checkpoint of the full model")
        if cfg.label_smoothing:
            raise UserError("--criterion distillation_criterion: leave out --label-smoothing")
        self.objective = DistillationObjective(cfg, task.target_dictionary.pad())
