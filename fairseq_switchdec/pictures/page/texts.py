"""The texts of a report's inputs, from files: sources with their words where those can be known, outputs, references.

A line holds words of the dictionary (a file that ``fairseq-preprocess`` read, an output of ``fairseq-generate`` without
``--bpe``) or text, which the BPE makes words of. The report says how many words of each input could be dropped: the
right reading agrees with that, and where none does, no word is taken for known.
"""

from __future__ import annotations

import functools
import json
from argparse import Namespace
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from ...errors import UserError
from ...scoring.outputs import Outputs, parse_generated, read_lines, read_outputs
from ...scoring.rouge import looks_undecoded
from .dropped import REFUSED, SourceRule, as_they_are, decoded
from .view import Source, fits

#: Share of the inputs whose number of words must be the report's: below, what agrees does so by chance.
ENOUGH = 0.5

KINDS = {"source": "sources", "hypotheses": "hypotheses", "references": "references"}


class Texts(NamedTuple):
    """By input id; empty where no file was given.

    Attributes:
        note: what a reader must know of the sources' words, or nothing.
    """

    sources: dict[int, Source]
    hypotheses: dict[int, str]
    references: dict[int, str]
    note: str = ""


def read_texts(args: Namespace, report: str, entries: Sequence[dict[str, Any]], run: dict[str, Any], bpe: Any) -> Texts:
    """The texts of a report's inputs.

    Args:
        args: ``results``, outputs of ``fairseq-generate``; ``source``, ``hypotheses``, ``references``, a file
            each; any of them may be None.
        report: its path, for messages.
        bpe: fairseq's, or None.

    Raises:
        UserError: a file that cannot be read, or that is not of the report's inputs.
    """
    ids = sorted(entry["id"] for entry in entries)
    found = Outputs()
    if args.results:
        found = read_outputs(args.results)
        if not found.sources and not found.references and len(args.results) == 1:
            raise UserError(
                f"--results {args.results[0]} is no output of fairseq-generate: give plain text to --source, "
                "--hypotheses and --references"
            )
        for kind in KINDS.values():
            texts = getattr(found, kind)
            if texts:
                setattr(found, kind, of_inputs(texts, ids, "--results " + " ".join(args.results), report))
    for option, kind in KINDS.items():
        path = getattr(args, option)
        if path is not None:
            setattr(found, kind, from_file(path, kind, ids, f"--{option} {path}", report))
    sources, undecoded, note = read_sources(found.sources, entries, SourceRule.of(run), bpe)
    outputs = []
    for option, kind in list(KINDS.items())[1:]:
        texts = getattr(found, kind)
        of_run = undecoded and not args.source and not getattr(args, option)
        if bpe is not None and (of_run or looks_undecoded(texts.values())):
            texts = {index: decoded(text, bpe.decode) for index, text in texts.items()}
        outputs.append(texts)
    return Texts(sources, *outputs, note)


def from_file(path: str, kind: str, ids: Sequence[int], where: str, report: str) -> dict[int, str]:
    """Texts by id, from an output of ``fairseq-generate`` or a plain file: a line for each input, in their order; or
    for each line of the data, of which some were left out as too long.

    Raises:
        UserError: they are not of the report's inputs.
    """
    lines = read_lines(path)
    if path.lower().endswith(".jsonl"):
        lines = texts_of(lines, where)
    generated = getattr(parse_generated(lines), kind)
    if generated:
        return of_inputs(generated, ids, where, report)
    if len(lines) == len(ids):
        return dict(zip(ids, lines))
    if len(ids) <= ids[-1] < len(lines):
        return {index: lines[index] for index in ids}
    raise UserError(
        f"{where} has {len(lines)} lines, {report} {len(ids)} inputs: give the file that the report's run read or wrote"
    )


def texts_of(lines: Sequence[str], where: str) -> list[str]:
    """The texts of JSON lines, as ``predict`` reads and writes them, without the rows that could not be predicted.

    Raises:
        UserError: they are none.
    """
    try:
        rows = [json.loads(line) for line in lines]
        return [str(row["text"]) for row in rows if "error" not in row]
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{where}: not JSON lines with a text") from None


def of_inputs(texts: dict[int, str], ids: Sequence[int], where: str, report: str) -> dict[int, str]:
    """The texts by id, refused if they are not of the report's inputs.

    Raises:
        UserError: some are missing, or there are others.
    """
    missing, unknown = sorted(set(ids) - texts.keys()), sorted(texts.keys() - set(ids))
    if missing or unknown:
        some = ", ".join(map(str, (missing or unknown)[:5])) + (", ..." if len(missing or unknown) > 5 else "")
        problem = f"lacks {len(missing)} of" if missing else f"holds {len(unknown)} inputs more than"
        raise UserError(
            f"{where} {problem} the {len(ids)} inputs of {report} (ids {some}): give the outputs of the report's run, "
            "of all its shards where there were several"
        )
    return texts


def read_sources(
    lines: dict[int, str], entries: Iterable[dict[str, Any]], rule: SourceRule, bpe: Any
) -> tuple[dict[int, Source], bool, str]:
    """Sources with their words.

    Returns:
        by id; whether the lines were words of a BPE; and what a reader must know.
    """
    if not lines:
        return {}, False, ""
    decode = as_they_are if bpe is None else functools.lru_cache(maxsize=1 << 18)(bpe.decode)
    readings: list[Callable[[str], list[str]]] = [str.split]
    if bpe is not None:
        readings.append(lambda line: encoded(line, bpe.encode).split())
    of_entries = {entry["id"]: entry for entry in entries}
    best: dict[int, list[str]] = {}
    undecoded = False
    for reading in readings:  # of two as good, the latter: what is text is shown as such
        words = {index: reading(line) for index, line in lines.items()}
        agree = {index: found for index, found in words.items() if fits(found, of_entries[index], rule)}
        if len(agree) >= max(len(best), 1):
            best, undecoded = agree, reading is str.split and bpe is not None
    if len(best) < ENOUGH * len(lines):
        remedy = "If the data has a BPE, give its --bpe."
        if bpe is not None:
            remedy = "Give the --bpe of the data; where sources were cut (--truncate-source), give --results."
        best, note = (
            {},
            f"Dropped tokens are not marked: the report counts other tokens than the sources have. {remedy}",
        )
    else:
        others = len(lines) - len(best)
        note = f"The tokens of {others:,} of {len(lines):,} sources are not known: none of them is marked."
        note = note if others else ""
    sources = {
        index: Source(decoded(line, decode) if undecoded else line, best.get(index), decode)
        for index, line in lines.items()
    }
    return sources, undecoded, note


def encoded(text: str, encode: Callable[[str], str]) -> str:
    """The words of a text, joined by spaces; none where the BPE refuses it."""
    try:
        return encode(text)
    except REFUSED:
        return ""
