"""What the quickstart found: report.json, a table in Markdown and, where matplotlib is installed, a picture."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..common import comparison
from ..common.files import write_text
from ..common.repository import commit
from ..common.stages import Stages
from .commands import Settings

PACKAGES = ("fairseq", "torch", "numpy", "tokenizers", "rouge-score")


def markdown(report: dict[str, Any]) -> str:
    """The report as people read it."""
    seconds = ", ".join(f"{name} {spent:.0f}" for name, spent in report["stage_seconds"].items())
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    sizes = ", ".join(f"{split} {size:,}" for split, size in report["corpus"].items())
    updates = report["settings"]["updates"], report["settings"]["finetune_updates"]
    notes = [
        "Cost: share of the keep-all FLOPs, mean over the test inputs. Seconds: beam search alone.",
        f"Pairs: {sizes}. Updates: {updates[0]} from scratch, then {updates[1]} each for plain and switchable.",
        f"Seconds of each stage: {seconds}. Plain and switchable fine-tuning ran side by side.",
        f"Commit {report['commit']}; {report['hardware']}; {versions}.",
    ]
    return "\n\n".join([comparison.table(report["systems"]), *notes]) + "\n"


def write(settings: Settings, stages: Stages, corpus: Path) -> None:
    """Write report.json, report.md and report.png into the output folder, and print the table."""
    out = stages.out
    report = {
        "systems": comparison.evaluate(stages),
        "settings": asdict(settings),
        "corpus": comparison.corpus_sizes(corpus),
        "stage_seconds": {name: stages.seconds(name) for name in stages.fingerprints},
        "commit": commit(),
        "hardware": comparison.hardware(),
        "versions": comparison.versions(PACKAGES),
    }
    write_text(out / "report.json", json.dumps(report, indent=1) + "\n")
    table = markdown(report)
    write_text(out / "report.md", table)
    drawn = comparison.picture(report["systems"], out / "report.png")
    print(f"\n{table}\nWritten: {out}/report.json, report.md" + (", report.png" if drawn else ""))
    if not drawn:
        print("No picture: matplotlib is not installed.")
