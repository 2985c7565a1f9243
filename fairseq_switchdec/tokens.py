"""The seven token strategies (paper, section 3.1, "Token Candidate") and dropping by them.

Strategy 0 keeps all; 1, 2, 3 drop the last 10, 20, 30 % of the tokens; 4, 5, 6 drop every 4th, 3rd, 2nd token
(25, 33, 50 %). Percentages count *content*: never padding, ``<s>`` or ``</s>``, which always stay.
"""

from __future__ import annotations

import torch
from torch import Tensor

#: Percent dropped from the end by strategies 1, 2, 3, and stride of the dropped tokens by strategies 4, 5, 6.
LAST_PERCENT = (10, 20, 30)
UNIFORM_STRIDE = (4, 3, 2)
#: What each strategy drops, for people.
STRATEGY_NAMES = (
    "all kept",
    *(f"last {percent} %" for percent in LAST_PERCENT),
    *(f"every {place}" for place in ("4th", "3rd", "2nd")),
)


def num_dropped(content_tokens: Tensor, token_strategy: Tensor) -> Tensor:
    """How many of ``content_tokens`` (int64 (B,)) each input's strategy (int64 (B,)) drops: int64 (B,)."""
    counts = [torch.zeros_like(content_tokens)]
    counts += [content_tokens * percent // 100 for percent in LAST_PERCENT]
    counts += [content_tokens // stride for stride in UNIFORM_STRIDE]
    return torch.stack(counts, dim=1).gather(1, token_strategy.unsqueeze(1)).squeeze(1)


def same_tokens(content_tokens: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Whether two strategies, int64 (B,), drop the same tokens of each input, as on short ones they may: bool (B,)."""
    dropped = num_dropped(content_tokens, first)
    from_the_end = torch.maximum(first, second) <= len(LAST_PERCENT)
    return (first == second) | ((dropped == num_dropped(content_tokens, second)) & (from_the_end | (dropped == 0)))


def kept_tokens(content: Tensor, special: Tensor, token_strategy: Tensor) -> Tensor:
    """Which positions stay.

    Args:
        content: bool (B, S), True at tokens that may be dropped.
        special: bool (B, S), True at ``<s>`` and ``</s>``; positions in neither mask are padding.
        token_strategy: int64 (B,).

    Returns:
        bool (B, S).
    """
    ordinal = content.cumsum(1)  # the content tokens of each input count 1, 2, 3, ...
    total = ordinal[:, -1:]
    dropped = num_dropped(total.squeeze(1), token_strategy).unsqueeze(1)
    strategy = token_strategy.unsqueeze(1)
    keep_prefix = ordinal <= total - dropped
    stride = torch.tensor((1, 1, 1, 1, *UNIFORM_STRIDE), device=content.device)[strategy]
    keep_uniform = ordinal % stride != 0
    return special | (content & torch.where(strategy >= 4, keep_uniform, keep_prefix))
