"""An exit while fairseq reads batches ahead does not abort the process.

fairseq's iterators make the next batches in a daemon thread. Python ends such a thread where it next asks for the
interpreter, and in the middle of a tensor operation that is an abort ("terminate called without an active exception",
status 134), although everything has been saved: at ``--max-update``, or at an error, with batches left to read.
"""

from __future__ import annotations

import atexit
import contextlib
import queue
import threading
import time
from types import ModuleType

from fairseq_switchdec.compat.imports import ImportHooks

#: Seconds that the exit waits for batches that are being made. A source that hangs is left to itself.
PATIENCE = 10.0


def register(hooks: ImportHooks) -> None:
    """Let the threads of ``BufferedIterator`` end before the interpreter does."""
    hooks.after("fairseq.data.iterators", lambda module: atexit.register(_stop, module))


def _stop(module: ModuleType) -> None:
    until = time.monotonic() + PATIENCE
    for thread in threading.enumerate():
        if isinstance(thread, module.BackgroundConsumer):
            thread._max_len = 0  # the batch it is at is its last
            while thread.is_alive() and time.monotonic() < until:
                with contextlib.suppress(queue.Empty):
                    thread._queue.get(timeout=0.01)  # it may be waiting for room
