"""Python >= 3.12: lets hydra 1.0 scan its plugins.

It asks the importers that ``pkgutil.walk_packages`` yields for ``find_module``, which Python 3.12 has removed, and the
loader for ``load_module``, which a later one will remove. It gets importers whose answer is an ordinary import.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Iterator
from types import ModuleType

from fairseq_switchdec.compat.imports import ImportHooks, ModuleView


def register(hooks: ImportHooks) -> None:
    """Mend hydra's plugin scan where Python needs it."""
    if sys.version_info >= (3, 12):
        hooks.after("hydra.core.plugins", _mend)


def _mend(plugins: ModuleType) -> None:
    plugins.pkgutil = ModuleView(pkgutil, walk_packages=_walk_packages)


class _Importer:
    def find_module(self, name: str) -> _Importer:
        return self

    def load_module(self, name: str) -> ModuleType:
        return importlib.import_module(name)


def _walk_packages(*args, **kwargs) -> Iterator[tuple[_Importer, str, bool]]:
    for _, name, is_package in pkgutil.walk_packages(*args, **kwargs):
        yield _Importer(), name, is_package
