"""fairseq's trainer in the tests' own process: what a test wants to look into between two updates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from fairseq import options, tasks
from fairseq.checkpoint_utils import load_checkpoint
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.logging import metrics
from fairseq.trainer import Trainer
from support import POLICY_FLAGS, SWITCHABLE_FLAGS, architecture, train_flags


class Training:
    """A tiny switchable BART under fairseq's trainer, its batches in order.

    ``load``: begin as fairseq-train does, from ``checkpoint_last.pt`` or ``--finetune-from-model``.
    """

    def __init__(self, corpus: Path, folder: Path, *flags: Any, load: bool = False):
        arguments = [
            corpus, *SWITCHABLE_FLAGS, *architecture("switchable_bart_base"), *POLICY_FLAGS,
            "--policy-statistics-inputs", 0, *train_flags(folder, 100, "--data-buffer-size", 0, *flags),
        ]  # fmt: skip
        metrics.reset()
        args = options.parse_args_and_arch(options.get_training_parser(), [str(word) for word in arguments])
        args.tpu = False  # --bf16 implies it on the command line, though not in fairseq-hydra-train
        cfg = convert_namespace_to_omegaconf(args)
        torch.manual_seed(cfg.common.seed)
        task = tasks.setup_task(cfg.task)
        self.model = task.build_model(cfg.model)
        self.criterion = task.build_criterion(cfg.criterion)
        self.trainer = Trainer(cfg, task, self.model, self.criterion)
        self.folder = folder
        if load:
            _, self.iterator = load_checkpoint(cfg.checkpoint, self.trainer)
        else:
            self.iterator = self.trainer.get_train_iterator(epoch=1)
        self.batches = list(self.iterator.next_epoch_itr(shuffle=False))

    def update(self, *batches: int) -> Any:
        """One update of these micro-batches; what fairseq logs, None where it skipped the step."""
        return self.trainer.train_step([self.batches[index] for index in batches])

    def save(self) -> Path:
        """Write ``checkpoint_last.pt``."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "checkpoint_last.pt"
        self.trainer.consolidate_optimizer()
        self.trainer.save_checkpoint(str(path), {"train_iterator": self.iterator.state_dict(), "val_loss": None})
        return path

    def state(self, *beginnings: str) -> dict[str, torch.Tensor]:
        """A copy of what the model holds under names that begin so."""
        state = self.model.state_dict()
        return {name: value.clone() for name, value in state.items() if name.startswith(beginnings or ("",))}

    @property
    def policy(self) -> dict[str, torch.Tensor]:
        """theta, its Adam and its averages."""
        return self.state("encoder.policy.", "learner_state.")
