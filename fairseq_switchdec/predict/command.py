"""``python -m fairseq_switchdec predict --task ... --path ... --input FILE --output FILE``."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from functools import partial
from typing import Any

import torch
from fairseq import checkpoint_utils
from fairseq.tasks import TASK_REGISTRY

from ..compat.checkpoints import to_be_run
from ..compat.user_dir import register_tasks_and_models
from ..config import RUN_DECISIONS
from ..errors import UserError
from ..files import check_writable
from ..generation.run_settings import file_or_word, model_digest
from ..models.bart.plain import can_become_switchable, flat_args, name_switchable
from ..runtime.packing import PRECISIONS
from .ray_engine import RayWorkers
from .run import Runner, file_digest
from .worker import Worker

logger = logging.getLogger(__name__)

ENGINES = ("local", "ray")

#: Options of the task that are taken over where the command gives them.
TASK_OPTIONS = ("data", "seed", "switch_decisions", "switch_random_keep", "switch_precision")


def predicting_tasks() -> dict[str, Any]:
    """The tasks that can predict, by name."""
    register_tasks_and_models()
    return {name: task for name, task in sorted(TASK_REGISTRY.items()) if hasattr(task, "build_predictor")}


def get_parser(task: Any = None) -> argparse.ArgumentParser:
    """The command's options, and those of a task."""
    parser = argparse.ArgumentParser(
        description="Predict every row of a file. After a kill, the same command continues where the run stopped."
    )
    parser.add_argument("--task", required=True, help=f"one of {', '.join(predicting_tasks())}")
    add_model_args(parser)
    parser.add_argument("--input", required=True, metavar="FILE", help="rows to predict")
    parser.add_argument("--output", required=True, metavar="FILE", help="JSON lines, one a row, in the input's order")
    parser.add_argument("--batch-size", type=int, default=32, metavar="N", help="inputs at once (%(default)s)")
    parser.add_argument("--max-tokens", type=int, metavar="N", help="most tokens at once, padding included")
    parser.add_argument(
        "--window",
        type=int,
        default=1024,
        metavar="N",
        help="inputs (rows, or the windows of long ones) that are read ahead and sorted by length (%(default)s)",
    )
    parser.add_argument(
        "--engine", choices=ENGINES, default="local", help="local: this process; ray: a Ray cluster (%(default)s)"
    )
    parser.add_argument("--address", help="ray: that of a running cluster (auto: this machine's); default: start one")
    parser.add_argument("--workers", type=int, metavar="N", help="ray: default: as many as the cluster has room for")
    parser.add_argument(
        "--worker-cpus", type=int, default=1, metavar="N", help="ray: cores, and threads, of a worker (%(default)s)"
    )
    parser.add_argument("--strict", action="store_true", help="stop at a row that cannot be predicted")
    parser.add_argument("--switch-decisions", default="greedy", help="greedy, keep-all, random, or a JSON FILE")
    parser.add_argument(
        "--switch-random-keep", type=float, default=0.8, help="keep probability of random (%(default)s)"
    )
    parser.add_argument(
        "--switch-budget",
        metavar="SHARE",
        help="share of the keep-all cost to stay within, if the policy was trained for a range; auto; or a "
        "FILE with one of these a line",
    )
    parser.add_argument("--switch-report", metavar="FILE", help="write what every input skipped and cost")
    parser.add_argument("--seed", type=int, default=1, help="seed of random decisions (%(default)s)")
    if task is not None:
        task.add_predict_args(parser)
    return parser


def add_model_args(parser: argparse.ArgumentParser) -> None:
    """What `load` and `place` need: the model, its files, and how it runs."""
    parser.add_argument("--path", required=True, metavar="CHECKPOINT", help="the trained model")
    parser.add_argument("--data", metavar="DIR", help="folder of the dictionaries (default: the one of the training)")
    parser.add_argument("--gpt2-encoder-json", metavar="FILE", help="encoder.json of the GPT-2 BPE")
    parser.add_argument("--gpt2-vocab-bpe", metavar="FILE", help="vocab.bpe of the GPT-2 BPE")
    parser.add_argument("--switch-precision", default="fp32", help=f"{', '.join(PRECISIONS)}; on the CPU (%(default)s)")
    parser.add_argument("--cpu", action="store_true", help="use the CPU though there is a GPU")
    parser.add_argument("--fp16", action="store_true", help="half precision, on a GPU")


