"""What is shown of one input, in JSON's types: what ran, what it cost, its source with the dropped tokens marked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from ...generation.reading import skipped_in_words
from ...tokens import STRATEGY_NAMES, num_dropped
from .dropped import KEPT, Decode, SourceRule, as_they_are, spans

#: Of an entry of a report, what a view takes over as it is, where it is there.
FIGURES = (
    *("id", "cost", "seconds_cost", "budget"),
    *("source_tokens", "content_tokens", "target_tokens", "tokens_dropped"),
)


class Source(NamedTuple):
    """An input's source.

    Attributes:
        text: as people read it.
        words: of the dictionary, as the model read them; None where they are not known.
        decode: makes text of them.
    """

    text: str
    words: Sequence[str] | None = None
    decode: Decode = as_they_are


def input_view(
    entry: dict[str, Any],
    source: Source | None = None,
    hypothesis: str | None = None,
    reference: str | None = None,
    rule: SourceRule = SourceRule(),  # noqa: B008  (it cannot be changed)
) -> dict[str, Any]:
    """One input, ready for JSON.

    Args:
        entry: of a report's ``per_input``, see `fairseq_switchdec.generation.report.SwitchReport`.
        rule: how the run read its sources.

    Returns:
        the entry's figures (`FIGURES`); ``path``: see `path_view`; ``dropped``: how many tokens were; ``source``: pairs
        of a state (0 kept, 1 dropped, 2 a character of which some tokens were dropped, 3 cut off before the model read
        it) and a text, or None; ``known``: whether the states are: if not, there is one pair, of state 0;
        ``hypothesis``, ``reference``: texts, or None.
    """
    content, strategy = int(entry["content_tokens"]), int(entry["token_strategy"])
    view = {name: entry[name] for name in FIGURES if name in entry}
    view |= {"path": path_view(entry), "source": None, "known": False}
    view["dropped"] = int(num_dropped(torch.tensor([content]), torch.tensor([strategy])))
    if source is not None:
        view["source"] = [(KEPT, source.text)]
        if source.words is not None and fits(source.words, entry, rule):
            view["source"] = spans(source.words, rule.states(len(source.words), strategy), source.decode)
            view["known"] = True
    return view | {"hypothesis": hypothesis, "reference": reference}


def fits(words: Sequence[str], entry: dict[str, Any], rule: SourceRule) -> bool:
    """Whether words can be those that the model read: as many may be dropped as the report says."""
    return len(rule.droppable(len(words))) == entry["content_tokens"]


def path_view(entry: dict[str, Any]) -> dict[str, Any]:
    """What ran, for a grid with a line a sublayer and a column a layer.

    Returns:
        ``stacks``: ``name`` (``encoder``, ``decoder``; ``layers`` where there is one stack) and ``sublayers``, each a
        ``name`` and ``keep``, booleans; ``strategy``: which tokens are dropped, in words; ``skipped``: what does not
        run, in words.
    """
    attention, ffn, cross = (entry[name] for name in ("attention_keep", "ffn_keep", "cross_attention_keep"))
    first = len(attention) - len(cross)
    stacks = [("encoder" if cross else "layers", {"attention": attention[:first], "feed-forward": ffn[:first]})]
    if cross:
        decoder = {"self-attention": attention[first:], "cross-attention": cross, "feed-forward": ffn[first:]}
        stacks.append(("decoder", decoder))
    return {
        "stacks": [
            {"name": name, "sublayers": [{"name": kind, "keep": list(map(bool, keep))} for kind, keep in lines.items()]}
            for name, lines in stacks
        ],
        "strategy": STRATEGY_NAMES[entry["token_strategy"]],
        "skipped": skipped_in_words(entry),
    }
