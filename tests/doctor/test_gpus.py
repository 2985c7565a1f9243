"""GPUs that torch was built for, and those that it was not; none of them need be here."""

from __future__ import annotations

import pytest
import torch

from fairseq_switchdec.doctor import gpu
from fairseq_switchdec.doctor.findings import BROKEN, NOTE, OK

CUDA_13 = "sm_75 sm_80 sm_86 sm_90 sm_100 sm_120".split()
V100, H100, B300 = (7, 0), (9, 0), (10, 3)


@pytest.mark.parametrize(
    ("capability", "built", "runs"),
    [
        (V100, CUDA_13, False),
        (V100, ["sm_70", *CUDA_13], True),
        (H100, CUDA_13, True),
        ((8, 9), CUDA_13, True),  # machine code for 8.6
        ((8, 0), ["sm_86"], False),
        (B300, CUDA_13, True),
        (B300, ["sm_80", "sm_90"], False),
        (B300, ["sm_80", "compute_90"], True),
        (V100, ["compute_90"], False),
        (H100, ["sm_90a"], True),
        (B300, ["sm_100a"], False),
        ((12, 0), ["sm_90", "sm_120"], True),
        (H100, ["gfx90a", "gfx942"], True),
    ],
)
def test_what_runs_on_a_gpu(capability, built, runs):
    assert gpu.runs(capability, built) == runs


@pytest.fixture
def machine(monkeypatch):
    """A machine with one GPU, as torch sees it; the test says which."""

    def describe(capability: tuple[int, int], built: list[str]) -> None:
        known = {
            **{"is_available": True, "device_count": 1, "get_device_name": "Some GPU"},
            **{"get_device_capability": capability, "get_arch_list": built},
        }
        for name, value in known.items():
            monkeypatch.setattr(torch.cuda, name, lambda *_, value=value: value)

    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(gpu, "compute", lambda index: None)
    return describe


def test_a_gpu_that_works(machine):
    machine(H100, CUDA_13)
    (found,) = gpu.gpus()
    assert found.status == OK and "capability 9.0" in found.text


def test_a_v100_with_cuda_13(machine):
    machine(V100, CUDA_13)
    (found,) = gpu.gpus()
    assert found.status == BROKEN and "torch==2.7.*" in found.remedy


def test_a_gpu_that_is_too_new(machine):
    machine((12, 0), ["sm_80", "sm_90"])
    (found,) = gpu.gpus()
    assert found.status == BROKEN and "newer torch" in found.remedy


def test_a_gpu_that_does_not_compute(machine, monkeypatch):
    def fail(index):
        raise RuntimeError("CUDA error: uncorrectable ECC error encountered")

    machine(H100, CUDA_13)
    monkeypatch.setattr(gpu, "compute", fail)
    (found,) = gpu.gpus()
    assert found.status == BROKEN and "ECC" in found.text


@pytest.mark.parametrize(
    ("build", "driver", "hidden", "status", "said"),
    [
        (None, False, None, OK, "none"),
        (None, True, None, NOTE, "built for CUDA"),
        ("13.0", False, None, OK, "none"),
        ("13.0", True, None, BROKEN, "driver on your system is too old"),
        ("13.0", True, "", NOTE, "CUDA_VISIBLE_DEVICES"),
    ],
)
def test_no_gpu(monkeypatch, tmp_path, build, driver, hidden, status, said):
    def fail():
        raise RuntimeError("The NVIDIA driver on your system is too old (found version 11040)")

    (tmp_path / "driver").touch()
    monkeypatch.setattr(torch.version, "cuda", build)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "init", fail)
    monkeypatch.setattr(gpu, "DRIVER", (str(tmp_path / ("driver" if driver else "none")),))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if hidden is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    (found,) = gpu.gpus()
    assert found.status == status and said in f"{found.text} {found.remedy}"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_the_gpu_that_is_here():
    assert {found.status for found in gpu.gpus()} == {OK}
