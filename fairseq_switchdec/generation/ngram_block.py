"""``--no-repeat-ngram-size`` as a few tensor operations.

fairseq's blocker (``fairseq/ngram_repeat_block.py``) is a CUDA extension, or, where that was not compiled (every
install from PyPI), a Python loop over rows and positions that copies all tokens to the host in every decoding step.
fairseq 0.12.2 hands it the whole token buffer, padding included, and the loop compares with that buffer's last tokens:
with ``step + 1 < width``, so in every run of its sequence generator, it blocks nothing (fairseq issues 4709 and 5206).
The blocker here reads the prefix generated so far, as the extension does.
"""

from __future__ import annotations

import math

from torch import Tensor, nn


class NGramBlock(nn.Module):
    """Stands in for ``fairseq.ngram_repeat_block.NGramRepeatBlock``; same call, no host synchronization, any device.

    Equal to fairseq's Python loop given ``tokens[:, : step + 1]``, for every size. So size 1 blocks nothing: every
    hypothesis starts with ``</s>``, and a rule that no token comes twice would keep it from ever ending.

    Args:
        no_repeat_ngram_size: n; no n-gram occurs twice in a hypothesis.

    Raises:
        ValueError: n is below 1.
    """

    def __init__(self, no_repeat_ngram_size: int):
        super().__init__()
        if no_repeat_ngram_size < 1:
            raise ValueError(f"--no-repeat-ngram-size {no_repeat_ngram_size}: give 1 or more, or 0 to block nothing")
        self.no_repeat_ngram_size = no_repeat_ngram_size

    def forward(self, tokens: Tensor, lprobs: Tensor, bsz: int, beam_size: int, step: int) -> Tensor:
        """Sets to -inf what would complete an n-gram that its hypothesis already holds.

        Args:
            tokens: ``(bsz * beam_size, width)``, int64, ``width > step``; columns after ``step`` are not read.
            lprobs: ``(bsz * beam_size, vocabulary)``, log-probabilities of the next token; changed in place.
            bsz: inputs.
            beam_size: hypotheses of an input.
            step: index of the last generated token.

        Returns:
            ``lprobs`` itself.

        Raises:
            ValueError: the number of rows is not ``bsz * beam_size``.
        """
        if not tokens.size(0) == lprobs.size(0) == bsz * beam_size:
            raise ValueError(
                f"expected {bsz * beam_size} rows, got {tokens.size(0)} of tokens, {lprobs.size(0)} of lprobs"
            )
        size = self.no_repeat_ngram_size
        if size == 1 or step + 2 <= size:
            return lprobs
        prefix = tokens[:, : step + 1]
        ngrams = prefix.unfold(1, size, 1)  # (rows, step + 2 - size, size)
        last = prefix[:, -(size - 1) :].unsqueeze(1)
        repeats = (ngrams[..., :-1] == last).all(dim=-1)
        # A token may end several n-grams, some of which match. Adding 0 or -inf gives the same result in any order.
        penalty = lprobs.new_zeros(repeats.shape).masked_fill_(repeats, -math.inf)
        return lprobs.scatter_add_(1, ngrams[..., -1], penalty)
