"""Runs the stages of an example: each a command whose finished output is kept until its settings change.

    stages = Stages(Path("output"), total=2)
    stages.run("binarize", [sys.executable, ...], makes=[out / "bin"], sources=[out / "train.source"])
    stages.run("train", [...], makes=[out / "model" / "checkpoint_last.pt"], after=["binarize"], wipe=[out / "model"])
    records(stages.log("train"), "valid")[-1]["valid_nll_loss"]

Under the output folder: ``logs/NAME.log`` holds all that a stage printed, ``stages/NAME.json`` says which command made
its output. A stage is skipped when that file says it finished with the same fingerprint (its command, the contents of
its sources, the fingerprints of the stages before it) and everything it makes is there.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fairseq_switchdec.files import write_text

from .repository import environment

SHOWN = {  # key of fairseq's JSON log without its "valid_" or "train_" prefix -> what a progress line calls it
    "num_updates": "updates",
    "loss": "loss",
    "nll_loss": "nll",
    "greedy_nll_loss": "greedy",
    "keep_all_nll_loss": "keep-all",
    "cost": "cost",
    "wall": "seconds",
}
TAIL = 25  # lines of a failing stage's log that are shown


class StageError(SystemExit):
    """A stage's command failed; the message holds the end of its log and where the rest is."""


def forget(out: Path, made: Iterable[str]) -> None:
    """Delete an earlier run's folders, in a folder of stages only: never in one that no example made."""
    if (out / "stages").is_dir():
        for name in made:
            shutil.rmtree(out / name, ignore_errors=True)


class Stages:
    """Runs commands in order, skips what is done, keeps logs.

    Args:
        out: folder for everything the stages write.
        total: number of stages, for the ``[2/7]`` in front of a stage's name; left out when None.
    """

    def __init__(self, out: Path, total: int | None = None):
        self.out = out
        self.total = total
        self.fingerprints: dict[str, str] = {}
        self.processes: set[subprocess.Popen[str]] = set()
        self.lock = threading.Lock()
        self.parallel = False
        (out / "logs").mkdir(parents=True, exist_ok=True)
        (out / "stages").mkdir(exist_ok=True)

    def log(self, name: str) -> Path:
        """Where the output of stage ``name`` is kept."""
        return self.out / "logs" / f"{name}.log"

    def seconds(self, name: str) -> float:
        """How long the finished stage ``name`` took, in seconds, also when this run skipped it."""
        return self._marker(name)["seconds"]

    def memory(self, name: str) -> float:
        """The peak of what the finished stage ``name`` held in memory, in MiB; 0 where an older version ran it."""
        return self._marker(name).get("memory", 0.0)

    def run(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        makes: Iterable[Path],
        after: Iterable[str] = (),
        sources: Iterable[Path] = (),
        wipe: Iterable[Path] = (),
        resumes: bool = False,
        env: dict[str, str] | None = None,
    ) -> bool:
        """Runs ``command`` unless it is done; returns whether it ran.

        Args:
            name: unique, and a file name.
            command: program and arguments.
            makes: files or folders that exist afterwards, or the stage has failed.
            after: earlier stages whose output this one reads: when they change, it runs again.
            sources: files, or folders of Python files, whose contents matter.
            wipe: files or folders inside the output folder to delete before the command runs: fairseq-preprocess
                refuses to overwrite its dictionary, fairseq-train would go on from another model's checkpoint.
            resumes: the command goes on from what an interrupted run with the same settings left: keep that.
            env: environment variables on top of the present ones.

        Raises:
            StageError: the command failed or did not make what it should.
        """
        argv = [str(word) for word in command]
        fingerprint = _fingerprint(argv, env or {}, sources, [self.fingerprints[stage] for stage in after])
        with self.lock:
            self.fingerprints[name] = fingerprint
            number = len(self.fingerprints)
        makes = list(makes)
        heading = f"[{number}/{self.total}] {name}" if self.total else name
        marker = self._marker(name)
        same = marker.get("fingerprint") == fingerprint
        if same and marker["finished"] and all(path.exists() for path in makes):
            print(f"{heading}: done before, kept ({marker['seconds']:.0f} s)", flush=True)
            return False
        print(f"{heading}\n    $ {shlex.join(argv)}", flush=True)
        if not (same and resumes):
            for path in wipe:
                self._delete(path)
        record = {"command": shlex.join(argv), "fingerprint": fingerprint, "finished": False}
        self._write_marker(name, record)
        start = time.monotonic()
        # Models this small leave threads waiting for each other; beside other work they are several times slower.
        status, memory = self._run_logged(name, argv, {"OMP_NUM_THREADS": "1", **environment(**(env or {}))})
        missing = [str(path) for path in makes if not path.exists()]
        if status or missing:
            raise StageError(_failure(name, status, missing, self.log(name)))
        seconds = time.monotonic() - start
        self._write_marker(name, {**record, "finished": True, "seconds": round(seconds, 2), "memory": round(memory)})
        print(f"    {self._label(name)}done in {seconds:.0f} s", flush=True)
        return True

    def side_by_side(self, stages: Sequence[dict[str, Any]]) -> None:
        """Runs several stages at once, each on a core of its own, where none reads another's output.

        Args:
            stages: the arguments of `run`, one dict a stage.

        Raises:
            StageError: a stage failed; the others are ended.
        """
        self.parallel = True
        with terminable(), ThreadPoolExecutor(len(stages)) as pool:
            try:
                for future in as_completed([pool.submit(self.run, **stage) for stage in stages]):
                    future.result()
            finally:
                self.parallel = False
                for process in list(self.processes):
                    process.terminate()

    def _run_logged(self, name: str, argv: list[str], env: dict[str, str]) -> tuple[int, float]:
        """Runs ``argv``, all it prints into the log and the telling lines also on the screen: see `wait`."""
        with self.log(name).open("w", encoding="utf-8") as kept, terminable():
            kept.write(f"$ {shlex.join(argv)}\n")
            try:
                process = subprocess.Popen(
                    argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env, text=True, errors="replace"
                )
            except OSError as error:
                kept.write(f"{error}\n")
                return 127, 0.0
            self.processes.add(process)
            assert process.stdout is not None  # asked for above
            try:
                for line in process.stdout:
                    kept.write(line)
                    kept.flush()
                    shown = progress_line(line)
                    if shown:
                        print(f"    {self._label(name)}{shown}", flush=True)
                return wait(process)
            finally:  # neither Ctrl-C nor a termination may leave the command running
                if process.poll() is None:
                    process.terminate()
                    process.wait()
                self.processes.discard(process)

    def _label(self, name: str) -> str:
        """In front of a line of output where it could be another stage's."""
        return f"{name}: " if self.parallel else ""

    def _marker(self, name: str) -> dict[str, Any]:
        path = self.out / "stages" / f"{name}.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    def _write_marker(self, name: str, record: dict[str, Any]) -> None:
        write_text(self.out / "stages" / f"{name}.json", json.dumps(record, indent=1) + "\n")

    def _delete(self, path: Path) -> None:
        if self.out.resolve() not in path.resolve().parents:
            raise ValueError(f"{path} is not inside {self.out}: not deleted")
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def wait(process: subprocess.Popen[Any]) -> tuple[int, float]:
    """The exit status of a process that ends, and the peak of what it held in memory, in MiB; 0 where not known."""
    if not sys.platform.startswith("linux"):  # other systems count in other units, or not at all
        return process.wait(), 0.0
    try:
        _, status, usage = os.wait4(process.pid, 0)
    except ChildProcessError:  # another thread terminated it, and saw it end
        return process.wait(), 0.0
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, usage.ru_maxrss / 1024


