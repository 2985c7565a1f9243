"""What the example found: report.json, a table and five summaries in Markdown and, with matplotlib, pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fairseq_switchdec.tokens import STRATEGY_NAMES

from ..common import comparison
from ..common.stages import Stages
from .commands import Settings

SHOWN = 5  # inputs with their summaries
LONGEST = 400  # characters of an input that are shown


def skipped(entry: dict[str, Any]) -> str:
    """What an input skipped, in words, from its part of the switch report."""
    parts = []
    for kind, name in (("attention_keep", "attention"), ("ffn_keep", "feed-forward")):
        layers = [str(layer) for layer, keep in enumerate(entry[kind], 1) if not keep]
        if layers:
            parts.append(f"{name} of layer{'s' * (len(layers) > 1)} {', '.join(layers)}")
    if entry["token_strategy"]:
        parts.append(f"{STRATEGY_NAMES[entry['token_strategy']]} of the article's tokens")
    return "; ".join(parts) or "nothing"


def examples(out: Path) -> list[dict[str, Any]]:
    """The first inputs of the test set with what plain and switchable made of them, and what was skipped."""
    from fairseq_switchdec.scoring.outputs import read_outputs

    plain = read_outputs([comparison.folder(out, comparison.BASELINE) / comparison.HYPOTHESES])
    learned = read_outputs([comparison.folder(out, "learned") / comparison.HYPOTHESES])
    switches = json.loads((comparison.folder(out, "learned") / comparison.SWITCHES).read_text(encoding="utf-8"))
    return [
        {
            "article": learned.sources[entry["id"]].strip(),
            "reference": learned.references[entry["id"]].strip(),
            "plain": plain.hypotheses[entry["id"]].strip(),
            "learned": learned.hypotheses[entry["id"]].strip(),
            "cost": entry["cost"],
            "skipped": skipped(entry),
        }
        for entry in switches["per_input"][:SHOWN]
    ]


def markdown(report: dict[str, Any]) -> str:
    """The report as people read it."""
    minutes = sum(report["stage_seconds"].values()) / 60
    updates = f"{report['settings']['updates']} each for plain and switchable"
    notes = comparison.notes(report, updates, f"{minutes:.0f} minutes in all; seconds of each stage")
    shown = [_example(number, example) for number, example in enumerate(report["examples"], 1)]
    return "\n\n".join([comparison.table(report["systems"]), *notes, *shown]) + "\n"


def _example(number: int, example: dict[str, Any]) -> str:
    article = example["article"]
    article = article if len(article) <= LONGEST else article[:LONGEST].rsplit(" ", 1)[0] + " ..."
    return "\n".join(
        [
            f"**{number}.** {article}",
            "",
            f"- reference: {example['reference']}",
            f"- plain: {example['plain']}",
            f"- switchable, at {example['cost']:.0%} of the FLOPs: {example['learned']}",
            f"- skipped: {example['skipped']}",
        ]
    )


def write(settings: Settings, stages: Stages, corpus: Path) -> None:
    """Write the report's files into the output folder, and print the table and the summaries."""
    report = {**comparison.make_report(settings, stages, corpus), "examples": examples(stages.out)}
    comparison.write_report(report, markdown(report), stages.out)
