"""GPT-2's byte-level BPE with the characters that each token stands for.

fairseq's encoder (``gpt2_bpe_utils``) splits a text by a pattern, writes every piece as bytes and merges these; each
token is some bytes, and bytes belong to characters. A character of several bytes may be split over tokens, all of
which then stand for it.

Runs of punctuation are cut into single characters first: GPT-2's BPE has one token for the ``"),`` that ends
``the Alpha Service ("ARTS"),``, and an answer that ends inside a token could be neither learned nor given.
"""

from __future__ import annotations

import bisect
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from fairseq.data.encoders.gpt2_bpe_utils import get_encoder

from ..errors import UserError

#: A longer run of letters, or of spaces, is cut before merging, whose time grows with the square of the length.
LONGEST_PIECE = 400
#: Pieces that the encoder remembers before it forgets them all.
REMEMBERED = 300_000


@dataclass(frozen=True)
class Tokens:
    """A text's tokens, N of them.

    Attributes:
        ids: int32 (N,), in the model's dictionary.
        starts, ends: int64 (N,), the characters [start, end) of each; white space before a word belongs to its token
            but not to these, unless the token is nothing else.
    """

    ids: np.ndarray
    starts: np.ndarray
    ends: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    def span(self, start: int, end: int) -> tuple[int, int] | None:
        """First and last token of the characters [start, end); None where no token stands for any of them."""
        first = bisect.bisect_right(self.ends, start)  # both arrays never fall
        last = bisect.bisect_left(self.starts, end) - 1
        return (first, last) if first <= last else None

    def characters(self, first: int, last: int) -> tuple[int, int]:
        """The characters [start, end) of some tokens, the last one among them."""
        return int(self.starts[first]), int(self.ends[last])


class OffsetBPE:
    """Encodes text to the model's tokens with their characters.

    Args:
        encoder_json, vocab_bpe: the BPE's files.
        dictionary: fairseq's, of the numbers that the BPE gives to its tokens.

    Raises:
        UserError: the files cannot be read, or are no BPE of this kind.
    """

    def __init__(self, encoder_json: str, vocab_bpe: str, dictionary: Any):
        try:
            self.bpe = get_encoder(encoder_json, vocab_bpe)
        except OSError as error:
            raise UserError(
                f"{error.filename} cannot be read ({error.strerror}): --gpt2-encoder-json and --gpt2-vocab-bpe name "
                "the files of the BPE"
            ) from None
        except ValueError as error:
            raise UserError(f"--gpt2-encoder-json {encoder_json}, --gpt2-vocab-bpe {vocab_bpe}: {error}") from None
        except AttributeError:
            raise UserError(f"--gpt2-encoder-json {encoder_json} is no table of tokens") from None
        self.ids = {token: dictionary.index(str(number)) for token, number in self.bpe.encoder.items()}
        self.unknown = dictionary.unk()

    def encode(self, text: str) -> Tokens:
        """The tokens of a text, those of fairseq's ``--bpe gpt2`` except in runs of punctuation."""
        ids: list[int] = []
        starts: list[int] = []
        ends: list[int] = []
        bound_cache(self.bpe)
        for match in self.bpe.re.finditer(self.bpe.pat, text):
            for begin, end in cut(text, match.start(), match.end()):
                self.encode_piece(text, begin, end, ids, starts, ends)
        return Tokens(np.array(ids, dtype=np.int32), np.array(starts, dtype=np.int64), np.array(ends, dtype=np.int64))

    def encode_piece(self, text: str, begin: int, end: int, ids: list[int], starts: list[int], ends: list[int]) -> None:
        """Append the tokens of one piece of a text, its characters [begin, end)."""
        piece = text[begin:end]
        data = piece.encode("utf-8", errors="surrogatepass")
        # The character of every byte; most texts have one each.
        owners = range(len(data))
        if len(data) > len(piece):
            owners = [  # type: ignore[assignment]
                index for index, char in enumerate(piece) for _ in char.encode("utf-8", errors="surrogatepass")
            ]
        place = 0
        for token in self.bpe.bpe("".join(self.bpe.byte_encoder[byte] for byte in data)).split(" "):
            first, last = owners[place], owners[place + len(token) - 1]
            place += len(token)
            while first < last and piece[first].isspace():
                first += 1
            ids.append(self.ids.get(token, self.unknown))
            starts.append(begin + first)
            ends.append(begin + last + 1)


def bound_cache(bpe: Any) -> None:
    """Keep fairseq's GPT-2 encoder, which remembers every piece of text it has met, from growing on a long stream."""
    if len(bpe.cache) > REMEMBERED:
        bpe.cache.clear()


def cut(text: str, begin: int, end: int) -> Iterator[tuple[int, int]]:
    """The parts of a text's piece [begin, end) that are encoded by themselves: each mark of punctuation (with the space
    before it), and no part too long."""
    start = begin
    if not text[end - 1].isalnum():  # a piece is all letters, all digits, all spaces, or none of these
        for index in range(begin + 1, end):
            if not text[index - 1].isspace() and (is_mark(text[index - 1]) or is_mark(text[index])):
                yield start, index
                start = index
    for first in range(start, end, LONGEST_PIECE):
        yield first, min(first + LONGEST_PIECE, end)


def is_mark(char: str) -> bool:
    """Whether a character is punctuation or a symbol."""
    return unicodedata.category(char)[0] in "PS"
