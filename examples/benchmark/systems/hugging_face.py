"""Hugging Face's transformers."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import torch

from ..measure import Stopwatch
from ..setup import BOS, EOS, PAD, POSITIONS, Setup
from .interface import NotInstalled, Timing, require_steps, start_with_eos


class HuggingFace:
    """``BartForConditionalGeneration``."""

    def __init__(self, setup: Setup):
        # transformers imports torchaudio where it finds it, and the one that fairseq's requirements bring is often of
        # another torch, so that importing it fails. BART needs none.
        sys.modules["torchaudio"] = None  # type: ignore[assignment]
        try:
            from transformers import BartConfig, BartForConditionalGeneration
        except ImportError as error:
            raise NotInstalled(f"transformers cannot be imported ({error}): pip install .[benchmark]") from None
        self.setup, shape = setup, setup.shape
        config = BartConfig(
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
        with torch.device("meta"):
            model = BartForConditionalGeneration(config)
        model.load_state_dict(self.renamed(torch.load(setup.weights, weights_only=True)), strict=True, assign=True)
        model.tie_weights()
        dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[setup.precision]
        self.model = model.to(setup.device, dtype).eval()
        self.watch = Stopwatch(setup.device)
        encoder = self.model.get_encoder()
        encoder.register_forward_pre_hook(lambda *_: self.watch.mark("encoder"))
        encoder.register_forward_hook(lambda *_: self.watch.mark("decoder"))

    def renamed(self, weights: dict[str, Any]) -> dict[str, Any]:
        """fairseq's weights under Hugging Face's names. Positions begin at row 2 in both, so their tables agree."""
        shared = weights["encoder.embed_tokens.weight"]
        kept = {name: weight for name, weight in weights.items() if not name.endswith("version")}
        kept.pop("decoder.output_projection.weight")
        renamed = {f"model.{name}": weight for name, weight in kept.items()}
        bias = torch.zeros(1, len(shared))  # of the logits, which fairseq has not
        return renamed | {"model.shared.weight": shared, "lm_head.weight": shared, "final_logits_bias": bias}

    def check(self, source: np.ndarray, target: np.ndarray) -> np.ndarray:
        """See `System`."""
        tokens, previous = (self.tensor(rows) for rows in (source, start_with_eos(target)))
        with torch.no_grad():
            logits = self.model(input_ids=tokens, decoder_input_ids=previous, use_cache=False).logits
        return logits.float().cpu().numpy()

    def generate(self, source: np.ndarray, decisions: list[Any] | None) -> Timing:
        """See `System`."""
        tokens, watch = self.tensor(source), self.watch
        watch.mark("begin")
        output = self.model.generate(
            input_ids=tokens,
            attention_mask=torch.ones_like(tokens),
            num_beams=self.setup.beam,
            do_sample=False,
            min_new_tokens=self.setup.out_len,
            max_new_tokens=self.setup.steps,
        )
        watch.mark("end")
        require_steps(self.setup, (output[:, 1:] != PAD).sum(1).tolist())  # the first is what the decoder starts with
        return Timing(watch.seconds("encoder", "decoder"), watch.seconds("begin", "end"))

    def tensor(self, rows: np.ndarray) -> Any:
        """On the device."""
        return torch.from_numpy(rows).to(self.setup.device)
