"""``--criterion lexico_policy_criterion``: Algorithm 1's two losses from one pass over a batch."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from fairseq import utils
from fairseq.criterions import FairseqCriterion, register_criterion
from fairseq.logging import metrics
from torch import Tensor

from ..config import (
    TRAINING_DECISIONS,
    LexicoPolicyCriterionConfig,
    build_rule,
    check_distributed,
    check_learning_options,
    estimator,
)
from ..cost import Skipped, cost, expected_cost, parts_of_cost, same_path
from ..decisions import NUM_TOKEN_STRATEGIES, Decisions, DecisionSpace
from ..dial import AUTO
from ..errors import UserError
from ..forced import forced, read_entries
from ..policy import GreedyChoice, SwitchPolicy, input_uniforms, random_decisions
from ..rl import (
    SURVEY_INPUTS,
    BudgetRule,
    Evidence,
    Exploration,
    OneDeviation,
    PolicyLearner,
    PooledDeviation,
    SampledPaths,
    Tries,
    Weights,
    policy_gradients,
    price,
    skips,
)
from ..seconds import Seconds
from .budgets import check_reachable, knot_costs
from .objective import PathLoss

logger = logging.getLogger(__name__)

#: Marks the sums of `PathLoss.measures` in what is logged.
MEASURE = "measure_"


@dataclass(frozen=True)
class Rollout:
    """One training batch: what trains the model, what trains the policy, what is logged."""

    loss: Tensor
    sample_size: int
    log: dict[str, Any]
    evidence: Evidence | None


@register_criterion("lexico_policy_criterion", dataclass=LexicoPolicyCriterionConfig)
class LexicoPolicyCriterion(FairseqCriterion):
    """Trains the model on sampled paths, and gathers the policy's gradients on the way.

    In training, `rollout` measures the path that each input runs (with gradient; most try another than the greedy one)
    and its greedy path (without, the self-critical baseline); of the first inputs, estimator ``pooled`` also measures
    every token strategy. A share of the inputs runs the keep-all path: it keeps the full model good and its loss bounds
    the greedy path's. In validation, the criterion reports the greedy path (or what ``--switch-decisions`` asks for)
    and the keep-all path beside it.

    Raises:
        UserError: options that cannot be meant, a task or a model that does not switch.
    """

    def __init__(self, cfg: LexicoPolicyCriterionConfig, task: Any):
        super().__init__(task)
        check_learning_options(cfg)
        check_distributed(cfg)
        if not hasattr(task, "build_objective"):
            raise UserError(
                "--criterion lexico_policy_criterion needs --task switchable_task, or another switchable_ one"
            )
        self.cfg = cfg
        self.objective = task.build_objective(cfg)
        self.rule = build_rule(cfg)
        self.learner: PolicyLearner | None = None
        #: Of ``--policy-decisions FILE``, and as decisions of the model.
        self.entries: list[Any] | None = None
        self.forced: Decisions | None = None
        choice = cfg.policy_decisions
        if choice in TRAINING_DECISIONS:
            return
        if task.trains or (task.source.choice == "greedy" and os.path.exists(choice)):
            self.entries = read_entries(choice, "--policy-decisions", TRAINING_DECISIONS)
        elif task.source.choice == "greedy":
            logger.warning(
                "the model was trained with --policy-decisions %s, which is not here: it is validated as "
                "--switch-decisions says", choice,
            )  # fmt: skip

    def train(self, mode: bool = True) -> LexicoPolicyCriterion:
        """fairseq's trainer calls this once before an update's first micro-batch, also after an update that was skipped
        because its gradients overflowed: what that one gathered is forgotten.
        """
        if self.learner is not None:
            self.learner.reset()
        return super().train(mode)

    def forward(self, model: Any, sample: dict[str, Any], reduce: bool = True) -> tuple[Tensor, int, dict[str, Any]]:
        """fairseq's call: loss, sample size, logging output."""
        if model.training:
            rollout = self.rollout(model, sample, update_num=0)
            return rollout.loss, rollout.sample_size, rollout.log
        self.require_switchable(model)
        decisions = self.task.run_decisions(model, sample)
        dial = model.encoder.policy.dial
        if isinstance(decisions, GreedyChoice) and decisions.budgets is None and dial is not None and self.learner:
            decisions = GreedyChoice(dial.in_turn(self.task.input_ids(sample)))  # validation of a training
        path = self.objective.loss(model, sample, decisions)
        keep_all = self.objective.loss(model, sample, model.encoder.space.keep_all(len(path.decisions)))
        log = self.log_path(model, sample, path) | self.log_keep_all(keep_all, slice(None))
        if isinstance(decisions, GreedyChoice):
            log |= self.log_budgets(model, sample, path, decisions.budgets)
        log |= {"loss": path.total.detach(), "nll_loss": (path.quality * path.weight).sum()}
        return path.total, log["sample_size"], log

    def rollout(self, model: Any, sample: dict[str, Any], update_num: int) -> Rollout:
        """Algorithm 1's evidence from one micro-batch.

        Args:
            sample: with ``id``, on which the sampled decisions depend besides the seed and ``update_num``.
        """
        self.require_switchable(model)
        policy, options = model.encoder.policy, self.cfg
        numbers = policy.space.num_sublayers + 1
        uniforms = input_uniforms(options.seed, update_num, sample["id"], numbers + 2)
        keep_all = uniforms[:, numbers] < (options.policy_keep_all_share if self.entries is None else 0)
        budgets = None if policy.dial is None else policy.dial.draw(uniforms[:, numbers + 1], keep_all)
        decisions = self.training_decisions(policy, sample["id"], uniforms[:, :numbers], keep_all, budgets, update_num)
        sampled = self.objective.loss(model, sample, decisions)
        log: dict[str, Any] = {"loss": sampled.total.detach(), "nll_loss": (sampled.quality * sampled.weight).sum()}
        evidence = None
        shown = sampled
        if not isinstance(decisions, Decisions):
            if update_num == 0:
                lengths = self.objective.lengths(model, sample)
                check_reachable(options, policy, self.objective.prices(model), lengths)
            with torch.no_grad():
                shown = self.objective.loss(model, sample, self.greedy_decisions(policy, sampled, budgets))
                survey = self.survey(model, sample, decisions, shown)
            evidence = self.gather(model, sample, decisions, sampled, shown, keep_all, survey, log)
            log["greedy_nll_loss"] = (shown.quality * shown.weight).sum()
        log |= self.log_keep_all(sampled, keep_all.to(sampled.quality.device))
        log |= self.log_path(model, sample, shown)
        return Rollout(sampled.total, log["sample_size"], log, evidence)

    def training_decisions(
        self,
        policy: SwitchPolicy,
        ids: Tensor,
        uniforms: Tensor,
        keep_all: Tensor,
        budgets: Tensor | None,
        update_num: int,
    ) -> Decisions | Exploration:
        """What ``--policy-decisions`` trains the model on.

        As the policy's learning rate falls, fewer inputs of estimator ``pooled`` try another path than the greedy one,
        which is what will run.
        """
        choice, space, floor = self.cfg.policy_decisions, policy.space, self.cfg.policy_floor
        if self.entries is not None:
            return self.forced_decisions(space, ids)
        if choice == "learned" and estimator(self.cfg) == "local":
            return OneDeviation(uniforms, keep_all, floor, space, policy.stages, budgets)
        if choice == "learned" and estimator(self.cfg) == "pooled":
            deviating = uniforms[:, 2] >= (self.progress(update_num) or 0.0)
            return PooledDeviation(uniforms, keep_all, floor, space, policy.stages, budgets, deviating)
        if choice == "learned":
            return SampledPaths(uniforms, keep_all, floor, budgets)
        if choice == "random":
            keep, strategy = space.flat(random_decisions(space, uniforms, self.cfg.policy_random_keep))
            return space.decisions(keep | keep_all.unsqueeze(1), strategy.masked_fill(keep_all, 0))
        return space.keep_all(len(keep_all))

    def forced_decisions(self, space: DecisionSpace, ids: Tensor) -> Decisions:
        """Of ``--policy-decisions FILE``, in turn by input id, int64 (B,)."""
        if self.forced is None:
            assert self.entries is not None
            self.forced = forced(space, self.entries, f"--policy-decisions {self.cfg.policy_decisions}")
        return self.forced.select(ids.cpu() % len(self.forced))

    def greedy_decisions(
        self, policy: SwitchPolicy, sampled: PathLoss, budgets: Tensor | None
    ) -> Decisions | GreedyChoice:
        """The greedy path of the same inputs; later stages read what the greedy path itself computes."""
        if policy.per_layer:
            return GreedyChoice(budgets)
        keep, tokens = policy(sampled.features, budgets).greedy()
        return policy.space.decisions(keep, tokens)

    def survey(
        self, model: Any, sample: dict[str, Any], exploration: Exploration, greedy: PathLoss
    ) -> tuple[Tensor, Tensor] | None:
        """What every token strategy but the greedy path's skips, float64 (6 B, D), and loses, float64 (6 B,).

        Of the inputs that begin a training with estimator ``pooled``; None for later ones.
        """
        space = model.encoder.space
        if not isinstance(exploration, PooledDeviation) or not space.token_open:
            return None
        if float(model.learner_state.surveyed) >= SURVEY_INPUTS:
            return None
        keep, strategy = space.flat(greedy.decisions)
        lengths, reference, found = self.objective.lengths(model, sample), skips(space, greedy.decisions), []
        for step in range(1, NUM_TOKEN_STRATEGIES):
            path = space.decisions(keep, (strategy + step) % NUM_TOKEN_STRATEGIES)
            worse = self.objective.loss(model, sample, path).quality.cpu() - greedy.quality.cpu()
            worse = worse * ~same_path(path, greedy.decisions, lengths).cpu()
            found.append((skips(space, path) - reference, worse.double()))
        differences, losses = zip(*found)
        return torch.cat(differences), torch.cat(losses)

    def gather(
        self,
        model: Any,
        sample: dict[str, Any],
        exploration: Exploration,
        sampled: PathLoss,
        greedy: PathLoss,
        keep_all: Tensor,
        survey: tuple[Tensor, Tensor] | None,
        log: dict[str, Any],
    ) -> Evidence:
        """The policy's evidence: advantages over the greedy path (Eq. 5), and the constraint's value.

        Args:
            exploration: how ``sampled`` was chosen.
            keep_all: bool (B,), inputs that ran the keep-all path instead.
            survey: see `survey`.
            log: gets the entropy, the reward and the advantage's moments.
        """
        policy, options = model.encoder.policy, self.cfg
        prices, lengths = self.objective.prices(model), self.objective.lengths(model, sample)
        costs = [cost(prices, path.decisions, lengths, policy.flops()) for path in (sampled, greedy)]
        sampled_cost, greedy_cost = (value.to(sampled.quality) for value in costs)
        explored = exploration.explored.cpu()
        rows, full = (each.to(sampled.quality.device) for each in (explored, keep_all))
        assert sampled.features is not None
        # Where both paths are one, their losses differ by rounding, which Adam would scale up to a step.
        other = ~same_path(sampled.decisions, greedy.decisions, lengths).to(rows.device)
        advantages = torch.stack([sampled.quality - greedy.quality, sampled_cost - greedy_cost], dim=1)
        tries = Tries(
            space=policy.space,
            decisions=sampled.decisions,
            advantages=advantages * (rows & other).unsqueeze(1),
            effects=model.learner_state.effects(policy.space),
            expected_cost=lambda keep, tokens: expected_cost(
                prices, policy.space, keep, tokens, lengths, policy.flops()
            ),
        )
        weights = torch.stack([~full, ~full, rows], dim=1).double()
        if policy.dial is not None:
            asked = policy.dial.columns(exploration.budgets).double()
            weights[:, [0, 2]] *= (asked @ price(model.learner_state.caution[0]).cpu()).to(weights).unsqueeze(1)
        odd = (sample["id"].to(rows.device) % 2).unsqueeze(1)
        gradients, half = policy_gradients(
            policy,
            sampled.features,
            lambda distribution: exploration.objectives(distribution, tries),
            torch.stack([weights, weights * odd]),
            exploration.budgets,
        )
        distribution = policy(sampled.features, exploration.budgets)
        if policy.dial is None:
            held = greedy_cost.sum().view(1), tries.expected_cost(*distribution.probabilities()).sum().view(1)
        else:
            held = knot_costs(policy, prices, lengths, sampled.features)
        bound = sampled.quality * (1 + options.policy_quality_slack) + options.policy_quality_slack_nats
        log |= {"decided": int((~keep_all).sum()), "sampled": int(explored.sum())}
        log |= self.log_reward(model, advantages * rows.unsqueeze(1), sampled.quality, sampled_cost, ~full)
        log |= self.log_budgets(model, sample, greedy, exploration.budgets)
        log["entropy"] = distribution.entropy(policy.space).sum()
        parts = torch.zeros_like(model.learner_state.mean_parts, device="cpu")
        if isinstance(self.rule, BudgetRule):
            parts = parts_of_cost(prices, policy.space, lengths, policy.flops()).sum(0)
        chosen, reference = (skips(policy.space, path.decisions) for path in (sampled, greedy))
        skipped, worse = (chosen - reference) * explored.unsqueeze(1), tries.advantages[:, 0].cpu().double()
        if survey is not None:
            skipped, worse = torch.cat([skipped, survey[0]]), torch.cat([worse, survey[1]])
        return Evidence(
            gradients=gradients,
            half=half,
            decided=log["decided"],
            sampled=log["sampled"],
            surveyed=0 if survey is None else len(rows),
            violation=float(((greedy.quality - bound) * full).sum()),
            compared=int(keep_all.sum()),
            quality=float(greedy.quality.sum()),
            cost=held[0],
            expected_cost=held[1],
            products=skipped.T @ skipped,
            losses=skipped.T @ worse,
            parts=parts,
            inputs=len(rows),
            features=sampled.features,
        )

    @staticmethod
    def log_reward(model: Any, advantages: Tensor, quality: Tensor, cost: Tensor, decided: Tensor) -> dict[str, Any]:
        """Eq. 4 with the current lambda, and the advantage of the reward over the greedy path's.

        Args:
            advantages: float32 (B, 2), loss and cost of the paths that were tried minus the greedy ones', else 0.
            quality: float32 (B,), loss of the paths that ran, nats a token.
            cost: float32 (B,), theirs.
            decided: bool (B,), inputs on a path of the policy's.
        """
        ratio = Weights(*model.learner_state.weights.tolist()).ratio
        advantage = -(advantages[:, 0] + ratio * advantages[:, 1])
        reward = -((quality + ratio * cost) * decided).sum()
        return {"reward": reward, "advantage": advantage.sum(), "advantage_square": advantage.square().sum()}

    def policy_step(self, model: Any, update_num: int) -> None:
        """theta <- theta - gamma e (Eq. 6), at the end of an update; every rank calls."""
        if self.cfg.policy_decisions != "learned":
            return
        learner = self.policy_learner(model, update_num)
        progress = self.progress(update_num)
        settled = 1.0 if progress is None else progress
        logged = learner.step(self.learning_rate(update_num), settled, self.task.sum_over_ranks)
        for name, value in logged.items():
            metrics.log_scalar(f"policy_{name}", value, round=4)

    def policy_learner(self, model: Any, update_num: int) -> PolicyLearner:
        """The learner, made when the model is on its device and a checkpoint has been loaded."""
        if self.learner is None:
            policy, state = model.encoder.policy, model.learner_state
            if update_num == 0:  # also with --reset-optimizer and --finetune-from-model
                state.restart()
            rate, inputs = self.cfg.policy_lr, self.cfg.policy_statistics_inputs
            self.learner = PolicyLearner(policy, state, self.rule, rate, inputs)
        return self.learner

    def learning_rate(self, update_num: int) -> float:
        """gamma_t: falls linearly to 0 while the policy learns; does not fall where training has no known length."""
        return self.cfg.policy_lr * (1 - (self.progress(update_num) or 0.0))

    def progress(self, update_num: int) -> float | None:
        """Share of the policy's updates that lie behind: it learns for 90 % of training, after which only caution moves
        it. None where training has no known length.
        """
        total = self.cfg.policy_total_updates or self.cfg.max_update
        return min(1.0, update_num / (0.9 * total)) if total > 0 else None

    def log_path(self, model: Any, sample: dict[str, Any], path: PathLoss) -> dict[str, Any]:
        """Sums over a batch of the cost, the skipped shares and the measures of a path."""
        lengths = self.objective.lengths(model, sample)
        skipped = Skipped.of(path.decisions, lengths)
        inputs, weight = len(path.decisions), self.objective.weight(sample)
        prices, policy_flops = self.objective.prices(model), model.encoder.policy.flops()
        log: dict[str, Any] = {}
        if isinstance(prices, Seconds):
            log["seconds_cost"] = cost(prices, path.decisions, lengths, policy_flops).sum()
        return {
            "ntokens": sample["ntokens"],
            "nsentences": inputs,
            "sample_size": inputs if self.cfg.sentence_avg else weight,
            "weight": weight,
            "cost": cost(self.objective.geometry(model), path.decisions, lengths, policy_flops).sum(),
            **log,
            "attention_skipped": skipped.attention.sum(),
            "ffn_skipped": skipped.ffn.sum(),
            "tokens_dropped": skipped.tokens.sum(),
            **{f"{MEASURE}{name}": values.sum() for name, values in path.measures.items()},
        }

    def log_budgets(self, model: Any, sample: dict[str, Any], path: PathLoss, budgets: Tensor | None) -> dict[str, Any]:
        """Sums over the inputs that were asked for a budget: of the budgets, and of what their paths cost."""
        if budgets is None:
            return {}
        policy, lengths = model.encoder.policy, self.objective.lengths(model, sample)
        costs = cost(self.objective.prices(model), path.decisions, lengths, policy.flops())
        asked = budgets.cpu() != AUTO
        return {
            "asked": int(asked.sum()),
            "budget": budgets.cpu()[asked].sum(),
            "budget_cost": costs[asked].sum(),
        }

    def log_keep_all(self, path: PathLoss, rows: Any) -> dict[str, Any]:
        """Sums over the inputs, chosen by ``rows``, that ran the keep-all path."""
        weight = path.weight[rows]
        return {
            "keep_all_nll_loss": (path.quality[rows] * weight).sum(),
            "keep_all_weight": weight.sum(),
            "keep_all_inputs": len(weight),
            **{f"{MEASURE}keep_all_{name}": values[rows].sum() for name, values in path.measures.items()},
        }

    def require_switchable(self, model: Any) -> None:
        """Refuse a model without a policy."""
        if not hasattr(model.encoder, "policy"):
            raise UserError("--criterion lexico_policy_criterion needs --arch switchable_bart, _gpt2, _t5 or _llama")

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        """All logged values are sums."""
        return True

    @classmethod
    def reduce_metrics(cls, logging_outputs: Sequence[dict[str, Any]]) -> None:
        """Aggregate a batch's or an epoch's logging outputs. Losses are in bits (a token), as fairseq's."""

        def total(key: str) -> float:
            return float(utils.item(sum(log.get(key, 0) for log in logging_outputs)))

        def log_ratio(name: str, numerator: str, denominator: str, scale: float = 1.0) -> None:
            count = total(denominator)
            if count > 0:
                metrics.log_scalar(name, total(numerator) / count * scale, count, round=4)

        bits = 1 / math.log(2)
        log_ratio("loss", "loss", "sample_size", bits)
        log_ratio("nll_loss", "nll_loss", "weight", bits)
        if total("decided") > 0:
            log_ratio("greedy_nll_loss", "greedy_nll_loss", "weight", bits)
        log_ratio("keep_all_nll_loss", "keep_all_nll_loss", "keep_all_weight", bits)
        for key in sorted({key for log in logging_outputs for key in log if key.startswith(MEASURE)}):
            name = key[len(MEASURE) :]
            log_ratio(name, key, "keep_all_inputs" if name.startswith("keep_all_") else "nsentences")
        if total("seconds_cost") > 0:
            log_ratio("seconds_cost", "seconds_cost", "nsentences")
        for name in ("cost", "attention_skipped", "ffn_skipped", "tokens_dropped"):
            log_ratio(name, name, "nsentences")
        for name in ("budget", "budget_cost"):
            log_ratio(name, name, "asked")
        metrics.log_derived("ppl", lambda meters: utils.get_perplexity(meters["nll_loss"].avg))
        if total("decided") > 0:
            log_ratio("policy_entropy", "entropy", "nsentences")
            log_ratio("reward", "reward", "decided")
            count = max(total("sampled"), 1)
            mean, square = total("advantage") / count, total("advantage_square") / count
            variance = square - mean**2 if square - mean**2 > 1e-6 * square else 0.0  # else it is rounding, of one try
            metrics.log_scalar("advantage_std", math.sqrt(variance), total("sampled"), round=4)
