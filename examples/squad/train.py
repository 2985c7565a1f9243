"""Fine-tunes BART-large on SQuAD with the paper's settings, switchable or plain.

    python examples/squad/train.py 1.1 squad-data --bart bart.large/model.pt --save-dir checkpoints/squad [options]

The folder is made by prepare.py. ``--plain`` trains the whole model as ever, for comparison. Options at the end go to
fairseq-train and have the last word.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path

#: Inputs of an update in the paper: 3 on each of 8 devices, accumulated twice.
BATCH = 3 * 8 * 2


def command(args: argparse.Namespace, extra: list[str]) -> list[str]:
    """The words of fairseq-train."""
    words: list[object] = [
        args.data, "--user-dir", "fairseq_switchdec", "--task", "switchable_squad", "--squad-version", args.version,
        "--arch", "switchable_bart", "--criterion", "lexico_policy_criterion",
        "--finetune-from-model", args.bart, "--save-dir", args.save_dir, "--share-all-embeddings",
        "--batch-size", args.batch_size, "--update-freq", max(1, BATCH // (args.batch_size * args.gpus)),
        "--dropout", 0.1, "--attention-dropout", 0.1, "--weight-decay", 0.01, "--optimizer", "adam",
        "--adam-betas", "(0.9, 0.98)", "--adam-eps", 1e-8, "--clip-norm", 0.1, "--lr-scheduler", "polynomial_decay",
        "--lr", 1.5e-5, "--warmup-updates", 326, "--total-num-update", 5430, "--max-update", 5430,
        "--validate-interval-updates", 1000, "--no-epoch-checkpoints", "--best-checkpoint-metric", "f1",
        "--maximize-best-checkpoint-metric", "--find-unused-parameters",
    ]  # fmt: skip
    words += ["--policy-decisions", "keep-all"] if args.plain else ["--policy-lr", 2e-4]
    return [str(word) for word in words] + extra


def parse_args(argv: list[str] | None = None) -> tuple[argparse.Namespace, list[str]]:
    """The script's options, and those for fairseq-train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("version", choices=("1.1", "2.0"))
    parser.add_argument("data", type=Path, help="folder that prepare.py made")
    parser.add_argument("--bart", type=Path, required=True, help="model.pt of bart.large")
    parser.add_argument("--save-dir", type=Path, required=True)
    parser.add_argument("--plain", action="store_true", help="without switching: the baseline")
    parser.add_argument("--batch-size", type=int, default=3, help="inputs at once on a GPU (%(default)s)")
    parser.add_argument("--gpus", type=int, default=1, help="processes; updates are accumulated to the paper's batch")
    return parser.parse_known_args(argv)


def main() -> None:
    """The command."""
    args, extra = parse_args()
    words = [sys.executable, "-m", "fairseq_switchdec", "train", *command(args, extra)]
    print("$", shlex.join(words), flush=True)
    os.execv(sys.executable, words)


if __name__ == "__main__":
    main()
