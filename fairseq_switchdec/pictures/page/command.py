"""``python -m fairseq_switchdec report html REPORT --results FILE --out PAGE``: the page that shows a run."""

from __future__ import annotations

import argparse
import math
import os
import sys
from argparse import Namespace
from typing import Any

from fairseq.data import encoders
from fairseq.dataclass.utils import gen_parser_from_dataclass

from ...decisions import NUM_TOKEN_STRATEGIES
from ...errors import UserError
from ...files import check_writable, write_text
from ...texts import tokenizer_json  # noqa: F401  (registers its BPE)
from ..command import read_report
from .document import build_page
from .dropped import SourceRule
from .texts import KINDS, read_texts
from .view import input_view

#: Of every input, what a page needs as a whole number, and else.
WHOLE = ("id", "source_tokens", "content_tokens", "target_tokens", "token_strategy")
NUMBERS = ("cost", "flops", "attention_skipped", "ffn_skipped", "tokens_dropped")


def add_parser(commands: Any, words: list[str]) -> None:
    """Add the command's options to those of ``report``.

    Args:
        words: the command line, which says of which BPE the options are.
    """
    parser = commands.add_parser(
        "html",
        help="show a run as one HTML file",
        description="One HTML file that needs no network: what each input ran and cost, its source with the dropped "
        "tokens struck through, its output and reference. Plain text is one input a line.",
    )
    parser.add_argument("report", metavar="REPORT", help="file that --switch-report wrote, or report merge")
    parser.add_argument("--out", required=True, metavar="PAGE", help="HTML file to write")
    parser.add_argument(
        "--results",
        nargs="+",
        metavar="FILE",
        help="generate-test.txt of the run (all shards'): sources, outputs and references at once",
    )
    parser.add_argument("--source", metavar="FILE", help="sources, as text or as fairseq-preprocess read them")
    parser.add_argument("--hypotheses", metavar="FILE", help="outputs")
    parser.add_argument("--references", metavar="FILE", help="references")
    parser.add_argument("--title", help="of the page (default: the report's name)")
    parser.add_argument("--bpe", metavar="NAME", help="of the data, with its options as fairseq has them")
    chosen = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    chosen.add_argument("--bpe")
    name = chosen.parse_known_args(words)[0].bpe
    if name is not None:
        add_bpe_options(parser, name)
    parser.set_defaults(run=run)


def run(args: Namespace) -> None:
    """Read the report and the texts, build the page, write it, say its name.

    Raises:
        UserError: a mistake in the options or the files; no file is written then.
    """
    check_writable("--out", args.out)
    report = read_report(args.report)
    check_entries(args.report, report)
    for path in (args.report, *(args.results or ()), *(getattr(args, option) for option in KINDS)):
        if path is not None and os.path.exists(args.out) and os.path.exists(path) and os.path.samefile(path, args.out):
            raise UserError(f"--out {args.out} is one of the files to read: name another")
    entries, about = report["per_input"], report.get("run", {})
    texts = read_texts(args, args.report, entries, about, build_bpe(args))
    notes = [texts.note] if texts.note else []
    if not (texts.sources or texts.hypotheses):
        notes.append("No texts were given: --results generate-test.txt adds sources, outputs and references.")
    rule = SourceRule.of(about)
    views = [
        input_view(
            entry, *(kind.get(entry["id"]) for kind in (texts.sources, texts.hypotheses, texts.references)), rule=rule
        )
        for entry in entries
    ]
    write_text(args.out, build_page(report, views, args.title or os.path.basename(args.report), notes))
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    print(f"wrote {args.out}: {len(views):,} inputs, {os.path.getsize(args.out):,} bytes")


def check_entries(path: str, report: dict[str, Any]) -> None:
    """Refuse a report without what the page shows.

    Raises:
        UserError: naming the file.
    """
    entries = report["per_input"]
    whole = all(type(entry.get(name)) is int for entry in entries for name in WHOLE)
    numbers = all(isinstance(entry.get(name), (int, float)) for entry in entries for name in NUMBERS)
    numbers = numbers and all(math.isfinite(entry[name]) for entry in entries for name in NUMBERS)
    known = whole and all(0 <= entry["token_strategy"] < NUM_TOKEN_STRATEGIES for entry in entries)
    if not (known and numbers and isinstance(report.get("run", {}), dict)):
        raise UserError(f"{path} is no file that --switch-report wrote")
    if len({entry["id"] for entry in entries}) < len(entries):
        raise UserError(f"{path} holds an input twice: make it again, of shards with report merge")


def add_bpe_options(parser: argparse.ArgumentParser, name: str) -> None:
    """Add a BPE's own options.

    Raises:
        UserError: there is none of this name.
    """
    if name not in encoders.BPE_REGISTRY:
        raise UserError(f"--bpe {name} is unknown; choose from {', '.join(sorted(encoders.BPE_REGISTRY))}")
    options = getattr(encoders.BPE_REGISTRY[name], "__dataclass", None)
    if options is not None:
        gen_parser_from_dataclass(parser, options())


def build_bpe(args: Namespace) -> Any:
    """fairseq's BPE, or None.

    Raises:
        UserError: a file of it is missing, or a package.
    """
    if args.bpe is None:
        return None
    try:
        return encoders.build_bpe(args)
    except (OSError, ImportError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"--bpe {args.bpe} cannot be set up: {error}") from None
