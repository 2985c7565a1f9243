"""The body of a request: JSON to `TextRequest`, or one sentence that names the field and says what to do."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fairseq_switchdec.predict.summarizer import TextRequest

DECISIONS = ("greedy", "keep-all")


class Refusal(Exception):
    """An answer other than 200.

    Args:
        status: HTTP's.
        message: what is wrong and what to do.
        retry_after: seconds after which the same request may succeed.
    """

    def __init__(self, status: int, message: str, retry_after: int | None = None):
        super().__init__(message)
        self.status, self.retry_after = status, retry_after


@dataclass(frozen=True)
class Limits:
    """What clients may ask for; each is an option of the command.

    Attributes:
        body: bytes of a request.
        texts: of a request.
        characters: of a text.
        queue: texts of all requests that wait or run.
        beam: ``beam`` at most.
        length: ``max_len_b``, ``min_len`` and ``no_repeat_ngram_size`` at most.
        seconds: to read a request, and again to answer it.
    """

    body: int = 1_000_000
    texts: int = 64
    characters: int = 100_000
    queue: int = 512
    beam: int = 8
    length: int = 1024
    seconds: float = 60.0


def parse(body: bytes, limits: Limits) -> tuple[list[TextRequest], bool]:
    """The texts of a body, each with its options; and whether there is a list of them.

    Raises:
        Refusal: naming the field.
    """
    content = read_json(body)
    checks = decoding_checks(limits)
    known = ("text", "texts", "budget", "decisions", "explain", *checks)
    for name in content:
        if name not in known:
            raise Refusal(400, f"unknown field {name[:50]!r}: the fields are {', '.join(known)}")
    texts = read_texts(content, limits)
    decoding = {name: check(name, content[name]) for name, check in checks.items() if name in content}
    decisions = content.get("decisions", "greedy")
    if not isinstance(decisions, dict) and decisions not in DECISIONS:
        raise Refusal(400, f"decisions must be {' or '.join(map(repr, DECISIONS))}, or an object")
    explain = content.get("explain", False)
    if not isinstance(explain, bool):
        raise Refusal(400, "explain must be true or false")
    budgets = read_budgets(content.get("budget"), len(texts))
    requests = [TextRequest(text, decoding, decisions, budget, explain) for text, budget in zip(texts, budgets)]
    return requests, "texts" in content


def read_json(body: bytes) -> dict[str, Any]:
    """The object that a body holds."""

    def no_number(word: str) -> None:
        raise ValueError(f"{word} is no number")

    try:
        content = json.loads(body.decode("utf-8"), parse_constant=no_number)
    except UnicodeDecodeError as error:
        raise Refusal(400, f"the body is not UTF-8: {error.reason} at byte {error.start}") from None
    except (ValueError, RecursionError) as error:
        raise Refusal(400, f"the body is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise Refusal(400, 'the body must be a JSON object, such as {"text": "..."}')
    return content


def read_texts(content: dict[str, Any], limits: Limits) -> list[str]:
    """One text, or several."""
    if ("text" in content) == ("texts" in content):
        raise Refusal(400, "give either text, a string, or texts, a list of strings")
    texts = content["texts"] if "texts" in content else [content["text"]]
    if not isinstance(texts, list) or not texts:
        raise Refusal(400, "texts must be a list of at least one string")
    if len(texts) > limits.texts:
        raise Refusal(400, f"texts has {len(texts)} texts, and the limit is {limits.texts}: send several requests")
    for place, text in enumerate(texts):
        name = f"texts[{place}]" if "texts" in content else "text"
        if not isinstance(text, str):
            raise Refusal(400, f"{name} must be a string")
        if len(text) > limits.characters:
            raise Refusal(400, f"{name} has {len(text)} characters, and the limit is {limits.characters}: cut it")
    return texts


def read_budgets(content: Any, texts: int) -> list[float | str | None]:
    """A budget for each text."""
    budgets = content if isinstance(content, list) else [content] * texts
    if len(budgets) != texts:
        raise Refusal(400, f"budget has {len(budgets)} entries for {texts} texts: give one for each, or a single one")
    for budget in budgets:
        share = isinstance(budget, (int, float)) and not isinstance(budget, bool) and 0 < budget <= 1
        if not (share or budget == "auto" or content is None):
            raise Refusal(400, 'budget must be a number above 0 and at most 1, or "auto", or a list of these')
    return budgets


def decoding_checks(limits: Limits) -> dict[str, Callable[[str, Any], Any]]:
    """The options of beam search, and how each is checked."""
    return {
        "beam": between(1, limits.beam),
        "lenpen": between(-10.0, 10.0),
        "max_len_a": between(0.0, 4.0),
        "max_len_b": between(0, limits.length),
        "min_len": between(0, limits.length),
        "no_repeat_ngram_size": between(0, limits.length),
    }


def between(low: float, high: float) -> Callable[[str, Any], Any]:
    """A check for numbers, whole ones where the bounds are."""
    kinds = (int,) if isinstance(low, int) else (int, float)

    def check(name: str, value: Any) -> Any:
        if not isinstance(value, kinds) or isinstance(value, bool) or not low <= value <= high:
            raise Refusal(400, f"{name} must be a {'whole ' * (kinds == (int,))}number from {low:g} to {high:g}")
        return value

    return check
