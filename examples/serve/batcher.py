"""Dynamic batching by key: what waits while the model runs goes into its next batch.

Ray Serve's ``serve.batch`` closes a batch after its waiting time also while the model is busy, so that a steady stream
of requests is cut into small batches, and it does not know which requests can share one.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Waiting:
    """An item that is to run."""

    item: Any
    future: asyncio.Future[Any]
    since: float


class Batcher:
    """Runs items in batches, one batch at a time, in a thread of its own.

    Args:
        run: the results of a batch, in its order.
        key: items of a batch have equal ones.
        size: items of a batch at most.
        wait: seconds that an item waits for others, unless a batch is full before.
    """

    def __init__(
        self, run: Callable[[list[Any]], Sequence[Any]], key: Callable[[Any], Hashable], size: int, wait: float
    ):
        self.run, self.key, self.size, self.wait = run, key, size, wait
        self.waiting: list[Waiting] = []
        self.more: asyncio.Event | None = None  # made where it is waited for: Python 3.9 ties it to a loop
        self.thread = ThreadPoolExecutor(1)
        self.loop: asyncio.Task[None] | None = None

    async def __call__(self, item: Any) -> tuple[Any, int]:
        """An item's result, and how many were in its batch; an item whose caller was cancelled is not run."""
        one = Waiting(item, asyncio.get_running_loop().create_future(), time.monotonic())
        self.waiting.append(one)
        self.more = self.more or asyncio.Event()
        self.more.set()
        if self.loop is None or self.loop.done():
            self.loop = asyncio.create_task(self.work())
        return await one.future

    async def work(self) -> None:
        """Runs batches until nothing waits."""
        while await self.fill():
            batch = self.take()
            items = [one.item for one in batch]
            try:
                results = await asyncio.get_running_loop().run_in_executor(self.thread, self.run, items)
            except Exception as error:
                for one in batch:
                    if not one.future.done():
                        one.future.set_exception(error)
                continue
            for one, result in zip(batch, results):
                if not one.future.done():
                    one.future.set_result((result, len(batch)))

    async def fill(self) -> bool:
        """Whether there is a batch to run, when the oldest item has waited for others or there are enough of them."""
        while self.alive():
            left = self.waiting[0].since + self.wait - time.monotonic()
            key = self.key(self.waiting[0].item)
            if left <= 0 or sum(self.key(one.item) == key for one in self.waiting) >= self.size:
                return True
            assert self.more is not None  # something waits
            self.more.clear()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.more.wait(), left)
        return False

    def alive(self) -> bool:
        """Forgets items whose callers are gone; whether others are left."""
        self.waiting = [one for one in self.waiting if not one.future.done()]
        return bool(self.waiting)

    def take(self) -> list[Waiting]:
        """The oldest item, and the oldest of those with its key."""
        key = self.key(self.waiting[0].item)
        batch = [one for one in self.waiting if self.key(one.item) == key][: self.size]
        taken = set(map(id, batch))
        self.waiting = [one for one in self.waiting if id(one) not in taken]
        return batch
