"""What the doctor asks for is what setup.py asks for."""

from __future__ import annotations

import runpy

import pytest
import setuptools
from support import REPO

from fairseq_switchdec.doctor.requirements import EXTRAS, NEEDED, PURPOSES, Requirement


def test_requirements_are_those_of_setup(monkeypatch):
    given = {}
    monkeypatch.setattr(setuptools, "setup", given.update)
    runpy.run_path(str(REPO / "setup.py"))
    fairseqs = {"numpy", "hydra-core", "omegaconf"}
    assert {str(wanted) for wanted in NEEDED if wanted.name not in fairseqs} == set(given["install_requires"])
    for extra, wanted in EXTRAS.items():
        assert [str(one) for one in wanted] == given["extras_require"][extra]
    assert PURPOSES.keys() == EXTRAS.keys()


@pytest.mark.parametrize(
    ("versions", "version", "admitted"),
    [
        (">=2.0,<2.14", "2.13.0+cpu", True),
        (">=2.0,<2.14", "2.0", True),
        (">=2.0,<2.14", "1.13.1", False),
        (">=2.0,<2.14", "2.14.0a0", False),
        ("==0.12.2", "0.12.2", True),
        ("==0.12.2", "0.12.3", False),
        ("<2.1", "2.0.6", True),
        ("", "what", True),
    ],
)
def test_versions(versions, version, admitted):
    assert Requirement("torch", versions).admits(version) == admitted


def test_names():
    assert [Requirement(name, "").module for name in ("rouge-score", "scikit-learn")] == ["rouge_score", "sklearn"]
