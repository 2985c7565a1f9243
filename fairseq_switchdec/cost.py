"""The cost model ("estimated FLOPs", section 3.2): 2 x multiply-accumulates of every matrix product that a path runs.

Counted for the real lengths of each input: projections, scores, context, feed-forward, output projection and policy;
encoder tokens after dropping; decoder steps x beam. ``cost`` in (0, 1] is a path's FLOPs over those of the same
input's keep-all path with the same output length; it is the *computation* of Eq. 4 and what Tables 2 to 5 report.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from .decisions import NUM_TOKEN_STRATEGIES, Decisions, DecisionSpace
from .tokens import num_dropped, same_tokens


@dataclass(frozen=True)
class Geometry:
    """The sizes of a model that its FLOPs depend on.

    Attributes:
        encoder_layers: of the encoder, or of a decoder-only model's one stack: it reads prompts, and then goes through
            the same layers for what follows.
        decoder_layers: 0 in a decoder-only model.
        attention_dim: size of the queries of all heads together, 0 = the layer's own size.
        key_dim: of the keys, and of the values, of all heads together; 0 = the same as the queries'.
        ffn_products: matrices of a feed-forward sublayer, 3 in a gated one.
        vocabulary: rows of the product that every output position goes through: the output projection's in generation,
            a span head's 2, or 0.
        head: multiply-accumulates done once an input: a classification head's, or 0.
    """

    encoder_layers: int
    decoder_layers: int
    encoder_dim: int
    decoder_dim: int
    encoder_ffn_dim: int
    decoder_ffn_dim: int
    vocabulary: int
    head: int = 0
    attention_dim: int = 0
    key_dim: int = 0
    ffn_products: int = 2

    def spend(self, keep: Keep, lengths: Lengths, policy_flops: int = 0) -> Tensor:
        """`flops`."""
        return flops(self, keep, lengths, policy_flops)

    def attention_dims(self, dim: int) -> tuple[int, int]:
        """Sizes of queries and of keys in a layer whose own size is ``dim``."""
        queries = self.attention_dim or dim
        return queries, self.key_dim or queries


class Prices(Protocol):
    """What everything that a path runs takes, in one unit: FLOPs (`Geometry`), or seconds on one machine
    (`fairseq_switchdec.seconds.Seconds`).
    """

    @property
    def encoder_layers(self) -> int:
        """See `Geometry`."""
        ...

    @property
    def decoder_layers(self) -> int:
        """See `Geometry`."""
        ...

    def spend(self, keep: Keep, lengths: Lengths, policy_flops: int = 0) -> Tensor:
        """What each input's path takes: float64 (B,); ``policy_flops`` is not 0 where the policy decided."""
        ...


@dataclass(frozen=True)
class Lengths:
    """The lengths of a batch of inputs, int64 (B,) each, on the CPU.

    Attributes:
        source: real source tokens, ``<s>`` and ``</s>`` among them; of a decoder-only model, the prompt without its
            last token, from which it writes the first one.
        content: those that may be dropped.
        target: output tokens, ``</s>`` among them: decoding steps; the decoder's own input where nothing is generated.
        beam: hypotheses an input is decoded with.
        incremental: step by step with cached keys (generation), or all positions at once (teacher forcing).
    """

    source: Tensor
    content: Tensor
    target: Tensor
    beam: int = 1
    incremental: bool = True

    def repeat(self, times: int) -> Lengths:
        """Of the same inputs so many times, one after another."""
        source, content, target = (part.repeat(times) for part in (self.source, self.content, self.target))
        return replace(self, source=source, content=content, target=target)


@dataclass(frozen=True)
class Keep:
    """Decisions as numbers, so that expected decisions can be priced as well as real ones.

    Attributes:
        attention: (B, L) share of running, in [0, 1].
        ffn: (B, L).
        cross_attention: (B, Ld).
        source: (B,) source tokens that the layers after the first see.
    """

    attention: Tensor
    ffn: Tensor
    cross_attention: Tensor
    source: Tensor

    @classmethod
    def of(cls, decisions: Decisions, lengths: Lengths) -> Keep:
        """The numbers of real decisions."""
        dropped = num_dropped(lengths.content, decisions.token_strategy)
        attention, ffn, cross_attention, _ = decisions.tensors()
        return cls(attention.double(), ffn.double(), cross_attention.double(), (lengths.source - dropped).double())

    @classmethod
    def expected(cls, space: DecisionSpace, keep: Tensor, strategy: int, lengths: Lengths) -> Keep:
        """What independent sublayers run on average under one token strategy.

        Args:
            keep: (B, num_sublayers), probabilities of running, laid out as in `DecisionSpace.flat`.
        """
        share = torch.where(space.open_sublayers(), keep.cpu().double(), 1.0)
        attention, ffn, cross_attention = space.columns(share)
        dropped = num_dropped(lengths.content, torch.full_like(lengths.content, strategy))
        return cls(attention, ffn, cross_attention, (lengths.source - dropped).double())

    @classmethod
    def uniform(cls, geometry: Prices, lengths: Lengths, share: float, token_strategy: int = 0) -> Keep:
        """Every sublayer runs with probability ``share``; the first encoder layer always."""
        batch = lengths.source.numel()
        layers = torch.full((batch, geometry.encoder_layers + geometry.decoder_layers), share, dtype=torch.double)
        layers[:, 0] = 1
        cross_attention = layers[:, geometry.encoder_layers :]
        strategy = torch.full((batch,), token_strategy, dtype=torch.long)
        source = lengths.source - num_dropped(lengths.content, strategy)
        return cls(layers, layers, cross_attention, source.double())


