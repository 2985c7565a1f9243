"""``python -m fairseq_switchdec report merge OUT SHARD ...``: one ``--switch-report`` from those of several processes.

The merged report is what one process would have written for all inputs, but for the seconds, which are summed.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from ..errors import UserError
from ..files import check_writable, write_text
from .report import report_text, summary, summary_lines

#: What runs of one kind have in common, and the option that sets it.
SETTINGS = {
    "model": "--path (or --fp16)",
    "data": "the data folder or --gen-subset",
    "inputs": "the data folder or --skip-invalid-size-inputs-valid-test",
    "decisions": "--switch-decisions",
    "random_keep": "--switch-random-keep",
    "budget": "--switch-budget",
    "seconds": "--switch-seconds",
    "seed": "--seed",
    "generation": "the decoding options",
}
#: What older reports do not say.
NEWER = {"budget", "seconds"}


def add_parser(commands: Any) -> None:
    """Add the command to those of ``report``."""
    merging = commands.add_parser("merge", help="make one report of those of all shards of a run")
    merging.add_argument("out", metavar="OUT", help="JSON file to write")
    merging.add_argument("shards", metavar="SHARD", nargs="+", help="reports of fairseq-generate --num-shards")
    merging.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Merge, write the file, print its lines.

    Raises:
        UserError: the reports are not all those of one run.
    """
    check_writable("OUT", args.out)
    content = merge({path: read_report(path) for path in args.shards})
    write_text(args.out, report_text(content["per_input"], content["seconds"], content["run"]))
    print(summary_lines(summary(content["per_input"], content["seconds"])))


def read_report(path: str) -> dict[str, Any]:
    """A shard's report.

    Raises:
        UserError: the file is none.
    """
    try:
        content = json.loads(open_text(path))
        of_shard = content["shard"].keys() >= {"id", "of", "inputs"}
        of_shard = of_shard and content["run"].keys() >= SETTINGS.keys() - NEWER
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        of_shard = False
    if not of_shard:
        raise UserError(f"{path} is no --switch-report of fairseq-generate with --num-shards")
    return content


def merge(reports: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """One report of those of all shards, by path: its ``run``, ``seconds`` and ``per_input``.

    Raises:
        UserError: naming the file and what is wrong: another run's, given twice, incomplete, or a shard is missing.
    """
    (first, reference), *_ = reports.items()
    shards: dict[int, str] = {}
    ids: dict[int, str] = {}
    for path, report in reports.items():
        check_same_run(first, reference, path, report)
        number = report["shard"]["id"]
        if number in shards:
            raise UserError(f"{path} and {shards[number]} are both of shard {number}: give one of them")
        shards[number] = path
        count, expected = len(report["per_input"]), report["shard"]["inputs"]
        if count != expected:
            raise UserError(f"{path} holds {count} of the {expected} inputs of shard {number}: {again(report, number)}")
        for entry in report["per_input"]:
            if ids.setdefault(entry["id"], path) != path:
                raise UserError(
                    f"{path} and {ids[entry['id']]} both hold input {entry['id']}: run all shards with the same "
                    "--batch-size and --max-tokens"
                )
    missing = [number for number in range(reference["shard"]["of"]) if number not in shards]
    if missing:
        raise UserError(
            f"of {reference['shard']['of']} shards {', '.join(map(str, missing))} "
            f"{'is' if len(missing) == 1 else 'are'} missing, {missing_inputs(ids, reference)}: "
            f"{again(reference, missing[0])}"
        )
    if len(ids) != reference["run"]["inputs"]:
        raise UserError(
            f"{missing_inputs(ids, reference)} are in none of the {len(shards)} shards: run all of them with "
            "the same --batch-size and --max-tokens"
        )
    return {
        "run": reference["run"],
        "seconds": sum(report["seconds"] for report in reports.values()),
        "per_input": [entry for report in reports.values() for entry in report["per_input"]],
    }


def check_same_run(first: str, reference: dict[str, Any], path: str, report: dict[str, Any]) -> None:
    """Refuse the report of another run.

    Raises:
        UserError: naming the option that differs.
    """
    if report["shard"]["of"] != reference["shard"]["of"]:
        raise UserError(f"{path} is one of {report['shard']['of']} shards, {first} one of {reference['shard']['of']}")
    for name, option in SETTINGS.items():
        ours, theirs = reference["run"].get(name), report["run"].get(name)
        if ours != theirs:
            raise UserError(f"{path} is of another run than {first}: {option} differs ({name} {theirs}, not {ours})")


def missing_inputs(ids: dict[int, str], report: dict[str, Any]) -> str:
    """How many inputs of a run are missing and, where no input was left out as too long, the first of them."""
    total = report["run"]["inputs"]
    absent = [index for index in range(total) if index not in ids]
    count = total - len(ids)
    inputs = f"{count} of {total} inputs"
    return (
        f"{inputs} (ids {', '.join(map(str, absent[:5]))}{', ...' if count > 5 else ''})"
        if len(absent) == count
        else inputs
    )


def again(report: dict[str, Any], number: int) -> str:
    """How to make a shard's report."""
    return f"run fairseq-generate with --num-shards {report['shard']['of']} --shard-id {number} again"


def open_text(path: str) -> str:
    """A file's text."""
    with open(path, encoding="utf-8") as file:
        return file.read()
