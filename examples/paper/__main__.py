"""The paper's tables on a pretrained model that any machine can have, with competitors beside it.

    python -m examples.paper 2 8          # some tables
    python -m examples.paper all --seeds 3
    python -m examples.paper --list       # what each compares, and how long it takes

The model and the pairs are those of `examples.pretrained`. A finished stage is not repeated: killed, the same command
goes on with the next one, and another table takes over what the ones before it made. At the end: results.md,
results.json and, with matplotlib, quality against cost and against seconds.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from fairseq_switchdec.config import check_choice
from fairseq_switchdec.errors import UserError

from ..common.command_line import add_settings, check_args, command_line, read_settings, run_stages
from ..pretrained import __main__ as pretrained
from .plan import SYSTEMS, TABLES, TRAININGS, chosen, runs
from .run import Paper, Settings

HERE = Path(__file__).resolve().parent
MADE = (*pretrained.MADE, "students", "pruned", "thresholds", "paths", "speed")
HELP = {
    **pretrained.HELP,
    "flops_budget": "share of the FLOPs that ours and the students keep within",
    "seed": "the first of --seeds",
    "seeds": "runs of the systems that decide: plain, ours, random; the others run once",
    "backbone": "smollm2, or bart: a small one from scratch, trained first on as many pairs as --scratch-updates say",
    "scratch_updates": "of --backbone bart, before the fine-tunings",
    "device": "auto, cpu or cuda",
    "rounds": "turns in which seconds are measured, of each system in each; 0: they are not",
}
BACKBONES, DEVICES = ("smollm2", "bart"), ("auto", "cpu", "cuda")
#: Seconds where two cores multiply matrices at `GFLOPS`: an update of 8 pairs of the default lengths, of every kind of
#: training; reading a process and its model; and for an input, generating, one by one and in a batch, and its loss.
GFLOPS = 200.0
UPDATE = {"plain": 5.0, "switches": 6.5, "student": 4.0, "calm": 5.5, "free": 5.0, "distilled": 5.0}
START, ALONE, BATCHED, LOSS = 12.0, 1.0, 0.25, 0.45


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = command_line(__doc__, __spec__.name)
    parser.add_argument("tables", nargs="*", metavar="TABLE", help=f"{', '.join(TABLES)}, or all")
    parser.add_argument("--list", action="store_true", help="say what each table compares, and how long it takes")
    parser.add_argument("--data", type=Path, help="folder of {train,valid,test}.{source,target} to use instead")
    parser.add_argument(
        "--escape", action="store_true", help=r"in a line of --data \n stands for a newline, \\ for a backslash"
    )
    parser.add_argument("--gguf", type=Path, help="the model's file, which is downloaded otherwise")
    parser.add_argument("--checkpoint", type=Path, help="your own model instead: a folder that import wrote")
    parser.add_argument("--mix", action="store_true", help="go on with what another commit has made")
    add_settings(parser, Settings, HELP, HERE / "output")
    args = parser.parse_args(argv)
    if args.list:
        return args
    args.tables = chosen(args.tables)
    counts = ("updates", "batch_size", "valid_pairs", "test_pairs", "beam", "seeds", "scratch_updates")
    check_args(args, ("data", "gguf", "checkpoint", "out"), counts)
    check_choice("backbone", args.backbone, BACKBONES)
    check_choice("device", args.device, DEVICES)
    if args.rounds < 0:
        raise UserError(f"--rounds {args.rounds} must be 0 or more")
    if args.checkpoint is not None:
        check_checkpoint(args)
    if not 0 < args.flops_budget <= 1:
        raise UserError(f"--flops-budget {args.flops_budget} must be in (0, 1]")
    pretrained.check_sources(args)
    return args


def check_checkpoint(args: argparse.Namespace) -> None:
    """Refuse a folder that import did not write.

    Raises:
        UserError: naming the flag.
    """
    for flag, other in (("--gguf", args.gguf is not None), ("--backbone", args.backbone != "smollm2")):
        if other:
            raise UserError(f"--checkpoint and {flag} both name a model: leave out one of them")
    for name in pretrained.MODEL_FILES:
        if not (args.checkpoint / name).is_file():
            raise UserError(f"--checkpoint {args.checkpoint} lacks {name}: give a folder that import wrote")


def listing(settings: Settings, scale: float) -> str:
    """Every table with what it compares and about how long it takes alone.

    Args:
        scale: how much longer than where `GFLOPS` was measured.
    """
    lines = []
    for name, table in TABLES.items():
        found = runs([name], settings.seeds)
        trained = {(SYSTEMS[system].training, seed) for system, seed in found}
        seconds = sum(training_seconds(training, settings) for training, _ in trained)
        seconds += sum(generation_seconds(system, settings) for system, _ in found)
        seconds += settings.rounds * sum(speed_seconds(system) for system, seed in found if seed == 1)
        lines.append(f"{name:>4}  {table.title}\n      {', '.join(table.rows)}")
        lines.append(f"      {len(trained)} fine-tunings, about {scale * seconds / 3600:.1f} hours here")
    return "\n".join(lines)


def training_seconds(name: str, settings: Settings) -> float:
    """Of a fine-tuning."""
    training = TRAININGS[name]
    kind = name if name in UPDATE else "switches" if training.switches else "student"
    return START + UPDATE[kind] * settings.updates * settings.batch_size / 8


def generation_seconds(system: str, settings: Settings) -> float:
    """Of what a system writes for the test set, its loss, and its threshold."""
    if not SYSTEMS[system].exits:
        return 2 * START + (BATCHED + LOSS) * settings.test_pairs
    calibrated = ALONE * settings.valid_pairs * 6  # thresholds, until one fails
    return 2 * START + ALONE * settings.test_pairs + calibrated


def speed_seconds(system: str) -> float:
    """Of a round of the clock."""
    inputs = 16  # and as many in batches, or again one by one
    return 2 * START + inputs * (ALONE + (ALONE if SYSTEMS[system].exits else BATCHED))


def slowness() -> float:
    """How many times longer than there a product of matrices takes here."""
    import torch

    matrix = torch.rand(1536, 1536)
    taken = []
    for _ in range(6):
        start = time.perf_counter()
        matrix @ matrix
        taken.append(time.perf_counter() - start)
    return min(taken) * GFLOPS * 1e9 / (2 * 1536**3)


def main() -> None:
    args = parse_args()
    if args.list:
        print(listing(read_settings(args, Settings), slowness()))
        return
    run_stages("paper", args, lambda: Paper(args, read_settings(args, Settings)).run(), MADE)


if __name__ == "__main__":
    main()
