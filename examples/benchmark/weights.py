"""One set of weights for all systems: a BART's are random, a plain checkpoint and other libraries' own files; a
language model's are those of a GGUF file, which is imported for ours and, for llama.cpp, also stored in 8 bits.

    python -m examples.benchmark.weights SETUP      (SETUP: `setup.Setup` as JSON; `processes.prepare` calls this)

SETUP's system is a list of the lanes that are to run, joined by commas.

A process of its own, so that no worker's memory has held two models.
"""

from __future__ import annotations

import importlib.util
import math
import shutil
import sys
import tempfile
import traceback
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from fairseq.data import Dictionary
from fairseq.models import ARCH_CONFIG_REGISTRY, ARCH_MODEL_REGISTRY
from torch import Tensor

from fairseq_switchdec.errors import UserError
from fairseq_switchdec.models.bart.plain import DUPLICATES
from fairseq_switchdec.models.hugging_face.gguf_file import GgufFile
from fairseq_switchdec.models.hugging_face.importer import Options, import_model

from ..pretrained import download
from .setup import POSITIONS, SPECIALS, Lane, Setup, Shape
from .systems.exported import EXPORTED, export, folder_of

#: Standard deviation of a matrix's outputs, and of the logits. BART's initial 0.02 gives attention that looks
#: everywhere alike and logits that only repeat the last word.
GAIN, LOGITS = 1.5, 3.0


def dictionary(vocabulary: int) -> Dictionary:
    """Word number n is called ``wN``."""
    words = Dictionary()
    for number in range(SPECIALS, vocabulary):
        words.add_symbol(f"w{number}")
    return words


def arguments(shape: Shape, arch: str) -> Namespace:
    """The options of a model: ``bart_large``, or ``switchable_bart``, of any size."""
    args = Namespace(task="translation", arch=arch, source_lang="source", target_lang="target", dropout=0.1)
    args.max_source_positions = args.max_target_positions = POSITIONS
    for side in ("encoder", "decoder"):
        sizes = {"layers": shape.layers, "embed_dim": shape.dim, "ffn_embed_dim": shape.ffn_dim}
        for name, size in {**sizes, "attention_heads": shape.heads}.items():
            setattr(args, f"{side}_{name}", size)
    ARCH_CONFIG_REGISTRY[arch](args)
    return args


def build(setup: Setup, arch: str) -> Any:
    """An untrained model."""
    words = dictionary(setup.shape.vocabulary)
    task = SimpleNamespace(source_dictionary=words, target_dictionary=words, cfg=Namespace())
    return ARCH_MODEL_REGISTRY[arch].build_model(arguments(setup.shape, arch), task)


def randomize(weights: dict[str, Tensor], seed: int) -> None:
    """Fill everything, biases and norms too, so that a weight put in another's place shows."""
    generator = torch.Generator().manual_seed(seed)
    for name, weight in weights.items():
        if name.endswith("version"):
            continue
        noise = torch.randn(weight.shape, generator=generator)
        if weight.dim() == 1:
            weight.copy_(noise * 0.1 + float(name.endswith("norm.weight") or name.endswith("embedding.weight")))
        else:
            embeds = "embed_tokens" in name or "embed_positions" in name or "output_projection" in name
            weight.copy_(noise * ((LOGITS if embeds else GAIN) / math.sqrt(weight.size(1))))
    shared = weights["encoder.embed_tokens.weight"]
    for name in ("decoder.embed_tokens.weight", "decoder.output_projection.weight"):
        weights[name] = shared


def convert(setup: Setup, weights: dict[str, Tensor]) -> None:
    """CTranslate2's files, by its own converter for fairseq's checkpoints."""
    from ctranslate2.converters import FairseqConverter

    folder = Path(setup.folder)
    checkpoint = folder / "checkpoint.pt"
    torch.save({"args": arguments(setup.shape, "bart_large"), "model": weights}, checkpoint)
    if hasattr(torch.serialization, "add_safe_globals"):
        torch.serialization.add_safe_globals([Namespace])
    FairseqConverter(str(checkpoint), str(folder)).convert(str(setup.converted))
    checkpoint.unlink()


def read_shape(gguf: Path) -> Shape:
    """The sizes of a LLaMA.

    Raises:
        UserError: the file is not there, or of another architecture.
    """
    if not gguf.is_file():
        raise UserError(f"--gguf {gguf} is no file")
    config = GgufFile(gguf).config()
    if config["model_type"] != "llama":
        raise UserError(f"--gguf {gguf} is a {config['model_type']}, the benchmark is LLaMA's")
    return Shape(
        layers=config["num_hidden_layers"],
        dim=config["hidden_size"],
        ffn_dim=config["intermediate_size"],
        heads=config["num_attention_heads"],
        vocabulary=config["vocab_size"],
        key_value_heads=config["num_key_value_heads"],
    )


def make_language_model(setup: Setup, lanes: list[Lane]) -> None:
    """Imports the GGUF file, after it is downloaded if it is not there."""
    gguf = Path(str(setup.gguf))
    if not gguf.exists():
        gguf.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=gguf.parent) as folder:
            download.extract(download.fetch(Path(folder)), gguf)
    print(import_model(str(gguf), str(setup.imported), Options(prompt_prefix="", prompt_suffix="")))
    if any(lane.system == "llama.cpp" for lane in lanes) and importlib.util.find_spec("llama_cpp") is not None:
        requantize(gguf, setup.requantized)


def requantize(gguf: Path, out: Path) -> None:
    """Store every matrix in 8 bits, as llama.cpp does it."""
    import llama_cpp

    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype, parameters.allow_requantize = llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0, True
    if llama_cpp.llama_model_quantize(str(gguf).encode(), str(out).encode(), parameters):
        print(f"llama.cpp could not store {gguf} in 8 bits")  # its worker will be left out


def main() -> None:
    """Makes the files; other libraries' where they are asked for and installed."""
    setup = Setup.from_json(sys.argv[1])
    lanes = [Lane.parse(lane) for lane in setup.system.split(",")]
    if setup.gguf:
        make_language_model(setup, lanes)
        return
    make_bart(setup, lanes)
    for lane in lanes:
        if lane.system in EXPORTED:
            attempt(partial(export, setup, lane), folder_of(setup, lane.system, lane.precision))


def make_bart(setup: Setup, lanes: list[Lane]) -> None:
    """Random weights, and CTranslate2's form of them."""
    weights = build(setup, "bart_large").state_dict()
    weights = {name: weight for name, weight in weights.items() if not DUPLICATES.search(name)}
    randomize(weights, setup.seed)
    torch.save(weights, setup.weights)
    for side in ("source", "target"):
        dictionary(setup.shape.vocabulary).save(str(Path(setup.folder) / f"dict.{side}.txt"))
    if any(lane.system.startswith("ct2") for lane in lanes) and importlib.util.find_spec("ctranslate2") is not None:
        attempt(partial(convert, setup, weights), setup.converted)


def attempt(make: Callable[[], None], folder: Path) -> None:
    """Make a folder, or leave none."""
    try:
        make()
    except Exception:  # its workers will be left out
        traceback.print_exc()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
