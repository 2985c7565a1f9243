"""llama.cpp."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..measure import Stopwatch
from ..setup import Setup
from .interface import NotInstalled, Timing


class LlamaCpp:
    """The GGUF file as it is (precision ``file``), or in 8 bits; one input, greedily: its Python has no beams."""

    def __init__(self, setup: Setup):
        try:
            from llama_cpp import Llama
        except ImportError as error:
            raise NotInstalled(f"llama_cpp cannot be imported ({error}): pip install llama-cpp-python") from None
        path = setup.requantized if setup.precision == "q8_0" else setup.gguf
        room = setup.src_len + setup.steps
        # As it comes it thinks with half the cores on a prompt: the threads are given for both of its phases.
        threads = {"n_threads": setup.threads, "n_threads_batch": setup.threads}
        self.model = Llama(str(path), n_ctx=room, n_batch=min(512, room), n_gpu_layers=0, verbose=False, **threads)
        self.setup, self.watch = setup, Stopwatch(setup.device)

    def check(self, source: np.ndarray, target: np.ndarray) -> np.ndarray:
        """See `System`; log-probabilities."""
        found = np.empty(target.shape, np.float32)
        for row, (tokens, words) in enumerate(zip(source.tolist(), target.tolist())):
            self.model.reset()
            for place, (read, word) in enumerate(zip([tokens, *([word] for word in words)], words)):
                self.model.eval(read)
                logits = self.last_logits()
                found[row, place] = logits[word] - np.logaddexp.reduce(logits)
        return found

    def last_logits(self) -> np.ndarray:
        """Float64 (V,), of the last token that was read."""
        import llama_cpp

        logits = llama_cpp.llama_get_logits_ith(self.model.ctx, -1)
        return np.ctypeslib.as_array(logits, shape=(self.model.n_vocab(),)).astype(np.float64)

    def generate(self, source: list[list[int]], beam: int, decisions: list[Any] | None) -> Timing:
        """See `System`; the end is not looked for."""
        (tokens,), watch = source, self.watch
        assert beam == 1, "cases of other beams are not asked for"
        self.model.reset()
        watch.begin()
        self.model.eval(tokens)
        watch.mark("decoder")
        for _ in range(self.setup.out_len):
            self.model.eval([self.model.sample(temp=0.0)])
        self.model.sample(temp=0.0)
        watch.mark("end")
        return Timing(watch.seconds("begin", "decoder"), watch.seconds("begin", "end"))