def records(log: Path, kind: str) -> list[dict[str, Any]]:
    """The JSON records of one kind in the log of a command that ran with ``--log-format json``, numbers as floats.

    Args:
        log: the stage's log.
        kind: fairseq's name for them: ``train_inner``, ``train``, or the split's name (``valid``).
    """
    with log.open(encoding="utf-8", errors="replace") as lines:
        found = [_parse(line) for line in lines]
    return [stats for tag, stats in found if tag == kind]


def progress_line(line: str) -> str | None:
    """What is shown of one log line: fairseq's JSON statistics in short, nothing of all else."""
    tag, stats = _parse(line)
    if tag is None or tag == "train":  # "train" repeats at the end of an epoch what "train_inner" has shown
        return None
    plain = {key.split("_", 1)[1] if key.startswith(f"{tag}_") else key: value for key, value in stats.items()}
    parts = [f"{label} {plain[key]:g}" for key, label in SHOWN.items() if isinstance(plain.get(key), float)]
    return f"{'training' if tag == 'train_inner' else tag:9}" + "  ".join(parts) if parts else None


def _parse(line: str) -> tuple[str | None, dict[str, Any]]:
    """Splits ``TIME | LEVEL | TAG | {JSON}``; (None, {}) for any other line."""
    head, _, body = line.strip().partition(" | {")
    if not body.endswith("}"):
        return None, {}
    try:
        stats = json.loads("{" + body)
    except ValueError:
        return None, {}
    return head.rpartition(" | ")[2], {key: _number(value) for key, value in stats.items()}


def _number(value: Any) -> Any:
    try:
        return float(value)
    except (TypeError, ValueError):
        return value


def _fingerprint(argv: list[str], env: dict[str, str], sources: Iterable[Path], before: list[str]) -> str:
    digest = hashlib.sha256(json.dumps([argv, sorted(env.items()), before]).encode())
    for source in sources:
        for path in sorted(source.rglob("*.py")) if source.is_dir() else [source]:
            digest.update(path.read_bytes())
    return digest.hexdigest()


@contextmanager
def terminable() -> Iterator[None]:
    """A termination ends the program like an error does, so that what has to be tidied up is.

    Signals reach Python's main thread only.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _failure(name: str, status: int, missing: list[str], log: Path) -> str:
    tail = "".join(log.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)[-TAIL:])
    why = f"exit status {status}" if status else f"it did not make {', '.join(missing)}"
    return f"{tail}\nstage '{name}' failed ({why}). All it printed: {log}"
