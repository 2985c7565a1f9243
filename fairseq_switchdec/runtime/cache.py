"""What the decoder keeps between decoding steps, for the inputs that run a sublayer only.

fairseq's generator decodes B inputs with G hypotheses (beams) each as B x G rows, an input's rows side by side. Between
steps it reorders them: hypotheses of one input trade places, finished inputs go. Nothing is copied when hypotheses
trade places. The keys that an input's hypotheses make stay where they were written, in one pool of slots, and every
hypothesis attends from the pool to its own past only; who sees which slot is one small table for all layers. When the
slots are used up, those that no hypothesis descends from any more are given back, which are most.

A step that reads several tokens of one hypothesis (`fairseq_switchdec.runtime.lookup`) looks the same to the layers:
each token is a hypothesis that also sees those before it. What turns out to be wrong is seen by nobody afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from ..decisions import Decisions
from .ragged import Ragged

if TYPE_CHECKING:
    from ..blocks.attention import Attention

#: Positions of all hypotheses that a pool has slots for at first.
POSITIONS = 32

#: In bfloat16, slots are attended to in multiples of so many.
BLOCK = 64


class Slots:
    """Who sees which slot of an input's pool, the same in all layers that keep the same tokens.

    Args:
        inputs: B.
        beams: G.
        prompt: the layout of prompts, whose keys all hypotheses of an input see, in the first slots; or None.

    Attributes:
        sees: bool (B x G, capacity).
        positions: int64 (B, capacity), of which decoding step a slot is; -1 for a prompt's.
        prompt_slots: slots that prompts take, the longest one's length.
        used: slots that are taken, the first ones.
    """

    def __init__(self, inputs: int, beams: int, device: torch.device | str, prompt: Ragged | None = None):
        self.beams = beams
        self.prompt_slots = self.used = 0 if prompt is None else max(prompt.lengths)
        capacity = self.prompt_slots + POSITIONS * beams
        self.sees = torch.zeros(inputs * beams, capacity, dtype=torch.bool, device=device)
        self.positions = torch.zeros(inputs, capacity, dtype=torch.long, device=device)
        self.steps = 0
        if prompt is not None:
            self.positions[:, : self.prompt_slots] = -1
            self.sees |= torch.arange(capacity, device=device) < prompt.size.repeat_interleave(beams).unsqueeze(1)

    @property
    def capacity(self) -> int:
        """Slots of an input."""
        return self.sees.size(1)

    @property
    def mask(self) -> Tensor:
        """Which slots a hypothesis sees, bool (B, 1, G, capacity)."""
        return self.sees.unflatten(0, (-1, self.beams)).unsqueeze(1)

    def advance(self) -> Tensor | None:
        """Every hypothesis takes a slot for its next position.

        Returns:
            None; or, where slots were given back to make room, int64 (B, m): which old slots are now the first m.
        """
        own = torch.eye(self.beams, dtype=torch.bool, device=self.sees.device)
        self.steps += 1
        return self._take(own, self.steps - 1)

    def open(self, steps: Tensor) -> Tensor | None:
        """The one hypothesis of each input takes slots for some decoding steps, int64 (B, n); until `close`, each of
        them sees the past and those before it.

        Returns:
            see `advance`.
        """
        self.beams = steps.size(1)
        self.sees = self.sees.repeat_interleave(self.beams, 0)
        own = torch.ones(self.beams, self.beams, dtype=torch.bool, device=self.sees.device).tril()
        return self._take(own, steps)

    def close(self, stays: Tensor) -> None:
        """Of the slots that `open` took, bool (B, n), the others are seen by nobody from now on."""
        self.sees = self.sees[:: self.beams]
        self.sees[:, self.used - self.beams : self.used] = stays
        self.beams = 1

    def forget(self, steps: Tensor) -> None:
        """Nobody sees the slots of an input from its decoding step on, int64 (B,)."""
        self.sees &= self.positions < steps.unsqueeze(1)

    def _take(self, own: Tensor, steps: Tensor | int) -> Tensor | None:
        """Slots for the n next keys of every input, which see each other as bool (n, n) says."""
        count = len(own)
        kept = self._make_room(count) if self.used + count > self.capacity else None
        new = slice(self.used, self.used + count)
        self.sees[:, new] = own.repeat(len(self.sees) // count, 1)
        self.positions[:, new] = steps
        self.used += count
        return kept

    def _make_room(self, count: int) -> Tensor:
        seen = self.sees.unflatten(0, (-1, self.beams)).any(1)
        most = int(seen.sum(1).max())
        kept = seen.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :most]
        own = self.capacity - self.prompt_slots
        roomy = 2 * (most - self.prompt_slots) <= own and most + count <= self.capacity
        grown = 0 if roomy else own
        sees = self.sees.gather(1, kept.repeat_interleave(self.beams, 0))
        self.sees = F.pad(sees, (0, self.capacity + grown - most))
        self.positions = F.pad(self.positions.gather(1, kept), (0, self.sees.size(1) - most))
        self.used = most
        return kept

    def select(self, new_order: Tensor, kept: Tensor | None) -> None:
        """Follow the generator: int64 (B' x G,) rows, and int64 (B',) inputs, None = all."""
        self.sees = self.sees.index_select(0, new_order)
        if kept is not None:
            self.positions = self.positions.index_select(0, kept)


class Pool:
    """Keys or values in the slots of the n inputs that run a sublayer, (n, H, capacity, D / H)."""

    def __init__(self, slots: Slots):
        self.slots = slots
        self.buffer: Tensor | None = None

    def start(self, prompt: Tensor, attention: Attention, tokens: Ragged) -> None:
        """Fill the first slots, with the prompts' tokens, (N, H x d), laid out as ``tokens`` says."""
        for bucket in tokens.buckets:
            new = attention.split_heads(bucket.gather(prompt))
            if self.buffer is None:
                self.buffer = new.new_zeros(len(tokens), new.size(1), self.slots.capacity, new.size(3))
            self.buffer[list(bucket.inputs), :, : bucket.width] = new

    def put(self, new: Tensor) -> Tensor:
        """Fill the newest slots, with (n, H, G, D / H); returns those that may be attended to, (n, H, slots, D / H)."""
        if self.buffer is None:
            self.buffer = new.new_zeros(*new.shape[:2], self.slots.capacity, new.size(3))
        used = self.slots.used
        self.buffer[:, :, used - new.size(2) : used] = new
        if new.dtype == torch.bfloat16:  # oneDNN compiles a product for every number of slots: let them be few
            used += -used % BLOCK
        return self.buffer[:, :, :used]

    def keep(self, slots: Tensor) -> None:
        """Move some slots, int64 (n, m), to the front."""
        if self.buffer is None:
            return
        larger = self.buffer.new_zeros(*self.buffer.shape[:2], self.slots.capacity, self.buffer.size(3))
        index = slots[:, None, :, None].expand(-1, *self.buffer.shape[1:2], -1, self.buffer.size(3))
        larger[:, :, : slots.size(1)] = self.buffer.gather(2, index)
        self.buffer = larger

    def select(self, rows: Tensor) -> None:
        """Keep some inputs, int64 (m,)."""
        if self.buffer is not None:
            self.buffer = self.buffer.index_select(0, rows)


