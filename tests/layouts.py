"""Train one run as 1, 2 and 4 processes and compare what comes out. By hand, full length, every rule and backend:

    python tests/layouts.py [--task switchable_task] [--updates 20] [--ddp-backend legacy_ddp] [--folder DIR] \\
        [fairseq-train's ...]

The three layouts see the same four micro-batches in every update (section 5's single loop over one effective batch):

    1 process   x --update-freq 4    b0 b1 b2 b3
    2 processes x --update-freq 2    b0 b2 | b1 b3         fairseq deals batches out in turn
    4 processes x --update-freq 1    b0 | b1 | b2 | b3

An epoch has 27 batches (of question answering as many as its windows make), so that its last update has three:
processes without a batch run one that must not count.
"""

from __future__ import annotations

import argparse
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # whose examples are meant, not this folder's

from fork_server import run_in_repository, run_module
from support import REPO, randomize
from task_data import TASKS, make_data

LAYOUTS = ((1, 4), (2, 2), (4, 1))
BATCHES, BATCH_SIZE = 27, 6
TOLERANCE = 1e-5
#: As many losses, which differ by rounding, as a decision had tries.
SUMS = ("learner_state.effect_losses",)

#: The documented rate for short trainings; lambda of Eq. 7 takes many values within 20 updates.
LEARNING_FLAGS = [
    "--criterion", "lexico_policy_criterion", "--policy-lr", 2e-3, "--policy-statistics-inputs", 32,
    "--policy-rule", "budget", "--policy-flops-budget", 0.5,
]  # fmt: skip

#: softmax ignores what these add to all keys or places: their gradient is rounding alone, which Adam scales to steps.
WITHOUT_GRADIENT = ("k_proj.bias", "span_head.bias")
#: Of a model with a span head also this one: it moves the scores of all places alike.
LAST_BIAS = "decoder.layers.1.final_layer_norm.bias"
#: Meters of time and speed, and of how much the processes take at once in validation.
UNLIKE = ("wall", "train_wall", "ups", "wps", "wpb", "bsz")


def free_port() -> int:
    """A TCP port that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def command(processes: int, *program: Any) -> list[str]:
    """``python program...``, as so many processes of torchrun."""
    launcher = [sys.executable]
    if processes > 1:
        address = ["--nnodes", 1, "--master_addr", "127.0.0.1", "--master_port", free_port()]
        launcher += ["-m", "torch.distributed.run", "--nproc_per_node", str(processes), *map(str, address)]
    return [*launcher, *map(str, program)]


def train_command(
    data: Path, folder: Path, processes: int, update_freq: int, *options: Any, task: str = "switchable_task"
) -> list[str]:
    """fairseq-train of a tiny switchable BART on the processor, for one of our tasks."""
    pytorch_ddp = "pytorch_ddp" in options
    program = [REPO / "tests" / "cpu_ddp.py"] if pytorch_ddp else ["-m", "fairseq_switchdec"]
    return command(
        processes, *program, "train", data, "--user-dir", "fairseq_switchdec", "--task", task, *TASKS[task],
        *LEARNING_FLAGS, "--arch", "switchable_bart_tiny", "--dropout", 0,
        "--optimizer", "adam", "--lr", 1e-3, "--batch-size", BATCH_SIZE,
        "--required-batch-size-multiple", 1, "--seed", 3, "--num-workers", 0,
        "--update-freq", update_freq, "--cpu", "--distributed-backend", "gloo",
        "--save-dir", folder, "--no-epoch-checkpoints", "--log-format", "json", "--log-interval", 1, *options,
    )  # fmt: skip


def run(arguments: list[str]) -> str:
    """Run to the end; stdout and stderr together.

    Raises:
        RuntimeError: the command failed.
    """
    alone = [sys.executable, "-m", "fairseq_switchdec"]
    result = run_module(*arguments[3:]) if arguments[:3] == alone else run_in_repository(arguments)
    if result.returncode != 0:
        raise RuntimeError(result.stdout[-6000:])
    return result.stdout


def make_start(
    data: Path, folder: Path, task: str = "switchable_task", *options: Any, scales: dict[str, float] | None = None
) -> Path:
    """A checkpoint whose weights are not small and whose policy skips by what it reads: a model that starts by keeping
    everything learns from advantages and gradients so near to 0 that Adam scales up their rounding.

    Args:
        scales: by the end of a weight's name, what it is multiplied by.
    """
    from fairseq.checkpoint_utils import load_checkpoint_to_cpu

    run(train_command(data, folder, 1, 1, "--max-update", 1, "--disable-validation", *options, task=task))
    state = load_checkpoint_to_cpu(str(folder / "checkpoint_last.pt"))
    model = state["model"]
    randomize({name: model[name] for name in model if not name.startswith(("encoder.policy.", "learner_state."))})
    for end, scale in (scales or {}).items():
        for name in [name for name in model if name.endswith(end)]:
            model[name] = model[name] * scale
    generator = torch.Generator().manual_seed(2)
    for head in ("sublayer_heads.0", "token_head"):
        weight, bias = (model[f"encoder.policy.{head}.{name}"] for name in ("weight", "bias"))
        weight.copy_(torch.randn(weight.shape, generator=generator) * 0.2)
        bias.copy_(torch.rand(bias.shape, generator=generator) - 0.3)
    torch.save(state, folder / "start.pt")
    return folder / "start.pt"


def outcome(folder: Path) -> dict[str, torch.Tensor]:
    """Everything a run ends with, by name: w, the policy, its learner, both optimizers' moments, the meters."""
    from fairseq.checkpoint_utils import load_checkpoint_to_cpu

    state = load_checkpoint_to_cpu(str(folder / "checkpoint_last.pt"))
    values = dict(state["model"])
    for index, moments in state["last_optimizer_state"]["state"].items():
        values.update({f"adam.{index}.{name}": torch.as_tensor(moments[name]) for name in ("exp_avg", "exp_avg_sq")})
    for group, meters in state["extra_state"]["metrics"].items():
        for _, name, kind, meter in meters:
            if kind == "AverageMeter" and name not in UNLIKE:
                values[f"metrics.{group}.{name}"] = torch.tensor([float(meter["sum"]), float(meter["count"])])
    return values


