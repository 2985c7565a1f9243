"""What the systems that are compared have in common, each behind the same two calls: compute a check, generate.

All of them get the same weights and sources, search with the same beam for exactly ``out_len`` words and ``</s>``, and
are called as their documentation says to call them for speed: fairseq's models after ``make_generation_fast_``, as
``fairseq-generate`` runs them; Hugging Face's with its key/value cache and fused attention; OpenVINO and ONNX Runtime
through Hugging Face's optimum; CTranslate2 and llama.cpp as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ..setup import EOS, Setup


@dataclass(frozen=True)
class Timing:
    """Seconds of one generation of a batch, and of its encoder's part, or of reading its prompt."""

    encoder: float
    total: float

    def __add__(self, other: Timing) -> Timing:
        """Of one generation after the other."""
        return Timing(self.encoder + other.encoder, self.total + other.total)


class NotInstalled(Exception):
    """A system's library is missing; the message says how to get it."""


class System(Protocol):
    """What a worker does."""

    def check(self, source: np.ndarray, target: np.ndarray) -> np.ndarray:
        """Of the keep-all model under teacher forcing, BART's starting with ``</s>``: float32 logits (B, T, V) for the
        words of ``target``, int64 (B, T); or their log-probabilities (B, T) where logits cannot be had.
        """

    def generate(self, source: list[list[int]], beam: int, decisions: list[Any] | None) -> Timing:
        """Generate for a batch of inputs' tokens.

        Args:
            beam: hypotheses an input.
            decisions: one object an input, as `DecisionSpace.from_json` reads them, for ours; None = the policy's.
        """


def load(setup: Setup) -> System:
    """The system a worker is to run. Imports what that one needs only: what a library brings counts in its memory.

    Raises:
        NotInstalled: its library is missing.
    """
    if setup.system == "hf":
        from .hugging_face import Bart, Llama

        return (Llama if setup.gguf else Bart)(setup)
    if setup.system == "llama.cpp":
        from .llama_cpp import LlamaCpp

        return LlamaCpp(setup)
    if setup.system == "openvino":
        from .exported import OpenVino

        return OpenVino(setup)
    if setup.system == "onnxruntime":
        from .exported import OnnxRuntime

        return OnnxRuntime(setup)
    if setup.system.startswith("ct2"):
        from .ctranslate2 import CTranslate2

        return CTranslate2(setup)
    from .fairseq import Fairseq, Llama

    return (Llama if setup.gguf else Fairseq)(setup)


def start_with_eos(target: np.ndarray) -> np.ndarray:
    """What the decoder reads to predict ``target``."""
    return np.concatenate([np.full_like(target[:, :1], EOS), target[:, :-1]], axis=1)


def require_steps(setup: Setup, lengths: list[int]) -> None:
    """Refuse a generation that ran more or fewer steps than the others.

    Raises:
        RuntimeError: saying what came out.
    """
    if any(length != setup.steps for length in lengths):
        raise RuntimeError(f"outputs of {sorted(set(lengths))} tokens came out, {setup.steps} were asked for")
