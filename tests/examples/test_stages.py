"""Stages of an example: run once, again when what they depend on changes, and speak up when they fail."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from examples.common import stages as module
from examples.common.repository import environment

LOG = """a line | of text
2026-01-01 10:00:00 | INFO | train_inner | {"epoch": 1, "loss": "2.5", "nll_loss": "2.25", "num_updates": "50"}
2026-01-01 10:00:01 | INFO | valid | {"valid_loss": "2.000", "valid_cost": "0.75", "valid_num_updates": "50"}
2026-01-01 10:00:01 | INFO | train | {"epoch": 1, "train_loss": "2.4"}
"""


def append(path: Path, text: str = "x") -> list[str]:
    """A command that leaves a trace of each time it runs."""
    return [sys.executable, "-c", f"open({str(path)!r}, 'a').write({text!r})"]


def test_a_stage_runs_again_only_when_something_changed(tmp_path: Path) -> None:
    made, source = tmp_path / "made", tmp_path / "source"
    source.write_text("1")

    def run(text: str = "x", first: str = "1") -> list[bool]:
        stages = module.Stages(tmp_path)
        ran = [stages.run("first", append(tmp_path / "one", first), makes=[tmp_path / "one"], sources=[source])]
        return [*ran, stages.run("second", append(made, text), makes=[made], after=["first"])]

    assert run() == [True, True] and run() == [False, False]
    assert module.Stages(tmp_path).seconds("first") >= 0
    assert run(text="y") == [False, True] and made.read_text() == "xy"
    assert run(text="y", first="2") == [True, True]  # what comes after a changed stage
    source.write_text("2")
    assert run(text="y", first="2") == [True, True]
    made.unlink()
    assert run(text="y", first="2") == [False, True]


@pytest.mark.parametrize("resumes", [False, True])
def test_what_an_interrupted_run_left_is_kept_only_to_go_on_from_it(tmp_path: Path, resumes: bool) -> None:
    made = tmp_path / "made"

    def run(text: str, makes: list[Path]) -> bool:
        return module.Stages(tmp_path).run("s", append(made, text), makes=makes, wipe=[made], resumes=resumes)

    for _ in range(2):  # it does not make what it should: not finished
        with pytest.raises(module.StageError, match="did not make .*absent"):
            run("a", [made, tmp_path / "absent"])
    assert made.read_text() == ("aa" if resumes else "a")
    assert run("b", [made]) and made.read_text() == "b"  # other settings never go on from it
    with pytest.raises(ValueError, match="not inside"):
        module.Stages(tmp_path).run("t", append(made), makes=[], wipe=[tmp_path.parent])


def test_a_failure_shows_the_end_of_its_log(tmp_path: Path) -> None:
    stages = module.Stages(tmp_path)
    with pytest.raises(module.StageError) as error:
        stages.run("bad", [sys.executable, "-c", "print('what went wrong'); raise SystemExit(3)"], makes=[])
    message = str(error.value)
    assert "what went wrong" in message and "exit status 3" in message and str(stages.log("bad")) in message
    with pytest.raises(module.StageError, match="exit status 127"):
        stages.run("none", [tmp_path / "no-such-program"], makes=[])


def test_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def waits_for(other: str, name: str) -> dict:
        code = f"open({str(tmp_path / name)!r}, 'w')\nimport os, time\n"
        code += f"while not os.path.exists({str(tmp_path / other)!r}): time.sleep(0.05)\n"
        code += """print('T | INFO | train_inner | {"loss": "2", "num_updates": "50"}')"""
        return {"name": name, "command": [sys.executable, "-c", code], "makes": [tmp_path / name]}

    stages = module.Stages(tmp_path)
    stages.side_by_side([waits_for("b", "a"), waits_for("a", "b")])  # would wait for ever one after the other
    shown = capsys.readouterr().out
    assert "a: training updates 50" in shown and "b: training updates 50" in shown
    assert stages.run("c", append(tmp_path / "c"), makes=[], after=["a", "b"])


def test_side_by_side_one_failure_ends_the_others(tmp_path: Path) -> None:
    sleeps = {"name": "sleeps", "command": [sys.executable, "-c", "import time; time.sleep(60)"], "makes": []}
    fails = {"name": "fails", "command": [sys.executable, "-c", "import time; time.sleep(1); exit(3)"], "makes": []}
    start = time.monotonic()
    with pytest.raises(module.StageError, match="'fails' failed"):
        module.Stages(tmp_path).side_by_side([sleeps, fails])
    assert time.monotonic() - start < 30


@pytest.mark.parametrize("call", ["run(**stage)", "side_by_side([stage, dict(stage, name='t')])"])
def test_terminating_it_ends_the_command_too(tmp_path: Path, call: str) -> None:
    pid = tmp_path / "pid"
    command = f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    script = (
        "import sys; from pathlib import Path; from examples.common import stages;"
        f"stage = dict(name='s', command=[sys.executable, '-c', {command!r}], makes=[]);"
        f"stages.Stages(Path({str(tmp_path)!r})).{call}"
    )
    driver = subprocess.Popen([sys.executable, "-c", script], env=environment(), stdout=subprocess.DEVNULL)
    for _ in range(300):
        if pid.exists() and pid.read_text():
            break
        time.sleep(0.1)
    driver.terminate()
    assert driver.wait(timeout=30) == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def test_fairseqs_json_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(LOG)
    assert module.records(log, "valid") == [{"valid_loss": 2.0, "valid_cost": 0.75, "valid_num_updates": 50.0}]
    shown = [module.progress_line(line) for line in LOG.splitlines()]
    assert shown[0] is None and shown[3] is None
    assert shown[1].split() == ["training", "updates", "50", "loss", "2.5", "nll", "2.25"]
    assert shown[2].split() == ["valid", "updates", "50", "loss", "2", "cost", "0.75"]
