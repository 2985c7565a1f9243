"""Packages that are absent, damaged or of another version, and what is said about them."""

from __future__ import annotations

import importlib.metadata

import numpy
import pytest
import torch

from fairseq_switchdec.doctor.findings import BROKEN, NOTE, OK, Check, Finding, examine
from fairseq_switchdec.doctor.packages import COMPILED, MODULES, compiled, extras, numpy_and_torch, package
from fairseq_switchdec.doctor.processes import Imported
from fairseq_switchdec.doctor.requirements import NEEDED

THERE = Imported("/site/some/__init__.py", None)
VERSIONS = {"torch": "2.13.0+cpu", "fairseq": "0.12.2", "hydra-core": "1.0.7", "omegaconf": "2.0.6"}


@pytest.fixture
def versions(monkeypatch):
    """What pip has installed; all else is of version 99."""
    given = dict(VERSIONS)

    def version(name: str) -> str:
        if given.get(name, "99") is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return given.get(name, "99")

    monkeypatch.setattr(importlib.metadata, "version", version)
    return given


def imports(**errors: str) -> dict[str, Imported]:
    """All modules are there, but these."""
    there = dict.fromkeys((*MODULES, *COMPILED), THERE)
    return {**there, **{name: Imported(None, error) for name, error in errors.items()}}


def needed(imported: dict[str, Imported]) -> list[Finding]:
    return [package(wanted, imported[wanted.module]) for wanted in NEEDED]


def test_what_is_there(versions):
    found = needed(imports())
    assert {item.status for item in found} == {OK}
    assert found[1][::2] == ("torch", "2.13.0+cpu in /site")


@pytest.mark.parametrize(
    ("module", "error", "remedy"),
    [
        ("torch", "ModuleNotFoundError: No module named 'torch'", 'pip install "torch>=2.0,<2.14"'),
        ("torch", "OSError: libcudart.so.13: cannot open", '--force-reinstall --no-deps "torch>=2.0,<2.14"'),
        ("fairseq", "ModuleNotFoundError: No module named 'fairseq'", 'pip install "fairseq==0.12.2"; it is compiled'),
        ("fairseq", "ModuleNotFoundError: No module named 'bitarray'", "pip install bitarray"),
        ("fairseq", "ImportError: numpy.core.multiarray failed to import", '"numpy<2"'),
        ("numpy", "killed: Illegal instruction", 'pip install --force-reinstall --no-deps "numpy"'),
    ],
)
def test_what_does_not_import(versions, module, error, remedy):
    (broken,) = (item for item in needed(imports(**{module: error})) if item.status != OK)
    assert broken.name == module and broken.status == BROKEN
    assert error in broken.text and remedy in broken.remedy


def test_other_versions(versions):
    versions.update({"torch": "2.14.1", "omegaconf": None})
    found = {item.name: item for item in needed(imports()) if item.status != OK}
    assert found["torch"].status == BROKEN and "2.14.1 in /site is not torch>=2.0,<2.14" in found["torch"].text
    assert found["omegaconf"].status == NOTE and "omegaconf<2.1" in found["omegaconf"].remedy
    assert len(found) == 2


def test_numpy_2_with_a_torch_for_numpy_1(monkeypatch):
    def refuse(*_):
        raise RuntimeError("Numpy is not available")

    assert [item.status for item in numpy_and_torch()] == [OK]
    monkeypatch.setattr(torch, "from_numpy", refuse)
    (found,) = examine([Check("numpy with torch", numpy_and_torch, remedy='pip install "numpy<2"')])
    assert found[1:3] == (BROKEN, "RuntimeError: Numpy is not available"), numpy.__version__


def test_compiled_parts():
    cuda = {"fairseq.ngram_repeat_block_cuda": "ModuleNotFoundError: No module named 'fairseq.ngram_repeat_block_cuda'"}
    assert {item.status for item in compiled(imports(**cuda))} == {OK}
    found = compiled(imports(**{"fairseq.libbleu": "ImportError: undefined symbol"}))
    assert [item.name for item in found if item.status == BROKEN] == ["libbleu"]
    assert "--no-cache-dir" in found[2].remedy and "compiler" in found[2].remedy


def test_extras(versions):
    absent = "ModuleNotFoundError: No module named "
    found = extras(
        imports(gguf=f"{absent}'gguf'", tokenizers=f"{absent}'tokenizers'", sklearn="ImportError: undefined symbol")
    )
    assert [(item.name, item.status) for item in found] == [
        ("[hugging-face]", NOTE),
        ("[plot]", OK),
        ("[glue] scikit-learn", BROKEN),
        ("[ray]", OK),
        ("[serve]", OK),
        ("[parquet]", OK),
    ]
    assert found[0].remedy == 'pip install "tokenizers>=0.20" "gguf>=0.16"'
    assert "matplotlib 99" in found[1].text


def test_commands_are_those_of_this_environment(versions):
    (found,) = compiled(imports(**{"fairseq.libbleu": "ImportError: no"}))[2:3]
    assert found.remedy.startswith('pip install "pip<24.1", then pip install --force-reinstall'), "pip 99 refuses"
    versions["pip"] = "24.0"
    assert compiled(imports(**{"fairseq.libbleu": "ImportError: no"}))[2].remedy.startswith("pip install --force")
    versions["pip"] = None
    assert compiled(imports(**{"fairseq.libbleu": "ImportError: no"}))[2].remedy.startswith("uv pip install --force")
