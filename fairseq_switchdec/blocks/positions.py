"""Where attention learns about positions, for models that do not add them to their embeddings.

Both read the positions that a layout's tokens have, so a dropped token leaves the others' as they were.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..runtime.cache import Slots
from ..runtime.ragged import Ragged

#: Cosines and sines, (..., 1, d) each: of every position, for all heads.
Angles = tuple[Tensor, Tensor]


class Rotary:
    """Rotary position embeddings (Su et al. 2021), dimensions i and i + d / 2 of a head as a pair (LLaMA).

    Args:
        head_dim: d.
        theta: base of the wave lengths.
        scaling: ``{"rope_type": "linear" or "llama3", ...}`` as Hugging Face's configurations have it, or None.
    """

    def __init__(self, head_dim: int, theta: float, scaling: dict[str, Any] | None = None):
        frequencies = 1.0 / theta ** (torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
        self.frequencies = frequencies if scaling is None else rescale(frequencies, scaling)

    def __call__(self, positions: Tensor) -> Angles:
        """Of int64 (...,) positions, float32; the sines' first half is negative, for `turn`."""
        angles = positions.unsqueeze(-1).float() * self.frequencies.to(positions.device)
        cosines, sines = angles.cos(), angles.sin()
        return torch.cat([cosines, cosines], -1).unsqueeze(-2), torch.cat([-sines, sines], -1).unsqueeze(-2)

    def of(self, tokens: Ragged) -> Angles:
        """Those of a layout's tokens, (N, 1, d); computed once a layout."""
        return tokens.memo(self, lambda: self(tokens.positions))


def rescale(frequencies: Tensor, scaling: dict[str, Any]) -> Tensor:
    """Stretch wave lengths to more positions than a model was first trained on: all (linear), or long ones (LLaMA 3.1).

    Raises:
        KeyError: a number that the scaling needs is not given.
    """
    factor = float(scaling["factor"])
    if scaling["rope_type"] == "linear":
        return frequencies / factor
    low, high = float(scaling["low_freq_factor"]), float(scaling["high_freq_factor"])
    turns = float(scaling["original_max_position_embeddings"]) * frequencies / (2 * math.pi)
    smooth = ((turns - low) / (high - low)).clamp(0, 1)  # 0: turns seldom, stretched; 1: turns often, left alone
    return (1 - smooth) * frequencies / factor + smooth * frequencies


def turn(x: Tensor, angles: Angles) -> Tensor:
    """Heads, (..., H, d), turned by their position's angles."""
    cosines, sines = (part.to(x.dtype) for part in angles)
    return torch.addcmul(x * cosines, x.roll(x.size(-1) // 2, -1), sines)


class RelativeBias(nn.Module):
    """T5's relative positions: what is added to a head's scores for each distance, the same in all layers of a stack.

    Args:
        buckets: half of them for single distances, half for growing ranges; in an encoder, half for each direction.
        max_distance: beyond which all distances are one.
        heads: H.
        bidirectional: keys come after queries too (an encoder).
        share: compute the bias of a layout once for all layers; not where layers are recomputed in the backward pass.
    """

    def __init__(self, buckets: int, max_distance: int, heads: int, bidirectional: bool, share: bool):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(buckets, heads))
        self.max_distance = max_distance
        self.bidirectional = bidirectional
        self.share = share

    def bucket(self, distance: Tensor) -> Tensor:
        """The bucket, int64, of key positions minus query positions, int64."""
        buckets = self.weight.size(0)
        first = torch.zeros_like(distance)
        if self.bidirectional:
            buckets //= 2
            first = (distance > 0) * buckets
            distance = distance.abs()
        else:
            distance = (-distance).clamp(min=0)
        single = buckets // 2
        growth = (distance.clamp(min=single).float() / single).log() / math.log(self.max_distance / single)
        ranged = (single + (growth * (buckets - single)).long()).clamp(max=buckets - 1)
        return first + torch.where(distance < single, distance, ranged)

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        """The bias, (n, H, T, S), between int64 positions (n, T) and (n, S)."""
        buckets = self.bucket(keys.unsqueeze(1) - queries.unsqueeze(2))
        return F.embedding(buckets, self.weight).permute(0, 3, 1, 2)

    def masks(self, tokens: Ragged) -> list[Tensor]:
        """What attention adds to the scores of each of a layout's buckets, (1 or n, H, width, width)."""
        return tokens.memo(self, lambda: self._masks(tokens)) if self.share else self._masks(tokens)

    def _masks(self, tokens: Ragged) -> list[Tensor]:
        masks = []
        for bucket in tokens.buckets:
            if tokens.in_place:
                positions = torch.arange(bucket.width, device=self.weight.device).unsqueeze(0)
            else:
                positions = bucket.gather(tokens.positions)
            bias = self(positions, positions)
            masks.append(bias if bucket.mask is None else bias.masked_fill(~bucket.mask, -torch.inf))
        return masks

    def causal(self, batch: int, length: int) -> Tensor:
        """What causal self-attention of whole targets adds to its scores, (B, 1, H, T, T)."""
        positions = torch.arange(length, device=self.weight.device).unsqueeze(0)
        later = torch.ones(length, length, dtype=torch.bool, device=self.weight.device).triu(1)
        return self(positions, positions).masked_fill(later, -torch.inf).expand(batch, 1, -1, -1, -1)

    def step(self, slots: Slots, steps: Tensor) -> Tensor:
        """What self-attention of decoding steps, int64 (B or 1, G or 1), adds to its scores, (B, H, G, capacity)."""
        return self(steps, slots.positions).masked_fill(~slots.mask, -torch.inf)
