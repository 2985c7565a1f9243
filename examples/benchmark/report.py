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

from fairseq_switchdec.cost import Geometry, Keep, Lengths
from fairseq_switchdec.decisions import DecisionSpace
from fairseq_switchdec.files import write_text

from ..common.repository import commit
from .decisions import KEEP_ALL, in_turn
from .options import Options
from .setup import TITLES, Lane, Shape

LIBRARIES = ("torch", "fairseq", "fairseq_switchdec", "transformers", "ctranslate2", "llama_cpp_python", "numpy")


@dataclass
class Case:
    """One lane at one batch and beam size, ours under one choice of decisions; its runs, in seconds.

    Attributes:
        decisions: ``keep-all`` or a file's name.
        entries: what that file says, see `decisions.read`.
        peak: bytes.
    """

    batch: int
    beam: int
    lane: Lane
    decisions: str = KEEP_ALL
    entries: list[dict[str, Any]] | None = None
    encoder: list[float] = field(default_factory=list)
    total: list[float] = field(default_factory=list)
    peak: int | None = None

    def __str__(self) -> str:
        return f"batch {self.batch}, beam {self.beam}, {self.lane}" + (
            f", {self.decisions}" if self.lane.system == "ours" else ""
        )


def geometry_of(shape: Shape, vocabulary: int) -> Geometry:
    """What a model's FLOPs depend on."""
    stacks, ffn = shape.stacks, shape.ffn_dim
    if shape.key_value_heads is None:
        return Geometry(*stacks, shape.dim, shape.dim, ffn, ffn, vocabulary)
    keys = shape.key_value_heads * shape.dim // shape.heads
    return Geometry(*stacks, shape.dim, shape.dim, ffn, 0, vocabulary, key_dim=keys, ffn_products=3)


def flops_share(case: Case, options: Options, inputs: list[list[list[int]]], outside_output: bool = False) -> float:
    """FLOPs of all inputs on their paths over those of the keep-all paths, in (0, 1] (`fairseq_switchdec.cost`).

    Args:
        inputs: the sources' tokens, batch by batch.
        outside_output: without the output projection's, which nothing skips.
    """
    shape = options.shape
    entries = [in_turn(case.entries, len(batch), shape.stacks) for batch in inputs]
    decisions = DecisionSpace(*shape.stacks).from_json([entry for batch in entries for entry in batch])
    source = torch.tensor([len(row) for batch in inputs for row in batch])
    target = torch.full_like(source, options.out_len + 1)
    content = (source - 2).clamp(min=0)
    if shape.decoder_only:  # the prompt's last token belongs to the first step
        source = source - 1
    geometry = geometry_of(shape, 0 if outside_output else shape.vocabulary)
    lengths = Lengths(source, content, target, case.beam)
    path, whole = Keep.of(decisions, lengths), Keep.uniform(geometry, lengths, 1.0)
    return float(geometry.spend(path, lengths).sum() / geometry.spend(whole, lengths).sum())


def skip_efficiency(seconds: float, keep_all_seconds: float, share: float) -> float | None:
    """Share of the time saved over the share of the FLOPs saved; None where no FLOPs are saved."""
    return None if share >= 1 else (1 - seconds / keep_all_seconds) / (1 - share)


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and range."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def summarize(
    cases: Sequence[Case], options: Options, inputs: dict[int, list[list[list[int]]]]
) -> list[dict[str, Any]]:
    """What is reported of every case.

    Args:
        inputs: by batch size, the sources' tokens, batch by batch.
    """
    median = {(case.batch, case.beam, case.lane, case.decisions): statistics.median(case.total) for case in cases}
    rows = []
    for case in cases:
        seconds = median[case.batch, case.beam, case.lane, case.decisions]
        run = (options.out_len + 1) * len(inputs[case.batch])
        steps = [(t - e) / run for t, e in zip(case.total, case.encoder)]
        row = {
            "batch": case.batch,
            "beam": case.beam,
            "system": case.lane.system,
            "precision": case.lane.precision,
            "decisions": case.decisions if case.lane.system == "ours" else None,
            "encoder_seconds": spread(case.encoder),
            "step_seconds": spread(steps),
            "total_seconds": spread(case.total),
            "ratio_to_reference": seconds / median[case.batch, case.beam, options.reference, KEEP_ALL],
            "peak_bytes": case.peak,
            "flops_share": None,
            "flops_share_outside_output": None,
            "skip_efficiency": None,
            "runs": {"encoder": case.encoder, "total": case.total},
        }
        if case.lane.system == "ours":
            row["flops_share"] = share = flops_share(case, options, inputs[case.batch])
            row["flops_share_outside_output"] = flops_share(case, options, inputs[case.batch], outside_output=True)
            row["skip_efficiency"] = skip_efficiency(seconds, median[case.batch, case.beam, case.lane, KEEP_ALL], share)
        rows.append(row)
    return rows


def table(rows: Sequence[dict[str, Any]], options: Options) -> str:
    """The cases in Markdown."""
    source, reference = options.kind.source, options.reference
    lines = [
        f"| batch | beam | system | {source} s | step ms | total s (range) | / {reference} | peak MiB | FLOPs "
        "| efficiency |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        total = row["total_seconds"]
        cells = [
            row["batch"],
            row["beam"],
            title(row),
            f"{row['encoder_seconds']['median']:.3f}",
            f"{row['step_seconds']['median'] * 1000:.2f}",
            f"{total['median']:.3f} ({total['min']:.3f} to {total['max']:.3f})",
            f"{row['ratio_to_reference']:.3f}",
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
