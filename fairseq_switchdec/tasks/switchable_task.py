"""``--task switchable_task``: fairseq's translation task (source and target texts) for a model that switches."""

from __future__ import annotations

import logging
import os
import time
from argparse import ArgumentParser
from typing import Any

import numpy as np
import torch
from fairseq import utils
from fairseq.data import LanguagePairDataset
from fairseq.tasks import register_task
from fairseq.tasks.translation import TranslationTask
from torch import Tensor

from ..config import LexicoPolicyCriterionConfig, SwitchableTaskConfig, check_range
from ..criterions.objective import GenerationObjective
from ..decisions import Decisions
from ..errors import UserError
from ..generation.decision_source import GreedyRecorder
from ..generation.lengths import check_batch, check_lengths
from ..generation.ngram_block import NGramBlock
from ..generation.reading import compare
from ..generation.report import decoding_steps, synchronize
from ..generation.run_settings import digest, run_settings
from ..models.openings import Openings
from ..predict.generation import GenerationPredictor, add_predict_args
from ..runtime.lookup import Lookup
from ..seconds import Seconds, machine
from .source_checks import check_sources, truncate_sources
from .switching import SwitchingTask
from .validation_rouge import ValidationRouge, log_rouge

logger = logging.getLogger(__name__)


@register_task("switchable_task", dataclass=SwitchableTaskConfig)
class SwitchableTask(SwitchingTask, TranslationTask):
    """Adds to the translation task what `SwitchingTask` does, decisions in generation, and their report."""

    cfg: SwitchableTaskConfig

    def __init__(self, cfg: SwitchableTaskConfig, src_dict: Any, tgt_dict: Any):
        super().__init__(cfg, src_dict, tgt_dict)
        self.set_up_switching(cfg)
        self.lookup = Lookup.parse(cfg.switch_lookup)
        self.told = False
        check_range("switch_compare", cfg.switch_compare, "0 or more", lambda value: value >= 0)
        if cfg.switch_seconds is not None:
            if cfg.switch_report is None:
                raise UserError(f"--switch-seconds {cfg.switch_seconds} is for --switch-report: give that too")
            self.report.prices = Seconds.read(cfg.switch_seconds, f"--switch-seconds {cfg.switch_seconds}")
        self.rouge: ValidationRouge | None = None
        self.run_batches: Any = None  # places in the data set, of all shards of a run
        # fairseq-interactive passes no ids on: those of its lines are counted here.
        self.typed: LanguagePairDataset | None = None
        self.typed_before = 0
        self.typed_ids: list[int] = []
        # BART's hub interface numbers the sentences of a batch anew: what they are in the call.
        self.caller_ids: Tensor | None = None
        self.openings: Openings | None = None  # the model's

    def build_model(self, cfg: Any, from_checkpoint: bool = False) -> Any:
        """fairseq's hook."""
        model = super().build_model(cfg, from_checkpoint)
        self.openings = getattr(model, "openings", None)
        room = model.encoder.max_positions()
        if self.cfg.truncate_source and room < self.cfg.max_source_positions:
            logger.info("--truncate-source cuts sources to the model's %d tokens", room)
            self.cfg.max_source_positions = room
        if self.cfg.eval_rouge:
            self.rouge = ValidationRouge(self, model, self.cfg)
        return model

    # --- data ---

    @classmethod
    def load_dictionary(cls, filename: str) -> Any:
        """The dictionary of a language; in a folder without, such as an imported model's, the one of all languages."""
        shared = os.path.join(os.path.dirname(filename), "dict.txt")
        found = filename if os.path.exists(filename) else shared
        if not os.path.exists(found):
            raise UserError(
                f"there is no dictionary {filename}, nor {shared}: name the folder that fairseq-preprocess or import "
                "wrote, and its languages with --source-lang and --target-lang"
            )
        return super().load_dictionary(found)

    def load_dataset(self, split: str, epoch: int = 1, combine: bool = False, **kwargs: Any) -> None:
        """Load a split, and say what is unusual about its sources."""
        try:
            super().load_dataset(split, epoch=epoch, combine=combine, **kwargs)
        except FileNotFoundError as error:  # "Dataset not found: SPLIT (FOLDER)"
            raise UserError(
                f"{error}: make it with fairseq-preprocess, or name a split and a folder that have it"
            ) from None
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
        """Sources typed in or given to the hub interface: they begin as the model's do, and are cut with
        --truncate-source, else refused.
        """
        if self.openings is not None and self.caller_ids is None:
            src_tokens = [self.openings.open(source, self.source_dictionary.bos()) for source in src_tokens]
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
        if dataset is self.typed:  # collating sorts a batch by length
            batches = (dataset.collater([dataset[index] for index in batch]) for batch in iterator.frozen_batches)
            self.typed_ids = [self.typed_before + index for batch in batches for index in batch["id"].tolist()]
            self.typed_before += len(dataset)
        return iterator

    def expect(self, iterator: Any) -> None:
        """Tell the report which inputs are to come."""
        self.run_batches = iterator.frozen_batches
        sizes = [len(batch) for batch in self.run_batches]
        if self.cfg.num_shards > len(sizes):
            raise UserError(
                f"--num-shards {self.cfg.num_shards}, but subset {self.cfg.gen_subset} is {len(sizes)} batches: give "
                "fewer shards, or a smaller --batch-size or --max-tokens to all of them"
            )
        self.source.check_count(len(self.run_dataset))
        lengths = digest(np.asarray(self.run_dataset.src_sizes, dtype=np.int64).tobytes())
        own = sum(sizes[self.cfg.shard_id :: self.cfg.num_shards])
        self.report.expect(own, sum(sizes), f"{self.cfg.gen_subset} {lengths}")

    # --- training ---

    def begin_epoch(self, epoch: int, model: Any) -> None:
        """fairseq's hook, after the training data was loaded: the model remembers how its texts begin."""
        super().begin_epoch(epoch, model)
        if hasattr(model, "openings") and self.run_dataset is not None:
            model.openings.learn(self.run_dataset, self.source_dictionary.bos())

    def build_objective(self, options: LexicoPolicyCriterionConfig) -> GenerationObjective:
        """Likelihood of the targets."""
        return GenerationObjective(options, self.target_dictionary.pad())

    # --- validation ---

    def validation_log(self, sample: Any, model: Any) -> dict[str, Any]:
        """With ``--eval-rouge``, ROUGE of what is generated for a batch."""
        return {} if self.rouge is None else self.rouge(sample)

    def reduce_metrics(self, logging_outputs: list[dict[str, Any]], criterion: Any) -> None:
        """The criterion's metrics, and ROUGE."""
        super().reduce_metrics(logging_outputs, criterion)
        log_rouge(logging_outputs)

    # --- python -m fairseq_switchdec predict ---

    @staticmethod
    def add_predict_args(parser: ArgumentParser) -> None:
        """Options of ``predict`` that only this task has."""
        add_predict_args(parser)

    def build_predictor(self, args: Any, model: Any) -> GenerationPredictor:
        """What ``predict`` asks."""
        return GenerationPredictor(self, args, model)

    # --- running a trained model ---

    def input_ids(self, sample: dict[str, Any]) -> Tensor:
        """int64 (B,): the places of a batch's inputs in the data set, among the lines typed in, or in a hub call."""
        if sample.get("id") is None:
            batch_size = sample["net_input"]["src_tokens"].size(0)
            sample["id"] = torch.tensor(self.typed_ids[:batch_size])
            del self.typed_ids[:batch_size]
        ids: Tensor = sample["id"]
        return ids if self.caller_ids is None else self.caller_ids.to(ids.device)[ids]

    def build_generator(self, models: Any, args: Any, *rest: Any, **kwargs: Any) -> Any:
        """fairseq's generator; without the compiled extension, n-grams are blocked by tensor operations."""
        self.check_generation(models, args)
        if self.cfg.switch_report is not None and not self.report.run.get("model"):
            self.report.run |= run_settings(models[0], self.cfg, args)  # before its weights are packed
        guessing = any(hasattr(model.decoder, "lookup") for model in models) and getattr(args, "beam", 1) == 1
        if self.cfg.switch_lookup.isdecimal() and not guessing and not self.told:
            logger.warning(
                "--switch-lookup %s is for switchable models and --beam 1: nothing is guessed", self.cfg.switch_lookup
            )
            self.told = True
        for model in models:
            if hasattr(model, "pack"):
                model.pack(self.cfg.switch_precision)
                model.decoder.lookup = self.lookup
        if self.reports_reading(models[0]):
            self.report.compared = self.compare(models[0], args.beam)
        generator = super().build_generator(models, args, *rest, **kwargs)
        blocker = getattr(generator, "repeat_ngram_blocker", None)
        if blocker is not None and not blocker.use_extension:
            generator.repeat_ngram_blocker = NGramBlock(blocker.no_repeat_ngram_size)
        return generator

    def reports_reading(self, model: Any) -> bool:
        """Whether the report is to say what a policy's reading is worth: of inputs with targets, decided greedily."""
        wanted = self.cfg.switch_report is not None and self.cfg.switch_compare > 0
        targets = self.run_batches is not None and self.run_dataset.tgt is not None
        alike = not self.source.each  # budgets of its own are no reading
        return wanted and targets and alike and self.cfg.switch_decisions == "greedy" and not self.report.compared

    def compare(self, model: Any, beam: int) -> dict[int, dict[str, dict[str, float]]]:
        """`fairseq_switchdec.generation.reading.compare` for inputs spread over the whole run, of all its shards."""
        ids = np.sort(np.concatenate(self.run_batches))
        ids = ids[np.unique(np.linspace(0, len(ids) - 1, self.cfg.switch_compare).round().astype(int))]
        ids = ids[np.argsort(self.run_dataset.src_sizes[ids], kind="stable")]  # as long as each other, side by side
        logger.info("comparing decisions on the targets of %d inputs (--switch-compare)", len(ids))
        size = min(16, max(map(len, self.run_batches)))
        samples = [
            self.run_dataset.collater([self.run_dataset[int(index)] for index in ids[start : start + size]])
            for start in range(0, len(ids), size)
        ]
        if model.encoder.embed_tokens.weight.is_cuda:
            samples = utils.move_to_cuda(samples)
        objective = self.build_objective(LexicoPolicyCriterionConfig(policy_cost_beam=beam))
        return compare(model, objective, samples, self.cfg.seed, self.source.greedy)

    def check_generation(self, models: Any, args: Any) -> None:
        """Refuse what cannot work before generation starts.

        Raises:
            UserError: naming the flag.
        """
        switchable = [model for model in models if hasattr(model.encoder, "policy")]
        if not switchable:
            asked = self.cfg.switch_report is not None or bool(self.source.asked)
            if asked or self.cfg.switch_decisions not in ("greedy", "keep-all"):
                raise UserError(
                    "--switch-report, --switch-budget and --switch-decisions need a switchable checkpoint (--arch "
                    "switchable_...), or one of a plain BART that can run as such; --path names neither"
                )
            return
        check_lengths(args, min(model.max_decoder_positions() for model in models) - 1)
        for name in ("print_alignment", "replace_unk"):
            if getattr(args, name, None):
                raise UserError(
                    f"--{name.replace('_', '-')} needs attention weights, which switchable models do not give"
                )
        if any(model.encoder.space != switchable[0].encoder.space for model in switchable) or switchable != list(
            models
        ):
            raise UserError("--path: models of an ensemble must all be switchable and have the same decision space")
        if self.cfg.switch_report is not None and len(models) > 1:
            raise UserError("--switch-report describes one model: give one checkpoint to --path")
        if self.cfg.switch_report is not None and getattr(args, "score_reference", False):
            raise UserError("--switch-report describes generation: leave out --score-reference")
        for model in switchable:
            self.source.check(model.encoder.policy)
        if self.report.prices is not None:
            self.check_seconds(self.report.prices, switchable[0], args.beam)

    def check_seconds(self, seconds: Seconds, model: Any, beam: int) -> None:
        """Refuse ``--switch-seconds`` of something else.

        Raises:
            UserError: naming what differs.
        """
        weight, where = model.encoder.embed_tokens.weight, f"--switch-seconds {self.cfg.switch_seconds}"
        seconds.check_geometry(model.geometry, where)
        precision = "fp16" if weight.dtype == torch.float16 else self.cfg.switch_precision
        setting = {"machine": machine(weight.device), "precision": precision, "beam": beam}
        if self.run_batches is not None:
            setting["batch_size"] = max(map(len, self.run_batches))
        if not self.cfg.switch_seconds_force:
            seconds.check_setting(setting, where, "--switch-seconds-force")

    def inference_step(
        self, generator: Any, models: Any, sample: dict[str, Any], prefix_tokens: Any = None, constraints: Any = None
    ) -> Any:
        """Generate for a batch under its decisions, and report them; texts begin as the model's targets do."""
        encoder = models[0].encoder
        if not hasattr(encoder, "policy"):  # not a model of ours
            return super().inference_step(generator, models, sample, prefix_tokens, constraints)
        src_tokens = sample["net_input"]["src_tokens"]
        check_batch(generator, src_tokens)
        if prefix_tokens is None:
            prefix_tokens = models[0].openings.prefix(src_tokens, self.target_dictionary.bos())
        decisions = self.run_decisions(models[0], sample)
        greedy = None
        if not isinstance(decisions, Decisions) and len(models) == 1:
            decisions = greedy = GreedyRecorder(encoder.space, src_tokens.size(0), decisions.budgets)
        sample = {**sample, "net_input": {**sample["net_input"], "decisions": decisions}}
        start = time.perf_counter()
        hypotheses = super().inference_step(generator, models, sample, prefix_tokens, constraints)
        synchronize(src_tokens.device)
        seconds = time.perf_counter() - start
        if self.cfg.switch_report is not None:
            lengths = encoder.lengths(src_tokens, decoding_steps(hypotheses), generator.beam_size)
            policy_flops = encoder.policy.flops() if greedy is not None else 0
            ran = greedy.decisions if greedy is not None else decisions
            budgets = None if greedy is None else greedy.budgets
            ids, runs = self.input_ids(sample), models[0].decoder.runs
            self.report.add(ids, ran, models[0].geometry, lengths, policy_flops, seconds, budgets, runs)
        return hypotheses
