"""Clocks and peak memory, on the CPU and on a GPU."""

from __future__ import annotations

import ctypes
import sys
import time
from typing import Any


class Stopwatch:
    """Marks moments of a generation. On a GPU the marks are CUDA events, so that the host waits only at the end.

    Args:
        device: ``cpu`` or ``cuda``.
    """

    def __init__(self, device: str):
        self.device = device
        self.marks: dict[str, Any] = {}

    def begin(self) -> None:
        """Forget all marks, and set the first one, ``begin``."""
        self.marks.clear()
        self.mark("begin")

    def mark_once(self, name: str) -> None:
        """`mark`, unless it is set: of what is called in every step, the first time."""
        if name not in self.marks:
            self.mark(name)

    def mark(self, name: str) -> None:
        """This moment, of the work queued so far."""
        if self.device == "cuda":
            import torch

            self.marks[name] = torch.cuda.Event(enable_timing=True)
            self.marks[name].record()
        else:
            self.marks[name] = time.perf_counter()

    def seconds(self, first: str, last: str) -> float:
        """The time between two marks."""
        if self.device == "cuda":
            self.marks[last].synchronize()
            return self.marks[first].elapsed_time(self.marks[last]) / 1000
        return self.marks[last] - self.marks[first]


def reset_peak(device: str) -> None:
    """Forget the peak so far, where the system allows, and give back what the allocator only keeps in reserve."""
    if device == "cuda" and (torch := sys.modules.get("torch")) is not None:
        torch.cuda.reset_peak_memory_stats()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:  # glibc
            trim(0)
        try:
            with open("/proc/self/clear_refs", "w") as file:
                file.write("5")
        except OSError:
            pass


def peak_bytes(device: str) -> int | None:
    """Highest memory since `reset_peak`: of torch's tensors on the GPU (None for CTranslate2, which does not tell), or
    of the process, over its whole life where the peak cannot be reset.
    """
    if device == "cuda":
        torch = sys.modules.get("torch")
        return None if torch is None else torch.cuda.max_memory_allocated()
    try:
        with open("/proc/self/status") as file:
            for line in file:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
