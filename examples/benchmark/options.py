"""The benchmark's options and what is refused."""

from __future__ import annotations

import argparse
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from fairseq_switchdec.errors import UserError

from . import decisions
from .setup import AVAILABLE, GEOMETRIES, POSITIONS, PRECISIONS, SYSTEMS, Lane, Setup

HERE = Path(__file__).resolve().parent
DECISIONS = (decisions.KEEP_ALL, "paper_cnndm.json", "mixed.json")
REFERENCE = Lane("stock", "fp32")


@dataclass(frozen=True)
class Options:
    """What the user asked for, complete and checked."""

    batch: tuple[int, ...]
    src_len: int
    beam: int
    out_len: int
    precision: tuple[str, ...]
    systems: tuple[str, ...]
    decisions: tuple[str, ...]
    repeats: int
    threads: int
    geometry: str
    device: str
    training: bool
    out: Path
    seed: int

    def to_json(self) -> dict[str, Any]:
        """For the results file."""
        return {**asdict(self), "out": str(self.out)}

    def lanes(self) -> list[Lane]:
        """Each system at each precision it has; the reference first."""
        available = AVAILABLE[self.device]
        lanes = [REFERENCE]
        for system in self.systems:
            wanted = available[system] if system == "ct2-int8" else self.precision
            lanes += [Lane(system, precision) for precision in wanted if precision in available[system]]
        return list(dict.fromkeys(lanes))

    def setup(self, lane: Lane, folder: str) -> Setup:
        """The orders of a lane's worker."""
        names = ("geometry", "batch", "src_len", "beam", "out_len", "device", "threads", "seed")
        return Setup(lane.system, lane.precision, folder, **{name: getattr(self, name) for name in names})


def parse(argv: list[str] | None = None) -> Options:
    """The options of a command line.

    Raises:
        UserError: a value that cannot be meant.
    """
    parser = argparse.ArgumentParser(
        prog="python -m examples.benchmark",
        description="Times BART on the same random weights in stock fairseq, in its switchable form, in Hugging Face's "
        "transformers and in CTranslate2, the systems in turn.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--batch", type=int, nargs="+", help="batch sizes (default: 1 8; with --training 2)")
    add("--src-len", type=int, default=1024, help="tokens of every source, <s> and </s> among them")
    add("--beam", type=int, default=4, help="beam size")
    add("--out-len", type=int, default=64, help="words of every output; </s> follows")
    add("--precision", nargs="+", help=f"of {' '.join(PRECISIONS)} (default: all that the device has)")
    add("--systems", nargs="+", default=list(SYSTEMS), help="stock fairseq is always among them")
    add("--decisions", nargs="+", default=list(DECISIONS), help="keep-all, and JSON files as --switch-decisions takes")
    add("--repeats", type=int, default=5, help="timed runs of every case, after one that is not timed")
    add("--threads", type=int, default=available_cores(), help="processor threads of every system")
    add("--geometry", default="large", help=f"of {' '.join(GEOMETRIES)}")
    add("--device", help="cpu or cuda (default: cuda where there is one)")
    add("--training", action="store_true", help="time training instead of generation, of stock and ours; one precision")
    add("--out", type=Path, default=HERE / "output", help="folder for results.json, results.md and the plot")
    add("--seed", type=int, default=1, help="of weights and inputs")
    values = vars(parser.parse_args(argv))
    gpu = torch.cuda.is_available()
    values["device"] = values["device"] or ("cuda" if gpu else "cpu")
    check_choices("--device", [values["device"]], ("cpu", "cuda"))
    if values["device"] == "cuda" and not gpu:
        raise UserError("--device cuda: torch sees no GPU here; use --device cpu")
    values["batch"] = values["batch"] or ([2] if values["training"] else [1, 8])
    values["precision"] = values["precision"] or default_precisions(values["device"], values["training"])
    check(values)
    lists = {name: tuple(dict.fromkeys(values[name])) for name in ("batch", "precision", "systems", "decisions")}
    if decisions.KEEP_ALL not in lists["decisions"]:  # which what is saved is measured against
        lists["decisions"] = (decisions.KEEP_ALL, *lists["decisions"])
    return Options(**{**values, **lists, "out": values["out"].resolve()})


def check(values: dict[str, Any]) -> None:
    """Refuse what cannot be meant.

    Raises:
        UserError: naming the flag.
    """
    check_choices("--geometry", [values["geometry"]], tuple(GEOMETRIES))
    check_choices("--systems", values["systems"], SYSTEMS)
    check_choices("--precision", values["precision"], PRECISIONS)
    what, known = f"--device {values['device']}", default_precisions(values["device"], training=False)
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
        for value in values[name] if isinstance(values[name], list) else [values[name]]:
            if value < low or (high is not None and value > high):
                bounds = f"from {low} to {high}" if high is not None else f"{low} or more"
                raise UserError(f"--{name.replace('_', '-')} {value} must be {bounds}")
    out = values["out"].resolve()
    if not os.access(next(parent for parent in (out, *out.parents) if parent.exists()), os.W_OK) or out.is_file():
        raise UserError(f"--out {out} is no folder that can be written to: name another one")
    for name in values["decisions"]:
        decisions.read(name, GEOMETRIES[values["geometry"]].layers)


def default_precisions(device: str, training: bool) -> tuple[str, ...]:
    """All that ours, or training, has there."""
    if training:
        return ("fp32",) if device == "cpu" else ("fp16",)
    return tuple(dict.fromkeys([*AVAILABLE[device]["ours"], *AVAILABLE[device]["hf"]]))


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
