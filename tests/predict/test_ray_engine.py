"""``predict --engine ray``: the bytes of one process, in order, whatever dies; real workers where Ray is installed."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support import REPO

from fairseq_switchdec.errors import CallError, UserError
from fairseq_switchdec.predict.predictor import Encoded
from fairseq_switchdec.predict.ray_engine import AHEAD, RETRIES, RayWorkers, RemoteWorker
from fairseq_switchdec.predict.worker import Done, Window


def test_rows_travel_as_numbers() -> None:
    """A window's tensors come out as they went in, and take little more than their numbers."""
    rows = [(place, Encoded([torch.arange(place, place + 20)], {"line": place})) for place in range(100)]
    window = Window(7, 9, [*rows, (100, "the text is empty")])
    packed = pickle.dumps(window)
    found = pickle.loads(packed)
    assert len(packed) < 100 * 100 and (found.first, found.before, found.inputs) == (7, 9, 100)
    for (place, item), (other, expected) in zip(found.rows, rows):
        assert place == other and item.row == expected.row and item.inputs[0].dtype == torch.long
        assert torch.equal(item.inputs[0], expected.inputs[0])
    assert found.rows[-1] == (100, "the text is empty")


class FakeRay:
    """A cluster in this process, whose workers finish in an order of their own."""

    class RayTaskError(Exception):
        def __init__(self, cause: Exception):
            self.cause = cause

    class RayActorError(Exception):
        pass

    def __init__(self) -> None:
        self.exceptions = SimpleNamespace(RayTaskError=self.RayTaskError, RayActorError=self.RayActorError)
        self.failures: dict[int, Exception] = {}  # by a window's first row
        self.options: dict[str, Any] = {}
        self.submitted: list[tuple[int, int]] = []  # worker and the window's first row
        self.up = False

    def init(self, **options: Any) -> None:
        if options.get("address") == "nowhere":
            raise ConnectionError("no such host")
        self.up = True

    def shutdown(self) -> None:
        self.up = False

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 4.0}

    def remote(self, **options: Any) -> Any:
        self.options = options
        return lambda kind: SimpleNamespace(remote=self.start)

    def start(self, *arguments: Any) -> Any:
        number = self.options["started"] = self.options.get("started", -1) + 1

        def submit(window: Window) -> tuple[int, int]:
            self.submitted.append((number, window.first))
            return self.submitted[-1]

        return SimpleNamespace(predict=SimpleNamespace(remote=submit))

    def wait(self, results: list[Any], num_returns: int, timeout: float) -> tuple[list[Any], list[Any]]:
        """Worker 0 is slow: its windows are never done before they are asked for."""
        waiting = [result for result in results if result[0] == 0]
        return [result for result in results if result not in waiting], waiting

    def get(self, result: tuple[int, int]) -> Done:
        if result[1] in self.failures:
            raise self.failures[result[1]]
        return Done(f"{result[1]}\n", "", 1, 1, 0, 0.0)


def options(**changes: Any) -> Namespace:
    return Namespace(**{"address": None, "workers": None, "worker_cpus": 2, "cpu": True, "fp16": False, **changes})


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    ray = FakeRay()
    monkeypatch.setitem(sys.modules, "ray", ray)
    return ray


def numbered(count: int, read: list[int]) -> Iterable[Window]:
    for number in range(count):
        read.append(number)
        yield Window(number, number, [])


def test_results_come_in_order_and_little_is_read_ahead(fake: FakeRay) -> None:
    read: list[int] = []
    with RayWorkers(options()) as workers:
        assert workers.count == 2 and fake.options["num_cpus"] == 2 and fake.options["max_task_retries"] == RETRIES
        for number, done in enumerate(workers(numbered(30, read))):
            assert done.text == f"{number}\n"
            assert len(read) <= number + 1 + AHEAD * 2
    assert number == 29 and not fake.up
    counts = [sum(worker == index for worker, _ in fake.submitted) for index in range(2)]
    assert sum(counts) == 30 and 0 < counts[0] < counts[1], "the idle worker gets more"


