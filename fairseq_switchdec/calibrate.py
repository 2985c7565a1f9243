"""``python -m fairseq_switchdec calibrate --path CHECKPOINT --output FILE``: what each sublayer takes on this machine.

Random paths are timed, encoding alone and generation as a whole, at several lengths; `fairseq_switchdec.seconds.fit`
makes a cost model of them, which is then checked on paths that it has not seen.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from fairseq.dataclass.configs import GenerationConfig
from torch import Tensor
from tqdm import tqdm

from .compat.user_dir import register_tasks_and_models
from .config import check_choice, check_range
from .cost import Keep, Lengths
from .decisions import Decisions
from .errors import UserError
from .files import check_writable, write_text
from .generation.report import synchronize
from .policy import random_decisions
from .predict.command import load, place
from .runtime.packing import PRECISIONS
from .seconds import Seconds, fit, machine

logger = logging.getLogger(__name__)

#: Tokens of the longest source and of the longest target, where nothing is asked for.
LONGEST = (512, 32)
#: Paths that the fitted model is checked on.
CHECKED = 10


@dataclass(frozen=True)
class Case:
    """What is timed: a batch of inputs of one length on one path.

    Attributes:
        decisions: of one input.
        source: tokens of its source, ``</s>`` among them.
        target: tokens that are written; 0: the source is only encoded.
    """

    decisions: Decisions
    source: int
    target: int


class Bench:
    """Runs cases.

    Args:
        model: packed, on its device.
    """

    def __init__(self, task: Any, model: Any, args: argparse.Namespace):
        self.task, self.model, self.args = task, model, args
        self.generators: dict[int, Any] = {}
        self.device = model.encoder.embed_tokens.weight.device
        self.random = torch.Generator().manual_seed(args.seed)

    def seconds(self, case: Case) -> float:
        """How long a case takes, an input of it."""
        inputs, dictionary = self.args.batch_size, self.task.source_dictionary
        tokens = torch.randint(dictionary.nspecial, len(dictionary), (inputs, case.source), generator=self.random)
        tokens[:, -1] = dictionary.eos()
        tokens = tokens.to(self.device)
        decisions = case.decisions.select([0] * inputs)
        net_input = {"src_tokens": tokens, "src_lengths": tokens.ne(dictionary.pad()).sum(1), "decisions": decisions}
        with torch.no_grad():
            synchronize(self.device)
            start = time.perf_counter()
            if case.target:
                self.generator(case.target).generate([self.model], {"id": torch.arange(inputs), "net_input": net_input})
            else:
                self.model.encoder(tokens, decisions=decisions)
            synchronize(self.device)
            return (time.perf_counter() - start) / inputs

    def generator(self, target: int) -> Any:
        """One that writes exactly so many tokens, ``</s>`` among them."""
        if target not in self.generators:
            config = GenerationConfig(beam=self.args.beam, min_len=target - 1, max_len_a=0, max_len_b=target - 1)
            self.generators[target] = self.task.build_generator([self.model], config)
        return self.generators[target]

    def lengths(self, cases: Sequence[Case]) -> Lengths:
        """Of the cases' inputs, as the model counts them."""
        dictionary = self.task.source_dictionary
        tokens = torch.full((len(cases), max(case.source for case in cases)), dictionary.pad())
        for row, case in zip(tokens, cases):
            row[: case.source] = dictionary.nspecial
            row[case.source - 1] = dictionary.eos()
        targets = torch.tensor([case.target for case in cases])
        return self.model.encoder.lengths(tokens.to(self.device), targets, self.args.beam)

    def policy_seconds(self) -> float:
        """How long the decisions of one input take."""
        policy = self.model.encoder.policy
        features = torch.randn(self.args.batch_size, len(policy.stages), policy.feature_mean.size(1))
        budgets = None if policy.dial is None else torch.full((self.args.batch_size,), policy.dial.high)
        features, times = features.to(self.device), []
        with torch.no_grad():
            for _ in range(20):
                synchronize(self.device)
                start = time.perf_counter()
                policy.space.decisions(*policy(features, budgets).greedy())
                times.append(time.perf_counter() - start)
        return statistics.median(times) / self.args.batch_size


def median_seconds(bench: Bench, cases: Sequence[Case], repeats: int) -> Tensor:
    """Of each case, float64 (n,): the cases in turn, so that a busy moment of the machine meets different ones."""
    times: list[list[float]] = [[] for _ in cases]
    for length in sorted({(case.source, case.target) for case in cases}):  # first calls are slow
        bench.seconds(next(case for case in cases if (case.source, case.target) == length))
    with tqdm(total=repeats * len(cases), unit=" runs", mininterval=1) as bar:
        for _ in range(repeats):
            for case, found in zip(cases, times):
                found.append(bench.seconds(case))
                bar.update()
    return torch.tensor([statistics.median(found) for found in times], dtype=torch.double)


def random_cases(bench: Bench, count: int, sources: Sequence[int], targets: Sequence[int]) -> list[Case]:
    """Paths that keep from a third of everything to all of it, at lengths of these."""
    space, cases = bench.model.encoder.space, []
    for number in range(count):
        uniforms = torch.rand(1, space.num_sublayers + 1, generator=bench.random)
        keep = 1.0 if number == 0 else 0.3 + 0.7 * float(torch.rand((), generator=bench.random))
        source, target = (
            int(lengths[int(torch.randint(len(lengths), (), generator=bench.random))]) for lengths in (sources, targets)
        )
        cases.append(Case(random_decisions(space, uniforms, keep), source, target))
    return cases


