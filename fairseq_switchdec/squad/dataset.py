"""Questions as a fairseq data set of windows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from fairseq.data import FairseqDataset, data_utils
from torch import Tensor

from .examples import Problems, Question
from .tokens import OffsetBPE, Tokens
from .windows import Window, WindowOptions, build_input, context_offset, cut_windows


@dataclass(frozen=True)
class Encoded:
    """A question as the model reads it.

    Attributes:
        prompt: int32, its tokens, cut to the longest allowed.
        context: the context's tokens; one object for all questions of a paragraph.
        windows: of the context.
        span: first and last token of the answer that is learned; None = no answer.
    """

    question: Question
    prompt: np.ndarray
    context: Tokens
    windows: list[Window]
    span: tuple[int, int] | None


def encode_questions(
    questions: Iterable[Question], bpe: OffsetBPE, options: WindowOptions, problems: Problems
) -> Iterator[Encoded]:
    """Questions with their tokens and windows; too long ones are cut and reported."""
    text, context = None, None
    for question in questions:
        if context is None or question.context is not text:
            text = question.context
            context = bpe.encode(text)
        prompt = bpe.encode(question.text).ids
        if len(prompt) > options.question:
            problems(
                question.row,
                f"the question has {len(prompt)} tokens and is cut to --squad-question {options.question}",
                left_out=False,
            )
        span = None
        if question.answers:
            answer = question.answers[0]
            span = context.span(answer.start, answer.start + len(answer.text))
        windows = cut_windows(len(context), len(prompt), options)
        yield Encoded(question, prompt[: options.question], context, windows, span)


class SpanDataset(FairseqDataset):
    """Windows of questions.

    Args:
        encoded: the questions.
        dictionary: fairseq's.
        whole: an item is a question with all its windows, so that a batch's answers can be told (validation), rather
            than one window (training).
        version2: a question may have no answer.
    """

    def __init__(self, encoded: Sequence[Encoded], dictionary: Any, whole: bool, version2: bool):
        self.encoded = encoded
        self.dictionary = dictionary
        self.whole = whole
        self.version2 = version2
        counts = np.array([len(one.windows) for one in encoded], dtype=np.int64)
        self.first = np.concatenate([[0], np.cumsum(counts)])  # id of every question's first window
        grouped = [[(index, place) for place in range(count)] for index, count in enumerate(counts.tolist())]
        self.items = grouped if whole else [[pair] for group in grouped for pair in group]
        self.sizes = np.array([max(self.length(*pair) for pair in item) for item in self.items], dtype=np.int64)

    def length(self, index: int, place: int) -> int:
        """Tokens of a window's input."""
        one, window = self.encoded[index], self.encoded[index].windows[place]
        return context_offset(len(one.prompt)) + window.end - window.begin + 1

    def __getitem__(self, index: int) -> list[tuple[int, int]]:
        """Question and window of each input of an item."""
        return self.items[index]

    def __len__(self) -> int:
        return len(self.items)

    def num_tokens(self, index: int) -> int:
        """Of the longest window of an item."""
        return int(self.sizes[index])

    def num_tokens_vec(self, indices: np.ndarray) -> np.ndarray:
        """The same of several."""
        return self.sizes[indices]

    def size(self, index: int) -> int:
        """As fairseq asks for it."""
        return int(self.sizes[index])

    def ordered_indices(self) -> np.ndarray:
        """Shuffled in training, then by length, so that batches hold little padding."""
        order = np.arange(len(self)) if self.whole else np.random.permutation(len(self))
        return order[np.argsort(self.sizes[order], kind="mergesort")]

    def collater(self, samples: list[list[tuple[int, int]]]) -> dict[str, Any]:
        """A batch of all inputs of some items, see `collate`; of whole questions, these in ``questions``."""
        pairs = [pair for item in samples for pair in item]
        if not pairs:
            return {}
        batch = collate(
            [(self.encoded[index], self.encoded[index].windows[place]) for index, place in pairs], self.dictionary
        )
        batch["id"] = torch.tensor([int(self.first[index]) + place for index, place in pairs])
        if self.whole:
            batch["questions"] = [self.encoded[item[0][0]] for item in samples]
            batch["version2"] = self.version2
        return batch


def collate(inputs: Sequence[tuple[Encoded, Window]], dictionary: Any) -> dict[str, Any]:
    """A batch of windows: fairseq's keys; ``context`` (B, 2), where the context stands in each input; ``spans`` (B, 2),
    first and last position of the answer, 0 where the window does not hold all of it."""
    rows, contexts, spans = [], [], []
    for one, window in inputs:
        part = one.context.ids[window.begin : window.end]
        rows.append(torch.from_numpy(build_input(one.prompt, part, dictionary.bos(), dictionary.eos())))
        offset = context_offset(len(one.prompt))
        contexts.append([offset, offset + len(part)])
        held = one.span is not None and window.begin <= one.span[0] and one.span[1] < window.end
        spans.append([place - window.begin + offset for place in one.span] if held and one.span else [0, 0])
    lengths = torch.tensor([len(row) for row in rows])
    tokens = data_utils.collate_tokens(rows, dictionary.pad())
    return {
        "id": torch.arange(len(rows)),
        "nsentences": len(rows),
        "ntokens": int(lengths.sum()),
        "net_input": {
            "src_tokens": tokens,
            "src_lengths": lengths,
            "prev_output_tokens": shift(tokens, dictionary),
        },
        "context": torch.tensor(contexts),
        "spans": torch.tensor(spans),
    }


def shift(tokens: Tensor, dictionary: Any) -> Tensor:
    """What the decoder reads: ``</s>`` and then the input without its last token, padded alike."""
    shifted = tokens.roll(1, 1)
    shifted[:, 0] = dictionary.eos()
    return shifted.masked_fill(tokens.eq(dictionary.pad()), dictionary.pad())
