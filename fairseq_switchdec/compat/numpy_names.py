"""numpy >= 1.24: names that fairseq still uses and numpy has removed.

Without ``np.compat.long`` the hub interface cannot generate from a BART whose task is denoising, the released
``bart.large`` and ``bart.base`` among them, nor can a translation task put lengths in buckets.
"""

from __future__ import annotations

from types import ModuleType, SimpleNamespace

from fairseq_switchdec.compat.imports import ImportHooks, ModuleView


def register(hooks: ImportHooks) -> None:
    """Mend ``np`` as three modules of fairseq see it."""
    for name in ("data_utils", "language_pair_dataset", "token_block_dataset"):
        hooks.after(f"fairseq.data.{name}", _mend)


def _mend(module: ModuleType) -> None:
    module.np = ModuleView(module.np, int=int, compat=SimpleNamespace(long=int))
