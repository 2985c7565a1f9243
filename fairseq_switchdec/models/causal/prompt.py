"""What a decoder-only model reads before it writes: prefix, article, suffix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Prompts:
    """A batch of prompts, int64 (B, P), padding on the right.

    Attributes:
        tokens: of which the last real one is what the first output is written from.
        lengths: int64 (B,), real tokens, at least 2.
        article: bool (B, P), tokens that may be dropped: the article's, but neither a prompt's first nor its last one.
    """

    tokens: Tensor
    lengths: Tensor
    article: Tensor

    @property
    def read(self) -> Tensor:
        """bool (B, P): all real tokens but the last one."""
        return torch.arange(self.tokens.size(1), device=self.tokens.device) < self.lengths.unsqueeze(1) - 1

    @property
    def last(self) -> Tensor:
        """int64 (B,): each prompt's last token."""
        return self.tokens.gather(1, self.lengths.unsqueeze(1) - 1).squeeze(1)


@dataclass(frozen=True)
class PromptFormat:
    """How a source becomes a prompt.

    Attributes:
        prefix, suffix: ids before and after the article.
        room: tokens of the longest article; of a longer one the end is cut, never the suffix.
        start: what stands before a prompt that would have fewer than two tokens.
        end, padding: ``</s>``, which ends a source, and ``<pad>``.
    """

    prefix: Sequence[int]
    suffix: Sequence[int]
    room: int
    start: int
    end: int
    padding: int

    def __call__(self, sources: Tensor) -> Prompts:
        """Of a batch of sources, int64 (B, S), padding on either side."""
        prefix, suffix = (sources.new_tensor(list(part)) for part in (self.prefix, self.suffix))
        real = sources.ne(self.padding)
        last = real & real.flip(1).cumsum(1).flip(1).eq(1)
        article = real & ~(last & sources.eq(self.end))
        places = article.cumsum(1) - 1
        article = article & (places < self.room)
        count = article.sum(1, keepdim=True)
        missing = (2 - len(prefix) - len(suffix) - count).clamp(min=0)
        begin = missing + len(prefix)
        lengths = begin + count + len(suffix)
        width = int(lengths.max())
        # What is no article's goes to a column of its own, which is cut off.
        tokens = sources.new_full((len(sources), width + 1), self.padding)
        tokens.scatter_(1, torch.where(article, begin + places, width), sources)
        for part, first in ((prefix, missing), (suffix, begin + count)):
            columns = first + torch.arange(len(part), device=sources.device)
            tokens.scatter_(1, columns, part.expand(len(sources), -1))
        for column, token in enumerate((self.start, self.end)):
            tokens[:, column].masked_fill_(missing[:, 0] > column, token)
        columns = torch.arange(width, device=sources.device)
        droppable = (columns >= begin.clamp(min=1)) & (columns < torch.minimum(begin + count, lengths - 1))
        return Prompts(tokens[:, :width], lengths[:, 0], droppable)
