"""``--task switchable_task``: fairseq's translation task (source and target texts) for a model that switches."""

from __future__ import annotations

import atexit
import logging
import sys
import time
from typing import Any

import numpy as np
import torch
from fairseq import utils
from fairseq.data import LanguagePairDataset
from fairseq.distributed import utils as distributed_utils
from fairseq.optim.amp_optimizer import AMPOptimizer
from fairseq.tasks import register_task
from fairseq.tasks.translation import TranslationTask
from torch import Tensor

from ..config import SwitchableTaskConfig
from ..decisions import Decisions
from ..errors import UserError
from ..generation.decision_source import DecisionSource, GreedyRecorder
from ..generation.ngram_block import NGramBlock
from ..generation.report import SwitchReport, synchronize
from .source_checks import check_sources, truncate_sources

logger = logging.getLogger(__name__)


@register_task("switchable_task", dataclass=SwitchableTaskConfig)
class SwitchableTask(TranslationTask):
    """Adds to the translation task: the policy's half of an update, decisions in generation, and the report."""

    cfg: SwitchableTaskConfig

    def __init__(self, cfg: SwitchableTaskConfig, src_dict: Any, tgt_dict: Any):
        super().__init__(cfg, src_dict, tgt_dict)
        self.source = DecisionSource(cfg)
        self.report = SwitchReport(cfg.switch_report)
        self.criterion: Any = None
        # fairseq-interactive passes no ids on: those of its lines are counted here.
        self.typed: LanguagePairDataset | None = None
        self.typed_before = 0
        self.typed_ids: list[int] = []
        self.run_dataset: LanguagePairDataset | None = None
        if cfg.switch_report is not None:
            atexit.register(self.finish_report)

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
        """fairseq's hook; of sources typed in, it remembers the order in which they will come."""
        iterator = super().get_batch_iterator(dataset, *args, **kwargs)
        if dataset is self.typed:  # collating sorts a batch by length
            batches = (dataset.collater([dataset[index] for index in batch]) for batch in iterator.frozen_batches)
            self.typed_ids = [self.typed_before + index for batch in batches for index in batch["id"].tolist()]
            self.typed_before += len(dataset)
        return iterator

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
        model.train()
        model.set_num_updates(update_num)
        device = sample["net_input"]["src_tokens"].device
        with torch.autocast(device.type, enabled=isinstance(optimizer, AMPOptimizer)):
            rollout = criterion.rollout(model, sample, update_num)
        if rollout.evidence is not None and not ignore_grad:
            criterion.policy_learner(model, update_num).accumulate(rollout.evidence)
        optimizer.backward(rollout.loss * 0 if ignore_grad else rollout.loss)
        return rollout.loss, rollout.sample_size, rollout.log

    def optimizer_step(self, optimizer: Any, model: Any, update_num: int) -> None:
        """The end of an update (Algorithm 1): w <- w - alpha grad, then theta <- theta - gamma e.

        fairseq does not call it for an update whose gradients overflowed, and the policy rests too then.
        """
        super().optimizer_step(optimizer, model, update_num)
        if hasattr(self.criterion, "policy_step"):
            self.criterion.policy_step(model, update_num)

    def sum_over_ranks(self, values: Tensor) -> Tensor:
        """The sum of a tensor over all data-parallel processes."""
        group = distributed_utils.get_data_parallel_group() if torch.distributed.is_initialized() else None
        if group is None or distributed_utils.get_data_parallel_world_size() == 1:
            return values
        return distributed_utils.all_reduce(values, group=group)

    # --- running a trained model ---

    def run_decisions(self, model: Any, sample: dict[str, Any]) -> Decisions | None:
        """What ``--switch-decisions`` says about a batch; None = greedy."""
        src_tokens = sample["net_input"]["src_tokens"]
        ids = sample.get("id")
        if ids is None:
            batch_size = src_tokens.size(0)
            ids = sample["id"] = torch.tensor(self.typed_ids[:batch_size])
            del self.typed_ids[:batch_size]
        return self.source(model.encoder.space, ids, lambda: self.greedy_decisions(model))

    def greedy_decisions(self, model: Any) -> dict[int, Decisions]:
        """Greedy decisions of every input of the data set that is being run, by id."""
        if self.run_dataset is None:
            raise UserError(
                "--switch-decisions shuffled permutes decisions over a whole data set: use fairseq-generate or "
                "fairseq-validate"
            )
        device = model.encoder.embed_tokens.weight.device
        batches = self.get_batch_iterator(
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
                    "--switch-report and --switch-decisions need a switchable checkpoint (--arch switchable_bart); "
                    "--path names a plain one"
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
        if not hasattr(encoder, "policy"):  # a plain BART
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
            steps = torch.tensor([max(hypothesis["tokens"].numel() for hypothesis in beams) for beams in hypotheses])
            lengths = encoder.lengths(src_tokens, steps, generator.beam_size)
            policy_flops = encoder.policy.flops() if greedy is not None else 0
            ran = greedy.decisions if greedy is not None else decisions
            self.report.add(sample["id"], ran, models[0].geometry, lengths, policy_flops, seconds)
        return hypotheses

    def finish_report(self) -> None:
        """At the end of the run: the file, and one line beside fairseq's scores."""
        if self.report.inputs:
            interrupted = hasattr(sys, "last_value")  # Python sets it for an exception that ended the program
            path = self.report.write(complete=not interrupted)
            print(self.report.line(), flush=True)
            logger.info("wrote %s%s", path, " (the run was interrupted)" if interrupted else "")
