"""Loads fairseq's checkpoints without executing anything they hold, on every torch.

torch >= 2.6 loads with ``weights_only=True`` by default and so refuses a fairseq checkpoint, for the ``Namespace`` in
it; fairseq runs on older releases by unpickling whatever the file says. Here fairseq's two calls of ``torch.load`` (of
a file, and of what another process of the same training sends) admit what fairseq 0.12.2 saves, listed below, and
nothing else. ``torch.load`` itself is left as it is for everyone else.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import functools
import io
import re
import sys
import typing
import zipfile
from collections.abc import Callable, Iterator
from types import ModuleType

from fairseq_switchdec.compat.imports import ImportHooks, ModuleView
from fairseq_switchdec.errors import UserError

#: fairseq's commands that load a model to write texts with it.
GENERATING = ("fairseq_cli.generate", "fairseq_cli.interactive")
#: Whether weights are read from the file as they are used, see `to_be_run`.
_mapped = False


def register(hooks: ImportHooks) -> None:
    """Mend ``torch.load`` as two modules of fairseq see it, and what a file that cannot be opened is met with."""
    hooks.after("fairseq.checkpoint_utils", functools.partial(_replace_load, load=load_checkpoint))
    hooks.after("fairseq.checkpoint_utils", _map_files)
    hooks.after("fairseq.checkpoint_utils", _name_files)
    hooks.after("fairseq.checkpoint_utils", _say_mistakes)
    hooks.after("fairseq.distributed.utils", functools.partial(_replace_load, load=_restricted_load))


def _replace_load(module: ModuleType, load: Callable) -> None:
    module.torch = ModuleView(module.torch, load=load)


@contextlib.contextmanager
def to_be_run() -> Iterator[None]:
    """Checkpoints loaded here are mapped into memory instead of copied there, where torch can.

    For commands that end before anybody writes the file anew: weights that were not used by then would be lost.
    """
    global _mapped
    before, _mapped = _mapped, True
    try:
        yield
    finally:
        _mapped = before


def _map_files(checkpoint_utils: ModuleType) -> None:
    """What a command that generates has loaded is packed at once, which lets the file go; other callers get copies."""
    stock = checkpoint_utils.load_model_ensemble

    @functools.wraps(stock)
    def load_model_ensemble(*args, **kwargs):
        # The command is imported before these fixes where it is what the interpreter was started for.
        maps = sys._getframe(1).f_globals.get("__name__") in GENERATING
        with to_be_run() if maps else contextlib.nullcontext():
            return stock(*args, **kwargs)

    checkpoint_utils.load_model_ensemble = load_model_ensemble


def _name_files(checkpoint_utils: ModuleType) -> None:
    """A checkpoint, or a dictionary it needs, that cannot be opened: a message in place of a traceback."""

    def named(function: Callable) -> Callable:
        @functools.wraps(function)
        def call(*args, **kwargs):
            try:
                return function(*args, **kwargs)
            except OSError as error:
                problem = f"{error.filename}: {error.strerror}" if error.filename else str(error)
                raise UserError(f"{problem}. Name the checkpoint, and the folder of its dictionaries") from error

        return call

    for name in ("load_checkpoint_to_cpu", "load_model_ensemble_and_task"):
        setattr(checkpoint_utils, name, named(getattr(checkpoint_utils, name)))


def _say_mistakes(checkpoint_utils: ModuleType) -> None:
    """What fairseq-train finds wrong about the checkpoint to start from: its message without the traceback."""
    stock = checkpoint_utils.load_checkpoint

    @functools.wraps(stock)
    def load_checkpoint(*args, **kwargs):
        try:
            return stock(*args, **kwargs)
        except (ValueError, AssertionError) as error:
            message = str(error).partition(": {")[0]  # all options follow
            if message.startswith(("--finetune-from-model", "Criterion does not match", "Optimizer does not match")):
                raise UserError(message) from error
            raise

    checkpoint_utils.load_checkpoint = load_checkpoint


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
        _check_sums(file)
        state = _restricted_load(path if _mapped and _can_map(path) else file, map_location)
    except Exception as error:  # bytes that are not what they should be raise nearly anything
        refused = re.search(r"GLOBAL (\S+)", str(error))
        if refused:
            raise UserError(
                f"{path} holds {refused.group(1)}, which no fairseq 0.12.2 checkpoint does. It was not loaded: "
                "such an object could run code hidden in the file. If you trust the file, load it where it was made "
                "and save it with nothing in it but tensors, numbers, strings, lists, dicts and argparse.Namespace."
            ) from error
        raise UserError(
            f"{path} cannot be read as a checkpoint ({_reason(error)}). The file is incomplete, damaged or no PyTorch "
            "file: copy or download it again, or name another one (fairseq-train keeps earlier ones beside the last)."
        ) from error
    if not (isinstance(state, dict) and "model" in state and ("optimizer_history" in state or "best_loss" in state)):
        raise UserError(
            f"{path} is a PyTorch file but not a fairseq checkpoint, which is a dict with the keys 'model', 'args' or "
            "'cfg', and 'optimizer_history'. Name a file that fairseq-train wrote, or a released fairseq model."
        )
    return state


def _check_sums(file: io.BufferedReader) -> None:
    """torch does not look at the checksums of its zip files, so that weights with a flipped bit would load.

    The format before zip, in which the BART models were released, has none.

    Raises:
        zipfile.BadZipFile: A part of the file is not what was written.
    """
    if zipfile.is_zipfile(file):
        damaged = zipfile.ZipFile(file).testzip()
        if damaged is not None:
            raise zipfile.BadZipFile(f"wrong checksum of {damaged}")
    file.seek(0)


def _reason(error: Exception) -> str:
    """What torch or Python met, in a few words."""
    if isinstance(error, (EOFError, OSError)):  # the latter where a place in the file is looked for before its start
        return "it ends too early"
    if isinstance(error, MemoryError):  # a flipped bit can make a length of it that no file has
        return "it asks for more memory than there is"
    # torch puts its advice first, to load without weights_only, and what it met last, followed by hints for itself.
    text = str(error).split("WeightsUnpickler error:")[-1].strip() or type(error).__name__
    return text.splitlines()[0].partition(". ")[0].rstrip(".")


def _release() -> tuple[int, ...]:
    import torch

    return tuple(int(part) for part in torch.__version__.split(".")[:2])


def _can_map(path: str) -> bool:
    """Whether the weights in a file need not be read all at once."""
    return _release() >= (2, 6) and zipfile.is_zipfile(path)


def _restricted_load(file: io.IOBase | str, map_location=None):
    """``torch.load``; of a file that is named, the weights are mapped."""
    import torch

    if _release() < (2, 6):
        # Before 2.6 weights_only cannot be told what to admit (2.0 to 2.3), or can be got round (CVE-2025-32434).
        from fairseq_switchdec.compat.restricted_pickle import load

        return load(file, map_location, admitted())
    with torch.serialization.safe_globals([(thing, name) for name, thing in admitted().items()]):
        # Said in full: so TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD in the environment cannot turn it off.
        return torch.load(file, map_location=map_location, weights_only=True, mmap=isinstance(file, str))


def read_options(path: str):
    """The options that a checkpoint was saved with, a Namespace, without reading its weights where torch can.

    Raises:
        UserError: As in `load_checkpoint`.
    """
    try:
        if _can_map(path):
            state = _restricted_load(path, "cpu")
        else:
            with open(path, "rb") as file:
                state = _restricted_load(file, "cpu")
        args = state.get("args")
        return state["cfg"]["model"] if args is None else args
    except Exception:  # what is wrong with the file, in words
        with open(path, "rb") as file:
            load_checkpoint(file, "cpu")
        raise


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
