"""Choosers of training: decisions sampled from the policy, with some inputs on the keep-all path."""

from __future__ import annotations

from torch import Tensor

from ..policy import DecisionDistribution


class SampledChooser:
    """s ~ pi(.|x), a ~ eta(.|x) (Eq. 2 and 3), a `fairseq_switchdec.policy.Chooser`.

    Args:
        uniforms: float32 (B, num_sublayers + 1) in [0, 1), see `fairseq_switchdec.policy.input_uniforms`.
        keep_all: bool (B,), inputs that keep everything instead.
        floor: no choice is sampled with less than this probability.
    """

    def __init__(self, uniforms: Tensor, keep_all: Tensor, floor: float):
        self.uniforms = uniforms
        self.keep_all = keep_all
        self.floor = floor

    def __call__(self, distribution: DecisionDistribution, columns: Tensor) -> tuple[Tensor, Tensor | None]:
        device = distribution.sublayer_logits.device
        uniforms, keep_all = self.uniforms.to(device), self.keep_all.to(device)
        keep, tokens = distribution.sample(uniforms[:, columns.to(device)], uniforms[:, -1], self.floor)
        if tokens is not None:
            tokens = tokens.masked_fill(keep_all, 0)
        return keep | keep_all.unsqueeze(1), tokens
