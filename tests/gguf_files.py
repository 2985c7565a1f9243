"""GGUF files of tiny models, as llama.cpp's converter writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fairseq_switchdec.models.hugging_face.gguf_file import NAMES


def interleaved(values: np.ndarray, heads: int) -> np.ndarray:
    """Rows of each head 0 1 2 3 4 5 -> 0 3 1 4 2 5: what llama.cpp's converter does to queries and keys."""
    halves = values.reshape(heads, 2, values.shape[0] // heads // 2, -1)
    return halves.transpose(0, 2, 1, 3).reshape(values.shape)


def write_gguf(path: Path, model: Any, folder: Path, kind: str = "F32", **changes: Any) -> Path:
    """A file as llama.cpp's converter writes it.

    Args:
        model: transformers' llama.
        folder: of its tokenizer.json.
        kind: number format of the matrices, as the library gguf calls it.
        changes: further values, or others; None leaves one out: "name" for "llama.name", "tokenizer_name".
    """
    gguf = pytest.importorskip("gguf")
    types = gguf.GGMLQuantizationType
    config, state = model.config, model.state_dict()
    writer = gguf.GGUFWriter(path, changes.pop("architecture", "llama"))
    values = {
        "context_length": config.max_position_embeddings, "block_count": config.num_hidden_layers,
        "embedding_length": config.hidden_size, "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads, "attention.head_count_kv": config.num_key_value_heads,
        "attention.layer_norm_rms_epsilon": config.rms_norm_eps, "rope.freq_base": config.rope_theta,
        "rope.dimension_count": config.head_dim, "vocab_size": config.vocab_size,
    }  # fmt: skip
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    special = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    words = {**tokenizer["model"]["vocab"], **special}
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in tokenizer["model"]["merges"]]
    ordered = sorted(words, key=words.__getitem__)
    values |= {
        "tokenizer_model": "gpt2", "tokenizer_pre": "gpt-2", "tokenizer_tokens": ordered, "tokenizer_merges": merges,
        "tokenizer_token_type": [3 if word in special else 1 for word in ordered],
        "tokenizer_bos_token_id": config.bos_token_id, "tokenizer_eos_token_id": config.eos_token_id,
    }  # fmt: skip
    extra = changes.pop("tensors", {})
    for name, value in {**values, **changes}.items():
        add(writer, name.replace("tokenizer_", "tokenizer.ggml.") if "tokenizer_" in name else f"llama.{name}", value)
    for ours, theirs in NAMES.items():
        for layer in range(config.num_hidden_layers if "{n}" in ours else 1):
            name = theirs.format(n=layer)
            if name == "lm_head.weight" and config.tie_word_embeddings:
                continue
            values = state[name].numpy()
            if "attn_q" in ours or "attn_k" in ours:
                values = interleaved(values, config.num_attention_heads if "_q" in ours else config.num_key_value_heads)
            one = types.F32 if values.ndim == 1 else types[kind]
            if one == types.F16:
                writer.add_tensor(ours.format(n=layer), values.astype(np.float16))
            else:
                writer.add_tensor(ours.format(n=layer), gguf.quants.quantize(values, one), raw_dtype=one)
    for name, values in extra.items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def add(writer: Any, key: str, value: Any) -> None:
    """Add a value of whatever type it is."""
    kinds = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
    if isinstance(value, list):
        writer.add_array(key, value)
    elif value is not None:
        kinds[type(value)](key, value)
