"""The tables in the paper's columns, with intervals and seconds: results.md, results.json and two pictures."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fairseq_switchdec.errors import UserError
from fairseq_switchdec.files import write_text
from fairseq_switchdec.pictures.draw import Point, quality_figure, save

from ..common import comparison
from ..common.stages import Stages, records
from .plan import FIRST_WORDS, SYSTEMS, TABLES, TRAININGS, stage, student
from .speed import BATCH_SIZES

if TYPE_CHECKING:
    import numpy as np

BASELINE = "plain"


@dataclass(frozen=True)
class Outcome:
    """What came of a system, means over its seeds.

    Attributes:
        seeds: how many.
        scores: float64 (N, 3), ROUGE-1, -2 and -L of every input.
        figures: by name, what the columns show; of FIRST_WORDS there are none.
    """

    seeds: int
    scores: np.ndarray
    figures: dict[str, float]

    @property
    def rouge(self) -> list[float]:
        """ROUGE-1, -2 and -L."""
        means: list[float] = self.scores.mean(axis=0).tolist()
        return means


Cell = Callable[[Outcome, Outcome], str]


def percent(name: str) -> Cell:
    """A share."""
    return lambda outcome, baseline: f"{outcome.figures[name]:.1%}" if name in outcome.figures else ""


def number(name: str, form: str) -> Cell:
    """A figure."""
    return lambda outcome, baseline: format(outcome.figures[name], form) if name in outcome.figures else ""


def rouge(place: int) -> Cell:
    """ROUGE-1, -2 or -L."""
    return lambda outcome, baseline: f"{outcome.rouge[place]:.2f}"


def difference(outcome: Outcome, baseline: Outcome) -> str:
    """ROUGE-L over plain's of as many seeds."""
    if outcome is baseline:
        return ""
    mean, low, high = interval(outcome, baseline)
    return f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]"


#: Groups of columns: their heads, and what stands in them.
COLUMNS: dict[str, dict[str, Cell]] = {
    "rouge": {"R-1": rouge(0), "R-2": rouge(1), "R-L": rouge(2), "R-L minus plain (95 %)": difference},
    "cost": {"task loss": number("loss", ".3f"), "FLOPs": percent("cost")},
    "shares": {
        "attention skipped": percent("attention_skipped"),
        "feed-forward skipped": percent("ffn_skipped"),
        "tokens dropped": percent("tokens_dropped"),
    },
    "seconds": {
        "s an input, batch 1": number("seconds at 1", ".3f"),
        "batch 8": number("seconds at 8", ".3f"),
        "process MiB, batch 1": number("memory at 1", ",.0f"),
        "batch 8 ": number("memory at 8", ",.0f"),
    },
    "training": {
        "parameters": number("parameters", ",.0f"),
        "seconds an update": number("update", ".2f"),
        "process MiB": number("training memory", ",.0f"),
    },
}


def interval(outcome: Outcome, baseline: Outcome) -> tuple[float, float, float]:
    """ROUGE-L over plain's on the same inputs: mean, lower and upper end of the 95 % interval (paired bootstrap)."""
    from fairseq_switchdec.scoring.bootstrap import paired_bootstrap

    return tuple(paired_bootstrap(outcome.scores[:, -1], baseline.scores[:, -1]))  # type: ignore[return-value]


