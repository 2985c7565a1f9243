"""``--task switchable_task``: fairseq's translation task (source and target texts) for a model that switches."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import time
from typing import Any

import numpy as np
import torch
from fairseq import utils
from fairseq.data import LanguagePairDataset
from fairseq.distributed import utils as distributed_utils
from fairseq.file_io import PathManager
from fairseq.optim.amp_optimizer import AMPOptimizer
from fairseq.tasks import register_task
from fairseq.tasks.translation import TranslationTask
from torch import Tensor

from ..config import SwitchableTaskConfig, check_choice, check_range, fill_references
from ..decisions import Decisions
from ..errors import UserError
from ..generation.decision_source import DecisionSource, GreedyRecorder
from ..generation.ngram_block import NGramBlock
from ..generation.report import SwitchReport, synchronize
from ..generation.run_settings import digest, run_settings
from ..models.plain_bart import can_become_switchable, name_switchable
from ..modules.packing import PRECISIONS
from .shards import even_shards, is_filler, without_weight
from .source_checks import check_sources, truncate_sources
from .validation_rouge import ValidationRouge, log_rouge

logger = logging.getLogger(__name__)


@register_task("switchable_task", dataclass=SwitchableTaskConfig)
class SwitchableTask(TranslationTask):
    """Adds to the translation task: the policy's half of an update, decisions in generation, and the report."""

    cfg: SwitchableTaskConfig

    def __init__(self, cfg: SwitchableTaskConfig, src_dict: Any, tgt_dict: Any):
        super().__init__(cfg, src_dict, tgt_dict)
        fill_references(cfg)
        check_choice("switch_precision", cfg.switch_precision, PRECISIONS)
        self.source = DecisionSource(cfg)
        shards = cfg.num_shards
        check_range(
            "shard_id", cfg.shard_id, f"in [0, {shards}), with --num-shards {shards}", range(shards).__contains__
        )
        self.report = SwitchReport(cfg.switch_report, cfg.shard_id, cfg.num_shards)
        self.rouge: ValidationRouge | None = None
        self.criterion: Any = None
        # fairseq-interactive passes no ids on: those of its lines are counted here.
        self.typed: LanguagePairDataset | None = None
        self.typed_before = 0
        self.typed_ids: list[int] = []
        # The hub interface numbers the sentences of a batch anew: what they are in the call.
        self.caller_ids: Tensor | None = None
        self.run_dataset: LanguagePairDataset | None = None
        if cfg.switch_report is not None:
            atexit.register(self.finish_report)

    def build_model(self, cfg: Any, from_checkpoint: bool = False) -> Any:
        """fairseq's hook; a checkpoint of plain BART, such as a released one, is run as a switchable model.

        Raises:
            UserError: training is to start from a file that does not exist; fairseq would start from random weights.
        """
        file = self.cfg.restore_file
        if not from_checkpoint and os.path.basename(file) != "checkpoint_last.pt" and not PathManager.exists(file):
            raise UserError(f"--restore-file {file} does not exist: name the checkpoint to start from")
        if from_checkpoint and can_become_switchable(cfg):
            name_switchable(cfg)
        model = super().build_model(cfg, from_checkpoint)
        if self.cfg.eval_rouge:
            self.rouge = ValidationRouge(self, model, self.cfg)
        return model

    # --- data ---

    def load_dataset(self, split: str, epoch: int = 1, combine: bool = False, **kwargs: Any) -> None:
        """Load a split, and say what is unusual about its sources."""
        super().load_dataset(split, epoch=epoch, combine=combine, **kwargs)
        self.run_dataset = self.datasets[split]
        check_sources(split, self.datasets[split], self.cfg)

    def filter_indices_by_size(
        self, indices: Any, dataset: Any, max_positions: Any = None, ignore_invalid_inputs: bool = False
    ) -> Any:
        """fairseq's hook, here for one message instead of a traceback where a source has more tokens than the model has
        positions, or than ``--max-tokens`` allows.

        Raises:
            UserError: some sources are too long and the user did not ask to leave such inputs out.
        """
        if isinstance(dataset, LanguagePairDataset) and max_positions is not None and not ignore_invalid_inputs:
            limit = max_positions[0] if isinstance(max_positions, (tuple, list)) else max_positions
            too_long = int((np.asarray(dataset.src_sizes)[indices] > limit).sum())
            if too_long:
                raise UserError(
                    f"{too_long} of {len(indices)} sources are longer than the model's {limit} positions: add "
                    f"--truncate-source --max-source-positions {limit} to cut them, or "
                    "--skip-invalid-size-inputs-valid-test to leave them out"
                )
        return super().filter_indices_by_size(indices, dataset, max_positions, ignore_invalid_inputs)

    def build_dataset_for_inference(self, src_tokens: Any, src_lengths: Any, constraints: Any = None) -> Any:
        """Sources typed in or given to the hub interface; they too are cut with --truncate-source, else refused."""
        src_tokens, src_lengths = truncate_sources(src_tokens, src_lengths, self.cfg, self.source_dictionary.eos())
        self.typed = super().build_dataset_for_inference(src_tokens, src_lengths, constraints=constraints)
        return self.typed

    def get_batch_iterator(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        """fairseq's hook. Shards of training and validation are made even; generation takes ``--num-shards``, which
        fairseq 0.12.2 reads and then forgets; of sources typed in, the order in which they will come is remembered.

        Raises:
            UserError: there are fewer batches than shards.
        """
        generating = dataset is self.run_dataset and self.criterion is None
        if generating and self.cfg.num_shards > 1:
            kwargs |= {"num_shards": self.cfg.num_shards, "shard_id": self.cfg.shard_id}
        iterator = super().get_batch_iterator(dataset, *args, **kwargs)
        if generating:
            self.expect(iterator)
        if self.criterion is not None:
            even_shards(iterator)
        if dataset is self.typed:  # collating sorts a batch by length
            batches = (dataset.collater([dataset[index] for index in batch]) for batch in iterator.frozen_batches)
            self.typed_ids = [self.typed_before + index for batch in batches for index in batch["id"].tolist()]
            self.typed_before += len(dataset)
        return iterator

    def expect(self, iterator: Any) -> None:
        """Tell the report which inputs are to come."""
        sizes = [len(batch) for batch in iterator.frozen_batches]
        if self.cfg.num_shards > len(sizes):
            raise UserError(
                f"--num-shards {self.cfg.num_shards}, but subset {self.cfg.gen_subset} is {len(sizes)} batches: give "
                "fewer shards, or a smaller --batch-size or --max-tokens to all of them"
            )
        lengths = digest(np.asarray(self.run_dataset.src_sizes, dtype=np.int64).tobytes())
        own = sum(sizes[self.cfg.shard_id :: self.cfg.num_shards])
        self.report.expect(own, sum(sizes), f"{self.cfg.gen_subset} {lengths}")

    # --- training ---

    def build_criterion(self, cfg: Any, *args: Any) -> Any:
        """Remember the criterion: it owns the policy's learner."""
        self.criterion = super().build_criterion(cfg, *args)
        return self.criterion

    def train_step(
        self, sample: Any, model: Any, criterion: Any, optimizer: Any, update_num: int, ignore_grad: bool = False
    ) -> tuple[Tensor, int, dict[str, Any]]:
        """A micro-batch: gradients of w by the optimizer's backward, evidence for theta to the learner."""
        if not hasattr(criterion, "rollout"):
            return super().train_step(sample, model, criterion, optimizer, update_num, ignore_grad)
        if 0 < criterion.cfg.max_update <= update_num:  # fairseq looks only after an update
            logger.info("the checkpoint has all %d updates of --max-update: nothing is left to train", update_num)
            sys.exit(0)
        model.train()
        model.set_num_updates(update_num)
        device = sample["net_input"]["src_tokens"].device
        with torch.autocast(device.type, enabled=isinstance(optimizer, AMPOptimizer)):
            rollout = criterion.rollout(model, sample, update_num)
        if ignore_grad or is_filler(sample):
            optimizer.backward(rollout.loss * 0)  # every rank takes part in what the backward pass sums over ranks
            return without_weight(rollout.loss, rollout.log)
        if rollout.evidence is not None:
            criterion.policy_learner(model, update_num).accumulate(rollout.evidence)
        optimizer.backward(rollout.loss)
        return rollout.loss, rollout.sample_size, rollout.log

    def optimizer_step(self, optimizer: Any, model: Any, update_num: int) -> None:
        """The end of an update (Algorithm 1): w <- w - alpha grad, then theta <- theta - gamma e.

        An update whose gradients overflowed moves neither: with --fp16 fairseq does not come here, with --amp its
        optimizer skips the step by itself, lowers the loss scale and comes back with the same batch.
        """
        scale = optimizer.scaler.get_scale() if isinstance(optimizer, AMPOptimizer) else 0.0
        super().optimizer_step(optimizer, model, update_num)
        skipped = isinstance(optimizer, AMPOptimizer) and optimizer.scaler.get_scale() < scale
        if hasattr(self.criterion, "policy_step") and not skipped:
            self.criterion.policy_step(model, update_num)

    # --- validation ---

    def valid_step(self, sample: Any, model: Any, criterion: Any, **kwargs: Any) -> tuple[Tensor, int, dict[str, Any]]:
        """Loss of a batch, and with ``--eval-rouge`` ROUGE of what is generated for it; a batch that only fills up a
        shard counts nothing.
        """
        loss, sample_size, log = super().valid_step(sample, model, criterion, **kwargs)
        if self.rouge is not None:
            log = {**log, **self.rouge(sample)}
        return without_weight(loss, log) if is_filler(sample) else (loss, sample_size, log)

    def reduce_metrics(self, logging_outputs: list[dict[str, Any]], criterion: Any) -> None:
        """The criterion's metrics, and ROUGE."""
        super().reduce_metrics(logging_outputs, criterion)
        log_rouge(logging_outputs)

    def sum_over_ranks(self, values: Tensor) -> Tensor:
        """The sum of a tensor over all data-parallel processes."""
        group = distributed_utils.get_data_parallel_group() if torch.distributed.is_initialized() else None
        if group is None or distributed_utils.get_data_parallel_world_size() == 1:
            return values
        return distributed_utils.all_reduce(values, group=group)

    # --- running a trained model ---

    def run_decisions(self, model: Any, sample: dict[str, Any]) -> Decisions | None:
        """What ``--switch-decisions`` says about a batch; None = greedy."""
        return self.source(model.encoder.space, self.input_ids(sample), lambda: self.greedy_decisions(model))

    def input_ids(self, sample: dict[str, Any]) -> Tensor:
        """int64 (B,): the places of a batch's inputs in the data set, among the lines typed in, or in a hub call."""
        if sample.get("id") is None:
            batch_size = sample["net_input"]["src_tokens"].size(0)
            sample["id"] = torch.tensor(self.typed_ids[:batch_size])
            del self.typed_ids[:batch_size]
        ids: Tensor = sample["id"]
        return ids if self.caller_ids is None else self.caller_ids.to(ids.device)[ids]

    def greedy_decisions(self, model: Any) -> dict[int, Decisions]:
        """Greedy decisions of every input of the data set that is being run, by id."""
        if self.run_dataset is None:
            raise UserError(
                "--switch-decisions shuffled permutes decisions over a whole data set: use fairseq-generate or "
                "fairseq-validate"
            )
        device = model.encoder.embed_tokens.weight.device
        batches = super().get_batch_iterator(  # of all shards
            self.run_dataset,
            max_sentences=32,
            max_positions=utils.resolve_max_positions(self.max_positions(), model.max_positions()),
            disable_iterator_cache=True,  # the run's own iterator over this data set is under way
        )
        table: dict[int, Decisions] = {}
        for sample in batches.next_epoch_itr(shuffle=False):
            tokens = sample["net_input"]["src_tokens"].to(device)
            with torch.no_grad():
                decisions = model.encoder(tokens)["decisions"]
            table.update((index, decisions.select([row])) for row, index in enumerate(sample["id"].tolist()))
        return table

    def build_generator(self, models: Any, args: Any, *rest: Any, **kwargs: Any) -> Any:
        """fairseq's generator; without the compiled extension, n-grams are blocked by tensor operations."""
        self.check_generation(models, args)
        if self.cfg.switch_report is not None and not self.report.run.get("model"):
            self.report.run |= run_settings(models[0], self.cfg, args)  # before its weights are packed
        for model in models:
            if hasattr(model, "pack"):
                model.pack(self.cfg.switch_precision)
        generator = super().build_generator(models, args, *rest, **kwargs)
        blocker = getattr(generator, "repeat_ngram_blocker", None)
        if blocker is not None and not blocker.use_extension:
            generator.repeat_ngram_blocker = NGramBlock(blocker.no_repeat_ngram_size)
        return generator

    def check_generation(self, models: Any, args: Any) -> None:
        """Refuse what cannot work before generation starts.

        Raises:
            UserError: naming the flag.
        """
        switchable = [model for model in models if hasattr(model.encoder, "policy")]
        if not switchable:
            if self.cfg.switch_report is not None or self.cfg.switch_decisions not in ("greedy", "keep-all"):
                raise UserError(
                    "--switch-report and --switch-decisions need a switchable checkpoint (--arch switchable_bart), "
                    "or one of a plain BART that can run as such; --path names neither"
                )
            return
        for name in ("print_alignment", "replace_unk"):
            if getattr(args, name, None):
                raise UserError(
                    f"--{name.replace('_', '-')} needs attention weights, which switchable_bart does not give"
                )
        if any(model.encoder.space != switchable[0].encoder.space for model in switchable) or switchable != list(
            models
        ):
            raise UserError("--path: models of an ensemble must all be switchable and have the same decision space")
        if self.cfg.switch_report is not None and len(models) > 1:
            raise UserError("--switch-report speaks of one model: give one checkpoint to --path")
        if self.cfg.switch_report is not None and getattr(args, "score_reference", False):
            raise UserError("--switch-report speaks of generation: leave out --score-reference")
        self.source.check(switchable[0].encoder.space)

    def inference_step(
        self, generator: Any, models: Any, sample: dict[str, Any], prefix_tokens: Any = None, constraints: Any = None
    ) -> Any:
        """Generate for a batch under its decisions, and report them."""
        encoder = models[0].encoder
        if not hasattr(encoder, "policy"):  # not a model of ours
            return super().inference_step(generator, models, sample, prefix_tokens, constraints)
        src_tokens = sample["net_input"]["src_tokens"]
        decisions = self.run_decisions(models[0], sample)
        greedy = GreedyRecorder(encoder.space, src_tokens.size(0)) if decisions is None and len(models) == 1 else None
        sample = {**sample, "net_input": {**sample["net_input"], "decisions": greedy or decisions}}
        start = time.perf_counter()
        hypotheses = super().inference_step(generator, models, sample, prefix_tokens, constraints)
        synchronize(src_tokens.device)
        seconds = time.perf_counter() - start
        if self.cfg.switch_report is not None:
            # An input leaves the batch when its last hypothesis ends: the longest one tells its decoding steps.
            steps = torch.tensor(
                [max((hypothesis["tokens"].numel() for hypothesis in beams), default=0) for beams in hypotheses]
            )
            lengths = encoder.lengths(src_tokens, steps, generator.beam_size)
            policy_flops = encoder.policy.flops() if greedy is not None else 0
            ran = greedy.decisions if greedy is not None else decisions
            self.report.add(self.input_ids(sample), ran, models[0].geometry, lengths, policy_flops, seconds)
        return hypotheses

    def finish_report(self) -> None:
        """At the end of the run: the file, and one line beside fairseq's scores."""
        if self.report.inputs:
            interrupted = hasattr(sys, "last_value")  # Python sets it for an exception that ended the program
            path = self.report.write(complete=not interrupted)
            print(self.report.line(), flush=True)
            logger.info("wrote %s%s", path, " (the run was interrupted)" if interrupted else "")
