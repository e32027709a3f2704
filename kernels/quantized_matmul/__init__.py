"""Packed 4, 5 and 8-bit weights times activations, on the CPU and on GPUs. Derivation and measurements: README.md."""

from __future__ import annotations

import ctypes
import importlib.util
import threading

import torch
from torch import Tensor
from torch.nn import functional as F

from ...errors import BadInput
from .. import native
from ..dispatch import capability, choose
from .formats import (
    GPU_GROUP,
    GROUP,
    Bits,
    Int8Tokens,
    Layout,
    PackedWeight,
    Quantized,
    pack,
    pad_inputs,
    quantize,
    unpack_triton,
)
from .reference import quantized_matmul_reference

__all__ = [
    "GPU_GROUP",
    "GROUP",
    "Bits",
    "Int8Tokens",
    "Layout",
    "PackedWeight",
    "Quantized",
    "best_layout",
    "dequantize_packed",
    "pack",
    "quantize",
    "quantized_matmul",
    "quantized_matmul_reference",
    "round_tokens",
]

# From this many tokens on, layout vnni is unpacked once to bfloat16 for a dense product. Without AMX tiles int8 would
# still be faster (15 ms against 28 at 128 tokens of 4864 x 896 on one core), but rounding activations to it costs more
# than the decoder's stated error allows (0.028 of the logits against 0.025).
DENSE_FROM = 48
_MOST_SCRATCH = 32 << 20
"""Numbers; greater matrices are unpacked into fresh memory."""
_kept = threading.local()


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


def quantized_matmul(x_MK: Tensor | Int8Tokens, weight: PackedWeight, bias_N: Tensor | None = None) -> Tensor:
    """y = x W^T + bias.

    Args:
        x_MK: [M, K], contiguous, on the weight's device: float32 for the layouts ``vnni``, ``torch`` and ``dense``;
            bfloat16 or float16 for ``triton``. Or what `round_tokens` made of it: with 8-bit weights in layout
            ``triton`` the product is then W8A8, exact int32 sums.
        weight: packed [N, K].
        bias_N: [N] of the activations' dtype, or None.

    Returns:
        [M, N] of the activations' dtype. Layout ``vnni`` rounds activations to int8 in groups of 32 (from 48
        tokens on, to bfloat16); ``torch`` rounds them to bfloat16; ``triton`` takes them as they are.

    Raises:
        BadInput: shapes, dtypes or devices do not fit, or the layout needs a library that is not loaded.
    """
    if isinstance(x_MK, Int8Tokens) or weight.layout == "triton":
        return _for_gpu(x_MK, weight, bias_N)
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
        w = dequantize_packed(weight, _scratch(weight.rows * weight.cols) if weight.layout == "vnni" else None)
        y = F.linear(x_MK.to(w.dtype), w).float()
    return y if bias_N is None else y.add_(bias_N)


def round_tokens(x_MK: Tensor) -> Int8Tokens:
    """Activations rounded to int8, x ~ scale * q, scale = max |x| / 127 of each token.

    Args:
        x_MK: bfloat16, float16 or float32 [M, K], contiguous.

    Raises:
        BadInput: another shape or dtype, or not contiguous.

    Source: BitNet b1.58 (2402.17764), section 2, without the clipping that its epsilon causes.
    """
    check_tokens(x_MK)
    if choose_gpu(x_MK.device) == "triton":
        from . import launch

        return launch.round_tokens(x_MK, 1, GPU_GROUP)
    return round_tokens_torch(x_MK, 1, GPU_GROUP)


def round_tokens_torch(x_MK: Tensor, spread: int, multiple: int) -> Int8Tokens:
    """`round_tokens` in plain torch; ``spread`` as in `Int8Tokens`, K padded to ``multiple``."""
    x = x_MK.float()
    peak = x.abs().amax(dim=1) if x.shape[1] else x.new_zeros(x.shape[0])
    inverse = torch.where(peak > 0, 127.0 / peak, torch.zeros_like(peak))
    q = pad_inputs((x * inverse[:, None]).round_().to(torch.int8), multiple)
    total = q.sum(dim=1, dtype=torch.int32)
    if spread > 1:
        # [M, block, byte, bit, input of the group] -> [M, input, bit, block, byte]
        q = q.view(q.shape[0], -1, 4, 8, spread).permute(0, 4, 3, 1, 2).reshape(q.shape)
    return Int8Tokens(q.contiguous(), peak / 127.0, total, x_MK.shape[1], spread, x_MK.dtype)


def check_tokens(x_MK: Tensor) -> None:
    """Raises BadInput for activations that no product takes."""
    kinds = (torch.bfloat16, torch.float16, torch.float32)
    if x_MK.dtype not in kinds or x_MK.ndim != 2 or not x_MK.is_contiguous() or x_MK.shape[1] == 0:
        raise BadInput(
            "expected contiguous bfloat16, float16 or float32 activations [M, K], "
            f"got {x_MK.dtype} {tuple(x_MK.shape)}{'' if x_MK.is_contiguous() else ', not contiguous'}"
        )


