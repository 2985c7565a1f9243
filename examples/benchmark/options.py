"""The benchmark's options and what is refused."""

from __future__ import annotations

import argparse
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from fairseq_switchdec.errors import UserError

from . import decisions, texts, weights
from .setup import BACKBONES, GEOMETRIES, POSITIONS, PRECISIONS, SMOLLM2, Backbone, Lane, Setup, Shape

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Options:
    """What the user asked for, complete and checked."""

    backbone: str
    batch: tuple[int, ...]
    src_len: int
    beam: tuple[int, ...]
    out_len: int
    precision: tuple[str, ...]
    systems: tuple[str, ...]
    decisions: tuple[str, ...]
    repeats: int
    threads: int
    shape: Shape
    gguf: Path | None
    device: str
    training: bool
    out: Path
    seed: int
    texts: Path | None = None

    def to_json(self) -> dict[str, Any]:
        """For the results file."""
        return {name: str(value) if isinstance(value, Path) else value for name, value in asdict(self).items()}

    @property
    def kind(self) -> Backbone:
        """What is compared."""
        return BACKBONES[self.backbone]

    @property
    def reference(self) -> Lane:
        """What all is compared with."""
        return self.kind.reference

    def lanes(self) -> list[Lane]:
        """Each system at each precision it has; the reference first."""
        available = self.kind.available[self.device]
        lanes = [self.reference]
        for system in self.systems:
            wanted = available[system] if system in ("ct2-int8", "llama.cpp") else self.precision
            lanes += [Lane(system, precision) for precision in wanted if precision in available[system]]
        return list(dict.fromkeys(lanes))

    def setup(self, lane: Lane, folder: str) -> Setup:
        """The orders of a lane's worker."""
        names = ("shape", "batch", "src_len", "beam", "out_len", "device", "threads", "seed")
        more = {"gguf": None if self.gguf is None else str(self.gguf), "texts": self.texts is not None}
        return Setup(lane.system, lane.precision, folder, **more, **{name: getattr(self, name) for name in names})


