"""Answers and scores of a model on a SQuAD file, with its cost: greedy decisions, the whole model, random ones.

    python -m examples.squad.evaluate checkpoints/squad/checkpoint_best.pt dev-v1.1.json --out evaluated

``evaluated/DECISIONS.jsonl`` holds the n-best answers, ``.report.json`` what was skipped, ``.score.json`` the figures,
``.predictions.json`` the answers as SQuAD's own script and its leaderboard take them. Of 2.0 the threshold for giving
no answer is tuned on the file itself, unless ``--null-threshold`` gives one.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
from pathlib import Path

from ..common.command_line import command_line
from ..common.words import FAIRSEQ


def commands(args: argparse.Namespace, decisions: str, extra: list[str]) -> list[list[str]]:
    """The words of ``predict`` and of ``squad-score`` for some decisions."""
    made = {kind: str(args.out / f"{decisions}.{kind}") for kind in ("jsonl", "report.json", "score.json")}
    predict = [
        "predict", "--task", "switchable_squad", "--path", args.checkpoint, "--input", args.file,
        "--output", made["jsonl"], "--switch-report", made["report.json"], "--switch-decisions", decisions,
        "--switch-random-keep", args.random_keep, "--batch-size", args.batch_size,
    ]  # fmt: skip
    score = [
        "squad-score", "--data", args.file, "--n-best", made["jsonl"], "--null-threshold", args.null_threshold,
        "--json", made["score.json"], "--write-predictions", args.out / f"{decisions}.predictions.json",
    ]  # fmt: skip
    return [[str(word) for word in predict] + extra, [str(word) for word in score]]


def parse_args(argv: list[str] | None = None) -> tuple[argparse.Namespace, list[str]]:
    """The script's options, and those for ``predict``."""
    parser = command_line(__doc__, __spec__.name)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("file", type=Path, help="SQuAD's JSON")
    parser.add_argument("--out", type=Path, required=True, help="folder for the answers and scores")
    parser.add_argument("--decisions", nargs="+", default=["greedy", "keep-all", "random"], metavar="NAME")
    parser.add_argument("--random-keep", type=float, default=0.8, help="keep probability of random (%(default)s)")
    parser.add_argument("--null-threshold", default="tune", help="threshold of 2.0 (%(default)s)")
    parser.add_argument("--batch-size", type=int, default=32, help="windows at once (%(default)s)")
    return parser.parse_known_args(argv)


def main() -> None:
    """The command."""
    args, extra = parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for decisions in args.decisions:
        done = (args.out / f"{decisions}.jsonl").exists()
        for words in commands(args, decisions, extra)[done:]:
            print("$", shlex.join([*FAIRSEQ, *words]), flush=True)
            subprocess.run([*FAIRSEQ, *words], check=True)


if __name__ == "__main__":
    main()
