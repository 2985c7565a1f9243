"""The worker processes, as the benchmark sees them: one for each lane, so that each has a peak memory of its own."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..common.repository import environment, example
from ..common.stages import terminable
from .setup import Lane, Setup

PATIENCE = 5.0  # seconds that a process gets to end by itself


class WorkerDied(Exception):
    """A worker ended, or said why it cannot go on."""


class Worker:
    """A running `worker`.

    Args:
        setup: its orders.
        log: file for what its libraries print.
    """

    def __init__(self, setup: Setup, log: Path):
        self.log = log
        with log.open("w", encoding="utf-8") as stderr:
            self.process = subprocess.Popen(
                [*example("benchmark.worker"), setup.to_json()],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env=environment(OMP_NUM_THREADS=str(setup.threads), TOKENIZERS_PARALLELISM="false"),
            )

    def reply(self) -> dict[str, Any]:
        """The next line it says.

        Raises:
            WorkerDied: it has ended, or reports an error.
        """
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            status = self.process.wait()
            raise WorkerDied(f"its process ended with status {status}; see {self.log}")
        content = json.loads(line)
        if "error" in content:
            raise WorkerDied(content["error"])
        return content

    def ask(self, do: str, **request: Any) -> dict[str, Any]:
        """A request and its reply.

        Raises:
            WorkerDied: see `reply`.
        """
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended: what it said last tells why
            print(json.dumps({"do": do, **request}), file=self.process.stdin, flush=True)
        return self.reply()

    def end(self) -> None:
        """End it, whatever it does."""
        self.process.terminate()
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            with suppress(BrokenPipeError):
                if stream is not None:
                    stream.close()


class Workers:
    """All workers of a run; one that fails is left out, and the others go on. Leaving the ``with`` ends them all.

    Args:
        logs: folder for their logs.

    Attributes:
        left_out: why, of lanes that cannot be had.
    """

    def __init__(self, logs: Path):
        self.logs = logs
        self.running: dict[Lane, Worker] = {}
        self.left_out: dict[Lane, str] = {}
        logs.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *error: object) -> None:
        for worker in self.running.values():
            worker.process.terminate()  # all at once, then wait for each
        for worker in self.running.values():
            worker.end()

    def start(self, lane: Lane, setup: Setup) -> bool:
        """Start a worker and wait until it has loaded its model; whether it has."""
        worker = self.running[lane] = Worker(setup, self.logs / f"{lane.system}-{lane.precision}.log")
        return self._attempt(lane, worker.reply) is not None

    def ask(self, lane: Lane, do: str, **request: Any) -> dict[str, Any] | None:
        """A request to a worker, and its reply; None when it has just died or had before."""
        if lane not in self.running:
            return None
        return self._attempt(lane, lambda: self.running[lane].ask(do, **request))

    def _attempt(self, lane: Lane, call: Any) -> dict[str, Any] | None:
        try:
            return call()
        except WorkerDied as error:
            self.leave_out(lane, str(error))
            return None

    def leave_out(self, lane: Lane, why: str) -> None:
        """Go on without a lane."""
        print(f"{lane} is left out: {why}", flush=True)
        self.left_out[lane] = why
        if lane in self.running:
            self.running.pop(lane).end()


@contextmanager
def scratch(out: Path) -> Iterator[str]:
    """A folder for weights that goes when the run ends, also where it is terminated."""
    with terminable(), tempfile.TemporaryDirectory(dir=out, prefix=".weights-") as folder:
        yield folder


def prepare(setup: Setup, log: Path) -> None:
    """Make the weights, in a process that ends with it.

    Raises:
        SystemExit: with the end of what it printed.
    """
    with log.open("w", encoding="utf-8") as output:
        command = [*example("benchmark.weights"), setup.to_json()]
        status = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, env=environment()).returncode
    if status:
        raise SystemExit(f"{log.read_text(encoding='utf-8')[-2000:]}\nthe weights could not be made: see {log}")
