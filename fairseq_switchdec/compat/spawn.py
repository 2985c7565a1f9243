"""All versions: a process that fairseq spawns for a GPU has the fixes too, where no ``.pth`` file brings them.

Such a process starts by unpickling what it has to run, ``fairseq.distributed.utils.distributed_main``, and so by
importing fairseq. Here it unpickles a function of this module instead, whose import turns the fixes on first.
"""

from __future__ import annotations

from types import ModuleType

from fairseq_switchdec.compat import install
from fairseq_switchdec.compat.imports import ImportHooks

_stock_distributed_main = None


def register(hooks: ImportHooks) -> None:
    """Mend ``fairseq.distributed.utils.distributed_main``."""
    hooks.after("fairseq.distributed.utils", _mend)


def _mend(utils: ModuleType) -> None:
    global _stock_distributed_main
    _stock_distributed_main = utils.distributed_main
    utils.distributed_main = distributed_main


def distributed_main(*args, **kwargs):
    """fairseq's own, importable in a new process."""
    import fairseq.distributed.utils  # noqa: F401  (a new process has not yet: this runs _mend)

    return _stock_distributed_main(*args, **kwargs)


install()
