"""``--switch-decisions`` and ``--switch-budget``: what each input of a run is decided to skip."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ..config import RUN_DECISIONS, SwitchOptions, check_range
from ..decisions import Decisions, DecisionSpace
from ..dial import AUTO, Dial
from ..errors import UserError
from ..forced import forced, read_entries
from ..policy import DecisionDistribution, GreedyChoice, SwitchPolicy, input_uniforms, random_decisions

#: Those that the policy makes.
POLICY_DECISIONS = ("greedy", "shuffled")


class GreedyRecorder(GreedyChoice):
    """Chooses greedily and remembers what was decided, for the report.

    Args:
        batch_size: B.
        budgets: see `fairseq_switchdec.policy.Chooser`.
    """

    def __init__(self, space: DecisionSpace, batch_size: int, budgets: Tensor | None = None):
        super().__init__(budgets)
        self.space = space
        self.keep = torch.ones(batch_size, space.num_sublayers, dtype=torch.bool)
        self.strategy = torch.zeros(batch_size, dtype=torch.long)

    def __call__(self, distribution: DecisionDistribution, columns: Tensor) -> tuple[Tensor, Tensor | None]:
        keep, strategy = super().__call__(distribution, columns)
        self.keep[:, columns] = keep.cpu()
        if strategy is not None:
            self.strategy = strategy.cpu()
        return keep, strategy

    @property
    def decisions(self) -> Decisions:
        """What the batch was decided to run."""
        return self.space.decisions(self.keep, self.strategy)


class DecisionSource:
    """Decisions by input id, whatever the batch an input comes in.

    Args:
        options: the task's.

    Raises:
        UserError: an unknown choice, or a file of decisions or budgets that cannot be read, before any model is loaded.
    """

    def __init__(self, options: SwitchOptions):
        self.choice = options.switch_decisions
        self.seed = options.seed
        self.random_keep = options.switch_random_keep
        check_range("switch_random_keep", self.random_keep, "in [0, 1]", lambda value: 0 <= value <= 1)
        files = self.choice not in RUN_DECISIONS
        self.entries = read_entries(self.choice, "--switch-decisions", RUN_DECISIONS) if files else None
        self.table: dict[int, Decisions] = {}
        #: `Dial` budgets: of all inputs, or of each; none where nobody asks.
        self.asked, self.each = read_budgets(options.switch_budget)
        if self.asked and self.choice not in POLICY_DECISIONS:
            raise UserError(
                f"--switch-budget {options.switch_budget} asks the policy, which --switch-decisions {self.choice} "
                "does not use: leave one of them out"
            )

    def __call__(
        self,
        space: DecisionSpace,
        ids: Tensor,
        greedy_of_all: Callable[[], dict[int, Decisions]],
        rows: Tensor | None = None,
    ) -> Decisions | GreedyChoice:
        """The decisions of some inputs, int64 (B,) ids, or how to make them.

        Args:
            greedy_of_all: greedy decisions of every input of the run, for ``shuffled``; called once.
            rows: what the user counts, where that is not every input; int64 (B,).
        """
        if self.choice == "greedy":
            return self.greedy(ids if rows is None else rows)
        if self.choice == "keep-all":
            return space.keep_all(len(ids))
        if self.choice == "random":
            return random_decisions(space, input_uniforms(self.seed, 0, ids, space.num_sublayers + 1), self.random_keep)
        if self.choice == "shuffled":
            if not self.table:
                self.table = permuted(greedy_of_all(), self.seed)
            return Decisions.cat([self.table[index] for index in ids.tolist()])
        forced = self.forced(space)
        return forced.select(ids.cpu() % len(forced))

    def greedy(self, ids: Tensor) -> GreedyChoice:
        """The policy's own decisions, at what is asked for.

        Raises:
            UserError: there are fewer budgets than inputs.
        """
        if not self.asked:
            return GreedyChoice()
        if not self.each:
            return GreedyChoice(torch.full((len(ids),), self.asked[0]))
        if len(ids) and int(ids.max()) >= len(self.asked):
            raise UserError(f"--switch-budget holds {len(self.asked)} budgets, but there are more inputs")
        return GreedyChoice(torch.tensor(self.asked)[ids.cpu()])

    def check_count(self, inputs: int) -> None:
        """Refuse budgets for more or fewer inputs.

        Raises:
            UserError: saying how many there are.
        """
        if self.each and len(self.asked) != inputs:
            raise UserError(f"--switch-budget holds {len(self.asked)} budgets, one a line: there are {inputs} inputs")

    @contextmanager
    def asking(self, budgets: Any, inputs: int) -> Iterator[None]:
        """Ask for other budgets for a while: a number, "auto", or a list of them, one for each input.

        Raises:
            UserError: they are none, or not as many as inputs.
        """
        before = self.asked, self.each
        several = isinstance(budgets, Sequence) and not isinstance(budgets, str)
        self.asked = [parse_budget(budget, "switch_budget") for budget in (budgets if several else [budgets])]
        self.each = several
        try:
            if several and len(budgets) != inputs:
                raise UserError(f"switch_budget: {len(budgets)} budgets for {inputs} sentences: give one for each")
            yield
        finally:
            self.asked, self.each = before

    @contextmanager
    def forcing(self, entries: Sequence[dict[str, Any]]) -> Iterator[None]:
        """Force decisions for a while: objects such as a file of ``--switch-decisions`` holds, taken in turn by input
        id.
        """
        before = self.choice, self.entries, self.asked, self.each
        self.choice, self.entries, self.asked, self.each = "forced", list(entries), [], False
        try:
            yield
        finally:
            self.choice, self.entries, self.asked, self.each = before

    def check(self, policy: SwitchPolicy) -> None:
        """Refuse decisions or budgets that do not fit a model, before generation starts.

        Raises:
            UserError: naming the flag.
        """
        if self.entries is not None:
            self.forced(policy.space)
        self.check_budgets(policy)

    def check_budgets(self, policy: SwitchPolicy) -> None:
        """Refuse what a policy cannot be asked for.

        Raises:
            UserError: naming the flag.
        """
        if self.asked or self.choice in POLICY_DECISIONS:
            check_budgets(policy.dial, self.asked)

    def forced(self, space: DecisionSpace) -> Decisions:
        """The file's entries, taken in turn by input id.

        Raises:
            UserError: an entry does not fit the model.
        """
        assert self.entries is not None
        return forced(space, self.entries, f"--switch-decisions {self.choice}")


def check_budgets(dial: Dial | None, asked: Sequence[float], name: str = "--switch-budget") -> None:
    """Refuse budgets that a policy cannot be asked for, or that it needs and nobody gives.

    Args:
        dial: the policy's.
        name: what the user gives budgets by, for messages.

    Raises:
        UserError: naming it.
    """
    if dial is None:
        if asked:
            raise UserError(
                f"{name}: this policy was not trained for a range of budgets: train it with --policy-flops-budget "
                "LOW:HIGH, such as 0.4:1.0"
            )
        return
    if not asked and not dial.auto:
        raise UserError(f"this policy decides for {dial.in_words()}: give {name}")
    for budget in asked:
        if not dial.holds(budget):
            word = "auto" if budget == AUTO else f"{budget:g}"
            raise UserError(f"{name} {word}: this policy was trained for {dial.in_words()}")


def parse_budget(text: Any, where: str, more: str = "") -> float:
    """A number in (0, 1], or `AUTO`.

    Raises:
        UserError: it is neither.
    """
    if text == "auto":
        return AUTO
    try:
        budget = float(text)
    except (TypeError, ValueError):
        budget = math.nan
    if not 0 < budget <= 1:
        raise UserError(f"{where} {text!r} must be in (0, 1], or auto{more}")
    return budget


def read_budgets(text: str | None) -> tuple[list[float], bool]:
    """What ``--switch-budget`` says: nothing, one budget, or those of a file; and whether it is one for each input.

    Raises:
        UserError: it is no budget, and no file of them.
    """
    if text is None:
        return [], False
    if not os.path.isfile(text) or re.fullmatch(r"auto|[0-9.]+", text):
        return [parse_budget(text, "--switch-budget", " (there is no such file either)")], False
    try:
        with open(text, encoding="utf-8") as file:
            lines = file.read().split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--switch-budget {text} cannot be read: {error}") from None
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        raise UserError(f"--switch-budget {text} is empty: it holds one budget a line")
    where = f"--switch-budget {text}, line"
    return [parse_budget(line.strip(), f"{where} {number}:") for number, line in enumerate(lines, start=1)], True


def permuted(decisions: dict[int, Decisions], seed: int) -> dict[int, Decisions]:
    """Every input gets another's decisions: a random cycle through all inputs."""
    ids = sorted(decisions)
    order = torch.randperm(len(ids), generator=torch.Generator().manual_seed(seed)).tolist()
    return {ids[here]: decisions[ids[there]] for here, there in zip(order, order[1:] + order[:1])}
