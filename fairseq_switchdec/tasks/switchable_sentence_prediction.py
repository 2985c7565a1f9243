"""``--task switchable_sentence_prediction``: fairseq's classification and regression, for a BART that switches.

Encoder and decoder both read the whole input; a head reads the decoder's last state, which stands for the input's last
``</s>`` (sections 4.1 and 5.3). Data as fairseq's ``sentence_prediction`` has it: ``input0/``, ``input1/``, ``label/``.
"""

from __future__ import annotations

import os
from argparse import ArgumentParser
from typing import Any

import numpy as np
from fairseq.data import Dictionary, data_utils
from fairseq.tasks import register_task
from fairseq.tasks.sentence_prediction import SentencePredictionTask

from ..config import LexicoPolicyCriterionConfig, SwitchableSentencePredictionConfig
from ..criterions.classification import ClassificationObjective
from ..errors import UserError
from ..predict.classification import ClassificationPredictor, add_predict_args
from .switching import SwitchingTask


@register_task("switchable_sentence_prediction", dataclass=SwitchableSentencePredictionConfig)
class SwitchableSentencePredictionTask(SwitchingTask, SentencePredictionTask):
    """fairseq's task with ``--add-prev-output-tokens``, and what `SwitchingTask` does."""

    cfg: SwitchableSentencePredictionConfig
    head = ("switchable_sentence_prediction", "register_classification_head")

    def __init__(self, cfg: SwitchableSentencePredictionConfig, data_dictionary: Dictionary, label_dictionary: Any):
        super().__init__(cfg, data_dictionary, label_dictionary)
        cfg.add_prev_output_tokens = True
        self.set_up_switching(cfg)

    @classmethod
    def setup_task(cls, cfg: Any, **kwargs: Any) -> SwitchableSentencePredictionTask:
        """fairseq's hook.

        Raises:
            UserError: the number of classes is missing or is not that of the labels, or a dictionary is missing.
        """
        if cfg.num_classes < 1:
            raise UserError("--num-classes is missing: give the number of labels, or 1 with --regression-target")
        for part in ("input0",) if cfg.regression_target else ("input0", "label"):
            path = os.path.join(cfg.data, part, "dict.txt")
            if not os.path.isfile(path):
                raise UserError(
                    f"{path} does not exist: name a folder made by python -m examples.glue.prepare, or as it makes"
                )
        task = super().setup_task(cfg, **kwargs)
        labels = [] if cfg.regression_target else task.labels()
        if len(labels) > cfg.num_classes:
            raise UserError(f"--num-classes {cfg.num_classes}, but the labels are {', '.join(labels)}")
        return task  # type: ignore[no-any-return]

    def labels(self) -> list[str]:
        """The labels, in the order of the head's classes."""
        dictionary = self.label_dictionary
        symbols = dictionary.symbols[dictionary.nspecial :]
        return [name for name in symbols if not name.startswith("madeupword") and name != "<mask>"]

    def load_dataset(self, split: str, combine: bool = False, **kwargs: Any) -> Any:
        """Load a split.

        Raises:
            UserError: it is not there, or its parts differ in length.
        """
        parts = {name: os.path.join(self.cfg.data, name, split) for name in ("input0", "input1", "label")}
        sizes = {}
        for name, path in parts.items():
            part = data_utils.load_indexed_dataset(path, self.dictionary)
            if part is not None:
                sizes[name] = len(part)
        if "input0" not in sizes:
            raise UserError(f"{parts['input0']} does not exist: there is no split {split!r} in {self.cfg.data}")
        if len(set(sizes.values())) > 1:
            found = ", ".join(f"{size} of {name}" for name, size in sizes.items())
            raise UserError(f"split {split!r} of {self.cfg.data} has {found}: they must be as many; prepare it again")
        self.run_dataset = super().load_dataset(split, combine=combine, **kwargs)
        return self.run_dataset

    def filter_indices_by_size(
        self, indices: Any, dataset: Any, max_positions: Any = None, ignore_invalid_inputs: bool = False
    ) -> Any:
        """fairseq's hook, here for one message instead of a traceback.

        Raises:
            UserError: some inputs are too long and the user did not ask to leave such inputs out.
        """
        if max_positions is not None and not ignore_invalid_inputs:
            limit = min(max_positions) if isinstance(max_positions, (tuple, list)) else max_positions
            too_long = sum(int(np.max(dataset.size(index))) > limit for index in indices)
            if too_long:
                raise UserError(
                    f"{too_long} of {len(indices)} inputs are longer than {limit} tokens: add "
                    f"--shorten-method truncate --max-positions {limit} to cut them, or "
                    "--skip-invalid-size-inputs-valid-test to leave them out"
                )
        return super().filter_indices_by_size(indices, dataset, max_positions, ignore_invalid_inputs)

    def build_objective(self, options: LexicoPolicyCriterionConfig) -> ClassificationObjective:
        """The loss of a label or a number."""
        return ClassificationObjective(options)

    # --- python -m fairseq_switchdec predict ---

    @staticmethod
    def add_predict_args(parser: ArgumentParser) -> None:
        """Options of ``predict`` that only this task has."""
        add_predict_args(parser)

    def build_predictor(self, args: Any, model: Any) -> ClassificationPredictor:
        """What ``predict`` asks."""
        return ClassificationPredictor(self, args, model)
