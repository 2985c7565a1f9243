"""The worker of the training benchmark: fairseq's own trainer, around stock BART or ours.

Ours trains two variants in turn with one trainer: on the keep-all path, and on learned decisions. For the latter the
policy is set, and held, so that its paths cost what is asked for (`set_policy`).
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from fairseq import options, tasks
from fairseq.data import LanguagePairDataset
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.trainer import Trainer
from torch import Tensor

import fairseq_switchdec.criterions
import fairseq_switchdec.tasks  # noqa: F401
from fairseq_switchdec.cost import Geometry, Lengths, cost
from fairseq_switchdec.decisions import Decisions, DecisionSpace
from fairseq_switchdec.policy import SwitchPolicy
from fairseq_switchdec.rl import SURVEY_INPUTS, PooledDeviation

from .measure import peak_bytes, reset_peak
from .setup import EOS, SPECIALS, Setup, sources

COST = 0.7
STRATEGY = 2  # of the tokens: drops the last 20 %
CERTAIN = 4.0  # logit of a decision that the policy is sure of
SURE_OF_TOKENS = 8.0  # the same for the strategy, beside six others


def path_of_cost(
    space: DecisionSpace, geometry: Geometry, lengths: Lengths, most: float, policy_flops: int
) -> Decisions:
    """Decisions for one input that cost ``most`` or little less: tokens dropped, and sublayers skipped one by one in a
    random but fixed order.
    """
    keep = torch.ones(1, space.num_sublayers, dtype=torch.bool)
    strategy = torch.full((1,), STRATEGY)
    columns = space.open_sublayers().nonzero().squeeze(1)
    for column in columns[torch.randperm(len(columns), generator=torch.Generator().manual_seed(0))]:
        if float(cost(geometry, space.decisions(keep, strategy), lengths, policy_flops)) <= most:
            break
        keep[0, column] = False
    return space.decisions(keep, strategy)


@torch.no_grad()
def set_policy(policy: SwitchPolicy, path: Decisions) -> None:
    """Make a new policy take a path, nearly always."""
    keep, strategy = policy.space.flat(path)
    policy.sublayer_heads[0].bias.copy_(torch.where(keep[0], CERTAIN, -CERTAIN))
    policy.token_head.bias.zero_()
    policy.token_head.bias[strategy] = SURE_OF_TOKENS


def tried_cost(policy: SwitchPolicy, geometry: Geometry, lengths: Lengths, floor: float, draws: int = 1000) -> float:
    """Mean cost of what training tries under a policy of one opinion: its path, with one decision changed.

    Args:
        lengths: of one input.
        draws: evenly spaced numbers that the changed decision is drawn by.
    """
    uniforms = ((torch.arange(draws) + 0.5) / draws).unsqueeze(1).expand(-1, 2)
    explore = PooledDeviation(uniforms, torch.zeros(draws, dtype=torch.bool), floor, policy.space, policy.stages)
    features = torch.zeros(draws, policy.networks[0][0].in_features)
    tried = policy.decide(0, features, explore, policy.space.keep_all(draws))
    repeated = Lengths(
        *(getattr(lengths, side).expand(draws) for side in ("source", "content", "target")), lengths.beam
    )
    return float(cost(geometry, tried, repeated, policy.flops()).mean())


class Training:
    """Answers what the training benchmark asks.

    Args:
        setup: of system ``training-stock`` or ``training-ours``.
    """

    def __init__(self, setup: Setup):
        self.setup = setup
        self.ours = setup.system == "training-ours"
        parser = options.get_training_parser()
        cfg = convert_namespace_to_omegaconf(options.parse_args_and_arch(parser, self.flags()))
        np.random.seed(cfg.common.seed)
        torch.manual_seed(cfg.common.seed)
        self.task = tasks.setup_task(cfg.task)
        model = self.task.build_model(cfg.model)
        model.load_state_dict(torch.load(setup.weights, weights_only=True))
        self.criterion = self.task.build_criterion(cfg.criterion)
        self.costs = self.settle(model) if self.ours else {}
        self.parameters = sum(parameter.numel() for parameter in model.parameters())
        self.trainer = Trainer(cfg, self.task, model, self.criterion)
        self.trainer.cuda_env = None  # or it would reset the peak of the memory after each update
        self.trainer.begin_epoch(1)

    def flags(self) -> list[str]:
        """The command line: the README's recipe; a learning rate of 0 holds the policy where it is set."""
        setup, shape = self.setup, self.setup.shape
        flags = [setup.folder, *"--source-lang source --target-lang target --share-all-embeddings".split()]
        for side in ("encoder", "decoder"):
            flags += [f"--{side}-layers", str(shape.layers), f"--{side}-attention-heads", str(shape.heads)]
            flags += [f"--{side}-embed-dim", str(shape.dim), f"--{side}-ffn-embed-dim", str(shape.ffn_dim)]
        flags += "--max-source-positions 1024 --max-target-positions 1024 --max-tokens 1000000".split()
        flags += "--optimizer adam --lr 3e-5 --clip-norm 0.1 --dropout 0.1 --attention-dropout 0.1".split()
        flags += ["--lr-scheduler", "fixed", "--label-smoothing", "0.1", "--seed", str(setup.seed)]
        if self.ours:
            flags += "--task switchable_task --arch switchable_bart --criterion lexico_policy_criterion".split()
            flags += "--policy-lr 0 --policy-statistics-inputs 0".split()
        else:
            flags += "--task translation --arch bart_large --criterion label_smoothed_cross_entropy".split()
        return [
            *flags,
            *(["--cpu"] if setup.device == "cpu" else []),
            *(["--fp16"] if setup.precision == "fp16" else []),
        ]

    def settle(self, model: Any) -> dict[str, float]:
        """Set the policy; what its paths cost."""
        one, config, policy = torch.ones(1, dtype=torch.long), self.criterion.cfg, model.encoder.policy
        source, target = one * self.setup.src_len, one * self.setup.steps
        generated = Lengths(source, source - 2, target, config.policy_cost_beam)
        forced = Lengths(source, source - 2, target, incremental=False)
        path = path_of_cost(model.encoder.space, model.geometry, generated, COST, policy.flops())
        set_policy(policy, path)
        return {
            "greedy": float(cost(model.geometry, path, generated, policy.flops())),
            "tried": tried_cost(policy, model.geometry, generated, config.policy_floor),
            "greedy_training_flops_share": float(cost(model.geometry, path, forced, policy.flops())),
            "keep_all_share": config.policy_keep_all_share,
        }

    def answer(self, do: str, **request: Any) -> dict[str, Any]:
        """One reply to one request."""
        return getattr(self, do)(**request)

    def describe(self) -> dict[str, Any]:
        """Sizes, and the costs of the policy's paths."""
        policy = sum(p.numel() for p in self.trainer.model.encoder.policy.parameters()) if self.ours else 0
        return {"parameters": self.parameters, "policy_parameters": policy, "costs": self.costs}

    def step(self, number: int, batch: int, decisions: str | None = None) -> dict[str, Any]:
        """One update, forward to optimizer: its seconds, and its peak of memory.

        Args:
            number: which batch; both systems see the same.
            decisions: ``--policy-decisions``, of ours.
        """
        if decisions is not None:
            self.criterion.cfg.policy_decisions = decisions
        if self.ours:  # what a training's first inputs try besides is over after a few updates
            self.trainer.model.learner_state.surveyed.fill_(SURVEY_INPUTS)
        sample = self.sample(number, batch)
        reset_peak(self.setup.device)
        self.synchronize()
        start = time.perf_counter()
        self.trainer.train_step([sample])
        self.synchronize()
        seconds = time.perf_counter() - start
        return {"seconds": seconds, "peak": peak_bytes(self.setup.device)}

    def synchronize(self) -> None:
        """Wait for a GPU."""
        if self.setup.device == "cuda":
            torch.cuda.synchronize()

    def sample(self, number: int, batch: int) -> dict[str, Any]:
        """A batch as fairseq's data set collates it."""
        rng = np.random.default_rng([self.setup.seed, number])
        targets = rng.integers(SPECIALS, self.setup.shape.vocabulary, (batch, self.setup.steps))
        targets[:, -1] = EOS
        rows: list[list[Tensor]] = [list(torch.from_numpy(x)) for x in (self.sources(number, batch), targets)]
        sides = [(part, [len(row) for row in part], self.task.source_dictionary) for part in rows]
        dataset = LanguagePairDataset(*sides[0], *sides[1])
        sample = dataset.collater([dataset[row] for row in range(batch)])
        sample["id"] += number * batch
        return sample

    def sources(self, number: int, batch: int) -> np.ndarray:
        """Other sources for every batch."""
        return sources(self.setup, (number + 1) * batch)[-batch:]
