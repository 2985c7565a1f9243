"""What transformers are made of, every sublayer skippable; parameter names are fairseq's."""

from .activations import activation
from .attention import Attention
from .causal import PromptKeys, SwitchableCausalLayer
from .layers import LayerConfig, SwitchableDecoderLayer, SwitchableEncoderLayer, causal_mask, post_norm, pre_norm
from .norms import RMSNorm
from .positions import Angles, RelativeBias, Rotary

__all__ = [
    "Angles",
    "Attention",
    "LayerConfig",
    "PromptKeys",
    "RMSNorm",
    "RelativeBias",
    "Rotary",
    "SwitchableCausalLayer",
    "SwitchableDecoderLayer",
    "SwitchableEncoderLayer",
    "activation",
    "causal_mask",
    "post_norm",
    "pre_norm",
]
