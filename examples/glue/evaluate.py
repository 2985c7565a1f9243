"""GLUE's measures of what ``predict`` wrote, with cost and skipped shares, and the file for GLUE's server.

    python -m examples.glue.evaluate SST-2 learned=dev.jsonl keep-all=dev.keep-all.jsonl random=dev.random.jsonl \\
        --reports learned=dev.report.json random=dev.random.json
    python -m examples.glue.evaluate SST-2 --submission SST-2.tsv test.jsonl
"""

from __future__ import annotations

import argparse
import json

from fairseq_switchdec.errors import UserError
from fairseq_switchdec.files import check_writable, write_text
from fairseq_switchdec.glue.metrics import scored, submission
from fairseq_switchdec.glue.tasks import GLUE, glue_task

from ..common.command_line import command_line

SHARES = ("cost", "attention_skipped", "ffn_skipped", "tokens_dropped")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = command_line(__doc__, __spec__.name)
    parser.add_argument("task", help=f"one of {', '.join(GLUE)}")
    parser.add_argument("predictions", nargs="+", metavar="[NAME=]FILE", help="what predict wrote, one file a system")
    parser.add_argument("--reports", nargs="*", default=[], metavar="NAME=FILE", help="its --switch-report files")
    parser.add_argument("--submission", metavar="FILE", help="write the first system's predictions as GLUE takes them")
    args = parser.parse_args(argv)
    glue_task("TASK", args.task)
    if args.submission:
        check_writable("--submission", args.submission)
    return args


def named(words: list[str]) -> dict[str, str]:
    """NAME=FILE words as a dict; a file without a name is its own."""
    return dict(word.split("=", 1) if "=" in word else (word, word) for word in words)


def report_shares(path: str) -> dict[str, float]:
    """Cost and skipped shares of a report."""
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
        return {name: float(content[name]) for name in SHARES}
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"--reports {path} is no --switch-report") from None


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    task = GLUE[args.task]
    systems, reports = named(args.predictions), named(args.reports)
    if args.submission:
        text, filled = submission(task, next(iter(systems.values())))
        write_text(args.submission, text)
        note = f", {filled} rows that could not be predicted are filled" if filled else ""
        print(f"wrote {args.submission} ({task.submission} on GLUE's server){note}")
        return
    print("| system | " + " | ".join((*task.measures, *SHARES)) + " |")
    print("|---|" + "--:|" * (len(task.measures) + len(SHARES)))
    for name, path in systems.items():
        found, absent = scored(task, path)
        shares = report_shares(reports[name]) if name in reports else {}
        cells = [f"{found[measure]:.2f}" for measure in task.measures]
        cells += [f"{100 * shares[share]:.1f} %" if share in shares else "" for share in SHARES]
        print(f"| {name} | " + " | ".join(cells) + " |" + (f" ({absent} rows without a prediction)" if absent else ""))


if __name__ == "__main__":
    main()
