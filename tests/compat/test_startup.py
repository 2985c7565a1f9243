"""The .pth file: what a start of Python pays for it, and that no other program notices it."""

from __future__ import annotations

import shutil
import sys

import pytest
from child_process import PTH, REPOSITORY, run_python

SHOW_STARTUP = """
import sys, time
sys.path.insert(0, {repository!r})
before, start = set(sys.modules), time.perf_counter()
import fairseq_switchdec.compat.startup
print(f"{{1000 * (time.perf_counter() - start):.2f}}", *sorted(set(sys.modules) - before))
"""

OTHER_PROGRAM = """
import dataclasses, json, sys
stock = dataclasses.dataclass
assert not any(type(finder).__name__ == "ImportHooks" for finder in sys.meta_path)
import fairseq
assert dataclasses.dataclass is stock
assert "typing.io" not in sys.modules or sys.version_info < (3, 13)

@dataclasses.dataclass
class Own:
    x: int = 0

assert Own.__hash__ is None
assert sys.version_info < (3, 11) or isinstance(hash(fairseq.dataclass.configs.CommonConfig()), int)
try:
    dataclasses.make_dataclass("Bad", [("own", Own, Own())])
except ValueError:
    print("refused")
"""


def test_startup_imports_only_itself(record_property):
    milliseconds, *modules = run_python("-S", "-c", SHOW_STARTUP.format(repository=str(REPOSITORY))).stdout.split()
    record_property("startup_ms", milliseconds)  # reported, not judged: it is under 2 ms on an idle machine
    print(f"import of the startup module: {milliseconds} ms")
    assert modules == ["fairseq_switchdec", "fairseq_switchdec.compat", "fairseq_switchdec.compat.startup"]


def test_other_dataclasses_stay_as_they_are(site_with_pth):
    shown = run_python("-c", OTHER_PROGRAM, path=(site_with_pth,)).stdout
    assert ("refused" in shown) == (sys.version_info >= (3, 11))


def test_pth_without_the_package_is_silent(tmp_path):
    shutil.copy(PTH, tmp_path)
    (tmp_path / "sitecustomize.py").write_text(f"import site\nsite.addsitedir({str(tmp_path)!r})\n")
    (tmp_path / "fairseq_switchdec.py").write_text("raise RuntimeError('broken')\n")
    done = run_python("-c", "print('started')", path=(tmp_path,))
    assert (done.stdout, done.stderr) == ("started\n", "")


def test_finder_leaves_when_it_has_installed(monkeypatch):
    from fairseq_switchdec import compat
    from fairseq_switchdec.compat.startup import InstallOnFirstImport

    calls = []
    monkeypatch.setattr(compat, "install", lambda: calls.append(True))
    monkeypatch.setattr(sys, "meta_path", [InstallOnFirstImport, *sys.meta_path])
    assert InstallOnFirstImport.find_spec("fairseq_other") is None and not calls
    assert InstallOnFirstImport.find_spec("hydra") is None and calls == [True]
    assert sys.meta_path.count(InstallOnFirstImport) < 2


@pytest.mark.parametrize("line", PTH.read_text().splitlines())
def test_pth_is_one_line_that_site_executes(line):
    assert line.startswith("import ")