def calibrate(task: Any, model: Any, args: argparse.Namespace) -> tuple[Seconds, list[tuple[float, float]]]:
    """A cost model, and predicted and measured seconds of the paths that it was checked on."""
    bench = Bench(task, model, args)
    sources, targets = lengths_of(model, args)
    cases = random_cases(bench, args.paths, sources, targets)
    cases += [Case(case.decisions, source, 0) for case in cases for source in (sources[0], sources[-1])]
    logger.info("timing %d paths: sources of %s tokens, encoded only or %s written", len(cases), sources, targets)
    measured = median_seconds(bench, cases, args.repeats)
    decisions, lengths = Decisions.cat([case.decisions for case in cases]), bench.lengths(cases)
    coefficients = fit(model.geometry, Keep.of(decisions, lengths), lengths, measured)
    setting = {
        "machine": machine(bench.device),
        "precision": "fp16" if args.fp16 else args.switch_precision,
        "batch_size": args.batch_size,
        "beam": args.beam,
    }
    seconds = Seconds(model.geometry, coefficients, bench.policy_seconds(), setting)
    unseen = random_cases(bench, CHECKED, range(min(sources), max(sources)), range(min(targets), max(targets)))
    logger.info("checking it on %d other paths", CHECKED)
    measured = median_seconds(bench, unseen, args.repeats)
    decisions, lengths = Decisions.cat([case.decisions for case in unseen]), bench.lengths(unseen)
    predicted = seconds.spend(Keep.of(decisions, lengths), lengths)
    return seconds, list(zip(predicted.tolist(), measured.tolist()))


def lengths_of(model: Any, args: argparse.Namespace) -> tuple[list[int], list[int]]:
    """Lengths to measure at: those that are asked for, or up to what the model takes.

    Raises:
        UserError: what is asked for does not fit the model.
    """
    found = []
    rooms = (model.encoder.max_positions() - 1, model.max_decoder_positions() - 1)
    for name, room, longest in zip(("source_lengths", "target_lengths"), rooms, LONGEST):
        asked: list[int] | None = getattr(args, name)
        flag = f"--{name.replace('_', '-')}"
        if asked is None:
            most = min(room, longest)
            asked = [most // 8, most // 2, most]
        if max(asked) > room:
            raise UserError(f"{flag} {max(asked)}: the model has room for {room} tokens")
        if len(set(asked)) < 2 or min(asked) < 2:
            raise UserError(f"{flag} must be two lengths or more, of at least 2 tokens each")
        found.append(sorted(set(asked)))
    return found[0], found[1]


def whole_numbers(text: str) -> list[int]:
    """Numbers joined by commas."""
    return [int(part) for part in text.split(",")]


def get_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(
        description="Measure how many seconds each sublayer takes on this machine, for "
        "--policy-cost and --switch-seconds. It takes some minutes."
    )
    parser.add_argument("--path", required=True, metavar="CHECKPOINT", help="the model")
    parser.add_argument("--output", required=True, metavar="FILE", help="JSON file to write")
    parser.add_argument("--data", metavar="DIR", help="folder of the dictionaries (default: the one of the training)")
    parser.add_argument("--switch-precision", default="fp32", help=f"{', '.join(PRECISIONS)}; on the CPU (%(default)s)")
    parser.add_argument("--batch-size", type=int, default=1, metavar="N", help="inputs at once (%(default)s)")
    parser.add_argument("--beam", type=int, default=4, metavar="N", help="hypotheses an input (%(default)s)")
    parser.add_argument(
        "--source-lengths", type=whole_numbers, metavar="N,N", help=f"tokens of sources (up to {LONGEST[0]})"
    )
    parser.add_argument(
        "--target-lengths", type=whole_numbers, metavar="N,N", help=f"tokens that are written (up to {LONGEST[1]})"
    )
    parser.add_argument("--paths", type=int, default=16, metavar="N", help="random paths to time (%(default)s)")
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="how often each is timed (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the random paths (%(default)s)")
    parser.add_argument("--cpu", action="store_true", help="use the CPU though there is a GPU")
    parser.add_argument("--fp16", action="store_true", help="half precision, on a GPU")
    return parser


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read and check the options.

    Raises:
        UserError: naming the flag.
    """
    args = get_parser().parse_args(argv)
    for name in ("batch_size", "beam", "repeats"):
        check_range(name, getattr(args, name), "1 or more", lambda value: value >= 1)
    check_range("paths", args.paths, "8 or more", lambda value: value >= 8)
    check_choice("switch_precision", args.switch_precision, PRECISIONS)
    check_writable("--output", args.output)
    args.task, args.switch_decisions, args.switch_budget = "switchable_task", "keep-all", None  # no policy is asked
    args.switch_random_keep, args.switch_lookup = 1.0, "off"
    return args


def cli_main() -> None:
    """Read the options, measure, write the file, say what was found.

    Raises:
        UserError: an option or a checkpoint that cannot be used.
    """
    logging.basicConfig(format="%(asctime)s | %(levelname)s | %(name)s | %(message)s", level="INFO", stream=sys.stderr)
    args = parse_args()
    register_tasks_and_models()
    if args.data is not None and not os.path.isdir(args.data):
        raise UserError(f"--data {args.data} is no folder: name the one that holds dict.txt")
    try:
        task, model = load(args)
        model = place(model, args)
        seconds, checked = calibrate(task, model, args)
    except KeyboardInterrupt:
        raise UserError("interrupted: nothing was written") from None
    errors = sorted(abs(predicted / measured - 1) for predicted, measured in checked)
    content = {**seconds.to_json(), "checked": {"median_error": statistics.median(errors), "seconds": checked}}
    write_text(args.output, json.dumps(content, indent=1) + "\n")
    print(
        f"wrote {args.output}: seconds of {len(errors)} other paths are predicted within "
        f"{statistics.median(errors):.1%} (median; at most {errors[-1]:.1%})"
    )
