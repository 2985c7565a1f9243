"""Sizes and other facts of a backbone that nobody should have to type: they come from the checkpoint to start from."""

from __future__ import annotations

import logging
import os
from argparse import ArgumentParser
from typing import Any, NamedTuple, Optional

from fairseq.dataclass.utils import gen_parser_from_dataclass
from fairseq.models import ARCH_MODEL_NAME_REGISTRY

from ..compat.checkpoints import read_options
from ..config import DecisionOptions, build_dial, check_range, flag
from ..decisions import DecisionSpace
from ..errors import UserError
from ..policy import SwitchPolicy
from ..runtime.loading import allocated

logger = logging.getLogger(__name__)


class Option(NamedTuple):
    """An option of a backbone.

    Attributes:
        type: of its value; bool makes a flag.
        help: what it means.
        default: where neither the user nor the checkpoint nor the architecture says.
    """

    type: type
    help: str
    default: Any = None


#: Of every backbone but BART, which has fairseq's.
COMMON = {
    "norm_eps": Option(float, "small number in the layers' norms, against division by 0"),
    "activation_fn": Option(str, "activation of the feed-forward sublayers: gelu, gelu_tanh, relu or silu"),
    "absent_symbols": Option(str, "symbols of the dictionary that the model has no token for, joined by spaces", ""),
    "special_ids": Option(str, "the token ids of <s> <pad> </s> <unk>, - where there is none, which export writes"),
    "share_decoder_input_output_embed": Option(bool, "the output projection shares the embedding's weight", True),
}

DROPOUTS = ("dropout", "attention_dropout", "activation_dropout")


def add_options(parser: ArgumentParser, options: dict[str, Option]) -> None:
    """A backbone's options, and those of the decisions; what is not given is looked up by `fill`."""
    for name, option in options.items():
        how: dict[str, Any] = {"action": "store_true"} if option.type is bool else {"type": option.type}
        parser.add_argument(flag(name), default=None, help=f"{option.help} (default: the checkpoint's)", **how)
    for name in DROPOUTS:
        parser.add_argument(flag(name), type=float, default=None, help=f"probability of {name.replace('_', ' ')}")
    parser.add_argument(
        "--checkpoint-activations",
        action="store_true",
        help="recompute a layer's activations in the backward pass: less memory, more time",
    )
    gen_parser_from_dataclass(parser, DecisionOptions(), delete_default=True)


def fill_decisions(args: Any) -> None:
    """Defaults of the decisions' options, and of dropout, for an architecture."""
    for name, default in DecisionOptions().__dict__.items():
        if name.startswith("switch_"):
            setattr(args, name, getattr(args, name, default))
    args.checkpoint_activations = getattr(args, "checkpoint_activations", False)


def fill(args: Any, options: dict[str, Option], sizes: dict[str, Any]) -> None:
    """Give options that nobody gave their values: the checkpoint's, else the architecture's.

    Args:
        args: the model's options, changed in place, so that they are saved with it.
        sizes: the architecture's.

    Raises:
        UserError: the checkpoint is of another model, or cannot be read.
    """
    missing = [name for name in options if getattr(args, name, None) is None]
    source = start_file(args) if missing else None
    known = {} if source is None else vars(read_options(source))
    theirs, ours = (ARCH_MODEL_NAME_REGISTRY.get(of.get("_name") or of.get("arch")) for of in (known, vars(args)))
    if known and theirs != ours:
        raise UserError(f"{source} holds a model {theirs}, not a {ours}: name another checkpoint, or give its --arch")
    found = {name: known[name] for name in missing if known.get(name) is not None}
    for name in missing:
        setattr(args, name, found.get(name, sizes.get(name, options[name].default)))
    for name in DROPOUTS:
        if getattr(args, name, None) is None:
            setattr(args, name, sizes.get(name, 0.0))
    if found:
        logger.info("from %s: %s", source, ", ".join(f"{flag(name)} {value}" for name, value in found.items()))
    check_range("switch_policy_dim", args.switch_policy_dim, "1 or more", lambda value: value >= 1)


def build_policy(args: Any, space: DecisionSpace, dim: int) -> SwitchPolicy:
    """The policy that a model's options describe.

    Args:
        dim: size of the states that it reads.
    """
    with allocated():
        return SwitchPolicy(space, dim, args.switch_policy_dim, bool(args.switch_per_layer), build_dial(args))


def start_file(args: Any) -> Optional[str]:
    """The checkpoint that training starts from: the last one of an interrupted run, or what the user names."""
    restore = getattr(args, "restore_file", None) or "checkpoint_last.pt"
    if restore == os.path.basename(restore):
        restore = os.path.join(getattr(args, "save_dir", None) or ".", restore)
    for file in (restore, getattr(args, "finetune_from_model", None)):
        if file and os.path.exists(file):
            return file
    return None


def symbols(dictionary: Any, text: str) -> list[int]:
    """Ids of a dictionary's symbols, joined by spaces."""
    return [dictionary.index(symbol) for symbol in text.split()]
