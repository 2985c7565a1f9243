"""ROUGE-1/2/L as summarization papers report them (section 4), by the package ``rouge-score``.

The paper's figures come from ROUGE-1.5.5 with Porter stemming, one sentence a line. ``rouge-score`` with stemming and
its summary-level ROUGE-L (``rougeLsum``) on summaries split into sentences lies up to half a point below it; the
sentence-blind ROUGE-L lies ten points below. `fairseq_switchdec.scoring.perl` runs ROUGE-1.5.5 itself.
"""

from __future__ import annotations

import functools
import multiprocessing
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..errors import UserError
from .sentences import one_sentence_a_line

MEASURES = ("rouge1", "rouge2", "rougeL")
TITLES = ("ROUGE-1", "ROUGE-2", "ROUGE-L")

#: Stands for an unknown word in a reference, so that <unk> in a hypothesis does not match it.
UNKNOWN = "unknowninreference"

#: Pairs that one process scores at a time, some 0.2 s of work.
CHUNK = 50


def rouge_scores(
    references: Sequence[str], hypotheses: Sequence[str], *, processes: int = 1, progress: bool = False
) -> np.ndarray:
    """F1 of every pair, times 100.

    Args:
        references, hypotheses: summaries; `split_sentences` finds their sentences, newlines where there are some.
        processes: over which the pairs are spread.
        progress: show a bar on a terminal's stderr.

    Returns:
        float64 ``[N, 3]``: ROUGE-1, ROUGE-2, summary-level ROUGE-L of each pair. Higher is better.

    Raises:
        UserError: rouge-score is not installed.
        ValueError: the two sequences differ in length.
    """
    if len(references) != len(hypotheses):
        raise ValueError(f"{len(references)} references but {len(hypotheses)} hypotheses")
    _pair_scorer()  # an absent package is found out here, not in another process
    pairs = list(zip(references, hypotheses))
    chunks = [pairs[start : start + CHUNK] for start in range(0, len(pairs), CHUNK)]
    scores: list[list[float]] = []
    with _mapper(min(processes, len(chunks))) as apply, _bar(len(pairs), progress) as bar:
        for rows in apply(_score_chunk, chunks):
            scores += rows
            bar.update(len(rows))
    return np.array(scores, dtype=np.float64).reshape(-1, len(MEASURES))


def looks_undecoded(texts: Iterable[str]) -> bool:
    """Whether texts are numbers only: GPT-2's BPE leaves such when ``--bpe`` was forgotten in generation."""
    words = [word for text in texts for word in text.split()]
    return bool(words) and all(word.isdigit() for word in words)


@functools.cache
def _pair_scorer() -> Any:
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError as error:
        raise UserError("ROUGE needs the package rouge-score: pip install rouge-score") from error
    return RougeScorer([*MEASURES[:2], "rougeLsum"], use_stemmer=True)


def _score_chunk(pairs: Sequence[tuple[str, str]]) -> list[list[float]]:
    scorer, rows = _pair_scorer(), []
    for pair in pairs:
        scores = scorer.score(*map(one_sentence_a_line, pair))
        rows.append([100 * scores[name].fmeasure for name in (*MEASURES[:2], "rougeLsum")])
    return rows


@contextmanager
def _mapper(processes: int) -> Iterator[Any]:
    """``map``, over processes when there are several; results come in order."""
    if processes <= 1:
        yield map
        return
    # Forking a process that runs torch's threads may hang; a spawned one imports this module alone.
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        yield pool.imap


def _bar(total: int, shown: bool) -> Any:
    from tqdm import tqdm  # fairseq's own

    return tqdm(total=total, unit=" pairs", desc="ROUGE", leave=False, disable=None if shown else True)
