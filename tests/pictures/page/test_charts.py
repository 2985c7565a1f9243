"""The charts count every input once, and say in words what they show."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from fairseq_switchdec.pictures.page.charts import HEIGHT, WIDTH, cost_and_length, histogram, paths, step

COSTS = [
    np.array([1.0]),
    np.array([0.31, 0.5, 0.5001, 0.999, 1.0, 1.004]),
    np.random.RandomState(1).uniform(0.02, 1.0, 500),
]


def shapes(svg: str) -> list[ET.Element]:
    """What stands for inputs, all of it within the chart."""
    found = list(ET.fromstring(svg).iter("rect"))
    for shape in found:
        x, y, width, height = (float(shape.get(name, "")) for name in ("x", "y", "width", "height"))
        assert x >= 0 and x + width <= WIDTH + 0.1 and y >= 0 and y + height <= HEIGHT and width > 0
    return found


def count(shapes: list[ET.Element]) -> int:
    """The inputs that their titles speak of."""
    titles = [shape.findtext("title", "") for shape in shapes]
    return sum(int(re.search(r"([\d,]+) inputs?", title)[1].replace(",", "")) for title in titles)  # type: ignore


@pytest.mark.parametrize("costs", COSTS, ids=len)
def test_all_inputs_are_there_once(costs: np.ndarray) -> None:
    bars = shapes(histogram(costs))
    assert count(bars) == len(costs)
    for bar in bars:
        low, high = map(int, bar.get("data-cost", "").split())
        inside = ((100 * costs >= low - 1e-9) & (100 * costs <= high + 1e-9)).sum()
        assert inside >= count([bar]) > 0
    lengths = np.arange(len(costs)) * 7
    assert count(shapes(cost_and_length(costs, lengths))) == len(costs)
    of_inputs = [1] * len(costs)
    assert count(shapes(paths(of_inputs))) == len(costs)


def test_more_paths_than_bars() -> None:
    chart = paths([1] * 50 + [2] * 30 + list(range(3, 103)))
    assert count(shapes(chart)) == 94
    assert "102 different paths; the 16 shown: 52% of inputs" in chart
    assert "1 path for all inputs" in paths([1, 1])


@pytest.mark.parametrize("span, most, size", [(10, 50, 1), (100, 50, 2), (100, 20, 5), (1024, 6, 200), (1, 6, 1)])
def test_steps_are_round(span: int, most: int, size: int) -> None:
    assert step(span, most) == size
