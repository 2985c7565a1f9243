"""What the quickstart found: report.json, a table and three summaries in Markdown and, with matplotlib, pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..common import comparison, samples
from ..common.stages import Stages
from .commands import Settings

SHOWN = 3  # inputs with their summaries


def markdown(report: dict[str, Any]) -> str:
    """The report as people read it."""
    settings = report["settings"]
    updates = (
        f"{settings['updates']} from scratch, then {settings['finetune_updates']} each for plain and switchable, which "
        "ran side by side"
    )
    notes = comparison.notes(report, updates, "Seconds of each stage")
    return "\n\n".join([comparison.table(report["systems"]), *notes, *samples.markdown(report["samples"])]) + "\n"


def write(settings: Settings, stages: Stages, corpus: Path) -> None:
    """Write the report's files into the output folder, and print the table and the summaries."""
    report = {**comparison.make_report(settings, stages, corpus), "samples": samples.read(stages.out, SHOWN)}
    comparison.write_report(report, markdown(report), stages.out)
