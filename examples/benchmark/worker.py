"""A worker process: one system at one precision, or one side of the training benchmark.

    python -m examples.benchmark.worker SETUP        (SETUP: `setup.Setup` as JSON; `processes.Worker` calls this)

One JSON object a line: requests on stdin, replies on stdout; what libraries print goes to stderr. It ends when stdin
does.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from typing import Any

import numpy as np

from .measure import peak_bytes, reset_peak
from .setup import Setup, batches, check_case, check_file
from .systems.interface import Timing, load


class Generation:
    """Answers what the generation benchmark asks."""

    def __init__(self, setup: Setup):
        self.setup = setup
        self.system = load(setup)

    def answer(self, do: str, **request: Any) -> dict[str, Any]:
        """One reply to one request."""
        return getattr(self, do)(**request)

    def check(self) -> dict[str, Any]:
        """Leave what this system computes for the check in its file."""
        path = check_file(self.setup)
        np.save(path, self.system.check(*check_case(self.setup)))
        return {"file": str(path)}

    def generate(
        self, batch: int, beam: int, decisions: list[Any] | None = None, memory: bool = False
    ) -> dict[str, Any]:
        """Time one generation, or measure its memory: seconds are then not to be used, since memory is fetched anew."""
        if memory:
            reset_peak(self.setup.device)
        timing = self.run(batch, beam, decisions)
        if memory:
            return {"peak": peak_bytes(self.setup.device)}
        return {"encoder": timing.encoder, "total": timing.total}

    def bookkeeping(self, batch: int, beam: int) -> dict[str, Any]:
        """Time what deciding costs in one generation on the policy's own decisions."""
        from . import bookkeeping

        with bookkeeping.measured() as parts:
            timing = self.run(batch, beam, None)
        return {"parts": parts, "total": timing.total}

    def run(self, batch: int, beam: int, decisions: list[Any] | None) -> Timing:
        """Generate for all of a case, batch by batch; inputs take the decisions in turn."""
        total = Timing(0.0, 0.0)
        for source in batches(self.setup, batch):
            chosen = None if decisions is None else decisions[: len(source)]
            total += self.system.generate(source, beam, chosen)
        return total


def main() -> None:
    """Answers requests until there are none."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the benchmark ends its workers
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def reply(content: dict[str, Any]) -> None:
        print(json.dumps(content), file=replies, flush=True)

    setup = Setup.from_json(sys.argv[1])
    if setup.system.startswith("training"):
        from .training_worker import Training as Worker
    else:
        Worker = Generation  # type: ignore[misc, assignment]
    try:
        worker = Worker(setup)
        if (torch := sys.modules.get("torch")) is not None:
            torch.set_num_threads(setup.threads)
        reset_peak(setup.device)
        reply({"ready": True})
        for line in sys.stdin:
            reply(worker.answer(**json.loads(line)))
    except (Exception, SystemExit) as error:  # a UserError is the latter
        traceback.print_exc()
        reply({"error": f"{type(error).__name__}: {error}" if str(error) else type(error).__name__})
        sys.exit(1)


if __name__ == "__main__":
    main()
