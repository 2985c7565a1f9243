"""All versions: ``--help`` beside ``--arch`` shows the options of the task, model and criterion that are named.

fairseq parses a command line twice, the second time with their options added. The first time shows the help and ends
the command, so that it never lists them: neither those of ``--user-dir fairseq_switchdec`` nor fairseq's own.
"""

from __future__ import annotations

import functools
import sys
from types import ModuleType

from fairseq_switchdec.compat.imports import ImportHooks

HELP = ("-h", "--help")


def register(hooks: ImportHooks) -> None:
    """Mend ``fairseq.options.parse_args_and_arch``."""
    hooks.after("fairseq.options", _mend)


def _mend(options: ModuleType) -> None:
    stock = options.parse_args_and_arch

    @functools.wraps(stock)
    def parse_args_and_arch(parser, input_args=None, *args, **kwargs):
        words = sys.argv[1:] if input_args is None else list(input_args)
        if any(word in HELP for word in words):
            parser.parse_known_args = functools.partial(_parse_first, parser, words)
        return stock(parser, input_args, *args, **kwargs)

    options.parse_args_and_arch = parse_args_and_arch


def _parse_first(parser, words, *args, **kwargs):
    """The first parsing, which shows the help only where no architecture is named whose options could be added."""
    del parser.parse_known_args
    found = parser.parse_known_args([word for word in words if word not in HELP])
    return parser.parse_known_args(words) if getattr(found[0], "arch", "") is None else found
