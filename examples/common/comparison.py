"""A switchable model beside plain fine-tuning: how each system generates, and what came out.

*plain* was fine-tuned without switching; the others are one switchable checkpoint that keeps everything, or runs its
learned decisions, random ones of the same cost, or the learned ones of another input (shuffled).
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fairseq_switchdec.errors import UserError
from fairseq_switchdec.generation.reading import comparison_line
from fairseq_switchdec.pictures.draw import Point, decisions_figure, quality_figure, save

from .files import SPLITS, count_lines, write_text
from .repository import commit
from .stages import Stages

BASELINE = "plain"
SYSTEM_FLAGS = {  # what a system adds to the command that all share
    BASELINE: [],
    "keep-all": ["--switch-decisions", "keep-all"],
    "learned": ["--switch-decisions", "greedy"],
    "random": ["--switch-decisions", "random", "--switch-random-keep"],
    "shuffled": ["--switch-decisions", "shuffled"],
}
SYSTEMS = tuple(SYSTEM_FLAGS)
HYPOTHESES, SWITCHES = "generate-test.txt", "switches.json"
PACKAGES = ("fairseq", "torch", "numpy", "tokenizers", "rouge-score")
#: Whether the policy reads its input, in a switch report.
READING = ("paths", "most_frequent_path", "compared")
SHARES = ("cost", "attention_skipped", "ffn_skipped", "tokens_dropped")


def check_data(folder: Path) -> None:
    """Refuse a corpus that would fail, or be scored wrongly, half an hour later.

    Raises:
        UserError: naming the file.
    """
    for split in SPLITS:
        counts = {}
        for side in ("source", "target"):
            path = folder / f"{split}.{side}"
            if not path.is_file():
                raise UserError(f"--data {folder} lacks {path.name}: give {{train,valid,test}}.{{source,target}}")
            counts[side] = count_lines(path)
        if not counts["source"] or counts["source"] != counts["target"]:
            raise UserError(
                f"--data {folder}: {split}.source has {counts['source']} lines, {split}.target {counts['target']}; "
                "give one pair a line"
            )


def text_files(folder: Path, infix: str = "") -> list[Path]:
    """The six files of a corpus."""
    return [folder / f"{split}{infix}.{side}" for split in SPLITS for side in ("source", "target")]


def corpus_sizes(corpus: Path) -> dict[str, int]:
    """Pairs by split."""
    return {split: count_lines(corpus / f"{split}.source") for split in SPLITS}


# --- generation ---


def folder(out: Path, system: str) -> Path:
    """Where a system's hypotheses and switch report lie."""
    return out / "generated" / system


def generate_all(
    stages: Stages,
    command: Callable[[Path, Path], list[str]],
    checkpoint: Callable[[str], Path],
    random_keep: Callable[[dict[str, Any]], float],
    **options: Any,
) -> None:
    """A stage for every system.

    Args:
        command: of a checkpoint and a folder for what it generates.
        checkpoint: of the model ``plain`` or ``switchable``, which are the stages that made them.
        random_keep: the keep probability at which random decisions cost what the learned ones did, from the switch
            report of these.
        options: of `Stages.run`.
    """
    for system, flags in SYSTEM_FLAGS.items():
        model = BASELINE if system == BASELINE else "switchable"
        results, after = folder(stages.out, system), [model]
        makes = [results / HYPOTHESES]
        if system == "random":
            learned = json.loads((folder(stages.out, "learned") / SWITCHES).read_text(encoding="utf-8"))
            flags, after = [*flags, f"{random_keep(learned):.3f}"], ["generate-learned"]
        if system != BASELINE:
            makes.append(results / SWITCHES)
            flags = [*flags, "--switch-report", str(makes[-1])]
        results.mkdir(parents=True, exist_ok=True)
        words = [*command(checkpoint(model), results), *flags]
        stages.run(f"generate-{system}", words, makes=makes, after=after, wipe=makes, **options)


def generation_seconds(*outputs: Path) -> float:
    """What ``fairseq-generate`` says the beam search took, loading and scoring left out.

    It logs to the results file or to its standard error, whichever was set up first.
    """
    text = "".join(path.read_text(encoding="utf-8", errors="replace") for path in outputs)
    return float(re.findall(r"Translated [\d,]+ sentences .* in ([\d.]+)s", text)[-1])


# --- what came out ---


