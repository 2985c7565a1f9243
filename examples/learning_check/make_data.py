"""Typed copy: a task whose best decisions are known for every input (a synthetic companion of the paper's §4).

    python -m examples.learning_check.make_data OUT
        writes OUT/{short,train,valid}.{source,target}, symbols separated by blanks

A source is a type followed by 24 to 60 symbols; its target is the part of them that the type asks for:

    FIRST   the first six                      its last 30 % can be dropped, no uniform share can
    DOUBLE  the last six, each given twice     every 2nd token can be dropped, its end cannot
    LAST    the last six                       nothing can be dropped
    MARKED  the five marked ones               nothing can be dropped

So no token strategy but "keep all" serves all types, and a policy that saves tokens has to read its input. Each target
symbol is replaced by a random one with probability 5 %: the loss has a floor above 0 (``noise_floor``).

Three things spare the model hours without helping the policy: sources come in seven lengths, so that where the last
six are is soon known; a split of short ones comes first, since attention finds its way among a dozen symbols far
sooner; and a mark is an alphabet of its own, the first marked symbol from ``v0, v1, ...``, the second from ``w0, ...``.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator
from pathlib import Path

from fairseq_switchdec.files import write_text

from ..common.command_line import command_line

TYPES = ("FIRST", "DOUBLE", "LAST", "MARKED")
SYMBOLS = tuple(f"s{number}" for number in range(200))
MARKED_SYMBOLS = tuple(tuple(f"{letter}{number}" for number in range(40)) for letter in "vwxyz")
LENGTHS = range(24, 61, 6)  # symbols of a source, marks and doubles included, the type not
SHORT = range(12, 13)
COPIED = {"FIRST": 6, "DOUBLE": 6, "LAST": 6, "MARKED": 5}
NOISE = 0.05


def make_pair(kind: str, rng: random.Random, lengths: range = LENGTHS) -> tuple[list[str], list[str]]:
    """One source and its target without noise.

    Args:
        kind: one of ``TYPES``.
        rng: where the length and the symbols come from.
        lengths: numbers of symbols to choose from.
    """
    length, copied = rng.choice(lengths), COPIED[kind]
    if kind == "DOUBLE":
        singles = [rng.choice(SYMBOLS) for _ in range(length // 2)]
        return [kind, *(symbol for symbol in singles for _ in range(2))], singles[-copied:]
    symbols = [rng.choice(SYMBOLS) for _ in range(length)]
    if kind == "MARKED":
        places = sorted(rng.sample(range(length), copied))
        for place, alphabet in zip(places, MARKED_SYMBOLS):
            symbols[place] = rng.choice(alphabet)
        return [kind, *symbols], [symbols[place] for place in places]
    return [kind, *symbols], symbols[:copied] if kind == "FIRST" else symbols[-copied:]


def make_pairs(count: int, seed: str, lengths: range = LENGTHS) -> Iterator[tuple[str, str]]:
    """``count`` pairs (source line, target line with noise), the types in turn; the same for the same ``seed``."""
    rng = random.Random(seed)
    for number in range(count):
        source, target = make_pair(TYPES[number % len(TYPES)], rng, lengths)
        noisy = [rng.choice(SYMBOLS) if rng.random() < NOISE else symbol for symbol in target]
        yield " ".join(source), " ".join(noisy)


def noise_floor() -> float:
    """The loss of a perfect model, in nats per target token, end of sentence included (that one is certain)."""
    other = NOISE / len(SYMBOLS)

    def entropy(right: float, others: int) -> float:
        return -right * math.log(right) - others * other * math.log(other)

    by_type = dict.fromkeys(TYPES, entropy(1 - NOISE + other, len(SYMBOLS) - 1))
    by_type["MARKED"] = entropy(1 - NOISE, len(SYMBOLS))  # noise never hits a marked symbol by chance
    total = sum(copied * by_type[kind] for kind, copied in COPIED.items())
    return total / (sum(COPIED.values()) + len(COPIED))


def write_split(folder: Path, split: str, pairs: Iterable[tuple[str, str]]) -> None:
    """Writes one split as ``SPLIT.source`` and ``SPLIT.target``."""
    for suffix, lines in zip(("source", "target"), zip(*pairs)):
        write_text(folder / f"{split}.{suffix}", "".join(f"{line}\n" for line in lines))


def main() -> None:
    """Writes the three splits."""
    parser = command_line(__doc__, __spec__.name)
    parser.add_argument("out", type=Path, help="folder to write to")
    for split, count in (("short", 25600), ("train", 60000), ("valid", 2000)):
        parser.add_argument(f"--{split}", type=int, default=count, help="pairs (default: %(default)s)")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for split, lengths in (("short", SHORT), ("train", LENGTHS), ("valid", LENGTHS)):
        write_split(options.out, split, make_pairs(getattr(options, split), f"typed copy {split}", lengths))


if __name__ == "__main__":
    main()
