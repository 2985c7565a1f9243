"""Any budget of one policy: shares of the computation that it is told with each input (a *dial*).

Slimmable networks, MatFormer and Flextron train one model for many sizes by drawing a size for every batch; here a
budget is drawn for every input, and the policy reads it beside the input's features.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

#: What an input is told that is to be decided within a bound on its loss, not on its cost.
AUTO = 0.0
#: Distance of the budgets at which a policy has numbers of its own; between them it interpolates.
STEP = 0.05
#: Share of the explored inputs that are told `AUTO`, where that is learned too.
AUTO_SHARE = 0.25


@dataclass(frozen=True)
class Dial:
    """The budgets that a policy can be asked for.

    Attributes:
        low, high: the least and the largest one, 0 < low < high <= 1.
        auto: whether it can also be asked to decide by itself, as rule `quality` does.
        unit: what budgets are shares of: FLOPs, or seconds (``--policy-cost FILE``).
    """

    low: float
    high: float
    auto: bool = False
    unit: str = "FLOPs"

    @property
    def knots(self) -> Tensor:
        """float32 (K,): budgets with numbers of their own, about `STEP` apart."""
        return torch.linspace(self.low, self.high, max(1, round((self.high - self.low) / STEP)) + 1)

    @property
    def size(self) -> int:
        """Columns of `columns`: the knots, and one for `AUTO`."""
        return len(self.knots) + self.auto

    def columns(self, budgets: Tensor) -> Tensor:
        """Budgets as a policy reads them: the weights of the knots between which each lies, or all of the last column.

        Args:
            budgets: float (B,), or `AUTO`.

        Returns:
            float32 (B, `size`), rows sum to 1.
        """
        knots = self.knots.to(budgets.device)
        place = (budgets.float() - self.low) / (self.high - self.low) * (len(knots) - 1)
        distance = (place.unsqueeze(1) - torch.arange(len(knots), device=budgets.device)).abs()
        weights = (1 - distance).clamp(min=0)
        if not self.auto:
            return weights
        own = (budgets == AUTO).float().unsqueeze(1)
        return torch.cat([weights * (1 - own), own], dim=1)

    def draw(self, uniforms: Tensor, keep_all: Tensor) -> Tensor:
        """Budgets for training, float32 (B,), from numbers in [0, 1).

        Args:
            keep_all: bool (B,), inputs whose keep-all loss is measured, which bounds what `AUTO` may lose: those are
                told that, where it is learned.
        """
        share = AUTO_SHARE if self.auto else 0.0
        budgets = self.low + (uniforms - share) / (1 - share) * (self.high - self.low)
        return budgets.masked_fill((uniforms < share) | (keep_all & self.auto), AUTO)

    def in_turn(self, ids: Tensor) -> Tensor:
        """The knots, and `AUTO`, by input id, float32 (B,): what validation asks for unless it is told."""
        asked = torch.cat([self.knots, torch.full((int(self.auto),), AUTO)])
        return asked[ids.cpu() % len(asked)]

    def holds(self, budget: float) -> bool:
        """Whether a policy with this dial can be asked for a budget."""
        return self.auto if budget == AUTO else self.low - 1e-6 <= budget <= self.high + 1e-6

    def in_words(self) -> str:
        """What can be asked for, for messages."""
        return f"budgets from {self.low:g} to {self.high:g} of the {self.unit}" + (" and auto" if self.auto else "")
