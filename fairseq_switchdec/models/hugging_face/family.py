"""What a family of models is, for import and export alike: its options and its table of tensors.

One `Link` joins tensors of ours to tensors of theirs, laid one below the other::

    ours                                    theirs
    q_proj.weight (D, D) |                  c_attn.weight (D, 3 D), transposed
    k_proj.weight (D, D) |  (3 D, D)
    v_proj.weight (D, D) |
    fc1.weight (2 F, D)                     | gate_proj.weight (F, D)
                                            | up_proj.weight (F, D)
"""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from .config import Config
from .tensors import LazyTensor, concatenate, split, transpose
from .vocabulary import Vocabulary

EMBEDDING = "encoder.embed_tokens.weight"
HEAD = "decoder.output_projection.weight"


@dataclass(frozen=True)
class Link:
    """Tensors of ours and theirs that hold the same numbers.

    Attributes:
        ours, theirs: names of tensors of equal shapes, one below the other.
        shape: of ours together; (rows, D) of an embedding in our order.
        transposed: theirs are (inputs, outputs), as GPT-2's are.
        embeds: the rows are tokens, in Hugging Face's order there.
        copies: further names of ours for the same tensor.
    """

    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    shape: tuple[int, ...]
    transposed: bool = False
    embeds: bool = False
    copies: tuple[str, ...] = ()

    def their_shape(self, vocabulary: Vocabulary) -> tuple[int, ...]:
        """The shape of each of theirs."""
        if self.embeds:
            return (vocabulary.size, *self.shape[1:])
        if self.transposed:
            return self.shape[::-1]
        return (self.shape[0] // len(self.theirs), *self.shape[1:])

    def our_shape(self) -> tuple[int, ...]:
        """The shape of each of ours."""
        return (self.shape[0] // len(self.ours), *self.shape[1:])

    def to_ours(self, tensors: dict[str, LazyTensor], vocabulary: Vocabulary) -> Iterator[tuple[str, LazyTensor]]:
        """Ours of theirs, float32."""
        whole = concatenate([tensors[name] for name in self.theirs])
        if self.transposed:
            whole = transpose(whole)
        if self.embeds:
            whole = whole.map(vocabulary.to_ours, self.shape, torch.float32)
        parts = [part.map(lambda values: values, part.shape, torch.float32) for part in split(whole, len(self.ours))]
        yield from zip(self.ours, parts)
        yield from ((name, parts[0]) for name in self.copies)

    def to_theirs(self, tensors: dict[str, LazyTensor], vocabulary: Vocabulary) -> Iterator[tuple[str, LazyTensor]]:
        """Theirs of ours, in the number format that ours have."""
        whole = concatenate([tensors[name] for name in self.ours])
        if self.embeds:
            whole = whole.map(vocabulary.to_theirs, self.their_shape(vocabulary), whole.dtype)
        if self.transposed:
            whole = transpose(whole)
        yield from zip(self.theirs, split(whole, len(self.theirs)))


def linked(ours: str, theirs: str, *shape: int, **options: Any) -> Link:
    """A tensor of ours that is one of theirs."""
    return Link((ours,), (theirs,), shape, **options)


@dataclass(frozen=True)
class Family:
    """Models of one architecture.

    Attributes:
        model_types: names of it in config.json; export writes the first.
        arch: what import calls it.
        names: our registered models of it, as export finds them.
        prefix: what stands before the names of all of their tensors but the head's, where the whole model was saved.
        read: our options from a config.json, without those that all families share. Raises `UserError`.
        write: config.json from our options, without the token ids.
        links: all tensors, from our options and the rows of our embedding.
        embedding: theirs.
        start: the symbol that a decoder begins with; None for a decoder-only model, which reads a prompt.
        same: further names of theirs for the embedding.
        ignored: names of theirs that hold nothing a model learned.
        zeros: their tensors that must be zero, for ours have none such: name -> shape from V.
    """

    model_types: tuple[str, ...]
    arch: str
    names: tuple[str, ...]
    prefix: str
    read: Callable[[Config], dict[str, Any]]
    write: Callable[[Namespace], dict[str, Any]]
    links: Callable[[Namespace, int], list[Link]]
    embedding: str
    start: str | None = None
    same: tuple[str, ...] = ()
    ignored: re.Pattern[str] = re.compile(r"(?!)")
    zeros: dict[str, Callable[[int], tuple[int, ...]]] = field(default_factory=dict)

    @property
    def decoder_only(self) -> bool:
        """Whether it continues a prompt."""
        return self.start is None

    def strip(self, tensors: dict[str, LazyTensor], tied: bool) -> dict[str, LazyTensor]:
        """Their tensors by their names in `links`: without the prefix, the duplicates and what is ignored."""
        found = {name[len(self.prefix) :] if name.startswith(self.prefix) else name: t for name, t in tensors.items()}
        found = {name: tensor for name, tensor in found.items() if not self.ignored.match(name)}
        for name in (*self.same, *(("lm_head.weight",) if tied else ())):
            if name in found:
                found.setdefault(self.embedding, found.pop(name))
        return found

    def full_name(self, name: str) -> str:
        """The name in a file of the whole model."""
        return name if name.startswith("lm_head.") or name in self.zeros else self.prefix + name
