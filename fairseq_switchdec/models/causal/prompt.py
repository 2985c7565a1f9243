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
        rows, spans = [], []
        for source in sources:
            article = source[source.ne(self.padding)]
            if len(article) and int(article[-1]) == self.end:
                article = article[:-1]
            article = article[: self.room]
            row = torch.cat([prefix, article, suffix])
            missing = row.new_tensor([self.start, self.end][: max(0, 2 - len(row))])
            begin = len(missing) + len(prefix)
            rows.append(torch.cat([missing, row]))
            spans.append((max(begin, 1), min(begin + len(article), len(rows[-1]) - 1)))
        lengths = [len(row) for row in rows]
        tokens = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=self.padding)
        begins, ends = torch.tensor(spans, device=sources.device).unsqueeze(2).unbind(1)
        places = torch.arange(tokens.size(1), device=sources.device)
        return Prompts(tokens, torch.tensor(lengths, device=sources.device), (places >= begins) & (places < ends))
