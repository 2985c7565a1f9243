"""The service as users start it, with a real replica: the command's texts, a replica that is killed, a clean end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from support import REPO

pytest.importorskip("ray.serve", reason="pip install '.[serve]' for real replicas")
httpx = pytest.importorskip("httpx", reason="pip install httpx for the requests")

SEARCH = ["--beam", "2", "--max-len-b", "8", "--cpu", "--no-bpe"]


def replica_of(run: str) -> int:
    """The process of this run's replica."""
    found = subprocess.run(["pgrep", "-f", "ray::ServeReplica"], capture_output=True, text=True).stdout.split()
    environments = {process: Path("/proc", process, "environ") for process in found}
    (process,) = [name for name, file in environments.items() if run.encode() in file.read_bytes()]
    return int(process)


def test_served_killed_and_stopped(corpus: Path, switchable_run: SimpleNamespace, tmp_path: Path) -> None:
    source = corpus.parent / "test.source"
    environment = {**os.environ, "PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1", "RUN_OF_THIS_TEST": str(tmp_path)}
    model = ["--path", str(switchable_run.checkpoint), *SEARCH]
    command = [sys.executable, "-m", "fairseq_switchdec", "predict", "--task", "switchable_task", *model]
    command += ["--input", str(source), "--output", "out.jsonl", "--switch-report", "report.json"]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    report = json.loads((tmp_path / "report.json").read_text())["per_input"]

    command = [sys.executable, "-m", "examples.serve", *model, "--port", "0"]
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().removeprefix("ready: ").strip()
            assert address.startswith("http://127.0.0.1:"), "it did not start"
            with httpx.Client(timeout=90) as client:
                found = client.post(address, json={"texts": source.read_text().splitlines()}).json()["results"]
                for result, line, entry in zip(found, lines, report):
                    assert result["text"] == line["text"]
                    assert result["score"] == pytest.approx(line["score"], abs=1e-5)
                    assert {"id": entry["id"], **result} == {**entry, "text": line["text"], "score": result["score"]}
                refused = client.post(address, json={"text": "w1 " * 99})
                assert refused.status_code == 400 and "100 tokens, and the limit is 64" in refused.json()["error"]
                os.kill(replica_of(str(tmp_path)), signal.SIGKILL)
                again = client.post(address, json={"text": source.read_text().splitlines()[0]})
                assert again.status_code == 200 and again.json()["results"][0] == found[0]
                assert client.get(address.replace("v1/summarize", "healthz")).status_code == 200
            process.send_signal(signal.SIGTERM)
            stopped = time.monotonic()
            assert process.wait(60) == 0 and time.monotonic() - stopped < 60
        finally:
            process.kill()
