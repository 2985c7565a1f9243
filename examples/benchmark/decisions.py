"""The decisions that are timed: three files that ship with the benchmark, or anybody's.

``paper_cnndm.json`` is the path nearest to what the paper skips on CNN/DailyMail (Table 10: 8.50 % of attention,
11.13 % of feed-forward, 28.75 % of the tokens): attention of encoder layer 7 and of decoder layer 7, its self- and its
cross-attention; feed-forward of encoder layer 9 and of decoder layers 6 and 9, counting from 1; the last 30 % of the
tokens.

``mixed.json`` holds eight different decisions, so that no two inputs of a batch of eight run the same (`mixed`).
Both are for BART-large's 12 + 12 layers; a smaller model takes every second, or sixth, layer's (`fitted`).

``without_30_percent.json`` is a path through SmolLM2's 30 layers that skips 18 of their 60 sublayers, all tokens kept.

    python -m examples.benchmark.decisions      writes the files
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fairseq_switchdec.decisions import NUM_TOKEN_STRATEGIES, DecisionSpace
from fairseq_switchdec.errors import UserError
from fairseq_switchdec.files import write_text

from .setup import SMOLLM2

HERE = Path(__file__).resolve().parent
KEEP_ALL = "keep-all"
LAYERS = 12  # of encoder and of decoder, that the shipped files are for


def paper_cnndm() -> dict[str, Any]:
    """Table 10's profile of CNN/DailyMail."""
    attention_skipped = {7, LAYERS + 7}
    ffn_skipped = {9, LAYERS + 6, LAYERS + 9}
    layers = range(1, 2 * LAYERS + 1)
    return {
        "attention_keep": [layer not in attention_skipped for layer in layers],
        "ffn_keep": [layer not in ffn_skipped for layer in layers],
        "token_strategy": 3,
    }


def mixed() -> list[dict[str, Any]]:
    """Eight entries. Entry i, from 0, has token strategy i modulo 7. Of layer l, counted from 0 through encoder and
    decoder, it skips the attention where l + i is divisible by 8 and the feed-forward where l + i + 4 is; of layer 0,
    nothing. Every other sublayer is skipped by one entry of the eight.
    """
    layers = range(2 * LAYERS)
    return [
        {
            "attention_keep": [layer == 0 or (layer + entry) % 8 != 0 for layer in layers],
            "ffn_keep": [layer == 0 or (layer + entry + 4) % 8 != 0 for layer in layers],
            "token_strategy": entry % NUM_TOKEN_STRATEGIES,
        }
        for entry in range(8)
    ]


def without_30_percent() -> dict[str, Any]:
    """Of layer l, counted from 0, it skips the attention where l - 2 is divisible by 3, the feed-forward where l is; of
    layers 0, 28 and 29, nothing.
    """
    layers = range(SMOLLM2.layers)
    return {
        "attention_keep": [layer % 3 != 2 or layer > 27 for layer in layers],
        "ffn_keep": [layer % 3 != 0 or layer == 0 for layer in layers],
        "token_strategy": 0,
    }


def read(name: str, stacks: tuple[int, int]) -> list[dict[str, Any]] | None:
    """The entries of a file, which inputs take in turn; None for ``keep-all``.

    Args:
        name: ``keep-all``, a file, or one that ships with the benchmark.
        stacks: layers of the model's encoder, and of its decoder.

    Raises:
        UserError: no such file, no JSON, or decisions that do not fit the model.
    """
    if name == KEEP_ALL:
        return None
    path = Path(name) if Path(name).exists() or not (HERE / name).exists() else HERE / name
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"--decisions {name}: neither {KEEP_ALL} nor a readable file ({error.strerror})") from None
    except ValueError as error:
        raise UserError(f"--decisions {name}: not JSON ({error})") from None
    entries = content if isinstance(content, list) else [content]
    try:
        entries = [fitted(entry, stacks) for entry in entries]
        if not entries:
            raise ValueError("the list is empty")
        DecisionSpace(*stacks).from_json(entries)
    except ValueError as error:
        raise UserError(f"--decisions {name}: {error} (this model has {stacks[0]} + {stacks[1]} layers)") from None
    return entries


def fitted(entry: Any, stacks: tuple[int, int]) -> Any:
    """Decisions for 12 + 12 layers, for a model with a whole fraction of them: it takes every n-th layer's."""
    layers, decoder_layers = stacks
    if not isinstance(entry, dict) or layers != decoder_layers or layers == LAYERS or LAYERS % layers:
        return entry
    widths = {"attention_keep": 2 * LAYERS, "ffn_keep": 2 * LAYERS, "cross_attention_keep": LAYERS}
    return {
        name: value[:: LAYERS // layers] if isinstance(value, list) and len(value) == widths.get(name) else value
        for name, value in entry.items()
    }


def in_turn(entries: list[dict[str, Any]] | None, batch: int, stacks: tuple[int, int]) -> list[dict[str, Any]]:
    """One entry an input."""
    if entries is None:
        return DecisionSpace(*stacks).keep_all(batch).to_json()
    return [entries[row % len(entries)] for row in range(batch)]


def main() -> None:
    """Writes the shipped files."""
    write_text(HERE / "paper_cnndm.json", json.dumps(paper_cnndm(), indent=1) + "\n")
    write_text(HERE / "without_30_percent.json", json.dumps(without_30_percent(), indent=1) + "\n")
    write_text(HERE / "mixed.json", "[" + ",\n ".join(map(json.dumps, mixed())) + "]\n")


if __name__ == "__main__":
    main()
