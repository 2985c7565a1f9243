"""From measured seconds to what is reported: medians, ratios, efficiency; the table, results.json and the plot."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shlex
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from fairseq_switchdec.cost import Geometry, Lengths, cost
from fairseq_switchdec.decisions import DecisionSpace
from fairseq_switchdec.files import write_text

from ..common.repository import commit
from .decisions import KEEP_ALL, in_turn
from .options import REFERENCE, Options
from .setup import GEOMETRIES, TITLES, Lane, Shape

LIBRARIES = ("torch", "fairseq", "fairseq_switchdec", "transformers", "ctranslate2", "numpy")


@dataclass
class Case:
    """One lane at one batch size, ours under one choice of decisions; its runs, in seconds.

    Attributes:
        decisions: ``keep-all`` or a file's name.
        entries: what that file says, see `decisions.read`.
        peak: bytes.
    """

    batch: int
    lane: Lane
    decisions: str = KEEP_ALL
    entries: list[dict[str, Any]] | None = None
    encoder: list[float] = field(default_factory=list)
    total: list[float] = field(default_factory=list)
    peak: int | None = None

    def __str__(self) -> str:
        return f"batch {self.batch}, {self.lane}" + (f", {self.decisions}" if self.lane.system == "ours" else "")


def flops_share(shape: Shape, entries: list[dict[str, Any]] | None, batch: int, options: Options) -> float:
    """FLOPs of a batch on its inputs' paths over those of the keep-all paths, in (0, 1] (`fairseq_switchdec.cost`)."""
    space = DecisionSpace(shape.layers, shape.layers)
    decisions = space.from_json(in_turn(entries, batch, shape.layers))
    layers, dim, ffn = (shape.layers,) * 2, (shape.dim,) * 2, (shape.ffn_dim,) * 2
    geometry = Geometry(*layers, *dim, *ffn, vocabulary=shape.vocabulary)
    source = torch.full((batch,), options.src_len)
    lengths = Lengths(source, source - 2, torch.full((batch,), options.out_len + 1), options.beam)
    return float(cost(geometry, decisions, lengths).mean())  # all inputs have the same lengths


def skip_efficiency(seconds: float, keep_all_seconds: float, share: float) -> float | None:
    """Share of the time saved over the share of the FLOPs saved; None where no FLOPs are saved."""
    return None if share >= 1 else (1 - seconds / keep_all_seconds) / (1 - share)


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and range."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def summarize(cases: Sequence[Case], options: Options) -> list[dict[str, Any]]:
    """What is reported of every case."""
    median = {(case.batch, case.lane, case.decisions): statistics.median(case.total) for case in cases}
    shape = GEOMETRIES[options.geometry]
    rows = []
    for case in cases:
        seconds = median[case.batch, case.lane, case.decisions]
        steps = [(t - e) / (options.out_len + 1) for t, e in zip(case.total, case.encoder)]
        row = {
            "batch": case.batch,
            "system": case.lane.system,
            "precision": case.lane.precision,
            "decisions": case.decisions if case.lane.system == "ours" else None,
            "encoder_seconds": spread(case.encoder),
            "step_seconds": spread(steps),
            "total_seconds": spread(case.total),
            "ratio_to_stock": seconds / median[case.batch, REFERENCE, KEEP_ALL],
            "peak_bytes": case.peak,
            "flops_share": None,
            "skip_efficiency": None,
            "runs": {"encoder": case.encoder, "total": case.total},
        }
        if case.lane.system == "ours":
            row["flops_share"] = share = flops_share(shape, case.entries, case.batch, options)
            row["skip_efficiency"] = skip_efficiency(seconds, median[case.batch, case.lane, KEEP_ALL], share)
        rows.append(row)
    return rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The cases in Markdown."""
    lines = [
        "| batch | system | encoder s | step ms | total s (range) | / stock fp32 | peak MiB | FLOPs | efficiency |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        total = row["total_seconds"]
        cells = [
            row["batch"],
            title(row),
            f"{row['encoder_seconds']['median']:.3f}",
            f"{row['step_seconds']['median'] * 1000:.2f}",
            f"{total['median']:.3f} ({total['min']:.3f} to {total['max']:.3f})",
            f"{row['ratio_to_stock']:.3f}",
            "" if row["peak_bytes"] is None else f"{row['peak_bytes'] / 2**20:.0f}",
            "" if row["flops_share"] is None else f"{row['flops_share']:.1%}",
            "" if row["skip_efficiency"] is None else f"{row['skip_efficiency']:.2f}",
        ]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def title(row: dict[str, Any]) -> str:
    """What a case is called."""
    name = f"{TITLES[row['system']]} {row['precision']}"
    return name if row["decisions"] is None else f"{name}, {row['decisions'].removesuffix('.json')}"


def surroundings(options: Options) -> dict[str, Any]:
    """The command, the commit and the hardware of a run, and the versions of what it ran."""
    versions = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "command": shlex.join(["bash", "examples/benchmark/run.sh", *sys.argv[1:]]),
        "commit": commit(),
        "hardware": {
            "processor": processor(),
            "cores": os.cpu_count(),
            "threads": options.threads,
            "gpu": torch.cuda.get_device_name() if options.device == "cuda" else None,
        },
        "versions": versions,
        "settings": options.to_json(),
    }


def processor() -> str:
    """The model name of the CPU."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def write(out: Path, name: str, content: dict[str, Any], markdown: str) -> None:
    """``NAME.json`` and ``NAME.md``."""
    write_text(out / f"{name}.json", json.dumps(content, indent=1) + "\n")
    write_text(out / f"{name}.md", markdown)
