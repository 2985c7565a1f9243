"""The pictures: what a policy runs for each input, and quality against cost. Readable in black and white."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..errors import UserError
from ..generation.reading import path_key

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = (".png", ".svg", ".pdf")
#: Systems are told apart by marker and line, not by colour alone.
MARKERS, LINES = "osD^v<>P*X", ("-", "--", ":", "-.")
DARK = "#1f3b57"
#: Of a figure's cells, dots an inch, and inches.
DPI, WIDTH = 150, 10.0
#: Paths that get a bar of their own.
MOST_PATHS = 12


class Point(NamedTuple):
    """A system's place in quality against cost.

    Attributes:
        cost: share of the keep-all FLOPs.
        quality: its mean; ``low`` and ``high`` are the ends of its confidence interval.
        kind: what it has in common with others, or nothing.
    """

    name: str
    cost: float
    quality: float
    low: float
    high: float
    kind: str = ""


def new_figure(width: float, height: float) -> Figure:
    """An empty figure that needs no screen.

    Raises:
        UserError: matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError("pictures need matplotlib: pip install matplotlib") from None
    return Figure(figsize=(width, height), layout="constrained")


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure in the format that the file's name ends with; an old file stays until the new one is there."""
    target = Path(os.path.realpath(path))
    kind = target.suffix[1:].lower()
    temporary = target.with_name(f"{target.name}.{os.getpid()}.tmp")
    try:  # without a date, the same picture has the same bytes
        figure.savefig(temporary, format=kind, dpi=DPI, metadata={} if kind == "png" else {date_key(kind): None})
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def date_key(kind: str) -> str:
    """What a format calls the date that it was made."""
    return "CreationDate" if kind == "pdf" else "Date"


