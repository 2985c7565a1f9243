"""Writes a PyTorch file and a safetensors file tensor by tensor, with no more in memory than the largest one."""

from __future__ import annotations

import io
import json
import pickle
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch
from tqdm import tqdm

from .tensors import LazyTensor

#: What ``torch.save`` names a storage by.
STORAGES = {torch.float32: torch.FloatStorage, torch.float16: torch.HalfStorage, torch.bfloat16: torch.BFloat16Storage}

#: Number formats as safetensors names them.
FORMATS = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}

#: Storages begin at multiples of it, as ``torch.save`` lays them out: so that ``torch.load(mmap=True)`` can map them.
ALIGNMENT = 64


class _Storage(NamedTuple):
    key: str
    tensor: LazyTensor


class _Pickler(pickle.Pickler):
    """What `torch.save` pickles for a tensor, for a `LazyTensor`; one that occurs twice is stored once."""

    def __init__(self, file: io.BytesIO):
        super().__init__(file, protocol=2)
        self.tensors: list[LazyTensor] = []

    def reducer_override(self, thing: Any) -> Any:
        if not isinstance(thing, LazyTensor):
            return NotImplemented
        storage = _Storage(str(len(self.tensors)), thing)
        self.tensors.append(thing)
        strides = torch.empty(thing.shape, device="meta").stride()
        return torch._utils._rebuild_tensor_v2, (storage, 0, thing.shape, strides, False, OrderedDict())

    def persistent_id(self, thing: Any) -> Any:
        if not isinstance(thing, _Storage):
            return None
        return "storage", STORAGES[thing.tensor.dtype], thing.key, "cpu", thing.tensor.count


def save_torch(content: Any, path: Path) -> None:
    """As ``torch.save(content, path)``, where content may hold instances of `LazyTensor`; the same bytes every time.

    Raises:
        OSError: the disk is full, for example.
    """
    pickled = io.BytesIO()
    pickler = _Pickler(pickled)
    pickler.dump(content)
    with open(path, "wb") as file, zipfile.ZipFile(file, "w") as archive:
        _add(archive, file, "data.pkl", pickled.getvalue())
        _add(archive, file, "byteorder", sys.byteorder.encode())
        for index, tensor in enumerate(progress(pickler.tensors)):
            _add(archive, file, f"data/{index}", tensor.bytes())
        _add(archive, file, "version", b"3\n")


def _add(archive: zipfile.ZipFile, file: BinaryIO, name: str, data: bytes | memoryview) -> None:
    """Write a part of the archive, at a multiple of `ALIGNMENT`."""
    entry = zipfile.ZipInfo(f"archive/{name}")
    entry.file_size = len(data)
    large = entry.file_size * 1.05 > zipfile.ZIP64_LIMIT  # zipfile's own rule for a longer header
    header = 30 + len(entry.filename) + 20 * large
    padding = -(file.tell() + header + 4) % ALIGNMENT
    entry.extra = b"FB" + padding.to_bytes(2, "little") + b"Z" * padding  # a field that readers skip, as torch names it
    with archive.open(entry, "w") as part:
        part.write(data)


def save_safetensors(tensors: dict[str, LazyTensor], path: Path) -> None:
    """Write a safetensors file: 8 bytes with the length of a JSON header, the header, and the tensors' bytes.

    Raises:
        OSError: the disk is full, for example.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}  # transformers asks for it
    end = 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.size
        header[name] = {"dtype": FORMATS[tensor.dtype], "shape": tensor.shape, "data_offsets": (start, end)}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # so that the tensors begin at a multiple of 8
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in progress(tensors.values()):
            file.write(tensor.bytes())


def progress(tensors: Iterable[LazyTensor]) -> Iterable[LazyTensor]:
    """The tensors, with a bar on a terminal's stderr."""
    return tqdm(tensors, desc="converting", unit=" tensors", leave=False, disable=None)
