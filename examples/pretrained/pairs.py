"""Chooses some pairs of a corpus, and lays them out for a language model: what it continues begins with a space.

    python -m examples.pretrained.pairs CORPUS OUT --train 1200 --valid 48 --test 100

Both folders hold {train,valid,test}.{source,target}, one text a line. Which pairs are chosen depends on their summaries
alone, so that it is the same on every machine; a split that has fewer is taken whole.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from ..common.command_line import command_line
from ..common.files import SPLITS, read_lines, write_text


def choose(sources: list[str], targets: list[str], count: int) -> list[tuple[str, str]]:
    """``count`` pairs, as good as drawn by chance; empty texts are left out."""
    pairs = [(source, target) for source, target in zip(sources, targets) if source.strip() and target.strip()]
    return sorted(pairs, key=lambda pair: hashlib.sha256(pair[1].encode()).digest())[:count]


def convert(corpus: Path, out: Path, counts: dict[str, int]) -> dict[str, int]:
    """Write the six files; returns the number of pairs by split."""
    found = {}
    for split, count in counts.items():
        pairs = choose(*(read_lines(corpus / f"{split}.{side}") for side in ("source", "target")), count)
        write_text(out / f"{split}.source", "".join(f"{source}\n" for source, _ in pairs))
        write_text(out / f"{split}.target", "".join(f" {target.strip()}\n" for _, target in pairs))
        found[split] = len(pairs)
    return found


def main() -> None:
    parser = command_line(__doc__, __spec__.name)
    parser.add_argument("corpus", type=Path, metavar="CORPUS")
    parser.add_argument("out", type=Path, metavar="OUT")
    for split in SPLITS:
        parser.add_argument(f"--{split}", type=int, required=True, metavar="N")
    args = parser.parse_args()
    counts = convert(args.corpus, args.out, {split: getattr(args, split) for split in SPLITS})
    print(", ".join(f"{split} {count:,}" for split, count in counts.items()))


if __name__ == "__main__":
    main()