@dataclass(frozen=True, eq=False)
class SourceBucket:
    """Encoder keys and values of inputs of about one length.

    Attributes:
        inputs: places among the inputs that run the sublayer.
        index: the same, int64 (n,); None when these are all of them, in order.
        keys, values: (n, H, width, D / H).
        mask: bool (n, 1, 1, width), True = real token; None when none is padding.
    """

    inputs: tuple[int, ...]
    index: Tensor | None
    keys: Tensor
    values: Tensor
    mask: Tensor | None


class SourceKeys:
    """The source's keys and values for one layer; an input's hypotheses all attend to one copy.

    Args:
        attention: attends.
        projected: keys and values, (N, H x d) each, of the inputs that run the sublayer.
        tokens: their layout.
    """

    def __init__(self, attention: Attention, projected: Sequence[Tensor], tokens: Ragged):
        buckets = []
        for bucket in tokens.buckets:
            keys, values = (attention.split_heads(bucket.gather(x)) for x in projected)
            if not torch.is_grad_enabled():  # many steps will read them: once in an order that is read fast
                values = values.contiguous()
                if keys.dtype == torch.float32:
                    keys = keys.transpose(2, 3).contiguous().transpose(2, 3)
                else:
                    keys = keys.contiguous()
            buckets.append((bucket.inputs, keys, values, bucket.mask))
        self._set(buckets, projected[0].device)

    @classmethod
    def project(cls, attention: Attention, source: Tensor, tokens: Ragged) -> SourceKeys:
        """Of encoder states, (N, D)."""
        parts = [attention.keys_values(source[piece.tokens]) for piece in tokens.pieces()]
        return cls(attention, [torch.cat(part) for part in zip(*parts)], tokens)

    def _set(self, buckets: list[tuple[tuple[int, ...], Tensor, Tensor, Tensor | None]], device: torch.device) -> None:
        places = [i for inputs, *_ in buckets for i in inputs]
        in_order = places == sorted(places)
        self.order = None if in_order else torch.tensor(places).argsort().to(device)
        self.buckets = [
            SourceBucket(inputs, None if len(buckets) == 1 and in_order else torch.tensor(inputs).to(device), *rest)
            for inputs, *rest in buckets
        ]

    def attend(self, attention: Attention, queries: Tensor) -> Tensor:
        """Contexts, (n, T, D), of the queries of the n inputs, (n, T, D)."""
        return self.each(lambda keys, queries: attention.attend(queries, keys.keys, keys.values, keys.mask), queries)

    def each(self, attend: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
        """``attend(bucket, part of each tensor)`` for every bucket, put together again: (n, ...)."""
        contexts = [
            attend(bucket, *(x if bucket.index is None else x.index_select(0, bucket.index) for x in tensors))
            for bucket in self.buckets
        ]
        context = contexts[0] if len(contexts) == 1 else torch.cat(contexts)
        return context if self.order is None else context.index_select(0, self.order)

    def select(self, kept: list[int]) -> None:
        """Keep some of the n inputs, in order."""
        place = {old: new for new, old in enumerate(kept)}
        buckets = []
        for bucket in self.buckets:
            rows = [row for row, old in enumerate(bucket.inputs) if old in place]
            if not rows:
                continue
            keys, values, mask = bucket.keys, bucket.values, bucket.mask
            if len(rows) < len(bucket.inputs):
                index = torch.tensor(rows, device=keys.device)
                keys, values = keys.index_select(0, index), values.index_select(0, index)
                mask = None if mask is None else mask.index_select(0, index)
            buckets.append((tuple(place[bucket.inputs[row]] for row in rows), keys, values, mask))
        device = self.buckets[0].keys.device if self.buckets else torch.device("cpu")
        self._set(buckets, device)


class LayerCache:
    """One layer's part, of the inputs that run its self-attention and its cross-attention."""

    def __init__(self, slots: Slots) -> None:
        self.slots = slots
        self.keys = Pool(slots)
        self.values = Pool(slots)
        self.source: SourceKeys | None = None


class DecoderCache:
    """All layers' parts, and the decisions that say whose rows they hold.

    Args:
        decisions: of the B inputs.
        beams: G.
        first: the first layer's column in `Decisions`.
        layers: their number.
        device: of the model.
        prompts: the layout of each layer's prompt tokens, where a prompt's keys are kept too.

    Attributes:
        settled: whether a step was run with the inputs that are left.
    """

    def __init__(
        self,
        decisions: Decisions,
        beams: int,
        first: int,
        layers: int,
        device: torch.device | str,
        prompts: Sequence[Ragged] | None = None,
    ):
        self.decisions = decisions
        self.beams = beams
        self.first = first
        self.settled = False
        wanted = [None] * layers if prompts is None else prompts
        tables = {id(prompt): Slots(len(decisions), beams, device, prompt) for prompt in wanted}
        self.slots = list(tables.values())
        self.layers = [LayerCache(tables[id(prompt)]) for prompt in wanted]

    def advance(self) -> None:
        """Begin a step: every hypothesis gets a slot in each layer."""
        for slots in self.slots:
            self._move(slots, slots.advance())

    def open(self, steps: Tensor) -> None:
        """Begin a step that reads several tokens of the one hypothesis of each input: see `Slots.open`."""
        for slots in self.slots:
            self._move(slots, slots.open(steps))

    def close(self, stays: Tensor) -> None:
        """End it: see `Slots.close`."""
        for slots in self.slots:
            slots.close(stays)

    def forget(self, steps: Tensor) -> None:
        """Undo some steps: see `Slots.forget`."""
        for slots in self.slots:
            slots.forget(steps)

    def _move(self, slots: Slots, kept: Tensor | None) -> None:
        """Follow a table that made room."""
        if kept is None:
            return
        for index, layer in enumerate(self.layers):
            if layer.slots is slots:
                rows = self.decisions.rows("attention", self.first + index, kept.device)
                part = kept if rows is None else kept.index_select(0, rows)
                layer.keys.keep(part)
                layer.values.keep(part)

    def reorder(self, new_order: Tensor) -> None:
        """Follow the generator: row r of the new batch continues row ``new_order[r]``, int64 (B' x G,).

        Inputs never trade places, they only go, so their number tells whether any went without asking the device.
        """
        inputs = new_order[:: self.beams] // self.beams
        finished = new_order.numel() < len(self.decisions) * self.beams
        for slots in self.slots:
            slots.select(new_order, inputs if finished else None)
        if not finished:
            return
        kept = inputs.tolist()
        for index, layer in enumerate(self.layers):
            places = self._places("attention", self.first + index, kept)
            rows = torch.tensor(places, dtype=torch.long, device=new_order.device)
            layer.keys.select(rows)
            layer.values.select(rows)
            if layer.source is not None:
                layer.source.select(self._places("cross_attention", index, kept))
        self.decisions = self.decisions.select(kept)
        self.settled = False

    def _places(self, sublayer: str, column: int, kept: list[int]) -> list[int]:
        """Where the inputs that stay are among those that run a sublayer, whose rows its cache holds."""
        rows = self.decisions.rows(sublayer, column)
        if rows is None:
            return kept
        place = {i: row for row, i in enumerate(rows.tolist())}
        return [place[i] for i in kept if i in place]
