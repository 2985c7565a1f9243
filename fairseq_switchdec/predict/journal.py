"""An output that grows window by window and survives being killed.

``OUTPUT.partial`` holds the results so far, ``OUTPUT.report.partial`` the report's entries, ``OUTPUT.journal`` how much
of them is sure. A run that starts over cuts both back to that and goes on; what is there at the end has the same bytes.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from typing import IO, Any

from ..errors import UserError
from ..files import write_text


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
        UserError: the output is there already, or what is there is of another run.
    """

    def __init__(self, path: str, run: dict[str, Any]):
        self.path = os.path.realpath(path)
        self.partial, self.report = f"{self.path}.partial", f"{self.path}.report.partial"
        self.journal = f"{self.path}.journal"
        self.progress = Progress(run=run)
        if os.path.exists(self.journal):
            self.progress = self.read(run)
        elif os.path.exists(self.path):
            raise UserError(f"--output {path} exists already: name another file, or remove it first")
        self.files = [reopen(self.partial, self.progress.size), reopen(self.report, self.progress.report_size)]

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
        self.close()
        for name in (self.journal, self.report):
            if os.path.exists(name):  # of no rows there is no journal
                os.unlink(name)
        os.replace(self.partial, self.path)

    def discard(self) -> None:
        """Leave nothing behind."""
        self.close()
        for name in (self.journal, self.partial, self.report):
            if os.path.exists(name):
                os.unlink(name)

    def close(self) -> None:
        """Close the files."""
        for file in self.files:
            file.close()


def reopen(path: str, size: int) -> IO[bytes]:
    """A file to append to, cut back to ``size`` bytes."""
    file = open(path, "ab")  # noqa: SIM115 (open for the whole run)
    file.truncate(size)
    file.seek(size)
    return file
