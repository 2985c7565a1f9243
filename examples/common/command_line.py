"""The parser that every example begins with, and what those that run in stages share of their options."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

from fairseq_switchdec.errors import UserError

from .stages import forget


def command_line(description: str | None, module: str) -> argparse.ArgumentParser:
    """A parser without options, which names the program as users call it.

    Args:
        description: the module's docstring; its drawings and examples are shown as they are.
        module: its name, ``__spec__.name`` (``__name__`` is ``__main__``).
    """
    return argparse.ArgumentParser(
        prog=f"python -m {module.removesuffix('.__main__')}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_settings(parser: argparse.ArgumentParser, settings: Any, help: dict[str, str], out: Path) -> None:
    """An option for every field of a dataclass; the output folder, and the wish to start over.

    Args:
        settings: the class.
        help: of its fields, as far as their names do not say it.
        out: the default output folder.
    """
    parser.add_argument("--out", type=Path, default=out, help="output folder")
    parser.add_argument("--fresh", action="store_true", help="start over: delete what an earlier run made there")
    for item in fields(settings):
        flag, kind = "--" + item.name.replace("_", "-"), type(item.default)
        if kind is bool:
            parser.add_argument(flag, action="store_true", help=help.get(item.name))
            continue
        parser.add_argument(flag, type=kind, default=item.default, help=help.get(item.name, "") + " (%(default)s)")


def read_settings(args: argparse.Namespace, settings: Any) -> Any:
    """The dataclass that the options describe."""
    return settings(**{item.name: getattr(args, item.name) for item in fields(settings)})


def check_args(args: argparse.Namespace, paths: tuple[str, ...], counts: tuple[str, ...]) -> None:
    """Make paths absolute, for the stages run elsewhere.

    Args:
        paths: names of options that are paths or None.
        counts: names of options that must be 1 or more.

    Raises:
        UserError: naming the flag.
    """
    for name in paths:
        if getattr(args, name) is not None:
            setattr(args, name, getattr(args, name).resolve())
    for name in counts:
        if getattr(args, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} {getattr(args, name)} must be 1 or more")


def run_stages(name: str, args: argparse.Namespace, run: Callable[[], None], made: tuple[str, ...]) -> None:
    """Run an example's stages, from the start if so asked; an interruption ends in one line.

    Args:
        name: of the example.
        made: folders that it makes in its output folder.
    """
    try:
        if args.fresh:
            forget(args.out, made)
        run()
    except KeyboardInterrupt:
        sys.exit(f"\n{name}: interrupted; the same command goes on from the last finished stage")
