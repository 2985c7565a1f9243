"""``--scoring rouge`` of fairseq-generate."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
from fairseq.dataclass import FairseqDataclass
from fairseq.scoring import BaseScorer, register_scorer

from .bootstrap import bootstrap
from .rouge import TITLES, UNKNOWN, looks_undecoded, rouge_scores

logger = logging.getLogger(__name__)


@dataclass
class RougeConfig(FairseqDataclass):
    """``--scoring rouge`` has no options."""


@register_scorer("rouge", dataclass=RougeConfig)
class RougeScorer(BaseScorer):
    """Mean ROUGE over the pairs of a run; give ``fairseq-generate`` the ``--bpe`` too, so that words are compared."""

    def add_string(self, ref: str, pred: str) -> None:
        """Add a pair as ``fairseq-generate`` gives it; its mark for an unknown word is ``<unk>`` to ROUGE."""
        super().add_string(ref.replace("<<unk>>", UNKNOWN), pred)

    def pair_scores(self) -> np.ndarray:
        """float64 ``[N, 3]``, see :func:`fairseq_switchdec.scoring.rouge.rouge_scores`."""
        if looks_undecoded(self.pred):
            logger.warning("--scoring rouge compares numbers, not words: add the --bpe that the data was made with")
        return rouge_scores(self.ref, self.pred, progress=True)

    def score(self) -> float:
        """Mean ROUGE-L; 0 when nothing was added."""
        return float(self.pair_scores()[:, -1].mean()) if self.pred else 0.0

    def result_string(self) -> str:
        """The three means, each with its 95 % bootstrap interval."""
        if not self.pred:
            return "ROUGE of no input"
        columns = self.pair_scores().T
        return " ".join(
            "{} {:.2f} [{:.2f}, {:.2f}]".format(title, *bootstrap(column)) for title, column in zip(TITLES, columns)
        )
