"""A model that is built for a checkpoint takes its tensors: none are made to be overwritten, none are copied."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

#: Whether this torch's modules can take tensors: since 2.1.
CAN_ASSIGN = "assign" in inspect.signature(nn.Module.load_state_dict).parameters
#: Elements of a tensor that is worth it.
LARGE = 1 << 16


class _Unallocated(TorchFunctionMode):
    """Large parameters, which modules begin as `torch.empty`, get no memory, unless it was said on which device."""

    #: Above 0 in `allocated`.
    suspended: ClassVar[int] = 0

    def __torch_function__(
        self, func: Callable, types: Iterable[type], args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.empty and kwargs.get("device") is None and not self.suspended:
            made: Tensor = func(*args, **{**kwargs, "device": "meta"})
            if made.numel() >= LARGE:
                return made
        first, name = args[0] if args else kwargs.get("tensor"), getattr(func, "__name__", "")
        if isinstance(first, Tensor) and first.is_meta and (func is Tensor.cpu or name == "normal_"):
            return first  # where fairseq draws weights, and drawing, for which torch loads its compiler
        return func(*args, **kwargs)


def unallocated() -> AbstractContextManager:
    """Models built here have shapes; their numbers are those that `take` gives them."""
    return _Unallocated() if CAN_ASSIGN else nullcontext()


@contextmanager
def allocated() -> Iterator[None]:
    """What is built here has numbers, also in `unallocated`: a checkpoint need not have it."""
    _Unallocated.suspended += 1
    try:
        yield
    finally:
        _Unallocated.suspended -= 1


def take(module: nn.Module, state: dict[str, Tensor], strict: bool) -> Any:
    """Load a state without copying it; tensors of another dtype than the module's are converted, shared ones once."""
    own, state, converted = module.state_dict(), dict(state), {}
    for name, value in state.items():
        dtype = own[name].dtype if name in own else value.dtype
        key = (value.data_ptr(), value.shape, value.stride(), value.dtype, dtype)
        state[name] = converted.setdefault(key, value.to(dtype)) if value.dtype != dtype else value
    trained = {name: parameter.requires_grad for name, parameter in module.named_parameters()}
    loaded = nn.Module.load_state_dict(module, state, strict, assign=True)
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(trained.get(name, True))  # which torch 2.1 forgets
    return loaded
