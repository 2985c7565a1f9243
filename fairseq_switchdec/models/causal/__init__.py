"""Decoder-only models: ``--arch switchable_gpt2`` and ``switchable_llama``."""

from .model import SwitchableGPT2Model, SwitchableLlamaModel

__all__ = ["SwitchableGPT2Model", "SwitchableLlamaModel"]
