"""``--switch-decisions``: what each input of a run is decided to skip."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..config import RUN_DECISIONS, SwitchOptions, check_range
from ..decisions import Decisions, DecisionSpace
from ..errors import UserError
from ..policy import DecisionDistribution, input_uniforms, random_decisions


class GreedyRecorder:
    """Chooses greedily and remembers what was decided, for the report; a `fairseq_switchdec.policy.Chooser`.

    Args:
        batch_size: B.
    """

    def __init__(self, space: DecisionSpace, batch_size: int):
        self.space = space
        self.keep = torch.ones(batch_size, space.num_sublayers, dtype=torch.bool)
        self.strategy = torch.zeros(batch_size, dtype=torch.long)

    def __call__(self, distribution: DecisionDistribution, columns: Tensor) -> tuple[Tensor, Tensor | None]:
        keep, strategy = distribution.greedy()
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
        UserError: an unknown choice, or a decisions file that cannot be read, before any model is loaded.
    """

    def __init__(self, options: SwitchOptions):
        self.choice = options.switch_decisions
        self.seed = options.seed
        self.random_keep = options.switch_random_keep
        check_range("switch_random_keep", self.random_keep, "in [0, 1]", lambda value: 0 <= value <= 1)
        self.entries = None if self.choice in RUN_DECISIONS else read_entries(self.choice)
        self.table: dict[int, Decisions] = {}

    def __call__(
        self, space: DecisionSpace, ids: Tensor, greedy_of_all: Callable[[], dict[int, Decisions]]
    ) -> Decisions | None:
        """The decisions of some inputs, int64 (B,) ids; None = greedy.

        Args:
            greedy_of_all: greedy decisions of every input of the run, for ``shuffled``; called once.
        """
        if self.choice == "greedy":
            return None
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

    def check(self, space: DecisionSpace) -> None:
        """Refuse a decisions file that does not fit a model, before generation starts."""
        if self.entries is not None:
            self.forced(space)

    def forced(self, space: DecisionSpace) -> Decisions:
        """The file's entries, taken in turn by input id.

        Raises:
            UserError: an entry does not fit the model.
        """
        assert self.entries is not None
        try:
            return space.from_json(self.entries)
        except ValueError as error:
            raise UserError(f"--switch-decisions {self.choice}: {error} (this model has {space.in_words()})") from None


def read_entries(path: str) -> list[Any]:
    """The objects of a decisions file: one, or a list of them.

    Raises:
        UserError: no such file, or not JSON.
    """
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    except OSError as error:
        raise UserError(
            f"--switch-decisions {path!r} is neither {', '.join(RUN_DECISIONS)} nor a readable file ({error.strerror})"
        ) from None
    except ValueError as error:
        raise UserError(f"--switch-decisions {path}: not JSON ({error})") from None
    entries = content if isinstance(content, list) else [content]
    if not entries:
        raise UserError(f"--switch-decisions {path}: the list is empty")
    return entries


def permuted(decisions: dict[int, Decisions], seed: int) -> dict[int, Decisions]:
    """Every input gets another's decisions: a random cycle through all inputs."""
    ids = sorted(decisions)
    order = torch.randperm(len(ids), generator=torch.Generator().manual_seed(seed)).tolist()
    return {ids[here]: decisions[ids[there]] for here, there in zip(order, order[1:] + order[:1])}
