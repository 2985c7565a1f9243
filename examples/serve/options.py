"""The command's options: the model, its replicas, what is asked of it by default, and limits."""

from __future__ import annotations

import argparse
import os
from dataclasses import fields

from fairseq_switchdec.errors import UserError
from fairseq_switchdec.generation.decision_source import parse_budget
from fairseq_switchdec.predict.command import add_model_args, check_model_args
from fairseq_switchdec.predict.generation import add_writing_args

from ..common.command_line import check_args
from .body import Limits

LIMITS = {
    "body": "bytes of a request's body",
    "texts": "texts of a request",
    "characters": "characters of a text",
    "queue": "texts that may wait or run at a time, of all requests",
    "beam": "largest beam that a request may ask for",
    "length": "largest max_len_b, min_len and no_repeat_ngram_size that a request may ask for",
    "seconds": "seconds in which a request must arrive, and again in which it must be answered",
}
COUNTS = ("replica_cpus", "max_batch_size", *(f"limit_{name}" for name in LIMITS if name != "seconds"))


def add_options(parser: argparse.ArgumentParser) -> None:
    """All of them."""
    add_model_args(parser)
    add_writing_args(parser)
    parser.add_argument(
        "--switch-budget", metavar="SHARE", help="budget of requests that name none: a number, or auto (default: none)"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (%(default)s: this machine only)")
    parser.add_argument("--port", type=int, default=8000, help="port to listen at; 0: any free one (%(default)s)")
    parser.add_argument("--replicas", type=int, default=1, metavar="N", help="processes with the model (%(default)s)")
    parser.add_argument(
        "--replica-cpus", type=int, default=1, metavar="N", help="cores, and threads, of a replica (%(default)s)"
    )
    parser.add_argument("--max-batch-size", type=int, default=16, metavar="N", help="texts at once (%(default)s)")
    parser.add_argument(
        "--batch-wait",
        type=float,
        default=0.01,
        metavar="SECONDS",
        help="how long a text waits for others while the model is idle (%(default)s)",
    )
    parser.add_argument("--address", help="that of a running Ray cluster (auto: this machine's); default: start one")
    for item in fields(Limits):
        parser.add_argument(
            f"--limit-{item.name}",
            type=type(item.default),
            default=item.default,
            metavar="N",
            help=f"{LIMITS[item.name]} (%(default)s)",
        )
    parser.set_defaults(task="switchable_task", seed=1, max_tokens=None)
    parser.set_defaults(switch_decisions="greedy", switch_random_keep=None)


def check_options(args: argparse.Namespace) -> None:
    """Refuse what cannot be meant, and give the batch size the name that ``predict`` knows it by.

    Raises:
        UserError: naming the flag.
    """
    check_args(args, (), (*COUNTS, "replicas", "beam"))
    args.batch_size = args.max_batch_size
    check_model_args(args)
    if args.tokenizer_json is not None and not os.path.isfile(args.tokenizer_json):
        raise UserError(f"--tokenizer-json {args.tokenizer_json} does not exist")
    if args.switch_budget is not None:
        parse_budget(args.switch_budget, "--switch-budget")
    if not 0 <= args.port <= 65535:
        raise UserError(f"--port {args.port} must be from 0 to 65535")
    for name in ("batch_wait", "limit_seconds"):
        value = getattr(args, name)
        if not 0 <= value <= 3600:
            raise UserError(f"--{name.replace('_', '-')} {value} must be from 0 to 3600 seconds")
    if args.limit_texts > args.limit_queue:
        raise UserError(f"--limit-texts {args.limit_texts} is more than --limit-queue {args.limit_queue} has room for")


def limits_of(args: argparse.Namespace) -> Limits:
    """The limits of requests."""
    return Limits(**{item.name: getattr(args, f"limit_{item.name}") for item in fields(Limits)})
