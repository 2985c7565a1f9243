"""Times systems in turn: seconds of generating, one input at a time and several, and the peak of memory.

    python -m examples.paper.speed SYSTEMS.json OUT.json --rounds 3

SYSTEMS.json holds for each system its words of ``fairseq-generate`` and the largest batch that it can generate. In
every round each system generates once in each batch size, in a process of its own; what is reported are medians over
the rounds. Killed, the same command goes on with the next run; what another command has measured before is measured
again.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from fairseq_switchdec.errors import UserError
from fairseq_switchdec.files import write_text

from ..common import comparison
from ..common.command_line import command_line
from ..common.stages import terminable, wait

BATCH_SIZES = (1, 8)


def shards(pairs: int, inputs: int, batch_size: int) -> int:
    """Into how many parts a test set goes so that one of them has about so many inputs, at least a batch."""
    return max(1, pairs // max(inputs, batch_size))


def time_once(words: Sequence[str], batch_size: int, parts: int) -> dict[str, float]:
    """Seconds an input and peak MiB of one run.

    Raises:
        UserError: it failed; with the end of what it printed.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "log"
        more = [
            "--batch-size",
            str(batch_size),
            "--num-shards",
            str(parts),
            "--shard-id",
            "0",
            "--results-path",
            folder,
        ]
        with out.open("w") as log, terminable():
            process = subprocess.Popen([*words, *more], stdout=log, stderr=subprocess.STDOUT)
            try:
                status, peak = wait(process)
            finally:  # a termination may not leave it running beside the next one that is timed
                if process.poll() is None:
                    process.terminate()
                    process.wait()
        printed = out.read_text(encoding="utf-8", errors="replace")
        if status:
            raise UserError(f"{printed[-2000:]}\n{' '.join(words)} ended with status {status}")
        hypotheses = Path(folder) / comparison.HYPOTHESES
        count = sum(line.startswith("H-") for line in hypotheses.read_text(encoding="utf-8").split("\n"))
        return {"seconds": comparison.generation_seconds(hypotheses, out) / count, "memory": peak}


def measure(
    systems: dict[str, Any], rounds: int, parts: dict[int, int], path: Path
) -> dict[str, list[dict[str, float]]]:
    """All runs of all systems, by ``SYSTEM at BATCH_SIZE``; those that ``path`` holds of the same command are not
    repeated.

    Args:
        parts: for each batch size, of how many the test set is one.
    """
    kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    found: dict[str, list[dict[str, float]]] = {}
    for turn in range(rounds):
        for batch_size, count in parts.items():
            for name, system in systems.items():
                if batch_size > system["batch"]:
                    continue
                key, how = f"{name} at {batch_size}", [*system["command"], str(count)]
                entry = kept.get(key)
                if entry is None or entry["how"] != how:
                    entry = kept[key] = {"how": how, "runs": []}
                if len(entry["runs"]) <= turn:
                    entry["runs"].append(time_once(system["command"], batch_size, count))
                    write_text(path, json.dumps(kept))
                    seconds = entry["runs"][-1]["seconds"]
                    print(f"round {turn + 1}, {key}: {seconds:.3f} s an input", flush=True)
                found[key] = entry["runs"][:rounds]
    return found


def main() -> None:
    parser = command_line(__doc__, __spec__.name)
    parser.add_argument("systems", type=Path, metavar="SYSTEMS.json")
    parser.add_argument("out", type=Path, metavar="OUT.json")
    parser.add_argument("--pairs", type=int, required=True, help="of the test set")
    parser.add_argument("--inputs", type=int, default=16, help="of them that are timed, about (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    systems = json.loads(args.systems.read_text(encoding="utf-8"))
    parts = {size: shards(args.pairs, args.inputs, size) for size in BATCH_SIZES}
    found = measure(systems, args.rounds, parts, args.out.with_suffix(".runs.json"))
    medians = {
        name: {figure: median(run[figure] for run in runs) for figure in ("seconds", "memory")}
        for name, runs in found.items()
    }
    write_text(args.out, json.dumps(medians, indent=1) + "\n")
    print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
