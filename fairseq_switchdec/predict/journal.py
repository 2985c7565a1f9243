"""An output that grows window by window and survives being killed.

``OUTPUT.partial`` holds the results so far, ``OUTPUT.report.partial`` the report's entries, ``OUTPUT.journal`` how much
of them is sure. A run that starts over cuts both back to that and goes on; what is there at the end has the same bytes.
While a run is under way it holds a lock on ``OUTPUT.partial``, which the system takes back from a process that died.
"""

from __future__ import annotations

import json
import logging
import os
from dataclasses import asdict, dataclass, field
from typing import IO, Any

from ..errors import UserError
from ..files import write_text

try:
    import fcntl
except ImportError:  # not on this system: two runs of one output are not told apart
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)


@dataclass
class Progress:
    """What is sure.

    Attributes:
        rows, inputs, bad: done so far: rows of the file, inputs of the model, rows that could not be predicted.
        size, report_size: bytes of the two files.
        seconds: of running the model.
        run: what the run is; another one must not go on from here.
    """

    rows: int = 0
    inputs: int = 0
    bad: int = 0
    size: int = 0
    report_size: int = 0
    seconds: float = 0.0
    run: dict[str, Any] = field(default_factory=dict)


class Journal:
    """The growing files of an output.

    Args:
        path: the finished file's.
        run: what the run is, in JSON's types.

    Raises:
        UserError: the output is there already, what is there is of another run, or another process is writing it.
    """

    def __init__(self, path: str, run: dict[str, Any]):
        self.path = os.path.realpath(path)
        self.partial, self.report = f"{self.path}.partial", f"{self.path}.report.partial"
        self.journal = f"{self.path}.journal"
        self.files = [open(self.partial, "ab")]  # noqa: SIM115 (open for the whole run)
        try:
            if not lock(self.files[0], self.partial):
                raise UserError(
                    f"--output {path} is being written by another process: wait for it, or name another file"
                )
            if os.path.exists(self.journal):
                self.progress = self.read(run)
            elif os.path.exists(self.path):
                self.remove(self.partial)  # without its journal it is worth nothing
                raise UserError(f"--output {path} exists already: name another file, or remove it first")
            else:
                self.progress = Progress(run=run)
            self.files.append(open(self.report, "ab"))  # noqa: SIM115
        except BaseException:
            self.close()
            raise
        for file, size in zip(self.files, (self.progress.size, self.progress.report_size)):
            file.truncate(size)
            file.seek(size)

    def read(self, run: dict[str, Any]) -> Progress:
        """What an interrupted run left."""
        try:
            with open(self.journal, encoding="utf-8") as file:
                found = Progress(**json.load(file))
            sizes = [os.path.getsize(name) for name in (self.partial, self.report)]
        except (OSError, ValueError, TypeError) as error:
            raise UserError(f"{self.journal} cannot be used ({error}): remove it to start over") from None
        if sizes[0] < found.size or sizes[1] < found.report_size:
            raise UserError(f"{self.partial} is shorter than it was: remove {self.journal} to start over")
        differing = [name for name in run if found.run.get(name) != run[name]]
        if differing:
            name = differing[0]
            raise UserError(
                f"{self.partial} is of another run: {name} was {found.run.get(name)}, now {run[name]}. Give the same "
                f"options to go on, or remove {self.journal} to start over"
            )
        return found

    def append(self, text: str, report: str, rows: int, inputs: int, bad: int, seconds: float) -> None:
        """Add a window's results; they are sure when this returns."""
        sizes = []
        for file, content in zip(self.files, (text, report)):
            file.write(content.encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())
            sizes.append(file.tell())
        done = self.progress
        self.progress = Progress(
            done.rows + rows, done.inputs + inputs, done.bad + bad, *sizes, done.seconds + seconds, done.run
        )
        write_text(self.journal, json.dumps(asdict(self.progress)))

    def finish(self) -> None:
        """Give the output its name. Killed within, the run starts over, or has its output."""
        self.remove(self.journal, self.report)
        os.replace(self.partial, self.path)
        self.close()

    def discard(self) -> None:
        """Leave nothing behind."""
        self.remove(self.journal, self.report, self.partial)
        self.close()

    def remove(self, *names: str) -> None:
        """Remove files; the lock is held on, but for systems without, where an open file cannot be moved either."""
        if fcntl is None:
            self.close()
        for name in names:
            if os.path.exists(name):  # of no rows there is no journal
                os.unlink(name)

    def close(self) -> None:
        """Close the files."""
        for file in self.files:
            file.close()


def lock(file: IO[bytes], path: str) -> bool:
    """Lock an open file, until it is closed or this process ends; whether that was possible.

    Args:
        path: the file's name; where it names the file no more, another process has just finished with it.
    """
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:  # some network file systems have no locks
        logger.warning("%s cannot be locked (%s): let no other command write it", path, error.strerror)
    return os.path.exists(path) and os.path.samestat(os.stat(path), os.fstat(file.fileno()))
