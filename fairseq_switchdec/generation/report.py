"""``--switch-report``: what a run skipped and saved."""

from __future__ import annotations

import json
import logging
import os
import tempfile
from typing import Any

import torch
from torch import Tensor

from ..cost import Geometry, Keep, Lengths, Skipped, cost, flops
from ..decisions import Decisions
from ..errors import UserError

logger = logging.getLogger(__name__)


class SwitchReport:
    """Collects every input of a run; `write` makes the file.

    Args:
        path: JSON file, or None to collect only.

    Raises:
        UserError: the file cannot be written, found out now and not after hours of generation.
    """

    def __init__(self, path: str | None):
        self.path = None if path is None else os.path.realpath(path)
        self.inputs: list[dict[str, Any]] = []
        self.flops = 0.0
        self.seconds = 0.0
        if self.path is not None:
            check_writable(self.path)

    def add(
        self,
        ids: Tensor,
        decisions: Decisions,
        geometry: Geometry,
        lengths: Lengths,
        policy_flops: int,
        seconds: float,
    ) -> None:
        """Add a batch: what its inputs ran, and how long it took."""
        columns = {
            "id": ids.cpu(),
            "cost": cost(geometry, decisions, lengths, policy_flops),
            "flops": flops(geometry, Keep.of(decisions, lengths), lengths, policy_flops),
            "source_tokens": lengths.source,
            "content_tokens": lengths.content,
            "target_tokens": lengths.target,
        }
        skipped = Skipped.of(decisions, lengths)
        columns |= {
            "attention_skipped": skipped.attention,
            "ffn_skipped": skipped.ffn,
            "tokens_dropped": skipped.tokens,
        }
        values = zip(*(column.tolist() for column in columns.values()))
        for row, entry in zip(values, decisions.to_json()):
            self.inputs.append(dict(zip(columns, row)) | entry)
        self.seconds += seconds

    def summary(self) -> dict[str, float]:
        """Means over the inputs, totals of FLOPs and seconds."""
        count = len(self.inputs)

        def mean(name: str) -> float:
            return sum(entry[name] for entry in self.inputs) / max(count, 1)

        return {
            "inputs": count,
            "cost": mean("cost"),
            "attention_skipped": mean("attention_skipped"),
            "ffn_skipped": mean("ffn_skipped"),
            "tokens_dropped": mean("tokens_dropped"),
            "flops": sum(entry["flops"] for entry in self.inputs),
            "seconds": self.seconds,
        }

    def line(self) -> str:
        """One line for people."""
        total = self.summary()
        return (
            f"Switchable decisions: {total['inputs']} inputs at {total['cost']:.1%} of the keep-all FLOPs; skipped "
            f"{total['attention_skipped']:.1%} of attention, {total['ffn_skipped']:.1%} of feed-forward, "
            f"{total['tokens_dropped']:.1%} of tokens; {total['seconds']:.1f} s"
        )

    def write(self, complete: bool = True) -> str:
        """Write the file, inputs in the order of their ids; an old file stays until the new one is there.

        Args:
            complete: the run went to its end; otherwise the report goes to ``PATH.partial`` and no old one is touched.

        Returns:
            where it was written.
        """
        assert self.path is not None
        content = self.summary() | {"per_input": sorted(self.inputs, key=lambda entry: entry["id"])}
        path = self.path if complete else self.path + ".partial"
        temporary = f"{path}.{os.getpid()}.tmp"
        try:
            with open(temporary, "w", encoding="utf-8") as file:
                json.dump(content, file, indent=1)
            os.replace(temporary, path)
        finally:
            if os.path.exists(temporary):
                os.unlink(temporary)
        return path


def check_writable(path: str) -> None:
    """Refuse a path no report could be written to, or that is something else than a file (a device, say).

    Raises:
        UserError: naming the flag.
    """
    try:
        if os.path.exists(path) and not os.path.isfile(path):
            raise OSError(None, "it is no file")
        with tempfile.TemporaryFile(dir=os.path.dirname(path)):
            pass
    except OSError as error:
        raise UserError(f"--switch-report {path} cannot be written: {error.strerror}") from None


def synchronize(device: torch.device) -> None:
    """Wait for a GPU, so that seconds are its seconds."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
