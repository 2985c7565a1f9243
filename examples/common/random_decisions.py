"""Random decisions that cost what learned ones do: the comparison that shows whether a policy has learned anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fairseq_switchdec.cost import Geometry, Lengths


def keep_for_cost(geometry: Geometry, lengths: Lengths, cost: float) -> float:
    """The keep probability at which random decisions cost ``cost`` on these inputs; 0, the cheapest of them, where
    learned decisions cost less than any random ones.
    """
    from fairseq_switchdec.cost import keep_probability_for_cost  # with torch, which no --help has to wait for

    try:
        return keep_probability_for_cost(geometry, lengths, cost)
    except ValueError:
        return 0.0
