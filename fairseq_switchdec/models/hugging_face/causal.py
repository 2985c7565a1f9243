"""GPT-2 and LLaMA, decoder-only models."""

from __future__ import annotations

import json
import re
from argparse import Namespace
from typing import Any

from ...errors import UserError
from .config import Config
from .family import EMBEDDING, HEAD, Family, Link, linked

GPT2_ACTIVATIONS = {
    **dict.fromkeys(("gelu_new", "gelu_pytorch_tanh", "gelu_fast"), "gelu_tanh"),
    **{"gelu": "gelu", "relu": "relu", "silu": "silu", "swish": "silu"},
}

#: Numbers that a way of scaling rotary angles has.
ROPE_SCALINGS = {
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
}


def heads(config: Config, dim: int, key: str) -> int:
    """Attention heads, which must divide the model's width."""
    count = config.size(key)
    if dim % count:
        raise config.refuse(key, f"which does not divide the model's {dim} dimensions")
    return count


# --- GPT-2 ---


def read_gpt2(config: Config) -> dict[str, Any]:
    """Our options."""
    config.only("scale_attn_weights", True)
    for key in ("scale_attn_by_inverse_layer_idx", "reorder_and_upcast_attn", "add_cross_attention"):
        config.only(key, False)
    dim = config.size("n_embd")
    count = heads(config, dim, "n_head")
    return {
        "decoder_layers": config.size("n_layer"),
        "decoder_embed_dim": dim,
        "decoder_ffn_embed_dim": config.size("n_inner", 4 * dim),
        "decoder_attention_heads": count,
        "decoder_kv_heads": count,
        "decoder_head_dim": dim // count,
        "norm_eps": config.number("layer_norm_epsilon", 1e-5),
        "activation_fn": config.choice("activation_function", GPT2_ACTIVATIONS, "gelu_new"),
        "max_positions": config.size("n_positions", 1024),
        "share_decoder_input_output_embed": config.flag("tie_word_embeddings", True),
        "dropout": config.number("resid_pdrop"),
        "attention_dropout": config.number("attn_pdrop"),
        "activation_dropout": 0.0,
    }


def write_gpt2(args: Namespace) -> dict[str, Any]:
    """config.json."""
    return {
        "architectures": ["GPT2LMHeadModel"],
        "n_layer": args.decoder_layers,
        "n_embd": args.decoder_embed_dim,
        "n_inner": args.decoder_ffn_embed_dim,
        "n_head": args.decoder_attention_heads,
        "layer_norm_epsilon": args.norm_eps,
        "activation_function": {"gelu_tanh": "gelu_new"}.get(args.activation_fn, args.activation_fn),
        "n_positions": args.max_positions,
        "resid_pdrop": args.dropout,
        "embd_pdrop": args.dropout,
        "attn_pdrop": args.attention_dropout,
    }


def link_gpt2(args: Namespace, rows: int) -> list[Link]:
    """The table: biases everywhere, matrices transposed."""
    dim, ffn_dim = args.decoder_embed_dim, args.decoder_ffn_embed_dim
    links = [
        linked(EMBEDDING, "wte.weight", rows, dim, embeds=True),
        linked("encoder.embed_positions.weight", "wpe.weight", args.max_positions, dim),
        *norm("encoder.layer_norm", "ln_f", dim),
    ]
    for index in range(args.decoder_layers):
        ours, theirs = f"encoder.layers.{index}", f"h.{index}"
        projections = tuple(f"{ours}.self_attn.{name}_proj" for name in "qkv")
        links += [
            *norm(f"{ours}.self_attn_layer_norm", f"{theirs}.ln_1", dim),
            *conv1d(projections, f"{theirs}.attn.c_attn", 3 * dim, dim),
            *conv1d((f"{ours}.self_attn.out_proj",), f"{theirs}.attn.c_proj", dim, dim),
            *norm(f"{ours}.final_layer_norm", f"{theirs}.ln_2", dim),
            *conv1d((f"{ours}.fc1",), f"{theirs}.mlp.c_fc", ffn_dim, dim),
            *conv1d((f"{ours}.fc2",), f"{theirs}.mlp.c_proj", dim, ffn_dim),
        ]
    return links + head(args, rows)


