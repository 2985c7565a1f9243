"""Result files: refused early where they cannot be written, and written whole or not at all."""

from __future__ import annotations

import os
import re
import tempfile

from .errors import UserError


def named_file(word: str) -> tuple[str | None, str]:
    """The name, if there is one, and the path in a command line's ``[NAME=]FILE``."""
    found = re.fullmatch(r"([^=/]+)=(.+)", word)
    return (found[1], found[2]) if found else (None, word)


def check_writable(flag: str, path: str) -> None:
    """Refuse a path that no file could be written to, or that is something else than a file (a device, say).

    Args:
        flag: the option that names it.

    Raises:
        UserError: naming the flag.
    """
    try:
        if os.path.exists(path) and not os.path.isfile(path):
            raise OSError(None, "it is no file")
        with tempfile.TemporaryFile(dir=os.path.dirname(path) or "."):
            pass
    except OSError as error:
        raise UserError(f"{flag} {path} cannot be written: {error.strerror}") from None


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write to a temporary name, then rename: an old file stays until the new one is there."""
    path = os.path.realpath(path)  # a link stays one
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)