def test_mistakes(fake: FakeRay, monkeypatch: pytest.MonkeyPatch) -> None:
    for changes, message in (
        ({"address": "nowhere"}, "--address nowhere: no Ray cluster can be reached there: no such host"),
        ({"workers": 3}, "--workers 3, --worker-cpus 2: the cluster has 0 GPUs and 4 cores, enough for 2 workers"),
        ({"worker_cpus": 8}, "enough for 0 workers"),
        ({"fp16": True}, "--fp16 is for a GPU, and the cluster has none"),
    ):
        with pytest.raises(UserError, match=message):
            RayWorkers(options(**changes))
        assert not fake.up
    ruined = "--path model.pt gives scores that are no numbers"
    for failure, message in (
        (fake.RayTaskError(CallError(ruined)), f"^fairseq_switchdec: {ruined}$"),
        (fake.RayActorError("The actor died\nout of memory"), r"died 11 times, or could not start \(out of memory\)"),
    ):
        fake.failures = {2: failure}
        with pytest.raises(UserError, match=message), RayWorkers(options()) as workers:
            list(workers(numbered(5, [])))
        assert not fake.up
    fake.failures = {2: fake.RayTaskError(KeyError("a mistake of ours"))}
    with pytest.raises(fake.RayTaskError), RayWorkers(options()) as workers:
        list(workers(numbered(5, [])))
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match="needs the package ray: pip install ray"):
        RayWorkers(options())


def test_a_worker_raises_what_does_not_end_its_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CallError, match="nowhere.pt"):
        RemoteWorker(Namespace(path="nowhere.pt"), str(tmp_path))


def workers_of(run: str) -> list[int]:
    """The processes of this run's workers."""
    found = subprocess.run(["pgrep", "-f", "ray::RemoteWorker"], capture_output=True, text=True).stdout.split()
    environments = {process: Path("/proc", process, "environ") for process in found}
    return [
        int(process) for process, file in environments.items() if file.exists() and run.encode() in file.read_bytes()
    ]


def test_real_workers_that_are_killed(corpus: Path, switchable_run: SimpleNamespace, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="pip install '.[ray]' for real workers")
    (tmp_path / "texts").write_text((corpus.parent / "test.source").read_text() * 10)
    options = ["--cpu", "--no-bpe", "--path", switchable_run.checkpoint, "--input", "texts", "--beam", 2]
    options += ["--max-len-b", 8, "--batch-size", 4, "--window", 8, "--switch-decisions", "random"]
    environment = {**os.environ, "PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1", "RUN_OF_THIS_TEST": str(tmp_path)}
    commands = {"one": ["predict", "--task", "switchable_task"], "ray": ["generate", "--engine", "ray", "--workers", 1]}
    calls = {
        name: [sys.executable, "-m", "fairseq_switchdec", *map(str, [*command, *options])]
        for name, command in commands.items()
    }
    for name, call in calls.items():
        call += ["--output", f"{name}.jsonl", "--switch-report", f"{name}.json"]
    subprocess.run(calls["one"], cwd=tmp_path, env=environment, check=True, capture_output=True)
    process = subprocess.Popen(calls["ray"], cwd=tmp_path, env=environment)
    killed = 0
    while process.poll() is None:
        found = workers_of(str(tmp_path))
        if found and killed < 2 and (tmp_path / "ray.jsonl.journal").exists():
            os.kill(found[0], signal.SIGKILL)
            killed += 1
        time.sleep(0.2)
    assert process.returncode == 0
    assert (tmp_path / "ray.jsonl").read_bytes() == (tmp_path / "one.jsonl").read_bytes()
    one, ray = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("one", "ray"))
    assert {**one, "seconds": 0} == {**ray, "seconds": 0}
    assert killed == 2, "too fast for this test: give it more texts"
