"""T5 (1.0 and 1.1) and BART, models of an encoder and a decoder."""

from __future__ import annotations

import re
from argparse import Namespace
from typing import Any

from ...errors import UserError
from .causal import head, heads, norm
from .config import Config
from .family import EMBEDDING, Family, Link, linked

#: Another name of ours for the embedding, and theirs for it and its copies.
DECODER_EMBEDDING = "decoder.embed_tokens.weight"
SHARED = "shared.weight"

# --- T5 ---

#: feed_forward_proj without "gated-".
T5_ACTIVATIONS = {"relu": "relu", "gelu": "gelu", "gelu_new": "gelu_tanh", "silu": "silu"}

T5_POSITIONS = 1024


def read_t5(config: Config) -> dict[str, Any]:
    """Our options."""
    config.only("is_encoder_decoder", True)
    config.only("decoder_start_token_id", config.get("pad_token_id"), "not <pad>")
    dim, ffn_dim, count = config.size("d_model"), config.size("d_ff"), config.size("num_heads")
    layers, dropout = config.size("num_layers"), config.number("dropout_rate")
    gated, activation = read_feed_forward(config)
    return {
        "encoder_layers": layers,
        "decoder_layers": config.size("num_decoder_layers", layers),
        **dict.fromkeys(("encoder_embed_dim", "decoder_embed_dim"), dim),
        **dict.fromkeys(("encoder_ffn_embed_dim", "decoder_ffn_embed_dim"), ffn_dim),
        **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), count),
        "head_dim": config.size("d_kv"),
        "relative_buckets": config.size("relative_attention_num_buckets", 32),
        "relative_max_distance": config.size("relative_attention_max_distance", 128),
        "gated": gated,
        "activation_fn": activation,
        "norm_eps": config.number("layer_norm_epsilon", 1e-6),
        "share_decoder_input_output_embed": config.flag("tie_word_embeddings", True),
        "max_source_positions": T5_POSITIONS,
        "max_target_positions": T5_POSITIONS,
        **dict.fromkeys(("dropout", "attention_dropout", "activation_dropout"), dropout),
    }


def read_feed_forward(config: Config) -> tuple[bool, str]:
    """Whether the feed-forward is gated, and its activation: "gated-gelu" means the tanh formula, as 1.1 has it."""
    name = config.get("feed_forward_proj", "relu")
    if name == "gated-gelu":
        return True, "gelu_tanh"
    gated = str(name).startswith("gated-")
    activation = str(name).removeprefix("gated-")
    if not isinstance(name, str) or activation not in T5_ACTIVATIONS:
        raise config.refuse("feed_forward_proj", "which is not built; relu, gelu and silu are, each also gated-")
    return gated, T5_ACTIVATIONS[activation]


def write_t5(args: Namespace) -> dict[str, Any]:
    """config.json."""
    activation = {"gelu_tanh": "gelu_new"}.get(args.activation_fn, args.activation_fn)
    proj = f"gated-{activation}" if args.gated else activation
    return {
        "architectures": ["T5ForConditionalGeneration"],
        "is_encoder_decoder": True,
        "num_layers": args.encoder_layers,
        "num_decoder_layers": args.decoder_layers,
        "d_model": args.encoder_embed_dim,
        "d_ff": args.encoder_ffn_embed_dim,
        "d_kv": args.head_dim,
        "num_heads": args.encoder_attention_heads,
        "relative_attention_num_buckets": args.relative_buckets,
        "relative_attention_max_distance": args.relative_max_distance,
        "feed_forward_proj": {"gated-gelu_new": "gated-gelu"}.get(proj, proj),
        "layer_norm_epsilon": args.norm_eps,
        "dropout_rate": args.dropout,
    }


