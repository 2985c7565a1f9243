"""Weights as inference likes them: projections of one input fused, laid out for the processor, in fewer bits if asked.

A decoding step reads every weight to multiply it by a few rows, so its time is the time of reading, and a layout that
is read in order, or with fewer bits, is as much faster. In all precisions the residual stream, layer norms and softmax
stay as they are; ``bf16`` and ``int8`` concern the linear layers and the token embedding, and ``bf16`` the attention
between them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UserError
from .memory import keep_freed_memory

#: Rows of a weight that are looked at in another dtype at a time.
ROWS = 4096

#: ``--switch-precision``.
PRECISIONS = ("fp32", "bf16", "int8")


class PackedLinear(nn.Module):
    """Linear layers of one input as one product.

    Args:
        linears: of the same input size, all with a bias or all without.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(self, linears: Sequence[nn.Linear]):
        super().__init__()
        self.sizes = [linear.out_features for linear in linears]
        weight = torch.cat([linear.weight.detach() for linear in linears]) if len(linears) > 1 else linears[0].weight
        biases = [linear.bias.detach() for linear in linears if linear.bias is not None]
        self.bias = torch.cat(biases) if biases else None
        self.pack(weight.detach())

    def pack(self, weight: Tensor) -> None:
        """Keep the weight, (out, in), in this class's layout."""
        self.weight = weight

    def unpack(self) -> list[nn.Linear]:
        """The linear layers again."""
        weights = self.dense().split(self.sizes)
        biases = [None] * len(weights) if self.bias is None else self.bias.to(weights[0].dtype).split(self.sizes)
        linears = []
        for weight, bias in zip(weights, biases):
            linear = nn.Linear(weight.size(1), weight.size(0), bias is not None, device="meta")
            linear.weight = nn.Parameter(weight)
            if bias is not None:
                linear.bias = nn.Parameter(bias)
            linears.append(linear)
        return linears

    def dense(self) -> Tensor:
        """The weight, (out, in), as it was given."""
        return self.weight

    def _save_to_state_dict(self, *args: Any, **kwargs: Any) -> None:
        raise UserError("a part of a model that is packed for generation has no state_dict: take the whole model's")

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) to (..., sum of the layers' out)."""
        return F.linear(x, self.weight, self.bias)


class OneDNNLinear(PackedLinear):
    """In the blocked layout of oneDNN, float32: the same numbers, read in order."""

    def pack(self, weight: Tensor) -> None:
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous())

    def dense(self) -> Tensor:
        return self.weight.to_dense()

    def forward(self, x: Tensor) -> Tensor:
        # oneDNN compiles a product for every number of rows, and keeps a thousand of them: let them be few.
        rows = x.flatten(0, -2)
        missing = -len(rows) % (1 if len(rows) <= 16 else 4 if len(rows) <= 64 else 32)
        padded = F.pad(rows, (0, 0, 0, missing)) if missing else rows
        y = torch.ops.mkldnn._linear_pointwise(padded, self.weight, self.bias, "none", [], "")
        return y[: len(rows)].view(*x.shape[:-1], -1)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "weight": self.dense()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.pack(self.weight)


class BFloat16Linear(OneDNNLinear):
    """bfloat16 weights and products, sums in float32; the result is bfloat16."""

    def pack(self, weight: Tensor) -> None:
        super().pack(weight.bfloat16())
        self.bias = None if self.bias is None else self.bias.bfloat16()

    def dense(self) -> Tensor:
        return super().dense().float()

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.bfloat16())


class Int8Linear(PackedLinear):
    """Dynamic quantization: int8 weights with a scale for each output, activations with a range for each row.

    torch's operator has one range for all rows; here it always is [0, 1], to which every row is stretched first, so
    that an input's result does not depend on what else is in its batch.
    """

    def pack(self, weight: Tensor) -> None:
        scale = int8_scale(weight)
        zero = torch.zeros(weight.size(0), dtype=torch.long)
        with warnings.catch_warnings():  # torch 2.13 announces the end of quantized tensors, which its operator takes
            warnings.simplefilter("ignore", UserWarning)
            quantized = torch.quantize_per_channel(weight.float(), scale.double(), zero, 0, torch.qint8)
        self.weight = torch.ops.quantized.linear_prepack(quantized, None)
        self.row_sum = torch.cat([rows.float().sum(1) for rows in quantized.int_repr().split(ROWS)]) * scale

    def dense(self) -> Tensor:
        return torch.ops.quantized.linear_unpack(self.weight)[0].dequantize()

    def forward(self, x: Tensor) -> Tensor:
        x = x.float()
        low = x.amin(-1, keepdim=True)  # torch.aminmax is twenty times slower on a CPU
        span = (x.amax(-1, keepdim=True) - low).clamp_(min=1e-12)
        y = torch.ops.quantized.linear_dynamic((x - low).div_(span), self.weight, reduce_range())
        shift = low * self.row_sum if self.bias is None else torch.addcmul(self.bias, low, self.row_sum)
        return shift.addcmul_(y, span)


def int8_scale(weight: Tensor) -> Tensor:
    """What an int8 stands for in each row of a weight, (rows,)."""
    return (torch.maximum(weight.amax(1), -weight.amin(1)) / 127).clamp(min=torch.finfo(torch.float32).tiny)


@cache
def reduce_range() -> bool:
    """Whether int8 products need activations of 7 bits: without VNNI, sums of two products overflow 16 bits."""
    supported = getattr(torch.cpu, "_is_vnni_supported", None) or getattr(torch.cpu, "_is_cpu_support_vnni", None)
    return supported is None or not supported()


