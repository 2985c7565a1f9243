"""Classification from scratch: what does a switchable BART save, at which accuracy?

    GLUE tsv -> prepare -> a small BART -+-> fine-tuned plainly -----> plain
                                         +-> fine-tuned switchable --> keep-all, learned, random, shuffled decisions

    python -m examples.glue.from_scratch SST-2 glue_data/SST-2 --bpe-dir gpt2_bpe --out output

Both fine-tunings have the same length, batches and learning rate. A finished stage is not repeated. At the end:
report.json and report.md in the output folder.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from fairseq_switchdec.files import write_text
from fairseq_switchdec.glue.tasks import GLUE, glue_task

from ..common.command_line import command_line
from ..common.random_decisions import keep_for_cost
from ..common.repository import example
from ..common.stages import Stages, records
from ..common.words import FAIRSEQ, PLUGIN, restore, schedule, sizes

HERE = Path(__file__).resolve().parent
OURS = [*PLUGIN, "switchable_sentence_prediction"]
PLAIN = ["--task", "sentence_prediction", "--add-prev-output-tokens"]
SHOWN = ("accuracy", "loss", "cost", "attention_skipped", "ffn_skipped", "tokens_dropped")


@dataclass(frozen=True)
class Settings:
    """What distinguishes one run from another; the defaults are those of a few minutes on two cores."""

    updates: int = 600
    finetune_updates: int = 300
    batch_size: int = 64
    lr: float = 1e-3
    finetune_lr: float = 2e-4
    policy_lr: float = 2e-3
    policy_quality_slack: float = 0.05
    policy_statistics_inputs: int = 1000
    dropout: float = 0.1
    layers: int = 4
    dim: int = 64
    ffn_dim: int = 256
    heads: int = 4
    max_positions: int = 512
    seed: int = 1


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = command_line(__doc__, __spec__.name)
    parser.add_argument("task", help=f"one of {', '.join(name for name in GLUE if GLUE[name].labels)}")
    parser.add_argument("data", type=Path, help="folder of train.tsv and dev.tsv")
    parser.add_argument("--bpe-dir", type=Path, required=True, help="folder of encoder.json, vocab.bpe and dict.txt")
    parser.add_argument("--out", type=Path, default=HERE / "output", help="output folder")
    parser.add_argument("--limit", type=int, help="take only this many training rows")
    for item in fields(Settings):
        flag = "--" + item.name.replace("_", "-")
        parser.add_argument(flag, type=type(item.default), default=item.default, help="(%(default)s)")
    args = parser.parse_args(argv)
    glue_task("TASK", args.task)
    return args


def training(s: Settings, task: str, save_dir: Path, lr: float, updates: int) -> list[str]:
    """What all trainings share."""
    words = [
        *sizes(s.layers, s.dim, s.ffn_dim, s.heads), "--share-all-embeddings", "--dropout", s.dropout,
        "--num-classes", len(GLUE[task].labels),
        "--init-token", 0, "--separator-token", 2, "--max-positions", s.max_positions, "--shorten-method", "truncate",
        "--optimizer", "adam", "--adam-betas", "(0.9, 0.98)", "--adam-eps", 1e-8, "--weight-decay", 0.01,
        "--clip-norm", 1.0, "--batch-size", s.batch_size, "--batch-size-valid", 64, "--seed", s.seed,
        "--required-batch-size-multiple", 1, "--num-workers", 0, *schedule(lr, max(1, updates // 10), updates),
        "--save-dir", save_dir, "--no-epoch-checkpoints", "--validate-interval", 1000, "--log-format", "json",
        "--log-interval", 50,
    ]  # fmt: skip
    return [str(word) for word in words]


def validate(binary: Path, checkpoint: Path, task: list[str], *extra: Any) -> list[str]:
    command = [*FAIRSEQ, "validate", binary, *task, "--path", checkpoint, "--valid-subset", "valid"]
    command += ["--batch-size", 64, "--num-workers", 0, "--log-format", "json", "--log-interval", 100000, *extra]
    return [str(word) for word in command]


def random_keep(binary: Path, s: Settings, head: int, cost: float) -> float:
    """The keep probability at which random decisions cost as much, on the validation set.

    Args:
        head: multiply-accumulates of the classification head.
    """
    import torch
    from fairseq.data import data_utils

    from fairseq_switchdec.cost import Geometry, Lengths

    parts = [data_utils.load_indexed_dataset(str(path / "valid"), None) for path in sorted(binary.glob("input?"))]
    specials = 2 * len(parts)  # <s> a </s>, </s> b </s>
    content = sum(torch.from_numpy(part.sizes).long() - 1 for part in parts).clamp(max=s.max_positions - specials)
    source = content + specials
    lengths = Lengths(source, content, source, incremental=False)
    geometry = Geometry(s.layers, s.layers, s.dim, s.dim, s.ffn_dim, s.ffn_dim, 0, head)
    return round(keep_for_cost(geometry, lengths, cost), 4)


def figures(log: Path) -> dict[str, float]:
    """What fairseq-validate printed."""
    found = records(log, "valid")[-1]
    return {name: found[key] for name in SHOWN for key in (name, f"valid_{name}") if key in found}


def table(results: dict[str, dict[str, float]], seconds: dict[str, float]) -> str:
    """The report for people."""
    lines = [
        "| system | accuracy | cost | attention skipped | ffn skipped | tokens dropped |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for name, values in results.items():
        shares = [f"{100 * values.get(key, 1.0 if key == 'cost' else 0.0):.1f} %" for key in SHOWN[2:]]
        lines.append(f"| {name} | {values['accuracy']:.2f} | {' | '.join(shares)} |")
    lines += ["", "Seconds: " + ", ".join(f"{name} {value:.0f}" for name, value in seconds.items()) + "."]
    return "\n".join(lines) + "\n"


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    s = Settings(**{item.name: getattr(args, item.name) for item in fields(Settings)})
    out: Path = args.out.resolve()
    stages = Stages(out, total=9)
    binary, models = out / "bin", out / "models"
    prepare = [*example("glue.prepare"), args.task, args.data, "--bpe-dir", args.bpe_dir, "--out", binary]
    prepare += ["--limit", str(args.limit)] if args.limit else []
    stages.run("prepare", prepare, makes=[binary / "input0"], wipe=[binary])

    def train(name: str, after: list[str], *flags: Any) -> Path:
        made = models / name / "checkpoint_last.pt"
        command = [*FAIRSEQ, "train", str(binary), *map(str, flags)]
        stages.run(name, command, makes=[made], after=after, wipe=[models / name])
        return made

    stock = [*PLAIN, "--arch", "bart_base", "--criterion", "sentence_prediction"]
    start = train("start", ["prepare"], *stock, *training(s, args.task, models / "start", s.lr, s.updates))
    switchable = [*OURS, "--arch", "switchable_bart_base", "--criterion", "lexico_policy_criterion"]
    switchable += ["--policy-lr", s.policy_lr, "--policy-quality-slack", s.policy_quality_slack]
    switchable += ["--policy-statistics-inputs", s.policy_statistics_inputs]
    trained = {}
    for name, flags in (("plain", stock), ("switchable", switchable)):
        common = training(s, args.task, models / name, s.finetune_lr, s.finetune_updates)
        trained[name] = train(name, ["start"], *flags, *common, *restore(start))

    results: dict[str, dict[str, float]] = {}

    def measure(name: str, model: str, task: list[str], *flags: Any) -> None:
        stages.run(f"valid-{name}", validate(binary, trained[model], task, *flags), makes=[], after=[model])
        results[name] = figures(stages.log(f"valid-{name}"))

    measure("plain", "plain", [*PLAIN, "--criterion", "sentence_prediction"])
    for name, choice in (("keep-all", "keep-all"), ("learned", "greedy"), ("shuffled", "shuffled")):
        measure(name, "switchable", OURS, "--switch-decisions", choice)
    head = s.dim * (s.dim + len(GLUE[args.task].labels))
    keep = random_keep(binary, s, head, results["learned"]["cost"])
    measure("random", "switchable", OURS, "--switch-decisions", "random", "--switch-random-keep", keep)
    seconds = {name: stages.seconds(name) for name in ("prepare", "start", "plain", "switchable")}
    text = table(results, seconds)
    content = {"results": results, "random_keep": keep, "seconds": seconds, "settings": vars(s)}
    write_text(out / "report.json", json.dumps(content, indent=1) + "\n")
    write_text(out / "report.md", text)
    print("\n" + text)


if __name__ == "__main__":
    main()
