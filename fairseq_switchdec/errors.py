"""The exceptions for a user's mistake: one ends a command, the other reaches a program that calls the hub interface."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class UserError(SystemExit):
    """A mistake the user can mend: the message names the flag or file and the remedy.

    It derives from ``SystemExit``, so that a command ends with the message alone on stderr and exit status 1, and
    so that fairseq's ``except Exception`` around checkpoint loading cannot replace the message by a vaguer one.

    Attributes:
        message: without the program's name, which a command puts before it.
    """

    def __init__(self, message: str):
        super().__init__(f"fairseq_switchdec: {message}")
        self.message = message


class CallError(ValueError):
    """A `UserError` in a call from Python, with the same message: an ordinary exception, which ends no server."""


@contextmanager
def raised_to_caller() -> Iterator[None]:
    """Around what a program calls.

    Raises:
        CallError: in place of a `UserError`.
    """
    try:
        yield
    except UserError as error:
        raise CallError(error.message) from error
