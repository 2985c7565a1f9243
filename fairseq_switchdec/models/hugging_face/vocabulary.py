"""Hugging Face's token ids as a fairseq dictionary, and the rows of an embedding in either order.

A fairseq dictionary begins with ``<s> <pad> </s> <unk>``; the other symbols are token ids in decimal, ascending::

    Hugging Face's rows   0     1     2     3   ...  V-1        bos = 1, eos = 2, no pad, no unk
    our rows             <s>  <pad>  </s> <unk>  "0"  "3"  ...  "V-1"
                          1     -     2     -     0    3         -: zeros, an absent symbol
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

SPECIALS = ("<s>", "<pad>", "</s>", "<unk>")

#: Who gets an id that several of `SPECIALS` claim.
PRECEDENCE = ("</s>", "<s>", "<unk>", "<pad>")

#: Rows that are converted at once.
ROWS = 8192


@dataclass(frozen=True)
class Vocabulary:
    """Token ids of a model.

    Attributes:
        size: V, rows of Hugging Face's embedding.
        ids: token ids of `SPECIALS`, None for an absent one; no id twice.
    """

    size: int
    ids: tuple[int | None, ...]

    @staticmethod
    def of(size: int, claims: dict[str, int | None]) -> Vocabulary:
        """The vocabulary in which each of `SPECIALS` has the id it claims, unless one before it has taken it."""
        taken: dict[str, int] = {}
        for symbol in PRECEDENCE:
            claim = claims.get(symbol)
            if claim is not None and claim not in taken.values():
                taken[symbol] = claim
        return Vocabulary(size, tuple(taken.get(symbol) for symbol in SPECIALS))

    @staticmethod
    def parse(size: int, text: str) -> Vocabulary:
        """From what ``text`` gave.

        Raises:
            ValueError: it is something else.
        """
        ids = tuple(None if word == "-" else int(word) for word in text.split())
        present = [index for index in ids if index is not None]
        if len(ids) != len(SPECIALS) or len({*present}) != len(present) or any(i not in range(size) for i in present):
            raise ValueError(text)
        return Vocabulary(size, ids)

    @property
    def text(self) -> str:
        """The ids of `SPECIALS` in words: "1 - 2 -"."""
        return " ".join("-" if index is None else str(index) for index in self.ids)

    @property
    def absent(self) -> list[str]:
        """Those of `SPECIALS` that no token stands for."""
        return [symbol for symbol, index in zip(SPECIALS, self.ids) if index is None]

    @property
    def rows(self) -> int:
        """Rows of our embedding."""
        return self.size + len(self.absent)

    def others(self) -> Tensor:
        """(V - specials,) ids that are no special's, ascending: those of our rows from the fourth on."""
        free = torch.ones(self.size, dtype=torch.bool)
        free[[index for index in self.ids if index is not None]] = False
        return free.nonzero()[:, 0]

    def dictionary(self) -> str:
        """The lines of dict.txt."""
        return "".join(f"{index} 1\n" for index in self.others().tolist())

    def symbol(self, index: int) -> str:
        """The dictionary's symbol for a token id."""
        return SPECIALS[self.ids.index(index)] if index in self.ids else str(index)

    def to_ours(self, weight: Tensor) -> Tensor:
        """(V, D) in Hugging Face's order -> (rows, D) in ours, float32; the rows of absent symbols are zero."""
        found = torch.zeros(self.rows, weight.size(1))
        for row, index in enumerate(self.ids):
            if index is not None:
                found[row] = weight[index]
        start = len(SPECIALS)
        for ids in self.others().split(ROWS):
            found[start : start + len(ids)] = weight[ids]
            start += len(ids)
        return found

    def to_theirs(self, weight: Tensor) -> Tensor:
        """(rows, D) in our order -> (V, D) in Hugging Face's."""
        found = weight.new_empty(self.size, weight.size(1))
        for row, index in enumerate(self.ids):
            if index is not None:
                found[index] = weight[row]
        found[self.others()] = weight[len(SPECIALS) :]
        return found
