"""The policy's gradients (paper, Eq. 5 and "Optimization")."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import functional_call

from ..policy import DecisionDistribution, SwitchPolicy


def policy_gradients(
    policy: SwitchPolicy,
    features: Tensor,
    objectives: Callable[[DecisionDistribution], Tensor],
    weights: Tensor,
    budgets: Tensor | None = None,
) -> Tensor:
    """Sums over inputs of weight x grad objective, to be *descended*.

    Args:
        features: (B, stages, D), what the decisions were made from; no gradient flows into it.
        objectives: (B, K) of the distribution of all decisions, see `fairseq_switchdec.rl.Exploration`.
        weights: (B, K), or several times (M, B, K).
        budgets: (B,), what the policy was asked for, see `SwitchPolicy.stage`.

    Returns:
        float32 (K, P) or (M, K, P), P the policy's parameters in their flat order.
    """
    parameters = {name: value.detach().requires_grad_() for name, value in policy.named_parameters()}
    with torch.enable_grad():
        values = objectives(functional_call(policy, parameters, (features.detach(), budgets))).unbind(1)
    rows = []
    for weight in weights.reshape(-1, *weights.shape[-2:]):
        for value, of_inputs in zip(values, weight.to(values[0]).unbind(1)):
            gradients = torch.autograd.grad(
                value, list(parameters.values()), grad_outputs=of_inputs, retain_graph=True, allow_unused=True
            )
            pairs = zip(parameters.values(), gradients)
            rows.append(torch.cat([torch.zeros_like(p).flatten() if g is None else g.flatten() for p, g in pairs]))
    return torch.stack(rows).view(*weights.shape[:-2], len(values), -1)
