"""A GGUF file of the llama architecture: its tensors under Hugging Face's names, its config.json, its tokenizer.

GGUF's llama rotates neighbouring dimensions of a head, Hugging Face's the first half with the second one: the rows of
the query and key projections change places.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import UserError
from .tensors import LazyTensor
from .tokenizer import BpeTokens
from .weights import damaged, package

#: Its tensors, {n} a layer's number.
NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
    "blk.{n}.attn_norm.weight": "model.layers.{n}.input_layernorm.weight",
    "blk.{n}.attn_q.weight": "model.layers.{n}.self_attn.q_proj.weight",
    "blk.{n}.attn_k.weight": "model.layers.{n}.self_attn.k_proj.weight",
    "blk.{n}.attn_v.weight": "model.layers.{n}.self_attn.v_proj.weight",
    "blk.{n}.attn_output.weight": "model.layers.{n}.self_attn.o_proj.weight",
    "blk.{n}.ffn_norm.weight": "model.layers.{n}.post_attention_layernorm.weight",
    "blk.{n}.ffn_gate.weight": "model.layers.{n}.mlp.gate_proj.weight",
    "blk.{n}.ffn_up.weight": "model.layers.{n}.mlp.up_proj.weight",
    "blk.{n}.ffn_down.weight": "model.layers.{n}.mlp.down_proj.weight",
}

#: The only tensor of how rotary angles are scaled, and the keys of `config` for it.
ROPE_FACTORS = "rope_freqs.weight"

#: Its keys after "llama." and those of a config.json.
KEYS = {
    "context_length": "max_position_embeddings",
    "block_count": "num_hidden_layers",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "rope.freq_base": "rope_theta",
}

#: Keys that say nothing new, or what is looked at beside them.
OTHER_KEYS = {
    "vocab_size", "attention.value_length", "rope.dimension_count", "rope.scaling.type", "rope.scaling.factor",
    "rope.scaling.original_context_length", "rope.scaling.finetuned", "expert_count", "expert_used_count",
    "tensor_data_layout", "rope.scale_linear",
}  # fmt: skip


class GgufFile:
    """A GGUF file.

    Raises:
        UserError: it is none, is damaged, or is of another architecture.
    """

    def __init__(self, path: Path):
        self.path = path
        self.gguf = package("gguf", f"{path.name}")
        with open(path, "rb") as file:
            if file.read(4) != b"GGUF":
                raise UserError(f"{path} is no GGUF file: name one, or the folder of a Hugging Face model")
        try:
            reader = self.gguf.GGUFReader(str(path))
            self.fields = {name: field.contents() for name, field in reader.fields.items()}
            self.raw = {tensor.name: tensor for tensor in reader.tensors}
        except Exception as error:  # bytes that are not what they should be raise nearly anything
            raise damaged(path, error) from None
        architecture = self.fields.get("general.architecture")
        if architecture != "llama":
            raise UserError(f"{path} holds a model {architecture!r}; of GGUF files only 'llama' is built")
        self.check_types()

    def check_types(self) -> None:
        """Refuse number formats that cannot be read, before anything is."""
        for tensor in {tensor.tensor_type: tensor for tensor in self.raw.values()}.values():
            try:
                self.gguf.dequantize(tensor.data[:1], tensor.tensor_type)
            except Exception as error:
                raise UserError(
                    f"{self.path}: {tensor.name} is of type {tensor.tensor_type.name}, which cannot be read "
                    f"({error}): name a file in another type, such as Q8_0 or F16"
                ) from None

    def value(self, key: str, default: Any = None) -> Any:
        """What the file says of its llama."""
        return self.fields.get(f"llama.{key}", default)

    def config(self) -> dict[str, Any]:
        """What a config.json would hold.

        Raises:
            UserError: the model needs what is not built.
        """
        asked = {key[len("llama.") :] for key in self.fields if key.startswith("llama.")}
        for key in sorted(asked - KEYS.keys() - OTHER_KEYS):
            raise UserError(f"{self.path}: llama.{key} is {self.value(key)!r}, which is not built: name another model")
        if self.value("expert_count"):
            raise UserError(f"{self.path} holds a mixture of experts, which is not built: name another model")
        found = {theirs: self.value(key) for key, theirs in KEYS.items() if key in asked}
        dims = self.head_dim()
        for key in ("rope.dimension_count", "attention.value_length"):
            if dims and self.value(key, dims) != dims:
                raise UserError(
                    f"{self.path}: llama.{key} is {self.value(key)}, not a head's {dims} dimensions: this is not built"
                )
        tokens = {word: self.fields.get(f"tokenizer.ggml.{name}_token_id") for word, name in GGML_TOKENS.items()}
        size = self.raw["token_embd.weight"].shape[-1] if "token_embd.weight" in self.raw else None
        return {
            "model_type": "llama",
            **found,
            "rope_scaling": self.rope_scaling(dims),
            "vocab_size": None if size is None else int(size),
            "tie_word_embeddings": "output.weight" not in self.raw,
            **{f"{word}_token_id": index for word, index in tokens.items()},
        }

    def head_dim(self) -> int:
        """A head's dimensions; 0 where the values for it are missing, which is found later."""
        width, heads = self.value("embedding_length"), self.value("attention.head_count")
        known = isinstance(width, int) and isinstance(heads, int) and heads > 0
        return self.value("attention.key_length", width // heads if known else 0)

    def rope_scaling(self, head_dim: int) -> dict[str, Any] | None:
        """How rotary angles are scaled, as a config.json has it."""
        factor = self.value("rope.scaling.factor", self.value("rope.scale_linear"))
        kind = self.value("rope.scaling.type", "linear" if factor else "none")
        if ROPE_FACTORS in self.raw:
            return self.llama3_scaling(head_dim)
        if kind == "none" or (kind == "linear" and not factor):
            return None
        return {"rope_type": kind, "factor": factor}

    def llama3_scaling(self, head_dim: int) -> dict[str, Any]:
        """Llama 3's, where the file's divisors of the frequencies are those that it gives.

        Raises:
            UserError: they are of another formula.
        """
        divisors = torch.from_numpy(self.raw[ROPE_FACTORS].data.copy())
        scaling = {
            "rope_type": "llama3",
            "factor": float(divisors.max()),
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        }
        expected = llama3_divisors(self.value("rope.freq_base", 10000.0), head_dim, scaling)
        if divisors.shape != expected.shape or not torch.allclose(divisors, expected, rtol=1e-4):
            raise UserError(
                f"{self.path}: {ROPE_FACTORS} scales rotary positions in another way than Llama 3.1 does: only that "
                "one is built for GGUF; name the Hugging Face folder of the model"
            )
        return scaling

    def tensors(self) -> dict[str, LazyTensor]:
        """Name -> tensor, made floats when it is read; names that are not known are kept."""
        heads = self.value("attention.head_count")
        permuted = {"attn_q": heads, "attn_k": self.value("attention.head_count_kv", heads)}
        found = {}
        for name, raw in self.raw.items():
            if name == ROPE_FACTORS:
                continue
            number = re.match(r"blk\.(\d+)\.", name)
            layer = number.group(1) if number else ""
            part = name.rpartition(".")[0].rpartition(".")[2]
            pattern = name.replace(f"blk.{layer}.", "blk.{n}.", 1) if layer else name
            theirs = NAMES.get(pattern, name).replace("{n}", layer)
            found[theirs] = LazyTensor(
                tuple(int(size) for size in reversed(raw.shape)),
                torch.float32,
                partial(self.read, raw, permuted.get(part)),
            )
        return found

    def read(self, raw: Any, heads: int | None) -> Tensor:
        """A tensor's values, with the halves of each head put together if it has heads."""
        values = torch.from_numpy(self.gguf.dequantize(raw.data, raw.tensor_type).copy())
        values = values.reshape(tuple(int(size) for size in reversed(raw.shape)))
        return values if heads is None else halves(values, heads)

    def tokens(self) -> BpeTokens:
        """Its tokenizer.

        Raises:
            UserError: it is of a kind that is not built.
        """
        kind = self.fields.get("tokenizer.ggml.model")
        if kind != "gpt2" or "tokenizer.ggml.merges" not in self.fields:
            raise UserError(
                f"{self.path} has a tokenizer of kind {kind!r}; of GGUF files only 'gpt2' (byte-level BPE) is built: "
                "give the model's tokenizer.json with --tokenizer"
            )
        words = self.fields.get("tokenizer.ggml.tokens")
        if not words:
            raise UserError(
                f"{self.path} has no tokenizer.ggml.tokens: give the model's tokenizer.json with --tokenizer"
            )
        types = self.fields.get("tokenizer.ggml.token_type", [1] * len(words))
        pre = self.fields.get("tokenizer.ggml.pre", "default")
        adds_bos = self.fields.get("tokenizer.ggml.add_bos_token", pre == "llama-bpe")

        def word(name: str) -> str | None:
            index = self.fields.get(f"tokenizer.ggml.{name}_token_id")
            if index is not None and (not isinstance(index, int) or not 0 <= index < len(words)):
                raise damaged(self.path, f"tokenizer.ggml.{name}_token_id is {index!r}, of {len(words)} tokens")
            return None if index is None else words[index]

        return BpeTokens(
            path=str(self.path),
            words=words,
            merges=[tuple(pair.split(" ", 1)) for pair in self.fields["tokenizer.ggml.merges"]],
            pre=pre,
            special=[word for word, kind in zip(words, types) if kind == CONTROL],
            added=[word for word, kind in zip(words, types) if kind == USER_DEFINED],
            unknown=word("unknown"),
            first=word("bos") if adds_bos else None,
        )


#: Its names of special tokens.
GGML_TOKENS = {"bos": "bos", "eos": "eos", "pad": "padding", "unk": "unknown"}

#: Kinds of tokens.
CONTROL, USER_DEFINED = 3, 4


def halves(values: Tensor, heads: int) -> Tensor:
    """(heads * dims, D): rows of each head 0 1 2 3 4 5 -> 0 2 4 1 3 5."""
    dims = values.size(0) // heads
    return values.view(heads, dims // 2, 2, -1).transpose(1, 2).reshape(values.shape)


def llama3_divisors(theta: float, head_dim: int, scaling: dict[str, Any]) -> Tensor:
    """(head_dim / 2,) what Llama 3.1 divides the frequencies by: 1 for fast ones, the factor for slow ones."""
    waves = 2 * torch.pi * theta ** (torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    mix = ((scaling["original_max_position_embeddings"] / waves - low) / (high - low)).clamp(0, 1)
    return (1 / ((1 - mix) / scaling["factor"] + mix)).float()
