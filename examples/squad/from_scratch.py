"""Question answering from end to end on one processor: a small BART, plain and switchable, from random weights.

    python -m examples.squad.from_scratch --train new_wiki.json train-part.json --valid dev-v1.1.json --bpe gpt2_bpe

Prepares the data, trains a base on the keep-all path, goes on from it for the same number of updates plainly and
switchably, and validates greedy, keep-all, shuffled and random decisions, the last at the cost of the greedy ones.
Finished stages are kept; ``output/report.md`` holds the table.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fairseq_switchdec.files import write_text

from ..common.command_line import command_line
from ..common.random_decisions import keep_for_cost
from ..common.repository import example, source
from ..common.stages import Stages, records
from ..common.words import FAIRSEQ, PLUGIN, schedule

HERE = Path(__file__).resolve().parent
TASK = [*PLUGIN, "switchable_squad"]
SIZES = [
    "--arch", "switchable_bart_tiny", "--encoder-layers", "3", "--decoder-layers", "3",
    "--encoder-embed-dim", "96", "--decoder-embed-dim", "96", "--encoder-ffn-embed-dim", "192",
    "--decoder-ffn-embed-dim", "192", "--max-source-positions", "512", "--max-target-positions", "512",
    "--share-all-embeddings", "--dropout", "0.1",
]  # fmt: skip
LEARNING = [
    "--criterion", "lexico_policy_criterion", "--optimizer", "adam", "--adam-betas", "(0.9, 0.98)",
    "--clip-norm", "1.0", "--batch-size", "16", "--batch-size-valid", "16",
    "--cpu", "--num-workers", "0", "--seed", "1", "--no-epoch-checkpoints", "--no-save-optimizer-state",
    "--best-checkpoint-metric", "f1", "--maximize-best-checkpoint-metric",
    "--log-format", "json", "--log-interval", "25",
]  # fmt: skip
COLUMNS = ("em", "f1", "cost", "attention_skipped", "ffn_skipped", "tokens_dropped")


def main() -> None:
    """The command."""
    parser = command_line(__doc__, __spec__.name)
    parser.add_argument("--train", nargs="+", required=True, metavar="FILE")
    parser.add_argument("--valid", required=True, metavar="FILE")
    parser.add_argument("--valid-questions", type=int, default=500, metavar="N")
    parser.add_argument("--bpe", required=True, metavar="DIR")
    parser.add_argument("--base-updates", type=int, default=400, metavar="N")
    parser.add_argument("--updates", type=int, default=200, metavar="N", help="updates of each fine-tuning")
    parser.add_argument("--out", type=Path, default=HERE / "output", metavar="DIR")
    args = parser.parse_args()
    stages = Stages(args.out, total=9)
    data = args.out / "data"
    prepare = [*example("squad.prepare"), "--train", *args.train, "--valid", args.valid, "--bpe", args.bpe]
    prepare += ["--valid-questions", str(args.valid_questions), "--out", data]
    stages.run("prepare", prepare, makes=[data / "train.json"], sources=[source("squad.prepare")])
    base = args.out / "base" / "checkpoint_last.pt"
    keep_all = ["--policy-decisions", "keep-all"]
    train(stages, data, "base", args.base_updates, 1e-3, keep_all, after="prepare")
    start = ["--finetune-from-model", str(base)]
    learned = ["--policy-lr", "4e-3", "--policy-statistics-inputs", "500"]
    train(stages, data, "plain", args.updates, 5e-4, [*start, *keep_all], after="base")
    train(stages, data, "switchable", args.updates, 5e-4, [*start, *learned], after="base")

    rows = [("plain fine-tuning", validate(stages, data, "plain", "keep-all"))]
    greedy = validate(stages, data, "switchable", "greedy")
    rows.append(("switchable, greedy", greedy))
    rows.append(("switchable, keep-all", validate(stages, data, "switchable", "keep-all")))
    rows.append(("switchable, shuffled", validate(stages, data, "switchable", "shuffled")))
    keep = random_keep(args.out / "switchable" / "checkpoint_last.pt", data, greedy["cost"])
    rows.append((f"switchable, random (keep {keep:.3f})", validate(stages, data, "switchable", "random", keep)))
    lines = ["| | EM | F1 | cost | attention skipped | feed-forward skipped | tokens dropped |", "|---|" + "--:|" * 6]
    for name, row in rows:
        cells = [f"{row[column]:.2f}" if column in ("em", "f1") else f"{row[column]:.1%}" for column in COLUMNS]
        lines.append(" | ".join([f"| {name}", *cells]) + " |")
    seconds = {name: round(stages.seconds(name)) for name in ("base", "plain", "switchable")}
    lines.append(f"\nSeconds of training: {', '.join(f'{name} {value}' for name, value in seconds.items())}")
    write_text(args.out / "report.md", "\n".join(lines) + "\n")
    print("\n".join(lines))


def train(stages: Stages, data: Path, name: str, updates: int, lr: float, extra: list[str], after: str) -> None:
    """A training run."""
    folder = stages.out / name
    length = [*schedule(lr, updates // 10, updates), "--validate-interval", "1000"]
    length += ["--validate-interval-updates", str(updates)]
    command = [*FAIRSEQ, "train", data, *TASK, *SIZES, *LEARNING, *length, *extra, "--save-dir", folder]
    stages.run(name, command, makes=[folder / "checkpoint_last.pt"], after=[after], wipe=[folder])


def validate(stages: Stages, data: Path, model: str, decisions: str, keep: float | None = None) -> dict[str, Any]:
    """The figures of a model under some decisions."""
    name = f"{model}-{decisions}"
    options = ["--switch-decisions", decisions, *([] if keep is None else ["--switch-random-keep", f"{keep:.6f}"])]
    path = stages.out / model / "checkpoint_last.pt"
    command = [*FAIRSEQ, "validate", data, *TASK, "--path", path, "--cpu", "--batch-size", "32", "--num-workers", "0"]
    stages.run(name, [*command, "--log-format", "json", *options], makes=[], after=[model])
    record = records(stages.log(name), "valid")[-1]
    return {column: float(record[f"valid_{column}"]) for column in COLUMNS}


def random_keep(checkpoint: Path, data: Path, cost: float) -> float:
    """The keep probability at which random decisions cost as much, on the validation set."""
    from fairseq import checkpoint_utils

    from fairseq_switchdec import tasks  # noqa: F401  (registers what the checkpoint names)
    from fairseq_switchdec.criterions.span import span_geometry, span_lengths

    overrides = {"data": str(data)}
    models, _, task = checkpoint_utils.load_model_ensemble_and_task([str(checkpoint)], arg_overrides=overrides)
    task.load_dataset("valid")
    dataset = task.dataset("valid")
    sample = dataset.collater([dataset[index] for index in range(len(dataset))])
    return keep_for_cost(span_geometry(models[0]), span_lengths(models[0], sample), cost)


if __name__ == "__main__":
    main()
