"""The decoder's cache follows fairseq's generator: against a cache of all rows, whatever is skipped and finished."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fairseq_switchdec.decisions import Decisions, DecisionSpace
from fairseq_switchdec.modules.cache import DecoderCache, LayerCache

SPACE = DecisionSpace(2, 3, split_attention=True)
HEADS, SIZE, SOURCE = 2, 3, 5


def random_decisions(batch: int, keep: float, seed: int) -> Decisions:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.rand(batch, SPACE.num_sublayers, generator=generator) < keep
    return SPACE.decisions(rows, torch.zeros(batch, dtype=torch.long))


def test_append() -> None:
    layer = LayerCache()
    keys, values = torch.randn(2, 3, 4, HEADS, 1, SIZE)
    for step in range(3):
        all_keys, all_values = layer.append(keys[step], values[step])
        assert torch.equal(all_keys, torch.cat(list(keys[: step + 1]), dim=2))
        assert torch.equal(all_values, torch.cat(list(values[: step + 1]), dim=2))
    assert layer.keys is all_keys and layer.values is all_values


class AllRows:
    """The reference: keys and values of every row, also of those that skip, reordered as fairseq reorders a tensor."""

    def __init__(self, batch: int, beams: int, generator: torch.Generator):
        self.generator = generator
        self.ids = torch.arange(batch)  # of the inputs still running
        self.beams = beams
        self.tokens = [self.draw(batch * beams, 0) for _ in range(SPACE.decoder_layers)]
        self.source = [self.draw(batch, SOURCE) for _ in range(SPACE.decoder_layers)]

    def draw(self, rows: int, positions: int) -> Tensor:
        return torch.randn(2, rows, HEADS, positions, SIZE, generator=self.generator)  # keys and values

    def step(self) -> list[Tensor]:
        """One more position in every layer, returned."""
        new = [self.draw(tokens.size(1), 1) for tokens in self.tokens]
        self.tokens = [torch.cat(pair, dim=3) for pair in zip(self.tokens, new)]
        return new

    def next_order(self, finishing: bool) -> Tensor:
        """What fairseq asks for: some inputs may be finished, and hypotheses of an input trade places, with repeats."""
        running = torch.arange(len(self.ids))
        if finishing:
            keep = torch.rand(len(running), generator=self.generator) < 0.6
            keep[int(torch.randint(len(running), (1,), generator=self.generator))] = True
            running = running[keep]
        beams = torch.randint(self.beams, (len(running), self.beams), generator=self.generator)
        return (running.unsqueeze(1) * self.beams + beams).flatten()

    def reorder(self, order: Tensor) -> None:
        inputs = order[:: self.beams] // self.beams
        self.ids = self.ids[inputs]
        self.tokens = [tokens.index_select(1, order) for tokens in self.tokens]
        self.source = [source.index_select(1, inputs) for source in self.source]


def rows_of_inputs(keep: Tensor, beams: int) -> Tensor:
    return keep.repeat_interleave(beams).nonzero().squeeze(1)


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("batch, beams", [(1, 1), (1, 4), (6, 1), (6, 3)])
def test_equals_a_cache_of_all_rows(batch: int, beams: int, keep: float) -> None:
    for seed in range(8):
        generator = torch.Generator().manual_seed(seed)
        decisions = random_decisions(batch, keep, seed)
        cache = DecoderCache(decisions, beams, SPACE.encoder_layers, SPACE.decoder_layers)
        reference = AllRows(batch, beams, generator)
        for step in range(6):
            check_step(cache, reference, decisions)
            order = reference.next_order(finishing=step % 2 == 1)
            reference.reorder(order)
            cache.reorder(order)
            assert cache.decisions.equal(decisions.select(reference.ids))
            check_contents(cache, reference, decisions)


def check_step(cache: DecoderCache, reference: AllRows, decisions: Decisions) -> None:
    """A decoding step: only inputs that run a sublayer put something into its cache, as the layers do."""
    new, running = reference.step(), decisions.select(reference.ids)
    for index, layer in enumerate(cache.layers):
        rows = rows_of_inputs(running.attention_keep[:, SPACE.encoder_layers + index], cache.beams)
        if rows.numel():
            keys, values = layer.append(*new[index][:, rows])
            assert torch.equal(torch.stack([keys, values]), reference.tokens[index][:, rows])
        if layer.source is None:
            keys, values = reference.source[index][:, running.cross_attention_keep[:, index]]
            layer.source = keys, values


def check_contents(cache: DecoderCache, reference: AllRows, decisions: Decisions) -> None:
    running = decisions.select(reference.ids)
    for index, layer in enumerate(cache.layers):
        rows = rows_of_inputs(running.attention_keep[:, SPACE.encoder_layers + index], cache.beams)
        if rows.numel() == 0:
            assert layer.keys is None or layer.keys.size(0) == 0, "nothing is kept of a sublayer that nobody runs"
        else:
            assert layer.keys is not None and layer.values is not None
            assert torch.equal(torch.stack([layer.keys, layer.values]), reference.tokens[index][:, rows])
        assert layer.source is not None
        expected = reference.source[index][:, running.cross_attention_keep[:, index]]
        assert torch.equal(torch.stack(layer.source), expected)


def test_hypotheses_that_stay_in_place_keep_the_source_as_it_is() -> None:
    """Reordering hypotheses within their inputs moves no keys of the source, which are the larger part."""
    cache = DecoderCache(random_decisions(3, 0.5, 1), 2, SPACE.encoder_layers, SPACE.decoder_layers)
    pairs = [(torch.randn(1), torch.randn(1)) for _ in cache.layers]
    for layer, pair in zip(cache.layers, pairs):
        layer.source = pair
    decisions = cache.decisions
    cache.reorder(torch.tensor([1, 0, 3, 3, 4, 5]))
    assert all(layer.source is pair for layer, pair in zip(cache.layers, pairs))
    assert cache.decisions is decisions


def test_reordering_before_the_first_step() -> None:
    cache = DecoderCache(random_decisions(3, 0.5, 1), 2, SPACE.encoder_layers, SPACE.decoder_layers)
    expected = cache.decisions.select([2])
    cache.reorder(torch.tensor([5, 4]))
    assert cache.decisions.equal(expected)
    assert all(layer.keys is None and layer.source is None for layer in cache.layers)
