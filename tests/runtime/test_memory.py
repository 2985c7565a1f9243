"""Memory that is freed stays with the process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fairseq_switchdec.runtime.memory import VARIABLES

PROGRAM = """
import resource
import torch
from fairseq_switchdec.runtime.memory import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        [torch.ones(7 << 20) for _ in range(4)]  # of 28 MB: together more than glibc keeps by itself
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
print(keep_freed_memory(), (faults(), faults())[1])
"""


def run(**environment: str) -> list[str]:
    clean = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**clean, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2]), **environment},
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return done.stdout.split()


@pytest.mark.skipif("CS_GNU_LIBC_VERSION" not in getattr(os, "confstr_names", ()), reason="not glibc")
def test_freed_memory_is_used_again():
    kept, faults = run()
    assert kept == "True"
    assert int(faults) < 100  # without it 500,000 in most runs


def test_what_the_user_has_set_is_left_alone():
    assert run(MALLOC_TRIM_THRESHOLD_="1000000")[0] == "False"
