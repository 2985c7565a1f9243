"""All versions: a fairseq command begins its work about a second sooner.

omegaconf 2.0 copies a node together with its parent, and so the whole tree above it: hundreds of times while hydra puts
the config of a command together, which takes most of the seconds before anything is said. Later omegaconf leaves the
parent out, as is done here, where fairseq makes a config and nowhere else.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from fairseq_switchdec.compat.imports import ImportHooks


def register(hooks: ImportHooks) -> None:
    """Mend ``fairseq.dataclass.utils.convert_namespace_to_omegaconf``."""
    hooks.after("fairseq.dataclass.utils", _mend)


def _mend(utils: ModuleType) -> None:
    stock = utils.convert_namespace_to_omegaconf

    @functools.wraps(stock)
    def convert_namespace_to_omegaconf(args):
        """fairseq's own."""
        with copies_without_parents():
            return stock(args)

    utils.convert_namespace_to_omegaconf = convert_namespace_to_omegaconf


@contextmanager
def copies_without_parents() -> Iterator[None]:
    """A copy of a node has the node's own parent, until it is given another one."""
    from omegaconf import DictConfig, ListConfig
    from omegaconf.nodes import ValueNode

    kinds = [DictConfig, ListConfig, ValueNode, *ValueNode.__subclasses__()]
    stock = {kind: vars(kind)["__deepcopy__"] for kind in kinds if "__deepcopy__" in vars(kind)}
    for kind, copies in stock.items():
        kind.__deepcopy__ = _keeping_parent(copies)
    try:
        yield
    finally:
        for kind, copies in stock.items():
            kind.__deepcopy__ = copies


def _keeping_parent(copies):
    def __deepcopy__(self, memo=None):
        memo = {} if memo is None else memo
        parent = self.__dict__.get("_parent")
        if parent is not None:
            memo.setdefault(id(parent), parent)  # "copied already"
        return copies(self, memo)

    return __deepcopy__
