"""A picture of the results: time relative to the reference, encoder (or prompt) and decoder. Needs matplotlib."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .report import title
from .setup import TITLES, Lane

COLOURS = {"encoder": "#35618f", "decoder": "#9ec3e6"}


def draw(path: Path, rows: Sequence[dict[str, Any]], reference: Lane, source: str) -> bool:
    """Write the picture, one column of bars for each batch and beam size; False where matplotlib is missing."""
    try:
        import matplotlib
    except ImportError:
        return False
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    columns = sorted({(row["batch"], row["beam"]) for row in rows})
    by_column = [[row for row in rows if (row["batch"], row["beam"]) == column] for column in columns]
    size = (5.5 * len(columns) + 1, 0.28 * max(map(len, by_column)) + 1.2)
    figure, axes = plt.subplots(1, len(columns), figsize=size, squeeze=False, constrained_layout=True)
    for axis, (batch, beam), shown in zip(axes[0], columns, by_column):
        ratios = [row["ratio_to_reference"] for row in shown]
        # The medians of parts need not add up to the median of the whole: the encoder's share of it is drawn.
        parts = [row["encoder_seconds"]["median"] / row["total_seconds"]["median"] for row in shown]
        encoder = [ratio * part for ratio, part in zip(ratios, parts)]
        decoder = [ratio - part for ratio, part in zip(ratios, encoder)]
        places = range(len(shown))
        axis.barh(places, encoder, color=COLOURS["encoder"], label=source)
        axis.barh(places, decoder, left=encoder, color=COLOURS["decoder"], label="decoder")
        axis.set_yticks(places, [title(row) for row in shown])
        axis.invert_yaxis()
        axis.axvline(1, color="black", linewidth=0.8)
        for place, ratio in zip(places, ratios):
            axis.text(ratio, place, f" {ratio:.2f}", va="center", fontsize=8)
        axis.set_xlim(0, max(ratios) * 1.12)
        axis.set_xlabel(f"time / {TITLES[reference.system]} {reference.precision}")
        axis.set_title(f"batch {batch}, beam {beam}")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0][0].legend(loc="lower right", frameon=False)
    partial = path.with_name(f"{path.name}.partial")
    figure.savefig(partial, format=path.suffix.removeprefix("."))
    plt.close(figure)
    os.replace(partial, path)
    return True
