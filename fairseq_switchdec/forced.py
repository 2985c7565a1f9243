"""JSON files of decisions that a user forces, for experiments, static students and benchmarks.

A file holds ``{"attention_keep": [L booleans], "ffn_keep": [L booleans], "token_strategy": 0..6}``, encoder layers
first, or a list of such objects, which inputs take in turn by their ids
(`fairseq_switchdec.decisions.DecisionSpace.from_json`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from .decisions import Decisions, DecisionSpace
from .errors import UserError


def read_entries(path: str, flag: str, words: Sequence[str] = ()) -> list[Any]:
    """The objects of a file: one, or a list of them.

    Args:
        flag: what names the file, for messages.
        words: what else the flag takes.

    Raises:
        UserError: no such file, or not JSON.
    """
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    except OSError as error:
        what = f"neither {', '.join(words)} nor a readable file" if words else "no readable file"
        raise UserError(f"{flag} {path!r} is {what} ({error.strerror})") from None
    except ValueError as error:
        raise UserError(f"{flag} {path}: not JSON ({error})") from None
    entries = content if isinstance(content, list) else [content]
    if not entries:
        raise UserError(f"{flag} {path}: the list is empty")
    return entries


def forced(space: DecisionSpace, entries: Sequence[Any], where: str) -> Decisions:
    """Entries as decisions of a model, one an entry.

    Args:
        where: they come from, for messages.

    Raises:
        UserError: an entry does not fit the model.
    """
    try:
        return space.from_json(entries)
    except ValueError as error:
        raise UserError(f"{where}: {error} (this model has {space.in_words()})") from None
