"""The charts of a run as inline SVG: what inputs cost, which paths they take, cost against length.

Plain shapes and sizes, no colour to tell apart by. ``data-`` attributes say which inputs a shape stands for: the page
shows those when it is clicked.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from html import escape

import numpy as np

#: Of a chart and the edges of its drawing area, in its own units.
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 420, 150, 40, 16, 18, 30
ACROSS, DOWN = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
#: Columns of a histogram, columns and rows of cost against length, paths with a bar of their own: at most.
COLUMNS, CELLS, MOST_PATHS = 50, (42, 20), 16


def histogram(costs: np.ndarray) -> str:
    """How many inputs cost how much, float (N,): shares of the keep-all FLOPs."""
    low, high = percent_range(costs)
    size = step(high - low, COLUMNS)
    places = cells(costs, low, high, size)
    counts = Counter(places.tolist())
    most, width = max(counts.values()), ACROSS * size / (high - low)
    shapes = []
    for place, count in sorted(counts.items()):
        begin, tall = low + place * size, DOWN * count / most
        said = f"{inputs(count)} at {begin} to {begin + size} %"
        box = (LEFT + place * width + 0.5, TOP + DOWN - tall, width - 1, tall)
        shapes.append(rectangle(box, said, f'data-cost="{begin} {begin + size}"'))
    mean = LEFT + ACROSS * (100 * float(costs.mean()) - low) / (high - low)
    shapes.append(f'<path class="mean" d="M{mean:.1f} {TOP}v{DOWN}"/>')
    ticks = [(percent, f"{percent}%") for percent in range(low, high + 1, step(high - low, 6))]
    title = f"Cost: mean {costs.mean():.1%}, from {costs.min():.1%} to {costs.max():.1%}"
    return svg(title, "share of the keep-all FLOPs", [*shapes, *across(ticks, low, high), *counted(most)])


def paths(of_inputs: Sequence[int]) -> str:
    """How many inputs take each of the most frequent paths.

    Args:
        of_inputs: each input's path, from 1, the most frequent first.
    """
    counts = Counter(of_inputs)
    shown = sorted(counts)[:MOST_PATHS]
    most, width = counts[shown[0]], ACROSS / max(len(shown), 8)
    shapes = []
    for place, path in enumerate(shown):
        tall, left = DOWN * counts[path] / most, LEFT + place * width
        said = f"path {path}: {inputs(counts[path])}, {counts[path] / len(of_inputs):.1%}"
        box = (left + 2, TOP + DOWN - tall, width - 4, tall)
        shapes.append(rectangle(box, said, f'data-path="{path}"'))
        shapes.append(label(left + width / 2, TOP + DOWN + 12, str(path)))
    title = f"{len(counts):,} different paths" if len(counts) > 1 else "1 path for all inputs"
    if len(counts) > len(shown):
        title += f"; the {len(shown)} shown: {sum(map(counts.get, shown)) / len(of_inputs):.0%} of inputs"
    return svg(title, "path, the most frequent first", [*shapes, *counted(most)])


def cost_and_length(costs: np.ndarray, lengths: np.ndarray) -> str:
    """Cost, float (N,), against source tokens, int (N,): the more inputs, the larger their square."""
    low, high = percent_range(costs)
    size, longest = step(high - low, CELLS[1]), max(int(lengths.max()), 1)
    tokens = math.ceil((longest + 1) / CELLS[0])
    width, height = ACROSS * tokens / (longest + 1), DOWN * size / (high - low)
    counts = Counter(zip((lengths // tokens).tolist(), cells(costs, low, high, size).tolist()))
    most, largest = max(counts.values()), min(max(width, 6.0), height) - 0.5
    shapes = []
    for (column, row), count in sorted(counts.items()):
        side = max(math.log1p(count) / math.log1p(most) * largest, 2.0)
        first, begin = column * tokens, low + row * size
        last, end = min(first + tokens - 1, longest), begin + size
        said = f"{inputs(count)} of {first:,} to {last:,} tokens at {begin} to {end} %"
        x, y = LEFT + (column + 0.5) * width, TOP + DOWN - (row + 0.5) * height
        data = f'data-cost="{begin} {end}" data-source="{first} {last}"'
        shapes.append(rectangle((x - side / 2, y - side / 2, side, side), said, data))
    marks = [(number, f"{number:,}") for number in range(0, longest + 1, step(longest, 6))]
    shapes += across(marks, 0, longest + 1)
    for percent in (low, (low + high) // 2, high):
        y = TOP + DOWN * (high - percent) / (high - low)
        shapes += [label(LEFT - 5, y + 3, f"{percent}%", "end"), f'<path class="axis" d="M{LEFT - 3} {y:.1f}h3"/>']
    return svg("Cost against length: the more inputs, the larger the square", "source tokens", [*shapes, FRAME])


# --- places ---


def percent_range(costs: np.ndarray) -> tuple[int, int]:
    """From and to which share a chart shows costs: whole tens of percent."""
    low, high = (10 * edge(10 * float(cost)) for edge, cost in ((math.floor, costs.min()), (math.ceil, costs.max())))
    return min(low, 90), max(high, 100)


def cells(costs: np.ndarray, low: int, high: int, size: int) -> np.ndarray:
    """In which of the steps of ``size`` percent each cost lies, int (N,)."""
    return ((100 * costs - low) // size).astype(int).clip(0, (high - low) // size - 1)


def step(span: int, most: int) -> int:
    """The least of 1, 2, 5, 10, 20, 50, ... of which at most so many make the span."""
    return next(
        size for power in range(20) for size in (10**power, 2 * 10**power, 5 * 10**power) if span <= most * size
    )


def inputs(count: int) -> str:
    """So many, in words."""
    return f"{count:,} input" if count == 1 else f"{count:,} inputs"


# --- shapes ---

FRAME = f'<path class="axis" d="M{LEFT} {TOP}v{DOWN}h{ACROSS}"/>'


def svg(title: str, below: str, shapes: Sequence[str]) -> str:
    """A chart: what it says in words above, what its horizontal axis is below."""
    words = [label(0, 10, title, "start", "title"), label(LEFT + ACROSS / 2, HEIGHT - 4, below)]
    box = f'viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}"'
    return f'<svg class="chart" {box}>{"".join([*words, *shapes])}</svg>'


def rectangle(box: tuple[float, float, float, float], said: str, data: str) -> str:
    """A shape, (x, y, width, height), that stands for inputs."""
    place = " ".join(f'{name}="{value:.1f}"' for name, value in zip(("x", "y", "width", "height"), box))
    return f"<rect {place} {data}><title>{escape(said)}</title></rect>"


def label(x: float, y: float, words: str, anchor: str = "middle", kind: str = "label") -> str:
    """Words in a chart."""
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def across(ticks: Sequence[tuple[float, str]], low: float, high: float) -> list[str]:
    """The horizontal axis' marks."""
    found = []
    for value, words in ticks:
        x = LEFT + ACROSS * (value - low) / (high - low)
        found += [f'<path class="axis" d="M{x:.1f} {TOP + DOWN}v3"/>', label(x, TOP + DOWN + 12, words)]
    return found


def counted(most: int) -> list[str]:
    """The axes of a chart whose vertical one counts up to ``most``."""
    return [label(LEFT - 5, TOP + 6, f"{most:,}", "end"), label(LEFT - 5, TOP + DOWN, "0", "end"), FRAME]
