"""fairseq's search for the first NaN of a training that diverged, which fails on the outputs of its own encoders.

Where an update's gradients are no numbers, fairseq runs it again with a hook at every module. For a hook of the
backward pass, torch looks for a tensor in what a module gave; an encoder gives a dict of lists, our policy a
distribution, and the training ended in ``StopIteration`` or ``TypeError`` instead of what was found. So only outputs of
the forward pass are looked at; the gradients' norms are logged as before.
"""

from __future__ import annotations

import functools
from types import ModuleType

from fairseq_switchdec.compat.imports import ImportHooks


def register(hooks: ImportHooks) -> None:
    """Mend the detector."""
    hooks.after("fairseq.nan_detector", _look_at_outputs)


def _look_at_outputs(nan_detector: ModuleType) -> None:
    stock = nan_detector.NanDetector.__init__

    @functools.wraps(stock)
    def init(self, model, forward=True, backward=True):
        stock(self, model, forward, backward=False)

    nan_detector.NanDetector.__init__ = init
