"""Where the examples lie: their modules as commands, the processes that find them, the commit they are of."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def example(name: str) -> list[str]:
    """The command that runs ``examples.NAME``; what comes after it is its arguments."""
    return [sys.executable, "-m", f"examples.{name}"]


def source(name: str) -> Path:
    """The file of the module ``examples.NAME``."""
    return ROOT.joinpath("examples", *name.split(".")).with_suffix(".py")


def environment(**more: str) -> dict[str, str]:
    """The variables of a process that runs an example: this repository comes first, whatever else is called examples.

    Args:
        more: others, which count more than the present ones.
    """
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **more}


def commit() -> str:
    """The commit this is, marked where files differ from it; for code outside a repository, ``unknown``."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(ROOT), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD") + (" with changes" if git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
