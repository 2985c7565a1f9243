"""A checkpoint's weights, without the policy, as a folder that transformers loads: the keep-all path."""

from __future__ import annotations

import json
import re
from argparse import Namespace
from pathlib import Path
from typing import Any

import torch

from ...compat.checkpoints import load_checkpoint, read_options
from ...errors import UserError
from ..bart.plain import UNSUPPORTED, drop_duplicates, model_name, split_projections
from ..prune import prune
from .families import FAMILIES
from .family import EMBEDDING, HEAD, Family, Link
from .importer import TOKEN_KEYS, in_words
from .staging import check_free, reachable, staged
from .tensors import LazyTensor
from .torch_files import FORMATS, save_safetensors
from .vocabulary import SPECIALS, Vocabulary
from .weights import read_json

#: What is written, the weights last.
TOKENIZER = "tokenizer.json"
FILES = ("config.json", "generation_config.json", TOKENIZER, "tokenizer_config.json", "model.safetensors")

#: Parts of our models that no model of theirs has.
LEFT_OUT = re.compile(
    r"encoder\.policy\.|learner_state\.|openings\.|(encoder|decoder)\.version$|span_head\.|classification_heads\."
)


@reachable("export --to hugging-face")
def export_folder(checkpoint: str, out: str, imported: str | None = None, pruned: str | None = None) -> str:
    """Write a folder in Hugging Face's format.

    Args:
        checkpoint: of a switchable model.
        out: a folder, made if it is not there.
        imported: the folder that import wrote, from which training began; default: the checkpoint's.
        pruned: file of the decisions whose layers are left out, see `fairseq_switchdec.models.prune`.

    Returns:
        What was written, in a line.

    Raises:
        UserError: a file cannot be read or written, or holds another model.
    """
    command = "export --to hugging-face"
    check_free(command, Path(out), FILES)
    state, args = read_checkpoint(Path(checkpoint))
    family = next((family for family in FAMILIES if (model_name(args) or name_of(args)) in family.names), None)
    if family is None:
        known = ", ".join(name for family in FAMILIES for name in family.names)
        raise UserError(f"{command}: {checkpoint} holds a model {name_of(args)}; only {known} are built")
    if family.arch.startswith("bart"):
        prepare_bart(command, state, args)
    left_out = "" if pruned is None else prune(state, args, pruned)
    beside = Path(checkpoint).parent if imported is None else Path(imported)
    if imported is not None:
        check_imported(command, beside, family, args)
    if not hasattr(args, "special_ids") and (beside / "model.pt").exists():
        args = Namespace(**{**vars(read_checkpoint(beside / "model.pt")[1]), **vars(args)})
    vocabulary = read_vocabulary(command, state, args, family, beside)
    try:
        links = family.links(args, vocabulary.rows)
        config = make_config(family, args, vocabulary)
    except AttributeError as error:
        raise UserError(f"{command}: {checkpoint} lacks an option of the model ({error}): see --imported") from None
    tensors = check_tensors(command, checkpoint, state, links, bool(args.share_decoder_input_output_embed))
    dtype = tensors[EMBEDDING].dtype
    config["torch_dtype"] = str(dtype).rpartition(".")[2]
    found = {family.full_name(name): tensor for link in links for name, tensor in link.to_theirs(tensors, vocabulary)}
    for name, shape in family.zeros.items():
        found[name] = LazyTensor.of(torch.zeros(shape(vocabulary.size), dtype=dtype))
    tokenizer = beside / TOKENIZER
    if imported is not None and not tokenizer.exists():
        raise UserError(f"{command}: --imported {imported} has no {TOKENIZER}: name the folder that import wrote")
    with staged(command, Path(out), FILES, sum(tensor.size for tensor in found.values())) as paths:
        write_json(paths["config.json"], config)
        write_json(
            paths["generation_config.json"], {key: value for key, value in config.items() if key.endswith("token_id")}
        )
        if tokenizer.exists():
            text = tokenizer.read_text(encoding="utf-8")
            paths[TOKENIZER].write_text(text, encoding="utf-8")
            write_json(paths["tokenizer_config.json"], tokenizer_config(tokenizer, vocabulary, args))
        save_safetensors(found, paths["model.safetensors"])
    note = "" if tokenizer.exists() else f"; without a tokenizer, for {beside} has no {TOKENIZER}: see --imported"
    return f"wrote {out}: {config['architectures'][0]}, {len(found)} tensors{left_out}{note}"


def name_of(args: Any) -> str | None:
    """What a checkpoint calls its model, registered or not."""
    return getattr(args, "_name", None) or getattr(args, "arch", None)


def read_checkpoint(path: Path) -> tuple[dict[str, torch.Tensor], Namespace]:
    """The weights and the options, whether fairseq wrote the latter as ``args`` or in ``cfg``.

    Raises:
        UserError: it cannot be read, or has none.
    """
    try:
        with open(path, "rb") as file:
            state = load_checkpoint(file, map_location="cpu")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}. Name the checkpoint") from None
    args = state.get("args") or (state.get("cfg") or {}).get("model")
    if not isinstance(args, Namespace):
        raise UserError(f"{path} has no options of a model that can be exported: name a checkpoint of a switchable one")
    weights = state.get("model")
    if not (isinstance(weights, dict) and all(isinstance(value, torch.Tensor) for value in weights.values())):
        raise UserError(f"{path} has no weights: name a checkpoint of a switchable model")
    return weights, args


