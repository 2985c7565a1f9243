"""What the tests of question answering share: a small BPE in GPT-2's format, made-up questions."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

from fairseq.data import Dictionary
from fairseq.data.encoders.gpt2_bpe_utils import bytes_to_unicode

#: Merges that join some words, a word and its ending, and (as GPT-2's do) marks of punctuation.
MERGES = [("t", "h"), ("th", "e"), ("Ġ", "the"), ("i", "s"), ("a", "n"), ("Ġ", "an"), (")", ","), ('"', "),")]
COLORS = ("red", "blue", "green", "black")
THINGS = ("house", "tree", "café", "boat", "hill")


def write_bpe(folder: Path) -> Path:
    """``encoder.json``, ``vocab.bpe`` and the ``dict.txt`` of their numbers."""
    folder.mkdir(parents=True, exist_ok=True)
    symbols = [*bytes_to_unicode().values(), *("".join(pair) for pair in MERGES)]
    (folder / "encoder.json").write_text(json.dumps({symbol: number for number, symbol in enumerate(symbols)}))
    lines = ["#version: 0.2", *(" ".join(pair) for pair in MERGES), ""]
    (folder / "vocab.bpe").write_text("\n".join(lines), encoding="utf-8")
    (folder / "dict.txt").write_text("".join(f"{number} 1\n" for number in range(len(symbols))))
    return folder


def load_dictionary(folder: Path) -> Dictionary:
    """The dictionary of `write_bpe`."""
    return Dictionary.load(str(folder / "dict.txt"))


def make_document(paragraphs: int, seed: int = 1, impossible: bool = False) -> dict[str, Any]:
    """A SQuAD document: things and their colours; with ``impossible``, 2.0's, every third thing is not in the text."""
    rng = random.Random(seed)
    data = []
    for number in range(paragraphs):
        colors = {thing: rng.choice(COLORS) for thing in rng.sample(THINGS, 3)}
        context = " ".join(f'The {thing} is "{color}",' for thing, color in colors.items())
        qas = []
        for place, thing in enumerate([*list(colors)[:2], next(t for t in THINGS if t not in colors)]):
            entry: dict[str, Any] = {"id": f"{number}-{place}", "question": f"What is the {thing}?"}
            if thing in colors:
                start = context.index('"', context.index(thing)) + 1
                entry["answers"] = [{"text": colors[thing], "answer_start": start}]
            elif not impossible:
                continue
            else:
                entry["answers"] = []
            if impossible:
                entry["is_impossible"] = thing not in colors
            qas.append(entry)
        data.append({"title": f"t{number}", "paragraphs": [{"context": context, "qas": qas}]})
    return {"data": data}


def write_json(path: Path, content: Any) -> Path:
    """A JSON file, compressed where its name says so."""
    text = json.dumps(content).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path
