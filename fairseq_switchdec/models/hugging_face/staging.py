"""Files of a folder that appear when all of them are complete, or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from ...errors import UserError


@contextlib.contextmanager
def staged(command: str, folder: Path, names: tuple[str, ...], size: int) -> Iterator[dict[str, Path]]:
    """Temporary paths in a folder, by the names they get where the block ends without an error; else they are removed.

    Args:
        command: for messages.
        folder: made if it is not there, and removed again if nothing was written.
        names: those that nothing was written to are left out. The last one appears last.
        size: bytes that will be needed, for the most part.

    Raises:
        UserError: the folder or one of the files cannot be written.
    """
    made = [above for above in (folder, *folder.parents) if not above.exists()]
    paths = {name: folder / f".{name}.{os.getpid()}.partial" for name in names}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
        if free < size:
            raise OSError(None, f"{size:,} bytes are needed, {free:,} are free")
        yield paths
        placed: list[Path] = []
        try:
            for name, path in paths.items():
                if path.exists():
                    path.replace(folder / name)
                    placed.append(folder / name)
        except OSError:
            for path in placed:
                path.unlink()
            raise
        made = []
    except OSError as error:
        raise UserError(
            f"{command}: {folder} cannot be written: {error.strerror or error}. Name a folder on another disk"
        ) from error
    finally:
        for path in paths.values():
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # someone else's files are in it
            for above in made:
                above.rmdir()


@contextlib.contextmanager
def reachable(command: str) -> Iterator[None]:
    """What the system says of a file that cannot be reached, as a message.

    Raises:
        UserError: naming the file.
    """
    try:
        yield
    except OSError as error:
        problem = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        raise UserError(f"{command}: {problem}. Name another file or folder") from error


def check_free(command: str, folder: Path, names: tuple[str, ...]) -> None:
    """Refuse a folder that cannot be written, or that has one of the files.

    Raises:
        UserError: naming what to do.
    """
    taken = next((folder / name for name in names if (folder / name).exists()), None)
    if taken is not None:
        raise UserError(f"{command}: {taken} exists already: name another folder, or remove it first")
    above = folder
    while not above.exists() and above != above.parent:
        above = above.parent
    if not (above.is_dir() and os.access(above, os.W_OK | os.X_OK)):
        raise UserError(f"{command}: {above} is no folder that can be written to: name another one")
