"""What an install puts into site-packages, and the environment that the scripts make."""

from __future__ import annotations

import email
import os
import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest
from child_process import REPOSITORY, run_python


def build(kind: str, source: Path) -> Path:
    """What setuptools makes of a copy of the repository: a wheel, an editable one, or an sdist; it needs no network."""
    pytest.importorskip("setuptools", minversion="70.1", reason="older releases need another package to make a wheel")
    out = source.parent / kind
    out.mkdir()
    program = f"from setuptools.build_meta import __legacy__ as backend; backend.build_{kind}({str(out)!r})"
    run_python("-c", program, cwd=source)
    (made,) = out.iterdir()
    return made


@pytest.mark.parametrize("kind", ["wheel", "editable"])
def test_wheel_holds_the_pth(tmp_path, kind):
    """Plain and editable (PEP 660) wheels have it at their top, so pip installs it, lists it and removes it."""
    source = tmp_path / "source"
    source.mkdir()
    for name in ("setup.py", "README.md"):
        shutil.copy(REPOSITORY / name, source)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(REPOSITORY / "fairseq_switchdec", source / "fairseq_switchdec", ignore=ignored)
    wheel = zipfile.ZipFile(build(kind, source))
    names = wheel.namelist()
    assert "fairseq_switchdec.pth" in names
    for name in ("compat/startup.py", "pictures/page/page.html", "pictures/page/page.css", "pictures/page/page.js"):
        assert (f"fairseq_switchdec/{name}" in names) == (kind == "wheel")
    about = {Path(name).name: wheel.read(name).decode() for name in names if ".dist-info/" in name}
    assert "fairseq_switchdec = fairseq_switchdec.__main__:main" in about["entry_points.txt"]
    assert about["LICENSE"].startswith("MIT License")
    metadata = email.message_from_string(about["METADATA"])
    assert "MIT" in (metadata["License-Expression"], metadata["License"])
    assert metadata["Author"] == "fairseq_switchdec contributors" and metadata["Requires-Python"] == ">=3.9"
    assert metadata.get_payload().startswith("# fairseq_switchdec")


def test_sdist_is_the_repository(tmp_path):
    """All that is under version control, nothing that runs left behind: its scripts run as a checkout's."""
    listed = subprocess.run(["git", "-C", REPOSITORY, "ls-files"], capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("no checkout")
    source, tracked = tmp_path / "source", listed.stdout.split()
    for name in (*tracked, "examples/quickstart/output/report.json", "tests/__pycache__/test_gpu.pyc"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((REPOSITORY / name).read_bytes() if name in tracked else b"left by a run")
    with tarfile.open(build("sdist", source)) as archive:
        names = {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}
    made = {name for name in names if name in ("PKG-INFO", "setup.cfg") or ".egg-info/" in name}
    assert names - made == set(tracked)


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
