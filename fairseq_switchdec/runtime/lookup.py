"""Source lookup: greedy decoding guesses tokens from the source and verifies several of them in one run of the decoder.

A summary copies from its source and repeats itself. Where its last tokens occurred before, what followed them there is
a guess of what comes next (prompt lookup; Saxena 2023), and a run that reads the guesses behind the newest token gives
the logits after each of them, for hardly more than the time of reading the weights once. Those up to the first wrong
guess are what step-by-step decoding would have computed (Leviathan et al. 2023).

fairseq's generator need not know. It asks for one step after another and is answered from what was computed ahead, for
as long as it takes the tokens that were guessed. So whatever it does with the logits, block n-grams, force a prefix or
sample, the output is its own; a wrong guess costs time and changes nothing. Each input of a batch is as far ahead as
its guesses were right.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import UserError
from .cache import DecoderCache

#: Of how many tokens occurrences are looked for, the most first, and up to how many are compared.
SIZES, LONGEST = (3, 2, 1), 8

#: Steps that an input is ahead at most, and all of a batch together: each holds its logits.
AHEAD, HELD = 32, 512

#: ``--switch-lookup N`` at most.
MOST = 31

#: How likely the token after an occurrence of so many tokens is right, before anything is known of a batch (about as
#: summaries of news and dialogues have it), and how many guesses that is worth.
ODDS, WORTH = (0.0, 0.2, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85), 8.0
#: How much it takes to doubt all guesses, or their use: in right guesses, or in steps.
DOUBT = 4.0


@dataclass(frozen=True)
class Lookup:
    """How much is guessed.

    Attributes:
        most: tokens guessed in a run, at most.
        price: of one more row in a run, as a share of the time to read the weights: a guess is made where its chances
            are worth that. 0: wherever there is an occurrence.
    """

    most: int = 15
    price: float = 0.06  # BART-large on two cores: 0.05 in int8, 0.06 in fp32, 0.02 in bf16

    @classmethod
    def parse(cls, text: str) -> Lookup | None:
        """What ``--switch-lookup`` says; None: off.

        Raises:
            UserError: it says something else.
        """
        if text in ("auto", "off"):
            return cls() if text == "auto" else None
        if not text.isdecimal() or not 1 <= int(text) <= MOST:
            raise UserError(f"--switch-lookup {text!r} must be auto, off, or tokens to guess at a time, 1 to {MOST}")
        return cls(int(text), 0.0)


class Text:
    """A source and what follows it, and where the last few tokens of it first occurred: mostly in the source, while the
    latest occurrence of what was just copied is the copy, after which little comes.
    """

    def __init__(self, source: Sequence[int]):
        self.tokens: list[int] = []
        self.followers: dict[tuple[int, ...], int] = {}  # some tokens -> the place after they first occurred
        for token in source:
            self.append(token)

    def append(self, token: int) -> None:
        """The next token."""
        place = len(self.tokens)
        for size in SIZES:
            if size <= place and self.after(size) is None:
                self.followers[tuple(self.tokens[place - size :])] = place
        self.tokens.append(token)

    def cut(self, length: int) -> None:
        """Only the first so many tokens are left."""
        del self.tokens[length:]

    def after(self, size: int) -> int | None:
        """The place after the first occurrence of the last so many tokens, before this one."""
        length = len(self.tokens)
        some = self.tokens[length - size :]
        place = self.followers.get(tuple(some), length)
        # What stood there may have been cut.
        return place if place < length and self.tokens[place - size : place] == some else None

    def guesses(self, most: int) -> tuple[int, list[int]]:
        """How many of the last tokens occurred before, and the tokens that followed there, at most so many."""
        length = len(self.tokens)
        for size in SIZES:
            place = self.after(size) if size <= length else None
            if place is not None:
                while size < min(LONGEST, place) and self.tokens[place - size - 1] == self.tokens[length - size - 1]:
                    size += 1
                return size, self.tokens[place : place + most]
        return 0, []


class Odds:
    """How likely guesses are right, by the number of tokens that occurred before; learned from a batch's own.

    What is thought of a number that was seldom tried falls with how the others do: some texts copy nothing.
    """

    def __init__(self) -> None:
        self.right, self.made = [0.0] * len(ODDS), [0.0] * len(ODDS)
        self.found = self.expected = DOUBT  # right ones of all, and what was thought of them
        self.taken = self.known = WORTH  # tokens that the generator took, of those known ahead

    def chances(self, size: int, count: int) -> list[float]:
        """That the first, the first two, ... of so many guesses after an occurrence of ``size`` tokens are of use."""
        chances, chance = [], self.taken / self.known
        worth = WORTH * min(1.0, self.found / self.expected)
        for place in range(count):
            matched = min(size + place, LONGEST)
            chance *= (self.right[matched] + worth * ODDS[matched]) / (self.made[matched] + WORTH)
            chances.append(chance)
        return chances

    def learn(self, size: int, right: int, made: int) -> None:
        """Of some guesses the first so many were right."""
        for place in range(min(right + 1, made)):
            matched = min(size + place, LONGEST)
            self.made[matched] += 1
            self.right[matched] += place < right
            self.expected += ODDS[matched]
            self.found += place < right


class Row:
    """One input's decoding.

    Attributes:
        place: of the input in its batch.
        text: the source, the tokens that the generator took, and those computed ahead.
        taken: length of the first two.
        known: logits (V,) of this step and those ahead.
        guess: the most likely token after the last of them.
        inputs: what the next run reads: a token whose logits are not known, and guesses; nothing where it has enough.
        size: tokens whose occurrence the guesses come from.
    """

    def __init__(self, source: Sequence[int], place: int):
        self.place = place
        self.text = Text(source)
        self.taken = len(source)
        self.known: deque[Tensor] = deque()
        self.guess = 0
        self.size = 0
        self.inputs: list[int] = []

    def take(self, token: int) -> bool:
        """The generator took a token; returns whether what was computed ahead holds."""
        if self.known:
            self.known.popleft()
        holds = not self.known or self.text.tokens[self.taken] == token
        if not holds:
            self.known.clear()
        if not self.known:
            self.text.cut(self.taken)
            self.text.append(token)
        self.taken += 1
        return holds

    def prepare(self, room: int, most: int, end: int) -> None:
        """Choose what a run reads: the first token whose logits are not known, and guesses.

        Args:
            room: steps that may be known.
            most: guesses.
            end: ``</s>``, after which nothing comes.
        """
        self.size, self.inputs = 0, []
        ahead = len(self.known)
        if ahead >= room or (ahead and self.guess == end):
            return
        if ahead:
            self.text.append(self.guess)
        self.size, guesses = self.text.guesses(min(most, room - ahead - 1))
        self.inputs = [self.text.tokens[-1], *guesses]

    def verify(self, logits: Tensor, likely: list[int]) -> int:
        """Keep what a run computed of the inputs, (n, V), and the most likely tokens after each, as far as it holds.

        Returns:
            the number of inputs that hold.
        """
        right = 1
        while right < len(self.inputs) and likely[right - 1] == self.inputs[right]:
            right += 1
        for token in self.inputs[1:right]:
            self.text.append(token)
        self.known.extend(logits[:right].clone().unbind())  # a view would hold the logits of the whole run
        self.guess = likely[right - 1]
        return right


class Lookahead:
    """What is known ahead in one decoding of a batch, one hypothesis an input.

    Args:
        sources: tokens of each.
        lookup: how much is guessed.
        longest: target, in steps.
        end: ``</s>``.

    Attributes:
        runs: of the decoder while each input was written.
        gained: steps that took no run; ``hoped``, how many they would have been if all inputs had got as far ahead as
            they did on average: a batch waits for its slowest one.
    """

    def __init__(self, sources: Sequence[Sequence[int]], lookup: Lookup, longest: int, end: int):
        self.rows = [Row(source, place) for place, source in enumerate(sources)]
        self.runs = [0] * len(sources)
        self.lookup = lookup
        self.longest = longest
        self.end = end
        self.odds = Odds()
        self.gained = self.hoped = DOUBT
        self.step = 0

    def answer(self, newest: Tensor, run: Callable[[Tensor, Tensor], Tensor], cache: DecoderCache) -> Tensor:
        """The logits of a step, (B, V).

        Args:
            newest: int64 (B,), the tokens that the generator took.
            run: the decoder: tokens, int64 (B, n), and the steps that read them to logits, (B, n, V).
            cache: its keys.
        """
        held = [row.take(token) for row, token in zip(self.rows, newest.tolist())]
        if not all(held):
            steps = [self.longest if holds else self.step for holds in held]
            cache.forget(torch.tensor(steps, device=newest.device))
        ready = [bool(row.known) for row in self.rows]
        self.odds.known += len(ready) - held.count(True) + ready.count(True)
        self.odds.taken += ready.count(True)
        if all(ready):
            self.gained += 1
        else:
            self._run(newest.device, run, cache)
        self.step += 1
        return torch.stack([row.known[0] for row in self.rows])

    def room(self) -> int:
        """How many steps of an input may be known."""
        return min(self.longest - self.step, AHEAD, max(2, HELD // len(self.rows)))

    def _run(self, device: torch.device, run: Callable[[Tensor, Tensor], Tensor], cache: DecoderCache) -> None:
        rows = self.rows
        for row in rows:
            row.prepare(self.room(), self.lookup.most, self.end)
        width = self._width()
        tokens, steps = [], []
        for row in rows:
            row.inputs = row.inputs[:width]
            filling = row.inputs[-1:] or row.text.tokens[-1:]
            tokens.append(row.inputs + filling * (width - len(row.inputs)))
            first = self.step + len(row.known)
            steps.append([min(first + place, self.longest - 1) for place in range(width)])
        logits = run(torch.tensor(tokens, device=device), torch.tensor(steps, device=device))
        right = []
        for row, part, likely in zip(rows, logits, logits.argmax(-1).tolist()):
            right.append(row.verify(part, likely) if row.inputs else 0)
            self.runs[row.place] += 1
            if len(row.inputs) > 1:
                self.odds.learn(row.size, right[-1] - 1, len(row.inputs) - 1)
        self.hoped += sum(max(0, count - 1) for count in right) / len(rows)
        cache.close(torch.arange(width, device=device) < torch.tensor(right, device=device).unsqueeze(1))

    def _width(self) -> int:
        """How many tokens of an input a run reads: as long as one more for all of them is worth its price.

        Only inputs of which nothing is known are worth one: the others are ahead of them already.
        """
        most = max(len(row.inputs) for row in self.rows) - 1
        if not self.lookup.price:
            return 1 + most
        waiting = [row for row in self.rows if not row.known]
        chances = [self.odds.chances(row.size, len(row.inputs) - 1) for row in waiting]
        price = self.lookup.price * len(self.rows)
        least = price / (1 + price) * len(waiting) * max(1.0, self.hoped / self.gained)
        for place in range(most):
            if sum(each[place] for each in chances if place < len(each)) < least:
                return 1 + place
        return 1 + most

    def select(self, new_order: Tensor) -> None:
        """Follow the generator: row r continues row ``new_order[r]``, int64 (B',)."""
        if len(new_order) < len(self.rows):
            self.rows = [self.rows[row] for row in new_order.tolist()]
            self.gained = self.hoped = DOUBT  # it may have been the slowest one
