"""Modules that end their process, and commands that do not start, are told and end nothing else."""

from __future__ import annotations

import os
import sys

import pytest

from fairseq_switchdec.doctor import processes
from fairseq_switchdec.doctor.processes import Imported, Started, import_all, start_stock


@pytest.fixture
def modules(tmp_path, monkeypatch):
    """A folder whose modules this process, and those it starts, find first."""
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    return tmp_path


def test_each_module_is_imported(modules):
    for name, body in {
        "noisy": "print('hello')",
        "aborting": "import os; os.abort()",
        "raising": "raise ImportError('libcudart.so.12: cannot open\\nshared object file')",
        "leaving": "raise SystemExit(3)",
        "ending": "import os; os._exit(3)",
    }.items():
        (modules / f"made_up_{name}.py").write_text(body)
    found = import_all([f"made_up_{name}" for name in ("noisy", "aborting", "raising", "leaving", "ending", "absent")])
    assert found == {
        "made_up_noisy": Imported(str(modules / "made_up_noisy.py"), None),
        "made_up_aborting": Imported(None, "killed: Aborted"),
        "made_up_raising": Imported(None, "ImportError: libcudart.so.12: cannot open shared object file"),
        "made_up_leaving": Imported(None, "SystemExit: 3"),
        "made_up_ending": Imported(None, "exit status 3"),
        "made_up_absent": Imported(None, "ModuleNotFoundError: No module named 'made_up_absent'"),
    }


def test_a_module_that_hangs(modules, monkeypatch):
    monkeypatch.setattr(processes, "PATIENCE", 0.3)
    (modules / "made_up_hanging.py").write_text("import time; time.sleep(60)")
    assert import_all(["made_up_hanging"])["made_up_hanging"].error == "no end within 0.3 seconds"


def test_stock_commands_start(capsys):
    """In this process, which has imported fairseq already; tests/compat has a stock command of its own process."""
    exec(processes.STOCK_START, {})
    assert capsys.readouterr().out in ("True\n", "False\n")


def test_stock_commands_that_do_not_start(modules):
    (modules / "sitecustomize.py").write_text("import fairseq_switchdec.compat.startup  # as the .pth file does\n")
    (modules / "fairseq_cli.py").write_text("raise ValueError('mutable default')")
    assert start_stock() == Started(True, "ValueError: mutable default")
