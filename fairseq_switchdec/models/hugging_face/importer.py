"""Makes a checkpoint of ours from a model in Hugging Face's format; what may be wrong is found before the long work."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import UserError
from .config import Config
from .families import family_of_config
from .family import Family, Link
from .gguf_file import GgufFile
from .staging import check_free, reachable, staged
from .tensors import LazyTensor
from .tokenizer import TokenizerFile, folder_tokenizer, read_tokenizer
from .torch_files import save_torch
from .vocabulary import SPECIALS, Vocabulary
from .weights import open_folder, read_json

#: What is written, the checkpoint last.
FILES = ("dict.txt", "tokenizer.json", "model.pt")

#: The keys of config.json for the ids of `SPECIALS`.
TOKEN_KEYS = dict(zip(SPECIALS, ("bos_token_id", "pad_token_id", "eos_token_id", "unk_token_id")))

#: What asks a language model that was not trained for it for a summary (GPT-2's authors).
SUFFIX = "\nTL;DR:"


@dataclass(frozen=True)
class Options:
    """What a user may say beside the model; None = the default."""

    prompt_prefix: str | None = None
    prompt_suffix: str | None = None
    tokenizer: str | None = None
    max_target_positions: int | None = None

    def check(self, family: Family) -> None:
        """Refuse options that the model has no use for.

        Raises:
            UserError: naming the flag.
        """
        for name in ("prompt_prefix", "prompt_suffix", "max_target_positions"):
            if getattr(self, name) is not None and not family.decoder_only:
                raise UserError(
                    f"import: --{name.replace('_', '-')} is for decoder-only models: leave it out for a "
                    f"{family.model_types[0]}, and put what it shall read into the source text"
                )


@dataclass(frozen=True)
class Source:
    """An opened model: nothing of it is read yet but names, shapes and options."""

    path: str
    config: Config
    tensors: dict[str, LazyTensor]
    tokenizer: TokenizerFile

    @staticmethod
    def open(path: str, tokenizer: str | None) -> Source:
        """Open a folder or a GGUF file.

        Args:
            tokenizer: another tokenizer.json than the model's.

        Raises:
            UserError: something is missing or cannot be read.
        """
        given = Path(path)
        named = None if tokenizer is None else read_tokenizer(existing(Path(tokenizer), "--tokenizer"))
        if given.is_dir():
            config = Config(str(given / "config.json"), read_json(existing(given / "config.json", "import")))
            family_of_config(config)
            config.only("quantization_config", None)
            ends = [config.get(f"{name}_token_id") for name in ("bos", "eos", "pad")]
            found = named or folder_tokenizer(given, [index for index in ends if isinstance(index, int)])
            return Source(path, config, open_folder(given), found)
        gguf = GgufFile(existing(given, "import"))
        return Source(path, Config(path, gguf.config()), gguf.tensors(), named or gguf.tokens().tokenizer())


def existing(path: Path, flag: str) -> Path:
    """The path of a file that is there.

    Raises:
        UserError: it is not.
    """
    if not path.is_file():
        raise UserError(
            f"{flag}: there is no file {path}: name the folder of a Hugging Face model, or a GGUF file (nothing is "
            "downloaded)"
            if flag == "import"
            else f"{flag}: there is no file {path}: name a tokenizer.json"
        )
    return path


@reachable("import")
def import_model(source: str, out: str, options: Options = Options()) -> str:
    """Write OUT/model.pt, OUT/dict.txt and OUT/tokenizer.json.

    Args:
        source: a Hugging Face folder, or a GGUF file.
        out: a folder, made if it is not there.

    Returns:
        What was written, in a line.

    Raises:
        UserError: something is missing, damaged, not built or cannot be written; then nothing is.
    """
    check_free("import", Path(out), FILES)
    model = Source.open(source, options.tokenizer)
    family = family_of_config(model.config)
    options.check(family)
    read = family.read(model.config)
    layers = max(read.get("encoder_layers", 0), read["decoder_layers"])
    if layers > len(model.tensors):
        raise UserError(
            f"{model.config.path}: a model of {layers:,} layers, and only {len(model.tensors):,} tensors are there: is "
            "the file damaged, or a shard missing?"
        )
    vocabulary = read_vocabulary(model, model.config.size("vocab_size"))
    args = make_args(family, read, vocabulary)
    if family.decoder_only:
        add_prompt(args, options, model.tokenizer, vocabulary)
    links = family.links(args, vocabulary.rows)
    tied = args.share_decoder_input_output_embed
    tensors = check_tensors(source, family.strip(model.tensors, tied), links, family, vocabulary)
    state = dict(pair for link in links for pair in link.to_ours(tensors, vocabulary))
    stored = {*state.values()}
    with staged("import", Path(out), FILES, sum(tensor.size for tensor in stored)) as paths:
        paths["dict.txt"].write_text(vocabulary.dictionary(), encoding="utf-8")
        paths["tokenizer.json"].write_text(model.tokenizer.text, encoding="utf-8")
        save_torch(checkpoint(args, state), paths["model.pt"])
    numbers = sum(tensor.count for tensor in stored)
    return f"wrote {out}: {args.arch}, {len(state)} tensors, {numbers:,} weights, {vocabulary.rows:,} symbols"


def read_vocabulary(model: Source, size: int) -> Vocabulary:
    """The dictionary of a model.

    Raises:
        UserError: no token ends a text, or the tokenizer is another model's.
    """
    model.tokenizer.check_fits(size)
    claims = {symbol: model.config.token(key, size) for symbol, key in TOKEN_KEYS.items()}
    if claims["</s>"] is None:
        raise UserError(f"{model.config.path} names no eos_token_id, with which a text ends: add it")
    if model.config.get("unk_token_id") is None:
        claims["<unk>"] = model.tokenizer.unknown()
    return Vocabulary.of(size, claims)


def make_args(family: Family, read: dict[str, Any], vocabulary: Vocabulary) -> Namespace:
    """The options of the checkpoint, but for the prompt."""
    return Namespace(**{
        "arch": family.arch,
        "_name": family.arch,
        "task": "switchable_task",
        "source_lang": "source",
        "target_lang": "target",
        "absent_symbols": " ".join(vocabulary.absent),
        "special_ids": vocabulary.text,
        **read,
    })  # fmt: skip


def add_prompt(args: Namespace, options: Options, tokenizer: TokenizerFile, vocabulary: Vocabulary) -> None:
    """The options about prompts and lengths.

    Raises:
        UserError: they leave no room for the input.
    """
    longest = args.max_positions
    targets = options.max_target_positions
    targets = min(256, longest // 4) if targets is None else targets
    if not 1 <= targets < longest:
        raise UserError(f"import: --max-target-positions {targets} is not in 1 to {longest - 1}, the model's positions")

    def symbols(text: str, flag: str) -> list[str]:
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise UserError(f"import: {flag} is no UTF-8 text: write it in that") from None
        return [vocabulary.symbol(index) for index in tokenizer.ids(text)]

    bos = vocabulary.ids[0] if vocabulary.ids[0] is not None else vocabulary.ids[2]
    prefix = [vocabulary.symbol(bos)] if bos is not None and tokenizer.adds_first(bos) else []
    if options.prompt_prefix is not None:
        prefix = symbols(options.prompt_prefix, "--prompt-prefix")
    suffix = (SUFFIX if args.arch == "switchable_gpt2" else "") if (given := options.prompt_suffix) is None else given
    suffix = symbols(suffix, "--prompt-suffix")
    room = longest - targets
    if len(prefix) + len(suffix) >= room:
        raise UserError(
            f"import: --prompt-prefix and --prompt-suffix are {len(prefix)} + {len(suffix)} tokens, and the model has "
            f"{room} positions for them and the input ({longest} less {targets} of --max-target-positions): shorten"
        )
    vars(args).update(
        max_source_positions=room,
        max_target_positions=targets,
        prompt_prefix=" ".join(prefix),
        prompt_suffix=" ".join(suffix),
    )


def check_tensors(
    source: str, tensors: dict[str, LazyTensor], links: list[Link], family: Family, vocabulary: Vocabulary
) -> dict[str, LazyTensor]:
    """The tensors of a table.

    Raises:
        UserError: one is missing, is unknown, or has another shape than config.json says.
    """
    shapes = {name: link.their_shape(vocabulary) for link in links for name in link.theirs}
    zeros = {name: shape(vocabulary.size) for name, shape in family.zeros.items()}
    for name in zeros.keys() & tensors.keys():
        if tensors[name].read().any():
            raise UserError(f"{source}: {name} is not zero, which is not built: import another model")
    details = [
        *(f"{name} is missing" for name in shapes if name not in tensors),
        *(f"{name} is unknown" for name in tensors if name not in shapes and name not in zeros),
        *different(tensors, shapes),
    ]
    if details:
        more = f", and {len(details) - 3} more" if len(details) > 3 else ""
        raise UserError(
            f"{source}: the weights are not those that its options describe: {'; '.join(details[:3])}{more}. Copy or "
            "download all files of the model again; a model with further parts cannot be imported"
        )
    return {name: tensors[name].checked(partial(finite, f"{source}: {name}")) for name in shapes}


def finite(name: str, values: Tensor) -> None:
    """Refuse a tensor with values that are no numbers.

    Raises:
        UserError: naming it.
    """
    if not bool(values.isfinite().all()):
        raise UserError(f"{name} holds values that are no numbers (NaN or infinity): copy or download the model again")


def different(tensors: dict[str, LazyTensor], shapes: dict[str, tuple[int, ...]]) -> Iterable[str]:
    """What is wrong with the tensors that are there."""
    for name, shape in shapes.items():
        if name in tensors and tensors[name].shape != shape:
            yield f"{name} is {in_words(tensors[name].shape)}, not {in_words(shape)}"
        elif name in tensors and tensors[name].dtype != torch.float32:
            yield f"{name} holds whole numbers"


def in_words(shape: tuple[int, ...]) -> str:
    """A shape, readable."""
    return "x".join(map(str, shape)) or "a scalar"


def checkpoint(args: Namespace, state: dict[str, LazyTensor]) -> dict[str, Any]:
    """The content of model.pt: what fairseq reads."""
    history = {
        "criterion_name": "CrossEntropyCriterion", "optimizer_name": "FairseqAdam", "lr_scheduler_state": {},
        "num_updates": 0,
    }  # fmt: skip
    return {
        "args": args,
        "cfg": None,
        "model": state,
        "optimizer_history": [history],  # fairseq reads its last entry
        "extra_state": {"train_iterator": {"epoch": 1, "iterations_in_epoch": 0}},
        "last_optimizer_state": None,
        "task_state": {},
    }