def evaluate(stages: Stages) -> dict[str, dict[str, Any]]:
    """ROUGE, cost and time of every system; the difference to plain with its paired bootstrap interval."""
    from fairseq_switchdec.scoring.bootstrap import paired_bootstrap
    from fairseq_switchdec.scoring.outputs import read_outputs
    from fairseq_switchdec.scoring.rouge import MEASURES, rouge_scores

    systems: dict[str, dict[str, Any]] = {}
    outputs = {system: read_outputs([folder(stages.out, system) / HYPOTHESES]) for system in SYSTEMS}
    references = outputs[BASELINE].references
    scores = {}
    for system, found in outputs.items():
        if found.hypotheses.keys() != references.keys():
            raise ValueError(f"{system} and {BASELINE} did not generate the same inputs")
        ids = sorted(references)
        scores[system] = rouge_scores([references[i] for i in ids], [found.hypotheses[i] for i in ids])
        switches = folder(stages.out, system) / SWITCHES
        report = json.loads(switches.read_text(encoding="utf-8")) if system != BASELINE else {"cost": 1.0}
        systems[system] = {
            **dict(zip(MEASURES, scores[system].mean(axis=0).tolist())),
            **{share: report.get(share, 0.0) for share in SHARES},
            "seconds": generation_seconds(folder(stages.out, system) / HYPOTHESES, stages.log(f"generate-{system}")),
        }
    for system in SYSTEMS:
        interval = paired_bootstrap(scores[system][:, -1], scores[BASELINE][:, -1])
        systems[system]["rougeL_minus_plain"] = interval._asdict()
    return systems


def make_report(settings: Any, stages: Stages, corpus: Path) -> dict[str, Any]:
    """What report.json holds of every comparison.

    Args:
        settings: a dataclass.
        corpus: folder of the texts.
    """
    learned = json.loads((folder(stages.out, "learned") / SWITCHES).read_text(encoding="utf-8"))
    return {
        "systems": evaluate(stages),
        "reading": {name: learned[name] for name in READING if name in learned},
        "settings": asdict(settings),
        "corpus": corpus_sizes(corpus),
        "stage_seconds": {name: stages.seconds(name) for name in stages.fingerprints},
        "commit": commit(),
        "hardware": hardware(),
        "versions": versions(PACKAGES),
    }


def notes(report: dict[str, Any], updates: str, seconds: str) -> list[str]:
    """What must be known to read the table.

    Args:
        updates: how long the models were trained.
        seconds: what stands before the seconds of each stage.
    """
    stages = ", ".join(f"{name} {spent:.0f}" for name, spent in report["stage_seconds"].items())
    packages = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    sizes = ", ".join(f"{split} {size:,}" for split, size in report["corpus"].items())
    return [
        "Cost: share of the keep-all FLOPs, mean over the test inputs. Seconds: beam search alone.",
        f"Learned decisions: {comparison_line(report['reading'])}.",
        f"Pairs: {sizes}. Updates: {updates}.",
        f"{seconds}: {stages}.",
        f"Commit {report['commit']}; {report['hardware']}; {packages}.",
    ]


def write_report(report: dict[str, Any], text: str, out: Path) -> None:
    """Write report.json, report.md and, with matplotlib, pictures into the output folder, and print the text."""
    write_text(out / "report.json", json.dumps(report, indent=1) + "\n")
    write_text(out / "report.md", text)
    files = ["report.json", "report.md"]
    try:
        files += draw(report["systems"], out)
    except UserError as error:
        text += f"\nNo pictures: {error}\n"
    print(f"\n{text}\nWritten: {out}/{', '.join(files)}")


def table(systems: dict[str, dict[str, Any]]) -> str:
    """The figures as people read them, in Markdown."""
    columns = ["system", "ROUGE-1", "ROUGE-2", "ROUGE-L", "R-L minus plain (95 %)", "cost", "attention skipped"]
    columns += ["ffn skipped", "tokens dropped", "seconds"]
    rows = [f"| {' | '.join(columns)} |", "|---" + "|--:" * (len(columns) - 1) + "|"]
    for name, system in systems.items():
        interval = system["rougeL_minus_plain"]
        difference = "" if name == BASELINE else "{mean:+.2f} [{low:+.2f}, {high:+.2f}]".format(**interval)
        rouge = " | ".join(f"{system[measure]:.2f}" for measure in ("rouge1", "rouge2", "rougeL"))
        shares = " | ".join(f"{100 * system[share]:.1f} %" for share in SHARES)
        rows.append(f"| {name} | {rouge} | {difference} | {shares} | {system['seconds']:.1f} |")
    return "\n".join(rows)


def draw(systems: dict[str, dict[str, Any]], out: Path) -> list[str]:
    """Draw ROUGE-L against cost and, of the learned decisions, what each test input runs; the files' names.

    Raises:
        UserError: matplotlib is missing.
    """
    points = []
    for name, system in systems.items():
        mean, low, high = (system["rougeL_minus_plain"][part] for part in ("mean", "low", "high"))
        rouge = system["rougeL"]
        points.append(Point(name, system["cost"], rouge, rouge + low - mean, rouge + high - mean))
    figure = quality_figure(points, "ROUGE-L (bars: 95 % interval of the difference to plain)")
    save(figure, out / "report.png")
    learned = json.loads((folder(out, "learned") / SWITCHES).read_text(encoding="utf-8"))
    save(decisions_figure(learned["per_input"], "learned decisions, test inputs"), out / "decisions.png")
    return ["report.png", "decisions.png"]


def hardware() -> str:
    """What it ran on."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{platform.machine()}, {os.cpu_count()} cores"


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Of Python and of packages."""
    return {"python": platform.python_version(), **{name: _version(name) for name in packages}}


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
