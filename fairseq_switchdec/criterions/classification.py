"""The objective of sentence classification and regression, as fairseq's criterion ``sentence_prediction`` has it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..cost import Geometry, Lengths
from ..decisions import Decisions
from ..errors import UserError
from ..policy import Chooser
from .objective import Objective, PathLoss


class ClassificationObjective(Objective):
    """Cross-entropy of a label in nats, or with ``--regression-target`` the squared error of a number.

    Encoder and decoder read the whole input once; a classification head reads the decoder's last state.
    """

    def loss(self, model: Any, sample: dict[str, Any], decisions: Decisions | Chooser | None) -> PathLoss:
        """`PathLoss.measures` holds the ``accuracy`` in percent, where there are labels.

        Raises:
            UserError: the model has no such head, or the data no labels.
        """
        head = self.options.classification_head_name
        if head not in model.classification_heads:
            known = ", ".join(model.classification_heads) or "none"
            raise UserError(f"--classification-head-name {head}: the model has no such head (it has: {known})")
        if sample.get("target") is None:
            raise UserError("the data has no labels: the loss needs the folder label/ beside input0/")
        scores, extra = model(**sample["net_input"], classification_head_name=head, decisions=decisions)
        target = sample["target"].view(-1)
        measures: dict[str, Tensor] = {}
        if self.options.regression_target:
            losses = F.mse_loss(scores.view(-1).float(), target.float(), reduction="none")
        else:
            losses = F.cross_entropy(scores.float(), target, reduction="none")
            measures["accuracy"] = 100.0 * scores.detach().argmax(1).eq(target).float()
        weight = torch.ones_like(target, dtype=torch.float32)
        return PathLoss(losses.sum(), losses.detach(), weight, extra["decisions"], extra["features"], measures)

    def weight(self, sample: dict[str, Any]) -> int:
        """Inputs."""
        return int(sample["net_input"]["src_tokens"].size(0))

    def geometry(self, model: Any) -> Geometry:
        """The model's, with the head instead of the output projection."""
        return head_geometry(model, self.options.classification_head_name)

    def lengths(self, model: Any, sample: dict[str, Any]) -> Lengths:
        """The decoder reads as many tokens as the encoder, all at once."""
        tokens = sample["net_input"]["src_tokens"]
        read = sample["net_input"]["prev_output_tokens"].ne(model.encoder.padding_idx).sum(1)
        return model.encoder.lengths(tokens, read, beam=1, incremental=False)


def head_geometry(model: Any, name: str) -> Geometry:
    """A model's sizes where it runs a classification head instead of the output projection."""
    head = model.classification_heads[name]
    products = head.dense.weight.numel() + head.out_proj.weight.numel()
    return replace(model.geometry, vocabulary=0, head=products)
