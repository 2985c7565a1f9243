"""The longest output that a search allows, where fairseq ends in an assertion for a shortest one above it."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..errors import UserError


def check_lengths(args: Any, longest: int) -> None:
    """Refuse options that no source can make good, before anything is run.

    Args:
        args: fairseq's generation options, or a namespace of some of them.
        longest: tokens that the model can write.

    Raises:
        UserError: naming them.
    """
    shortest, most = getattr(args, "min_len", 1), getattr(args, "max_len_b", 200)
    relative = getattr(args, "max_len_a", 0) or getattr(args, "match_source_len", False)
    allowed = longest if relative else min(most, longest)
    if shortest > allowed:
        raise UserError(
            f"--min-len {shortest} is more than the {allowed} tokens that --max-len-b and the model allow: lower it, "
            "or raise --max-len-b"
        )


def check_batch(generator: Any, src_tokens: Tensor) -> None:
    """Refuse a batch whose sources, int64 (B, S), allow fewer tokens than ``--min-len``.

    Args:
        generator: fairseq's.

    Raises:
        UserError: saying how many they allow.
    """
    if not hasattr(generator, "min_len"):  # one that scores references
        return
    allowed = min(int(generator.max_len_a * src_tokens.size(1) + generator.max_len_b), generator.max_len - 1)
    if generator.match_source_len:
        allowed = int((src_tokens.ne(generator.eos) & src_tokens.ne(generator.pad)).sum(1).max())
    if generator.min_len > allowed:
        raise UserError(
            f"--min-len {generator.min_len} is more than the {allowed} tokens that --max-len-a, --max-len-b and "
            f"--match-source-len allow for sources of {src_tokens.size(1)} tokens: lower it"
        )
