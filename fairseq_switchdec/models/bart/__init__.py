"""BART: ``--arch switchable_bart``."""

from .model import SwitchableBARTModel

__all__ = ["SwitchableBARTModel"]
