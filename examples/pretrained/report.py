"""What the example found: report.json, a table and five summaries in Markdown and, with matplotlib, a picture."""

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

SHOWN = 5  # inputs with their summaries
LONGEST = 400  # characters of an input that are shown
PACKAGES = ("fairseq", "torch", "numpy", "tokenizers", "rouge-score")


def skipped(entry: dict[str, Any]) -> str:
    """What an input skipped, in words, from its part of the switch report."""
    parts = []
    for kind, name in (("attention_keep", "attention"), ("ffn_keep", "feed-forward")):
        layers = [str(layer) for layer, keep in enumerate(entry[kind], 1) if not keep]
        if layers:
            parts.append(f"{name} of layer{'s' * (len(layers) > 1)} {', '.join(layers)}")
    if entry["token_strategy"]:
        parts.append(f"{comparison.STRATEGIES[entry['token_strategy']]} of the article's tokens")
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
    seconds = ", ".join(f"{name} {spent:.0f}" for name, spent in report["stage_seconds"].items())
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    sizes = ", ".join(f"{split} {size:,}" for split, size in report["corpus"].items())
    minutes = sum(report["stage_seconds"].values()) / 60
    parts = [
        comparison.table(report["systems"]),
        "Cost: share of the keep-all FLOPs, mean over the test inputs. Seconds: beam search alone.",
        f"Pairs: {sizes}. Updates: {report['settings']['updates']} each for plain and switchable.",
        f"{minutes:.0f} minutes; seconds of each stage: {seconds}.",
        f"Commit {report['commit']}; {report['hardware']}; {versions}.",
        *(_example(number, example) for number, example in enumerate(report["examples"], 1)),
    ]
    return "\n\n".join(parts) + "\n"


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
    """Write report.json, report.md and report.png into the output folder, and print the table and the summaries."""
    out = stages.out
    report = {
        "systems": comparison.evaluate(stages),
        "examples": examples(out),
        "settings": asdict(settings),
        "corpus": comparison.corpus_sizes(corpus),
        "stage_seconds": {name: stages.seconds(name) for name in stages.fingerprints},
        "commit": commit(),
        "hardware": comparison.hardware(),
        "versions": comparison.versions(PACKAGES),
    }
    write_text(out / "report.json", json.dumps(report, indent=1) + "\n")
    text = markdown(report)
    write_text(out / "report.md", text)
    drawn = comparison.picture(report["systems"], out / "report.png")
    print(f"\n{text}\nWritten: {out}/report.json, report.md" + (", report.png" if drawn else ""))
