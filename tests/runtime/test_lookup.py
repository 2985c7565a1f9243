"""Source lookup without a model: guesses, chances, and a decoder that knows what comes next."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import Tensor

from fairseq_switchdec.errors import UserError
from fairseq_switchdec.runtime.lookup import AHEAD, HELD, LONGEST, MOST, ODDS, Lookahead, Lookup, Odds, Text

END, VOCABULARY = 2, 60


def test_what_the_option_says() -> None:
    assert Lookup.parse("auto") == Lookup() and Lookup.parse("off") is None
    assert Lookup.parse("1") == Lookup(1, 0.0) and Lookup.parse("31") == Lookup(MOST, 0.0)


@pytest.mark.parametrize("text", ["0", "32", "-1", "2.5", "on", "", "²"])
def test_nothing_else_can_be_said(text: str) -> None:
    with pytest.raises(UserError, match="--switch-lookup .* must be auto, off, or tokens to guess at a time, 1 to 31"):
        Lookup.parse(text)


def test_guesses_follow_the_longest_occurrence() -> None:
    text = Text([7, 8, 9, 10, 11, 5, 8, 9, 20, 21])
    text.append(7)
    assert text.guesses(3) == (1, [8, 9, 10])
    text.append(8)
    assert text.guesses(2) == (2, [9, 10]), "two tokens that occurred together, not the latest 8"
    text.append(9)
    assert text.guesses(9) == (3, [10, 11, 5, 8, 9, 20, 21, 7, 8])
    text.append(20)
    assert text.guesses(9) == (3, [21, 7, 8, 9, 20]), "8 9 20 is nearer than anything that follows 7 8 9"
    text.append(40)
    assert text.guesses(9) == (0, [])
    text.append(9)
    assert text.guesses(2) == (1, [10, 11]), "what followed first"


def test_an_occurrence_is_compared_as_far_as_it_goes() -> None:
    line = list(range(30, 50))
    text = Text([*line, 3, *line[:6]])
    assert text.guesses(1) == (6, [36])
    for token in line[6:12]:
        text.append(token)
    assert text.guesses(1) == (LONGEST, [42])


def test_a_text_that_was_cut_guesses_nothing_that_is_gone() -> None:
    text = Text([5, 6])
    for token in (7, 8, 7):
        text.append(token)
    assert text.guesses(5) == (1, [8, 7])
    text.cut(3)
    text.append(9)
    assert text.tokens == [5, 6, 7, 9]
    text.append(7)
    size, guesses = text.guesses(5)
    assert size == 1 and guesses == [9, 7], "what followed 7 was cut, 9 took its place"
    text = Text([10, 11, 12])
    for token in (20, 21, 22):
        text.append(token)
    text.cut(4)
    for token in (30, 31, 32, 33, 21):
        text.append(token)
    assert text.guesses(3) == (0, []), "21 never occurred before"
    for token in (40, 21):
        text.append(token)
    assert text.guesses(3) == (1, [40, 21])
    assert Text([]).guesses(4) == (0, [])


def test_chances_are_learned_from_what_came_of_guesses() -> None:
    odds = Odds()
    before = odds.chances(3, 4)
    assert before == sorted(before, reverse=True) and 0 < before[-1] < before[0] < 1
    odds.learn(3, 2, 4)  # two right, the third wrong, of the fourth nothing is known
    assert odds.made[3:7] == [1, 1, 1, 0] and odds.right[3:7] == [1, 1, 0, 0]
    after = odds.chances(3, 4)
    assert after[0] > before[0] and after[1] > before[1] and after[2] < after[1] * before[2] / before[1]
    for _ in range(20):
        odds.learn(1, 0, 1)
    assert odds.chances(6, 1)[0] < ODDS[6] / 1.5, "a text that copies no words will copy no phrases"
    after = odds.chances(3, 4)
    odds.known += 8
    assert odds.chances(3, 1)[0] == pytest.approx(after[0] / 2), "the generator takes half of what is known"


class Decoder:
    """Logits that name the next token of fixed targets; checks that each row reads its own past and nothing twice."""

    def __init__(self, targets: list[list[int]]) -> None:
        self.targets = targets
        self.places = list(range(len(targets)))  # of the rows that are left
        self.past: list[dict[int, int]] = [{} for _ in targets]
        self.shapes: list[tuple[int, int]] = []
        self.opened: tuple[Tensor, Tensor] | None = None

    def __call__(self, tokens: Tensor, steps: Tensor) -> Tensor:
        assert tokens.shape == steps.shape and len(tokens) == len(self.places) and self.opened is None
        self.shapes.append((tokens.size(0), tokens.size(1)))
        self.opened = tokens, steps
        logits = torch.zeros(*tokens.shape, VOCABULARY)
        for row, place in enumerate(self.places):
            target = [*self.targets[place], *[END] * MOST]  # guesses may go on after the end
            read = [END, *target]
            for column, step in enumerate(steps[row].tolist()):
                right = [tokens[row, c].item() == read[steps[row, c]] for c in range(column + 1)]
                following = target[step] if all(right) else (step + column) % VOCABULARY
                logits[row, column, following] = 1.0
        return logits

    @property
    def widths(self) -> list[int]:
        """Tokens of an input that each run read."""
        return [width for _, width in self.shapes]

    def close(self, stays: Tensor) -> None:
        assert self.opened is not None
        for row, place in enumerate(self.places):
            columns = torch.stack([*(part[row] for part in self.opened), stays[row]], dim=1)
            for token, step, kept in columns.tolist():
                if kept:
                    assert step == len(self.past[place]), "the next step, once"
                    self.past[place][step] = token
        self.opened = None

    def forget(self, steps: Tensor) -> None:
        for place, step in zip(self.places, steps.tolist()):
            self.past[place] = {known: token for known, token in self.past[place].items() if known < step}


def decode(
    lookup: Lookup, sources: list[list[int]], targets: list[list[int]], longest: int = 200
) -> tuple[Any, Decoder]:
    """As fairseq's generator does it: a step for all, finished inputs leave."""
    decoder = Decoder(targets)
    lookahead = Lookahead(sources, lookup, longest, END)
    written: list[list[int]] = [[] for _ in targets]
    newest = torch.full((len(targets),), END)
    while len(newest):
        found = lookahead.answer(newest, decoder, decoder).argmax(-1)  # type: ignore[arg-type]
        for place, token in zip(decoder.places, found.tolist()):
            assert [END, *written[place]] == [decoder.past[place][step] for step in range(len(written[place]) + 1)]
            written[place].append(token)
        left = found.ne(END).nonzero().squeeze(1)
        lookahead.select(left)
        decoder.places = [decoder.places[row] for row in left.tolist()]
        newest = found[left]
    assert written == targets
    return lookahead, decoder


