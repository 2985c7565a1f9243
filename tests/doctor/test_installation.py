"""Where the package lies, and whether its fixes reach fairseq's commands."""

from __future__ import annotations

import importlib.metadata
import sys

import pytest

from fairseq_switchdec.doctor import installation
from fairseq_switchdec.doctor.findings import BROKEN, NOTE, OK
from fairseq_switchdec.doctor.processes import Imported, Started


@pytest.mark.parametrize(
    ("started", "holding", "statuses", "said"),
    [
        (Started(True, None), ["/site"], [OK, OK], "active: /site"),
        (Started(True, "ValueError: no"), ["/site"], [OK, BROKEN], "ValueError: no"),
        (Started(False, "ValueError: mutable default"), [], [NOTE, NOTE], "python -m fairseq_switchdec train"),
        (Started(False, None), [], [NOTE, OK], "without the fixes"),
        (Started(False, None), ["/site"], [BROKEN, OK], "pip uninstall fairseq_switchdec"),
    ],
)
def test_stock_commands(started, holding, statuses, said):
    found = installation.judge(started, holding)
    assert [item.status for item in found] == statuses
    assert said in str(found)


def test_commands():
    there = dict.fromkeys(installation.MODULES, Imported("file", None))
    assert [item.status for item in installation.commands(there)] == [OK]
    (found,) = installation.commands({**there, installation.MODULES[1]: Imported(None, "SyntaxError: invalid")})
    assert found.status == BROKEN and "switchable_task: SyntaxError" in found.text


def versions(monkeypatch, **given: str) -> None:
    """pip has installed these and nothing else."""

    def version(name: str) -> str:
        if name not in given:
            raise importlib.metadata.PackageNotFoundError(name)
        return given[name]

    monkeypatch.setattr(importlib.metadata, "version", version)


def test_this_package(monkeypatch):
    versions(monkeypatch, fairseq_switchdec=installation.__version__)
    assert installation.this_package()[0].status == OK
    versions(monkeypatch, fairseq_switchdec="0.0.1")
    assert "0.0.1 is installed" in installation.this_package()[0].text
    versions(monkeypatch)
    (found,) = installation.this_package()
    assert found.status == NOTE and "not installed by pip" in found.text


def test_pip(monkeypatch):
    for version, status in (("23.0.1", OK), ("24.0", OK), ("24.1", NOTE), ("26.3", NOTE)):
        versions(monkeypatch, pip=version)
        assert installation.pip()[0].status == status
    versions(monkeypatch)
    assert installation.pip() == []


def test_python(monkeypatch):
    assert installation.python()[0].status == OK
    monkeypatch.setattr(sys, "version_info", (3, 15, 0))
    assert "3.9 to 3.13" in installation.python()[0].remedy
