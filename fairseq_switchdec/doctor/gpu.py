"""Can torch compute on the GPUs of this machine?"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence

from .findings import BROKEN, NOTE, OK, Finding, describe
from .requirements import TORCH, Requirement, installing

#: Says that an NVIDIA driver is at work, whatever torch thinks of it.
DRIVER = ("/proc/driver/nvidia/version", "/dev/nvidia[0-9]*", "/dev/dxg")
#: Built for CUDA 12, and the last that was checked for a V100.
OLDER_TORCH = (Requirement("torch", "==2.7.*"), Requirement("torchaudio", "==2.7.*"))


def gpus() -> list[Finding]:
    """Every GPU, or why there is none."""
    import torch

    driver = any(glob.glob(pattern) for pattern in DRIVER)
    build = "ROCm" if getattr(torch.version, "hip", None) else torch.version.cuda and f"CUDA {torch.version.cuda}"
    if build is None:
        if not driver:
            return [Finding("GPU", OK, "none, and torch is built for processors alone")]
        text = f"there is one, but torch {torch.__version__} is built for processors alone"
        return [Finding("GPU", NOTE, text, "to use it, install a torch that is built for CUDA")]
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden in ("", "-1"):
        return [Finding("GPU", NOTE, f"hidden by CUDA_VISIBLE_DEVICES={hidden}", "unset it to use one")]
    if not torch.cuda.is_available():
        return [unavailable(driver, f"torch {torch.__version__} is built for {build}")]
    return [gpu(index) for index in range(torch.cuda.device_count())]


def unavailable(driver: bool, build: str) -> Finding:
    """Why torch, built for CUDA, finds no GPU."""
    import torch

    if not driver:
        return Finding("GPU", OK, f"none ({build})")
    try:
        torch.cuda.init()
        reason = "torch finds none"
    except Exception as error:
        reason = describe(error)
    wanted = "update NVIDIA's driver, or install a torch that is built for the CUDA which nvidia-smi names"
    return Finding("GPU", BROKEN, f"the driver is there, but {reason} ({build})", wanted)


def gpu(index: int) -> Finding:
    """One GPU."""
    import torch

    name = f"GPU {index}"
    capability, built = torch.cuda.get_device_capability(index), torch.cuda.get_arch_list()
    text = f"{torch.cuda.get_device_name(index)}, compute capability {capability[0]}.{capability[1]}"
    text += f"; torch {torch.__version__} is built for {' '.join(built)}"
    if not runs(capability, built):
        older = capability < min((version for _, version, _ in targets(built)), default=(0, 0))
        wanted = installing(*OLDER_TORCH) if older else installing("--upgrade", TORCH)
        return Finding(name, BROKEN, text, f"take {'an older' if older else 'a newer'} torch: {wanted}")
    try:
        compute(index)
    except Exception as error:
        wanted = "see whether nvidia-smi lists it; restart the machine, or update NVIDIA's driver"
        return Finding(name, BROKEN, f"{text}; {describe(error)}", wanted)
    return Finding(name, OK, text)


def compute(index: int) -> None:
    """Multiply something."""
    import torch

    ones = torch.ones(8, 8, device=f"cuda:{index}")
    torch.testing.assert_close((ones @ ones).sum().item(), 512.0)


def runs(capability: tuple[int, int], built: Sequence[str]) -> bool:
    """Whether a GPU runs what a torch holds: machine code of its own major version and no later minor one, or PTX.

    Args:
        capability: the GPU's.
        built: ``torch.cuda.get_arch_list()``, such as ``["sm_75", "sm_90", "compute_90"]``.
    """
    found = targets(built)
    for kind, version, portable in found:
        if kind == "compute":
            fits = version <= capability
        else:
            fits = version == capability or (portable and version[0] == capability[0] and version[1] < capability[1])
        if fits:
            return True
    return not found  # not built for CUDA


def targets(built: Sequence[str]) -> list[tuple[str, tuple[int, int], bool]]:
    """What a torch is built for: machine code or PTX, the capability, whether others than just this one run it."""
    found = (re.fullmatch(r"(sm|compute)_(\d+)(\d)([a-z]?)", name) for name in built)
    return [(name[1], (int(name[2]), int(name[3])), not name[4]) for name in found if name is not None]