@cache
def onednn_packs() -> bool:
    """Whether this torch multiplies by weights in oneDNN's layout: since 2.1, where it was built with oneDNN."""
    operators = ("_reorder_linear_weight", "_linear_pointwise")
    return torch.backends.mkldnn.is_available() and all(hasattr(torch.ops.mkldnn, name) for name in operators)


@cache
def bf16_products() -> bool:
    """Whether oneDNN multiplies in bfloat16 here: it needs a processor with AVX-512, or with AVX-NE-CONVERT."""
    return onednn_packs() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def layout(weight: Tensor, precision: str) -> type[PackedLinear]:
    """How a weight is to be packed."""
    if weight.device.type != "cpu" or weight.dtype != torch.float32:
        return PackedLinear
    if precision == "int8":
        if torch.backends.quantized.engine not in ("fbgemm", "x86", "onednn"):
            raise UserError(
                "--switch-precision int8 needs a torch with quantized products for this processor: use fp32"
            )
        return Int8Linear
    if precision == "bf16" and not bf16_products():
        raise UserError(
            "--switch-precision bf16 needs a processor with AVX-512, and torch >= 2.1 with oneDNN: use fp32 or int8"
        )
    if onednn_packs():
        return BFloat16Linear if precision == "bf16" else OneDNNLinear
    return PackedLinear


class Packs(nn.Module):
    """A module whose linear layers can be packed.

    Attributes:
        products: the name that a product of linear layers gets -> the names of the layers; the same name for one alone.
    """

    products: dict[str, tuple[str, ...]]

    def pack(self, precision: str) -> None:
        """Replace the linear layers, one product after the other, so that at no time there are two of all."""
        for product, names in self.products.items():
            linears = [getattr(self, name) for name in names]
            packed = layout(linears[0].weight, precision)(linears)
            for name in names:
                setattr(self, name, None)
            setattr(self, product, packed)

    def unpack(self) -> None:
        """Undo `pack`; the numbers are the same only where they were not rounded."""
        for product, names in self.products.items():
            linears = getattr(self, product).unpack()
            setattr(self, product, None)
            for name, linear in zip(names, linears):
                setattr(self, name, linear)


class TokenEmbedding(nn.Embedding, Packs):
    """An embedding whose rows can be held in fewer bits, float32 again as they are read.

    In float32 the rows would be a third of a BART-large's weights in int8: 206 MB, of which a text reads a few hundred.
    """

    products: ClassVar[dict[str, tuple[str, ...]]] = {}
    #: float32 (V, 1), of int8 rows.
    scale: Tensor | None = None

    def pack(self, precision: str) -> None:
        """See `Packs`; a tied output projection is packed on its own."""
        weight = self.weight.detach()
        kind = layout(weight, precision)
        if kind is BFloat16Linear:
            packed = weight.bfloat16()
        elif kind is Int8Linear:
            scale = int8_scale(weight).unsqueeze(1)
            packed = torch.empty(weight.shape, dtype=torch.int8)
            for rows, *parts in zip(*(x.split(ROWS) for x in (packed, weight, scale))):  # a quotient of all is as large
                rows.copy_(torch.div(*parts).round_())
            self.scale = scale
        else:
            return
        del self.weight
        self.weight = packed

    def unpack(self) -> None:
        """See `Packs`; only what is rounded is packed here, and that is never unpacked."""

    def forward(self, tokens: Tensor) -> Tensor:
        """int64 (...,) to (..., D)."""
        rows: Tensor = super().forward(tokens)
        if isinstance(self.weight, nn.Parameter):
            return rows
        return rows.float() if self.scale is None else rows.float().mul_(F.embedding(tokens, self.scale))


class PackableModel(nn.Module):
    """A fairseq model whose modules are packed for generation.

    Attributes:
        packed: the precision, or None.
    """

    packed: str | None = None

    def pack(self, precision: str) -> None:
        """Pack all linear layers, once; only after ``prepare_for_inference_``, after which fairseq lets no model be
        trained.

        Args:
            precision: ``fp32``, ``bf16`` or ``int8``, the last two on the CPU.

        Raises:
            UserError: a precision that the model's device or dtype does not go with.
        """
        if self.packed == precision or not getattr(self, "_is_generation_fast", False):
            return
        self.unpack()
        weight = next(self.parameters())
        device, dtype = weight.device.type, weight.dtype
        del weight  # the embedding's, which is to go
        if precision != "fp32" and (device != "cpu" or dtype != torch.float32):
            raise UserError(f"--switch-precision {precision} is for float32 models on the CPU: on a GPU use --fp16")
        for module in self._packing():
            module.pack(precision)
        if device == "cpu":
            if onednn_packs():  # else they are shared with what is packed
                for tensor in (*self.parameters(), *self.buffers()):  # the few left would hold on to a mapped file
                    tensor.data = tensor.data.clone()
            keep_freed_memory()
        self.packed = precision

    def unpack(self) -> None:
        """Undo `pack`, for a model that is moved, cast or saved.

        Raises:
            UserError: packing has rounded the weights.
        """
        if self.packed is None:
            return
        if self.packed != "fp32":
            raise UserError(
                f"--switch-precision {self.packed} has rounded this model's weights: load the checkpoint again to "
                "move, cast, save or train it (torch.no_grad() runs it as it is)"
            )
        for module in self._packing():
            module.unpack()
        self.packed = None

    def _apply(self, fn: Callable[[Tensor], Tensor], *args: bool, **kwargs: bool) -> PackableModel:
        self.unpack()
        return super()._apply(fn, *args, **kwargs)

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """The parameters, unpacked."""
        self.unpack()
        return super().state_dict(*args, **kwargs)

    def _packing(self) -> list[Packs]:
        return [module for module in self.modules() if isinstance(module, Packs)]
