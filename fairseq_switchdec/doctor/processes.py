"""Other processes that try what may end the one it is tried in: imports, and the start of fairseq's own commands."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import NamedTuple

#: Seconds after which a process is taken for one that hangs.
PATIENCE = 300

#: Imports modules as this process would, with the fixes, and answers with a line for each: its file and its error.
IMPORTS = """
import importlib, json, os, sys
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
path, *names = json.loads(sys.argv[1])
sys.path[:] = path
try:
    from fairseq_switchdec.compat import install
    install()
except Exception:
    pass
for name in names:
    file = error = None
    try:
        file = getattr(importlib.import_module(name), "__file__", None)
    except BaseException as problem:
        error = " ".join(f"{type(problem).__name__}: {problem}".split())[:300]
    print(json.dumps([file, error]), file=answers, flush=True)
"""

#: Starts as fairseq-train does, with nothing but what the start of Python brings.
STOCK_START = """
import argparse, sys
print("fairseq_switchdec.compat.startup" in sys.modules, flush=True)
import fairseq_cli.train
from fairseq.tasks import TASK_REGISTRY
from fairseq.utils import import_user_module
import_user_module(argparse.Namespace(user_dir="fairseq_switchdec"))
TASK_REGISTRY["switchable_task"]
"""


class Imported(NamedTuple):
    """How the import of a module went.

    Attributes:
        file: the module's, where it has one.
        error: why it failed, or None.
    """

    file: str | None
    error: str | None


class Started(NamedTuple):
    """How the start of a stock command went.

    Attributes:
        fixes: whether Python's start has read the ``.pth`` file.
        error: why it failed, or None.
    """

    fixes: bool
    error: str | None


def import_all(names: Sequence[str]) -> dict[str, Imported]:
    """Import modules one after the other in one process; in a further one, where a module ends it."""
    found: dict[str, Imported] = {}
    left = list(names)
    while left:
        output, error = run(IMPORTS, json.dumps([sys.path, *left]))
        answers = [Imported(*json.loads(line)) for line in output.splitlines()]
        found.update(zip(left, answers))
        del left[: len(answers)]
        if left:
            found[left.pop(0)] = Imported(None, error or "the process ended")
    return found


def start_stock() -> Started:
    """What ``fairseq-train --user-dir fairseq_switchdec`` does first, in an empty folder."""
    with tempfile.TemporaryDirectory() as folder:
        output, error = run(STOCK_START, folder=folder)
    return Started(output.startswith("True"), error)


def run(program: str, *arguments: str, folder: str | None = None) -> tuple[str, str | None]:
    """A program's standard output, and why it failed, or None where it did not."""
    command = [sys.executable, "-c", program, *arguments]
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        try:
            status = subprocess.run(
                command, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=errors, timeout=PATIENCE
            ).returncode
            reason = f"killed: {signal.strsignal(-status)}" if status < 0 else f"exit status {status}"
        except subprocess.TimeoutExpired:
            status, reason = -signal.SIGKILL, f"no end within {PATIENCE} seconds"
        output.seek(0)
        errors.seek(0)
        last = errors.read().decode(errors="replace").strip().splitlines()[-1:]
        said = reason if status < 0 else (last or [reason])[0]
        return output.read().decode(errors="replace"), said if status else None
