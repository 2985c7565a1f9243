"""CTranslate2."""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np

from ..setup import Setup, words
from .interface import NotInstalled, Timing, require_steps


class CTranslate2:
    """What its own converter makes of the checkpoint.

    It does not tell when its encoder is done: a generation of a single word says what the encoder and one step take,
    and the others' steps are told from what all of them take.
    """

    def __init__(self, setup: Setup):
        # Only its converters use torch, and importing it would count in this worker's memory.
        sys.modules["torch"] = None  # type: ignore[assignment]
        try:
            import ctranslate2
        except ImportError as error:
            raise NotInstalled(f"ctranslate2 cannot be imported ({error}): pip install .[benchmark]") from None
        if not setup.converted.exists():
            raise NotInstalled("its converter made nothing of the checkpoint: see weights.log")
        kinds = {"fp32": "float32", "fp16": "float16", "int8": "int8_float16" if setup.device == "cuda" else "int8"}
        self.setup = setup
        self.translator = ctranslate2.Translator(
            str(setup.converted),
            device=setup.device,
            compute_type=kinds[setup.precision],
            inter_threads=1,
            intra_threads=setup.threads,
        )

    def check(self, source: np.ndarray, target: np.ndarray) -> np.ndarray:
        """See `System`; log-probabilities."""
        scored = self.translator.score_batch(words(source[:, :-1].tolist()), words(target.tolist()), max_input_length=0)
        return np.array([result.log_probs[: target.shape[1]] for result in scored], dtype=np.float32)

    def generate(self, source: list[list[int]], beam: int, decisions: list[Any] | None) -> Timing:
        """See `System`."""
        tokens = words([row[:-1] for row in source])  # the converted model adds </s> to the source
        one, _ = self.translate(tokens, beam, 1)
        total, lengths = self.translate(tokens, beam, self.setup.steps)
        require_steps(self.setup, lengths)
        step = (total - one) / (self.setup.steps - 1)
        return Timing(min(max(one - step, 0.0), total), total)  # within bounds also where a run was disturbed

    def translate(self, tokens: list[list[str]], beam: int, length: int) -> tuple[float, list[int]]:
        """Seconds, and how many words came out: its search stops at the length asked for, without ``</s>``."""
        start = time.perf_counter()
        results = self.translator.translate_batch(
            tokens,
            beam_size=beam,
            min_decoding_length=length,
            max_decoding_length=length,
            max_input_length=0,
        )
        return time.perf_counter() - start, [len(result.hypotheses[0]) for result in results]