def check_imported(command: str, folder: Path, family: Family, args: Namespace) -> None:
    """Refuse the folder of another model than the one that was trained on.

    Raises:
        UserError: naming ``--imported``.
    """
    if not (folder / "model.pt").exists():
        return
    theirs = read_options(str(folder / "model.pt"))
    ids = getattr(theirs, "special_ids", None)
    if (model_name(theirs) or name_of(theirs)) not in family.names or getattr(args, "special_ids", ids) != ids:
        raise UserError(
            f"{command}: --imported {folder} is the folder of another model, {name_of(theirs)} with the special tokens "
            f"{ids}: name the one from which training began"
        )


def prepare_bart(command: str, state: dict[str, torch.Tensor], args: Namespace) -> None:
    """Bring a BART's weights to the names of newer releases, in place.

    Raises:
        UserError: it is a variant that Hugging Face's BART is not.
    """
    for name in UNSUPPORTED:
        if getattr(args, name, None):
            raise UserError(
                f"{command}: --{name.replace('_', '-')} is no option of Hugging Face's BART: leave --to out"
            )
    drop_duplicates(state)
    split_projections(state)


def read_vocabulary(command: str, state: dict, args: Namespace, family: Family, beside: Path) -> Vocabulary:
    """The token ids of the embedding's rows.

    Raises:
        UserError: nothing says which tokens the dictionary's special symbols are.
    """
    text = getattr(args, "special_ids", "0 1 2 3" if family.arch.startswith("bart") else None)  # of official BARTs
    if text is None:
        raise UserError(
            f"{command}: neither the checkpoint nor {beside} says which tokens <s> <pad> </s> <unk> are: name the "
            "folder that import wrote with --imported"
        )
    if EMBEDDING not in state:
        raise UserError(f"{command}: the checkpoint has no {EMBEDDING}: name a complete one")
    try:
        return Vocabulary.parse(state[EMBEDDING].size(0) - text.split().count("-"), text)
    except ValueError:
        raise UserError(f"{command}: special_ids {text!r} are not ids of the embedding's tokens") from None


def check_tensors(
    command: str, checkpoint: str, state: dict[str, torch.Tensor], links: list[Link], tied: bool
) -> dict[str, LazyTensor]:
    """The tensors of a table.

    Raises:
        UserError: one is missing, is unknown, or has another shape than the options say.
    """
    shapes = {name: link.our_shape() for link in links for name in link.ours}
    known = {*shapes, *(name for link in links for name in link.copies), *((HEAD,) if tied else ())}
    details = [
        *(f"{name} is missing" for name in shapes if name not in state),
        *(f"{name} is unknown" for name in state if name not in known and not LEFT_OUT.match(name)),
        *(
            f"{name} is {in_words(tuple(state[name].shape))}, not {in_words(shape)}"
            for name, shape in shapes.items()
            if name in state and tuple(state[name].shape) != shape
        ),
    ]
    if details:
        more = f", and {len(details) - 3} more" if len(details) > 3 else ""
        raise UserError(
            f"{command}: {checkpoint} has not the weights that its options describe: {'; '.join(details[:3])}{more}. "
            "Name a checkpoint that import or fairseq-train wrote"
        )
    return {
        name: LazyTensor.of(state[name] if state[name].dtype in FORMATS else state[name].float()) for name in shapes
    }


def make_config(family: Family, args: Namespace, vocabulary: Vocabulary) -> dict[str, Any]:
    """config.json."""
    ids = dict(zip(SPECIALS, vocabulary.ids))
    found = {
        "model_type": family.model_types[0],
        **family.write(args),
        "vocab_size": vocabulary.size,
        "tie_word_embeddings": bool(args.share_decoder_input_output_embed),
        **{TOKEN_KEYS[symbol]: ids[symbol] for symbol in SPECIALS if symbol != "<unk>"},
    }
    if family.start is not None:
        found["decoder_start_token_id"] = ids[family.start]
    return found


def tokenizer_config(path: Path, vocabulary: Vocabulary, args: Namespace) -> dict[str, Any]:
    """tokenizer_config.json: which tokens are special.

    Args:
        path: tokenizer.json.

    Raises:
        UserError: it is none, or another model's.
    """
    tokenizer = read_json(path)
    try:
        words = tokenizer["model"]["vocab"]  # words with their ids, or in the order of their ids with a score
        by_id = (
            {index: word for word, index in words.items()}
            if isinstance(words, dict)
            else dict(enumerate(w for w, _ in words))
        )
        by_id.update({token["id"]: token["content"] for token in tokenizer.get("added_tokens") or ()})
        fits = max(by_id, default=-1) < vocabulary.size
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{path} is no tokenizer.json: copy it again from the folder that import wrote") from None
    if not fits:
        raise UserError(
            f"{path} has {max(by_id) + 1:,} tokens, the embedding only {vocabulary.size:,} rows: name the folder that "
            "import wrote for this model with --imported"
        )
    tokens = {
        key.replace("_id", ""): by_id[index]
        for key, index in zip(TOKEN_KEYS.values(), vocabulary.ids)
        if index is not None and index in by_id
    }
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": getattr(args, "max_positions", args.max_source_positions),
        **tokens,
    }


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file for people too."""
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
