"""Freed memory is kept for the next tensor, instead of going back to the system and coming anew page by page."""

from __future__ import annotations

import ctypes
import os
import sys

#: glibc's ``mallopt`` options, and the environment's way to set them, which is left to have its way.
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
VARIABLES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES", "LD_PRELOAD")
#: Bytes. The first is the most that mallopt can say, the second the most that older releases of glibc take.
LARGE, LARGEST_BEFORE = (1 << 31) - 1, 32 << 20


def keep_freed_memory() -> bool:
    """Ask glibc, for the whole process, to keep what is freed; whether it does.

    A layer's hidden states are some 16 MB. glibc gives blocks of that size back when they are freed, and the system
    clears every page of the next one: a quarter of the time of an int8 encoder. Peak memory stays what it is; between
    two batches the process holds on to it. What loading has left in pieces is given back first.
    """
    if sys.platform != "linux" or any(name in os.environ for name in VARIABLES):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None or "CS_GNU_LIBC_VERSION" not in os.confstr_names:
        return False
    ctypes.CDLL(None).malloc_trim(0)
    kept = mallopt(MMAP_THRESHOLD, LARGE) or mallopt(MMAP_THRESHOLD, LARGEST_BEFORE)
    return bool(kept and mallopt(TRIM_THRESHOLD, LARGE))