def parse(argv: list[str] | None = None) -> Options:
    """The options of a command line.

    Raises:
        UserError: a value that cannot be meant.
    """
    parser = argparse.ArgumentParser(
        prog="python -m examples.benchmark",
        description="Times BART on the same random weights in stock fairseq, in its switchable form, in Hugging Face's "
        "transformers, in CTranslate2, OpenVINO and ONNX Runtime; or SmolLM2 in transformers, in its switchable form "
        "and in llama.cpp. The systems take turns.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add, none = parser.add_argument, argparse.SUPPRESS
    systems = "; ".join(f"{name}: {' '.join(kind.systems)}" for name, kind in BACKBONES.items())
    add("--backbone", default="bart", help=f"one of {' '.join(BACKBONES)}")
    add("--batch", type=int, nargs="+", default=none, help="batch sizes (default: 1 8; with --training 2)")
    add(
        "--src-len",
        type=int,
        default=none,
        help="tokens of every source, <s> and </s> included (1024; smollm2: 512); longer ones of --texts are cut",
    )
    add(
        "--beam",
        type=int,
        nargs="+",
        default=none,
        help="beam sizes (4; smollm2: 1 4); llama.cpp only runs batch 1, beam 1",
    )
    add("--out-len", type=int, default=64, help="words of every output; </s> follows")
    add("--precision", nargs="+", default=none, help=f"some of {' '.join(PRECISIONS)} (all that the device has)")
    add("--systems", nargs="+", default=none, help=f"systems (all) of {systems}; the first always runs")
    add("--decisions", nargs="+", default=none, help="keep-all, and files for --switch-decisions (all here)")
    add("--repeats", type=int, default=5, help="timed runs of every case, after one that is not timed")
    add("--threads", type=int, default=available_cores(), help="processor threads of every system")
    add("--geometry", default=none, help=f"size of BART, one of {' '.join(GEOMETRIES)} (large)")
    add("--gguf", type=Path, help="a LLaMA's file for --backbone smollm2, which is downloaded otherwise")
    add("--texts", type=Path, help="file with a text a line: all of them are the sources, instead of random words")
    add("--device", default=none, help="cpu or cuda (cuda if there is a GPU)")
    add("--training", action="store_true", help="time training of BART instead, of stock and ours; one precision")
    add("--out", type=Path, default=HERE / "output", help="folder for results.json, results.md and the plot")
    add("--seed", type=int, default=1, help="seed of the weights and inputs")
    values = vars(parser.parse_args(argv))
    gpu = torch.cuda.is_available()
    check_choices("--backbone", [values["backbone"]], tuple(BACKBONES))
    kind, training = BACKBONES[values["backbone"]], values["training"]
    device = values.setdefault("device", "cuda" if gpu else "cpu")
    check_choices("--device", [device], ("cpu", "cuda"))
    if device == "cuda" and not gpu:
        raise UserError("--device cuda: torch sees no GPU here; use --device cpu")
    values["shape"] = shape_of(values)
    defaults = {
        "batch": [2] if training else [1, 8],
        "src_len": kind.src_len,
        "beam": kind.beam,
        "precision": default_precisions(kind, device, training),
        "systems": kind.systems,
        "decisions": kind.decisions,
    }
    values = {**defaults, **values}
    check(values)
    lists = {
        name: tuple(dict.fromkeys(values[name])) for name in ("batch", "beam", "precision", "systems", "decisions")
    }
    if decisions.KEEP_ALL not in lists["decisions"]:  # which what is saved is measured against
        lists["decisions"] = (decisions.KEEP_ALL, *lists["decisions"])
    out = values["out"].resolve()
    if values["backbone"] == "smollm2":
        values["gguf"] = (values["gguf"] or out / "gguf" / "SmolLM2-135M-Instruct.Q4_1.gguf").resolve()
    return Options(**{**values, **lists, "out": out})


def shape_of(values: dict[str, Any]) -> Shape:
    """The sizes of the model that is asked for.

    Raises:
        UserError: an option of the other backbone, or a file that cannot be read.
    """
    if values["backbone"] == "bart":
        if values["gguf"] is not None:
            raise UserError("--gguf is for --backbone smollm2")
        geometry = values.pop("geometry", "large")
        check_choices("--geometry", [geometry], tuple(GEOMETRIES))
        return GEOMETRIES[geometry]
    if "geometry" in values:
        raise UserError("--geometry is for --backbone bart: a LLaMA's file is named with --gguf")
    if values["training"]:
        raise UserError("--training is for --backbone bart")
    return SMOLLM2 if values["gguf"] is None else weights.read_shape(values["gguf"])


def check(values: dict[str, Any]) -> None:
    """Refuse what cannot be meant.

    Raises:
        UserError: naming the flag.
    """
    kind = BACKBONES[values["backbone"]]
    check_choices("--systems", values["systems"], kind.systems)
    if values["texts"] is not None:
        if values["training"]:
            raise UserError("--texts is for generation: leave out --training")
        texts.read(values["texts"])
    check_choices("--precision", values["precision"], PRECISIONS)
    what, known = f"--device {values['device']}", default_precisions(kind, values["device"], training=False)
    if values["training"]:
        what, known = f"--training on {what}", ("fp32", "fp16") if values["device"] == "cuda" else ("fp32",)
        if len(values["precision"]) > 1:
            raise UserError("--training takes one --precision")
    for precision in values["precision"]:
        if precision not in known:
            raise UserError(f"--precision {precision} is not for {what}, which has {' '.join(known)}")
    for name, low, high in (
        ("batch", 1, None),
        ("src_len", 4, POSITIONS),
        ("beam", 1, None),
        ("out_len", 1, POSITIONS - 2),
        ("repeats", 1, None),
        ("threads", 1, None),
        ("seed", 0, None),
    ):
        for value in values[name] if isinstance(values[name], (list, tuple)) else [values[name]]:
            if value < low or (high is not None and value > high):
                bounds = f"from {low} to {high}" if high is not None else f"{low} or more"
                raise UserError(f"--{name.replace('_', '-')} {value} must be {bounds}")
    out = values["out"].resolve()
    if not os.access(next(parent for parent in (out, *out.parents) if parent.exists()), os.W_OK) or out.is_file():
        raise UserError(f"--out {out} is no folder that can be written to: name another one")
    for name in values["decisions"]:
        decisions.read(name, values["shape"].stacks)


def default_precisions(kind: Backbone, device: str, training: bool) -> tuple[str, ...]:
    """All that ours, or training, has there."""
    if training:
        return ("fp32",) if device == "cpu" else ("fp16",)
    return tuple(dict.fromkeys([*kind.available[device]["ours"], *kind.available[device]["hf"]]))


def check_choices(flag: str, chosen: list[str], known: tuple[str, ...]) -> None:
    """Refuse unknown names.

    Raises:
        UserError: naming the flag.
    """
    for name in chosen:
        if name not in known:
            raise UserError(f"{flag} {name} is unknown; choose from {', '.join(known)}")


def available_cores() -> int:
    """Processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
