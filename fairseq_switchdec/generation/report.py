"""``--switch-report``: what a run skipped and saved.

Of a run over several processes (``--num-shards``) each writes its own file; `fairseq_switchdec.generation.merge` makes
one of them.
"""

from __future__ import annotations

import json
import logging
import math
import os
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..cost import Geometry, Keep, Lengths, Skipped, cost, flops
from ..decisions import Decisions
from ..dial import AUTO
from ..files import check_writable, write_text
from ..seconds import Seconds
from .reading import comparison, comparison_line, path_counts, path_key

logger = logging.getLogger(__name__)


class SwitchReport:
    """Collects every input of a run; `write` makes the file.

    Args:
        path: JSON file, or None to collect only.
        shard, shards: this process's share of the run; of several, each writes to `shard_path`.

    Attributes:
        run: what the run was, see `fairseq_switchdec.generation.run_settings` and `expect`.
        prices: a machine's seconds, which are then shown beside FLOPs.
        compared: by input id, what `fairseq_switchdec.generation.reading.compare` found before the run.

    Raises:
        UserError: the file cannot be written, found out now and not after hours of generation.
    """

    def __init__(self, path: str | None, shard: int = 0, shards: int = 1):
        self.path = None if path is None else os.path.realpath(shard_path(path, shard, shards))
        self.run: dict[str, Any] = {}
        self.shard: dict[str, int] | None = None if shards == 1 else {"id": shard, "of": shards}
        self.inputs: list[dict[str, Any]] = []
        self.compared: dict[int, dict[str, dict[str, float]]] = {}
        self.seconds = 0.0
        self.prices: Seconds | None = None
        if self.path is not None:
            check_writable("--switch-report", self.path)

    def expect(self, inputs: int, of_run: int, data: str) -> None:
        """Say what is to come, so that a merge knows what is missing.

        Args:
            inputs: of this process.
            of_run: of all processes together.
            data: digest of the data set.
        """
        self.run |= {"inputs": of_run, "data": data}
        if self.shard is not None:
            self.shard["inputs"] = inputs

    def add(
        self,
        ids: Tensor,
        decisions: Decisions,
        geometry: Geometry,
        lengths: Lengths,
        policy_flops: int,
        seconds: float,
        budgets: Tensor | None = None,
        runs: Sequence[int] | None = None,
    ) -> None:
        """Add a batch: what its inputs ran, and how long it took.

        Args:
            budgets: float (B,), what the policy was asked for, see `fairseq_switchdec.dial.Dial`.
            runs: of the decoder for each input, where it read several tokens at a time.
        """
        columns = {
            "id": ids.cpu(),
            "cost": cost(geometry, decisions, lengths, policy_flops),
            "flops": flops(geometry, Keep.of(decisions, lengths), lengths, policy_flops),
            "source_tokens": lengths.source,
            "content_tokens": lengths.content,
            "target_tokens": lengths.target,
        }
        if runs is not None:
            columns["decoder_runs"] = torch.tensor(runs)
        if self.prices is not None:
            columns["seconds_cost"] = cost(self.prices, decisions, lengths, policy_flops)
            columns["seconds"] = self.prices.spend(Keep.of(decisions, lengths), lengths, policy_flops)
        skipped = Skipped.of(decisions, lengths)
        columns |= {
            "attention_skipped": skipped.attention,
            "ffn_skipped": skipped.ffn,
            "tokens_dropped": skipped.tokens,
        }
        values = zip(*(column.tolist() for column in columns.values()))
        asked = [None] * len(ids) if budgets is None else [round(budget, 6) for budget in budgets.tolist()]
        for row, entry, budget in zip(values, decisions.to_json(), asked):
            self.inputs.append(dict(zip(columns, row)) | entry)
            if budget is not None:
                self.inputs[-1]["budget"] = "auto" if budget == AUTO else budget
            if self.inputs[-1]["id"] in self.compared:
                self.inputs[-1]["compared"] = self.compared[self.inputs[-1]["id"]]
        self.seconds += seconds

    def lines(self) -> str:
        """The summary for people."""
        return summary_lines(summary(self.inputs, self.seconds))

    def write(self, complete: bool = True) -> str:
        """Write the file, inputs in the order of their ids; an old file stays until the new one is there.

        Args:
            complete: the run went to its end; otherwise the report goes to ``PATH.partial`` and no old one is touched.

        Returns:
            where it was written.
        """
        assert self.path is not None
        path = self.path if complete else self.path + ".partial"
        write_text(path, report_text(self.inputs, self.seconds, self.run, self.shard))
        return path


