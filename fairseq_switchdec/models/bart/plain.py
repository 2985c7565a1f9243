"""What checkpoints of plain BART hold that differs from ours: the released ones, and those of stock fairseq 0.12.2."""

from __future__ import annotations

import logging
import re
from typing import Any

from fairseq import checkpoint_utils
from fairseq.models import ARCH_MODEL_NAME_REGISTRY
from torch import Tensor

logger = logging.getLogger(__name__)

#: Copies of an encoder layer's weights that fairseq 0.12.2 saves beside them.
DUPLICATES = re.compile(r"encoder\.layers\.\d+\.(in_proj|out_proj|fc1|fc2)_(weight|bias)$")

#: Query, key and value projections in one tensor, as fairseq wrote them before version 0.8.
FUSED = re.compile(r"(.+_attn\.)in_proj_(weight|bias)$")

#: BART options that would change what a layer computes in ways its switchable layers do not implement.
UNSUPPORTED = (
    "encoder_normalize_before",
    "decoder_normalize_before",
    "encoder_layerdrop",
    "decoder_layerdrop",
    "encoder_layers_to_keep",
    "decoder_layers_to_keep",
    "adaptive_softmax_cutoff",
    "adaptive_input",
    "no_cross_attention",
    "cross_self_attention",
    "no_token_positional_embeddings",
    "quant_noise_pq",
    "quant_noise_scalar",
    "offload_activations",
)


def drop_duplicates(state: dict[str, Tensor]) -> None:
    """Take the copies of encoder weights out of a model's state."""
    for key in [key for key in state if DUPLICATES.search(key)]:
        del state[key]


def split_projections(state: dict[str, Tensor]) -> None:
    """Replace fused projections, (3 D, D) and (3 D,), by ``q_proj``, ``k_proj`` and ``v_proj``: views, not copies."""
    for key in list(state):
        match = FUSED.match(key)
        if match:
            prefix, suffix = match.groups()
            for name, part in zip(("q_proj", "k_proj", "v_proj"), state.pop(key).chunk(3)):
                state[f"{prefix}{name}.{suffix}"] = part


def read_switchable(path: str, overrides: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint as fairseq loads it, its options overridden; a plain BART's names a switchable model and task.

    Raises:
        UserError: the file cannot be read.
    """
    state = checkpoint_utils.load_checkpoint_to_cpu(path, overrides)
    args = flat_args(state)
    if can_become_switchable(args):
        name_switchable(args)
        if args.task == "translation":
            args.task = "switchable_task"
        state["args"] = args
    return state


def flat_args(state: dict[str, Any]) -> Any:
    """The options of a loaded checkpoint of BART as one Namespace, model's and task's together.

    fairseq < 0.11 wrote them so; later releases write them so as the options of a model without a config class.
    """
    return state["args"] if state.get("args") is not None else state["cfg"].model


def model_name(args: Any) -> str | None:
    """The registered name of the model that a checkpoint's options describe: ``bart``, ``switchable_bart``, ..."""
    return ARCH_MODEL_NAME_REGISTRY.get(getattr(args, "_name", None) or getattr(args, "arch", None))


def can_become_switchable(args: Any) -> bool:
    """Whether options describe a plain BART that `SwitchableBARTModel` computes alike."""
    return (
        model_name(args) == "bart" and args.encoder_layers > 1 and not any(getattr(args, n, None) for n in UNSUPPORTED)
    )


def name_switchable(args: Any) -> None:
    """Let a plain BART's options name the switchable model; its sizes are all among them."""
    logger.info("the checkpoint is a plain BART: it runs as a switchable one that keeps everything")
    args.arch = args._name = "switchable_bart"
