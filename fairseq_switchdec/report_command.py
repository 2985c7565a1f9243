"""``python -m fairseq_switchdec report merge|html ...``: what to do with files of ``--switch-report``."""

from __future__ import annotations

import argparse
import sys

from .generation import merge
from .pictures.page import command as html


def get_parser(words: list[str]) -> argparse.ArgumentParser:
    """The options of a command line, whose ``words`` may name a BPE that has options of its own."""
    parser = argparse.ArgumentParser(description="Work with the files that --switch-report writes.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="merge|html")
    merge.add_parser(commands)
    html.add_parser(commands, words)
    return parser


def cli_main() -> None:
    """Read the options and do what they ask for.

    Raises:
        UserError: a mistake in them or in the files, before anything is written.
    """
    words = sys.argv[1:]
    args = get_parser(words).parse_args(words)
    args.run(args)