def read(system: str, seeds: Sequence[int], stages: Stages) -> Outcome:
    """What a system's stages left. A smaller model's cost is counted as a share of the whole one's."""
    import numpy as np

    from fairseq_switchdec.scoring.outputs import read_outputs
    from fairseq_switchdec.scoring.rouge import rouge_scores

    scores, figures, references = [], [], read_outputs([outputs(BASELINE, 1, stages)]).references
    for seed in seeds:
        plan = SYSTEMS[system].training
        name, training = stage("", system, seed), stage("train", plan, seed)
        folder = comparison.folder(stages.out, name)
        found = read_outputs([outputs(system, seed, stages)])
        if found.references != references:
            raise ValueError(f"{system} and {BASELINE} did not generate the same inputs")
        ids = sorted(references)
        scores.append(rouge_scores([found.references[i] for i in ids], [found.hypotheses[i] for i in ids]))
        switches = json.loads((folder / comparison.SWITCHES).read_text(encoding="utf-8"))
        shares = {share: float(switches[share]) for share in comparison.SHARES}
        if TRAININGS[plan].pruned:
            path = stages.out / "students" / f"{student(plan)}.json"
            shares["cost"] *= json.loads(path.read_text(encoding="utf-8"))["cost"]
        figures.append({**shares, **training_figures(stages.log(training))})
        if stages.memory(training):
            figures[-1]["training memory"] = stages.memory(training)
        losses = records(stages.log(f"loss-{name}"), "test") if stages.log(f"loss-{name}").exists() else []
        if losses:
            figures[-1]["loss"] = losses[-1]["test_nll_loss"] * math.log(2)
    means = {name: float(np.mean([each[name] for each in figures])) for name in set.intersection(*map(set, figures))}
    speed = stages.out / "speed" / "seconds.json"
    timed = json.loads(speed.read_text(encoding="utf-8")) if speed.exists() else {}
    for size in BATCH_SIZES:
        means |= {f"{figure} at {size}": value for figure, value in timed.get(f"{system} at {size}", {}).items()}
    return Outcome(len(seeds), np.mean(scores, axis=0), means)


def outputs(system: str, seed: int, stages: Stages) -> Path:
    """What a system wrote."""
    return comparison.folder(stages.out, stage("", system, seed)) / comparison.HYPOTHESES


def training_figures(log: Path) -> dict[str, float]:
    """Parameters, and seconds an update, validation and saving left out."""
    text = log.read_text(encoding="utf-8", errors="replace")
    counts = re.findall(r"num\. shared model params: ([\d,]+)", text)
    found = records(log, "train")
    figures = {"parameters": float(counts[-1].replace(",", ""))} if counts else {}
    if found:
        spent = sum(epoch["train_train_wall"] for epoch in found)  # fairseq counts them anew in each
        figures["update"] = spent / found[-1]["train_num_updates"]
    return figures


def first_words(stages: Stages) -> Outcome:
    """The beginning of every source, as long as references are on average."""
    from fairseq_switchdec.scoring.outputs import read_outputs
    from fairseq_switchdec.scoring.rouge import rouge_scores

    found = read_outputs([outputs(BASELINE, 1, stages)])
    ids = sorted(found.references)
    references = [found.references[i] for i in ids]
    length = round(sum(len(text.split()) for text in references) / len(references))
    beginnings = [" ".join(found.sources[i].split()[:length]) for i in ids]
    return Outcome(1, rouge_scores(references, beginnings), {})


def thresholds(runs: Sequence[tuple[str, int]], stages: Stages) -> dict[str, Any]:
    """The calibrations of early exits, by what their systems and seeds are called."""
    names = [stage("", system, seed) for system, seed in runs if SYSTEMS[system].exits]
    files = {name: stages.out / "thresholds" / f"{name}.json" for name in names}
    return {name: json.loads(path.read_text(encoding="utf-8")) for name, path in files.items()}


def table(name: str, outcomes: dict[str, Outcome], baselines: dict[int, Outcome]) -> str:
    """One of `TABLES` in Markdown.

    Args:
        baselines: plain's outcome of so many seeds.
    """
    cells = {head: cell for group in TABLES[name].columns for head, cell in COLUMNS[group].items()}
    lines = [f"| system | {' | '.join(cells)} | seeds |", "|---" + "|--:" * (len(cells) + 1) + "|"]
    for row in TABLES[name].rows:
        if row not in outcomes:  # the model has two stacks of layers, or it is on a GPU
            continue
        outcome = outcomes[row]
        baseline = outcome if row == BASELINE else baselines[outcome.seeds]
        shown = [cell(outcome, baseline) for cell in cells.values()]
        lines.append(f"| {row} | {' | '.join(shown)} | {outcome.seeds} |")
    return f"### Table {name}: {TABLES[name].title}\n\n" + "\n".join(lines)


