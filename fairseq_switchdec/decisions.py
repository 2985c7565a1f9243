"""The decision space (paper, section 3.1): what may be skipped, and what one batch of inputs skips.

One polarity everywhere: *keep*, True = the sublayer runs. Layers are counted through the network, encoder first:
``l`` in ``0..Le-1`` is an encoder layer, ``Le..L-1`` a decoder layer, ``L = Le + Ld``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

CANDIDATES = ("attention", "ffn", "token")
SCOPES = ("encoder", "decoder")

#: J of Eq. 3. Strategy 0 keeps all tokens; `fairseq_switchdec.tokens` defines the others.
NUM_TOKEN_STRATEGIES = 7


@dataclass(frozen=True, eq=False)
class Decisions:
    """What every input of a batch runs: the sampled s of Eq. 2 and a of Eq. 3.

    Decisions steer control flow, so they live on the CPU; moving a batch of them there is the one synchronization
    that switching costs.

    Attributes:
        attention_keep: bool (B, L); in a decoder layer, its self-attention.
        ffn_keep: bool (B, L).
        cross_attention_keep: bool (B, Ld); equals ``attention_keep[:, Le:]`` unless the space splits them.
        token_strategy: int64 (B,), 0 <= strategy < 7.
    """

    attention_keep: Tensor
    ffn_keep: Tensor
    cross_attention_keep: Tensor
    token_strategy: Tensor
    _rows: dict[tuple[str, int, str], Tensor | None] = field(default_factory=dict, init=False, repr=False)

    def __len__(self) -> int:
        return self.attention_keep.size(0)

    def rows(self, sublayer: str, layer: int, device: torch.device | str = "cpu") -> Tensor | None:
        """The inputs that run one sublayer: None when all do, else their indices, int64 (n,), possibly empty.

        ``sublayer`` is ``attention``, ``ffn`` or ``cross_attention``; ``layer`` counts as in that field's columns.
        Computed once a batch, whatever the number of decoding steps.
        """
        key = (sublayer, layer, str(device))
        if key not in self._rows:
            keep = getattr(self, f"{sublayer}_keep")[:, layer]
            self._rows[key] = None if bool(keep.all()) else keep.nonzero().squeeze(1).to(device)
        return self._rows[key]

    def select(self, inputs: Sequence[int] | Tensor) -> Decisions:
        """The decisions of some inputs, in the order given."""
        index = torch.as_tensor(inputs, dtype=torch.long)
        return Decisions(*(tensor[index] for tensor in self.tensors()))

    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The four decision tensors, in the order of the fields."""
        return self.attention_keep, self.ffn_keep, self.cross_attention_keep, self.token_strategy

    def equal(self, other: Decisions) -> bool:
        """Whether both hold the same decisions."""
        return all(torch.equal(mine, theirs) for mine, theirs in zip(self.tensors(), other.tensors()))

    def to_json(self) -> list[dict[str, Any]]:
        """One JSON object an input, as `DecisionSpace.from_json` reads it."""
        names = ("attention_keep", "ffn_keep", "cross_attention_keep", "token_strategy")
        columns = [tensor.tolist() for tensor in self.tensors()]
        return [dict(zip(names, values)) for values in zip(*columns)]

    @staticmethod
    def cat(parts: Sequence[Decisions]) -> Decisions:
        """Several batches' decisions as one."""
        return Decisions(*(torch.cat(tensors) for tensors in zip(*(part.tensors() for part in parts))))


