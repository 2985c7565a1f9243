"""What tests of the page share: a report with decisions of every kind, and files of its texts."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from fairseq_switchdec import report_command
from fairseq_switchdec.cost import Geometry, Lengths
from fairseq_switchdec.decisions import DecisionSpace
from fairseq_switchdec.generation.report import SwitchReport
from fairseq_switchdec.policy import input_uniforms, random_decisions

TWO_STACKS, ONE_STACK = DecisionSpace(3, 2), DecisionSpace(4, 0)


def make_report(
    folder: Path,
    content: Sequence[int],
    space: DecisionSpace = TWO_STACKS,
    strategies: Sequence[int] | None = None,
    ids: Sequence[int] | None = None,
    **run: Any,
) -> Path:
    """``report.json`` of inputs with so many tokens that may be dropped, by strategies 0, 1, ..., 6 in turn."""
    chosen = torch.arange(len(content)) if ids is None else torch.tensor(ids)
    decisions = random_decisions(space, input_uniforms(1, 0, chosen, space.num_sublayers + 1), 0.6)
    decisions.token_strategy[:] = torch.arange(len(content)) % 7 if strategies is None else torch.tensor(strategies)
    lengths = torch.tensor(content)
    report = SwitchReport(str(folder / "report.json"))
    report.run |= {"decisions": "random", "seed": 1, "generation": {"beam": 2}} | run
    geometry = Geometry(space.encoder_layers, space.decoder_layers, 16, 16, 32, 32, 60)
    target = torch.full((len(content),), 6)
    report.add(chosen, decisions, geometry, Lengths(lengths + 1, lengths, target, beam=2), 0, 1.0)
    return Path(report.write())


def entries_of(report: Path) -> list[dict[str, Any]]:
    """What a report holds of each input."""
    entries: list[dict[str, Any]] = json.loads(report.read_text())["per_input"]
    return entries


def generated(path: Path, sources: dict[int, str]) -> Path:
    """An output of ``fairseq-generate`` for these sources, in another order than theirs."""
    lines = ["some line of the log"]
    for index in reversed(sorted(sources)):
        lines += [f"S-{index}\t{sources[index]}", f"T-{index}\treference {index}"]
        lines += [f"H-{index}\t-0.5\tout {index}", f"D-{index}\t-0.5\toutput {index}", f"P-{index}\t-0.1 -0.2"]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def html(monkeypatch: pytest.MonkeyPatch, *words: Any) -> None:
    """``report html`` with these words."""
    monkeypatch.setattr(sys, "argv", ["report", "html", *map(str, words)])
    report_command.cli_main()
