"""What the quickstart found: report.json, a table in Markdown and, where matplotlib is installed, a picture.

Systems: *plain* was fine-tuned without switching; the others are one switchable checkpoint that keeps everything, or
runs its learned decisions, random ones of the same cost, or the learned ones of another input (shuffled).
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..common.files import SPLITS, count_lines, write_text
from ..common.repository import commit
from ..common.stages import Stages
from .commands import Settings

SYSTEMS = ("plain", "keep-all", "learned", "random", "shuffled")
BASELINE = "plain"
HYPOTHESES, SWITCHES = "generate-test.txt", "switches.json"
SHARES = ("cost", "attention_skipped", "ffn_skipped", "tokens_dropped")
PACKAGES = ("fairseq", "torch", "numpy", "tokenizers", "rouge-score")


def folder(out: Path, system: str) -> Path:
    """Where a system's hypotheses and switch report lie."""
    return out / "generated" / system


def generation_seconds(*outputs: Path) -> float:
    """What ``fairseq-generate`` says the beam search took, loading and scoring left out.

    It logs to the results file or to its standard error, whichever was set up first.
    """
    text = "".join(path.read_text(encoding="utf-8", errors="replace") for path in outputs)
    return float(re.findall(r"Translated [\d,]+ sentences .* in ([\d.]+)s", text)[-1])


def evaluate(out: Path, stages: Stages) -> dict[str, dict[str, Any]]:
    """ROUGE, cost and time of every system; the difference to plain with its paired bootstrap interval."""
    from fairseq_switchdec.scoring.bootstrap import paired_bootstrap
    from fairseq_switchdec.scoring.outputs import read_outputs
    from fairseq_switchdec.scoring.rouge import MEASURES, rouge_scores

    systems: dict[str, dict[str, Any]] = {}
    outputs = {system: read_outputs([folder(out, system) / HYPOTHESES]) for system in SYSTEMS}
    references = outputs[BASELINE].references
    scores = {}
    for system, found in outputs.items():
        if found.hypotheses.keys() != references.keys():
            raise ValueError(f"{system} and {BASELINE} did not generate the same inputs")
        ids = sorted(references)
        scores[system] = rouge_scores([references[i] for i in ids], [found.hypotheses[i] for i in ids])
        switches = folder(out, system) / SWITCHES
        report = json.loads(switches.read_text(encoding="utf-8")) if system != BASELINE else {"cost": 1.0}
        systems[system] = {
            **dict(zip(MEASURES, scores[system].mean(axis=0).tolist())),
            **{share: report.get(share, 0.0) for share in SHARES},
            "seconds": generation_seconds(folder(out, system) / HYPOTHESES, stages.log(f"generate-{system}")),
        }
    for system in SYSTEMS:
        interval = paired_bootstrap(scores[system][:, -1], scores[BASELINE][:, -1])
        systems[system]["rougeL_minus_plain"] = interval._asdict()
    return systems


def markdown(report: dict[str, Any]) -> str:
    """The report as people read it."""
    columns = ["system", "ROUGE-1", "ROUGE-2", "ROUGE-L", "R-L minus plain (95 %)", "cost", "attention skipped"]
    columns += ["ffn skipped", "tokens dropped", "seconds"]
    rows = [f"| {' | '.join(columns)} |", "|---" + "|--:" * (len(columns) - 1) + "|"]
    for name, system in report["systems"].items():
        interval = system["rougeL_minus_plain"]
        difference = "" if name == BASELINE else "{mean:+.2f} [{low:+.2f}, {high:+.2f}]".format(**interval)
        rouge = " | ".join(f"{system[measure]:.2f}" for measure in ("rouge1", "rouge2", "rougeL"))
        shares = " | ".join(f"{100 * system[share]:.1f} %" for share in SHARES)
        rows.append(f"| {name} | {rouge} | {difference} | {shares} | {system['seconds']:.1f} |")
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
    return "\n".join(rows) + "\n\n" + "\n\n".join(notes) + "\n"


def picture(report: dict[str, Any], path: Path) -> bool:
    """ROUGE-L over cost; False when matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for name, system in report["systems"].items():
        interval = system["rougeL_minus_plain"]
        below, above = (abs(interval[end] - interval["mean"]) for end in ("low", "high"))
        axes.errorbar(100 * system["cost"], system["rougeL"], yerr=[[below], [above]], fmt="o", capsize=3, label=name)
    axes.set_xlabel("cost: % of the keep-all FLOPs")
    axes.set_ylabel("ROUGE-L (bars: 95 % interval of the difference to plain)")
    axes.grid(alpha=0.3)
    axes.legend()
    temporary = path.with_name(path.name + ".part")
    figure.savefig(temporary, format="png", dpi=150)
    os.replace(temporary, path)
    return True


def corpus_sizes(corpus: Path) -> dict[str, int]:
    """Pairs by split."""
    return {split: count_lines(corpus / f"{split}.source") for split in SPLITS}


def write(out: Path, settings: Settings, stages: Stages, corpus: dict[str, int]) -> None:
    """Write report.json, report.md and report.png below ``out``, and print the table."""
    report = {
        "systems": evaluate(out, stages),
        "settings": asdict(settings),
        "corpus": corpus,
        "stage_seconds": {name: stages.seconds(name) for name in stages.fingerprints},
        "commit": commit(),
        "hardware": _hardware(),
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
    }
    write_text(out / "report.json", json.dumps(report, indent=1) + "\n")
    table = markdown(report)
    write_text(out / "report.md", table)
    drawn = picture(report, out / "report.png")
    print(f"\n{table}\nWritten: {out}/report.json, report.md" + (", report.png" if drawn else ""))
    if not drawn:
        print("No picture: matplotlib is not installed.")


def _hardware() -> str:
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{platform.machine()}, {os.cpu_count()} cores"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
