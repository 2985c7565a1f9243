"""Sources become prompts: prefix, article, suffix."""

from __future__ import annotations

import torch

from fairseq_switchdec.models.causal.prompt import PromptFormat

START, PAD, END = 0, 1, 2


def rows(prompts: object) -> tuple[list[list[int]], list[list[int]]]:
    """Each prompt's tokens without padding, and the places of those that may be dropped."""
    kept = [row[:length].tolist() for row, length in zip(prompts.tokens, prompts.lengths)]
    assert all(row[length:].eq(PAD).all() for row, length in zip(prompts.tokens, prompts.lengths))
    return kept, [row.nonzero()[:, 0].tolist() for row in prompts.article]


def test_prefix_article_suffix() -> None:
    """Padding on either side, an article that is cut, one without an end, an empty one."""
    make = PromptFormat(prefix=(7,), suffix=(8, 9), room=3, start=START, end=END, padding=PAD)
    sources = torch.tensor(
        [[5, 6, END, PAD, PAD], [PAD, PAD, 5, 6, END], [4, 5, 6, 4, END], [4, END, 6, PAD, PAD], [END] + [PAD] * 4]
    )
    tokens, droppable = rows(make(sources))
    assert tokens == [[7, 5, 6, 8, 9], [7, 5, 6, 8, 9], [7, 4, 5, 6, 8, 9], [7, 4, END, 6, 8, 9], [7, 8, 9]]
    assert droppable == [[1, 2], [1, 2], [1, 2, 3], [1, 2, 3], []]


def test_a_prompt_has_two_tokens() -> None:
    """Of which neither the first nor the last may be dropped."""
    make = PromptFormat(prefix=(), suffix=(), room=5, start=START, end=END, padding=PAD)
    tokens, droppable = rows(make(torch.tensor([[END, PAD, PAD, PAD], [5, END, PAD, PAD], [5, 6, 7, END]])))
    assert tokens == [[START, END], [START, 5], [5, 6, 7]]
    assert droppable == [[], [], [1]]
    tokens, _ = rows(PromptFormat((), (8,), 5, START, END, PAD)(torch.tensor([[END]])))
    assert tokens == [[START, 8]]
