"""The policy network (paper, section 3.2) and the distributions it puts over decisions (Eq. 2 and 3)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from .decisions import NUM_TOKEN_STRATEGIES, Decisions, DecisionSpace
from .dial import AUTO, Dial
from .errors import UserError

#: Probabilities a new policy gives to keeping a sublayer and to keeping all tokens: training starts as the
#: pretrained model, whose greedy path keeps everything.
INITIAL_KEEP = 0.95
INITIAL_KEEP_ALL_TOKENS = 0.4


@dataclass(frozen=True)
class DecisionDistribution:
    """pi(s|x) eta(a|x) for a batch: independent Bernoulli variables and one categorical.

    Attributes:
        sublayer_logits: float32 (B, n), logit of keeping.
        token_logits: float32 (B, 7), or None where these columns do not decide on tokens.
    """

    sublayer_logits: Tensor
    token_logits: Tensor | None

    def greedy(self) -> tuple[Tensor, Tensor | None]:
        """The most likely decision ("During Inference"): keep when g >= 0.5, argmax of h."""
        tokens = None if self.token_logits is None else self.token_logits.argmax(1)
        return self.sublayer_logits >= 0, tokens

    def probabilities(self, floor: float = 0.0) -> tuple[Tensor, Tensor | None]:
        """g (B, n) and h (B, 7), mixed with the uniform distribution so that no choice is rarer than ``floor``."""
        keep = floor + (1 - 2 * floor) * self.sublayer_logits.sigmoid()
        if self.token_logits is None:
            return keep, None
        return keep, floor + (1 - NUM_TOKEN_STRATEGIES * floor) * self.token_logits.softmax(1)

    def sample(self, sublayer_uniforms: Tensor, token_uniform: Tensor, floor: float) -> tuple[Tensor, Tensor | None]:
        """Decisions from uniform numbers in [0, 1): (B, n) and (B,)."""
        keep, tokens = self.probabilities(floor)
        if tokens is not None:
            steps = tokens.cumsum(1)[:, :-1].contiguous()
            tokens = torch.searchsorted(steps, token_uniform.unsqueeze(1).contiguous(), right=True).squeeze(1)
        return sublayer_uniforms < keep, tokens

    def log_prob(self, space: DecisionSpace, decisions: Decisions, floor: float) -> Tensor:
        """log pi(s|x) + log eta(a|x) of the distribution that was sampled (with its floor): (B,).

        Closed decisions contribute nothing.
        """
        device = self.sublayer_logits.device
        kept, strategy = (tensor.to(device) for tensor in space.flat(decisions))
        keep, tokens = self.probabilities(floor)
        chosen = torch.where(kept, keep, 1 - keep)
        log_prob = (chosen.log() * space.open_sublayers().to(device)).sum(1)
        if tokens is not None and space.token_open:
            log_prob = log_prob + tokens.gather(1, strategy.unsqueeze(1)).squeeze(1).log()
        return log_prob

    def entropy(self, space: DecisionSpace) -> Tensor:
        """Entropy of the open decisions, in nats: (B,)."""
        keep, tokens = self.probabilities()
        open_sublayers = space.open_sublayers().to(keep.device)
        entropy = (binary_entropy(keep) * open_sublayers).sum(1)
        if tokens is not None and space.token_open:
            entropy = entropy - torch.special.xlogy(tokens, tokens).sum(1)
        return entropy


def binary_entropy(probability: Tensor) -> Tensor:
    """Entropy of Bernoulli(probability) in nats, elementwise."""
    other = 1 - probability
    return -torch.special.xlogy(probability, probability) - torch.special.xlogy(other, other)


class Chooser(Protocol):
    """How decisions come out of a distribution.

    Attributes:
        budgets: float32 (B,), what a policy with a dial is asked for, see `Dial.columns`; None = nothing.
    """

    budgets: Tensor | None

    def __call__(self, distribution: DecisionDistribution, columns: Tensor) -> tuple[Tensor, Tensor | None]:
        """Sublayers to keep, bool (B, n), and token strategies, of the columns int64 (n,)."""
        ...


class GreedyChoice:
    """The chooser of inference."""

    def __init__(self, budgets: Tensor | None = None):
        self.budgets = budgets

    def __call__(self, distribution: DecisionDistribution, columns: Tensor) -> tuple[Tensor, Tensor | None]:
        """`Chooser`."""
        return distribution.greedy()


class Float32Module(nn.Module):
    """A module that follows the model to its device, never to half precision."""

    def _apply(self, fn: Callable[[Tensor], Tensor], *args: bool, **kwargs: bool) -> Float32Module:
        return super()._apply(lambda tensor: tensor.to(fn(tensor.new_empty(0)).device), *args, **kwargs)


class SwitchPolicy(Float32Module):
    """One-layer MLP with layer normalization and ReLU, a sigmoid head and a softmax head (section 3.2).

    It decides in *stages*. The paper's policy has one: everything is decided from the first encoder layer's output.
    With ``per_layer`` (Table 11) an encoder layer's decisions are made from the output of the layer before it, the
    token strategy from the first layer's, and the decoder's from the encoder's last, since decisions are made before
    decoding; every stage has its own network.

    The policy stays in float32 whatever the model is cast to, and its parameters do not require gradients: fairseq's
    optimizer, scaling and clipping see only the model (Algorithm 1 has two learning rates);
    `fairseq_switchdec.rl.PolicyLearner` moves them.

    With a dial it also reads a budget, which shifts the hidden layer's input and every decision's logit.

    Args:
        input_dim: D, size of the features.
        hidden_dim: width of the hidden layer.
        dial: the budgets that it can be asked for, or None.
    """

    feature_mean: Tensor
    feature_std: Tensor

    def __init__(
        self,
        space: DecisionSpace,
        input_dim: int,
        hidden_dim: int,
        per_layer: bool = False,
        dial: Dial | None = None,
    ):
        super().__init__()
        self.space = space
        self.per_layer = per_layer
        self.dial = dial
        self.stages = stage_columns(space, per_layer)
        self.networks = nn.ModuleList(
            nn.Sequential(nn.Linear(input_dim, hidden_dim), nn.LayerNorm(hidden_dim), nn.ReLU()) for _ in self.stages
        )
        self.sublayer_heads = nn.ModuleList(nn.Linear(hidden_dim, len(columns)) for columns in self.stages)
        self.token_head = nn.Linear(hidden_dim, NUM_TOKEN_STRATEGIES)
        #: What an input is asked for where nobody says, see `Dial.columns`; None = that it decides by itself.
        self.default_budget: float | None = None
        if dial is not None:  # a checkpoint without a dial has none of these
            self.register_buffer("budgets", torch.tensor([dial.low, dial.high, float(dial.auto)]))
            outputs = [len(columns) for columns in self.stages]
            self.budget_hidden = nn.ParameterList(torch.zeros(hidden_dim, dial.size) for _ in self.stages)
            self.budget_sublayers = nn.ParameterList(torch.zeros(count, dial.size) for count in outputs)
            self.budget_tokens = nn.Parameter(torch.zeros(NUM_TOKEN_STRATEGIES, dial.size))
        # Statistics of the features, one row a stage; without standardizing, every policy ends as one static path.
        self.register_buffer("feature_mean", torch.zeros(len(self.stages), input_dim))
        self.register_buffer("feature_std", torch.ones(len(self.stages), input_dim))
        self.reset_parameters()
        self.requires_grad_(False)

    def keep_biases(self) -> list[Tensor]:
        """Views of the logits' biases of all decisions to keep: raised, they make the policy cautious.

        (n,) each or, with a dial, (n, columns of the dial).
        """
        if self.dial is None:
            biases = [head.bias for head in (*self.sublayer_heads, self.token_head)]
        else:
            biases = [*self.budget_sublayers, self.budget_tokens]
        *sublayers, tokens = (bias for bias in biases if isinstance(bias, Tensor))
        return [*sublayers, tokens[:1]]

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Make a new policy: every input gets the initial probabilities, so the greedy path keeps everything."""
        for module in self.networks.modules():
            if isinstance(module, (nn.Linear, nn.LayerNorm)):
                module.reset_parameters()
        for module in self.sublayer_heads:
            assert isinstance(module, nn.Linear)
            module.weight.zero_()
            module.bias.fill_(math.log(INITIAL_KEEP / (1 - INITIAL_KEEP)))
        self.token_head.weight.zero_()
        self.token_head.bias.fill_(math.log((1 - INITIAL_KEEP_ALL_TOKENS) / (NUM_TOKEN_STRATEGIES - 1)))
        self.token_head.bias[0] = math.log(INITIAL_KEEP_ALL_TOKENS)
        if self.dial is not None:
            for shift in (*self.budget_hidden, *self.budget_sublayers, self.budget_tokens):
                shift.zero_()

    def stage(self, index: int, features: Tensor, budgets: Tensor | None = None) -> DecisionDistribution:
        """The distribution of one stage's decisions given its features, (B, D) in any float dtype.

        Args:
            budgets: float32 (B,) of a policy with a dial; None = ``default_budget``.

        Raises:
            UserError: neither is there, and the policy was trained for budgets only.
        """
        x = (features.float() - self.feature_mean[index]) / self.feature_std[index]
        with torch.autocast(x.device.type, enabled=False):
            asked = self.asked(budgets, x)
            network = self.networks[index]
            assert isinstance(network, nn.Sequential)
            hidden = network[0](x)
            if asked is not None:
                hidden = hidden + nn.functional.linear(asked, self.budget_hidden[index])
            hidden = network[1:](hidden)
            sublayers = self.sublayer_heads[index](hidden)
            tokens = self.token_head(hidden) if index == 0 else None
            if asked is not None:
                sublayers = sublayers + nn.functional.linear(asked, self.budget_sublayers[index])
                tokens = None if tokens is None else tokens + nn.functional.linear(asked, self.budget_tokens)
            return DecisionDistribution(sublayers, tokens)

    def asked(self, budgets: Tensor | None, x: Tensor) -> Tensor | None:
        """The budgets as the dial's columns, where ``x`` (B, D) is; None without a dial."""
        if self.dial is None:
            return None
        if budgets is None:
            if not self.dial.auto and self.default_budget is None:
                raise UserError(f"this policy decides for {self.dial.in_words()}: give --switch-budget")
            budgets = torch.full((len(x),), self.default_budget or AUTO)
        return self.dial.columns(budgets.to(x.device))

    def forward(self, features: Tensor, budgets: Tensor | None = None) -> DecisionDistribution:
        """The distribution of all decisions given every stage's features, (B, stages, D), and budgets, see `stage`."""
        parts = [self.stage(index, features[:, index], budgets) for index in range(len(self.stages))]
        order = torch.cat(self.stages).argsort()
        logits = torch.cat([part.sublayer_logits for part in parts], dim=1)
        return DecisionDistribution(logits[:, order.to(logits.device)], parts[0].token_logits)

    def decide(self, index: int, features: Tensor, choose: Chooser, decided: Decisions) -> Decisions:
        """``decided`` with the decisions of stage ``index`` filled in from its features, (B, D)."""
        keep, strategy = self.space.flat(decided)
        chosen, tokens = choose(self.stage(index, features, choose.budgets), self.stages[index])
        keep[:, self.stages[index]] = chosen.cpu()
        return self.space.decisions(keep, strategy if tokens is None else tokens)

    def flops(self) -> int:
        """Multiply-accumulates of one input's decision, times 2."""
        linears = [module for module in self.modules() if isinstance(module, nn.Linear)]
        weights = [linear.weight for linear in linears]
        if self.dial is not None:
            weights += [*self.budget_hidden, *self.budget_sublayers, self.budget_tokens]
        return 2 * sum(weight.numel() for weight in weights)


