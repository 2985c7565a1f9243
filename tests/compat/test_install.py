"""What an install puts into site-packages, and the environment that the scripts make."""

from __future__ import annotations

import os
import shutil
import subprocess
import zipfile

import pytest
from child_process import REPOSITORY, run_python


@pytest.mark.parametrize("kind", ["wheel", "editable"])
def test_wheel_holds_the_pth(tmp_path, kind):
    """Plain and editable (PEP 660) wheels have it at their top, so pip installs it, lists it and removes it."""
    pytest.importorskip("setuptools", minversion="70.1", reason="older releases need another package to make a wheel")
    source = tmp_path / "source"
    source.mkdir()
    shutil.copy(REPOSITORY / "setup.py", source)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(REPOSITORY / "fairseq_switchdec", source / "fairseq_switchdec", ignore=ignored)
    build = f"from setuptools.build_meta import __legacy__ as backend; backend.build_{kind}({str(tmp_path)!r})"
    run_python("-c", build, cwd=source)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "fairseq_switchdec.pth" in names
    for name in ("compat/startup.py", "pictures/page/page.html", "pictures/page/page.css", "pictures/page/page.js"):
        assert (f"fairseq_switchdec/{name}" in names) == (kind == "wheel")


def setup_venv(tmp_path, **variables: str) -> subprocess.CompletedProcess:
    script = f"source {REPOSITORY}/examples/common/setup_venv.sh; setup_venv test; echo status $?"
    environment = {**os.environ, "VENV": str(tmp_path / "venv"), **variables}
    return subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True)


def test_setup_venv_names_what_is_missing(tmp_path):
    for name, body, message in (
        (
            "old",
            "case $1 in -V) echo Python 3.8.1;; *) exit 1;; esac",
            "is Python 3.8.1; set PYTHON to a Python >= 3.9",
        ),
        ("bare", 'case "$2" in *venv*) exit 1;; esac', "lacks the modules venv and ensurepip"),
    ):
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
        done = setup_venv(tmp_path, PYTHON=str(tmp_path / name))
        assert done.stdout == "status 1\n" and message in done.stderr
    done = setup_venv(tmp_path, PYTHON=str(tmp_path / "absent"))
    assert done.stdout == "status 1\n" and "no interpreter" in done.stderr
    assert not (tmp_path / "venv").exists()
