"""Random decisions that cost what learned ones do: the comparison that shows whether a policy has learned anything."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

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


def keep_for_report(checkpoint: Path, report: dict[str, Any], beam: int) -> float:
    """The same, for the inputs and the cost of a switch report.

    Args:
        checkpoint: of the model that it is about.
    """
    import torch
    from fairseq.checkpoint_utils import load_model_ensemble

    from fairseq_switchdec.compat.user_dir import register_tasks_and_models
    from fairseq_switchdec.cost import Lengths

    register_tasks_and_models()
    (model,), _ = load_model_ensemble([str(checkpoint)])
    columns = ("source_tokens", "content_tokens", "target_tokens")
    tokens = [torch.tensor([entry[name] for entry in report["per_input"]]) for name in columns]
    return keep_for_cost(model.geometry, Lengths(*tokens, beam=beam), report["cost"])
