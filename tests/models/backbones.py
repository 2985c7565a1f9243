"""Tiny models of transformers with random weights, and ours with the same; the mapping is written out here once more,
apart from the one that imports use."""

from __future__ import annotations

import json
from argparse import Namespace
from dataclasses import dataclass
from typing import Any

import torch
from fairseq.data import Dictionary
from support import task_of
from torch import Tensor

from fairseq_switchdec.models import SwitchableGPT2Model, SwitchableLlamaModel, SwitchableT5Model
from fairseq_switchdec.models.options import fill_decisions

VOCABULARY = 60
LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}  # fmt: skip
MODELS = {"gpt2": SwitchableGPT2Model, "llama": SwitchableLlamaModel, "t5": SwitchableT5Model}
#: Ids that stand for fairseq's special symbols.
SPECIALS = {
    "gpt2": {"eos": 50},
    "llama": {"bos": 1, "eos": 2, "unk": 0},
    "t5": {"pad": 0, "eos": 1, "unk": 2},
}
#: Variants of one architecture: changes to transformers' configuration, and to ours.
VARIANTS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "gpt2": ("gpt2", {}, {}),
    "llama": ("llama", {"num_key_value_heads": 4}, {"decoder_kv_heads": 4}),
    "llama-grouped-untied": (
        "llama",
        {"tie_word_embeddings": False},
        {"share_decoder_input_output_embed": False},
    ),
    "llama3": ("llama", {"rope_scaling": LLAMA3}, {"rope_scaling": json.dumps(LLAMA3)}),
    "llama-linear": (
        "llama",
        {"rope_scaling": {"rope_type": "linear", "factor": 4.0}},
        {"rope_scaling": '{"rope_type": "linear", "factor": 4}'},
    ),
    "t5": ("t5", {}, {}),
    "t5-1.1": (
        "t5",
        {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
        {"gated": True, "activation_fn": "gelu_tanh", "share_decoder_input_output_embed": False},
    ),
}


@dataclass
class Pair:
    """A model of transformers and ours.

    Attributes:
        rows: int64 (V,), where each of transformers' tokens is in our dictionary.
    """

    kind: str
    theirs: Any
    ours: Any
    dictionary: Dictionary
    rows: Tensor
    suffix: list[int]

    def ids(self, tokens: list[int]) -> list[int]:
        """Our ids."""
        return [int(self.rows[token]) for token in tokens]


def make_pair(variant: str, suffix: tuple[int, ...] = (7, 8, 9), **changes: Any) -> Pair:
    """Both models, the same weights."""
    kind, theirs_changes, ours_changes = VARIANTS[variant]
    torch.manual_seed(1)
    theirs = their_model(kind, theirs_changes)
    dictionary, rows = our_dictionary(SPECIALS[kind])
    args = Namespace(**{**our_options(kind), **ours_changes, **changes})
    if kind != "t5":
        args.prompt_suffix = " ".join(map(str, suffix))
    fill_decisions(args)
    ours = MODELS[kind].build_model(args, task_of(dictionary)).eval()
    state = t5_state(theirs) if kind == "t5" else gpt2_state(theirs) if kind == "gpt2" else llama_state(theirs)
    for name in [name for name in state if "embed_tokens" in name or "output_projection" in name]:
        embedding = torch.zeros(len(dictionary), state[name].size(1))
        embedding[rows] = state[name]
        state[name] = embedding
    ours.load_state_dict(state)
    return Pair(kind, theirs, ours, dictionary, rows, [] if kind == "t5" else list(suffix))


def their_model(kind: str, changes: dict[str, Any]) -> Any:
    """With matrices large enough that outputs differ between inputs."""
    import transformers

    if kind == "gpt2":
        config = transformers.GPT2Config(
            vocab_size=VOCABULARY, n_positions=128, n_embd=24, n_layer=3, n_head=3, bos_token_id=50, eos_token_id=50
        )
        model = transformers.GPT2LMHeadModel(config)
    elif kind == "llama":
        sizes = {
            "hidden_size": 32, "intermediate_size": 44, "num_hidden_layers": 3, "num_attention_heads": 4,
            "num_key_value_heads": 2, "max_position_embeddings": 128, "rope_theta": 100.0, "tie_word_embeddings": True,
            "attn_implementation": "eager",
        }  # fmt: skip
        model = transformers.LlamaForCausalLM(
            transformers.LlamaConfig(vocab_size=VOCABULARY, bos_token_id=1, eos_token_id=2, **{**sizes, **changes})
        )
    else:
        sizes = {
            "d_model": 24, "d_kv": 10, "d_ff": 40, "num_layers": 3, "num_decoder_layers": 2, "num_heads": 3,
            "relative_attention_num_buckets": 8, "relative_attention_max_distance": 16,
        }  # fmt: skip
        model = transformers.T5ForConditionalGeneration(
            transformers.T5Config(vocab_size=VOCABULARY, **{**sizes, **changes})
        )
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.15)
    return model.eval().requires_grad_(False)


