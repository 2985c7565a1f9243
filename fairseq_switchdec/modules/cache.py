"""Keys and values of earlier decoding steps, for the inputs that run a sublayer only.

fairseq's generator decodes B inputs with G hypotheses each as B x G rows, an input's rows side by side, and between
steps reorders them: hypotheses of one input trade places, finished inputs go.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..decisions import Decisions


class LayerCache:
    """One decoder layer's part.

    Attributes:
        keys, values: (n x G, H, t, D / H) of the n inputs that run its self-attention; None before the first step.
        source: keys and values, (m, H, S', D / H) each, of the m inputs that run its cross-attention, kept once an
            input.
    """

    def __init__(self) -> None:
        self.keys: Tensor | None = None
        self.values: Tensor | None = None
        self.source: tuple[Tensor, Tensor] | None = None

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Add one position; returns all positions so far."""
        if self.keys is not None and self.values is not None:
            keys, values = torch.cat([self.keys, keys], dim=2), torch.cat([self.values, values], dim=2)
        self.keys, self.values = keys, values
        return keys, values


class DecoderCache:
    """All decoder layers' parts, and the decisions that say whose rows they hold.

    Args:
        decisions: of the B inputs.
        beams: G.
        encoder_layers, decoder_layers: Le and Ld.
    """

    def __init__(self, decisions: Decisions, beams: int, encoder_layers: int, decoder_layers: int):
        self.decisions = decisions
        self.beams = beams
        self.encoder_layers = encoder_layers
        self.layers = [LayerCache() for _ in range(decoder_layers)]

    def reorder(self, new_order: Tensor) -> None:
        """Follow the generator: row r of the new batch continues row ``new_order[r]``, int64 (B' x G,)."""
        inputs = new_order[:: self.beams] // self.beams
        kept = inputs.tolist()
        finished = kept != list(range(len(self.decisions)))
        decisions = self.decisions.select(kept) if finished else self.decisions
        for index, layer in enumerate(self.layers):
            if layer.keys is not None and layer.values is not None:
                rows = self._rows("attention", self.encoder_layers + index, decisions, new_order, self.beams)
                layer.keys, layer.values = layer.keys.index_select(0, rows), layer.values.index_select(0, rows)
            if layer.source is not None and finished:
                rows = self._rows("cross_attention", index, decisions, inputs, 1)
                keys, values = layer.source
                layer.source = keys.index_select(0, rows), values.index_select(0, rows)
        self.decisions = decisions

    def _rows(self, sublayer: str, column: int, decisions: Decisions, new_order: Tensor, group: int) -> Tensor:
        """Which of a sublayer's cached rows the new batch continues.

        ``new_order`` counts rows of all inputs, ``group`` an input; the cache holds those of the inputs that run the
        sublayer only.
        """
        old = self.decisions.rows(sublayer, column, new_order.device)
        if old is None:
            return new_order
        position = torch.zeros(len(self.decisions), dtype=torch.long, device=new_order.device)
        position[old] = torch.arange(old.numel(), device=new_order.device)
        new = decisions.rows(sublayer, column, new_order.device)
        order = new_order.view(-1, group)
        order = order if new is None else order[new]
        return (position[order // group] * group + order % group).flatten()