def norm(ours: str, theirs: str, dim: int) -> list[Link]:
    """A layer norm with a bias."""
    return [linked(f"{ours}.{name}", f"{theirs}.{name}", dim) for name in ("weight", "bias")]


def conv1d(ours: tuple[str, ...], theirs: str, outputs: int, inputs: int) -> list[Link]:
    """Linear layers of ours as one of theirs."""
    return [
        Link(tuple(f"{name}.weight" for name in ours), (f"{theirs}.weight",), (outputs, inputs), transposed=True),
        Link(tuple(f"{name}.bias" for name in ours), (f"{theirs}.bias",), (outputs,)),
    ]


def head(args: Namespace, rows: int) -> list[Link]:
    """The output projection, where it is not the embedding."""
    if args.share_decoder_input_output_embed:
        return []
    return [linked(HEAD, "lm_head.weight", rows, args.decoder_embed_dim, embeds=True)]


GPT2 = Family(
    model_types=("gpt2",),
    arch="switchable_gpt2",
    names=("switchable_gpt2",),
    prefix="transformer.",
    read=read_gpt2,
    write=write_gpt2,
    links=link_gpt2,
    embedding="wte.weight",
    ignored=re.compile(r"h\.\d+\.attn\.(bias|masked_bias)$"),
)


# --- LLaMA ---

#: The positions that a mistral's attention sees where its config.json does not say.
MISTRAL_WINDOW = 4096


def read_llama(config: Config) -> dict[str, Any]:
    """Our options."""
    for key in ("attention_bias", "mlp_bias"):
        config.only(key, False)
    positions = config.size("max_position_embeddings")
    if config.get("model_type") == "mistral" and "sliding_window" not in config.values and positions > MISTRAL_WINDOW:
        raise UserError(
            f"{config.path} has no sliding_window, which for a mistral means {MISTRAL_WINDOW}, and windows are not "
            "built: write null there if the model has none"
        )
    config.only("sliding_window", None)
    config.only("partial_rotary_factor", 1.0)
    config.only("rope_interleaved", False)
    config.only("hidden_act", "silu")
    for key in ("num_local_experts", "num_experts", "n_routed_experts"):
        config.only(key, None, "a mixture of experts, which is not built")
    dim, count = config.size("hidden_size"), config.size("num_attention_heads")
    head_dim = None if config.get("head_dim") is None else config.size("head_dim")
    kv_heads = config.size("num_key_value_heads", count)
    if count % kv_heads:
        raise config.refuse("num_key_value_heads", f"which does not divide the {count} attention heads")
    if head_dim is None:
        head_dim = dim // heads(config, dim, "num_attention_heads")
    if head_dim % 2:
        raise config.refuse("head_dim", f"and a head has {head_dim} dimensions: rotary positions need an even number")
    rope = Config(
        config.path,
        config.table("rope_parameters") or {"rope_theta": config.get("rope_theta"), **config.table("rope_scaling")},
    )
    rope.only("partial_rotary_factor", 1.0)
    return {
        "decoder_layers": config.size("num_hidden_layers"),
        "decoder_embed_dim": dim,
        "decoder_ffn_embed_dim": config.size("intermediate_size"),
        "decoder_attention_heads": count,
        "decoder_kv_heads": kv_heads,
        "decoder_head_dim": head_dim,
        "norm_eps": config.number("rms_norm_eps", 1e-6),
        "activation_fn": "silu",
        "max_positions": positions,
        "rope_theta": rope.positive("rope_theta", 10000.0),
        "rope_scaling": read_rope_scaling(rope),
        "share_decoder_input_output_embed": config.flag("tie_word_embeddings", False),
        "dropout": 0.0,
        "attention_dropout": config.number("attention_dropout"),
        "activation_dropout": 0.0,
    }


