"""The user's texts as sources, instead of random words: a test set as it is, cut to the longest length asked for."""

from __future__ import annotations

import zlib
from pathlib import Path

from fairseq_switchdec.errors import UserError
from fairseq_switchdec.texts.tokenizer import TextTokenizer

from .setup import BOS, EOS, SPECIALS, Setup


def read(path: Path) -> list[str]:
    """The texts of a file, one a line; empty lines are left out.

    Raises:
        UserError: it cannot be read, or has none.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise UserError(f"--texts {path} cannot be read ({why}): name a file in UTF-8 with a text a line") from None
    texts = [line for line in lines if line.strip()]
    if not texts:
        raise UserError(f"--texts {path} has no text: name a file with a text a line")
    return texts


def tokens(texts: list[str], setup: Setup) -> list[list[int]]:
    """What all systems get of the texts, longest first, as every system's users sort them.

    A language model's own tokenizer makes them. A BART of random weights has none: a word is always the same token.
    """
    if setup.gguf is not None:
        tokenizer = TextTokenizer(str(setup.imported / "tokenizer.json"))
        rows = [list(map(int, line.split()))[: setup.src_len] for line in tokenizer.encode_batch(texts)]
    else:
        words = setup.shape.vocabulary - SPECIALS
        numbered = ([SPECIALS + zlib.crc32(word.encode()) % words for word in text.split()] for text in texts)
        rows = [[BOS, *row[: setup.src_len - 2], EOS] for row in numbered]
    return sorted(rows, key=len, reverse=True)
