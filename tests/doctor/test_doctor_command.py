"""The command, where all is well and where things are broken on purpose."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys

import pytest
from support import REPO

from fairseq_switchdec.__main__ import main
from fairseq_switchdec.doctor import command, installation
from fairseq_switchdec.doctor.findings import describe
from fairseq_switchdec.doctor.packages import MODULES
from fairseq_switchdec.doctor.processes import Imported, Started
from fairseq_switchdec.errors import UserError


def run(monkeypatch, *arguments: str) -> int:
    """The command's status; what it would import in another process it imports in this one."""

    def attempt(name: str) -> Imported:
        try:
            return Imported(importlib.import_module(name).__file__, None)
        except ImportError as error:
            return Imported(None, describe(error))

    monkeypatch.setattr(command, "import_all", lambda names: {name: attempt(name) for name in names})
    monkeypatch.setattr(installation, "start_stock", lambda: Started(True, None))
    monkeypatch.setattr(sys, "argv", ["__main__.py", "doctor", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code)


def test_where_all_is_well(monkeypatch, capsys, tmp_path):
    """The environment of the tests is such a place."""
    assert run(monkeypatch, "--json", str(tmp_path / "facts.json")) == 0
    facts, shown = json.loads((tmp_path / "facts.json").read_text()), capsys.readouterr().out
    assert facts["works"] and "everything that is needed works" in shown
    names = [found["name"] for found in facts["findings"]]
    assert {"Python", "torch", "fairseq", "libbleu", ".pth", "stock commands", "processor", "memory"} <= set(names)
    assert all(found["remedy"] for found in facts["findings"] if found["status"] != "ok")
    assert all(f"  {name} " in shown for name in names)


def test_the_fixes_do_not_import(monkeypatch, capsys):
    """Every other command begins with them."""
    monkeypatch.setitem(sys.modules, "fairseq_switchdec.compat", None)
    assert run(monkeypatch) == 1
    shown = capsys.readouterr().out
    assert "broken  fixes" in shown and "install the package again" in shown


def test_torch_is_damaged(tmp_path):
    """A real process, whose other packages are empty, so that it is quick."""
    for name in MODULES:
        (tmp_path / f"{name}.py").write_text("raise ImportError('libcudart.so.13')" if name == "torch" else "")
    done = subprocess.run(
        [sys.executable, "-m", "fairseq_switchdec", "doctor", "--json", "facts.json"],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{REPO}"},
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1 and "Traceback" not in done.stderr
    facts = json.loads((tmp_path / "facts.json").read_text())
    found = {item["name"]: item for item in facts["findings"]}
    assert not facts["works"] and "libcudart" in found["torch"]["text"] and "pip install" in found["torch"]["remedy"]
    assert [item["name"] for item in facts["findings"] if item["status"] == "broken"] == ["torch"], "and nothing for it"
    assert found["GPU"]["text"] == "not looked at without torch"


def test_a_file_that_cannot_be_written(monkeypatch, tmp_path):
    monkeypatch.setattr(command, "checks", lambda: pytest.fail("it looks before it can say what it sees"))
    monkeypatch.setattr(sys, "argv", ["doctor", "--json", str(tmp_path / "absent" / "facts.json")])
    with pytest.raises(UserError, match="--json"):
        command.cli_main()