def link_t5(args: Namespace, rows: int) -> list[Link]:
    """The table: no biases."""
    dim, ffn_dim, count = args.encoder_embed_dim, args.encoder_ffn_embed_dim, args.encoder_attention_heads
    inner = count * args.head_dim
    links = [linked(EMBEDDING, SHARED, rows, dim, embeds=True, copies=(DECODER_EMBEDDING,))]

    def attention(ours: str, theirs: str) -> list[Link]:
        names = {"q_proj": "q", "k_proj": "k", "v_proj": "v"}
        return [
            *(linked(f"{ours}.{name}.weight", f"{theirs}.{names[name]}.weight", inner, dim) for name in names),
            linked(f"{ours}.out_proj.weight", f"{theirs}.o.weight", dim, inner),
        ]

    def feed_forward(ours: str, theirs: str) -> list[Link]:
        first = tuple(f"{theirs}.{name}.weight" for name in (("wi_0", "wi_1") if args.gated else ("wi",)))
        return [
            Link((f"{ours}.fc1.weight",), first, (len(first) * ffn_dim, dim)),
            linked(f"{ours}.fc2.weight", f"{theirs}.wo.weight", dim, ffn_dim),
        ]

    for side, layers in (("encoder", args.encoder_layers), ("decoder", args.decoder_layers)):
        bias = f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        links += [
            linked(f"{side}.relative_positions.weight", bias, args.relative_buckets, count),
            linked(f"{side}.layer_norm.weight", f"{side}.final_layer_norm.weight", dim),
        ]
        for index in range(layers):
            ours, theirs = f"{side}.layers.{index}", f"{side}.block.{index}.layer"
            sublayers = [("self_attn", "SelfAttention", attention), ("encoder_attn", "EncDecAttention", attention)]
            sublayers = [*sublayers[: 1 + (side == "decoder")], ("", "DenseReluDense", feed_forward)]
            for number, (name, their_name, make) in enumerate(sublayers):
                norm_name = f"{name}_layer_norm" if name else "final_layer_norm"
                links += make(f"{ours}.{name}".rstrip("."), f"{theirs}.{number}.{their_name}")
                links.append(linked(f"{ours}.{norm_name}.weight", f"{theirs}.{number}.layer_norm.weight", dim))
    return links + head(args, rows)


T5 = Family(
    model_types=("t5",),
    arch="switchable_t5",
    names=("switchable_t5",),
    prefix="",
    start="<pad>",
    read=read_t5,
    write=write_t5,
    links=link_t5,
    embedding=SHARED,
    same=("encoder.embed_tokens.weight", "decoder.embed_tokens.weight"),
    # What the first releases hold and no T5 uses: positions for the attention to the encoder.
    ignored=re.compile(r"decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight$"),
)


# --- BART ---

#: fairseq's word for theirs; its "gelu" is the exact one too.
BART_ACTIVATIONS = {"gelu": "gelu", "relu": "relu", "gelu_new": "gelu_accurate"}

#: Rows of a position embedding that no position has: fairseq counts positions from the padding's index on.
OFFSET = 2


def read_bart(config: Config) -> dict[str, Any]:
    """Our options: BART's of fairseq."""
    config.only("is_encoder_decoder", True)
    config.only("tie_word_embeddings", True)
    config.only("normalize_embedding", True)
    for key in ("normalize_before", "add_final_layer_norm", "add_bias_logits", "static_position_embeddings"):
        config.only(key, False)
    config.only("decoder_start_token_id", config.get("eos_token_id"), "not </s>")
    dim, positions = config.size("d_model"), config.size("max_position_embeddings", 1024)
    args = Namespace(no_scale_embedding=not config.flag("scale_embedding", False), layernorm_embedding=True)
    for side in ("encoder", "decoder"):
        vars(args).update({
            f"{side}_layers": config.size(f"{side}_layers"),
            f"{side}_embed_dim": dim,
            f"{side}_ffn_embed_dim": config.size(f"{side}_ffn_dim"),
            f"{side}_attention_heads": heads(config, dim, f"{side}_attention_heads"),
        })  # fmt: skip
    for name in ("dropout", "attention_dropout", "activation_dropout"):
        setattr(args, name, config.number(name))
    args.activation_fn = config.choice("activation_function", BART_ACTIVATIONS, "gelu")
    args.task = "translation"  # as of the released checkpoints: stock fairseq loads it too
    args.share_all_embeddings = args.share_decoder_input_output_embed = True
    args.max_source_positions = args.max_target_positions = positions
    bart_defaults(args)
    return vars(args)


