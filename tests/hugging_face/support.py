"""Tiny models in Hugging Face's formats: random weights, sizes unequal on purpose, a byte-level BPE beside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

KINDS = ("gpt2", "llama", "llama_grouped", "llama3", "llama_untied", "t5", "t5_v1_1", "bart")

TEXTS = [
    "The committee's report, published on 14 May 2019, found that the lake's level had fallen by 3.5 metres.",
    "She said:  \"Don't wait for me!\"\n\nThey didn't; the train left at 9:45.",
    "Überraschend viele Gäste kamen — trotz des Regens — zum Fest. 北京 is 1,200 km away 🙂",
    "    def read(self, path):\n        return open(path).read()  # 100 %",
]

#: The special tokens of each kind, in the order of their ids: before the other tokens, or after them.
BEFORE = {
    "t5": ["<pad>", "</s>", "<unk>"],
    "bart": ["<s>", "<pad>", "</s>", "<unk>"],
    "llama": ["<|begin|>", "<|end|>"],
}
AFTER = {"gpt2": ["<|endoftext|>"], "bart": ["<mask>"], "llama": ["<|im_start|>"]}

LLAMA = dict(
    hidden_size=24, intermediate_size=20, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=4,
    max_position_embeddings=96, tie_word_embeddings=True, bos_token_id=0, eos_token_id=1, rms_norm_eps=1e-5,
)  # fmt: skip
T5 = dict(
    d_model=12, d_kv=5, d_ff=20, num_heads=2, num_layers=3, num_decoder_layers=2, relative_attention_num_buckets=8,
    relative_attention_max_distance=20, decoder_start_token_id=0, pad_token_id=0, eos_token_id=1,
)  # fmt: skip
LLAMA3 = dict(
    rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32
)
SIZES: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2", dict(n_embd=12, n_head=3, n_layer=3, n_inner=20, n_positions=96)),
    "llama": ("Llama", LLAMA),
    "llama_grouped": ("Llama", {**LLAMA, "num_key_value_heads": 2, "head_dim": 10, "rope_theta": 5000.0}),
    "llama3": ("Llama", {**LLAMA, "num_key_value_heads": 2, "rope_scaling": LLAMA3}),
    "llama_untied": ("Llama", {**LLAMA, "tie_word_embeddings": False}),
    "t5": ("T5", T5),
    "t5_v1_1": ("T5", {**T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}),
    "bart": ("Bart", dict(
        d_model=12, encoder_layers=3, decoder_layers=2, encoder_attention_heads=3, decoder_attention_heads=2,
        encoder_ffn_dim=20, decoder_ffn_dim=28, max_position_embeddings=64, decoder_start_token_id=2,
    )),
}  # fmt: skip

#: Rows of the embedding that no token has, as T5's releases have them.
SPARE_ROWS = {"t5": 3}


def transformers_or_skip() -> Any:
    """transformers, where it is installed and has models: its releases ask for a newer torch than ours do."""
    transformers = pytest.importorskip("transformers")
    if not transformers.is_torch_available():
        pytest.skip("this transformers cannot use this torch")
    return transformers


def family(kind: str) -> str:
    """gpt2, llama, t5 or bart."""
    return next(name for name in ("gpt2", "llama", "t5", "bart") if kind.startswith(name))


def tiny_folder(kind: str, path: Path, **changes: Any) -> Any:
    """Write a tiny model of one of `KINDS` and its tokenizer.json.

    Args:
        path: a folder, made if needed.
        changes: values of config.json, such as ``n_layer=2``.

    Returns:
        transformers' model, float32, in eval mode.
    """
    transformers = transformers_or_skip()
    tokenizer = make_tokenizer(kind)
    name, sizes = SIZES[kind]
    ids = {}
    if family(kind) == "gpt2":
        ids = dict.fromkeys(("bos_token_id", "eos_token_id"), tokenizer.token_to_id("<|endoftext|>"))
    rows = tokenizer.get_vocab_size() + SPARE_ROWS.get(family(kind), 0)
    config = getattr(transformers, f"{name}Config")(**{"vocab_size": rows, **ids, **sizes, **changes})
    suffix = {"GPT2": "LMHeadModel", "Llama": "ForCausalLM"}.get(name, "ForConditionalGeneration")
    model = getattr(transformers, f"{name}{suffix}")(config).eval()
    randomize(model)
    path.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(path)
    tokenizer.save(str(path / "tokenizer.json"))
    return model


def randomize(model: Any) -> None:
    """Give every parameter numbers of its own, large enough that the outputs differ between inputs."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            is_norm = weight.dim() == 1 and name.endswith("weight")
            weight.copy_(1 + 0.1 * noise if is_norm else 0.3 * noise)


def make_tokenizer(kind: str) -> Any:
    """A byte-level BPE with the special tokens of a kind; that of "llama3" puts its bos before a text."""
    tokenizers = pytest.importorskip("tokenizers")
    before, after = BEFORE.get(family(kind), []), AFTER.get(family(kind), [])
    unknown = "<unk>" if "<unk>" in before else None
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token=unknown))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=330, special_tokens=before, show_progress=False, min_frequency=1,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.add_special_tokens(after)
    if kind == "llama3":
        tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
            single=["<|begin|>", "$A"], special_tokens=[("<|begin|>", tokenizer.token_to_id("<|begin|>"))]
        )
    if family(kind) == "t5":
        tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
            single=["$A", "</s>"], special_tokens=[("</s>", 1)]
        )
    return tokenizer


def change_config(folder: Path, **changes: Any) -> None:
    """Set values of a folder's config.json; None takes a key out."""
    path = folder / "config.json"
    values = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in values.items() if value is not None}))
