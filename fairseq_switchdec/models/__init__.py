"""The switchable BART, as fairseq model ``switchable_bart``."""

from .switchable_bart import SwitchableBARTModel

__all__ = ["SwitchableBARTModel"]
