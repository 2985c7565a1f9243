"""What fairseq-generate leaves in the output folder of an example that compares systems, made up."""

from __future__ import annotations

import json
from pathlib import Path

from examples.common import comparison
from examples.common.stages import Stages

#: Shares of a switch report, and what each of its inputs ran: one layer of encoder and of decoder each.
SHARES = {"cost": 0.5, "attention_skipped": 0.0, "ffn_skipped": 0.5, "tokens_dropped": 0.0}
PATH = {"attention_keep": [True, True], "ffn_keep": [True, False], "cross_attention_keep": [True], "token_strategy": 0}


def write_generated(out: Path, system: str, hypotheses: list[str], source: str = "article") -> None:
    """Results, log and switch report of a system, in an order that is not the inputs'.

    Input ``i`` has the source ``article i`` and the reference ``red green blue i``.
    """
    folder = comparison.folder(out, system)
    folder.mkdir(parents=True)
    texts = [
        f"S-{i}\t{source} {i}\nT-{i}\tred green blue {i}\nH-{i}\t-0.5\t7 8\nD-{i}\t-0.5\t{text}"
        for i, text in enumerate(hypotheses)
    ]
    (folder / comparison.HYPOTHESES).write_text("\n".join(reversed(texts)) + "\n", encoding="utf-8")
    spent = "... | INFO | Translated 4 sentences (9 tokens) in 1.5s (2.67 sentences/s, 6.0 tokens/s)\n"
    Stages(out).log(f"generate-{system}").write_text(spent, encoding="utf-8")
    inputs = [{"id": i, "cost": 0.5, "tokens_dropped": 0.0, **PATH} for i in range(len(hypotheses))]
    content = {**SHARES, "paths": 1, "most_frequent_path": 1.0, "per_input": inputs}
    (folder / comparison.SWITCHES).write_text(json.dumps(content), encoding="utf-8")
