"""``predict --engine ray``: windows of rows are predicted by the workers of a Ray cluster, or of this machine.

A worker is a Ray actor that has loaded the model once. One that dies is started again by Ray, and its window with it.
Results come back in the file's order, so what the command writes, and what it goes on from when it is killed itself, is
what one process writes.
"""

# A worker begins by unpickling what it is to run, and so by importing this module: the fixes for fairseq come first.
from __future__ import annotations

from fairseq_switchdec.compat import install

install()

import logging  # noqa: E402
import os  # noqa: E402
from argparse import Namespace  # noqa: E402
from collections import Counter  # noqa: E402
from collections.abc import Iterable, Iterator  # noqa: E402
from typing import Any  # noqa: E402

from ..compat.user_dir import register_tasks_and_models  # noqa: E402
from ..errors import CallError, UserError, raised_to_caller  # noqa: E402
from .worker import Done, Window, Worker  # noqa: E402

logger = logging.getLogger(__name__)

#: Windows at most, for each worker, from the first one that is not done to the last one that was read.
AHEAD = 4
#: How often a window is tried again after the death of its worker: it may be what kills it.
RETRIES = 10


class RayWorkers:
    """The workers, for `fairseq_switchdec.predict.run.Runner`; at the end of the context they are gone.

    A worker has as many threads as cores; with as many, a single process computes the same to the last bit.

    Args:
        args: the command's options; its files must be found under the same names by all machines.

    Raises:
        UserError: Ray is not installed, or has no such cluster or not enough for a worker.
    """

    def __init__(self, args: Namespace):
        try:
            import ray
        except ImportError:
            raise UserError("--engine ray needs the package ray: pip install ray") from None
        self.ray = ray
        start_ray(args.address)
        self.count, gpus = find_room(args, "worker")
        share = {"num_cpus": args.worker_cpus, "num_gpus": gpus}
        kind = ray.remote(**share, max_restarts=-1, max_task_retries=RETRIES)(RemoteWorker)
        self.actors = [kind.remote(args, os.getcwd()) for _ in range(self.count)]

    def __enter__(self) -> RayWorkers:
        return self

    def __exit__(self, *exception: Any) -> None:
        self.ray.shutdown()

    def __call__(self, windows: Iterable[Window]) -> Iterator[Done]:
        """The windows' results, in their order.

        Raises:
            UserError: what a worker says of the options or of the model, or that it always dies.
        """
        pending: dict[Any, int] = {}  # results to come, in order, and whose they are
        for window in windows:
            if len(pending) == AHEAD * self.count:
                yield self.next_result(pending)
            worker = self.idlest(pending)
            pending[self.actors[worker].predict.remote(window)] = worker
        while pending:
            yield self.next_result(pending)

    def idlest(self, pending: dict[Any, int]) -> int:
        """The worker with the fewest windows that are not done."""
        waiting = self.ray.wait(list(pending), num_returns=len(pending), timeout=0)[1] if pending else []
        load = Counter(pending[result] for result in waiting)
        return min(range(self.count), key=load.__getitem__)

    def next_result(self, pending: dict[Any, int]) -> Done:
        """The first of the results to come, when it is there."""
        reference = next(iter(pending))
        try:
            done: Done = self.ray.get(reference)
        except self.ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, CallError):
                raise UserError(str(error.cause)) from None
            raise
        except self.ray.exceptions.RayActorError as error:
            reason = str(error).strip().rpartition("\n")[2]
            raise UserError(
                f"--engine ray: a worker has died {RETRIES + 1} times, or could not start ({reason}). Where memory is "
                "short, go on with fewer --workers, or start over with a smaller --batch-size"
            ) from None
        del pending[reference]
        return done


def start_ray(address: str | None) -> None:
    """Connect to a cluster, or start one of this machine where none is named.

    Raises:
        UserError: there is no such cluster.
    """
    import ray

    logger.info("%s: this may take a minute", "starting Ray" if address is None else f"connecting to Ray at {address}")
    started: dict[str, Any] = {"include_dashboard": False} if address is None else {"address": address}
    try:
        ray.init(**started, configure_logging=False, log_to_driver=False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UserError(f"--address {address}: no Ray cluster can be reached there: {error}") from None


def find_room(args: Namespace, name: str) -> tuple[int, int]:
    """How many processes with a model the cluster is to run, and the GPUs of each; where it has not enough, Ray ends.

    Args:
        args: ``cpu``, ``fp16``, and the options named below.
        name: of such a process, and so of the options: ``--workers`` (None: as many as there is room for) and
            ``--worker-cpus``.

    Raises:
        UserError: the cluster has not so many GPUs or cores, or none for ``--fp16``.
    """
    import ray

    wanted, cores = getattr(args, f"{name}s"), getattr(args, f"{name}_cpus")
    resources = ray.cluster_resources()
    gpus = 0 if args.cpu else int(resources.get("GPU", 0))
    cpus = int(resources.get("CPU", 0))
    most = min(gpus, cpus // cores) if gpus else cpus // cores
    count = wanted or most
    if not 0 < count <= most:
        ray.shutdown()
        raise UserError(
            f"--{name}s {wanted or 1}, --{name}-cpus {cores}: the cluster has {gpus} GPUs and {cpus} cores, enough for "
            f"{most} {name}s"
        )
    if args.fp16 and not gpus:
        ray.shutdown()
        raise UserError("--fp16 is for a GPU, and the cluster has none: leave it out")
    logger.info("%d %ss, each with %s", count, name, "a GPU" if gpus else f"{cores} cores")
    return count, 1 if gpus else 0


class RemoteWorker:
    """A `Worker` in a process of its own.

    Args:
        folder: that the command runs in, to which its files' names may be relative.
    """

    def __init__(self, args: Namespace, folder: str):
        from .command import load, place

        os.chdir(folder)
        register_tasks_and_models()
        with raised_to_caller():
            task, model = load(args)
            predictor = task.build_predictor(args, model)
            self.worker = Worker(task, place(model, args), predictor, args)

    def predict(self, window: Window) -> Done:
        """A window's results.

        Raises:
            CallError: for a `UserError`, which would end the process.
        """
        with raised_to_caller():
            return self.worker(window)