def decisions_figure(entries: Sequence[dict[str, Any]], title: str, groups: Sequence[str] | None = None) -> Figure:
    """What every input runs, how often each sublayer does, what inputs cost, and how many paths there are.

    Args:
        entries: of a report's ``per_input``, at least one.
        groups: the kind of each input, if they have kinds: inputs of a kind stand together.
    """
    labels, keep = sublayer_table(entries)
    costs = np.array([entry["cost"] for entry in entries])
    order = np.lexsort((costs, groups)) if groups is not None else np.argsort(costs, kind="stable")
    figure = new_figure(max(WIDTH, 4 + 0.16 * len(labels)), 6.5)
    grid = figure.add_gridspec(2, 2, width_ratios=(3, 1), height_ratios=(3, 1))
    inputs, runs, cost, paths = (figure.add_subplot(grid[place]) for place in ((0, 0), (1, 0), (0, 1), (1, 1)))
    figure.suptitle(title)

    inputs.imshow(keep[order], cmap="binary", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    inputs.set_title("what each input runs (black)", fontsize=9)
    inputs.set_ylabel("inputs, by cost" if groups is None else "inputs, by kind and cost")
    inputs.set_xticks([])
    if groups is not None:
        kinds = [groups[place] for place in order]
        starts = [place for place, kind in enumerate(kinds) if place == 0 or kinds[place - 1] != kind]
        inputs.set_yticks(starts, [kinds[place] for place in starts])
        for start in starts[1:]:
            inputs.axhline(start - 0.5, color="grey", linewidth=0.8)

    runs.bar(range(len(labels)), keep.mean(0), color=DARK, width=0.8)
    runs.set_xlim(-0.5, len(labels) - 0.5)
    runs.set_ylim(0, 1)
    runs.set_ylabel("share that run it")
    runs.set_xticks(range(len(labels)), labels, rotation=90, fontsize=6 if len(labels) > 30 else 8)

    histogram(cost, [("", costs)])
    path_bars(paths, entries)
    return figure


def sublayer_table(entries: Sequence[dict[str, Any]]) -> tuple[list[str], np.ndarray]:
    """Names of the sublayers and of the tokens, in the order they run in, and what share of each every input runs.

    Returns:
        names; and float ``[inputs, names]``: 1 runs, 0 does not; of ``tokens``, the share that stay.
    """
    attention, ffn, cross = (
        np.array([entry[name] for entry in entries], dtype=float)
        for name in ("attention_keep", "ffn_keep", "cross_attention_keep")
    )
    stay = [1 - entry["tokens_dropped"] for entry in entries]
    decoder = cross.shape[1] if cross.ndim == 2 else 0
    encoder = attention.shape[1] - decoder
    names: list[str] = []
    columns = []
    for layer in range(attention.shape[1]):
        decoding = layer >= encoder
        place = f"{'d' if decoding else 'e' if decoder else ''}{layer - encoder * decoding + 1}"
        names += [f"{place} attention"] + [f"{place} cross"] * decoding + [f"{place} ffn"]
        columns += [attention[:, layer]] + ([cross[:, layer - encoder]] if decoding else []) + [ffn[:, layer]]
        if layer == 0:  # tokens are dropped after it
            names.append("tokens")
            columns.append(np.array(stay))
    return names, np.stack(columns, axis=1)


def histogram(axes: Axes, systems: Sequence[tuple[str, np.ndarray]]) -> None:
    """How many inputs cost how much."""
    low = min(float(costs.min()) for _, costs in systems)
    bins = np.linspace(math.floor(20 * min(low, 0.95)) / 20, 1.0, 21)
    for number, (name, costs) in enumerate(systems):
        if len(systems) == 1:
            axes.hist(np.clip(costs, bins[0], 1), bins=bins.tolist(), color=DARK)
            axes.axvline(float(costs.mean()), color="black", linestyle="--", linewidth=1)
            axes.set_title(f"cost (mean {costs.mean():.1%})", fontsize=9)
        else:
            line = LINES[number % len(LINES)]
            axes.hist(np.clip(costs, bins[0], 1), bins=bins.tolist(), histtype="step", linestyle=line, label=name)
    axes.set_xlabel("share of the keep-all FLOPs")
    axes.set_ylabel("inputs")
    axes.spines[["top", "right"]].set_visible(False)


def path_bars(axes: Axes, entries: Sequence[dict[str, Any]]) -> None:
    """How many inputs choose the most frequent paths."""
    counts = Counter(map(path_key, entries)).most_common()
    shown = [count for _, count in counts[:MOST_PATHS]]
    axes.bar(range(1, len(shown) + 1), shown, color=DARK)
    axes.set_title(f"{len(counts)} different paths" if len(counts) > 1 else "1 path", fontsize=9)
    axes.set_xlabel("paths, the most frequent first")
    axes.set_ylabel("inputs")
    axes.set_xticks([1, len(shown)] if len(shown) > 1 else [1])
    axes.spines[["top", "right"]].set_visible(False)


def quality_figure(
    points: Sequence[Point],
    quality: str,
    costs: Sequence[tuple[str, np.ndarray]] = (),
    cost: str = "cost: share of the keep-all FLOPs",
) -> Figure:
    """Systems by what they cost and how good they are, with intervals: a marker for each kind, a name beside it.

    Args:
        points: at least one.
        quality: what it is, with its unit.
        costs: of the inputs of systems whose histograms stand beside it, if any.
        cost: what it is, with its unit.
    """
    figure = new_figure(WIDTH if costs else 6.5, 4.5)
    plots = np.atleast_1d(figure.subplots(1, 2 if costs else 1))
    axes = plots[0]
    kinds = list(dict.fromkeys(point.kind for point in points))
    for number, kind in enumerate(kinds):
        of_kind = [point for point in points if point.kind == kind]
        errors = np.array([(max(p.quality - p.low, 0.0), max(p.high - p.quality, 0.0)) for p in of_kind]).T
        places = [point.cost for point in of_kind], [point.quality for point in of_kind]
        marker = MARKERS[number % len(MARKERS)]
        axes.errorbar(*places, yerr=errors, fmt=marker, capsize=3, label=kind, markersize=5, alpha=0.8)
    names: dict[tuple[float, float], list[str]] = {}
    for point in points:
        names.setdefault((point.cost, point.quality), []).append(point.name)
    middle = (min(cost for cost, _ in names) + max(cost for cost, _ in names)) / 2
    for place, of_place in names.items():  # names of one place would cover each other
        inward = {"ha": "right", "xytext": (-5, 4)} if place[0] > middle else {"xytext": (5, 4)}
        axes.annotate(", ".join(of_place), place, textcoords="offset points", fontsize=7, **inward)
    axes.margins(x=0.12)
    axes.set_xlabel(cost)
    axes.set_ylabel(quality)
    axes.grid(alpha=0.3)
    if any(kinds):
        axes.legend(frameon=False, fontsize=8)
    if costs:
        histogram(plots[1], costs)
        plots[1].legend(frameon=False, fontsize=8)
    return figure
