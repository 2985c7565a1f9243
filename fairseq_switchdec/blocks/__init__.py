"""Transformer layers whose sublayers can be skipped, with the parameter names of fairseq's BART."""

from .attention import Attention
from .layers import SwitchableDecoderLayer, SwitchableEncoderLayer

__all__ = ["Attention", "SwitchableDecoderLayer", "SwitchableEncoderLayer"]