def check_model_args(args: argparse.Namespace) -> None:
    """Refuse files that are not there.

    Raises:
        UserError: naming the flag.
    """
    for name in ("gpt2_encoder_json", "gpt2_vocab_bpe"):
        value = getattr(args, name)
        if value is not None and not os.path.isfile(value):
            raise UserError(f"--{name.replace('_', '-')} {value} does not exist")
    if not os.path.isfile(args.path):
        raise UserError(f"--path {args.path} does not exist: name a checkpoint")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read and check the options.

    Raises:
        UserError: naming the flag.
    """
    words = sys.argv[1:] if argv is None else argv
    chosen = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    chosen.add_argument("--task")
    named, known = chosen.parse_known_args(words)[0].task, predicting_tasks()
    if named is None:
        get_parser().parse_args(words)  # shows the help, or says that --task is missing
    if named not in known:
        raise UserError(f"--task {named!r} cannot predict; choose from {', '.join(known)}")
    args = get_parser(known[named]).parse_args(words)
    for name in ("batch_size", "window", "max_tokens", "workers", "worker_cpus"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise UserError(f"--{name.replace('_', '-')} {value} must be 1 or more")
    if args.engine != "ray" and (args.workers, args.address, args.worker_cpus) != (None, None, 1):
        raise UserError("--workers, --worker-cpus and --address are for --engine ray: give that too")
    check_model_args(args)
    check_apart(args)
    if args.switch_decisions == "shuffled":
        raise UserError("--switch-decisions shuffled needs all inputs at once: use fairseq-validate")
    check_writable("--output", args.output)
    if args.switch_report is not None:
        check_writable("--switch-report", args.switch_report)
    return args


def check_apart(args: argparse.Namespace) -> None:
    """Refuse to write a file that is read, or to write two into one.

    Raises:
        UserError: naming both flags.
    """
    names = ("output", "switch_report", "input", "path", "gpt2_encoder_json", "gpt2_vocab_bpe")
    paths = {f"--{name.replace('_', '-')}": getattr(args, name) for name in names}
    flags: dict[str, str] = {}
    for flag, path in paths.items():
        if path is not None:
            other = flags.setdefault(os.path.realpath(path), flag)
            if other != flag and other in ("--output", "--switch-report"):
                raise UserError(f"{other} and {flag} name one file, {path}: name another to be written")


def load(args: argparse.Namespace) -> tuple[Any, Any]:
    """The task and the model of a checkpoint; a plain BART's runs as a switchable one that keeps everything.

    Raises:
        UserError: it holds no such model.
    """
    with to_be_run():
        state = checkpoint_utils.load_checkpoint_to_cpu(args.path)
    options = flat_args(state)
    if can_become_switchable(options):
        name_switchable(options)
    options.task = args.task
    options.num_shards, options.shard_id = 1, 0
    for name in TASK_OPTIONS:
        if getattr(args, name) is not None:
            setattr(options, name, getattr(args, name))
    options.switch_budget = args.switch_budget  # not what training was validated with
    if args.task == "switchable_task":
        fill_translation(options, args)
    state["args"] = options
    args.weights = set(state["model"])  # fairseq makes up what is missing
    torch.manual_seed(args.seed)  # a plain BART's new policy is the same in a resumed run
    models, _, task = checkpoint_utils.load_model_ensemble_and_task([args.path], state=state)
    if not hasattr(models[0].encoder, "policy"):
        raise UserError(f"--path {args.path} holds no BART that can switch: train it with --arch switchable_bart")
    return task, models[0].eval()


def fill_translation(options: Any, args: argparse.Namespace) -> None:
    """What the translation task must know: of an imported or released checkpoint, any languages, and the dictionary
    beside it; and nothing of what training was validated by.
    """
    options.source_lang = getattr(options, "source_lang", None) or "source"
    options.target_lang = getattr(options, "target_lang", None) or "target"
    if args.data is None and not os.path.isdir(getattr(options, "data", None) or ""):
        options.data = os.path.dirname(os.path.abspath(args.path))
    options.eval_rouge, options.switch_seconds, options.switch_report = False, None, None
    options.switch_lookup = args.switch_lookup


def place(model: Any, args: argparse.Namespace) -> Any:
    """A model where it runs, packed for that.

    Raises:
        UserError: ``--fp16`` without a GPU, or ``--switch-precision`` on one.
    """
    model.make_generation_fast_()
    if torch.cuda.is_available() and not args.cpu:
        model = (model.half() if args.fp16 else model).cuda()
    elif args.fp16:
        raise UserError("--fp16 is for a GPU: on the CPU use --switch-precision bf16 or int8")
    model.pack(args.switch_precision)
    return model


def cli_main() -> None:
    """Read the options, load, predict, say what was done.

    Raises:
        UserError: an option or a file that cannot be used.
    """
    logging.basicConfig(format="%(asctime)s | %(levelname)s | %(name)s | %(message)s", level="INFO", stream=sys.stderr)
    args = parse_args()
    input_digest, lines = file_digest(args.input)
    task, model = load(args)
    task.source.check(model.encoder.policy)
    predictor = task.build_predictor(args, model)
    decisions = args.switch_decisions
    run = {
        "model": model_digest(model),
        "input": input_digest,
        "decisions": decisions if decisions in RUN_DECISIONS else file_or_word(decisions),
        "random_keep": args.switch_random_keep,
        "budget": file_or_word(args.switch_budget),
        "precision": args.switch_precision,
        "seed": args.seed,
        "batch_size": args.batch_size,
        "max_tokens": args.max_tokens,
        "window": args.window,
        "fp16": args.fp16,
        "report": args.switch_report is not None,
        **predictor.settings(),
    }
    total = lines if predictor.rows_are_lines else None
    try:
        if args.engine == "ray":
            with RayWorkers(args) as workers:
                print(Runner(predictor, args, workers).predict(run, total))
        else:
            worker = Worker(task, place(model, args), predictor, args)
            runner = Runner(predictor, args, partial(map, worker))
            worker.show = runner.show
            print(runner.predict(run, total))
    except KeyboardInterrupt:
        raise UserError(f"interrupted: give the same command again to go on with {args.output}") from None
