"""Whether the texts that a model was trained on begin with ``<s>``: at generation they must begin as they did then.

BART's released models and the recipes for CNN/DM and XSum have ``<s>`` before every text; data that fairseq-preprocess
makes of plain ids has none. The data of training decides, and the checkpoint remembers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

#: Texts of a data set that are looked at.
SAMPLE = 100
UNKNOWN = 0.5


class Openings(nn.Module):
    """How sources and targets begin, saved with the model.

    Numbers, so that fairseq's averages of checkpoints keep what they agree on: 1 with ``<s>``, 0 without, what is far
    from both unknown, as for models that another program has trained.
    """

    with_bos: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("with_bos", torch.full((2,), UNKNOWN))

    @property
    def source(self) -> bool | None:
        """Whether sources begin with ``<s>``; None where that is unknown."""
        return known(self.with_bos[0])

    @property
    def target(self) -> bool | None:
        """Whether targets do."""
        return known(self.with_bos[1])

    def learn(self, dataset: Any, bos: int) -> None:
        """Remember how the texts of a data set begin; all of those looked at must have ``<s>`` to count as with it.

        Args:
            dataset: fairseq's ``LanguagePairDataset``, with targets.
        """
        places = np.unique(np.linspace(0, len(dataset) - 1, min(SAMPLE, len(dataset))).astype(int)).tolist()
        for side, texts in enumerate((dataset.src, dataset.tgt)):
            self.with_bos[side] = float(all(int(texts[place][0]) == bos for place in places))

    def open(self, source: Tensor, bos: int) -> Tensor:
        """A source, int64 (S,), with ``<s>`` before it where the model's begin so and this one does not."""
        if not self.source or source[:1].tolist() == [bos]:
            return source
        return torch.cat([source.new_tensor([bos]), source])

    def prefix(self, source: Tensor, bos: int) -> Tensor | None:
        """What outputs are forced to begin with, int64 (B, 1) for sources (B, S), or None: nothing."""
        return source.new_full((len(source), 1), bos) if self.target else None


def known(value: Tensor) -> bool | None:
    """What a number of `Openings` means; a moving average comes near to what it has seen for long."""
    return bool(value > UNKNOWN) if abs(float(value) - UNKNOWN) > 0.45 else None
