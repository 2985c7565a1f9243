"""Layers that forced decisions always skip, taken out of a model: a static student for programs that cannot skip."""

from __future__ import annotations

import re
from typing import Any

from torch import Tensor

from ..decisions import Decisions, DecisionSpace
from ..errors import UserError
from ..forced import forced, read_entries

LAYER = re.compile(r"(encoder|decoder)\.layers\.(\d+)\.")


def prune(weights: dict[str, Tensor], args: Any, path: str) -> str:
    """Take layers out of a model, in place, and say so in its options.

    Args:
        weights: of any of our models, or of a plain BART.
        args: its options.
        path: a JSON file of one entry, see `fairseq_switchdec.forced`.

    Returns:
        what was done, in words.

    Raises:
        UserError: the entry does not fit the model, or leaves something that no model without decisions computes.
    """
    where = f"--prune {path}"
    stacks = {side: count_layers(weights, side) for side in ("encoder", "decoder")}
    space = DecisionSpace(*stacks.values())
    entries = read_entries(path, "--prune")
    if len(entries) > 1:
        raise UserError(f"{where} holds {len(entries)} entries: a student has one path, give one")
    kept = kept_layers(space, forced(space, entries, where), where)
    sides = {"encoder": kept[: stacks["encoder"]], "decoder": kept[stacks["encoder"] :]}
    if stacks["decoder"] and not any(sides["decoder"]):
        raise UserError(f"{where} skips all decoder layers: keep one")
    places = {
        side: {old: new for new, old in enumerate(index for index, keep in enumerate(keeps) if keep)}
        for side, keeps in sides.items()
    }
    for name in list(weights):
        match = LAYER.match(name)
        if match:
            side, index = match[1], int(match[2])
            tensor = weights.pop(name)
            if index in places[side]:
                weights[f"{side}.layers.{places[side][index]}.{name[match.end() :]}"] = tensor
    args.decoder_layers = len(places["decoder" if stacks["decoder"] else "encoder"])
    if stacks["decoder"]:
        args.encoder_layers = len(places["encoder"])
    return f"; {kept.count(False)} of {len(kept)} layers left out"


def count_layers(weights: dict[str, Tensor], side: str) -> int:
    """Layers of a stack; a decoder-only model's are its encoder's."""
    found = [int(match[2]) for match in map(LAYER.match, weights) if match and match[1] == side]
    return 1 + max(found, default=-1)


def kept_layers(space: DecisionSpace, decisions: Decisions, where: str) -> list[bool]:
    """Which layers stay.

    Raises:
        UserError: only a part of a layer does, or tokens are to be dropped.
    """
    if decisions.token_strategy.any():
        raise UserError(f"{where} drops tokens (token_strategy), which only a switchable model does: give 0")
    attention, ffn = decisions.attention_keep[0].tolist(), decisions.ffn_keep[0].tolist()
    cross = attention[: space.encoder_layers] + decisions.cross_attention_keep[0].tolist()
    for layer, keeps in enumerate(zip(attention, ffn, cross)):
        if len(set(keeps)) > 1:
            place, stack = layer - space.encoder_layers, "encoder " if space.decoder_layers else ""
            name = f"decoder layer {place + 1}" if place >= 0 else f"{stack}layer {layer + 1}"
            raise UserError(
                f"{where} keeps a part of {name}, which only a switchable model can: keep or skip all of its attention "
                f"and feed-forward, or run the checkpoint with --switch-decisions {where.partition(' ')[2]}"
            )
    return attention
