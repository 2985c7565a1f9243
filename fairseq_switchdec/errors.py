"""The one exception for a user's mistake."""

from __future__ import annotations


class UserError(SystemExit):
    """A mistake the user can mend: the message names the flag or file and the remedy.

    It derives from ``SystemExit``, so that a command ends with the message alone on stderr and exit status 1, and
    so that fairseq's ``except Exception`` around checkpoint loading cannot replace the message by a vaguer one.
    Callers from Python catch it by name.
    """

    def __init__(self, message: str):
        super().__init__(f"fairseq_switchdec: {message}")
