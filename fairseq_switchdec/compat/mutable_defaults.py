"""Python >= 3.11: lets the config dataclasses of fairseq 0.12 and hydra 1.0 be default values.

Both write ``common: CommonConfig = CommonConfig()``. Since 3.11 ``dataclasses`` refuses a default whose class has no
hash ("mutable default ... use default_factory"), and an ordinary dataclass has none. While a module of theirs is
executed, ``@dataclass`` gives the classes defined in that package one.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from fairseq_switchdec.compat.imports import ImportHooks

_stock_dataclass = dataclasses.dataclass
_packages: set[str] = set()
_depth = 0  # modules of these packages being executed: importing one imports others


def register(hooks: ImportHooks, package: str) -> None:
    """Mend the dataclasses of ``package`` where Python needs it."""
    if sys.version_info >= (3, 11):
        _packages.add(package)
        hooks.around(package, _hashable_dataclasses)


@functools.wraps(_stock_dataclass)
def _dataclass(cls=None, /, **options):
    if cls is None:
        return functools.partial(_dataclass, **options)
    if cls.__module__.partition(".")[0] in _packages and "__hash__" not in vars(cls):
        options["unsafe_hash"] = True
    return _stock_dataclass(cls, **options)


@contextmanager
def _hashable_dataclasses() -> Iterator[None]:
    global _depth
    _depth += 1
    dataclasses.dataclass = _dataclass
    try:
        yield
    finally:
        _depth -= 1
        if _depth == 0:
            dataclasses.dataclass = _stock_dataclass