def flops(geometry: Geometry, keep: Keep, lengths: Lengths, policy_flops: int = 0) -> Tensor:
    """FLOPs of each input's path: float64 (B,).

    ``policy_flops`` is added where the policy made the decisions (`SwitchPolicy.flops`).
    """
    g, beam, target = geometry, lengths.beam, lengths.target.double()
    # Encoder, or prompt: the first layer sees all tokens, the others the kept ones.
    source = keep.source.unsqueeze(1).repeat(1, g.encoder_layers)
    source[:, 0] = lengths.source.double()
    queries, keys = g.attention_dims(g.encoder_dim)
    attention = source * 2 * g.encoder_dim * (queries + keys) + 2 * source**2 * queries
    feed_forward = source * g.ffn_products * g.encoder_dim * g.encoder_ffn_dim
    # What is written: keys that all steps together compare with, in a step those of all hypotheses (`runtime.cache`).
    own = beam * target * (target + 1) / 2 if lengths.incremental else target**2
    if g.decoder_layers == 0:
        pairs = beam * (own.unsqueeze(1) + target.unsqueeze(1) * source)
        attention += (beam * target * 2 * g.encoder_dim * (queries + keys)).unsqueeze(1) + 2 * pairs * queries
        feed_forward += (beam * target * g.ffn_products * g.encoder_dim * g.encoder_ffn_dim).unsqueeze(1)
    macs = (keep.attention[:, : g.encoder_layers] * attention).sum(1)
    macs += (keep.ffn[:, : g.encoder_layers] * feed_forward).sum(1)
    if g.decoder_layers > 0:  # the keys and values of the source are projected once an input
        queries, keys = g.attention_dims(g.decoder_dim)
        self_attention = beam * (target * 2 * g.decoder_dim * (queries + keys) + 2 * own * queries)
        cross_attention = beam * target * (2 * g.decoder_dim * queries + 2 * keep.source * queries)
        cross_attention += keep.source * 2 * g.encoder_dim * keys
        macs += keep.attention[:, g.encoder_layers :].sum(1) * self_attention
        macs += keep.cross_attention.sum(1) * cross_attention
        macs += keep.ffn[:, g.encoder_layers :].sum(1) * (
            beam * target * g.ffn_products * g.decoder_dim * g.decoder_ffn_dim
        )
    macs += beam * target * g.decoder_dim * g.vocabulary + g.head
    return 2 * macs + policy_flops


def cost(prices: Prices, decisions: Decisions, lengths: Lengths, policy_flops: int = 0) -> Tensor:
    """What each input takes, as a share of its keep-all path: float64 (B,) in (0, 1]."""
    path = prices.spend(Keep.of(decisions, lengths), lengths, policy_flops)
    return path / prices.spend(Keep.uniform(prices, lengths, 1.0), lengths, policy_flops)


def expected_cost(
    prices: Prices,
    space: DecisionSpace,
    keep: Tensor,
    tokens: Tensor | None,
    lengths: Lengths,
    policy_flops: int = 0,
) -> Tensor:
    """Each input's `cost` expected of independent decisions, float64 (B,): what a path takes is linear in whether each
    sublayer runs, and there are seven token strategies.

    Args:
        keep: (B, num_sublayers), probabilities of running.
        tokens: (B, 7), probabilities of the token strategies; None where all tokens are kept.
    """
    strategies = strategy_costs(prices, space, keep, lengths, policy_flops)
    if tokens is None or not space.token_open:
        return strategies[:, 0]
    return (tokens.cpu().double() * strategies).sum(1)