def copying(seed: int, copied: float) -> tuple[list[int], list[int]]:
    """A source, and a target that copies so much of it in phrases."""
    rng = random.Random(seed)
    source = [rng.randrange(3, VOCABULARY) for _ in range(80)]
    target: list[int] = []
    while len(target) < 50:
        start, length = rng.randrange(70), rng.randint(3, 12)
        phrase = rng.random() < copied
        target += source[start : start + length] if phrase else [rng.randrange(3, VOCABULARY) for _ in range(length)]
    return source, [*target, END]


@pytest.mark.parametrize("lookup", [Lookup(), Lookup(1, 0.0), Lookup(7, 0.0), Lookup(MOST, 0.0)])
@pytest.mark.parametrize("inputs", [1, 5])
@pytest.mark.parametrize("copied", [0.0, 0.5, 1.0])
def test_the_text_is_the_same_whatever_is_guessed(lookup: Lookup, inputs: int, copied: float) -> None:
    sources, targets = map(list, zip(*(copying(seed, copied) for seed in range(inputs))))
    lookahead, decoder = decode(lookup, sources, targets)
    steps = max(map(len, targets))
    assert len(decoder.widths) <= steps and max(decoder.widths) <= 1 + lookup.most
    assert len(decoder.widths) == max(lookahead.runs) and all(0 < runs <= steps for runs in lookahead.runs)


def test_a_copied_text_takes_few_runs() -> None:
    source, target = copying(3, 1.0)
    lookahead, decoder = decode(Lookup(), [source], [target])
    assert lookahead.runs == [len(decoder.widths)] and lookahead.runs[0] < len(target) / 2


def test_guessing_stops_where_it_does_not_pay() -> None:
    """Tokens that occur again and again, and are never followed by the same."""
    rng = random.Random(4)
    source = [rng.randrange(3, VOCABULARY) for _ in range(300)]
    target = [*(rng.randrange(3, VOCABULARY) for _ in range(150)), END]
    _, decoder = decode(Lookup(), [source], [target])
    assert sum(decoder.widths[75:]) <= 1.1 * len(decoder.widths[75:]), "hardly any guess in the second half"
    _, always = decode(Lookup(7, 0.0), [source], [target])
    assert sum(always.widths) > 3 * len(always.widths)


def test_one_input_that_copies_is_no_reason_for_many_that_do_not() -> None:
    source, target = copying(3, 1.0)
    _, alone = decode(Lookup(), [source], [target])
    others = [copying(seed, 0.0) for seed in range(10, 25)]
    _, many = decode(Lookup(), [source, *(s for s, _ in others)], [target, *(t for _, t in others)])
    assert max(alone.widths) > 4 and max(many.widths[:40]) == 1, "of the last few inputs it may pay"


