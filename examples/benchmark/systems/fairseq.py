"""Stock fairseq and ours, a BART or a LLaMA."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from fairseq.checkpoint_utils import load_model_ensemble_and_task
from fairseq.sequence_generator import EnsembleModel, SequenceGenerator

from fairseq_switchdec.compat.user_dir import register_tasks_and_models
from fairseq_switchdec.models.hugging_face.vocabulary import Vocabulary

from .. import weights
from ..measure import Stopwatch
from ..setup import Setup, padded
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
        self.model, self.dictionary = self.load()
        if setup.precision == "fp16":
            self.model.half()
        self.model.to(setup.device)
        self.model.make_generation_fast_(beamable_mm_beam_size=None, need_attn=False)
        if setup.system == "ours":
            self.model.pack("fp32" if setup.precision == "fp16" else setup.precision)
        self.watch = Stopwatch(setup.device)

    def load(self) -> tuple[Any, Any]:
        """The model, and its dictionary."""
        setup = self.setup
        model = weights.build(setup, "switchable_bart" if setup.system == "ours" else "bart_large")
        model.load_state_dict(torch.load(setup.weights, weights_only=True))
        return model, weights.dictionary(setup.shape.vocabulary)

    def inputs(self, source: list[list[int]], decisions: list[Any] | None) -> dict[str, Any]:
        """What the model's encoder gets; shorter sources are padded on the left, as fairseq's tasks do it."""
        tokens = torch.from_numpy(padded(source, left=True)).to(self.setup.device)
        inputs = {"src_tokens": tokens, "src_lengths": torch.tensor([len(row) for row in source]).to(tokens)}
        if decisions is not None and self.setup.system == "ours":
            inputs["decisions"] = self.model.encoder.space.from_json(decisions)
        return inputs

    def check(self, source: np.ndarray, target: np.ndarray) -> np.ndarray:
        """See `System`."""
        previous = torch.from_numpy(start_with_eos(target)).to(self.setup.device)
        inputs = self.inputs(source.tolist(), None)
        if self.setup.system == "ours":
            inputs["decisions"] = self.model.encoder.space.keep_all(len(source))
        self.model.set_beam_size(1)  # a stock decoder takes its rows for hypotheses once a generator is made
        with torch.no_grad():
            logits = self.model(**inputs, prev_output_tokens=previous)[0]
        return logits.float().cpu().numpy()

    def generate(self, source: list[list[int]], beam: int, decisions: list[Any] | None) -> Timing:
        """See `System`."""
        inputs, watch = self.inputs(source, decisions), self.watch
        limits = {"beam_size": beam, "min_len": self.setup.out_len, "max_len_b": self.setup.out_len}
        generator = SequenceGenerator(TimedEnsemble(self.model, watch), self.dictionary, **limits)
        watch.begin()
        hypotheses = generator.generate([self.model], {"net_input": inputs})
        watch.mark("end")
        require_steps(self.setup, [len(beam["tokens"]) for beams in hypotheses for beam in beams])
        return Timing(watch.seconds("encoder", "decoder"), watch.seconds("begin", "end"))


class Llama(Fairseq):
    """Ours, imported. The others' tokens are those of the GGUF file; here they have the numbers of the dictionary."""

    def load(self) -> tuple[Any, Any]:
        """See `Fairseq.load`."""
        register_tasks_and_models()  # a checkpoint names its task
        folder = self.setup.imported
        (model,), _, task = load_model_ensemble_and_task([str(folder / "model.pt")], {"data": str(folder)})
        dictionary, size = task.target_dictionary, self.setup.shape.vocabulary
        vocabulary = Vocabulary.parse(size, model.args.special_ids)
        self.numbers = np.array([dictionary.index(vocabulary.symbol(token)) for token in range(size)])
        return model, dictionary

    def inputs(self, source: list[list[int]], decisions: list[Any] | None) -> dict[str, Any]:
        """See `Fairseq.inputs`; ``</s>`` ends a source."""
        return super().inputs([[*self.numbers[row].tolist(), self.dictionary.eos()] for row in source], decisions)

    def check(self, source: np.ndarray, target: np.ndarray) -> np.ndarray:
        """See `System`."""
        return super().check(source, self.numbers[target])[..., self.numbers]
