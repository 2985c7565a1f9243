"""The parser that every example begins with."""

from __future__ import annotations

import argparse


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
