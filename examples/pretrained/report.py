"""What the example found: report.json, a table and five summaries in Markdown and, with matplotlib, pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..common import comparison, samples
from ..common.stages import Stages
from .commands import Settings

SHOWN = 5  # inputs with their summaries


def markdown(report: dict[str, Any]) -> str:
    """The report as people read it."""
    minutes = sum(report["stage_seconds"].values()) / 60
    updates = f"{report['settings']['updates']} each for plain and switchable"
    notes = comparison.notes(report, updates, f"{minutes:.0f} minutes in all; seconds of each stage")
    return "\n\n".join([comparison.table(report["systems"]), *notes, *samples.markdown(report["samples"])]) + "\n"


def write(settings: Settings, stages: Stages, corpus: Path) -> None:
    """Write the report's files into the output folder, and print the table and the summaries."""
    report = {**comparison.make_report(settings, stages, corpus), "samples": samples.read(stages.out, SHOWN)}
    comparison.write_report(report, markdown(report), stages.out)
