"""``--task early_exit_task``: the plugin's task, with decoding steps that end early (`examples.paper.early_exit`)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from fairseq_switchdec.config import check_choice
from fairseq_switchdec.cost import Keep
from fairseq_switchdec.errors import UserError
from fairseq_switchdec.generation.report import decoding_steps
from fairseq_switchdec.tasks.switchable_task import SwitchableTask

from .early_exit import CONFIDENCES, METHODS, EarlyExit, keep_keys_apart
from .options import EarlyExitTaskConfig


class EarlyExitTask(SwitchableTask):
    """Its report has what the exits cost, and as skipped the share of layers that no decoding step ran.

    Raises:
        UserError: options that cannot be meant.
    """

    cfg: EarlyExitTaskConfig

    def __init__(self, cfg: EarlyExitTaskConfig, src_dict: Any, tgt_dict: Any):
        super().__init__(cfg, src_dict, tgt_dict)
        check_choice("exit_method", cfg.exit_method, METHODS)
        check_choice("exit_confidence", cfg.exit_confidence, CONFIDENCES)
        if cfg.switch_decisions != "keep-all" or cfg.switch_seconds is not None:
            raise UserError("--task early_exit_task: give --switch-decisions keep-all, and no --switch-seconds")
        self.threshold = read_threshold(cfg.exit_threshold)
        self.exits: EarlyExit | None = None

    def build_generator(self, models: Any, args: Any, *rest: Any, **kwargs: Any) -> Any:
        """fairseq's generator, over one model whose steps end early.

        Raises:
            UserError: the model reads and writes with two stacks of layers, or there are several.
        """
        (model, *others) = models
        if others or not hasattr(model.decoder, "run_layers") or model.encoder.space.decoder_layers:
            raise UserError("--task early_exit_task is for one model with one stack of layers, such as a LLaMA")
        if self.exits is None and self.cfg.exit_method == "calm":
            keep_keys_apart(model.decoder)
        generator = super().build_generator(models, args, *rest, **kwargs)
        model.decoder.lookup = None
        if self.exits is None:
            how = self.cfg.exit_method, self.cfg.exit_confidence, self.threshold, self.cfg.exit_layers
            self.exits = EarlyExit(model.decoder, model.geometry, *how)
        return generator

    def inference_step(self, generator: Any, models: Any, sample: dict[str, Any], *rest: Any, **kwargs: Any) -> Any:
        """Generate for an input, and report what its steps saved."""
        assert self.exits is not None
        self.exits.restart()
        hypotheses = super().inference_step(generator, models, sample, *rest, **kwargs)
        if self.cfg.switch_report is not None:
            entry = self.report.inputs[-1]
            skipped = 1 - self.exits.ran / max(1, self.exits.all)
            entry |= {"cost": 1 - 2 * self.exits.saved / entry["flops"], "attention_skipped": skipped}
            entry |= {"flops": entry["flops"] - 2 * self.exits.saved, "ffn_skipped": skipped}
        return hypotheses

    def share(self, model: Any, src_tokens: Tensor, hypotheses: Any, beam: int) -> float:
        """What the last input took, as a share of all layers' FLOPs."""
        assert self.exits is not None
        lengths = model.encoder.lengths(src_tokens, decoding_steps(hypotheses), beam)
        decisions = model.encoder.space.keep_all(1)
        whole = model.geometry.spend(Keep.of(decisions, lengths), lengths)
        return 1 - 2 * self.exits.saved / float(whole[0])


def read_threshold(text: str) -> float:
    """A number, or what a calibration's file holds.

    Raises:
        UserError: it is none.
    """
    try:
        value = float(json.loads(Path(text).read_text(encoding="utf-8"))["threshold"] if Path(text).is_file() else text)
    except (ValueError, KeyError, TypeError):
        value = -1.0
    if not 0 <= value <= 1:
        raise UserError(f"--exit-threshold {text}: give a number in [0, 1], or the file of a calibration")
    return value
