"""Python >= 3.13: lets hydra 1.0 and the antlr4 4.8 runtime that it requires import ``TextIO`` from ``typing.io``.

Python 3.13 has removed that pseudo-module. It exists again while a module of these two packages is executed.
"""

from __future__ import annotations

import sys
import typing
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from fairseq_switchdec.compat.imports import ImportHooks


def register(hooks: ImportHooks) -> None:
    """Mend the imports of hydra and antlr4 where Python needs it."""
    if sys.version_info >= (3, 13):
        hooks.around("hydra", _typing_io)
        hooks.around("antlr4", _typing_io)


@contextmanager
def _typing_io() -> Iterator[None]:
    outermost = "typing.io" not in sys.modules
    if outermost:
        module = ModuleType("typing.io")
        module.TextIO = typing.TextIO
        sys.modules["typing.io"] = module
    try:
        yield
    finally:
        if outermost:
            del sys.modules["typing.io"]
