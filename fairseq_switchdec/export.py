"""``python -m fairseq_switchdec export CHECKPOINT OUT``: a model's weights for other programs, without the policy.

What is written computes what the keep-all path computes. By default it is a BART and looks as the released BART
checkpoints do: their key names, their flat ``args``, no policy, no optimizer state. Stock fairseq loads it, and so does
what converts fairseq's BART for other programs (CTranslate2). ``--to hugging-face`` writes a folder for transformers,
of every model that ``import`` makes. With ``--prune`` it is a smaller model, without the layers that forced decisions
skip, and computes what those compute.
"""

from __future__ import annotations

import argparse
import os
import re
from argparse import Namespace
from pathlib import Path
from typing import Any

import torch
from fairseq import checkpoint_utils
from torch import Tensor

from .compat.user_dir import register_tasks_and_models
from .errors import UserError
from .models.bart.plain import drop_duplicates, flat_args, model_name, split_projections
from .models.hugging_face.exporter import export_folder
from .models.hugging_face.staging import reachable
from .models.prune import prune
from .models.switchable import OURS

#: What plain BART is called; any other name of ours is of a geometry that ``args`` spells out.
PLAIN_ARCHS = {"switchable_bart_base": "bart_base"}
PLAIN_TASKS = {"switchable_task": "translation", "switchable_sentence_prediction": "sentence_prediction"}

#: Options that are ours, or name files of the machine that the model was trained on, whatever their values.
LEFT_OUT = re.compile(
    r"switch_|policy_|_name$|(data|save_dir|restore_file|finetune_from_model|user_dir)$|.*_path$|eval_"
)

SPAN_HEAD = "span_head."


@reachable("export")
def export(checkpoint: str, out: str, pruned: str | None = None) -> str:
    """Write a plain BART checkpoint.

    Args:
        checkpoint: of a switchable BART, or of a plain one in any form that fairseq has written.
        out: the file to write, which must not exist.
        pruned: file of the decisions whose layers are left out, see `fairseq_switchdec.models.prune`.

    Returns:
        What was written, in a line.

    Raises:
        UserError: a file cannot be read or written, or holds another model.
    """
    register_tasks_and_models()  # which a checkpoint names
    target = Path(out)
    if target.exists():
        raise UserError(f"export: {out} exists already: name another file, or remove it first")
    if not (target.parent.is_dir() and os.access(target.parent, os.W_OK)):
        raise UserError(f"export: {target.parent} is no folder that can be written to: make it, or name another one")
    state = checkpoint_utils.load_checkpoint_to_cpu(checkpoint)
    args = flat_args(state)
    if model_name(args) not in ("bart", "switchable_bart"):
        raise UserError(
            f"export: {checkpoint} holds a model {getattr(args, '_name', None) or getattr(args, 'arch', None)}, not a "
            "BART: name a checkpoint of --arch switchable_bart or bart_large, or add --to hugging-face"
        )
    headless = any(key.startswith(SPAN_HEAD) for key in state["model"])
    plain_weights(state["model"], args)
    left_out = "" if pruned is None else prune(state["model"], args, pruned)
    history = {**state["optimizer_history"][-1], "lr_scheduler_state": {}, "num_updates": 0}
    content = {
        "args": plain_args(args),
        "model": state["model"],
        "optimizer_history": [history],
        "extra_state": {"train_iterator": {"epoch": 1, "iterations_in_epoch": 0}},
        "last_optimizer_state": None,
    }
    save(content, target)
    note = "; the span head is left out, for plain BART has none" if headless else ""
    size = f"{len(state['model'])} tensors, {target.stat().st_size:,} bytes"
    return f"wrote {out}: {content['args'].arch}, {size}{left_out}{note}"


def plain_weights(weights: dict[str, Tensor], args: Any) -> None:
    """Bring a model's weights, in place, to the names and the sharing of the released checkpoints."""
    for key in [key for key in weights if key.startswith((*OURS, SPAN_HEAD))]:
        del weights[key]
    drop_duplicates(weights)
    split_projections(weights)
    if args.share_all_embeddings:
        weights["decoder.embed_tokens.weight"] = weights["encoder.embed_tokens.weight"]  # so it is stored once
    if args.share_decoder_input_output_embed:
        weights.pop("decoder.output_projection.weight", None)


def plain_args(args: Any) -> Namespace:
    """The options in the flat form of the released checkpoints; none of ours among them, and no paths."""
    kept = {name: value for name, value in vars(args).items() if not LEFT_OUT.match(name) and not names_file(value)}
    if model_name(args) != "bart":
        kept["arch"] = PLAIN_ARCHS.get(args.arch, "bart_large")
    if args.task.startswith("switchable_"):
        kept["task"] = PLAIN_TASKS.get(args.task, "translation")
    if "policy_rule" in vars(args):
        kept["criterion"] = "label_smoothed_cross_entropy"
    if args.task == "switchable_sentence_prediction":
        kept |= {"criterion": "sentence_prediction", "add_prev_output_tokens": True}
    return Namespace(**kept)


def names_file(value: Any) -> bool:
    """Whether an option's value looks like a path."""
    return isinstance(value, str) and os.sep in value


def save(content: dict[str, Any], target: Path) -> None:
    """Write to a temporary name beside the target, then rename.

    Raises:
        UserError: the disk is full, or writing failed otherwise; nothing is left behind.
    """
    partial = target.with_name(f"{target.name}.partial")
    try:
        torch.save(content, partial)
        partial.replace(target)
    except (OSError, RuntimeError) as error:  # torch's zip writer raises the latter
        raise UserError(f"export: {target} cannot be written: {error}. Name a file on another disk") from error
    finally:
        partial.unlink(missing_ok=True)


def cli_main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n\n")[2])
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="of a switchable model, or of a plain BART")
    parser.add_argument("out", metavar="OUT", help="file to write, such as bart_large.pt, or folder; it must not exist")
    parser.add_argument(
        "--to", choices=("fairseq", "hugging-face"), default="fairseq", help="a plain BART checkpoint, or a folder"
    )
    parser.add_argument(
        "--imported", metavar="FOLDER",
        help="--to hugging-face: what import wrote, if it does not lie beside the checkpoint",
    )  # fmt: skip
    parser.add_argument(
        "--prune", metavar="FILE", help="leave out the layers that these forced decisions (JSON) skip: a static student"
    )
    options = parser.parse_args()
    if options.to != "hugging-face" and options.imported is not None:
        raise UserError("export: --imported is for --to hugging-face: leave it out, or add that")
    if options.to == "hugging-face":
        print(export_folder(options.checkpoint, options.out, options.imported, options.prune))
    else:
        print(export(options.checkpoint, options.out, options.prune))
