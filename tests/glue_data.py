"""Made-up GLUE files and a byte-level BPE without merges: every byte is a token."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from fairseq.data.encoders.gpt2_bpe_utils import bytes_to_unicode

from examples.glue import prepare

GOOD, BAD = ["fine", "lovely", "warm"], ["dull", "grim", "stale"]


def make_bpe(folder: Path) -> Path:
    """encoder.json, vocab.bpe and dict.txt."""
    folder.mkdir(parents=True, exist_ok=True)
    letters = {letter: number for number, letter in enumerate(bytes_to_unicode().values())}
    (folder / "encoder.json").write_text(json.dumps(letters))
    (folder / "vocab.bpe").write_text("#version: 0.2\n")
    (folder / "dict.txt").write_text("".join(f"{number} 1\n" for number in range(256)))
    return folder


def reviews(count: int, seed: int) -> list[tuple[str, str]]:
    """Texts of 1 to 4 words, and whether they are kind."""
    rng = random.Random(seed)
    rows = []
    for _ in range(count):
        label = rng.randrange(2)
        rows.append((" ".join(rng.choices(GOOD if label else BAD, k=rng.randint(1, 4))) + " ", str(label)))
    return rows


def write_sst2(folder: Path, train: int = 60, dev: int = 24) -> Path:
    """SST-2's files."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (name, count) in enumerate({"train": train, "dev": dev}.items()):
        lines = ["sentence\tlabel", *("\t".join(row) for row in reviews(count, seed))]
        (folder / f"{name}.tsv").write_text("\n".join(lines) + "\n")
    return folder


def write_stsb(folder: Path, count: int = 24) -> Path:
    """STS-B's files: nine columns and a score."""
    folder.mkdir(parents=True, exist_ok=True)
    names = "index genre filename year old_index source1 source2 sentence1 sentence2 score".split()
    for name in ("train", "dev"):
        lines = ["\t".join(names)]
        for number, (text, label) in enumerate(reviews(count, 5)):
            lines.append("\t".join([str(number), *["x"] * 6, text.strip(), "fine", f"{2.5 * int(label):.3f}"]))
        (folder / f"{name}.tsv").write_text("\n".join(lines) + "\n")
    return folder


def prepared(task: str, data: Path, bpe: Path, out: Path, *extra: Any) -> Path:
    """Binary data by examples.glue.prepare."""
    prepare.main([task, str(data), "--bpe-dir", str(bpe), "--out", str(out), *map(str, extra)])
    return out
