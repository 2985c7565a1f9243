"""Hugging Face's transformers."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..measure import Stopwatch
from ..setup import BOS, EOS, PAD, POSITIONS, Setup, padded
from .interface import NotInstalled, Timing, require_steps, start_with_eos

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class HuggingFace(ABC):
    """A model of transformers'."""

    def __init__(self, setup: Setup):
        self.setup, self.watch = setup, Stopwatch(setup.device)
        self.model = self.load(imported())

    @abstractmethod
    def load(self, transformers: Any) -> Any:
        """The model, with the weights of all systems."""

    def ready(self, model: Any) -> Any:
        """A model of torch's where it is to run."""
        return model.to(self.setup.device, DTYPES[self.setup.precision]).eval()

    @abstractmethod
    def written(self, output: Any, width: int) -> list[int]:
        """How many tokens were written for each input, of what ``generate`` returned for sources of that width."""

    def generate(self, source: list[list[int]], beam: int, decisions: list[Any] | None) -> Timing:
        """See `System`."""
        rows = padded(source, left=self.setup.shape.decoder_only)
        tokens, watch = self.tensor(rows), self.watch
        watch.begin()
        output = self.model.generate(
            input_ids=tokens,
            attention_mask=self.mask(source),
            num_beams=beam,
            do_sample=False,
            min_new_tokens=self.setup.out_len,
            max_new_tokens=self.setup.steps,
        )
        watch.mark("end")
        require_steps(self.setup, self.written(output, rows.shape[1]))
        return Timing(watch.seconds("encoder", "decoder"), watch.seconds("begin", "end"))

    def mask(self, source: list[list[int]]) -> Any:
        """Where a batch has tokens, int64 (B, S)."""
        lengths = torch.tensor([[len(row)] for row in source])
        places = torch.arange(int(lengths.max()))
        return ((places.flip(0) if self.setup.shape.decoder_only else places) < lengths).long().to(self.setup.device)

    def tensor(self, rows: np.ndarray) -> Any:
        """On the device."""
        return torch.from_numpy(rows).to(self.setup.device)


class Bart(HuggingFace):
    """``BartForConditionalGeneration``."""

    def load(self, transformers: Any) -> Any:
        """See `HuggingFace.load`."""
        model = self.ready(bart(transformers, self.setup))
        encoder = model.get_encoder()
        encoder.register_forward_pre_hook(lambda *_: self.watch.mark("encoder"))
        encoder.register_forward_hook(lambda *_: self.watch.mark("decoder"))
        return model

    def check(self, source: np.ndarray, target: np.ndarray) -> np.ndarray:
        """See `System`."""
        tokens, previous = (self.tensor(rows) for rows in (source, start_with_eos(target)))
        with torch.no_grad():
            inputs = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), "decoder_input_ids": previous}
            logits = self.model(**inputs, use_cache=False).logits
        return logits.float().cpu().numpy()

    def written(self, output: Any, width: int) -> list[int]:
        """See `HuggingFace.written`; the first is what the decoder starts with."""
        return (output[:, 1:] != PAD).sum(1).tolist()


class Llama(HuggingFace):
    """``LlamaForCausalLM`` of the GGUF file, as transformers reads it."""

    def load(self, transformers: Any) -> Any:
        """See `HuggingFace.load`; it wants gguf and accelerate for that."""
        gguf = Path(str(self.setup.gguf))
        read = transformers.AutoModelForCausalLM.from_pretrained
        model = read(gguf.parent, gguf_file=gguf.name, torch_dtype=DTYPES[self.setup.precision])
        model = self.ready(model)
        model.model.register_forward_pre_hook(lambda *_: self.watch.mark_once("encoder"))
        model.model.register_forward_hook(lambda *_: self.watch.mark_once("decoder"))
        return model

    def check(self, source: np.ndarray, target: np.ndarray) -> np.ndarray:
        """See `System`."""
        tokens = self.tensor(np.concatenate([source, target[:, :-1]], axis=1))
        with torch.no_grad():
            logits = self.model(input_ids=tokens, use_cache=False, logits_to_keep=target.shape[1]).logits
        return logits.float().cpu().numpy()

    def written(self, output: Any, width: int) -> list[int]:
        """See `HuggingFace.written`; the prompt comes first."""
        return [output.size(1) - width] * len(output)


def imported() -> Any:
    """The library.

    Raises:
        NotInstalled: it cannot be imported.
    """
    # transformers imports torchaudio where it finds it, and the one that fairseq's requirements bring is often of
    # another torch, so that importing it fails. These models need none.
    sys.modules["torchaudio"] = None  # type: ignore[assignment]
    try:
        import transformers
    except ImportError as error:
        raise NotInstalled(f"transformers cannot be imported ({error}): pip install .[benchmark]") from None
    return transformers


def bart(transformers: Any, setup: Setup) -> Any:
    """transformers' BART in float32, with the weights of all systems."""
    shape = setup.shape
    config = transformers.BartConfig(
        vocab_size=shape.vocabulary,
        d_model=shape.dim,
        max_position_embeddings=POSITIONS,
        encoder_layers=shape.layers,
        decoder_layers=shape.layers,
        encoder_ffn_dim=shape.ffn_dim,
        decoder_ffn_dim=shape.ffn_dim,
        encoder_attention_heads=shape.heads,
        decoder_attention_heads=shape.heads,
        activation_function="gelu",
        scale_embedding=False,
        bos_token_id=BOS,
        pad_token_id=PAD,
        eos_token_id=EOS,
        decoder_start_token_id=EOS,
        forced_eos_token_id=EOS,
    )
    build = transformers.BartForConditionalGeneration  # imported only now, which torch 2.8 cannot do on "meta"
    with torch.device("meta"):
        model = build(config)
    weights = torch.load(setup.weights, weights_only=True)
    model.load_state_dict(renamed(weights), strict=True, assign=True)
    model.tie_weights()
    return model


def renamed(weights: dict[str, Any]) -> dict[str, Any]:
    """fairseq's weights under Hugging Face's names. Positions begin at row 2 in both, so their tables agree."""
    shared = weights["encoder.embed_tokens.weight"]
    kept = {name: weight for name, weight in weights.items() if not name.endswith("version")}
    kept.pop("decoder.output_projection.weight")
    named = {f"model.{name}": weight for name, weight in kept.items()}
    bias = torch.zeros(1, len(shared))  # of the logits, which fairseq has not
    return named | {"model.shared.weight": shared, "lm_head.weight": shared, "final_logits_bias": bias}
