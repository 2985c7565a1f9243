"""A checkpoint's copies appear whole or not at all, as the checkpoint itself does.

fairseq writes a checkpoint to a temporary name and renames it, then copies it to ``checkpoint_best.pt`` and
``checkpoint_last.pt`` in place: killed in the middle of that, it leaves half a ``checkpoint_last.pt``, from which the
next start cannot resume. Here copies are made as the checkpoint is.
"""

from __future__ import annotations

import os
from types import ModuleType

from fairseq_switchdec.compat.imports import ImportHooks


def register(hooks: ImportHooks) -> None:
    """Mend the copies that ``save_checkpoint`` makes."""
    hooks.after("fairseq.checkpoint_utils", _replace_path_manager)


def _replace_path_manager(module: ModuleType) -> None:
    class PathManager(module.PathManager):
        """fairseq's, whose copy of a local file is written to a temporary name, then renamed."""

        @staticmethod
        def copy(src_path: str, dst_path: str, overwrite: bool = False) -> bool:
            if not PathManager.supports_rename(dst_path):
                return bool(super(PathManager, PathManager).copy(src_path, dst_path, overwrite=overwrite))
            temporary = dst_path + ".tmp"
            copied = bool(super(PathManager, PathManager).copy(src_path, temporary, overwrite=True))
            if copied:
                os.replace(temporary, dst_path)
            return copied

    module.PathManager = PathManager
