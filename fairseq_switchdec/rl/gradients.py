"""The policy's gradients from advantages over the greedy path (paper, Eq. 5 and "Optimization")."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import functional_call

from ..policy import DecisionDistribution, SwitchPolicy


def policy_gradients(
    policy: SwitchPolicy,
    features: Tensor,
    surrogate: Callable[[DecisionDistribution], Tensor],
    advantages: Tensor,
    budgets: Tensor | None = None,
) -> Tensor:
    """Sum over inputs of advantage x grad surrogate, for several advantages at once.

    With advantage = f(tried path) - f(greedy path) and the surrogate of its `fairseq_switchdec.rl.Exploration`, this
    estimates the gradient of the expected f, to be *descended*.

    Args:
        features: (B, stages, D), what the decisions were made from; no gradient flows into it.
        surrogate: (B,) of the distribution of all decisions.
        advantages: float32 (B, K).
        budgets: (B,), what the policy was asked for, see `SwitchPolicy.stage`.

    Returns:
        float32 (K, P), P the policy's parameters in their flat order.
    """
    parameters = {name: value.detach().requires_grad_() for name, value in policy.named_parameters()}
    with torch.enable_grad():
        value = surrogate(functional_call(policy, parameters, (features.detach(), budgets)))
    rows = []
    for advantage in advantages.to(value).unbind(1):
        gradients = torch.autograd.grad(
            value, list(parameters.values()), grad_outputs=advantage, retain_graph=True, allow_unused=True
        )
        pairs = zip(parameters.values(), gradients)
        rows.append(torch.cat([torch.zeros_like(p).flatten() if g is None else g.flatten() for p, g in pairs]))
    return torch.stack(rows)
