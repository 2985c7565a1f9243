"""All versions: ``--user-dir fairseq_switchdec`` registers tasks and models although the package is imported already.

fairseq takes a ``--user-dir`` package that it finds among the imported modules as read, tasks and models included, and
one that lies elsewhere than the imported one as a clash of names. ``fairseq_switchdec`` is always imported by then: by
the ``.pth`` file or as ``python -m fairseq_switchdec``, and of it only this compatibility layer.
"""

from __future__ import annotations

import functools
import os
import sys
from types import ModuleType

from fairseq_switchdec.compat.imports import ImportHooks

PACKAGE = "fairseq_switchdec"
PACKAGE_DIR = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def register(hooks: ImportHooks) -> None:
    """Mend ``fairseq.utils.import_user_module``."""
    hooks.after("fairseq.utils", _mend)


def _mend(utils: ModuleType) -> None:
    stock = utils.import_user_module

    @functools.wraps(stock)
    def import_user_module(args):
        user_dir = getattr(args, "user_dir", None)
        if user_dir is not None:
            path = os.path.abspath(user_dir)
            if not os.path.exists(path) and user_dir == PACKAGE:
                path = PACKAGE_DIR  # the installed package, also where an editable install keeps it
            if os.path.isdir(path) and os.path.samefile(path, PACKAGE_DIR):
                register_tasks_and_models()
                return
            if os.path.basename(path) == PACKAGE and f"{PACKAGE}.tasks" not in sys.modules:
                _forget_package()  # the user names another copy, such as a checkout: that one counts
        stock(args)

    utils.import_user_module = import_user_module


def register_tasks_and_models() -> None:
    """What ``--user-dir fairseq_switchdec`` does, for programs that are not fairseq's commands."""
    from fairseq.models import import_models
    from fairseq.tasks import import_tasks

    for folder, import_folder in (("tasks", import_tasks), ("models", import_models)):
        path = os.path.join(PACKAGE_DIR, folder)
        if os.path.isdir(path):
            import_folder(path, f"{PACKAGE}.{folder}")


def _forget_package() -> None:
    # All but this compatibility layer, which is at work.
    for name in list(sys.modules):
        if name.partition(".")[0] == PACKAGE and not name.startswith(f"{PACKAGE}.compat"):
            del sys.modules[name]