def bart_defaults(args: Namespace) -> None:
    """fairseq's values of the options that a config.json has not."""
    from fairseq.models.bart.model import bart_large_architecture

    bart_large_architecture(args)


def write_bart(args: Namespace) -> dict[str, Any]:
    """config.json.

    Raises:
        UserError: Hugging Face's BART cannot compute what these options ask for.
    """
    wanted = {
        "share_all_embeddings": True, "layernorm_embedding": True, "encoder_learned_pos": True,
        "decoder_learned_pos": True, "encoder_normalize_before": False, "decoder_normalize_before": False,
        "decoder_embed_dim": args.encoder_embed_dim, "max_target_positions": args.max_source_positions,
    }  # fmt: skip
    for name, value in wanted.items():
        if getattr(args, name, value) != value:
            raise UserError(
                f"export --to hugging-face: the model has {name} {getattr(args, name)}; Hugging Face's BART has "
                f"{value} there and cannot hold it. Leave --to out, for a checkpoint of fairseq's"
            )
    theirs = {ours: name for name, ours in BART_ACTIVATIONS.items()}
    found: dict[str, Any] = {
        "architectures": ["BartForConditionalGeneration"],
        "is_encoder_decoder": True,
        "d_model": args.encoder_embed_dim,
        "max_position_embeddings": args.max_source_positions,
        "activation_function": theirs.get(args.activation_fn, args.activation_fn),
        "scale_embedding": not args.no_scale_embedding,
        **{name: getattr(args, name) for name in ("dropout", "attention_dropout", "activation_dropout")},
    }
    for side in ("encoder", "decoder"):
        for ours, name in (("layers", "layers"), ("ffn_embed_dim", "ffn_dim"), ("attention_heads", "attention_heads")):
            found[f"{side}_{name}"] = getattr(args, f"{side}_{ours}")
    return found


def link_bart(args: Namespace, rows: int) -> list[Link]:
    """The table: the names are fairseq's there too."""
    dim = args.encoder_embed_dim
    links = [linked(EMBEDDING, SHARED, rows, dim, embeds=True, copies=(DECODER_EMBEDDING,))]

    def linear(name: str, inputs: int, outputs: int) -> list[Link]:
        weight, bias = f"{name}.weight", f"{name}.bias"
        return [linked(weight, weight, outputs, inputs), linked(bias, bias, outputs)]

    for side in ("encoder", "decoder"):
        positions = f"{side}.embed_positions.weight"
        links += [
            linked(positions, positions, args.max_source_positions + OFFSET, dim),
            *norm(f"{side}.layernorm_embedding", f"{side}.layernorm_embedding", dim),
        ]
        ffn_dim = getattr(args, f"{side}_ffn_embed_dim")
        for layer in (f"{side}.layers.{index}" for index in range(getattr(args, f"{side}_layers"))):
            for attention in ("self_attn", "encoder_attn")[: 1 + (side == "decoder")]:
                for projection in ("q_proj", "k_proj", "v_proj", "out_proj"):
                    links += linear(f"{layer}.{attention}.{projection}", dim, dim)
                links += norm(f"{layer}.{attention}_layer_norm", f"{layer}.{attention}_layer_norm", dim)
            links += linear(f"{layer}.fc1", dim, ffn_dim) + linear(f"{layer}.fc2", ffn_dim, dim)
            links += norm(f"{layer}.final_layer_norm", f"{layer}.final_layer_norm", dim)
    return links


BART = Family(
    model_types=("bart",),
    arch="bart_large",  # its sizes are all among the options
    names=("bart", "switchable_bart"),
    prefix="model.",
    start="</s>",
    read=read_bart,
    write=write_bart,
    links=link_bart,
    embedding=SHARED,
    same=("encoder.embed_tokens.weight", "decoder.embed_tokens.weight"),
    ignored=re.compile(r"(encoder|decoder)\.version$"),
    zeros={"final_logits_bias": lambda size: (1, size)},
)
