"""``--criterion early_exit_criterion``: trains the states after the layers where decoding may end.

CALM's loss is the mean of the losses of all exits and of the last layer, the deeper ones weighing more. FREE has one
exit; besides, each layer below it learns the states of the nearest one above it.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from fairseq_switchdec.criterions.lexico_policy_criterion import LexicoPolicyCriterion
from fairseq_switchdec.criterions.objective import GenerationObjective, PathLoss
from fairseq_switchdec.decisions import Decisions
from fairseq_switchdec.errors import UserError
from fairseq_switchdec.policy import Chooser

from .early_exit import layers_of
from .options import EarlyExitCriterionConfig


class EarlyExitObjective(GenerationObjective):
    """In training, the loss of all exits; in validation, that of the whole model.

    Args:
        options: with ``exit_after``.
    """

    options: EarlyExitCriterionConfig

    def loss(self, model: Any, sample: dict[str, Any], decisions: Decisions | Chooser | None) -> PathLoss:
        """See `GenerationObjective.loss`.

        Raises:
            UserError: the model has two stacks of layers, or no such layer as ``--exit-after`` says.
        """
        if not model.training:
            return super().loss(model, sample, decisions)
        if model.encoder.space.decoder_layers or not hasattr(model.decoder, "run_layers"):
            raise UserError("--criterion early_exit_criterion is for models with one stack of layers, such as a LLaMA")
        _, extra = model(**sample["net_input"], decisions=decisions, features_only=True, return_all_hiddens=True)
        target = sample["target"]
        real = target.ne(self.padding_idx)
        states, labels = [state.transpose(0, 1)[real] for state in extra["inner_states"][1:]], target[real]
        exits = layers_of(self.options.exit_after, len(states), "--exit-after")
        counts, total = [*exits, len(states)], states[-1].new_zeros((), dtype=torch.float32)
        for count in counts:
            losses = checkpoint(self.losses, model, states[count - 1], labels, use_reentrant=False)
            total = total + losses.sum() * count / sum(counts)
        if len(exits) == 1:
            total = total + self.nearest(model, states, exits[0])
        tokens = real.sum(1)
        per_input = losses.new_zeros(real.shape).masked_scatter(real, losses.detach()).sum(1) / tokens
        return PathLoss(total, per_input, tokens, extra["decisions"], extra["features"])

    @staticmethod
    def losses(model: Any, states: Tensor, labels: Tensor) -> Tensor:
        """Negative log-likelihoods, float32 (N,), of what the output projection makes of states, (N, D)."""
        (stack,) = model.decoder.stack
        logits = model.decoder.output_layer(stack.layer_norm(states))
        return F.cross_entropy(logits.float(), labels, reduction="none")

    @staticmethod
    def nearest(model: Any, states: list[Tensor], shallow: int) -> Tensor:
        """FREE's distillation: squared distances to the nearest layer above the exit, summed over tokens.

        Of normalized states: a LLaMA's own have a few numbers a thousand times larger than the others.
        """
        (stack,) = model.decoder.stack
        with torch.no_grad():
            deep = torch.stack([stack.layer_norm(state).float() for state in states[shallow:]])
        distances = [
            (stack.layer_norm(state).float() - deep).square().mean(-1).sum(-1).min() for state in states[:shallow]
        ]
        return torch.stack(distances).mean()


class EarlyExitCriterion(LexicoPolicyCriterion):
    """All else is as in plain fine-tuning.

    Raises:
        UserError: options that cannot be meant.
    """

    def __init__(self, cfg: EarlyExitCriterionConfig, task: Any):
        super().__init__(cfg, task)
        if cfg.policy_decisions != "keep-all" or cfg.label_smoothing:
            raise UserError(
                "--criterion early_exit_criterion: give --policy-decisions keep-all, and no --label-smoothing"
            )
        self.objective = EarlyExitObjective(cfg, task.target_dictionary.pad())
