"""Ternary weights, dense or N:M sparse, times int8 activations. Derivation and measurements: README.md."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from ...errors import BadInput
from .. import native
from ..dispatch import choose
from ..quantized_matmul import GPU_GROUP, Int8Tokens, check_product, check_tokens, int8_dot, triton_is_able
from ..quantized_matmul import round_tokens_torch as _round_tokens_torch
from .formats import SPARSITY, Pattern, Ternary, TernaryLayout, TernaryWeight, pack_ternary, ternarize, unpack_ternary
from .reference import ternary_matmul_reference

__all__ = [
    "Pattern",
    "Ternary",
    "TernaryLayout",
    "TernaryWeight",
    "best_ternary_layout",
    "pack_ternary",
    "round_tokens_for",
    "ternarize",
    "ternary_matmul",
    "ternary_matmul_reference",
    "unpack_ternary",
]


def best_ternary_layout(device: torch.device) -> TernaryLayout:
    """``triton`` on a GPU that triton knows; on the CPU ``vnni`` where the project's C++ is loaded, else ``torch``."""
    if _choose(device) == "triton":
        return "triton"
    return "torch" if device.type != "cpu" or native.library() is None else "vnni"


def ternary_matmul(x_MK: Tensor | Int8Tokens, weight: TernaryWeight, bias_N: Tensor | None = None) -> Tensor:
    """y = x W^T + bias with activations rounded to int8 (one scale per token) and exact int32 sums.

    Args:
        x_MK: bfloat16, float16 or float32 [M, K], contiguous, on the weight's device; or what `round_tokens_for` made
            of it, to round once for several weights.
        weight: packed [N, K].
        bias_N: [N] of the activations' dtype, or None.

    Returns:
        [M, N] of the activations' dtype.

    Raises:
        BadInput: shapes, dtypes or devices do not fit, or the layout needs a library that is not loaded.

    Source: BitNet b1.58 (2402.17764); Sparse-BitNet (2603.05168).
    """
    device = weight.data.device
    check_product(x_MK, weight.rows, weight.cols, device, bias_N)
    tokens = (x_MK.q_MK if isinstance(x_MK, Int8Tokens) else x_MK).shape[0]
    if tokens == 0:
        return torch.empty(0, weight.rows, dtype=x_MK.dtype, device=device)
    if weight.layout == "vnni":
        return _vnni(x_MK, weight, bias_N)
    x = x_MK if isinstance(x_MK, Int8Tokens) else round_tokens_for(x_MK, weight)
    if x.spread != _order(weight, tokens)[0]:
        raise BadInput("these tokens were rounded for another weight; use round_tokens_for with this one")
    if weight.layout == "triton" and _choose(device) == "triton":
        from . import launch

        return launch.matmul(x, weight, bias_N)
    dot = int8_dot(x.q_MK[:, : weight.cols], unpack_ternary(weight))
    y = dot.float() * x.scale_M[:, None] * weight.scale_N
    return (y if bias_N is None else y + bias_N.float()).to(x.dtype)


def round_tokens_for(x_MK: Tensor, weight: TernaryWeight) -> Int8Tokens:
    """Activations rounded to int8 in the order of that weight's product.

    Args:
        x_MK: bfloat16, float16 or float32 [M, K], contiguous.
        weight: the result serves every weight of the same layout, pattern and number of inputs.

    Raises:
        BadInput: another shape or dtype.
    """
    check_tokens(x_MK)
    spread, multiple = _order(weight, x_MK.shape[0])
    if weight.layout == "triton" and _choose(x_MK.device) == "triton":
        from ..quantized_matmul import launch

        return launch.round_tokens(x_MK, spread, multiple)
    return _round_tokens_torch(x_MK, spread, multiple)


def _order(weight: TernaryWeight, tokens: int) -> tuple[int, int]:
    """(spread, multiple) in which the product wants int8 tokens."""
    if weight.layout == "triton" and _choose(weight.data.device) == "triton":
        from . import launch

        return launch.order_of(weight, tokens)
    if weight.layout == "vnni":
        return 1, 64
    return 1, GPU_GROUP if weight.pattern == "dense" else 32 * SPARSITY[weight.pattern].group


def _choose(device: torch.device) -> str:
    return choose("ternary_matmul", device, {"triton": triton_is_able, "torch": lambda _: True})


def _vnni(x: Tensor | Int8Tokens, weight: TernaryWeight, bias_N: Tensor | None) -> Tensor:
    """The product by the project's own C++."""
    lib = native.library()
    if lib is None:
        raise BadInput("these weights are packed for the project's own C++, which is not loaded; pack them again")
    padded = -(-weight.cols // 64) * 64
    bias = None if bias_N is None else bias_N.float()
    shape = (ctypes.c_void_p(weight.data.data_ptr()), ctypes.c_int64(weight.rows), ctypes.c_int64(padded))
    row_scale = ctypes.c_void_p(weight.scale_N.data_ptr())
    bias_pointer = ctypes.c_void_p(None if bias is None else bias.data_ptr())
    if isinstance(x, Int8Tokens):
        if x.spread != 1 or x.q_MK.shape[1] != padded:
            raise BadInput("these tokens were rounded for another weight; use round_tokens_for with this one")
        y = torch.empty(x.q_MK.shape[0], weight.rows)
        lib.perdure_ternary_int8(
            *shape,
            ctypes.c_void_p(x.q_MK.data_ptr()),
            ctypes.c_void_p(x.sum_M.data_ptr()),
            ctypes.c_void_p(x.scale_M.data_ptr()),
            row_scale,
            bias_pointer,
            ctypes.c_void_p(y.data_ptr()),
            ctypes.c_int64(len(y)),
        )
        return y.to(x.dtype)
    x_float = x.float()
    y = torch.empty(x.shape[0], weight.rows)
    lib.perdure_ternary(
        *shape,
        ctypes.c_void_p(x_float.data_ptr()),
        ctypes.c_int64(weight.cols),
        row_scale,
        bias_pointer,
        ctypes.c_void_p(y.data_ptr()),
        ctypes.c_int64(len(y)),
    )
    return y.to(x.dtype)
