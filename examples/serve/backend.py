"""What the web part asks of the models, wherever they run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, Union

from fairseq_switchdec.predict.summarizer import Refused, Summary, TextRequest


class Unavailable(Exception):
    """No model can answer now; the same request may succeed later."""


class Failed(Exception):
    """A request that a model could not answer though nothing is wrong with it; the message is for the client."""


@dataclass(frozen=True)
class Answer:
    """Of a text.

    Attributes:
        result: what was written, or why nothing was.
        batch: texts that ran together.
    """

    result: Union[Summary, Refused]
    batch: int


class Backend(Protocol):
    """Models."""

    async def summarize(self, request: TextRequest) -> Answer:
        """One text's answer; a caller that no longer wants it cancels.

        Raises:
            Unavailable, Failed: there is none.
        """
        ...

    async def ready(self) -> bool:
        """Whether a model can answer."""
        ...
