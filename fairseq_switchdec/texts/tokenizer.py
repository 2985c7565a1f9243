"""A ``tokenizer.json`` of the `tokenizers` library as text to ids and back.

A word of fairseq's dictionary is an id in decimal: ``encode("Hello world")`` is ``"19556 905"``. Two things differ from
what the library does of its own: nothing is added to a text, cut from it or padded, and a text that spells a special
token (``</s>``, ``<|im_end|>``) is text all the same, whoever wrote it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from ..errors import UserError

FLAG = "--tokenizer-json"

#: How fairseq writes an unknown word, in a hypothesis and in a reference. It stays in the text.
UNKNOWN_WORDS = ("<unk>", "<<unk>>")


class TextTokenizer:
    """Encodes and decodes with a ``tokenizer.json``.

    What it remembers of the pieces it has met is bounded by the library.

    Args:
        path: the file.

    Raises:
        UserError: naming ``--tokenizer-json``, where the file cannot be used or the library is missing.
    """

    def __init__(self, path: str):
        description = read_description(path)
        self.tokenizer, special = build(path, description)
        vocabulary = self.tokenizer.get_vocab(with_added_tokens=True)
        self.pieces = {str(id): piece for piece, id in vocabulary.items() if id not in special}
        self.pieces.update({word: word for word in UNKNOWN_WORDS})

    def encode(self, text: str) -> str:
        """The ids of a text, joined by spaces."""
        return " ".join(map(str, self.tokenizer.encode(text, add_special_tokens=False).ids))

    def encode_batch(self, texts: Sequence[str]) -> list[str]:
        """`encode` of several texts, in the threads of the library."""
        encodings = self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return [" ".join(map(str, encoding.ids)) for encoding in encodings]

    def decode(self, words: Iterable[str]) -> str:
        """The text of words of the dictionary; special tokens, and words that stand for none, are left out."""
        pieces = [self.pieces[word] for word in words if word in self.pieces]
        decoder = self.tokenizer.decoder
        return " ".join(pieces) if decoder is None else decoder.decode(pieces)


def read_description(path: str) -> dict[str, Any]:
    """The JSON object that a ``tokenizer.json`` is.

    Raises:
        UserError: the file cannot be read, or is something else.
    """
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{FLAG} {path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"{FLAG} {path} is not JSON ({error})") from None
    if not (isinstance(found, dict) and isinstance(found.get("model"), dict)):
        raise UserError(f"{FLAG} {path} is no tokenizer.json of Hugging Face's: it describes no model")
    return found


def build(path: str, description: dict[str, Any]) -> tuple[Any, set[int]]:
    """The library's tokenizer of a description, which it changes, and the ids of the special tokens.

    Raises:
        UserError: the library is missing, or refuses it.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise UserError(f"{FLAG} needs the package tokenizers: pip install tokenizers") from None
    try:
        special = hide_special_tokens(description)
        description.update(truncation=None, padding=None, post_processor=None)
        tokenizer = Tokenizer.from_str(json.dumps(description))
    except Exception as error:  # the library's own errors have no class of their own
        raise UserError(
            f"{FLAG} {path} is no tokenizer.json that the installed tokenizers can read: {error!r}"
        ) from None
    tokenizer.encode_special_tokens = True  # do not look for special tokens in a text
    return tokenizer, special


def hide_special_tokens(description: dict[str, Any]) -> set[int]:
    """Give the special tokens of a description names that no text spells; returns their ids.

    To look for none of them in a text is not enough: a Unigram model finds the names of all its pieces, ``</s>`` among
    them, and so does a BPE that takes whole words first.
    """
    tokens = [token for token in description.get("added_tokens") or () if token["special"]]
    secret = uuid4().hex
    names = {token["content"]: f"{secret} {token['content']}" for token in tokens}
    for token in tokens:
        token["content"] = names[token["content"]]
    model = description["model"]
    if isinstance(model["vocab"], dict):
        model["vocab"] = {names.get(piece, piece): id for piece, id in model["vocab"].items()}
    else:
        model["vocab"] = [[names.get(piece, piece), score] for piece, score in model["vocab"]]
    if "unk_token" in model:
        model["unk_token"] = names.get(model["unk_token"], model["unk_token"])
    if model.get("merges"):
        model["merges"] = [merge for merge in model["merges"] if names.keys().isdisjoint(merged(merge))]
    return {token["id"] for token in tokens}


def merged(merge: str | list[str]) -> tuple[str, str, str]:
    """The two parts of a BPE's merge, and what they become."""
    first, second = merge.split(" ") if isinstance(merge, str) else merge
    return first, second, first + second


# --- a text as a line ---


def escape(text: str) -> str:
    r"""A text as one line: its newlines as ``\n``, its backslashes as ``\\``."""
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def unescape(line: str) -> str:
    r"""The text of a line that `escape` made; a backslash before anything but ``n`` and ``\`` stands for itself."""
    return re.sub(r"\\([n\\])", lambda match: "\n" if match[1] == "n" else "\\", line)