@dataclass(frozen=True)
class DecisionSpace:
    """Which decisions are open. Everything else is always kept.

    The sublayer decisions of Eq. 2 are laid out as one row of `num_sublayers` Bernoulli variables: attention of the
    L layers, feed-forward of the L layers and, with ``split_attention``, cross-attention of the Ld decoder layers.
    The first encoder layer is never open: its output is what the policy reads (section 3.1). A decoder-only model has
    one stack, which counts as an encoder here: ``decoder_layers`` is 0.

    Raises:
        ValueError: naming the flag, for an unknown candidate or scope, a space with nothing open, or an encoder of
            one layer.
    """

    encoder_layers: int
    decoder_layers: int
    candidates: tuple[str, ...] = CANDIDATES
    scope: tuple[str, ...] = SCOPES
    split_attention: bool = False

    def __post_init__(self) -> None:
        check_names("--switch-candidates", self.candidates, CANDIDATES)
        check_names("--switch-scope", self.scope, SCOPES)
        if self.encoder_layers < 2:
            flag = "--encoder-layers" if self.decoder_layers else "--decoder-layers"
            raise ValueError(
                f"{flag} {self.encoder_layers}: {self.first_layer} feeds the policy and always runs, so switching "
                "needs at least 2 layers there"
            )
        if not (self.open_sublayers().any() or self.token_open):
            raise ValueError(
                f"--switch-candidates {','.join(self.candidates)} with --switch-scope {','.join(self.scope)} leaves "
                "nothing to decide: tokens are dropped in the encoder only"
            )

    @property
    def first_layer(self) -> str:
        """What always runs, for messages."""
        return "the first encoder layer" if self.decoder_layers else "the first layer"

    def in_words(self) -> str:
        """Its layers, for messages."""
        if self.decoder_layers == 0:
            return f"{self.encoder_layers} layers"
        return f"{self.encoder_layers} encoder and {self.decoder_layers} decoder layers"

    @property
    def num_layers(self) -> int:
        """L of Eq. 2."""
        return self.encoder_layers + self.decoder_layers

    @property
    def num_sublayers(self) -> int:
        """Number of Bernoulli variables: 2 L, and Ld more when cross-attention has decisions of its own."""
        return 2 * self.num_layers + (self.decoder_layers if self.split_attention else 0)

    @property
    def token_open(self) -> bool:
        """Whether tokens may be dropped (from the encoder's hidden states only)."""
        return "token" in self.candidates and "encoder" in self.scope

    def open_sublayers(self) -> Tensor:
        """bool (num_sublayers,): True where the policy has a say."""
        layers = torch.zeros(self.num_layers, dtype=torch.bool)
        layers[1 : self.encoder_layers] = "encoder" in self.scope
        layers[self.encoder_layers :] = "decoder" in self.scope
        attention = layers & ("attention" in self.candidates)
        columns = [attention, layers & ("ffn" in self.candidates)]
        if self.split_attention:
            columns.append(attention[self.encoder_layers :])
        return torch.cat(columns)

    def layer_of_sublayer(self) -> Tensor:
        """int64 (num_sublayers,): the layer each Bernoulli variable belongs to."""
        layers = torch.arange(self.num_layers)
        columns = [layers, layers]
        if self.split_attention:
            columns.append(layers[self.encoder_layers :])
        return torch.cat(columns)

    def decisions(self, sublayer_keep: Tensor, token_strategy: Tensor) -> Decisions:
        """Decisions from the flat layout: bool (B, num_sublayers) and int64 (B,); what is closed is kept."""
        keep = sublayer_keep.cpu() | ~self.open_sublayers()
        strategy = token_strategy.cpu() if self.token_open else torch.zeros_like(token_strategy, device="cpu")
        return Decisions(*self.columns(keep), strategy)

    def columns(self, sublayers: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Attention (B, L), feed-forward (B, L) and cross-attention (B, Ld) of the flat layout (B, num_sublayers)."""
        attention, ffn = sublayers[:, : self.num_layers], sublayers[:, self.num_layers : 2 * self.num_layers]
        cross = sublayers[:, 2 * self.num_layers :] if self.split_attention else attention[:, self.encoder_layers :]
        return attention, ffn, cross

    def flat(self, decisions: Decisions) -> tuple[Tensor, Tensor]:
        """The inverse of `decisions`: bool (B, num_sublayers) and int64 (B,)."""
        columns = [decisions.attention_keep, decisions.ffn_keep]
        if self.split_attention:
            columns.append(decisions.cross_attention_keep)
        return torch.cat(columns, dim=1), decisions.token_strategy

    def keep_all(self, batch_size: int) -> Decisions:
        """The pretrained model's path for every input."""
        keep = torch.ones(batch_size, self.num_sublayers, dtype=torch.bool)
        return self.decisions(keep, torch.zeros(batch_size, dtype=torch.long))

    def from_json(self, entries: Sequence[dict[str, Any]]) -> Decisions:
        """Forced decisions, one object an input: ``{"attention_keep": [L booleans], "ffn_keep": [L booleans],
        "token_strategy": 0..6}`` and optionally ``"cross_attention_keep": [Ld booleans]``.

        Candidates and scope do not bind forced decisions: experiments may force what the policy may not choose.

        Raises:
            ValueError: saying what is wrong with which entry.
        """
        parsed = [self._parse_entry(index, entry) for index, entry in enumerate(entries)]
        attention, ffn, cross, strategy = zip(*parsed)
        return Decisions(torch.tensor(attention), torch.tensor(ffn), torch.tensor(cross), torch.tensor(strategy))

    def _parse_entry(self, index: int, entry: Any) -> tuple[list[bool], list[bool], list[bool], int]:
        if not isinstance(entry, dict):
            raise ValueError(f"entry {index} is not a JSON object")

        def booleans(name: str, length: int) -> list[bool]:
            values = entry.get(name)
            if not isinstance(values, list) or len(values) != length or not all(v in (0, 1) for v in values):
                raise ValueError(f"entry {index}: {name!r} must be a list of {length} booleans")
            return [bool(value) for value in values]

        attention = booleans("attention_keep", self.num_layers)
        ffn = booleans("ffn_keep", self.num_layers)
        cross = attention[self.encoder_layers :]
        if "cross_attention_keep" in entry:
            cross = booleans("cross_attention_keep", self.decoder_layers)
        strategy = entry.get("token_strategy")
        if not isinstance(strategy, int) or isinstance(strategy, bool) or not 0 <= strategy < NUM_TOKEN_STRATEGIES:
            raise ValueError(f"entry {index}: 'token_strategy' must be a whole number from 0 to 6")
        if not (attention[0] and ffn[0]):
            raise ValueError(f"entry {index} skips {self.first_layer}, which always runs: set its booleans to true")
        return attention, ffn, cross, strategy


def check_names(flag: str, names: Sequence[str], known: Sequence[str]) -> None:
    """Raise a ValueError naming ``flag`` unless ``names`` is a non-empty choice from ``known``."""
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        found = f"unknown name {unknown[0]!r}" if unknown else "nothing chosen"
        raise ValueError(f"{flag}: {found}; choose from {', '.join(known)} (several joined by commas)")
