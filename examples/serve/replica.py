"""A replica: a process of Ray Serve that has loaded the model, and answers one text a call, in batches."""

# A replica begins by unpickling what it is to run, and so by importing this module: `examples` mends fairseq first.
from __future__ import annotations

import logging
import os
from argparse import Namespace
from collections.abc import Hashable
from typing import Union

from fairseq_switchdec.compat.user_dir import register_tasks_and_models
from fairseq_switchdec.errors import CallError, raised_to_caller
from fairseq_switchdec.predict.summarizer import Summarizer, TextRequest

from .backend import Answer, Failed, Unavailable
from .batcher import Batcher

logger = logging.getLogger(__name__)


class Replica:
    """Answers texts.

    Args:
        args: the command's options.
        folder: that the command runs in, to which its files' names may be relative.

    Attributes:
        mistake: what is wrong with the options. A constructor that fails is tried again and again by Ray Serve, so it
            does not: the command asks. A replica that has said it is replaced, so that a file that was missing for a
            while does no harm.
    """

    def __init__(self, args: Namespace, folder: str):
        os.chdir(folder)
        register_tasks_and_models()
        self.mistake: str | None = None
        self.said = False
        try:
            with raised_to_caller():
                self.summarizer = Summarizer.load(args)
        except CallError as error:
            self.mistake = str(error)
        self.batcher = Batcher(self.run, self.key, args.batch_size, args.batch_wait)

    async def state(self) -> tuple[int, str | None]:
        """The process, and `mistake`."""
        self.said = True
        return os.getpid(), self.mistake

    async def summarize(self, request: TextRequest) -> Answer:
        """A text's answer.

        Raises:
            Failed, Unavailable: there is none.
        """
        if self.mistake is not None:
            self.said = True
            raise Unavailable(f"a replica could not load the model: {self.mistake}")
        result, batch = await self.batcher(request)
        if isinstance(result, Exception):
            raise result
        return Answer(result, batch)

    def key(self, request: TextRequest) -> Hashable:
        """Of texts that can share a batch."""
        return self.summarizer.key(request)

    def run(self, requests: list[TextRequest]) -> list[Union[Answer, Failed]]:
        """The answers of a batch. Where it fails, each of its texts is tried alone: it may be the fault of one."""
        try:
            with raised_to_caller():
                return self.summarizer(requests)
        except CallError as error:
            return [Failed(str(error))] * len(requests)
        except Exception:
            logger.exception("a batch of %d texts failed", len(requests))
            if len(requests) == 1:
                return [Failed("the model failed with this text; the log of the replica has the reason")]
            return [result for request in requests for result in self.run([request])]

    def check_health(self) -> None:
        """Ray Serve's hook: replaces a replica that raises.

        Raises:
            RuntimeError: it has no model.
        """
        if self.mistake is not None and self.said:
            raise RuntimeError(self.mistake)
