"""``--store-ema`` from a checkpoint without a moving average, such as a plain BART's: it begins at the loaded weights.

fairseq 0.12.2 means to do so, but looks for the weights in the checkpoint's content after it has taken them out of it
("KeyError: 'model'").
"""

from __future__ import annotations

import functools
import logging
from types import ModuleType

from fairseq_switchdec.compat.imports import ImportHooks

logger = logging.getLogger(__name__)


def register(hooks: ImportHooks) -> None:
    """Mend ``Trainer.load_checkpoint``."""
    hooks.after("fairseq.trainer", _mend)


def _mend(module: ModuleType) -> None:
    stock = module.Trainer.load_checkpoint

    @functools.wraps(stock)
    def load_checkpoint(self, *args, **kwargs):
        """As fairseq's; moving averages that the checkpoint lacks begin at its weights."""
        options = self.cfg.ema
        if not options.store_ema:
            return stock(self, *args, **kwargs)
        options.store_ema = False  # what follows is this function's part
        try:
            extra_state = stock(self, *args, **kwargs)
        finally:
            options.store_ema = True
        if extra_state is None:
            return None
        if "ema" in extra_state:
            logger.info("loading EMA from checkpoint")
            self.ema.restore(extra_state["ema"], build_fp32_params=False)
            if options.ema_fp32:
                self.ema.build_fp32_params(extra_state.get("ema_fp32_params"))
        else:
            logger.info("the checkpoint has no EMA: it begins at the checkpoint's weights")
            self.ema.restore(self._model.state_dict(), build_fp32_params=options.ema_fp32)
        return extra_state

    module.Trainer.load_checkpoint = load_checkpoint
