"""What the processor and the memory allow."""

from __future__ import annotations

import os

from ..errors import UserError
from .findings import NOTE, OK, Finding

#: /proc/cpuinfo's words for what --switch-precision and --amp gain from.
FEATURES = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "avx512_vnni", "avx_vnni")


def processor() -> list[Finding]:
    """Its name, and what it has of `FEATURES`."""
    import torch

    from ..seconds import machine

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    having = [feature for feature in FEATURES if feature in flags()] or ["none of " + ", ".join(FEATURES)]
    return [Finding("processor", OK, f"{machine(torch.device('cpu'))}; {cores} cores; {' '.join(having)}")]


def flags() -> set[str]:
    """Of the processor, where the system tells them."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return {word for line in file if line.startswith("flags") for word in line.split()}
    except OSError:  # not Linux
        return set()


def precisions() -> list[Finding]:
    """Each ``--switch-precision``, as generation would take or refuse it."""
    import torch

    from ..runtime.packing import PRECISIONS, layout, reduce_range

    findings = []
    for precision in PRECISIONS:
        name = f"--switch-precision {precision}"
        try:
            layout(torch.zeros(1, 1), precision)
        except UserError as error:
            reason, _, instead = str(error).rpartition(": ")
            findings.append(Finding(name, NOTE, reason.partition(f"{name} ")[2] or reason, instead))
            continue
        if precision == "int8" and reduce_range():
            text = "works; without VNNI it gains little beyond a few rows, and a LLaMA loses quality"
            findings.append(Finding(name, NOTE, text, "for a LLaMA take fp32, or a processor with VNNI"))
        elif precision == "bf16" and not {"avx512_bf16", "amx_bf16"} & flags():
            text = "works; this processor has no bfloat16 products of its own"
            findings.append(Finding(name, NOTE, text, "time it beside fp32: python -m fairseq_switchdec calibrate"))
        else:
            findings.append(Finding(name, OK, "works"))
    return findings


def memory() -> list[Finding]:
    """Whether freed memory is kept for the next tensor."""
    from ..runtime.memory import VARIABLES, keep_freed_memory

    if keep_freed_memory():
        return [Finding("memory", OK, "generation on the processor keeps freed memory for the next tensor")]
    given = [name for name in VARIABLES if name in os.environ]
    if given:
        text = f"{given[0]} is set, and decides what becomes of freed memory"
        return [Finding("memory", NOTE, text, f"unset {given[0]} where generation on the processor is slower with it")]
    return [Finding("memory", OK, "freed memory goes where this system's allocator has it: only glibc's can be asked")]