def report_text(
    inputs: Sequence[dict[str, Any]], seconds: float, run: dict[str, Any], shard: dict[str, int] | None = None
) -> str:
    """A report as its file holds it."""
    content: dict[str, Any] = summary(inputs, seconds) | {"run": run}
    if shard is not None:
        content["shard"] = shard
    content["per_input"] = sorted(inputs, key=lambda entry: entry["id"])
    return json.dumps(content, indent=1)


def summary(inputs: Sequence[dict[str, Any]], seconds: float) -> dict[str, Any]:
    """Means over the inputs, totals of FLOPs and seconds, and whether the policy reads its input: the same to the bit
    in whatever order the inputs come.
    """

    def total(name: str) -> float:
        return math.fsum(entry[name] for entry in inputs)

    shares = ("cost", "attention_skipped", "ffn_skipped", "tokens_dropped")
    means = {name: total(name) / max(len(inputs), 1) for name in shares}
    if inputs and all("seconds_cost" in entry for entry in inputs):
        means["seconds_cost"] = total("seconds_cost") / len(inputs)
    sums = {"inputs": len(inputs), **means, "flops": total("flops"), "seconds": seconds, **asked_and_reached(inputs)}
    paths = path_counts(Counter(map(path_key, inputs)))
    compared = comparison(inputs)
    sums |= looked_up(inputs)
    return {**sums, **paths, **({"compared": compared} if compared else {})}


def asked_and_reached(inputs: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """By `--switch-budget`, as text: how many ``inputs`` asked for it, and the mean ``cost`` they reached; none where
    there was no dial.
    """
    costs: dict[str, dict[str, array[float]]] = {}
    for entry in inputs:
        if "budget" in entry:
            found = costs.setdefault(str(entry["budget"]), {})
            for name in ("cost", "seconds_cost"):
                if name in entry:
                    found.setdefault(name, array("d")).append(entry[name])
    if not costs:
        return {}
    return {
        "budgets": {
            asked: {"inputs": len(found["cost"]), **{name: math.fsum(each) / len(each) for name, each in found.items()}}
            for asked, found in sorted(costs.items())
        }
    }


def looked_up(inputs: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """``decoder_runs``, all that source lookup took, and the ``tokens_a_run`` that it wrote; none where it was off."""
    runs = tokens = 0
    for entry in inputs:
        if "decoder_runs" in entry:
            runs, tokens = runs + entry["decoder_runs"], tokens + entry["target_tokens"]
    return {"decoder_runs": runs, "tokens_a_run": tokens / runs} if runs else {}


def summary_lines(total: dict[str, Any]) -> str:
    """A summary for people."""
    seconds = f" ({total['seconds_cost']:.1%} of its seconds)" if "seconds_cost" in total else ""
    skipped = (
        f"Switchable decisions: {total['inputs']} inputs at {total['cost']:.1%} of the keep-all FLOPs{seconds}; "
        f"skipped {total['attention_skipped']:.1%} of attention, {total['ffn_skipped']:.1%} of feed-forward, "
        f"{total['tokens_dropped']:.1%} of tokens; {total['seconds']:.1f} s"
    )
    found = total.get("tokens_a_run")
    lookup = f"Source lookup: {found:.2f} tokens in a run of the decoder" if found else ""
    return "\n".join(line for line in (skipped, budget_line(total), comparison_line(total), lookup) if line)


def budget_line(total: dict[str, Any]) -> str:
    """What was asked for and reached, for people: the first few budgets; empty where none was."""
    lines = []
    for asked, reached in total.get("budgets", {}).items():
        share = asked if asked == "auto" else format(float(asked), ".1%")
        seconds = f" of the FLOPs, {reached['seconds_cost']:.1%} of the seconds" if "seconds_cost" in reached else ""
        lines.append(f"{share} -> {reached['cost']:.1%}{seconds}")
    more = f", and {len(lines) - 10} more" if len(lines) > 10 else ""
    return f"Budget asked for -> reached: {', '.join(lines[:10])}{more}" if lines else ""


def shard_path(path: str, shard: int, shards: int) -> str:
    """Where one of several processes writes its report: ``report.json`` becomes ``report.shard-0-of-4.json``."""
    stem, suffix = os.path.splitext(path)
    return path if shards == 1 else f"{stem}.shard-{shard}-of-{shards}{suffix}"


def decoding_steps(hypotheses: Sequence[Sequence[dict[str, Any]]]) -> Tensor:
    """int64 (B,): the steps that each input took. It leaves the batch when its last hypothesis ends: its longest."""
    return torch.tensor([max((beam["tokens"].numel() for beam in beams), default=0) for beams in hypotheses])


def synchronize(device: torch.device) -> None:
    """Wait for a GPU, so that seconds are its seconds."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