def stage_columns(space: DecisionSpace, per_layer: bool) -> list[Tensor]:
    """Which sublayer columns each stage decides; stage k reads the output of layer k of the encoder or only stack."""
    if not per_layer:
        return [torch.arange(space.num_sublayers)]
    layer = space.layer_of_sublayer()
    stages = [(layer == index + 1).nonzero().squeeze(1) for index in range(space.encoder_layers - 1)]
    stages[0] = torch.cat([(layer == 0).nonzero().squeeze(1), stages[0]])  # always kept, but every column needs a home
    decoder = (layer >= space.encoder_layers).nonzero().squeeze(1)
    return [*stages, decoder] if decoder.numel() else stages


def pool(x: Tensor, lengths: Tensor) -> Tensor:
    """Mean over each input's tokens: (N, D), tokens side by side, and int64 (B,), to float32 (B, D)."""
    return torch.segment_reduce(x.float(), "mean", lengths=lengths, axis=0)


def random_decisions(space: DecisionSpace, uniforms: Tensor, keep: float) -> Decisions:
    """Random decisions (Table 8): each sublayer and all tokens are kept with probability ``keep``, and otherwise one of
    the six dropping strategies is drawn. ``uniforms``: (B, num_sublayers + 1) in [0, 1).
    """
    sublayer, token = uniforms[:, :-1], uniforms[:, -1]
    dropped = (token - keep) / max(1 - keep, 1e-9) * (NUM_TOKEN_STRATEGIES - 1)
    strategy = torch.where(token < keep, 0, 1 + dropped.long().clamp(0, NUM_TOKEN_STRATEGIES - 2))
    return space.decisions(sublayer < keep, strategy)


def input_uniforms(seed: int, update: int, ids: Tensor, count: int) -> Tensor:
    """Uniform numbers in [0, 1) that depend on the seed, the update and the input's id only: float32 (B, count).

    Not on batch order, rank or gradient accumulation, so that every layout of a run draws the same decisions.
    """
    rows = []
    for input_id in ids.tolist():
        words = ((seed & 0xFFFF_FFFF) << 32 | update & 0xFFFF_FFFF, input_id & 0xFFFF_FFFF_FFFF_FFFF)
        generator = np.random.Generator(np.random.Philox(key=np.array(words, dtype=np.uint64)))
        rows.append(torch.from_numpy(generator.random(count, dtype=np.float32)))
    return torch.stack(rows)
