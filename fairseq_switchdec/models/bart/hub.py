"""fairseq's hub interface, with ids that count the caller's sentences."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fairseq.models.bart import BARTHubInterface


class SwitchableHubInterface(BARTHubInterface):
    """BART's hub interface; ``--switch-decisions`` and ``--switch-report`` know a sentence by its place in the call.

    fairseq's builds batches of all sentences, and of every such batch batches again, whose ids begin at 0.
    """

    def _build_batches(self, *args: Any, **kwargs: Any) -> Iterator[dict[str, Any]]:
        outer = getattr(self.task, "caller_ids", None) is None  # another task's decisions know no ids
        try:
            for batch in super()._build_batches(*args, **kwargs):
                if outer:
                    self.task.caller_ids = batch["id"]
                yield batch
        finally:
            if outer:
                self.task.caller_ids = None