def our_options(kind: str) -> dict[str, Any]:
    """The same sizes, as our options."""
    missing = [name for name in ("bos", "pad", "unk") if name not in SPECIALS[kind]]
    names = {"bos": "<s>", "pad": "<pad>", "unk": "<unk>"}
    common = {
        "arch": f"switchable_{kind}", "absent_symbols": " ".join(names[name] for name in missing),
        "max_target_positions": 64, "max_source_positions": 64, "dropout": 0.0,
    }  # fmt: skip
    if kind == "t5":
        return {
            **common, "encoder_layers": 3, "decoder_layers": 2, "encoder_embed_dim": 24, "decoder_embed_dim": 24,
            "encoder_ffn_embed_dim": 40, "decoder_ffn_embed_dim": 40, "encoder_attention_heads": 3,
            "decoder_attention_heads": 3, "head_dim": 10, "relative_buckets": 8, "relative_max_distance": 16,
        }  # fmt: skip
    common |= {"decoder_layers": 3, "max_positions": 128}
    if kind == "gpt2":
        return {**common, "decoder_embed_dim": 24, "decoder_ffn_embed_dim": 96, "decoder_attention_heads": 3}
    return {
        **common, "decoder_embed_dim": 32, "decoder_ffn_embed_dim": 44, "decoder_attention_heads": 4,
        "decoder_kv_heads": 2, "rope_theta": 100.0, "share_decoder_input_output_embed": True,
    }  # fmt: skip


def our_dictionary(specials: dict[str, int]) -> tuple[Dictionary, Tensor]:
    """Decimal ids as symbols, but for those that stand for special symbols."""
    dictionary = Dictionary()
    rows = torch.zeros(VOCABULARY, dtype=torch.long)
    for token in range(VOCABULARY):
        if token not in specials.values():
            rows[token] = dictionary.add_symbol(str(token))
    for name, token in specials.items():
        rows[token] = getattr(dictionary, name)()
    return dictionary, rows


def gpt2_state(model: Any) -> dict[str, Tensor]:
    """GPT-2's, whose matrices are transposed."""
    weights = {name.removeprefix("transformer."): value for name, value in model.state_dict().items()}
    state = {
        "encoder.embed_tokens.weight": weights["wte.weight"],
        "encoder.embed_positions.weight": weights["wpe.weight"],
    }
    names = {
        "ln_1": "self_attn_layer_norm", "attn.c_proj": "self_attn.out_proj", "ln_2": "final_layer_norm",
        "mlp.c_fc": "fc1", "mlp.c_proj": "fc2",
    }  # fmt: skip
    for part in ("weight", "bias"):
        state[f"encoder.layer_norm.{part}"] = weights[f"ln_f.{part}"]
        for layer in range(3):
            for theirs, ours in names.items():
                state[f"encoder.layers.{layer}.{ours}.{part}"] = weights[f"h.{layer}.{theirs}.{part}"].t()
            for name, value in zip("qkv", weights[f"h.{layer}.attn.c_attn.{part}"].t().chunk(3)):
                state[f"encoder.layers.{layer}.self_attn.{name}_proj.{part}"] = value
    return state


def llama_state(model: Any) -> dict[str, Tensor]:
    """LLaMA's."""
    weights = model.state_dict()
    state = {
        "encoder.embed_tokens.weight": weights["model.embed_tokens.weight"],
        "encoder.layer_norm.weight": weights["model.norm.weight"],
    }
    names = {
        "input_layernorm": "self_attn_layer_norm", "self_attn.q_proj": "self_attn.q_proj",
        "self_attn.k_proj": "self_attn.k_proj", "self_attn.v_proj": "self_attn.v_proj",
        "self_attn.o_proj": "self_attn.out_proj", "post_attention_layernorm": "final_layer_norm",
        "mlp.down_proj": "fc2",
    }  # fmt: skip
    for layer in range(3):
        theirs, ours = f"model.layers.{layer}", f"encoder.layers.{layer}"
        for name, new in names.items():
            state[f"{ours}.{new}.weight"] = weights[f"{theirs}.{name}.weight"]
        gates = [weights[f"{theirs}.mlp.{name}_proj.weight"] for name in ("gate", "up")]
        state[f"{ours}.fc1.weight"] = torch.cat(gates)
    if not model.config.tie_word_embeddings:
        state["decoder.output_projection.weight"] = weights["lm_head.weight"]
    return state


def t5_state(model: Any) -> dict[str, Tensor]:
    """T5's."""
    weights = model.state_dict()
    state = {}
    for side, layers in (("encoder", 3), ("decoder", 2)):
        state[f"{side}.embed_tokens.weight"] = weights["shared.weight"]
        state[f"{side}.layer_norm.weight"] = weights[f"{side}.final_layer_norm.weight"]
        bias = "block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        state[f"{side}.relative_positions.weight"] = weights[f"{side}.{bias}"]
        for layer in range(layers):
            theirs, ours = f"{side}.block.{layer}.layer", f"{side}.layers.{layer}"
            attentions = {"0.SelfAttention": "self_attn"}
            if side == "decoder":
                attentions["1.EncDecAttention"] = "encoder_attn"
            for place, (name, new) in enumerate(attentions.items()):
                state[f"{ours}.{new}_layer_norm.weight"] = weights[f"{theirs}.{place}.layer_norm.weight"]
                for letter, projection in zip("qkvo", ("q_proj", "k_proj", "v_proj", "out_proj")):
                    state[f"{ours}.{new}.{projection}.weight"] = weights[f"{theirs}.{name}.{letter}.weight"]
            dense = f"{theirs}.{len(attentions)}"
            state[f"{ours}.final_layer_norm.weight"] = weights[f"{dense}.layer_norm.weight"]
            inner = [value for name, value in weights.items() if name.startswith(f"{dense}.DenseReluDense.wi")]
            state[f"{ours}.fc1.weight"] = torch.cat(inner)
            state[f"{ours}.fc2.weight"] = weights[f"{dense}.DenseReluDense.wo.weight"]
    if not model.config.tie_word_embeddings:
        state["decoder.output_projection.weight"] = weights["lm_head.weight"]
    return state
