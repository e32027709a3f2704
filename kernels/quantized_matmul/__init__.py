"""Packed 4, 5 and 8-bit weights times activations on the CPU. Derivation and measurements: README.md."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor
from torch.nn import functional as F

from ...errors import BadInput
from .. import native
from .formats import GROUP, Bits, Layout, PackedWeight, Quantized, pack, quantize
from .reference import quantized_matmul_reference

__all__ = [
    "GROUP",
    "Bits",
    "Layout",
    "PackedWeight",
    "Quantized",
    "best_layout",
    "dequantize_packed",
    "pack",
    "quantize",
    "quantized_matmul",
    "quantized_matmul_reference",
]

# From this many tokens on, unpacking once to bfloat16 and one dense product is faster (README.md).
DENSE_FROM = 48


class Matrix(ctypes.Structure):
    """A packed weight as native.h sees it. The tensor must outlive it."""

    _fields_ = [
        ("data", ctypes.c_void_p),
        ("rows", ctypes.c_int64),
        ("cols", ctypes.c_int64),
        ("bits", ctypes.c_int32),
    ]


def matrix(weight: PackedWeight) -> Matrix:
    """The C view of a weight in layout ``vnni``."""
    return Matrix(weight.data.data_ptr(), weight.rows, weight.cols, weight.bits)


def best_layout() -> Layout:
    """``vnni`` where the project's own C++ is loaded, else ``torch``."""
    return "torch" if native.library() is None else "vnni"


def quantized_matmul(x_MK: Tensor, weight: PackedWeight, bias_N: Tensor | None = None) -> Tensor:
    """y = x W^T + bias.

    Args:
        x_MK: float32 [M, K], contiguous.
        weight: packed [N, K].
        bias_N: float32 [N], or None.

    Returns:
        float32 [M, N]. Layout ``vnni`` rounds activations to int8 in groups of 32 when M < 48 and to bfloat16 from
        there on; ``torch`` rounds them to bfloat16.

    Raises:
        BadInput: shapes or dtypes do not fit, or the layout needs a library that is not loaded.
    """
    if x_MK.dtype != torch.float32 or x_MK.ndim != 2 or x_MK.shape[1] != weight.cols or not x_MK.is_contiguous():
        raise BadInput(
            f"expected contiguous float32 activations [M, {weight.cols}] for a weight [{weight.rows}, {weight.cols}], "
            f"got {x_MK.dtype} {tuple(x_MK.shape)}"
        )
    if bias_N is not None and (bias_N.dtype != torch.float32 or bias_N.shape != (weight.rows,)):
        raise BadInput(f"expected a float32 bias [{weight.rows}], got {bias_N.dtype} {tuple(bias_N.shape)}")
    tokens = x_MK.shape[0]
    if weight.layout == "vnni" and tokens < DENSE_FROM:
        y = x_MK.new_empty(tokens, weight.rows)
        bias = None if bias_N is None else bias_N.data_ptr()
        _library().perdure_matmul(
            ctypes.byref(matrix(weight)),
            ctypes.c_void_p(x_MK.data_ptr()),
            ctypes.c_void_p(y.data_ptr()),
            ctypes.c_void_p(bias),
            ctypes.c_int64(tokens),
        )
        return y
    if weight.layout == "torch" and tokens < DENSE_FROM:
        assert weight.scales is not None
        x = x_MK.to(torch.bfloat16)
        if weight.bits == 4:
            y = torch._weight_int4pack_mm_for_cpu(x, weight.data, GROUP, weight.scales).float()
        else:
            y = torch._weight_int8pack_mm(x, weight.data, weight.scales).float()
    elif weight.layout == "torch" and weight.bits == 4:
        # Nothing in torch unpacks this layout; its product runs at the speed of unpacking for any M.
        assert weight.scales is not None
        y = torch._weight_int4pack_mm_for_cpu(x_MK.to(torch.bfloat16), weight.data, GROUP, weight.scales).float()
    else:
        w = dequantize_packed(weight)
        y = F.linear(x_MK.to(w.dtype), w).float()
    return y if bias_N is None else y.add_(bias_N)


def dequantize_packed(weight: PackedWeight, out: Tensor | None = None) -> Tensor:
    """Dense weight [N, K], bfloat16 (float32 if that is how it is kept).

    Args:
        weight: any layout but 4-bit ``torch``, which torch cannot unpack.
        out: bfloat16 buffer of at least N * K elements to write into, to spare an allocation of tens of megabytes.
    """
    if weight.layout == "dense":
        return weight.data
    if weight.layout == "torch":
        if weight.bits == 4 or weight.scales is None:
            raise BadInput("expected int8 weights, got torch's 4-bit layout, which only its own product can read")
        return weight.data.to(torch.bfloat16).mul_(weight.scales[:, None])
    size = weight.rows * weight.cols
    dense = torch.empty(size, dtype=torch.bfloat16) if out is None else out[:size]
    dense = dense.view(weight.rows, weight.cols)
    _library().perdure_dequantize(ctypes.byref(matrix(weight)), ctypes.c_void_p(dense.data_ptr()))
    return dense


def _library() -> ctypes.CDLL:
    lib = native.library()
    if lib is None:
        raise BadInput("these weights are packed for the project's own C++, which is not loaded; load the model again")
    return lib
