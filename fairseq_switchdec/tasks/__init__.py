"""The fairseq tasks. ``--user-dir`` imports this folder, and with it everything else that fairseq finds by name."""

from .. import criterions, scoring
from .switchable_task import SwitchableTask

__all__ = ["SwitchableTask", "criterions", "scoring"]
