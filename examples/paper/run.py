"""The stages of the tables in order: the model, the pairs, the fine-tunings, what the systems write, and how fast."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from fairseq_switchdec.compat.checkpoints import read_options
from fairseq_switchdec.errors import UserError
from fairseq_switchdec.files import write_text
from fairseq_switchdec.generation.reading import PATH, path_key

from ..common import comparison
from ..common.random_decisions import keep_for_report
from ..common.repository import commit, example, source
from ..common.words import FAIRSEQ, sizes
from ..pretrained import __main__ as pretrained
from ..pretrained import commands
from . import report
from .exit_threshold import FEWEST
from .plan import BUDGET, FILE, SYSTEMS, TABLES, TEACHER, TRAININGS, USER_DIR, one_stack, runs, stage, student

THREADS = pretrained.THREADS
#: A BART from scratch, in the tokens of SmolLM2.
SMALL = ["--arch", "switchable_bart_base", "--share-all-embeddings", *sizes(4, 256, 1024, 4)]
SCRATCH_LR = 1e-3
#: What a BART's checkpoint is built with, in its options.
PARTS = ("layers", "embed_dim", "ffn_embed_dim", "attention_heads")
BART_OPTIONS = (*(f"{side}_{part}" for side in ("encoder", "decoder") for part in PARTS), "activation_fn")
#: The code of what runs with USER_DIR.
COMPETITORS = [source(f"paper.{name}") for name in (
    "early_exit", "exit_task", "exit_training", "distillation", "options",
)]  # fmt: skip


@dataclass(frozen=True)
class Settings(commands.Settings):
    """Those of `examples.pretrained`, but for the budget; and how often, and on what."""

    flops_budget: float = 0.75
    seeds: int = 3
    rounds: int = 3
    backbone: str = "smollm2"
    scratch_updates: int = 2000
    device: str = "auto"


class Paper:
    """The stages.

    Args:
        args: of the command line: the settings, ``tables``, ``out``, ``data``, ``escape``, ``gguf``, ``checkpoint``,
            ``mix``.

    Raises:
        UserError: the user's checkpoint cannot be read, the device is not there, or early exits have too few inputs.
    """

    def __init__(self, args: argparse.Namespace, settings: Settings):
        self.architecture, stacks = SMALL, 2
        if args.checkpoint is not None:
            self.architecture, stacks, positions = architecture(args.checkpoint / "model.pt")
            settings = replace(settings, **positions)
        elif settings.backbone != "bart":
            self.architecture, stacks = [], 1
        self.settings, self.args, self.out = settings, args, args.out
        shared = {item.name: getattr(settings, item.name) for item in fields(commands.Settings)}
        if settings.backbone == "bart":
            shared["updates"] = max(settings.updates, settings.scratch_updates)  # for as many pairs
        self.base = pretrained.Pretrained(argparse.Namespace(**{**vars(args), **shared}))
        self.stages = self.base.stages
        self.commits: list[str] = []
        gpu = on_gpu(settings.device)
        self.device = ["--cpu"] if settings.device == "cpu" else []

        def possible(system: str) -> bool:
            return (stacks == 1 or not one_stack(system)) and not (gpu and SYSTEMS[system].precision == "int8")

        self.runs = [(system, seed) for system, seed in runs(args.tables, settings.seeds) if possible(system)]
        self.trainings = list(dict.fromkeys((SYSTEMS[system].training, seed) for system, seed in self.runs))
        self.students = list(dict.fromkeys(student(name) for name, _ in self.trainings if TRAININGS[name].student))
        self.timed = settings.rounds > 0 and any("seconds" in TABLES[table].columns for table in args.tables)
        pruned = sum(TRAININGS[name].pruned for name, _ in self.trainings)
        exits = sum(bool(SYSTEMS[system].exits) for system, _ in self.runs)
        if exits and settings.valid_pairs < FEWEST:
            raise UserError(f"--valid-pairs {settings.valid_pairs}: early exits need {FEWEST} to choose a threshold")
        prepared = 11 - (args.data is not None) - (args.gguf is not None) + (settings.backbone == "bart")
        prepared -= 2 * (args.checkpoint is not None)
        losses = sum(map(has_loss, (system for system, _ in self.runs)))
        counts = len(self.students), 2 * pruned, exits, len(self.trainings), len(self.runs), losses, self.timed
        self.stages.total = prepared + sum(counts)

    def run(self) -> None:
        self.check_commit()
        self.model = self.args.checkpoint or self.base.model()
        pairs = self.base.pairs()
        self.binary = self.base.binarize(self.model, pairs)
        if self.settings.backbone == "bart":
            self.train_from_scratch()
        for name in self.students:
            self.choose(name)
        for system, seed in self.runs:
            training = SYSTEMS[system].training
            if stage("train", training, seed) not in self.stages.fingerprints:
                self.train(training, seed)
            self.generate(system, seed)
            if has_loss(system):
                self.measure_loss(system, seed)
        if self.timed:
            self.measure_speed()
        report.write(self.args.tables, self.settings, self.runs, self.stages, pairs, self.commits)

    def check_commit(self) -> None:
        """Results of two commits are not mixed unless so wished.

        Raises:
            UserError: the folder holds another one's.
        """
        path, now = self.out / "stages" / "commits", commit()
        before = path.read_text(encoding="utf-8").split("\n") if path.exists() else [now]
        if before != [now] and not self.args.mix:
            others = ", ".join(each for each in before if each != now)
            raise UserError(
                f"--out {self.out} holds results of commit {others}, this is {now}: --fresh starts over, --mix goes on"
            )
        self.commits = [*before, *([now] if now not in before else [])]
        write_text(path, "\n".join(self.commits))

    def seeded(self, seed: int) -> commands.Settings:
        """The settings of one of the runs, from 1."""
        shared = {item.name: getattr(self.settings, item.name) for item in fields(commands.Settings)}
        return replace(commands.Settings(**shared), seed=self.settings.seed + seed - 1)

    # --- models ---

    def train_from_scratch(self) -> None:
        """The BART that is fine-tuned: trained plainly on all pairs."""
        settings = replace(self.seeded(1), updates=self.settings.scratch_updates, lr=SCRATCH_LR)
        command = commands.finetune(settings, self.model, self.binary, self.out / "models" / "scratch")
        place = command.index("--finetune-from-model")
        del command[place : place + 2]
        command += [*SMALL, *self.device, "--policy-decisions", "keep-all"]
        made = self.out / "models" / "scratch" / "checkpoint_last.pt"
        self.stages.run("scratch", command, makes=[made], after=["preprocess"], wipe=[made.parent], env=THREADS)
        self.architecture = [*SMALL, "--finetune-from-model", str(made)]

    def choose(self, name: str) -> None:
        """A student's layers; and the smaller model, of one whose policy goes the rest of the way to the budget."""
        kind, half = name.partition("-")[::2]
        made, module = self.student(name), "paper.student"
        budget = self.settings.flops_budget ** (0.5 if half else 1)
        command = [*example(module), kind, str(self.model), str(self.binary), str(made)]
        command += ["--cost", f"{budget:.4g}", "--beam", str(self.settings.beam)]
        command += ["--max-source-positions", str(self.settings.max_source_positions)]
        command += ["--max-target-positions", str(self.settings.max_target_positions)]
        after = [*([] if self.args.checkpoint else ["import"]), "preprocess"]
        sources = [source(module), *self.sources(False)]
        self.stages.run(f"student-{name}", command, makes=[made], after=after, sources=sources, env=THREADS)
        if half:
            folder, small = self.out / "pruned" / "folder", self.out / "pruned" / "model"
            command = [*FAIRSEQ, "export", self.model / "model.pt", folder, "--to", "hugging-face", "--prune", made]
            self.stages.run("prune", command, makes=[folder], after=[f"student-{name}"], wipe=[folder])
            command = [*FAIRSEQ, "import", folder, small]
            self.stages.run("import-pruned", command, makes=[small / "model.pt"], after=["prune"], wipe=[small])

    def student(self, name: str) -> Path:
        """The file of a student's decisions."""
        return self.out / "students" / f"{name}.json"

    def checkpoint(self, training: str, seed: int) -> Path:
        return self.out / "models" / stage("", training, seed) / "checkpoint_last.pt"

    def train(self, training: str, seed: int) -> None:
        plan, made = TRAININGS[training], self.checkpoint(training, seed)
        settings, after, flags = self.seeded(seed), ["preprocess"], [*self.architecture, *self.device]
        filled = {BUDGET: str(settings.flops_budget), TEACHER: str(self.checkpoint("plain", seed))}
        if plan.student is not None:
            file = self.student(student(training))
            filled[FILE] = str(file)
            after.append(f"student-{student(training)}")
            if plan.pruned:
                taken = json.loads(file.read_text(encoding="utf-8"))["cost"]
                filled[BUDGET] = f"{min(1.0, settings.flops_budget / taken):.4f}"
                flags += ["--finetune-from-model", str(self.out / "pruned" / "model" / "model.pt")]
                options = vars(read_options(str(self.model / "model.pt")))
                for name in ("prompt_prefix", "prompt_suffix"):  # which an exported folder does not hold
                    flags += [f"--{name.replace('_', '-')}", options.get(name) or ""]
                after.append("import-pruned")
        after += ["scratch"] * (self.settings.backbone == "bart")
        after += [stage("train", "plain", seed)] * (TEACHER in plan.flags)
        # Of a flag that is given twice, the last counts.
        command = [*commands.finetune(settings, self.model, self.binary, made.parent), *flags]
        command += [filled.get(flag, flag) for flag in plan.flags]
        command += commands.learning(settings) if plan.switches else []
        name, sources = stage("train", training, seed), self.sources(USER_DIR in plan.flags)
        self.stages.run(name, command, makes=[made], after=after, sources=sources, wipe=[made.parent], env=THREADS)

    def sources(self, competitor: bool) -> list[Path]:
        """Files that a training or a generation depends on beside its stages."""
        mark = self.out / "stages" / "checkpoint"
        if self.args.checkpoint:
            found = (self.args.checkpoint / "model.pt").stat()
            write_text(mark, f"{self.args.checkpoint} {found.st_size} {found.st_mtime_ns}\n")
        return [*([mark] if self.args.checkpoint else []), *(COMPETITORS if competitor else [])]

    # --- what they write ---

    def generate(self, system: str, seed: int) -> None:
        """Beam search on the test set."""
        name = stage("", system, seed)
        results = comparison.folder(self.out, name)
        makes = [results / comparison.HYPOTHESES, results / comparison.SWITCHES]
        command, after = self.generation(system, seed)
        command += ["--switch-report", str(makes[-1])]
        command += ["--batch-size", "1"] if SYSTEMS[system].exits else []
        results.mkdir(parents=True, exist_ok=True)
        sources = self.sources(bool(SYSTEMS[system].exits))
        name = f"generate-{name}"
        self.stages.run(name, command, makes=makes, after=after, sources=sources, wipe=makes, env=THREADS)

    def measure_loss(self, system: str, seed: int) -> None:
        """Of the references of the test set."""
        name, row = stage("loss", system, seed), SYSTEMS[system]
        decisions, after = self.decisions(system, seed)
        command = commands.validate(self.seeded(seed), self.binary, self.checkpoint(row.training, seed))
        command += [*self.device, "--switch-decisions", *decisions]
        command += ["--user-dir", USER_DIR] if "--user-dir" in TRAININGS[row.training].flags else []
        after = [stage("train", row.training, seed), *after]
        self.stages.run(name, command, makes=[self.stages.log(name)], after=after, env=THREADS)

    def generation(self, system: str, seed: int) -> tuple[list[str], list[str]]:
        """The command, and the stages before it."""
        row = SYSTEMS[system]
        results, checkpoint = comparison.folder(self.out, stage("", system, seed)), self.checkpoint(row.training, seed)
        words = commands.generate(self.seeded(seed), self.model, self.binary, checkpoint, results, self.args.escape)
        decisions, after = self.decisions(system, seed)
        words += [*self.device, "--switch-decisions", *decisions, "--switch-precision", row.precision]
        after = [stage("train", row.training, seed), *after]
        if row.exits:
            method, confidence, layers = row.exits
            words += ["--user-dir", USER_DIR, "--task", "early_exit_task", "--exit-method", method]
            words += ["--exit-confidence", confidence, "--exit-layers", layers]
            file = self.calibrate(system, seed, words, after)
            words += ["--exit-threshold", str(file)]
            after.append(stage("threshold", system, seed))
        return words, after

    def calibrate(self, system: str, seed: int, words: list[str], after: list[str]) -> Path:
        """The file of a threshold, which is made once.

        Args:
            words: the command that generates.
            after: the stages before it.
        """
        name, module = stage("threshold", system, seed), "paper.exit_threshold"
        file = self.out / "thresholds" / f"{stage('', system, seed)}.json"
        if name not in self.stages.fingerprints:
            command = [*example(module), file, "--inputs", str(self.settings.valid_pairs), "--"]
            command += words[words.index("generate") + 1 :]
            sources = [source(module), *self.sources(True)]
            self.stages.run(name, command, makes=[file], after=after, sources=sources, env=THREADS)
        return file

    def decisions(self, system: str, seed: int) -> tuple[list[str], list[str]]:
        """What stands after --switch-decisions, and the stages before."""
        row = SYSTEMS[system]
        if row.decisions == "student":
            name = student(row.training)
            return [str(self.student(name))], [f"student-{name}"]
        if row.decisions not in ("random", "static"):
            return [row.decisions], []
        like = stage("", row.like, seed)
        found = json.loads((comparison.folder(self.out, like) / comparison.SWITCHES).read_text(encoding="utf-8"))
        if row.decisions == "random":
            keep = keep_for_report(self.checkpoint(row.training, seed), found, self.settings.beam)
            return ["random", "--switch-random-keep", f"{keep:.3f}"], [f"generate-{like}"]
        path = self.out / "paths" / f"{like}.json"
        path.parent.mkdir(exist_ok=True)
        write_text(path, json.dumps(most_frequent(found["per_input"]), indent=1) + "\n")
        return [str(path)], [f"generate-{like}"]

    def measure_speed(self) -> None:
        """Seconds and memory of all systems in turn, with the first seed."""
        systems, after = {}, []
        for system, seed in self.runs:
            if seed == 1 and SYSTEMS[system].decisions != "shuffled":  # which reads the whole test set first
                words, _ = self.generation(system, seed)
                systems[system] = {"command": words, "batch": 1 if SYSTEMS[system].exits else 8}
                after.append(f"generate-{stage('', system, seed)}")
        folder, module = self.out / "speed", "paper.speed"
        folder.mkdir(exist_ok=True)
        write_text(folder / "systems.json", json.dumps(systems, indent=1))
        made = folder / "seconds.json"
        command = [*example(module), folder / "systems.json", made, "--rounds", str(self.settings.rounds)]
        plain = comparison.folder(self.out, stage("", report.BASELINE, 1)) / comparison.HYPOTHESES
        written = sum(line.startswith("H-") for line in plain.read_text(encoding="utf-8").split("\n"))
        command += ["--pairs", str(written)]
        sources = [source(module), folder / "systems.json"]
        self.stages.run("speed", command, makes=[made], after=after, sources=sources, env=THREADS)


