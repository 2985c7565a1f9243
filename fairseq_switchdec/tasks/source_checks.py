"""What is unusual about source texts, said before work starts: empty ones, and ones too long for the model."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError

logger = logging.getLogger(__name__)


def check_sources(split: str, dataset: Any, cfg: Any) -> None:
    """Log how many sources of a split are empty or cut; refuse those that are too long and not cut.

    Args:
        dataset: fairseq's ``LanguagePairDataset``.
        cfg: the task's options.

    Raises:
        UserError: some sources exceed ``--max-source-positions`` and ``--truncate-source`` is not given.
    """
    sizes = stored_sizes(dataset.src)  # with </s>
    empty = np.flatnonzero(sizes <= 1)
    if empty.size:
        logger.warning(
            "%d of %d sources of split %r are empty (the first is line %d); they are kept and see only </s>",
            empty.size, len(sizes), split, empty[0] + 1,
        )  # fmt: skip
    limit = cfg.max_source_positions
    too_long = int((sizes > limit).sum())
    if too_long and not cfg.truncate_source and cfg.skip_invalid_size_inputs_valid_test:
        return  # as the user asks, fairseq leaves them out and says how many
    if too_long and not cfg.truncate_source:
        raise UserError(
            f"{too_long} of {len(sizes)} sources of split {split!r} are longer than --max-source-positions {limit} "
            f"(the longest has {sizes.max()} tokens): add --truncate-source to cut them"
        )
    if too_long:
        logger.info(
            "--truncate-source cuts %d of %d sources of split %r to %d tokens", too_long, len(sizes), split, limit
        )


def stored_sizes(dataset: Any) -> np.ndarray:
    """Sizes as stored on disk, below fairseq's truncating and appending wrappers."""
    while hasattr(dataset, "dataset"):
        dataset = dataset.dataset
    return np.asarray(dataset.sizes)


def truncate_sources(
    sources: list[Tensor], lengths: list[int] | Tensor, cfg: Any, eos: int
) -> tuple[list[Tensor], list[int]]:
    """Cut sources as ``--truncate-source`` does for stored data: the last token of a cut one is ``</s>``.

    Args:
        sources: int64 (S,) each.

    Raises:
        UserError: a source is too long and is not to be cut.
    """
    limit = cfg.max_source_positions
    too_long = [source for source in sources if source.numel() > limit]
    if too_long and not cfg.truncate_source:
        raise UserError(
            f"a source of {too_long[0].numel()} tokens is longer than --max-source-positions {limit}: add "
            "--truncate-source to cut it"
        )
    if too_long:
        logger.info("--truncate-source cuts %d of %d sources to %d tokens", len(too_long), len(sources), limit)
    cut = [
        torch.cat([source[: limit - 1], source.new_tensor([eos])]) if source.numel() > limit else source
        for source in sources
    ]
    return cut, [source.numel() for source in cut]
