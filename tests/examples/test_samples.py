"""Inputs as the reports of examples show them: their texts side by side, and what was skipped, in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from generated_files import write_generated

from examples.common import samples
from fairseq_switchdec.generation.reading import skipped_in_words


@pytest.mark.parametrize(
    ("attention", "ffn", "decoder", "strategy", "words"),
    [
        ("111", "111", 0, 0, "nothing"),
        ("11111", "11111", 2, 0, "nothing"),
        ("100", "110", 0, 2, "attention of layers 2, 3; feed-forward of layer 3; last 20 % of the source's tokens"),
        ("10001", "11110", 2, 6,
         "attention of encoder layers 2, 3 and decoder layer 1; feed-forward of decoder layer 2; "
         "every 2nd of the source's tokens"),
    ],
)  # fmt: skip
def test_what_was_skipped_in_words(attention, ffn, decoder, strategy, words):
    """A decoder-only model has one stack, whose layers are counted from 1 to the last."""
    keep = {"attention_keep": [c == "1" for c in attention], "ffn_keep": [c == "1" for c in ffn]}
    cross = keep["attention_keep"][len(attention) - decoder :] if decoder else []
    assert skipped_in_words({**keep, "cross_attention_keep": cross, "token_strategy": strategy}) == words


def read(out: Path, count: int, **source: str) -> list[dict[str, Any]]:
    """The first inputs of six that plain and learned have generated for."""
    for system in ("plain", "learned"):
        write_generated(out, system, [f"{system} {i}" for i in range(6)], **source)
    return samples.read(out, count)


def test_an_input_as_it_is_shown(tmp_path):
    assert samples.markdown(read(tmp_path, 2))[1:] == [
        "**2.** article 1\n\n- reference: red green blue 1\n- plain: plain 1\n"
        "- switchable, at 50% of the FLOPs: learned 1\n- skipped: feed-forward of decoder layer 1"
    ]


def test_a_long_source_is_shown_from_its_beginning(tmp_path):
    shown = samples.markdown(read(tmp_path, 1, source="many words " * samples.LONGEST))[0].split("\n")[0]
    assert shown.endswith(("many ...", "words ...")) and len(shown) < samples.LONGEST + 20
