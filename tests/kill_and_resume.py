"""Kill training with SIGKILL at random moments, start it again, and compare with a run that nobody disturbed.

    python tests/kill_and_resume.py [--task switchable_task] [--trials 20] [--while-writing] [--processes 1] \\
        [--seed 0] [fairseq-train's ...]

A trial kills one run one to three times, each after a random time from its start, so while it imports, loads, trains,
validates or writes a checkpoint; started again, it ends with the same bits: model, policy, both optimizers, running
averages, weights of the rule, meters. Linux.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from layouts import REPO, outcome, run, train_command
from task_data import TASKS, make_data

UPDATES = 30
#: Ten updates an epoch; written every other update, and copied at the end of an epoch.
FLAGS = [
    "--max-update", UPDATES, "--dropout", 0.1, "--lr-scheduler", "inverse_sqrt", "--warmup-updates", 4,
    "--save-interval-updates", 2, "--keep-interval-updates", 2,
]  # fmt: skip
ENDED = "had ended"
SIZES = {"train": 120, "valid": 15}


def descendants(process: int) -> list[int]:
    """A process's children, their children and so on (torchrun gives every worker a session of its own)."""
    found = [process]
    for parent in found:
        try:
            children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        except FileNotFoundError:  # it has ended
            continue
        found += map(int, children)
    return found


def kill_after(arguments: list[str], seconds: float, folder: Path | None = None) -> bool:
    """Start a command and kill it, with all it started; whether it was still running.

    ``folder``: wait further, until a file in it is half written.
    """
    log = subprocess.DEVNULL
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPO)}
    with subprocess.Popen(arguments, cwd=REPO, env=environment, stdin=log, stdout=log, stderr=log) as process:
        deadline = time.monotonic() + seconds
        while process.poll() is None:
            if time.monotonic() > deadline and (folder is None or any(folder.glob("*.tmp"))):
                for victim in descendants(process.pid):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(victim, signal.SIGKILL)
                return True
            time.sleep(0.001 if folder is not None else 0.01)
        return False


def unequal(first: Path, second: Path) -> list[str]:
    """Names of the values in which two runs' last checkpoints differ by as much as one bit."""
    one, other = ({**outcome(folder), **validation(folder)} for folder in (first, second))
    # These two run on over the epochs; resuming between two epochs starts them anew, as fairseq's trainer says.
    names = {name for name in one.keys() | other.keys() if not name.startswith(("metrics.default.", "metrics.valid."))}
    missing = one.keys() ^ other.keys()
    return sorted(name for name in names if name in missing or not torch.equal(one[name], other[name]))


def validation(folder: Path) -> dict[str, torch.Tensor]:
    """The last validation's loss and the best one's."""
    from fairseq.checkpoint_utils import load_checkpoint_to_cpu

    extra = load_checkpoint_to_cpu(str(folder / "checkpoint_last.pt"))["extra_state"]
    return {name: torch.tensor(extra[name]) for name in ("val_loss", "best")}


def trial(arguments: list[str], folder: Path, moments: list[float], writing: bool = False) -> list[str]:
    """Kill a run after each of ``moments`` (seconds), then let it end; what each kill met.

    ``writing``: kill when the next checkpoint after that moment is half written.
    """
    met = []
    for moment in moments:
        for half in folder.glob("*.tmp"):
            half.unlink()  # of the last kill
        if not kill_after(arguments, moment, folder if writing else None):
            met.append(ENDED)
            continue
        written = sorted(folder.glob("checkpoint*.pt"))
        half = [path.name for path in folder.glob("*.tmp")]
        met.append(f"while writing {half[0]}" if half else "in training" if written else "before a checkpoint")
    run(arguments)
    return met


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=TASKS, default="switchable_task")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--while-writing", action="store_true", help="kill in the middle of the next checkpoint's file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="keep data and checkpoints here")
    options, others = parser.parse_known_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="kill-"))
    data = make_data(options.task, folder, SIZES)

    def arguments(name: str) -> list[str]:
        words: list[Any] = [*FLAGS, *others]
        update_freq = 2 // options.processes
        return train_command(data, folder / name, options.processes, update_freq, *words, task=options.task)

    start = time.perf_counter()
    run(arguments("whole"))
    duration = time.perf_counter() - start
    print(f"the undisturbed run: {UPDATES} updates in {duration:.1f} s", flush=True)
    rng = random.Random(options.seed)
    passed = 0
    for number in range(options.trials):
        name = f"trial{number}"
        met = [ENDED]
        while met[0] == ENDED:  # too late to disturb anything: again, sooner
            shutil.rmtree(folder / name, ignore_errors=True)
            moments = [rng.uniform(0.2, 1.0) * duration for _ in range(rng.randint(1, 3))]
            met = trial(arguments(name), folder / name, moments, options.while_writing)
            duration *= 0.9 if met[0] == ENDED else 1.0
        differing = unequal(folder / "whole", folder / name)
        passed += not differing
        told = ", ".join(f"{moment:.2f} s ({what})" for moment, what in zip(moments, met))
        print(f"{name}: killed after {told}: {'equal' if not differing else f'DIFFERS in {differing}'}", flush=True)
        if not differing:
            shutil.rmtree(folder / name)
    print(f"{passed} of {options.trials} equal the undisturbed run bit for bit")
    sys.exit(passed < options.trials)


if __name__ == "__main__":
    main()
