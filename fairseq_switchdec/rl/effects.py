"""What every decision is found to lose, whatever the input: a linear model of all losses that training measured.

A path that an input tries tells how much more it loses than the greedy one. Each update tries a few decisions on a few
inputs; what dozens of updates found out together is this model: nats a token for every sublayer that is skipped and for
every token strategy. It is never the policy's objective alone: `fairseq_switchdec.rl.PooledDeviation` differentiates it
exactly and estimates what it leaves unexplained from the tries ("doubly robust", Dudik, Langford and Li, 2011).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from ..decisions import NUM_TOKEN_STRATEGIES, Decisions, DecisionSpace
from ..tokens import num_dropped

#: At least as many inputs as begin a training run every token strategy: what one of these loses is decided once for all
#: of the computation, and differs much between inputs.
SURVEY_INPUTS = 48
#: Tries of a decision that the mean of its kind counts for.
PRIOR_TRIES = 1.0
#: Prices lie between this and one over it.
EXTREME_PRICE = 20.0


def num_effects(space: DecisionSpace) -> int:
    """D: a number for every sublayer, and one for every token strategy (the first one's, of keeping all, is 0)."""
    return space.num_sublayers + NUM_TOKEN_STRATEGIES


def skips(space: DecisionSpace, decisions: Decisions) -> Tensor:
    """What a path skips, as the model reads it: float64 (B, D), 1 at a sublayer that is skipped and at a strategy."""
    keep, strategy = space.flat(decisions)
    return torch.cat([~keep, one_hot(strategy, NUM_TOKEN_STRATEGIES).bool() & (strategy > 0).unsqueeze(1)], 1).double()


def fit(space: DecisionSpace, products: Tensor, losses: Tensor) -> Tensor:
    """The model: ridge regression of losses on what was skipped, towards the mean of each decision's kind.

    What has not been tried is not free: as long as a sublayer was never tried it counts as much as the others of its
    kind (attention, feed-forward, cross-attention) do on average, a token strategy for its share of the tokens; and
    nothing is known before all kinds were tried.

    Args:
        products: float64 (D, D), sum of x x^T over the tries, x the difference of `skips` with the greedy path.
        losses: float64 (D,), sum of x times the difference of the losses, nats a token.

    Returns:
        float64 (D,) on the CPU, nats a token.
    """
    products, losses = products.cpu(), losses.cpu()
    prior = torch.zeros_like(losses)
    for kind in kinds(space):
        evidence = kind @ products @ kind
        if evidence == 0:
            return torch.zeros_like(losses)
        prior += kind * ((losses @ kind) / evidence).clamp(min=0)
    strength = PRIOR_TRIES * torch.eye(len(losses), dtype=losses.dtype)
    found = torch.linalg.solve(products + strength, losses + PRIOR_TRIES * prior)
    return found * (kinds(space).sum(0) > 0)  # a decision may have been open in the training that is resumed


def kinds(space: DecisionSpace) -> Tensor:
    """What the open decisions of a kind have in common, float64 (kinds that have any, D): 1 for a sublayer, for a
    strategy the share of the tokens that it drops.
    """
    layers, content = space.num_layers, torch.full((NUM_TOKEN_STRATEGIES,), 60)
    sublayers = torch.arange(space.num_sublayers) // layers  # 0, 1 and, of split cross-attention, 2
    dropped = num_dropped(content, torch.arange(NUM_TOKEN_STRATEGIES)) / content.double()
    rows = one_hot(sublayers).T * space.open_sublayers()
    found = torch.block_diag(rows.double(), dropped.unsqueeze(0) * space.token_open)
    return found[found.any(1)]


def filling_price(effects: Tensor, parts: Tensor, budgets: Tensor) -> Tensor:
    """What a nat a token must weigh, where all of the computation weighs 1, so that the path of least loss and cost
    together just uses a budget up, if losses add up.

    Args:
        effects: float64 (D,), see `fit`.
        parts: float64 (7, 1 + num_sublayers), see `cost.parts_of_cost`.
        budgets: float64 (K,).

    Returns:
        float64 (K,), 1 / `EXTREME_PRICE` where no path is known to keep within the budget; 1 if nothing is known.
    """
    if not effects.any():
        return torch.ones_like(budgets)
    prices = torch.logspace(-1, 1, 401, base=EXTREME_PRICE, dtype=torch.float64)
    losses = (prices.unsqueeze(1) * effects).split([parts.size(1) - 1, NUM_TOKEN_STRATEGIES], dim=1)
    always, sublayers = parts[:, 0], parts[:, 1:]
    lost = losses[0].unsqueeze(1)  # (prices, 1, num_sublayers)
    together = losses[1] + always + torch.minimum(lost, sublayers).sum(2)
    strategy = together.argmin(1, keepdim=True)
    costs = (always + (sublayers * (lost >= sublayers)).sum(2)).gather(1, strategy)
    within = costs <= budgets + 1e-6  # parts that are averages add up to all of it but for rounding
    return torch.where(within, prices.unsqueeze(1), prices[0]).amax(0)


def expected_effect(effects: Tensor, keep: Tensor, tokens: Tensor | None) -> Tensor:
    """What the model expects of independent decisions, with gradient: nats a token, float32 (B,).

    Args:
        keep: float32 (B, num_sublayers), probabilities of running.
        tokens: float32 (B, 7), probabilities of the token strategies; None where all tokens are kept.
    """
    effects = effects.to(keep)
    expected = ((1 - keep) * effects[: keep.size(1)]).sum(1)  # no matrix product: autocast would halve its precision
    return expected if tokens is None else expected + (tokens * effects[keep.size(1) :]).sum(1)
