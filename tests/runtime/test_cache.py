"""The decoder's cache follows fairseq's generator: against a cache of all rows, whatever is skipped and finished."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fairseq_switchdec.blocks.attention import Attention
from fairseq_switchdec.decisions import Decisions, DecisionSpace
from fairseq_switchdec.runtime import cache as cache_module
from fairseq_switchdec.runtime.cache import DecoderCache, SourceKeys
from fairseq_switchdec.runtime.ragged import Ragged

SPACE = DecisionSpace(2, 3, split_attention=True)
HEADS, SIZE = 2, 3


def random_decisions(batch: int, keep: float, seed: int) -> Decisions:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.rand(batch, SPACE.num_sublayers, generator=generator) < keep
    return SPACE.decisions(rows, torch.zeros(batch, dtype=torch.long))


class AllRows:
    """The reference: every hypothesis has keys of its own, of all layers, reordered as fairseq reorders a tensor."""

    def __init__(self, batch: int, beams: int, generator: torch.Generator):
        self.generator = generator
        self.ids = torch.arange(batch)  # of the inputs still running
        self.beams = beams
        self.keys = [self.draw(0) for _ in range(SPACE.decoder_layers)]

    def draw(self, positions: int) -> Tensor:
        """(B, G, H, positions, D / H)."""
        return torch.randn(len(self.ids), self.beams, HEADS, positions, SIZE, generator=self.generator)

    def step(self) -> list[Tensor]:
        """One more position in every layer, returned."""
        new = [self.draw(1) for _ in self.keys]
        self.keys = [torch.cat(pair, dim=3) for pair in zip(self.keys, new)]
        return new

    def reorder(self, finishing: bool) -> Tensor:
        """What fairseq asks for: some inputs may be finished, and hypotheses of an input trade places, with repeats."""
        running = torch.arange(len(self.ids))
        if finishing:
            keep = torch.rand(len(running), generator=self.generator) < 0.6
            keep[int(torch.randint(len(running), (1,), generator=self.generator))] = True
            running = running[keep]
        beams = torch.randint(self.beams, (len(running), self.beams), generator=self.generator)
        order = (running.unsqueeze(1) * self.beams + beams).flatten()
        self.ids = self.ids[running]
        self.keys = [keys.flatten(0, 1)[order].unflatten(0, (-1, self.beams)) for keys in self.keys]
        return order


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("batch, beams", [(1, 1), (1, 4), (6, 1), (6, 3)])
def test_equals_a_cache_of_all_rows(batch: int, beams: int, keep: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "POSITIONS", 3)  # slots are given back, and added, within a few steps
    for seed in range(8):
        generator = torch.Generator().manual_seed(seed)
        decisions = random_decisions(batch, keep, seed)
        cache = DecoderCache(decisions, beams, SPACE.encoder_layers, SPACE.decoder_layers, "cpu")
        reference = AllRows(batch, beams, generator)
        for step in range(16):
            check_step(cache, reference)
            cache.reorder(reference.reorder(finishing=step % 5 == 1))
            assert cache.decisions.equal(decisions.select(reference.ids))


def check_step(cache: DecoderCache, reference: AllRows) -> None:
    """Only inputs that run a sublayer put something into its pool; what a hypothesis sees there is its own past."""
    new = reference.step()
    cache.advance()
    (table,) = cache.slots
    sees = table.mask
    for index, layer in enumerate(cache.layers):
        rows = cache.decisions.attention_keep[:, SPACE.encoder_layers + index].nonzero().squeeze(1)
        if rows.numel() == 0:
            continue
        slots = layer.keys.put(new[index][rows].squeeze(3).transpose(1, 2))
        assert slots.size(0) == rows.numel()
        for place, row in enumerate(rows.tolist()):
            for beam in range(cache.beams):
                seen = slots[place][:, sees[row, 0, beam, : slots.size(2)]]
                assert torch.equal(seen, reference.keys[index][row, beam])


def test_slots_of_hypotheses_that_died_out_are_given_back() -> None:
    cache = DecoderCache(random_decisions(2, 1.0, 1), 4, SPACE.encoder_layers, SPACE.decoder_layers, "cpu")
    first = torch.tensor([0, 0, 0, 0, 4, 4, 4, 4])  # one hypothesis of each input wins every time
    for _ in range(4 * cache_module.POSITIONS):
        cache.advance()
        for layer in cache.layers:
            layer.keys.put(torch.randn(2, HEADS, 4, SIZE))
        cache.reorder(first)
    most = 4 * cache_module.POSITIONS + 4  # a position each, and the newest four
    assert cache.slots[0].capacity <= 2 * most < 4 * 4 * cache_module.POSITIONS
    assert cache.layers[0].keys.buffer.size(2) == cache.slots[0].capacity


@pytest.mark.parametrize("lengths", [[5], [4, 4, 4], [9, 2, 8, 5, 9]])
def test_source_keys_of_the_inputs_that_stay(lengths: list[int]) -> None:
    """Contexts equal those of each input alone, before and after some are finished."""
    torch.manual_seed(0)
    attention = Attention(6, HEADS, 4).eval().requires_grad_(False)
    states = torch.randn(sum(lengths), 4)
    keys = SourceKeys.project(attention, states, Ragged(lengths, "cpu"))
    remaining = list(range(len(lengths)))
    while True:
        queries = torch.randn(len(remaining), 3, 6)
        with torch.no_grad():
            contexts = keys.attend(attention, queries)
            for row, i in enumerate(remaining):
                alone = SourceKeys.project(attention, states.split(lengths)[i], Ragged([lengths[i]], "cpu"))
                torch.testing.assert_close(contexts[row : row + 1], alone.attend(attention, queries[row : row + 1]))
        if len(remaining) == 1:
            break
        kept = list(range(1, len(remaining)))
        keys.select(kept)
        remaining = [remaining[row] for row in kept]


def test_hypotheses_that_trade_places_move_no_keys() -> None:
    cache = DecoderCache(random_decisions(3, 1.0, 1), 2, SPACE.encoder_layers, SPACE.decoder_layers, "cpu")
    cache.advance()
    for layer in cache.layers:
        layer.keys.put(torch.randn(3, HEADS, 2, SIZE))
    buffers, decisions = [layer.keys.buffer for layer in cache.layers], cache.decisions
    cache.reorder(torch.tensor([1, 0, 3, 3, 4, 5]))
    assert all(layer.keys.buffer is buffer for layer, buffer in zip(cache.layers, buffers))
    assert cache.decisions is decisions


def test_reordering_before_the_first_step() -> None:
    cache = DecoderCache(random_decisions(3, 0.5, 1), 2, SPACE.encoder_layers, SPACE.decoder_layers, "cpu")
    expected = cache.decisions.select([2])
    cache.reorder(torch.tensor([5, 4]))
    cache.advance()
    assert cache.decisions.equal(expected) and cache.slots[0].mask.shape == (1, 1, 2, 2 * cache_module.POSITIONS)
    assert all(layer.keys.buffer is None and layer.source is None for layer in cache.layers)
