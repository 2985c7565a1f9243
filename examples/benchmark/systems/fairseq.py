"""Stock fairseq and ours."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from fairseq.sequence_generator import EnsembleModel, SequenceGenerator

from .. import weights
from ..measure import Stopwatch
from ..setup import Setup
from .interface import Timing, require_steps, start_with_eos


class TimedEnsemble(EnsembleModel):
    """The generator's view of one model, which marks when the encoder begins and ends."""

    def __init__(self, model: Any, watch: Stopwatch):
        super().__init__([model])
        self.watch = watch

    def forward_encoder(self, net_input: dict[str, Any]) -> Any:
        """The encoder's output."""
        self.watch.mark("encoder")
        encoded = super().forward_encoder(net_input)
        self.watch.mark("decoder")
        return encoded


class Fairseq:
    """Stock fairseq 0.12.2, and ours: the same generator, the model is the difference."""

    def __init__(self, setup: Setup):
        self.setup = setup
        model = weights.build(setup, "switchable_bart" if setup.system == "ours" else "bart_large")
        model.load_state_dict(torch.load(setup.weights, weights_only=True))
        if setup.precision == "fp16":
            model.half()
        model.to(setup.device)
        model.make_generation_fast_(beamable_mm_beam_size=setup.beam, need_attn=False)
        if setup.system == "ours":
            model.pack("fp32" if setup.precision == "fp16" else setup.precision)
        self.model = model
        self.watch = Stopwatch(setup.device)
        dictionary = weights.dictionary(setup.shape.vocabulary)
        limits = {"beam_size": setup.beam, "min_len": setup.out_len, "max_len_b": setup.out_len}
        self.generator = SequenceGenerator(TimedEnsemble(model, self.watch), dictionary, **limits)

    def inputs(self, source: np.ndarray, decisions: list[Any] | None) -> dict[str, Any]:
        """What the model's encoder gets."""
        tokens = torch.from_numpy(source).to(self.setup.device)
        inputs = {"src_tokens": tokens, "src_lengths": torch.full((len(source),), source.shape[1]).to(tokens)}
        if decisions is not None and self.setup.system == "ours":
            inputs["decisions"] = self.model.encoder.space.from_json(decisions)
        return inputs

    def check(self, source: np.ndarray, target: np.ndarray) -> np.ndarray:
        """See `System`."""
        previous = torch.from_numpy(start_with_eos(target)).to(self.setup.device)
        inputs = self.inputs(source, None)
        if self.setup.system == "ours":
            inputs["decisions"] = self.model.encoder.space.keep_all(len(source))
        self.model.set_beam_size(1)  # a stock decoder takes its rows for hypotheses once a generator is made
        with torch.no_grad():
            logits = self.model(**inputs, prev_output_tokens=previous)[0]
        self.model.set_beam_size(self.setup.beam)
        return logits.float().cpu().numpy()

    def generate(self, source: np.ndarray, decisions: list[Any] | None) -> Timing:
        """See `System`."""
        inputs, watch = self.inputs(source, decisions), self.watch
        watch.mark("begin")
        hypotheses = self.generator.generate([self.model], {"net_input": inputs})
        watch.mark("end")
        require_steps(self.setup, [len(beam["tokens"]) for beams in hypotheses for beam in beams])
        return Timing(watch.seconds("encoder", "decoder"), watch.seconds("begin", "end"))
