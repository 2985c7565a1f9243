"""What makes two runs of ``fairseq-generate`` the same run: a report carries it, and merging compares it."""

from __future__ import annotations

import hashlib
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from fairseq.dataclass.configs import GenerationConfig
from torch import nn

from ..config import RUN_DECISIONS, SwitchOptions


def run_settings(model: nn.Module, options: SwitchOptions, generation: Any) -> dict[str, Any]:
    """Model, decisions and decoding of a run, in JSON's types.

    Args:
        generation: fairseq's generation options, or a namespace of some of them.
    """
    decisions, budget = options.switch_decisions, options.switch_budget
    return {
        "model": model_digest(model),
        "decisions": decisions if decisions in RUN_DECISIONS else file_or_word(decisions),
        "random_keep": options.switch_random_keep,
        "budget": file_or_word(budget),
        "seconds": file_or_word(getattr(options, "switch_seconds", None)),
        "precision": options.switch_precision,
        "seed": options.seed,
        "generation": generation_settings(generation),
        "source": source_settings(model, options),
    }


def source_settings(model: Any, options: Any) -> dict[str, Any]:
    """How the words of a source become the tokens that strategies count, for readers of a report.

    Args:
        options: the task's.

    Returns:
        ``limit``: words of a source that are read, of a longer one the first; None: all. ``first``, ``last``: whether
        a strategy may drop the first and the last word that is read.
    """
    first, last = model.encoder.droppable_ends
    around = 2 if model.openings.source else 1  # </s>, and <s> where texts begin with it
    limit = options.max_source_positions - around if options.truncate_source else None
    return {"limit": limit, "first": first, "last": last}


def generation_settings(generation: Any) -> dict[str, Any]:
    """The decoding options that differ from fairseq's defaults."""
    chosen = {item.name: getattr(generation, item.name, item.default) for item in fields(GenerationConfig)}
    return {
        item.name: chosen[item.name] if isinstance(chosen[item.name], (int, float)) else str(chosen[item.name])
        for item in fields(GenerationConfig)
        if chosen[item.name] != item.default and chosen[item.name] is not None
    }


def model_digest(model: nn.Module) -> str:
    """Of all weights as they run: another checkpoint has another, and so has the same one in another precision."""
    found = hashlib.blake2b(digest_size=16)
    for name, value in sorted(model.state_dict().items()):
        found.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        found.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def file_or_word(text: str | None) -> str | None:
    """What an option says: the digest of the file that it names, or its word."""
    return digest(Path(text).read_bytes()) if text is not None and Path(text).is_file() else text


def digest(data: bytes) -> str:
    """A file's content, short."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()
