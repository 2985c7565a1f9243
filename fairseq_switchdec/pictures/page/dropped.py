"""Which words of a source were dropped, and the text that each of them stands for.

A *word* is one of fairseq's dictionary: a token of the BPE. Strategies count words, people read text; a word is several
characters, a part of one, or nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from ...tokens import kept_tokens

#: What became of a piece of a source: it stayed, it was dropped, some of its words were, it was cut off before.
KEPT, DROPPED, PARTLY, UNREAD = range(4)
#: Words that make one character, at most: bytes of UTF-8, and what stands for none.
LONGEST = 8

#: What fairseq's BPEs raise at a word, or a text, that they do not know.
REFUSED = (ValueError, KeyError, TypeError)

#: Words, joined by spaces, to text: a BPE's.
Decode = Callable[[str], str]


def as_they_are(words: str) -> str:
    """The `Decode` of words that are text."""
    return words


class SourceRule(NamedTuple):
    """How a run read its sources, see `fairseq_switchdec.generation.run_settings.source_settings`."""

    limit: int | None = None
    first: bool = True
    last: bool = True

    @classmethod
    def of(cls, run: dict[str, Any]) -> SourceRule:
        """A report's ``run``; one that does not say read all of every source."""
        found = run.get("source")
        return cls(**{name: found.get(name) for name in cls._fields}) if isinstance(found, dict) else cls()

    def read(self, words: int) -> int:
        """How many of a source's words are read."""
        return words if self.limit is None else min(words, self.limit)

    def droppable(self, words: int) -> range:
        """Places of the words that may be dropped."""
        return range(0 if self.first else 1, self.read(words) - (0 if self.last else 1))

    def states(self, words: int, strategy: int) -> list[int]:
        """What became of each of a source's words: `KEPT`, `DROPPED` or `UNREAD`."""
        places = self.droppable(words)
        content = torch.ones(1, len(places), dtype=torch.bool)
        states = [KEPT] * self.read(words) + [UNREAD] * (words - self.read(words))
        if len(places) and strategy:
            kept = kept_tokens(content, ~content, torch.tensor([strategy]))[0].tolist()
            states[places.start : places.stop] = [KEPT if keep else DROPPED for keep in kept]
        return states


def spans(words: Sequence[str], states: Sequence[int], decode: Decode) -> list[tuple[int, str]]:
    """A source as pieces of text that had the same fate: the states of `SourceRule.states` or `PARTLY`, and the texts,
    which joined are the source.
    """
    if len(set(states)) == 1:
        return [(states[0], decoded(" ".join(words), decode))]
    found: list[tuple[int, str]] = []
    place = 0
    for size, text in read_pieces(words, states, decode):
        of_piece = set(states[place : place + size])
        state = of_piece.pop() if len(of_piece) == 1 else PARTLY if DROPPED in of_piece else UNREAD
        place += size
        if found and found[-1][0] == state:
            found[-1] = (state, found[-1][1] + text)
        else:
            found.append((state, text))
    return found


def read_pieces(words: Sequence[str], states: Sequence[int], decode: Decode) -> list[tuple[int, str]]:
    """`pieces` of what was read, and the rest, which may be long, as one."""
    read = len(states) - list(states).count(UNREAD)
    if read + LONGEST >= len(words):
        return pieces(words, decode)
    found: list[tuple[int, str]] = []
    place = 0
    for size, text in pieces(words[: read + LONGEST], decode):
        if place >= read:
            break
        found.append((size, text))
        place += size
    known, whole = "".join(text for _, text in found), decoded(" ".join(words), decode)
    return [*found, (len(words) - place, whole[len(known) :])] if whole.startswith(known) else pieces(words, decode)


def pieces(words: Sequence[str], decode: Decode) -> list[tuple[int, str]]:
    """The shortest groups of words that have a text of their own, and that text; joined, the text of all words.

    Where a decoder gives no such text, the words themselves: it refuses one, or changes what it wrote before.
    """
    as_words = [(1, word if place == 0 else f" {word}") for place, word in enumerate(words)]
    if decode is as_they_are:
        return as_words
    found: list[tuple[int, str]] = []
    before = done = 0  # the last group of which the text is known; what follows is read together with it
    try:
        for end in range(1, len(words) + 1):
            known = decode(" ".join(words[before:done])) if done else ""
            text = decode(" ".join(words[before:end]))
            whole = len(text) > len(known) and text.startswith(known)
            if not whole or (text.endswith("\ufffd") and end < len(words) and end - done < LONGEST):
                if end - done > LONGEST:
                    break
                continue  # a part of a character, or nothing yet
            found.append((end - done, text[len(known) :]))
            before, done = done, end
        if found and 0 < len(words) - done <= LONGEST:  # what stands for nothing at the end
            found[-1] = (found[-1][0] + len(words) - done, found[-1][1])
        if "".join(text for _, text in found) == decode(" ".join(words)):
            return found
    except REFUSED:
        pass
    return as_words


def decoded(words: str, decode: Decode) -> str:
    """The text of words; they themselves where the BPE refuses one."""
    try:
        return decode(words)
    except REFUSED:
        return words
