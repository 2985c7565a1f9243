"""A question and its context as inputs of the model: one, or overlapping windows where the context is long.

    <s> question </s> </s> some of the context </s>

A token of the context that stands in several windows counts in the one where it has most context around it, so that
every answer's start is scored once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import UserError

#: Special tokens of a window: one before the question, two after it, one at the end.
SPECIALS = 4


@dataclass(frozen=True)
class WindowOptions:
    """How windows are cut, in tokens.

    Attributes:
        window: the longest input, special tokens among them.
        stride: from one window's begin to the next one's.
        question: the longest question; longer ones are cut.
    """

    window: int = 512
    stride: int = 128
    question: int = 64

    def check(self) -> None:
        """Refuse what leaves no room or would leave gaps.

        Raises:
            UserError: naming the flag.
        """
        if self.question < 1 or self.stride < 1:
            raise UserError("--squad-question and --squad-stride must be 1 or more")
        if self.window < self.question + self.stride + SPECIALS:
            raise UserError(
                f"--squad-window {self.window} has no room for {self.question} tokens of a question, {SPECIALS} special"
                f" ones and a stride of {self.stride}: give more, or a smaller --squad-question or --squad-stride"
            )


@dataclass(frozen=True)
class Window:
    """The tokens [begin, end) of a context, beside its question.

    Attributes:
        best_begin, best_end: those of them that have most context in this window.
    """

    begin: int
    end: int
    best_begin: int
    best_end: int


def cut_windows(context: int, question: int, options: WindowOptions) -> list[Window]:
    """The windows of a context of some tokens beside a question of some; one, of nothing, for an empty context."""
    room = options.window - min(question, options.question) - SPECIALS
    begins = [0]
    while begins[-1] + room < context:
        begins.append(begins[-1] + options.stride)
    ends = [min(begin + room, context) for begin in begins]
    # Of two neighbours the earlier one knows more about a token up to the middle of where they overlap.
    borders = [0]
    for index in range(1, len(begins)):
        borders.append(max(borders[-1], (begins[index] + ends[index - 1] + 1) // 2))
    return [
        Window(begin, end, best_begin, best_end)
        for begin, end, best_begin, best_end in zip(begins, ends, borders, [*borders[1:], context])
    ]


def build_input(question: np.ndarray, context: np.ndarray, bos: int, eos: int) -> np.ndarray:
    """A window's input, int64 (T,): the question's tokens, already cut, and those of the context in the window."""
    return np.concatenate([[bos], question, [eos, eos], context, [eos]]).astype(np.int64)


def context_offset(question: int) -> int:
    """Where the context begins in the input, after a question of some tokens."""
    return question + SPECIALS - 1