@pytest.mark.parametrize("copying_inputs, others", [(7, 1), (6, 2), (15, 1), (3, 1), (2, 2), (1, 1)])
def test_many_inputs_that_copy_wait_for_one_that_does_not(copying_inputs: int, others: int) -> None:
    """What they are ahead saves no run, so `auto` does not pay for it."""
    pairs = [copying(seed, 1.0) for seed in range(copying_inputs)] + [copying(50 + seed, 0.0) for seed in range(others)]
    sources, targets = map(list, zip(*pairs))

    def price(widths: list[tuple[int, int]]) -> float:
        return sum(1 + Lookup().price * rows * width for rows, width in widths)

    _, auto = decode(Lookup(), sources, targets)
    _, without = decode(Lookup(1, 1e9), sources, targets)
    assert {width for _, width in without.shapes} == {1} and price(auto.shapes) <= 1.04 * price(without.shapes)


def test_many_inputs_that_copy_go_ahead_together() -> None:
    sources, targets = map(list, zip(*(copying(seed, 1.0) for seed in range(8))))
    _, decoder = decode(Lookup(), sources, targets)
    assert len(decoder.widths) < 0.7 * max(map(len, targets))


def test_each_input_is_ahead_as_far_as_its_guesses_were_right() -> None:
    pairs = [copying(3, 1.0), copying(4, 1.0), copying(5, 0.0)]
    sources, targets = map(list, zip(*pairs))
    lookahead, decoder = decode(Lookup(7, 0.0), sources, targets)
    assert len(decoder.widths) == lookahead.runs[2] > 30, "the slowest one's runs are all that there are"
    assert lookahead.runs[0] < len(targets[0]) and sum(width > 1 for width in decoder.widths[:12]) > 2


def test_nothing_is_read_beyond_the_longest_target() -> None:
    line = list(range(3, 53))
    _, decoder = decode(Lookup(MOST, 0.0), [line], [[*line[:19], END]], longest=20)
    assert max(decoder.past[0]) <= 19


def test_logits_are_held_for_a_limited_number_of_steps() -> None:
    line = list(range(3, 59))
    lookahead = Lookahead([line], Lookup(MOST, 0.0), 100, END)
    decoder = Decoder([[*line, END]])
    held = []
    for token in [END, *line]:
        lookahead.answer(torch.tensor([token]), decoder, decoder)  # type: ignore[arg-type]
        held.append(len(lookahead.rows[0].known))
    assert 20 < max(held) <= AHEAD


def test_no_more_logits_are_kept_than_are_known() -> None:
    """A row's are no view of a whole run's; of many inputs fewer are known."""
    sources, targets = map(list, zip(*(copying(seed, 1.0) for seed in range(16))))
    decoder, lookahead = Decoder(targets), Lookahead(sources, Lookup(MOST, 0.0), 100, END)
    newest, most = torch.full((16,), END), 0
    for _ in range(30):
        newest = lookahead.answer(newest, decoder, decoder).argmax(-1)  # type: ignore[arg-type]
        kept = {
            each.untyped_storage().data_ptr(): each.untyped_storage().nbytes()
            for row in lookahead.rows
            for each in row.known
        }
        known = sum(len(row.known) for row in lookahead.rows)
        assert sum(kept.values()) <= 2 * known * VOCABULARY * 4
        most = max(most, known)
    assert 40 < most <= HELD and Lookahead([[]] * 300, Lookup(), 100, END).room() == 2


def test_what_the_generator_does_not_take_is_forgotten() -> None:
    """It may block, force or sample a token: the row goes on from there, its neighbour keeps what it knows."""
    line = list(range(10, 40))
    decoder = Decoder([[*line, END], [*line, END]])
    lookahead = Lookahead([line, line], Lookup(7, 0.0), 100, END)

    def take(*tokens: int) -> list[int]:
        return lookahead.answer(torch.tensor(tokens), decoder, decoder).argmax(-1).tolist()  # type: ignore[arg-type]

    assert take(END, END) == [10, 10] and take(10, 10) == [11, 11]
    assert [len(row.known) for row in lookahead.rows] == [8, 8]
    decoder.targets[0] = [10, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, END]
    assert take(30, 11) == [31, 12], "the first input goes on with 30"
    assert decoder.past[0] == {0: END, 1: 10, 2: 30, 3: 31, 4: 32, 5: 33, 6: 34, 7: 35, 8: 36, 9: 37}
    assert decoder.past[1][8] == 17 and lookahead.odds.taken < lookahead.odds.known
    runs = len(decoder.widths)
    assert take(31, 12) == [32, 13] and len(decoder.widths) == runs
