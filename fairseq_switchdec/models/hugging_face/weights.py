"""The tensors of a Hugging Face folder: model.safetensors, pytorch_model.bin, or either one's shards."""

from __future__ import annotations

import importlib
import json
import pickle
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...compat import restricted_pickle
from ...errors import UserError
from .tensors import LazyTensor

#: Where weights are looked for, in this order: a file, and the list of the shards that stand for it.
FILES = ("model.safetensors", "pytorch_model.bin")
INDEX = ".index.json"

#: torch.load's own weights_only can be told nothing before 2.4, and be got round before 2.6 (CVE-2025-32434).
OWN_UNPICKLER = tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 6)

#: safetensors' names of the number formats that become float32.
FLOATS = {"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"}


def package(name: str, purpose: str) -> Any:
    """An optional package.

    Args:
        purpose: what it is needed for.

    Raises:
        UserError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(f"{purpose} needs the package {name} ({error}): pip install {name}") from None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object.

    Raises:
        UserError: it cannot be read, or holds something else.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError("no object in braces")
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"{path} cannot be read as JSON ({reason}): copy or download it again") from None
    return found


def open_folder(folder: Path) -> dict[str, LazyTensor]:
    """Name -> tensor; nothing is read but what the tensors are called and their shapes.

    Raises:
        UserError: files are missing, cannot be read, or hold something else than tensors.
    """
    for name in FILES:
        paths = [folder / name] if (folder / name).exists() else shards(folder / f"{name}{INDEX}")
        if paths:
            read = open_safetensors if name == FILES[0] else open_pickle
            return {key: tensor for path in paths for key, tensor in read(path).items()}
    raise UserError(f"{folder} has no weights: {' or '.join(FILES)} is needed, or shards and their {INDEX[1:]}")


def shards(index: Path) -> list[Path]:
    """The files that an index names; none where there is no index.

    Raises:
        UserError: one is missing.
    """
    if not index.exists():
        return []
    names = read_json(index).get("weight_map")
    if not (isinstance(names, dict) and names and all(isinstance(name, str) for name in names.values())):
        raise UserError(f"{index} has no weight_map that names files: copy or download it again")
    paths = [index.parent / name for name in sorted({*names.values()})]
    for path in paths:
        if path.parent != index.parent or not path.is_file():
            raise UserError(f"{index} names {path.name}, which is not there: copy or download it beside the index")
    return paths


def damaged(path: Path, reason: object) -> UserError:
    """The error about a file that cannot be read."""
    text = str(reason).strip().partition("\n")[0] or type(reason).__name__
    return UserError(f"{path} cannot be read ({text}): the file is incomplete or damaged, copy or download it again")


def open_safetensors(path: Path) -> dict[str, LazyTensor]:
    """The tensors of a safetensors file."""
    safetensors = package("safetensors", f"{path.name}")
    try:
        file = safetensors.safe_open(str(path), framework="pt")
        names = list(file.keys())
        slices = {name: file.get_slice(name) for name in names}
    except Exception as error:  # the package's own class, OSError, and what its Rust part raises
        raise damaged(path, error) from None
    return {
        name: LazyTensor(tuple(part.get_shape()), number_format(part), partial(file.get_tensor, name))
        for name, part in slices.items()
    }


def number_format(part: Any) -> torch.dtype:
    """What a tensor of a safetensors file becomes: float32, or a whole number, as some buffers are."""
    return torch.float32 if part.get_dtype() in FLOATS else torch.int64


def open_pickle(path: Path) -> dict[str, LazyTensor]:
    """The tensors of a file of ``torch.save``; nothing in it is run, and newer files are mapped, not read."""
    try:
        state = load_pickle(path)
    except Exception as error:  # bytes that are not what they should be raise nearly anything
        if isinstance(error, pickle.UnpicklingError) and "GLOBAL" in str(error):
            raise UserError(
                f"{path} holds something else than tensors, and was not loaded: it could run code hidden in the file. "
                "Name a folder with model.safetensors"
            ) from None
        raise damaged(path, error) from None
    if not isinstance(state, dict) or not all(isinstance(key, str) and plain(value) for key, value in state.items()):
        raise UserError(f"{path} holds something else than names and tensors: name the folder of a Hugging Face model")
    return {
        name: LazyTensor(tuple(value.shape), torch.float32 if value.is_floating_point() else value.dtype, value.detach)
        for name, value in state.items()
    }


def plain(value: Any) -> bool:
    """Whether it is a tensor of numbers one beside the other."""
    return isinstance(value, Tensor) and value.layout == torch.strided and not value.is_quantized


def load_pickle(path: Path) -> Any:
    """What a file of ``torch.save`` holds, if tensors and Python's plain types are all."""
    if OWN_UNPICKLER:
        with open(path, "rb") as file:
            return restricted_pickle.load(file, "cpu", {})
    # Said in full: so TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD in the environment cannot turn it off.
    return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
