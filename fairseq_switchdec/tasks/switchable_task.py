"""``--task switchable_task``: fairseq's translation task (source and target texts) for a model that switches."""

from __future__ import annotations

import atexit
import itertools
import logging
import time
from typing import Any

import numpy as np
import torch
from fairseq import utils
from fairseq.data import LanguagePairDataset
from fairseq.distributed import utils as distributed_utils
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
        self.running_ids = itertools.count()
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
        """fairseq's hook; a source that the model has no positions for is refused, not silently left out.

        Raises:
            UserError: some sources are too long.
        """
        if isinstance(dataset, LanguagePairDataset) and max_positions is not None:
            limit = max_positions[0] if isinstance(max_positions, (tuple, list)) else max_positions
            too_long = int((np.asarray(dataset.src_sizes)[indices] > limit).sum())
            if too_long:
                raise UserError(
                    f"{too_long} of {len(indices)} sources are longer than the model's {limit} positions: add "
                    f"--truncate-source --max-source-positions {limit} to cut them, or take them out of the data"
                )
        return super().filter_indices_by_size(indices, dataset, max_positions, ignore_invalid_inputs)

    def build_dataset_for_inference(self, src_tokens: Any, src_lengths: Any, constraints: Any = None) -> Any:
        """Sources typed in or given to the hub interface; they too are cut with --truncate-source, else refused."""
        src_tokens, src_lengths = truncate_sources(src_tokens, src_lengths, self.cfg, self.source_dictionary.eos())
        return super().build_dataset_for_inference(src_tokens, src_lengths, constraints=constraints)

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
        amp = type(optimizer).__name__ == "AMPOptimizer"
        with torch.autocast(sample["net_input"]["src_tokens"].device.type, enabled=amp):
            rollout = criterion.rollout(model, sample, update_num)
        if rollout.evidence is not None and not ignore_grad:
            criterion.policy_learner(model).accumulate(rollout.evidence)
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
        if ids is None:  # fairseq-interactive gives none
            ids = torch.tensor(list(itertools.islice(self.running_ids, src_tokens.size(0))))
            sample["id"] = ids
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
        generator = super().build_generator(models, args, *rest, **kwargs)
        blocker = getattr(generator, "repeat_ngram_blocker", None)
        if blocker is not None and not blocker.use_extension:
            generator.repeat_ngram_blocker = NGramBlock(blocker.no_repeat_ngram_size)
        if self.cfg.switch_report is not None and len(models) > 1:
            raise UserError("--switch-report speaks of one model: give one checkpoint to --path")
        if self.cfg.switch_report is not None and not hasattr(models[0].encoder, "policy"):
            raise UserError("--switch-report needs a switchable checkpoint (--arch switchable_bart)")
        return generator

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
            self.report.write()
            print(self.report.line(), flush=True)
            logger.info("wrote %s", self.cfg.switch_report)
