"""Score-function gradients with the self-critical baseline (paper, Eq. 5 and "Optimization"), with less noise."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.func import functional_call

from ..decisions import Decisions
from ..policy import SwitchPolicy


def limited_advantages(sampled: Tensor, greedy: Tensor, limit: float) -> Tensor:
    """What sampled paths lose to the greedy ones, (B,), but at most ``limit``, either way.

    A few sublayers cannot be spared: skipping one of them loses nats, skipping another one hundredths. All skips of a
    path share its advantage, so one of the first kind hides what the others did. The limit biases the gradient, but a
    path that reaches it is still blamed for as much as skipping could ever save.
    """
    return (sampled - greedy).clamp(-limit, limit)


def score_function_gradients(
    policy: SwitchPolicy, features: Tensor, decisions: Decisions, advantages: Tensor, floor: float
) -> Tensor:
    """Sum over inputs of advantage x grad log pi(decisions | features), for several advantages at once.

    With advantage = f(sampled) - f(greedy), less any constant, this estimates the gradient of the expected f, to be
    *descended*. Limited advantages estimate that of the limited difference.

    Args:
        features: (B, stages, D), what the decisions were made from; no gradient flows into it.
        advantages: float32 (B, K).
        floor: probability floor the decisions were sampled with.

    Returns:
        float32 (K, P), P the policy's parameters in their flat order.
    """
    parameters = {name: value.detach().requires_grad_() for name, value in policy.named_parameters()}
    with torch.enable_grad():
        distribution = functional_call(policy, parameters, (features.detach(),))
        log_prob = distribution.log_prob(policy.space, decisions, floor)
    rows = []
    for advantage in advantages.to(log_prob).unbind(1):
        gradients = torch.autograd.grad(
            log_prob, list(parameters.values()), grad_outputs=advantage, retain_graph=True, allow_unused=True
        )
        pairs = zip(parameters.values(), gradients)
        rows.append(torch.cat([torch.zeros_like(p).flatten() if g is None else g.flatten() for p, g in pairs]))
    return torch.stack(rows)
