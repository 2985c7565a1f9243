"""T5: ``--arch switchable_t5``."""

from .model import SwitchableT5Model

__all__ = ["SwitchableT5Model"]
