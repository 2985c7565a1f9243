"""Reads generated text: a plain file of one text a line, or what ``fairseq-generate`` wrote, whole or in shards."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import UserError

#: S-id TAB source; T-id TAB reference; D-id TAB score TAB hypothesis (H is the same before --bpe and --tokenizer).
GENERATED = re.compile(r"([STD])-(\d+)\t")


@dataclass
class Outputs:
    """Texts by input id; the id of a plain file's line is its number from 0."""

    hypotheses: dict[int, str] = field(default_factory=dict)
    references: dict[int, str] = field(default_factory=dict)
    sources: dict[int, str] = field(default_factory=dict)


def read_outputs(paths: Iterable[str | Path]) -> Outputs:
    """One system's hypotheses: a plain file, or files that ``fairseq-generate`` wrote (``--results-path``, or its
    standard output), several where it ran with ``--num-shards``. Of ``--nbest`` hypotheses the first counts.

    Raises:
        UserError: a file is missing, empty or cut short, two files hold the same input, or plain files are several.
    """
    paths = list(paths)
    found = Outputs()
    for path in paths:
        lines = read_lines(path)
        part = parse_generated(lines)
        if not part.hypotheses and len(paths) > 1:
            raise UserError(f"{path} is no output of fairseq-generate: of plain text, give one file for a system")
        if not part.hypotheses:
            part = Outputs(hypotheses=dict(enumerate(lines)))
        elif part.references and part.references.keys() != part.hypotheses.keys():
            raise UserError(
                f"{path} has {len(part.references)} references (T-) but {len(part.hypotheses)} hypotheses (D-): was "
                "the run interrupted?"
            )
        again = sorted(found.hypotheses.keys() & part.hypotheses.keys())
        if again:
            raise UserError(f"{path} holds input {again[0]}, which a file before it holds too")
        for ours, theirs in zip(vars(found).values(), vars(part).values()):
            ours.update(theirs)
    return found


def parse_generated(lines: Iterable[str]) -> Outputs:
    """The texts in lines of ``fairseq-generate``; lines of other kinds are passed over."""
    found = Outputs()
    for line in lines:
        match = GENERATED.match(line)
        if match is None:
            continue
        index, text = int(match[2]), line[match.end() :]
        if match[1] == "D":
            found.hypotheses.setdefault(index, text.partition("\t")[2])
        else:
            (found.sources if match[1] == "S" else found.references)[index] = text
    return found


def read_texts(path: str | Path, kind: str) -> dict[int, str]:
    """References or sources by id, from a plain file or from an output of ``fairseq-generate``.

    Args:
        kind: field of `Outputs` to take from the latter.

    Raises:
        UserError: as in `read_outputs`.
    """
    lines = read_lines(path)
    return getattr(parse_generated(lines), kind) or dict(enumerate(lines))


def read_lines(path: str | Path) -> list[str]:
    """Lines of a text file, or of one packed by gzip, ended by newlines alone (not by the separators of Unicode).

    Raises:
        UserError: it cannot be read, is empty, or ends within a line of ``fairseq-generate``.
    """
    try:
        data = Path(path).read_bytes()
        text = (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode("utf-8")
    except (OSError, EOFError) as error:
        raise UserError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no UTF-8 text ({error})") from None
    if not text:
        raise UserError(f"{path} is empty")
    lines = text.replace("\r\n", "\n").split("\n")
    if lines[-1] == "":
        lines.pop()
    elif re.match(r"[STHDPA]-\d+", lines[-1]):
        raise UserError(f"{path} ends within a line: the run that wrote it was interrupted")
    return lines
