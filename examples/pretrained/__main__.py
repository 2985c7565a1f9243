"""SmolLM2-135M, pretrained, learns to summarize and what of itself to skip, with fairseq's own commands.

    package index -> GGUF -> import -> model.pt, dict.txt, tokenizer.json
    docstrings -> encode -> fairseq-preprocess -+-> fine-tuned plainly -----> generate: plain
                                                +-> fine-tuned switchably --> generate: keep-all, learned, random,
                                                                              shuffled decisions

Every command is printed before it runs; a finished stage is not repeated. At the end: a table, five summaries with what
was skipped for them, report.json, report.md and, with matplotlib, report.png and decisions.png in the output folder.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from fairseq_switchdec.errors import UserError

from ..common import comparison
from ..common.command_line import add_settings, check_args, command_line, read_settings, run_stages
from ..common.comparison import text_files
from ..common.files import SPLITS
from ..common.random_decisions import keep_for_report
from ..common.repository import example, source
from ..common.stages import Stages
from . import commands, report
from .commands import Settings

HERE = Path(__file__).resolve().parent
MODEL_FILES = ("model.pt", "dict.txt", "tokenizer.json")
MADE = ("gguf", "model", "corpus", "pairs", "ids", "bin", "models", "generated", "logs", "stages")
HELP = {
    "updates": "length of both fine-tunings",
    "flops_budget": "share of the FLOPs to keep within, by rule budget; 0: rule quality, which keeps within a loss",
    "max_source_positions": "longer articles are truncated to this many tokens",
    "max_target_positions": "longer summaries are left out",
    "max_len": "longest hypothesis, in tokens",
    "amp": "fine-tune with fairseq's --amp, which on a processor means bfloat16: faster with AVX-512 BF16 or AMX",
}
#: All cores, for one command at a time; most examples run small models, which one core serves best.
THREADS = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS") or str(os.cpu_count() or 1)}


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = command_line(__doc__, __spec__.name)
    parser.add_argument("--data", type=Path, help="folder of {train,valid,test}.{source,target} to use instead")
    parser.add_argument(
        "--escape", action="store_true", help=r"in a line of --data \n stands for a newline, \\ for a backslash"
    )
    parser.add_argument("--gguf", type=Path, help="the model's file, which is downloaded otherwise")
    add_settings(parser, Settings, HELP, HERE / "output")
    args = parser.parse_args(argv)
    check_args(args, ("data", "gguf", "out"), ("updates", "batch_size", "valid_pairs", "test_pairs", "beam"))
    if not 0 <= args.flops_budget <= 1:
        raise UserError(f"--flops-budget {args.flops_budget} must be between 0 and 1")
    check_sources(args)
    return args


def check_sources(args: argparse.Namespace) -> None:
    """Refuse files that are not there.

    Raises:
        UserError: naming the flag.
    """
    if args.data is not None:
        comparison.check_data(args.data)
    elif args.escape:
        raise UserError("--escape is about the files of --data: give that too")
    if args.gguf is not None and not args.gguf.is_file():
        raise UserError(f"--gguf {args.gguf} is no file")


class Pretrained:
    """The stages in order; each method returns what the next ones read."""

    def __init__(self, args: argparse.Namespace):
        self.args = args
        self.settings: Settings = read_settings(args, Settings)
        self.out: Path = args.out
        self.stages = Stages(self.out, total=18 - (args.data is not None) - (args.gguf is not None))

    def run(self) -> None:
        model = self.model()
        pairs = self.pairs()
        binary = self.binarize(model, pairs)
        self.finetune(model, binary)
        self.generate_all(model, binary)
        report.write(self.settings, self.stages, pairs)

    def model(self) -> Path:
        gguf, model = self.args.gguf, self.out / "model"
        if gguf is None:
            gguf, module = self.out / "gguf" / "SmolLM2-135M-Instruct.Q4_1.gguf", "pretrained.download"
            self.stages.run("download", [*example(module), gguf], makes=[gguf], sources=[source(module)])
        self.stages.run(
            "import",
            commands.convert(gguf, model),
            makes=[model / name for name in MODEL_FILES],
            after=["download"] if self.args.gguf is None else [],
            wipe=[model],
        )
        return model

    def pairs(self) -> Path:
        corpus, pairs, module = self.args.data, self.out / "pairs", "pretrained.pairs"
        if corpus is None:
            corpus, sources = self.out / "corpus", [source("quickstart.build_corpus"), source("quickstart.clean_text")]
            command = [*example("quickstart.build_corpus"), corpus]
            self.stages.run("corpus", command, makes=text_files(corpus), sources=sources)
        counts = [word for split, count in self.settings.pairs.items() for word in (f"--{split}", str(count))]
        command = [*example(module), corpus, pairs, *counts]
        self.stages.run("pairs", command, makes=text_files(pairs), sources=[source(module), *text_files(corpus)])
        return pairs

    def binarize(self, model: Path, pairs: Path) -> Path:
        ids, binary, encoding = self.out / "ids", self.out / "bin", []
        ids.mkdir(exist_ok=True)
        after = [stage for stage in ("import", "pairs") if stage in self.stages.fingerprints]
        for text in text_files(pairs):
            encoding.append(f"encode-{text.name}")
            command = commands.encode(model, text, ids / text.name, self.args.escape)
            tokenizer = [model / "tokenizer.json"]
            self.stages.run(encoding[-1], command, makes=[ids / text.name], after=after, sources=tokenizer)
        self.stages.run(
            "preprocess",
            commands.preprocess(model, ids, binary),
            makes=[binary / f"{split}.source-target.target.idx" for split in SPLITS],
            after=encoding,
            wipe=[binary],
        )
        return binary

    def checkpoint(self, model: str) -> Path:
        return self.out / "models" / model / "checkpoint_last.pt"

    def finetune(self, model: Path, binary: Path) -> None:
        for name, build in (("plain", commands.finetune_plain), ("switchable", commands.finetune_switchable)):
            made = self.checkpoint(name)
            command = build(self.settings, model, binary, made.parent)
            self.stages.run(name, command, makes=[made], after=["preprocess"], wipe=[made.parent], env=THREADS)

    def generate_all(self, model: Path, binary: Path) -> None:
        def command(checkpoint: Path, results: Path) -> list[str]:
            return commands.generate(self.settings, model, binary, checkpoint, results, self.args.escape)

        comparison.generate_all(self.stages, command, self.checkpoint, self.random_keep, env=THREADS)

    def random_keep(self, learned: dict[str, Any]) -> float:
        """The keep probability at which random decisions cost what the learned ones did on these inputs."""
        return keep_for_report(self.checkpoint("switchable"), learned, self.settings.beam)


def main() -> None:
    args = parse_args()
    run_stages("pretrained", args, lambda: Pretrained(args).run(), MADE)


if __name__ == "__main__":
    main()
