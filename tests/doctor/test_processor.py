"""What a processor makes of each precision, and who decides about freed memory."""

from __future__ import annotations

import pytest
import torch

from fairseq_switchdec.doctor import processor
from fairseq_switchdec.doctor.findings import NOTE, OK
from fairseq_switchdec.runtime import memory, packing


def test_processor(monkeypatch):
    monkeypatch.setattr(processor, "flags", lambda: {"avx2", "amx_bf16", "fpu"})
    (found,) = processor.processor()
    assert found.text.endswith("cores; avx2 amx_bf16") and f"torch {torch.__version__[:3]}" in found.text
    monkeypatch.setattr(processor, "flags", set)
    assert "none of avx2" in processor.processor()[0].text


@pytest.mark.parametrize(
    ("products", "features", "reduced", "statuses", "said"),
    [
        (True, {"avx512_bf16"}, False, [OK, OK, OK], ""),
        (True, {"avx512f"}, False, [OK, NOTE, OK], "time it beside fp32"),
        (False, set(), True, [OK, NOTE, NOTE], "use fp32 or int8"),
    ],
)
def test_precisions(monkeypatch, products, features, reduced, statuses, said):
    monkeypatch.setattr(packing, "bf16_products", lambda: products)
    monkeypatch.setattr(packing, "onednn_packs", lambda: products)
    monkeypatch.setattr(packing, "reduce_range", lambda: reduced)
    monkeypatch.setattr(processor, "flags", lambda: features)
    found = processor.precisions()
    assert [item.name for item in found] == [f"--switch-precision {name}" for name in packing.PRECISIONS]
    assert [item.status for item in found] == statuses
    assert said in found[1].remedy and "fairseq_switchdec:" not in str(found)


def test_memory(monkeypatch):
    for name in memory.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(memory, "keep_freed_memory", lambda: False)
    assert processor.memory()[0].status == OK
    monkeypatch.setenv("LD_PRELOAD", "libjemalloc.so")
    (found,) = processor.memory()
    assert found.status == NOTE and "unset LD_PRELOAD" in found.remedy
