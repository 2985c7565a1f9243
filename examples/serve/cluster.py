"""The replicas, as Ray Serve keeps them: started, watched, replaced when they die; a `Backend` for the web part."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import uuid
from argparse import Namespace
from typing import Any

import ray
from ray import serve

from fairseq_switchdec.errors import UserError
from fairseq_switchdec.predict.ray_engine import find_room, start_ray
from fairseq_switchdec.predict.summarizer import TextRequest

from .backend import Answer, Failed, Unavailable
from .replica import Replica

#: Times that a text is given to a replica, if each of them dies over it.
TRIES = 3
#: Seconds within which a replica that has nothing else to do says that it is there.
PATIENCE = 2.0
#: Seconds that a replica that is there may take for its first answer.
START_SECONDS = 60.0
#: Calls of a replica beside those for texts.
SPARE = 100


class Cluster:
    """All replicas; at the end of the context they are gone.

    Args:
        args: the command's options.

    Raises:
        UserError: what the cluster or a replica says of the options.
    """

    def __init__(self, args: Namespace):
        logging.getLogger("ray.serve").setLevel(logging.WARNING)  # a line for every client that goes away
        start_ray(args.address)
        self.name = f"fairseq_switchdec-{uuid.uuid4().hex[:8]}"  # a cluster may have several
        try:
            count, gpus = find_room(args, "replica")
            serve.start(proxy_location="Disabled")  # the web part has its own server
            deployment = serve.deployment(
                Replica,
                name="replica",
                num_replicas=count,
                ray_actor_options={"num_cpus": args.replica_cpus, "num_gpus": gpus},
                # The web part counts what waits; here all of it must be in reach, to choose batches from.
                max_ongoing_requests=args.limit_queue + SPARE,
                health_check_period_s=2,
                graceful_shutdown_timeout_s=5,
            )
            self.handle = serve.run(deployment.bind(args, os.getcwd()), name=self.name, route_prefix=None)
            _, mistake = self.handle.state.remote().result(timeout_s=START_SECONDS)
            if mistake is not None:
                raise UserError(mistake)
        except (RuntimeError, TimeoutError) as error:
            self.__exit__()
            raise UserError(f"the replicas do not start; the logs of Ray Serve say why: {error}") from None
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *exception: Any) -> None:
        if ray.is_initialized():
            with contextlib.suppress(ray.exceptions.RayError):  # the cluster may be gone
                serve.delete(self.name)
            ray.shutdown()

    async def summarize(self, request: TextRequest) -> Answer:
        """`Backend`: the text goes to another replica if one dies over it."""
        for _ in range(TRIES):
            call = self.handle.summarize.remote(request)
            try:
                answer: Answer = await call
                return answer
            except asyncio.CancelledError:
                call.cancel()
                raise
            except ray.exceptions.RayTaskError as error:
                raise error.cause if isinstance(error.cause, (Failed, Unavailable)) else error from None
            except (ray.exceptions.RayActorError, ray.exceptions.WorkerCrashedError):
                continue
        raise Unavailable(f"{TRIES} replicas ended over this text: try again later")

    async def ready(self) -> bool:
        """`Backend`."""
        call = self.handle.state.remote()
        try:
            _, mistake = await asyncio.wait_for(call, PATIENCE)
        except (asyncio.TimeoutError, ray.exceptions.RayError):
            call.cancel()
            return False
        return mistake is None
