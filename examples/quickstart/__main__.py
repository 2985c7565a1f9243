"""Trains a small switchable BART on docstrings and shows what it saves, with fairseq's own commands.

    text -> BPE -> fairseq-preprocess -> a small BART -+-> fine-tuned plainly -----> generate: plain
                                                       +-> fine-tuned switchable --> generate: keep-all, learned,
                                                                                     random, shuffled decisions

Every command is printed before it runs; a finished stage is not repeated. At the end: a table, three summaries with
what was skipped for them, report.json, report.md and, with matplotlib, report.png and decisions.png in the output
folder.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from fairseq_switchdec.errors import UserError

from ..common import comparison
from ..common.bpe import BPE_FILES, check_bpe
from ..common.command_line import add_settings, check_args, command_line, read_settings, run_stages
from ..common.comparison import text_files
from ..common.files import SPLITS, count_lines
from ..common.random_decisions import keep_for_cost
from ..common.repository import example, source
from ..common.stages import Stages
from . import commands, report
from .commands import Settings

HERE = Path(__file__).resolve().parent
MADE = ("corpus", "bpe", "ids", "bin", "models", "generated", "logs", "stages")
HELP = {
    "updates": "length of the training from scratch",
    "finetune_updates": "length of both fine-tunings",
    "dim": "channels of encoder and decoder",
    "layers": "layers of the encoder, and of the decoder",
    "max_source_positions": "longer sources are truncated to this many tokens",
    "max_len": "longest hypothesis, in tokens",
}


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = command_line(__doc__, __spec__.name)
    parser.add_argument("--data", type=Path, help="folder of {train,valid,test}.{source,target} to use instead")
    parser.add_argument("--bpe-dir", type=Path, help="folder of encoder.json, vocab.bpe and dict.txt to use instead")
    parser.add_argument("--bpe-size", type=int, default=2000, help="symbols of the BPE that is trained (%(default)s)")
    add_settings(parser, Settings, HELP, HERE / "output")
    args = parser.parse_args(argv)
    check_args(args, ("data", "bpe_dir", "out"), ("updates", "finetune_updates", "layers", "batch_size"))
    if args.dim % args.heads:
        raise UserError(f"--dim {args.dim} must be a multiple of --heads {args.heads}")
    if args.data is not None:
        comparison.check_data(args.data)
    if args.bpe_dir is not None:
        check_bpe("--bpe-dir", args.bpe_dir)
    return args


class Quickstart:
    """The stages in order; each method returns what the next ones read."""

    def __init__(self, args: argparse.Namespace):
        self.args = args
        self.settings: Settings = read_settings(args, Settings)
        self.out: Path = args.out
        self.stages = Stages(self.out, total=14 - (args.data is not None) - (args.bpe_dir is not None))

    def run(self) -> None:
        corpus = self.corpus()
        bpe_dir, binary = self.binarize(corpus)
        self.train(binary)
        self.generate_all(binary, bpe_dir)
        report.write(self.settings, self.stages, corpus)

    def corpus(self) -> Path:
        if self.args.data is not None:
            return self.args.data
        corpus, sources = self.out / "corpus", [source("quickstart.build_corpus"), source("quickstart.clean_text")]
        command = [*example("quickstart.build_corpus"), corpus]
        self.stages.run("corpus", command, makes=text_files(corpus), sources=sources)
        return corpus

    def binarize(self, corpus: Path) -> tuple[Path, Path]:
        bpe_dir = self.args.bpe_dir or self.out / "bpe"
        ids, binary, script = self.out / "ids", self.out / "bin", source("quickstart.train_bpe")
        text = text_files(corpus)
        files = [bpe_dir / name for name in BPE_FILES]
        if self.args.bpe_dir is None:
            command = [*example("quickstart.train_bpe"), "train", "--size", self.args.bpe_size, *text[:2], bpe_dir]
            self.stages.run("bpe", command, makes=files, sources=[script, *text[:2]])
        command = [*example("quickstart.train_bpe"), "encode", bpe_dir, corpus, ids]
        self.stages.run("encode", command, makes=text_files(ids, ".bpe"), sources=[script, *files, *text])
        self.stages.run(
            "preprocess",
            commands.preprocess(ids, binary, bpe_dir),
            makes=[binary / f"{split}.source-target.target.idx" for split in SPLITS],
            after=["encode"],
        )
        return bpe_dir, binary

    def checkpoint(self, model: str) -> Path:
        return self.out / "models" / model / "checkpoint_last.pt"

    def train(self, binary: Path) -> None:
        fresh, scaled = self.checkpoint("fresh"), self.out / "models" / "start.pt"
        command = commands.fresh(self.settings, binary, fresh.parent)
        self.stages.run("fresh", command, makes=[fresh], after=["preprocess"], wipe=[fresh.parent])
        command = [*example("common.scale_weights"), "--gain", self.gain(), fresh, scaled]
        sources = [source("common.scale_weights")]
        self.stages.run("scale", command, makes=[scaled], after=["fresh"], sources=sources)
        start = self.checkpoint("pretrain")
        command = commands.pretrain(self.settings, binary, scaled, start.parent)
        self.stages.run("pretrain", command, makes=[start], after=["scale"], wipe=[start.parent])
        finetuning = []
        for name, build in (("plain", commands.finetune_plain), ("switchable", commands.finetune_switchable)):
            made = self.checkpoint(name)
            command = build(self.settings, binary, start, made.parent)
            finetuning.append(dict(name=name, command=command, makes=[made], after=["pretrain"], wipe=[made.parent]))
        self.stages.side_by_side(finetuning)

    def gain(self) -> str:
        """What brings BERT's standard deviation of 0.02 to 0.8 / sqrt(channels), for `common.scale_weights`."""
        return f"{0.8 / self.settings.dim**0.5 / 0.02:.2f}"

    def generate_all(self, binary: Path, bpe_dir: Path) -> None:
        def command(checkpoint: Path, results: Path) -> list[str]:
            return commands.generate(self.settings, binary, bpe_dir, checkpoint, results)

        def random_keep(learned: dict[str, Any]) -> float:
            return self.random_keep(learned, binary)

        comparison.generate_all(self.stages, command, self.checkpoint, random_keep)

    def random_keep(self, learned: dict[str, Any], binary: Path) -> float:
        """The keep probability at which random decisions cost what the learned ones did on these inputs."""
        import torch

        from fairseq_switchdec.cost import Geometry, Lengths

        s = self.settings
        vocabulary = count_lines(binary / "dict.source.txt") + 4  # <s> <pad> </s> <unk>
        geometry = Geometry(s.layers, s.layers, s.dim, s.dim, s.ffn_dim, s.ffn_dim, vocabulary)
        columns = ("source_tokens", "content_tokens", "target_tokens")
        tokens = [torch.tensor([entry[name] for entry in learned["per_input"]]) for name in columns]
        return keep_for_cost(geometry, Lengths(*tokens, beam=commands.BEAM), learned["cost"])


def main() -> None:
    args = parse_args()
    run_stages("quickstart", args, lambda: Quickstart(args).run(), MADE)


if __name__ == "__main__":
    main()
