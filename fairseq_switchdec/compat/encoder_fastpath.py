"""torch >= 1.13: lets fairseq's stock transformer encoder generate from a batch with padding on the left.

Its fused path gives ``torch._transformer_encoder_layer_fwd`` a mask without saying of what kind, which fails with "Mask
Type should be defined" (fairseq issues 4858, 4899). fairseq takes that path with the padding mask only. BART never
takes it.
"""

# No "from __future__ import annotations": TorchScript, which can compile fairseq's encoder, reads the types below.
from types import ModuleType
from typing import Optional

from fairseq_switchdec.compat.imports import ImportHooks, ModuleView


def register(hooks: ImportHooks) -> None:
    """Mend ``torch._transformer_encoder_layer_fwd`` as ``fairseq.modules.transformer_layer`` sees it."""
    hooks.after("fairseq.modules.transformer_layer", _mend)


def _mend(transformer_layer: ModuleType) -> None:
    torch = transformer_layer.torch
    Tensor = torch.Tensor

    def encoder_layer_forward(
        x: Tensor,
        embed_dim: int,
        num_heads: int,
        qkv_weight: Tensor,
        qkv_bias: Tensor,
        out_weight: Tensor,
        out_bias: Tensor,
        use_gelu: bool,
        norm_first: bool,
        eps: float,
        norm1_weight: Tensor,
        norm1_bias: Tensor,
        norm2_weight: Tensor,
        norm2_bias: Tensor,
        fc1_weight: Tensor,
        fc1_bias: Tensor,
        fc2_weight: Tensor,
        fc2_bias: Tensor,
        padding_mask: Optional[Tensor],
    ) -> Tensor:
        """torch's fast path, told what kind of mask fairseq gives it; x and the result are (B, S, embed_dim)."""
        attention = (x, embed_dim, num_heads, qkv_weight, qkv_bias, out_weight, out_bias)
        norms = (use_gelu, norm_first, eps, norm1_weight, norm1_bias, norm2_weight, norm2_bias)
        ffn = (fc1_weight, fc1_bias, fc2_weight, fc2_bias)
        # 1: the mask has the shape (B, S) and is True at padding
        return torch._transformer_encoder_layer_fwd(*attention, *norms, *ffn, padding_mask, 1)

    transformer_layer.torch = ModuleView(torch, _transformer_encoder_layer_fwd=encoder_layer_forward)