def read_rope_scaling(rope: Config) -> str:
    """How rotary angles are scaled: JSON, or "" for not at all."""
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return ""
    if not isinstance(kind, str) or kind not in ROPE_SCALINGS:
        raise UserError(
            f"{rope.path}: rotary positions are scaled by {kind!r}, which is not built; only "
            f"{', '.join(ROPE_SCALINGS)} are: import another model"
        )
    missing = [key for key in ROPE_SCALINGS[kind] if rope.get(key) is None]
    if missing:
        raise UserError(f"{rope.path}: rope_scaling {kind!r} has no {missing[0]}: is the file damaged?")
    values = {key: rope.positive(key) for key in ROPE_SCALINGS[kind]}
    if kind == "llama3":
        values["original_max_position_embeddings"] = rope.size("original_max_position_embeddings")
    return json.dumps({"rope_type": kind, **values})


def head_sizes(args: Namespace) -> tuple[int, int]:
    """Heads of keys and values, and the size of a head; 0 in a checkpoint stands for what follows from the others."""
    heads = args.decoder_attention_heads
    return args.decoder_kv_heads or heads, args.decoder_head_dim or args.decoder_embed_dim // heads


def write_llama(args: Namespace) -> dict[str, Any]:
    """config.json."""
    kv_heads, head_dim = head_sizes(args)
    return {
        "architectures": ["LlamaForCausalLM"],
        "num_hidden_layers": args.decoder_layers,
        "hidden_size": args.decoder_embed_dim,
        "intermediate_size": args.decoder_ffn_embed_dim,
        "num_attention_heads": args.decoder_attention_heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "rms_norm_eps": args.norm_eps,
        "hidden_act": args.activation_fn,
        "max_position_embeddings": args.max_positions,
        "rope_theta": args.rope_theta,
        "rope_scaling": json.loads(args.rope_scaling) if args.rope_scaling else None,
        "attention_bias": False,
        "mlp_bias": False,
        "attention_dropout": args.attention_dropout,
    }


def link_llama(args: Namespace, rows: int) -> list[Link]:
    """The table: no biases."""
    dim, ffn_dim = args.decoder_embed_dim, args.decoder_ffn_embed_dim
    kv_heads, head_dim = head_sizes(args)
    query_dim, key_dim = args.decoder_attention_heads * head_dim, kv_heads * head_dim
    links = [
        linked(EMBEDDING, "embed_tokens.weight", rows, dim, embeds=True),
        linked("encoder.layer_norm.weight", "norm.weight", dim),
    ]
    for index in range(args.decoder_layers):
        ours, theirs = f"encoder.layers.{index}", f"layers.{index}"
        gated = (f"{theirs}.mlp.gate_proj.weight", f"{theirs}.mlp.up_proj.weight")
        links += [
            linked(f"{ours}.self_attn_layer_norm.weight", f"{theirs}.input_layernorm.weight", dim),
            linked(f"{ours}.self_attn.q_proj.weight", f"{theirs}.self_attn.q_proj.weight", query_dim, dim),
            linked(f"{ours}.self_attn.k_proj.weight", f"{theirs}.self_attn.k_proj.weight", key_dim, dim),
            linked(f"{ours}.self_attn.v_proj.weight", f"{theirs}.self_attn.v_proj.weight", key_dim, dim),
            linked(f"{ours}.self_attn.out_proj.weight", f"{theirs}.self_attn.o_proj.weight", dim, query_dim),
            linked(f"{ours}.final_layer_norm.weight", f"{theirs}.post_attention_layernorm.weight", dim),
            Link((f"{ours}.fc1.weight",), gated, (2 * ffn_dim, dim)),
            linked(f"{ours}.fc2.weight", f"{theirs}.mlp.down_proj.weight", dim, ffn_dim),
        ]
    return links + head(args, rows)


LLAMA = Family(
    model_types=("llama", "mistral"),  # a mistral without a sliding window is a llama
    arch="switchable_llama",
    names=("switchable_llama",),
    prefix="model.",
    read=read_llama,
    write=write_llama,
    links=link_llama,
    embedding="embed_tokens.weight",
    ignored=re.compile(r"(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq$"),
)
