"""Acts on modules of fairseq and hydra while, or right after, they are executed; on no other module."""

from __future__ import annotations

import functools
import importlib.metadata
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from types import ModuleType


def installed_version(distribution: str, default: str) -> str:
    """The version of an installed distribution, or ``default`` when it has no metadata."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return default


class ModuleView(ModuleType):
    """A module in which some names stand for something else, to be given to one other module that uses it."""

    def __init__(self, module: ModuleType, **replaced):
        super().__init__(module.__name__)
        self.__dict__.update(replaced, _module=module)

    def __getattr__(self, name: str):
        return getattr(self._module, name)


class ImportHooks:
    """A finder that leaves finding to the others and wraps the execution of the modules it was told about."""

    def __init__(self) -> None:
        self._around: dict[str, list[Callable[[], AbstractContextManager]]] = {}
        self._after: dict[str, list[Callable[[ModuleType], None]]] = {}

    def around(self, root: str, context: Callable[[], AbstractContextManager]) -> None:
        """Execute every module of the top-level package ``root`` inside ``context()``."""
        self._around.setdefault(root, []).append(context)

    def after(self, name: str, fix: Callable[[ModuleType], None]) -> None:
        """Call ``fix(module)`` once the module ``name`` is executed; at once if it is imported already."""
        self._after.setdefault(name, []).append(fix)
        if name in sys.modules:
            fix(sys.modules[name])

    def activate(self) -> None:
        """Take effect on the imports to come."""
        sys.meta_path.insert(0, self)

    def find_spec(self, name, path=None, target=None):
        if name not in self._after and name.partition(".")[0] not in self._around:
            return None
        for finder in sys.meta_path:
            spec = finder.find_spec(name, path, target) if finder is not self else None
            if spec is not None:
                if spec.loader is not None:  # a namespace package has none, and nothing to execute
                    spec.loader.exec_module = functools.partial(self._execute, spec.loader.exec_module)
                return spec
        return None

    def _execute(self, exec_module: Callable[[ModuleType], None], module: ModuleType) -> None:
        with ExitStack() as contexts:
            for context in self._around.get(module.__name__.partition(".")[0], ()):
                contexts.enter_context(context())
            exec_module(module)
        for fix in self._after.get(module.__name__, ()):
            fix(module)
