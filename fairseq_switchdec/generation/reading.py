"""Does a policy read its input? Its decisions beside another input's, and beside one path for all (Table 8's question).

A policy that has learned one good path for everybody loses nothing when inputs trade decisions; one that reads loses.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..cost import cost
from ..decisions import Decisions
from ..policy import GreedyChoice
from ..scoring.bootstrap import paired_bootstrap
from ..tokens import STRATEGY_NAMES
from .decision_source import permuted

if TYPE_CHECKING:
    from ..criterions.objective import Objective

#: What an input is run with: its own decisions, another input's, and the path that most inputs choose.
COMPARED = ("greedy", "shuffled", "static")
PATH = ("attention_keep", "ffn_keep", "cross_attention_keep", "token_strategy")


@torch.no_grad()
def compare(
    model: Any,
    objective: Objective,
    samples: Sequence[dict[str, Any]],
    seed: int,
    greedy: Callable[[Tensor], GreedyChoice],
) -> dict[int, dict[str, dict[str, float]]]:
    """Run some inputs and their targets, without search, under every kind of decisions in `COMPARED`.

    Args:
        samples: batches with targets, where the model is.
        seed: of the permutation.
        greedy: how inputs decide, by their ids.

    Returns:
        by input id and kind: ``loss``, the objective's quality loss (nats a token), and ``cost``, the share of the
        keep-all FLOPs that generating the target would take.
    """
    model.eval()
    results: dict[int, dict[str, dict[str, float]]] = {}
    chosen: dict[int, Decisions] = {}

    def measure(kind: str, sample: dict[str, Any], decisions: Decisions | GreedyChoice) -> Decisions:
        path = objective.loss(model, sample, decisions)
        policy_flops = 0 if isinstance(decisions, Decisions) else model.policy.flops()
        costs = cost(objective.geometry(model), path.decisions, objective.lengths(model, sample), policy_flops)
        values = zip(sample["id"].tolist(), path.quality.tolist(), costs.tolist())
        for index, loss, share in values:
            results.setdefault(index, {})[kind] = {"loss": loss, "cost": share}
        return path.decisions

    for sample in samples:
        decided = measure("greedy", sample, greedy(sample["id"]))
        chosen.update((index, decided.select([row])) for row, index in enumerate(sample["id"].tolist()))
    shuffled, static = permuted(chosen, seed), most_frequent(chosen)
    for sample in samples:
        ids = sample["id"].tolist()
        measure("shuffled", sample, Decisions.cat([shuffled[index] for index in ids]))
        measure("static", sample, static.select([0] * len(ids)))
    return results


def most_frequent(decisions: dict[int, Decisions]) -> Decisions:
    """The path that most inputs chose, for one input; of several as frequent, the first in the order of ids."""
    ids = sorted(decisions)
    paths = {index: path_key(decisions[index].to_json()[0]) for index in ids}
    ((frequent, _),) = Counter(paths.values()).most_common(1)
    return next(decisions[index] for index in ids if paths[index] == frequent)


def path_key(entry: dict[str, Any]) -> str:
    """The path in an entry of a report: equal for equal paths."""
    return json.dumps([entry[name] for name in PATH])


def skipped_in_words(entry: dict[str, Any]) -> str:
    """What the input of a report's entry skipped: ``attention of layers 2, 3; last 20 % of the source's tokens``."""
    attention, cross = entry["attention_keep"], entry["cross_attention_keep"]
    first = len(attention) - len(cross)
    names = ("encoder ", "decoder ") if cross else ("",)  # a decoder-only model has one stack
    apart = list(cross) != list(attention[first:])
    sublayers = {
        "attention": [attention[:first], *([] if apart else [attention[first:]])],
        "self-attention": [[], attention[first:]] if apart else [],
        "cross-attention": [[], cross] if apart else [],
        "feed-forward": [entry["ffn_keep"][:first], entry["ffn_keep"][first:]],
    }
    parts = []
    for kind, stacks in sublayers.items():
        places = [layers_in_words(name, keep) for name, keep in zip(names, stacks) if not all(keep)]
        parts += [f"{kind} of {' and '.join(places)}"] if places else []
    if entry["token_strategy"]:
        parts.append(f"{STRATEGY_NAMES[entry['token_strategy']]} of the source's tokens")
    return "; ".join(parts) or "nothing"


def layers_in_words(stack: str, keep: Sequence[bool]) -> str:
    """The layers of a stack that do not run, counted from 1."""
    layers = [str(layer) for layer, runs in enumerate(keep, 1) if not runs]
    return f"{stack}layer{'s' * (len(layers) > 1)} {', '.join(layers)}"


def path_counts(paths: Counter[str]) -> dict[str, float]:
    """How many paths there are, and the share of inputs on the most frequent one.

    Args:
        paths: inputs by `path_key`.
    """
    most = max(paths.values(), default=0)
    return {"paths": len(paths), "most_frequent_path": most / max(sum(paths.values()), 1)}


def comparison(entries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What `compare` found, over the inputs of a report that it was asked about.

    Returns:
        ``inputs``, how many; by kind of `COMPARED`, the means ``loss`` and ``cost`` and, but for ``greedy``,
        ``excess``: mean, lower and upper end of the 95 % interval (paired bootstrap over inputs) of its loss over the
        greedy one's. Empty when nothing was compared.
    """
    compared = [entry["compared"] for entry in sorted(entries, key=lambda entry: entry["id"]) if "compared" in entry]
    if not compared:
        return {}
    found: dict[str, Any] = {"inputs": len(compared)}
    losses = {kind: np.array([entry[kind]["loss"] for entry in compared]) for kind in COMPARED}
    for kind in COMPARED:
        costs = [entry[kind]["cost"] for entry in compared]
        found[kind] = {"loss": float(losses[kind].mean()), "cost": float(np.mean(costs))}
        if kind != "greedy":
            found[kind]["excess"] = list(paired_bootstrap(losses[kind], losses["greedy"]))
    return found


def comparison_line(summary: dict[str, Any]) -> str:
    """What a report says about reading, for people."""
    line = f"{summary['paths']} different paths, the most frequent for {summary['most_frequent_path']:.0%} of inputs"
    if summary["paths"] == 1:
        line = "1 path for all inputs"
    found = summary.get("compared")
    if not found:
        return line
    shuffled, static = found["shuffled"], found["static"]

    def excess(kind: dict[str, Any]) -> str:
        mean, low, high = kind["excess"]
        return f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]"

    return (
        f"{line}; loss of {found['inputs']} targets: {found['greedy']['loss']:.3f} nats a token, with another input's "
        f"decisions {excess(shuffled)}, with the most frequent path {excess(static)} at cost {static['cost']:.1%}"
    )
