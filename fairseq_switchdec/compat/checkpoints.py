"""Loads fairseq's checkpoints without executing anything they hold, on every torch.

torch >= 2.6 loads with ``weights_only=True`` by default and so refuses a fairseq checkpoint, for the ``Namespace`` in
it; fairseq runs on older releases by unpickling whatever the file says. Here fairseq's two calls of ``torch.load`` (of
a file, and of what another process of the same training sends) admit what fairseq 0.12.2 saves, listed below, and
nothing else. ``torch.load`` itself is left as it is for everyone else.
"""

from __future__ import annotations

import argparse
import collections
import functools
import io
import re
import typing
from collections.abc import Callable
from types import ModuleType

from fairseq_switchdec.compat.imports import ImportHooks, ModuleView
from fairseq_switchdec.errors import UserError


def register(hooks: ImportHooks) -> None:
    """Mend ``torch.load`` as two modules of fairseq see it."""
    hooks.after("fairseq.checkpoint_utils", functools.partial(_replace_load, load=load_checkpoint))
    hooks.after("fairseq.distributed.utils", functools.partial(_replace_load, load=_restricted_load))


def _replace_load(module: ModuleType, load: Callable) -> None:
    module.torch = ModuleView(module.torch, load=load)


def load_checkpoint(file: io.BufferedReader, map_location=None) -> dict:
    """Read a fairseq checkpoint, a stranger's too: nothing in it is executed.

    Args:
        file: The checkpoint, opened for reading in binary mode.
        map_location: As in ``torch.load``.

    Raises:
        UserError: The file is damaged, is no checkpoint of fairseq's, or holds objects of a class that fairseq does not
            save.
    """
    path = getattr(file, "name", "checkpoint")
    try:
        state = _restricted_load(file, map_location)
    except MemoryError:
        raise  # says nothing about the file
    except Exception as error:  # bytes that are not what they should be raise nearly anything
        refused = re.search(r"GLOBAL (\S+)", str(error))
        if refused:
            raise UserError(
                f"{path} holds {refused.group(1)}, which no fairseq 0.12.2 checkpoint does. It was not loaded: "
                "such an object could run code hidden in the file. If you trust the file, load it where it was made "
                "and save it with nothing in it but tensors, numbers, strings, lists, dicts and argparse.Namespace."
            ) from error
        # torch puts its advice first, to load without weights_only, and what it met last.
        reason = (str(error).split("WeightsUnpickler error:")[-1].strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"{path} cannot be read as a checkpoint ({reason}). The file is incomplete, damaged or no PyTorch file: "
            "copy or download it again, or name another one (fairseq-train keeps earlier ones beside the last)."
        ) from error
    if not (isinstance(state, dict) and "model" in state and ("optimizer_history" in state or "best_loss" in state)):
        raise UserError(
            f"{path} is a PyTorch file but not a fairseq checkpoint, which is a dict with the keys 'model', 'args' or "
            "'cfg', and 'optimizer_history'. Name a file that fairseq-train wrote, or a released fairseq model."
        )
    return state


def _restricted_load(file: io.IOBase, map_location=None):
    import torch

    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 6):
        # Before 2.6 weights_only cannot be told what to admit (2.0 to 2.3), or can be got round (CVE-2025-32434).
        from fairseq_switchdec.compat.restricted_pickle import load

        return load(file, map_location, admitted())
    with torch.serialization.safe_globals([(thing, name) for name, thing in admitted().items()]):
        # Said in full: so TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD in the environment cannot turn it off.
        return torch.load(file, map_location=map_location, weights_only=True)


@functools.cache
def admitted() -> dict[str, object]:
    """What fairseq 0.12.2 pickles besides tensors and Python's plain types: qualified name in the file -> object."""
    import numpy
    import omegaconf
    from fairseq.distributed.utils import _TensorPlaceholder
    from omegaconf.base import ContainerMetadata, Metadata

    by_own_name = [
        argparse.Namespace,  # args, or cfg.model, cfg.task of models and tasks with add_args (BART)
        # cfg, once it is loaded: saved again by scripts that trim checkpoints, sent to the other processes on resume
        *(omegaconf.DictConfig, omegaconf.ListConfig, omegaconf.AnyNode, ContainerMetadata, Metadata),
        *(collections.defaultdict, dict, list, int),
        _TensorPlaceholder,  # stands for a tensor that is sent to the other processes apart
        # counts and scores of validation, such as BLEU's n-grams, in the meters
        *(numpy.ndarray, numpy.dtype, *(type(numpy.dtype(code)) for code in ("f4", "f8", "i4", "i8"))),
    ]
    names = {f"{thing.__module__}.{thing.__qualname__}": thing for thing in by_own_name}
    names["typing.Any"] = typing.Any  # no class, and so without a __qualname__, before Python 3.11
    for function in (numpy.empty(0).__reduce__()[0], numpy.float64().__reduce__()[0]):
        for package in ("numpy.core", "numpy._core"):  # the same functions before and since numpy 2
            names[f"{package}.multiarray.{function.__name__}"] = function
    return names