def has_loss(system: str) -> bool:
    """Whether its loss can be measured without search: early exits and fewer bits are of search alone."""
    row = SYSTEMS[system]
    return not row.exits and row.precision == "fp32"


def most_frequent(entries: list[dict[str, Any]]) -> dict[str, Any]:
    """The path that most inputs of a report ran; of several as frequent, the first one's."""
    keys = [path_key(entry) for entry in entries]
    entry = entries[keys.index(max(keys, key=keys.count))]
    return {name: entry[name] for name in PATH}


def architecture(checkpoint: Path) -> tuple[list[str], int, dict[str, int]]:
    """The words of ``fairseq-train`` that build a checkpoint's model, how many stacks of layers it has, and settings
    that are its own: a BART has as many positions as it was trained with.

    Raises:
        UserError: it is no model of ours, or cannot be read.
    """
    options = vars(read_options(str(checkpoint)))
    arch = str(options.get("arch") or options.get("_name"))
    if "bart" not in arch:
        if not arch.startswith("switchable_"):
            raise UserError(f"--checkpoint {checkpoint.parent} holds a model {arch}: give a folder that import wrote")
        return ["--arch", arch], 2 if "t5" in arch else 1, {}
    if not options.get("no_scale_embedding", True):
        raise UserError(f"--checkpoint {checkpoint.parent}: a BART that scales its embeddings cannot be tuned here")
    words = ["--arch", "switchable_bart", "--share-all-embeddings"]
    for name in BART_OPTIONS:
        words += [f"--{name.replace('_', '-')}", str(options[name])]
    return words, 2, {name: options[name] for name in ("max_source_positions", "max_target_positions")}


def on_gpu(device: str) -> bool:
    """Whether fairseq's commands are to use a GPU.

    Raises:
        UserError: it is asked for and not there.
    """
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch sees no GPU (python -m fairseq_switchdec doctor says why)")
    return device != "cpu" and torch.cuda.is_available()
