"""What deciding costs beside the model: seconds in the policy and in what keeps track of who runs what.

The functions concerned are wrapped for the time of one generation. On a GPU the seconds are the host's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property, wraps
from typing import Any
from unittest.mock import patch

from fairseq_switchdec.decisions import Decisions
from fairseq_switchdec.models import encoder
from fairseq_switchdec.policy import SwitchPolicy
from fairseq_switchdec.runtime.cache import DecoderCache
from fairseq_switchdec.runtime.ragged import Ragged

#: What is counted: part -> functions, as (owner, name).
PARTS: dict[str, list[tuple[Any, str]]] = {
    "policy": [(encoder, "pool"), (SwitchPolicy, "decide")],
    "token dropping": [(encoder.SwitchableEncoder, "kept_tokens")],
    "layout of tokens": [(Ragged, name) for name in ("__init__", "select", "pieces", "buckets", "size")],
    "who runs a sublayer": [(Decisions, "rows"), (Decisions, "select")],
    "beams": [(DecoderCache, "__init__"), (DecoderCache, "advance"), (DecoderCache, "reorder")],
}


@contextmanager
def measured() -> Iterator[dict[str, float]]:
    """Counts seconds by part while it lasts. Of functions that call each other, the outermost counts."""
    seconds = dict.fromkeys(PARTS, 0.0)
    inside = False

    def timed(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal inside
            if inside:
                return function(*args, **kwargs)
            inside, start = True, time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                seconds[part] += time.perf_counter() - start
                inside = False

        return call

    with ExitStack() as stack:
        for part, functions in PARTS.items():
            for owner, name in functions:
                original = vars(owner)[name]
                if isinstance(original, cached_property):
                    replacement: Any = cached_property(timed(part, original.func))
                    replacement.__set_name__(owner, name)
                else:
                    replacement = timed(part, original)
                stack.enter_context(patch.object(owner, name, replacement))
        yield seconds
