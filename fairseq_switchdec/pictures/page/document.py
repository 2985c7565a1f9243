"""The page as one file: template, style and program with their hashes, the data in a block that runs nothing."""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

import numpy as np

from ...generation.reading import path_key
from ...generation.report import summary
from .charts import cost_and_length, histogram, paths

#: The program's parts, in their order.
PROGRAM = ("text.js", "list.js", "detail.js", "page.js")


def build_page(report: dict[str, Any], views: Sequence[dict[str, Any]], title: str, notes: Sequence[str] = ()) -> str:
    """The page of a run.

    Args:
        report: as ``--switch-report`` wrote it, with at least one input.
        views: `fairseq_switchdec.pictures.page.view.input_view` of every entry of its ``per_input``, in their order.
        notes: what a reader must know, above all else.
    """
    entries = report["per_input"]
    numbers, table = number_paths(entries, views)
    shown = [{**view, "path": number} for view, number in zip(views, numbers)]
    costs, lengths = (np.array([entry[name] for entry in entries]) for name in ("cost", "source_tokens"))
    style = read("page.css")
    program = "\n".join(map(read, PROGRAM))
    return Template(read("page.html")).substitute(
        policy=markup(policy(style, program)),
        title=markup(title),
        facts="".join(f"<div><dt>{markup(name)}</dt><dd>{markup(text)}</dd></div>" for name, text in facts(report)),
        run=markup(run_in_words(report.get("run", {}))),
        notes="".join(f'<p class="note">{markup(note)}</p>' for note in notes),
        charts=histogram(costs) + paths(numbers) + cost_and_length(costs, lengths),
        style=style,
        program=program,
        data=data_block({"paths": table, "inputs": shown}),
    )


def number_paths(
    entries: Sequence[dict[str, Any]], views: Sequence[dict[str, Any]]
) -> tuple[list[int], list[dict[str, Any]]]:
    """Each input's path as a number from 1, the most frequent first, and by number what the paths are."""
    keys = [path_key(entry) for entry in entries]
    counts = Counter(keys).most_common()
    numbers = {key: number for number, (key, _) in enumerate(counts, 1)}
    of_key = {key: view["path"] for key, view in zip(keys, views)}
    return [numbers[key] for key in keys], [{"inputs": count, **of_key[key]} for key, count in counts]


def facts(report: dict[str, Any]) -> list[tuple[str, str]]:
    """The run's means, for people."""
    total = summary(report["per_input"], report.get("seconds", 0.0))
    found = [("inputs", f"{total['inputs']:,}"), ("cost", f"{total['cost']:.1%} of keep-all FLOPs")]
    if "seconds_cost" in total:
        found.append(("cost in seconds", f"{total['seconds_cost']:.1%}"))
    found += [
        ("attention skipped", f"{total['attention_skipped']:.1%}"),
        ("feed-forward skipped", f"{total['ffn_skipped']:.1%}"),
        ("tokens dropped", f"{total['tokens_dropped']:.1%}"),
        ("paths", f"{total['paths']:,}"),
        ("on the most frequent path", f"{total['most_frequent_path']:.0%}"),
        ("generation", f"{total['seconds']:,.1f} s"),
    ]
    return found


def run_in_words(run: dict[str, Any]) -> str:
    """The run's settings, for people; nothing where a report does not say."""
    shown = [
        f"{name} {run[name]}" for name in ("decisions", "budget", "precision", "seed") if run.get(name) is not None
    ]
    generation = run.get("generation")
    more = [f"{name} {value}" for name, value in generation.items()] if isinstance(generation, dict) else []
    return ", ".join([*shown, *more])


def policy(style: str, program: str, *more: str) -> str:
    """The content security policy: this style and this program, and nothing from anywhere but what ``more`` allows."""
    allowed = "; ".join([f"script-src {source_hash(program)}; style-src {source_hash(style)}", *more])
    return f"default-src 'none'; {allowed}; base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'"


def source_hash(text: str) -> str:
    """How a policy names an inline source."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def markup(text: str) -> str:
    """A text as HTML; a character that is not seen, of a file's name say, by its number."""
    return escape("".join(letter if letter.isprintable() else f"U+{ord(letter):04X}" for letter in text))


def data_block(data: Any) -> str:
    """JSON that no parser of HTML finds a tag in, and no editor a character that turns a line around: ASCII."""
    return json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")


def read(name: str) -> str:
    """A file beside this one."""
    return files(__package__).joinpath(name).read_text(encoding="utf-8")