def choose_gpu(device: torch.device) -> str:
    """``triton`` where it is installed and the device is Ampere or later, else ``torch``."""
    return choose("quantized_matmul", device, {"triton": triton_is_able, "torch": lambda _: True})


def triton_is_able(device: torch.device) -> bool:
    """True on a CUDA device of capability 8.0 or more with triton installed."""
    found = capability(device)
    return found is not None and found >= (8, 0) and importlib.util.find_spec("triton") is not None


def check_product(x: Tensor | Int8Tokens, rows: int, cols: int, device: torch.device, bias_N: Tensor | None) -> None:
    """Raises BadInput unless activations and bias fit a weight [rows, cols] on ``device``."""
    given = x.q_MK if isinstance(x, Int8Tokens) else x
    x_cols = x.cols if isinstance(x, Int8Tokens) else x.shape[-1]
    if not isinstance(x, Int8Tokens):
        check_tokens(x)
    if x_cols != cols or given.device != device:
        raise BadInput(
            f"expected activations [M, {cols}] on {device} for a weight [{rows}, {cols}], "
            f"got [{given.shape[0]}, {x_cols}] on {given.device}"
        )
    if bias_N is not None and (bias_N.dtype != x.dtype or bias_N.shape != (rows,) or bias_N.device != device):
        raise BadInput(f"expected a {x.dtype} bias [{rows}], got {bias_N.dtype} {tuple(bias_N.shape)}")


def _for_gpu(x: Tensor | Int8Tokens, weight: PackedWeight, bias_N: Tensor | None) -> Tensor:
    """The product with layout ``triton``; plain torch where the weight is not on a GPU that triton knows."""
    rows, cols, device = weight.rows, weight.cols, weight.data.device
    check_product(x, rows, cols, device, bias_N)
    if isinstance(x, Int8Tokens):
        if weight.layout != "triton" or weight.bits != 8 or x.spread != 1:
            raise BadInput(
                f"expected 8-bit weights in layout triton for int8 tokens in natural order, got {weight.bits} bits in "
                f"layout {weight.layout}, order {x.spread}"
            )
    elif x.dtype == torch.float32 and device.type == "cuda":
        raise BadInput("expected bfloat16 or float16 activations for layout triton, got float32")
    kernels = choose_gpu(device) == "triton"
    if (x.q_MK if isinstance(x, Int8Tokens) else x).shape[0] == 0:
        return torch.empty(0, rows, dtype=x.dtype, device=device)
    if isinstance(x, Int8Tokens):
        if kernels:
            from . import launch

            return launch.matmul_int8(x, weight, bias_N)
        assert weight.scales is not None
        dot = int8_dot(x.q_MK, weight.data)
        y = dot.float() * x.scale_M[:, None] * weight.scales
    else:
        if kernels:
            from . import launch

            return launch.matmul(x, weight, bias_N)
        y = x.float() @ unpack_triton(weight).T
    return (y if bias_N is None else y + bias_N.float()).to(x.dtype)


def int8_dot(q_MK: Tensor, w_NK: Tensor) -> Tensor:
    """Exact sums of products of int8, int32 [M, N]."""
    if q_MK.is_cuda:  # float64 holds 53 bits, so this is exact too; torch._int_mm refuses fewer than 17 tokens
        return (q_MK.double() @ w_NK.double().T).to(torch.int32)
    return torch._int_mm(q_MK, w_NK.T)


def dequantize_packed(weight: PackedWeight, out: Tensor | None = None) -> Tensor:
    """Dense weight [N, K], bfloat16 (float32 if that is how it is kept).

    Args:
        weight: any layout but 4-bit ``torch``, which torch cannot unpack.
        out: bfloat16 buffer of at least N * K elements to write into, to spare an allocation of tens of megabytes.
    """
    if weight.layout == "dense":
        return weight.data
    if weight.layout == "triton":
        return unpack_triton(weight).to(torch.bfloat16)
    if weight.layout == "torch":
        if weight.bits == 4 or weight.scales is None:
            raise BadInput("expected int8 weights, got torch's 4-bit layout, which only its own product can read")
        return weight.data.to(torch.bfloat16).mul_(weight.scales[:, None])
    size = weight.rows * weight.cols
    dense = torch.empty(size, dtype=torch.bfloat16) if out is None else out[:size]
    dense = dense.view(weight.rows, weight.cols)
    _library().perdure_dequantize(ctypes.byref(matrix(weight)), ctypes.c_void_p(dense.data_ptr()))
    return dense


def _scratch(size: int) -> Tensor | None:
    """A bfloat16 buffer of this thread, used again: fresh pages for every call cost more than the unpacking."""
    if size > _MOST_SCRATCH:
        return None
    held: Tensor | None = getattr(_kept, "buffer", None)
    if held is None or held.numel() < size:
        with torch.inference_mode(False):
            held = _kept.buffer = torch.empty(size, dtype=torch.bfloat16)
    return held


def _library() -> ctypes.CDLL:
    lib = native.library()
    if lib is None:
        raise BadInput("these weights are packed for the project's own C++, which is not loaded; load the model again")
    return lib
