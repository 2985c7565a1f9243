"""Some inputs of the test set as people read them: what each system wrote, and what was skipped for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fairseq_switchdec.generation.reading import skipped_in_words

from . import comparison

LONGEST = 400  # characters of a source that are shown


def read(out: Path, count: int) -> list[dict[str, Any]]:
    """The first ``count`` inputs of the test set, for report.json.

    Args:
        out: the output folder, where *plain* and *learned* have generated (`comparison.generate_all`).

    Returns:
        for each input its texts (``source``, ``reference``, ``plain``, ``learned``), the ``cost`` of the learned
        decisions as a share of the keep-all FLOPs, and what they ``skipped``, in words.
    """
    from fairseq_switchdec.scoring.outputs import read_outputs

    plain = read_outputs([comparison.folder(out, comparison.BASELINE) / comparison.HYPOTHESES])
    learned = read_outputs([comparison.folder(out, "learned") / comparison.HYPOTHESES])
    switches = json.loads((comparison.folder(out, "learned") / comparison.SWITCHES).read_text(encoding="utf-8"))
    return [
        {
            "source": learned.sources[entry["id"]].strip(),
            "reference": learned.references[entry["id"]].strip(),
            "plain": plain.hypotheses[entry["id"]].strip(),
            "learned": learned.hypotheses[entry["id"]].strip(),
            "cost": entry["cost"],
            "skipped": skipped_in_words(entry),
        }
        for entry in switches["per_input"][:count]
    ]


def markdown(samples: list[dict[str, Any]]) -> list[str]:
    """A paragraph and a list for each input."""
    return [_sample(number, sample) for number, sample in enumerate(samples, 1)]


def _sample(number: int, sample: dict[str, Any]) -> str:
    source = sample["source"]
    source = source if len(source) <= LONGEST else source[:LONGEST].rsplit(" ", 1)[0] + " ..."
    return "\n".join(
        [
            f"**{number}.** {source}",
            "",
            f"- reference: {sample['reference']}",
            f"- plain: {sample['plain']}",
            f"- switchable, at {sample['cost']:.0%} of the FLOPs: {sample['learned']}",
            f"- skipped: {sample['skipped']}",
        ]
    )
