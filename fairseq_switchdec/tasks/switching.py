"""What every task of ours does, whatever it is about: the policy's half of an update, decisions, and their report.

    class SwitchableTask(SwitchingTask, TranslationTask): ...

A task sets itself up by `SwitchingTask.set_up_switching`, says by ``build_objective`` what it trains for, and keeps in
``run_dataset`` the data set that was loaded last.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
from contextlib import nullcontext
from typing import Any, ClassVar

import torch
from fairseq import utils
from fairseq.distributed import utils as distributed_utils
from fairseq.file_io import PathManager
from fairseq.models import ARCH_MODEL_REGISTRY
from fairseq.optim.amp_optimizer import AMPOptimizer
from torch import Tensor

from ..config import LexicoPolicyCriterionConfig, SwitchOptions, check_choice, check_range, fill_references
from ..criterions.objective import Objective
from ..decisions import Decisions
from ..errors import UserError
from ..generation.decision_source import DecisionSource
from ..generation.report import SwitchReport
from ..models.bart.plain import can_become_switchable, name_switchable
from ..policy import GreedyChoice
from ..runtime.loading import unallocated
from ..runtime.packing import PRECISIONS
from .shards import even_shards, is_filler, without_weight

logger = logging.getLogger(__name__)


class SwitchingTask:
    """Comes before a fairseq task among the bases of a class; its own methods call that task's.

    Attributes:
        head: of a task whose model needs one: the task's name, and the model's method that makes the head.
    """

    cfg: Any
    head: ClassVar[tuple[str, str] | None] = None

    def set_up_switching(self, cfg: SwitchOptions) -> None:
        """Check the options that all tasks share.

        Raises:
            UserError: naming the flag.
        """
        fill_references(cfg)
        check_choice("switch_precision", cfg.switch_precision, PRECISIONS)
        self.source = DecisionSource(cfg)
        shards = cfg.num_shards
        check_range(
            "shard_id", cfg.shard_id, f"in [0, {shards}), with --num-shards {shards}", range(shards).__contains__
        )
        self.report = SwitchReport(cfg.switch_report, cfg.shard_id, cfg.num_shards)
        self.criterion: Any = None
        self.trains = True
        self.run_dataset: Any = None
        if cfg.switch_report is not None:
            atexit.register(self.finish_report)

    def build_model(self, cfg: Any, from_checkpoint: bool = False) -> Any:
        """fairseq's hook; a checkpoint of plain BART, such as a released one, is run as a switchable model.

        Raises:
            UserError: training is to start from a file that does not exist (fairseq would start from random weights),
                or the model can have no head for the task.
        """
        self.trains = not from_checkpoint
        file = self.cfg.restore_file
        if not from_checkpoint and os.path.basename(file) != "checkpoint_last.pt" and not PathManager.exists(file):
            raise UserError(f"--restore-file {file} does not exist: name the checkpoint to start from")
        if from_checkpoint and can_become_switchable(cfg):
            name_switchable(cfg)
        model_class = ARCH_MODEL_REGISTRY.get(getattr(cfg, "_name", None) or getattr(cfg, "arch", None))
        if self.head is not None:
            task, method = self.head
            if not hasattr(model_class, method):
                raise UserError(f"--task {task} needs --arch switchable_bart (or _base, _tiny)")
        takes = from_checkpoint and hasattr(model_class, "takes_tensors")
        with unallocated() if takes else nullcontext():
            model = super().build_model(cfg, from_checkpoint)  # type: ignore[misc]
        model.takes_tensors = takes
        if hasattr(model.encoder, "policy") and self.source.asked:
            self.source.check_budgets(model.encoder.policy)
            if not self.source.each:
                model.encoder.policy.default_budget = self.source.asked[0]
        return model

    # --- training ---

    def build_objective(self, options: LexicoPolicyCriterionConfig) -> Objective:
        """What the criterion trains for."""
        raise NotImplementedError

    def build_criterion(self, cfg: Any, *args: Any) -> Any:
        """Remember the criterion: it owns the policy's learner."""
        self.criterion = super().build_criterion(cfg, *args)  # type: ignore[misc]
        return self.criterion

    def get_batch_iterator(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        """fairseq's hook: shards of training and validation are made even."""
        iterator = super().get_batch_iterator(dataset, *args, **kwargs)  # type: ignore[misc]
        if self.criterion is not None:
            even_shards(iterator)
        return iterator

    def train_step(
        self, sample: Any, model: Any, criterion: Any, optimizer: Any, update_num: int, ignore_grad: bool = False
    ) -> tuple[Tensor, int, dict[str, Any]]:
        """A micro-batch: gradients of w by the optimizer's backward, evidence for theta to the learner."""
        if not hasattr(criterion, "rollout"):
            return super().train_step(  # type: ignore[misc]
                sample, model, criterion, optimizer, update_num, ignore_grad
            )
        if 0 < criterion.cfg.max_update <= update_num:  # fairseq looks only after an update
            logger.info("the checkpoint has all %d updates of --max-update: nothing is left to train", update_num)
            sys.exit(0)
        model.train()
        model.set_num_updates(update_num)
        # Before a rollout reads the learner's state: a new training begins with a new one.
        learner = criterion.policy_learner(model, update_num) if criterion.cfg.policy_decisions == "learned" else None
        device = sample["net_input"]["src_tokens"].device
        with torch.autocast(device.type, enabled=isinstance(optimizer, AMPOptimizer)):
            rollout = criterion.rollout(model, sample, update_num)
        if ignore_grad or is_filler(sample):
            optimizer.backward(rollout.loss * 0)  # every rank takes part in what the backward pass sums over ranks
            return without_weight(rollout.loss, rollout.log)
        if learner is not None and rollout.evidence is not None:
            learner.accumulate(rollout.evidence)
        optimizer.backward(rollout.loss)
        return rollout.loss, rollout.sample_size, rollout.log

    def optimizer_step(self, optimizer: Any, model: Any, update_num: int) -> None:
        """The end of an update (Algorithm 1): w <- w - alpha grad, then theta <- theta - gamma e.

        An update whose gradients overflowed moves neither: with --fp16 fairseq does not come here, with --amp its
        optimizer skips the step by itself, lowers the loss scale and comes back with the same batch.
        """
        scale = optimizer.scaler.get_scale() if isinstance(optimizer, AMPOptimizer) else 0.0
        super().optimizer_step(optimizer, model, update_num)  # type: ignore[misc]
        skipped = isinstance(optimizer, AMPOptimizer) and optimizer.scaler.get_scale() < scale
        if hasattr(self.criterion, "policy_step") and not skipped:
            self.criterion.policy_step(model, update_num)

    def sum_over_ranks(self, values: Tensor) -> Tensor:
        """The sum of a tensor over all data-parallel processes."""
        group = distributed_utils.get_data_parallel_group() if torch.distributed.is_initialized() else None
        if group is None or distributed_utils.get_data_parallel_world_size() == 1:
            return values
        return distributed_utils.all_reduce(values, group=group)

    # --- validation ---

    def valid_step(self, sample: Any, model: Any, criterion: Any, **kwargs: Any) -> tuple[Tensor, int, dict[str, Any]]:
        """Loss of a batch, and what `validation_log` adds; a batch that only fills up a shard counts nothing."""
        loss, sample_size, log = super().valid_step(sample, model, criterion, **kwargs)  # type: ignore[misc]
        log = {**log, **self.validation_log(sample, model)}
        return without_weight(loss, log) if is_filler(sample) else (loss, sample_size, log)

    def validation_log(self, sample: Any, model: Any) -> dict[str, Any]:
        """Sums over a validation batch beside those of the criterion."""
        return {}

    # --- running a trained model ---

    def run_decisions(self, model: Any, sample: dict[str, Any]) -> Decisions | GreedyChoice:
        """What ``--switch-decisions`` and ``--switch-budget`` say about a batch.

        In the training of a static student its decisions, in place of a policy's that has learned none.
        """
        ids = self.input_ids(sample)
        if self.source.choice == "greedy" and getattr(self.criterion, "entries", None) is not None:
            return self.criterion.forced_decisions(model.encoder.space, ids)
        return self.source(model.encoder.space, ids, lambda: self.greedy_decisions(model), sample.get("rows"))

    def input_ids(self, sample: dict[str, Any]) -> Tensor:
        """int64 (B,): the places of a batch's inputs in the data set."""
        ids: Tensor = sample["id"]
        return ids

    def greedy_decisions(self, model: Any) -> dict[int, Decisions]:
        """Greedy decisions of every input of the data set that is being run, by id."""
        if self.run_dataset is None:
            raise UserError(
                "--switch-decisions shuffled permutes decisions over a whole data set: use fairseq-generate or "
                "fairseq-validate"
            )
        device = model.encoder.embed_tokens.weight.device
        batches = super().get_batch_iterator(  # type: ignore[misc]  # of all shards
            self.run_dataset,
            max_sentences=32,
            max_positions=utils.resolve_max_positions(self.max_positions(), model.max_positions()),  # type: ignore
            disable_iterator_cache=True,  # the run's own iterator over this data set is under way
        )
        table: dict[int, Decisions] = {}
        for sample in batches.next_epoch_itr(shuffle=False):
            tokens = sample["net_input"]["src_tokens"].to(device)
            with torch.no_grad():
                decisions = model.encoder(tokens, decisions=self.source.greedy(sample["id"]))["decisions"]
            table.update((index, decisions.select([row])) for row, index in enumerate(sample["id"].tolist()))
        return table

    def finish_report(self) -> None:
        """At the end of the run: the file, and lines for people beside fairseq's scores."""
        if self.report.inputs:
            interrupted = hasattr(sys, "last_value")  # Python sets it for an exception that ended the program
            path = self.report.write(complete=not interrupted)
            print(self.report.lines(), flush=True)
            logger.info("wrote %s%s", path, " (the run was interrupted)" if interrupted else "")