def write(
    tables: Sequence[str],
    settings: Any,
    runs: Sequence[tuple[str, int]],
    stages: Stages,
    corpus: Path,
    commits: Sequence[str],
) -> None:
    """Write results.md, results.json and the pictures into the output folder, and print the tables.

    Args:
        runs: systems and seeds.
        corpus: folder of the pairs.
        commits: that made what is in the folder.
    """
    seeds: dict[str, list[int]] = {}
    for system, seed in runs:
        seeds.setdefault(system, []).append(seed)
    outcomes = {system: read(system, found, stages) for system, found in seeds.items()}
    baselines = {len(seeds[BASELINE]): outcomes[BASELINE], 1: read(BASELINE, [1], stages)}
    if any(FIRST_WORDS in TABLES[name].rows for name in tables):
        outcomes[FIRST_WORDS] = first_words(stages)
    calibrated = thresholds(runs, stages)
    shown = ", ".join(
        f"{name} {found['threshold']:g} (no less than {found['least_cost']:.0%} of the FLOPs with any)"
        for name, found in calibrated.items()
    )
    exits = f" Early exits decode one input at a time; thresholds: {shown}." if shown else ""
    sizes = ", ".join(f"{split} {size:,}" for split, size in comparison.corpus_sizes(corpus).items())
    versions = comparison.versions(comparison.PACKAGES)
    packages = ", ".join(f"{name} {version}" for name, version in versions.items())
    notes = [
        f"Pairs: {sizes}; {settings.updates} updates of {settings.batch_size}; beam {settings.beam}. ROUGE as "
        "`rouge-score` has it, with stemming. Intervals: paired bootstrap over the test inputs, of means over seeds. "
        "Task loss: nats a token of the references. Seconds and peak memory: medians of runs in turn, with the first "
        f"seed, on about 16 inputs; a student's include the layers that it does not run, as do its parameters.{exits}",
        f"Commit {', '.join(commits)}; {comparison.hardware()}; {packages}.",
    ]
    text = "\n\n".join([*(table(name, outcomes, baselines) for name in tables), *notes]) + "\n"
    content = {
        "systems": {
            name: {
                "seeds": outcome.seeds,
                "rouge": outcome.rouge,
                "rougeL_minus_plain": interval(outcome, baselines[outcome.seeds]),
                **outcome.figures,
            }
            for name, outcome in outcomes.items()
        },
        "tables": {name: {"title": TABLES[name].title, "rows": TABLES[name].rows} for name in tables},
        "thresholds": calibrated,
        "settings": asdict(settings),
        "stage_seconds": {name: stages.seconds(name) for name in stages.fingerprints},
        "commits": list(commits),
        "hardware": comparison.hardware(),
        "versions": versions,
    }
    write_text(stages.out / "results.json", json.dumps(content, indent=1) + "\n")
    write_text(stages.out / "results.md", text)
    files = ["results.md", "results.json"]
    try:
        files += draw(outcomes, baselines, stages.out)
    except UserError as error:
        text += f"\nNo pictures: {error}\n"
    print(f"\n{text}\nWritten: {stages.out}/{', '.join(files)}")


def draw(outcomes: dict[str, Outcome], baselines: dict[int, Outcome], out: Path) -> list[str]:
    """ROUGE-L of every system against its cost, and against its seconds; the files' names.

    Raises:
        UserError: matplotlib is missing.
    """
    files = {"cost": ("cost", "cost: share of the keep-all FLOPs"), "seconds": ("seconds at 1", "seconds an input")}
    drawn_files = []
    for file, (figure, label) in files.items():
        points = []
        for name, outcome in outcomes.items():
            if figure in outcome.figures:
                mean, low, high = interval(outcome, baselines[outcome.seeds])
                score = outcome.rouge[-1]
                points.append(Point(name, outcome.figures[figure], score, score + low - mean, score + high - mean))
        if points:
            drawn = quality_figure(points, "ROUGE-L (bars: 95 % interval of the difference to plain)", cost=label)
            save(drawn, out / f"{file}.png")
            drawn_files.append(f"{file}.png")
    return drawn_files