def least_cost(prices: Prices, space: DecisionSpace, lengths: Lengths, policy_flops: int = 0) -> Tensor:
    """Each input's `cost` when all that may be skipped is, float64 (B,)."""
    nothing = torch.zeros(len(lengths.source), space.num_sublayers)
    return strategy_costs(prices, space, nothing, lengths, policy_flops).amin(1)


def strategy_costs(
    prices: Prices, space: DecisionSpace, keep: Tensor, lengths: Lengths, policy_flops: int = 0
) -> Tensor:
    """Each input's `cost` expected under each token strategy that is open, float64 (B, 7) or (B, 1).

    Args:
        keep: (B, num_sublayers), probabilities of running.
    """
    whole = prices.spend(Keep.uniform(prices, lengths, 1.0), lengths, policy_flops)
    paths = [
        prices.spend(Keep.expected(space, keep, strategy, lengths), lengths, policy_flops) / whole
        for strategy in range(NUM_TOKEN_STRATEGIES if space.token_open else 1)
    ]
    return torch.stack(paths, dim=1)


def parts_of_cost(prices: Prices, space: DecisionSpace, lengths: Lengths, policy_flops: int = 0) -> Tensor:
    """What a path's `cost` adds up from, under each token strategy: float64 (B, 7, 1 + num_sublayers).

    First what always runs, the policy and closed sublayers too; then every open sublayer, if it runs. Where tokens are
    closed, all strategies keep all.
    """
    keep = torch.ones(len(lengths.source), space.num_sublayers, dtype=torch.double, requires_grad=True)
    with torch.enable_grad():  # linear in whether each sublayer runs
        costs = strategy_costs(prices, space, keep, lengths, policy_flops)
        sublayers = [torch.autograd.grad(each.sum(), keep, retain_graph=True)[0] for each in costs.unbind(1)]
    parts = torch.stack(sublayers, dim=1)
    always = costs.detach() - parts.sum(2)
    return torch.cat([always.unsqueeze(2), parts], dim=2).expand(-1, NUM_TOKEN_STRATEGIES, -1)


def same_path(first: Decisions, second: Decisions, lengths: Lengths) -> Tensor:
    """Whether two batches of decisions run the same for each input: bool (B,)."""
    equal = same_tokens(lengths.content, first.token_strategy, second.token_strategy)
    for mine, theirs in zip(first.tensors()[:3], second.tensors()[:3]):
        equal = equal & (mine == theirs).all(1)
    return equal


@dataclass(frozen=True)
class Skipped:
    """Shares of what each input skips (Table 10), float64 (B,): of attention and of feed-forward sublayers over all
    layers, and of source tokens."""

    attention: Tensor
    ffn: Tensor
    tokens: Tensor

    @classmethod
    def of(cls, decisions: Decisions, lengths: Lengths) -> Skipped:
        """The shares of real decisions."""
        attention = decisions.attention_keep.double()
        decoder_layers = decisions.cross_attention_keep.size(1)
        if decoder_layers:  # a decoder layer's attention is its self- and its cross-attention
            attention[:, -decoder_layers:] += decisions.cross_attention_keep
            attention[:, -decoder_layers:] /= 2
        dropped = num_dropped(lengths.content, decisions.token_strategy)
        return cls(1 - attention.mean(1), 1 - decisions.ffn_keep.double().mean(1), dropped / lengths.source)


def expected_random_cost(prices: Prices, lengths: Lengths, keep: float) -> float:
    """Expected mean cost of `policy.random_decisions` with keep probability ``keep`` and everything open."""
    space, batch = DecisionSpace(prices.encoder_layers, prices.decoder_layers), len(lengths.source)
    tokens = torch.full((batch, NUM_TOKEN_STRATEGIES), (1 - keep) / (NUM_TOKEN_STRATEGIES - 1), dtype=torch.double)
    tokens[:, 0] = keep
    sublayers = torch.full((batch, space.num_sublayers), keep, dtype=torch.double)
    return float(expected_cost(prices, space, sublayers, tokens, lengths).mean())


def keep_probability_for_cost(prices: Prices, lengths: Lengths, target_cost: float) -> float:
    """The keep probability at which random decisions cost ``target_cost`` on average.

    Raises:
        ValueError: when even probability 0 costs more, since some of the model always runs.
    """
    expected: Callable[[float], float] = lambda keep: expected_random_cost(prices, lengths, keep)  # noqa: E731
    low, high = 0.0, 1.0
    if target_cost < expected(low):
        raise ValueError(f"no random decisions cost {target_cost:.3f}: what always runs costs {expected(low):.3f}")
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if expected(middle) < target_cost else (low, middle)
    return (low + high) / 2