def difference(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> dict[str, float]:
    """The largest difference in each value, absolute up to 1 and relative above; of a sum of losses, of each loss."""
    assert first.keys() == second.keys(), first.keys() ^ second.keys()
    ignored = (*WITHOUT_GRADIENT, LAST_BIAS) if "span_head.bias" in first else WITHOUT_GRADIENT
    tries = first["learner_state.effect_products"].diagonal()
    return {
        name: float(((value - second[name]).abs() / (tries if name in SUMS else value.abs()).clamp(min=1)).max())
        for name, value in first.items()
        if not name.endswith(ignored)
    }


def compare(
    data: Path, folder: Path, *options: Any, layouts: Any = LAYOUTS, task: str = "switchable_task"
) -> dict[str, dict[str, float]]:
    """Train in every layout; each one's differences from the first."""
    outcomes = {}
    for processes, update_freq in layouts:
        name = f"{processes} x {update_freq}"
        run(train_command(data, folder / name.replace(" ", ""), processes, update_freq, *options, task=task))
        outcomes[name] = outcome(folder / name.replace(" ", ""))
    names = list(outcomes)
    return {name: difference(outcomes[names[0]], outcomes[name]) for name in names[1:]}


def backend_flags(backend: str) -> list[str]:
    """The flags of a ``--ddp-backend``."""
    return ["--ddp-backend", backend, *(["--find-unused-parameters"] if backend == "pytorch_ddp" else [])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=TASKS, default="switchable_task")
    parser.add_argument("--updates", type=int, default=20)
    parser.add_argument("--ddp-backend", choices=("legacy_ddp", "pytorch_ddp"), default="legacy_ddp")
    parser.add_argument("--folder", type=Path, help="keep data, checkpoints and logs here")
    options, others = parser.parse_known_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="layouts-"))
    data = make_data(options.task, folder, {"train": BATCHES * BATCH_SIZE, "valid": 15})
    start = make_start(data, folder / "start", options.task)
    flags = [
        "--finetune-from-model",
        start,
        "--max-update",
        options.updates,
        *backend_flags(options.ddp_backend),
        *others,
    ]
    worst = 0.0
    for name, differences in compare(data, folder, *flags, task=options.task).items():
        print(f"1 x 4 and {name}: {len(differences)} values, largest differences:")
        for key in sorted(differences, key=differences.__getitem__, reverse=True)[:6]:
            print(f"    {differences[key]:.2e}  {key}")
        worst = max(worst, *differences.values())
    print(f"largest difference {worst:.2e}, allowed {TOLERANCE:.0e}")
    sys.exit(worst > TOLERANCE)


if __name__ == "__main__":
    main()
