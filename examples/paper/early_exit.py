"""Early exits, which the paper compares itself with: a decoding step ends at the layer whose state is trusted.

*CALM* (Schuster et al., 2022) may end after any layer, for each hypothesis by itself; the layers above get their keys
from the state that was trusted. *FREE* (Bae et al., 2023) may end after one layer, when the states of all hypotheses
are trusted; when a later step goes on, the layers above run for all positions that ended before it, together.

Both read the prompt with all layers and decode one input at a time, as their authors' programs do. The threshold is
the same at every step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from fairseq_switchdec.blocks.positions import Angles, turn
from fairseq_switchdec.cost import Geometry
from fairseq_switchdec.errors import UserError
from fairseq_switchdec.runtime.cache import DecoderCache, LayerCache, Slots

METHODS = ("calm", "free")
CONFIDENCES = ("softmax", "state")


@dataclass(frozen=True)
class Rows:
    """States on their way through the layers.

    Attributes:
        x: (1, n, 1, D).
        places: int64 (n,), the slots that take their keys.
        angles: of their positions, (1, n or 1, 1, 1, d) each; None where positions are in the embeddings.
        sees: bool (n, capacity), the slots that each attends to.
    """

    x: Tensor
    places: Tensor
    angles: Angles | None
    sees: Tensor

    @classmethod
    def newest(cls, x: Tensor, angles: Angles | None, slots: Slots) -> Rows:
        """Those of a step that has just begun."""
        places = torch.arange(slots.used - x.size(1), slots.used, device=x.device)
        return cls(x, places, angles, slots.sees)

    def select(self, rows: Tensor) -> Rows:
        """Some of them, int64 (m,), with what they see as it is now."""
        angles = self.angles and tuple(part.expand(-1, len(self.places), -1, -1, -1)[:, rows] for part in self.angles)
        return Rows(self.x[:, rows], self.places[rows], angles, self.sees[rows])

    @classmethod
    def join(cls, parts: Sequence[Rows]) -> Rows:
        """All of them, in order."""
        angles = None
        if parts[0].angles is not None:
            expanded = [[part.expand(-1, len(rows.places), -1, -1, -1) for part in rows.angles] for rows in parts]
            angles = tuple(torch.cat(part, dim=1) for part in zip(*expanded))
        x, places = torch.cat([rows.x for rows in parts], 1), torch.cat([rows.places for rows in parts])
        return cls(x, places, angles, torch.cat([rows.sees for rows in parts]))


def run_layer(layer: Any, rows: Rows, part: LayerCache) -> Rows:
    """A layer's attention and feed-forward; the keys go to the rows' slots."""
    attention, mask = layer.self_attn, rows.sees[None, None, :, : part.slots.used]

    def attend(x: Tensor) -> Tensor:
        queries, keys, values = (each.squeeze(2) for each in attention.queries_keys_values(x, rows.angles))
        keys, values = write(attention, rows.places, part, keys, values)
        return attention.out_proj(attention.attend(queries, keys, values, mask)).unsqueeze(2)

    return replace(rows, x=layer.feed_forward(layer.connect(rows.x, attend, layer.self_attn_layer_norm)))


def copy_up(layer: Any, rows: Rows, part: LayerCache) -> None:
    """The keys that a layer which does not run makes of the states below it."""
    attention = layer.self_attn
    keys, values = attention.keys_values(layer.self_attn_layer_norm(rows.x))
    if rows.angles is not None:
        keys = turn(keys.unflatten(-1, (-1, attention.head_dim)), rows.angles).flatten(-2)
    write(attention, rows.places, part, keys.squeeze(2), values.squeeze(2))


def write(attention: Any, places: Tensor, part: LayerCache, keys: Tensor, values: Tensor) -> list[Tensor]:
    """Keys and values, (1, n, K x d), into slots; those that may be attended to, (1, K, slots, d) each."""
    for pool, new in ((part.keys, keys), (part.values, values)):
        pool.buffer[:, :, places] = attention.split_heads(new)
    return [pool.buffer[:, :, : part.slots.used] for pool in (part.keys, part.values)]


def layers_of(text: str, last: int, flag: str) -> list[int]:
    """Numbers of layers, below the last one's.

    Args:
        text: ``all``, or numbers or shares of the layers, such as ``5,10`` or ``1/3``.

    Raises:
        UserError: naming the flag.
    """
    if text == "all":
        return list(range(1, last))
    try:
        numbers = [Fraction(word) for word in text.split(",")]
    except (ValueError, ZeroDivisionError):
        numbers = [Fraction(0)]
    counts = [round(number * last if number < 1 else number) for number in numbers]
    if not all(0 < count < last for count in counts):
        raise UserError(f"{flag} {text}: give all, or layers from 1 to {last - 1} such as 5,10, or shares such as 1/3")
    return counts


def keep_keys_apart(decoder: Any) -> None:
    """Have a model's keys and values packed without its queries, so that `copy_up` computes no more than it needs.

    Before the model is packed.
    """
    for layer in decoder.stack[0].layers:
        names = {"q_proj": ("q_proj",), "kv_proj": ("k_proj", "v_proj"), "out_proj": ("out_proj",)}
        layer.self_attn.products = names


class EarlyExit:
    """Takes the place of a decoder's layers in decoding steps.

    Args:
        decoder: a `fairseq_switchdec.models.causal.stack.ContinuationDecoder`.
        geometry: of the model.
        method: one of `METHODS`.
        confidence: one of `CONFIDENCES`: by how much the most likely symbol leads, of what the output projection makes
            of the state; or the cosine between the state and that before the layer.
        threshold: a state is trusted above it; 1: none is.
        layers: after which a step may end, see `layers_of`.

    Attributes:
        saved: multiply-accumulates that the steps since `restart` saved, what confidence took taken off.
        ran, all: layers that they ran, each hypothesis' counted, and those of all layers.

    Raises:
        UserError: layers that there are not.
    """

    def __init__(
        self,
        decoder: Any,
        geometry: Geometry,
        method: str,
        confidence: str,
        threshold: float,
        layers: str,
    ):
        (stack,) = decoder.stack
        self.layers, self.norm = stack.layers, stack.layer_norm
        self.exits = layers_of(layers, len(self.layers), "--exit-layers")
        if method == "free" and len(self.exits) != 1:
            raise UserError("--exit-layers: --exit-method free ends after one layer, such as 1/3")
        self.geometry, self.confidence, self.threshold = geometry, confidence, threshold
        self.step = self.calm if method == "calm" else self.free
        self.run_all, self.project = decoder.run_layers, decoder.output_layer
        decoder.run_layers, decoder.output_layer = self.run, self.logits
        self.known: list[tuple[Tensor, Tensor]] = []  # rows of this step, and their logits
        self.cache: DecoderCache | None = None
        self.waiting: list[Rows] = []  # for the layers after FREE's exit
        self.restart()

    def restart(self) -> None:
        """Count anew."""
        self.saved = self.ran = self.all = 0

    def run(
        self,
        x: Tensor,
        angles: Angles | None,
        encoder_out: dict[str, Any],
        cache: DecoderCache | None,
        states: list[Tensor] | None,
    ) -> Tensor:
        """See `ContinuationDecoder.run_layers`.

        Raises:
            UserError: several inputs at once.
        """
        self.known = []
        if cache is None:
            return self.run_all(x, angles, encoder_out, cache, states)
        if len(x) != 1:
            raise UserError("early exits decode one input at a time, as their authors' programs do: --batch-size 1")
        if cache is not self.cache:
            self.cache, self.waiting = cache, []
        rows = x.size(1)
        self.saved += len(self.layers) * rows * self.macs(cache.layers[0].slots)
        self.all += len(self.layers) * rows
        return self.norm(self.step(x, angles, cache))

    def calm(self, x: Tensor, angles: Angles | None, cache: DecoderCache) -> Tensor:
        """Each hypothesis as far as it needs."""
        going = torch.arange(x.size(1), device=x.device)
        ended = going[:0]
        for index, layer in enumerate(self.layers):
            part = cache.layers[index]
            rows = Rows.newest(x, angles, part.slots)
            if len(ended):
                copy_up(layer, rows.select(ended), part)
                self.saved -= len(ended) * self.key_macs
            if len(going):
                ran = self.run_layer(layer, rows if not len(ended) else rows.select(going), part)
                trusted = self.trusted(index + 1, going, x[:, going], ran.x)
                x = x.index_copy(1, going, ran.x)
                ended, going = torch.cat([ended, going[trusted]]), going[~trusted]
        return x

    def free(self, x: Tensor, angles: Angles | None, cache: DecoderCache) -> Tensor:
        """All hypotheses as far as the exit, or to the end with all that wait there."""
        (exit,), count = self.exits, x.size(1)
        before = x
        for index, layer in enumerate(self.layers[:exit]):
            part, before = cache.layers[index], x
            x = self.run_layer(layer, Rows.newest(x, angles, part.slots), part).x
        slots = cache.layers[exit].slots
        rows = Rows.newest(x, angles, slots)
        trusted = self.trusted(exit, torch.arange(count, device=x.device), before, x)
        if bool(trusted.all()) and slots.used + count <= slots.capacity:  # the next step moves no slots
            self.waiting.append(replace(rows, sees=rows.sees.clone()))
            return x
        self.known = []
        seen = slots.sees.any(0)
        waiting = [part.select(seen[part.places].nonzero()[:, 0]) for part in self.waiting]
        rows, self.waiting = Rows.join([*waiting, rows]), []
        for index, layer in enumerate(self.layers[exit:], exit):
            rows = self.run_layer(layer, rows, cache.layers[index])
        return rows.x[:, -count:]

    def run_layer(self, layer: Any, rows: Rows, part: LayerCache) -> Rows:
        """`run_layer`, counted."""
        self.ran += len(rows.places)
        self.saved -= len(rows.places) * self.macs(part.slots)
        return run_layer(layer, rows, part)

    def trusted(self, count: int, rows: Tensor, before: Tensor, after: Tensor) -> Tensor:
        """Which states need no further layers, bool (n,), after so many of them.

        Args:
            rows: int64 (n,), which of the step's these are.
            before, after: (1, n, 1, D), what the last layer read and made.
        """
        if count not in self.exits or self.threshold >= 1:
            return torch.zeros_like(rows, dtype=torch.bool)
        if self.confidence == "state":
            self.saved -= 3 * len(rows) * after.size(-1)
            return torch.cosine_similarity(before, after, dim=-1)[0, :, 0] > self.threshold
        logits = self.project(self.norm(after))[0]
        self.saved -= logits.numel() * after.size(-1)
        first, second = logits[:, 0].float().softmax(-1).topk(2).values.unbind(-1)
        trusted = first - second > self.threshold
        if bool(trusted.any()):
            self.known.append((rows[trusted], logits[trusted]))
        return trusted

    def logits(self, features: Tensor, **unused: Any) -> Tensor:
        """See `OutputDecoder.output_layer`; of states that were trusted for theirs, they are known."""
        if not self.known:
            return self.project(features)
        rows, known = (torch.cat(part) for part in zip(*self.known))
        self.saved += known.numel() * features.size(-1)  # which the step would have projected
        if len(rows) == len(features):
            return known[rows.argsort()]
        others = torch.ones(len(features), dtype=torch.bool, device=features.device)
        others[rows] = False
        logits = known.new_empty(len(features), *known.shape[1:])
        logits[rows], logits[others] = known, self.project(features[others])
        return logits

    @property
    def key_macs(self) -> int:
        """Multiply-accumulates of one position's keys and values in a layer."""
        return 2 * self.geometry.encoder_dim * self.geometry.attention_dims(self.geometry.encoder_dim)[1]

    def macs(self, slots: Slots) -> int:
        """Multiply-accumulates of a layer in a step, of one hypothesis: as `fairseq_switchdec.cost` counts them."""
        g, seen = self.geometry, slots.prompt_slots + slots.beams * slots.steps
        queries = g.attention_dims(g.encoder_dim)[0]
        feed_forward = g.ffn_products * g.encoder_dim * g.encoder_ffn_dim
        return 2 * g.encoder_dim * queries + self.key_macs + 2 * seen * queries + feed_forward
