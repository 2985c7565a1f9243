"""How much each layer changes the states that go through it: what a policy can know before it tries anything.

A layer's influence is one minus the cosine between the states it reads and those it gives, a mean over tokens ("block
influence", ShortGPT; Men et al., 2024). Measured on the keep-all path while the policy's features are standardized, it
costs no pass of its own. `fairseq_switchdec.policy.SwitchPolicy.start_from` turns it into where learning starts.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any

import torch
from torch import Tensor


class LayerInfluence:
    """Measures a model's layers in the passes made within a ``with``.

    Args:
        model: switchable.

    Attributes:
        measured: float64 (2, L): one minus the cosine, summed over the tokens that went through a layer; and how many
            did. Of a decoder-only model's tokens, those of the prompts.
    """

    def __init__(self, model: Any):
        self.decoder, self.padding = model.decoder, model.decoder.padding_idx
        self.layers = list(model.encoder.layers)
        if model.encoder.space.decoder_layers:  # a decoder-only model's one stack reads prompts as an encoder
            self.layers += model.decoder.layers
        self.measured = torch.zeros(2, len(self.layers), dtype=torch.float64)
        self.real: Tensor | None = None
        self.hooks: list[Any] = []

    def __enter__(self) -> LayerInfluence:
        self.hooks.append(self.decoder.register_forward_pre_hook(self.read))
        for index, layer in enumerate(self.layers):
            self.hooks.append(layer.register_forward_hook(self.measure(index)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self.hooks:
            self.hooks.pop().remove()

    def read(self, decoder: Any, inputs: tuple[Any, ...]) -> None:
        """The decoder's hook: padding among ``prev_output_tokens``, (B, T), does not count."""
        self.real = inputs[0].ne(self.padding)

    def measure(self, index: int) -> Any:
        """The hook of one layer."""

        def hook(layer: Any, inputs: tuple[Any, ...], output: Any) -> None:
            before, after = (self.states(x) for x in (inputs[0], output[0] if isinstance(output, tuple) else output))
            similar = torch.cosine_similarity(before.detach().double(), after.detach().double(), dim=-1)
            self.measured[0, index] += float((1 - similar).sum())
            self.measured[1, index] += len(similar)

        return hook

    def states(self, x: Tensor) -> Tensor:
        """(N, D) of real tokens: an encoder's come so, a decoder's are (B, 1, T, D)."""
        return x if x.dim() == 2 else x.squeeze(1)[self.real]
