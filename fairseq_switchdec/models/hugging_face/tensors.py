"""Tensors that are read when they are written: what moves a model through less memory than it needs."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class LazyTensor:
    """A tensor's shape and number format, known at once, and its values, read when they are asked for.

    Attributes:
        read: returns the values; of this shape and format.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    read: Callable[[], Tensor]

    @staticmethod
    def of(tensor: Tensor) -> LazyTensor:
        """A tensor that is there already."""
        return LazyTensor(tuple(tensor.shape), tensor.dtype, lambda: tensor)

    @property
    def count(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)

    @property
    def size(self) -> int:
        """Its bytes."""
        return self.count * torch.empty(0, dtype=self.dtype).element_size()

    def bytes(self) -> memoryview:
        """The values as they lie in a file, row by row."""
        return self.read().contiguous().view(-1).view(torch.uint8).numpy().data

    def map(self, function: Callable[[Tensor], Tensor], shape: tuple[int, ...], dtype: torch.dtype) -> LazyTensor:
        """What a function will make of it."""
        return LazyTensor(shape, dtype, lambda: function(self.read()).to(dtype))

    def checked(self, check: Callable[[Tensor], None]) -> LazyTensor:
        """The same, which ``check`` sees when it is read."""

        def read() -> Tensor:
            values = self.read()
            check(values)
            return values

        return LazyTensor(self.shape, self.dtype, read)


def concatenate(tensors: list[LazyTensor]) -> LazyTensor:
    """Tensors one below the other."""
    if len(tensors) == 1:
        return tensors[0]
    rows = sum(tensor.shape[0] for tensor in tensors)
    return LazyTensor(
        (rows, *tensors[0].shape[1:]), tensors[0].dtype, lambda: torch.cat([tensor.read() for tensor in tensors])
    )


def split(tensor: LazyTensor, parts: int) -> Iterator[LazyTensor]:
    """Equal numbers of rows."""
    if parts == 1:
        yield tensor
        return
    rows = tensor.shape[0] // parts
    for start in range(0, parts * rows, rows):
        some = operator.itemgetter(slice(start, start + rows))
        yield tensor.map(some, (rows, *tensor.shape[1:]), tensor.dtype)


def transpose(tensor: LazyTensor) -> LazyTensor:
    """Rows for columns."""
    return tensor.map(Tensor.t, tensor.shape[::-1], tensor.dtype)
