"""Which kernel a product uses on a GPU, with which blocks, and the launches. Imported when a GPU product is first made.

Three ways, by the number of tokens: one token reads the weights once and adds in registers (GEMV); some tokens unpack
the weights in registers for the matrix units (GEMM); many tokens unpack them once into memory and leave the product to
cuBLAS. The tables are measurements on an H100 (README.md); other devices take the entries that fit them.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
from torch import Tensor
from torch.nn import functional as F

from ..dispatch import capability
from . import kernel
from .formats import GPU_GROUP, Int8Tokens, PackedWeight, pad_inputs

ASM = isinstance(kernel.gemv_w4, triton.runtime.JITFunction)
"""False in Triton's interpreter, which knows no PTX."""

DENSE_FROM = {4: 257, 8: 768}
"""Tokens from which weights are unpacked into memory, by bits, for 16-bit activations."""


class Gemv(NamedTuple):
    """Rows and 16-byte pieces per program, warps, and stages of the loop's asynchronous loads (1: plain loads)."""

    block_n: int
    block_t: int
    warps: int
    stages: int


class Gemm(NamedTuple):
    """Rows and tokens per program, warps, stages."""

    block_n: int
    block_m: int
    warps: int
    stages: int


def gemv_w4_config(rows: int, cols: int) -> Gemv:
    """Measured: README.md."""
    if cols <= 2048:
        return Gemv(4, 32, 1, 1)
    if rows <= 2048:
        return Gemv(8, 128, 4, 1)
    return Gemv(8, 64, 2, 1) if rows > 8192 or cols > 16384 else Gemv(4, 64, 2, 1)


def gemv_w8_config(rows: int, cols: int) -> Gemv:
    """Measured: one entry is within 3 % of the best for every shape tried."""
    del rows, cols
    return Gemv(4, 128, 4, 1)


def gemm_config(tokens: int, bits: int, capability: int) -> Gemm:
    """Measured: README.md. Smaller blocks where there are 99 kB of shared memory (sm_89, sm_120).

    Args:
        tokens: M.
        bits: 2 and 4 for weights of that many bits; 8 for int8 with int8 tokens, 16 for int8 with 16-bit tokens.
        capability: 90 for an H100.
    """
    small = capability in (89, 120)
    if bits < 8:
        if tokens <= 16:
            return Gemm(128, 16, 4, 3)
        if tokens <= 256 or bits == 4:
            return Gemm(128, 64, 4, 2 if small else 3)
        return Gemm(128, 128, 4, 2 if small else 3)
    if tokens <= 16:
        return Gemm(64, 16, 4, 4)
    if tokens <= 64:
        return Gemm(64, 64, 4, 3)
    if bits == 16:
        return Gemm(64, 128, 4, 2 if small else 3)
    if capability != 90:  # elsewhere the blocks below spill registers
        return Gemm(128, 128, 8, 2 if small else 3)
    return Gemm(128, 128, 4, 3) if tokens <= 2048 else Gemm(256, 128, 8, 3)


def split_of(programs: int, groups: int, processors: int) -> int:
    """Parts into which the inputs are cut, so that every processor has about four programs; a power of two."""
    split = 1
    while split < 16 and programs * split * 2 <= 4 * processors and groups // (split * 2) >= 4:
        split *= 2
    return split


def matmul(x_MK: Tensor, weight: PackedWeight, bias_N: Tensor | None) -> Tensor:
    """x W^T + bias with 16-bit activations, for weights in layout ``triton``."""
    tokens, dtype = x_MK.shape[0], x_MK.dtype
    y_MN = x_MK.new_empty(tokens, weight.rows)
    if tokens >= DENSE_FROM[weight.bits]:
        return F.linear(x_MK, dense(weight, dtype), bias_N)
    assert weight.scales is not None
    x = pad_inputs(x_MK, GPU_GROUP)
    if tokens == 1:
        _gemv(x, weight, bias_N, y_MN)
    else:
        _gemm(x, None, weight, bias_N, y_MN)
    return y_MN


def matmul_int8(x: Int8Tokens, weight: PackedWeight, bias_N: Tensor | None) -> Tensor:
    """x W^T + bias with int8 activations and 8-bit weights."""
    y_MN = torch.empty(x.q_MK.shape[0], weight.rows, dtype=x.dtype, device=x.q_MK.device)
    return int8_product(x, weight.data, weight.scales, bias_N, y_MN)


def int8_product(x: Int8Tokens, w_NK: Tensor, scale_N: Tensor | None, bias_N: Tensor | None, y_MN: Tensor) -> Tensor:
    """y = scale x W^T + bias for int8 W [N, K], K a multiple of 128 like that of x."""
    assert scale_N is not None
    tokens, rows, blocks = x.q_MK.shape[0], w_NK.shape[0], w_NK.shape[1] // GPU_GROUP
    if tokens == 1:
        c = gemv_w8_config(rows, w_NK.shape[1])
        kernel.gemv_i8[(-(-rows // c.block_n),)](
            x.q_MK.view(torch.int32),
            x.scale_M,
            w_NK.view(torch.int32),
            scale_N,
            bias_N if bias_N is not None else y_MN,
            y_MN,
            rows,
            blocks,
            HAS_BIAS=bias_N is not None,
            BLOCK_N=c.block_n,
            BLOCK_T=c.block_t,
            EVEN=blocks * 8 % c.block_t == 0,
            STAGES=c.stages,
            ASM=ASM,
            num_warps=c.warps,
            num_stages=c.stages,
            enable_fp_fusion=True,
        )
        return y_MN
    weight = PackedWeight("triton", 8, rows, w_NK.shape[1], w_NK, scale_N)
    _gemm(x.q_MK, x.scale_M, weight, bias_N, y_MN)
    return y_MN


def round_tokens(x_MK: Tensor, spread: int, multiple: int) -> Int8Tokens:
    """Int8 tokens with K padded to ``multiple``; ``spread`` > 1 is the order of the sparse ternary product."""
    tokens, inputs = x_MK.shape
    padded = inputs + -inputs % multiple
    q = torch.empty(tokens, padded, dtype=torch.int8, device=x_MK.device)
    scale = torch.empty(tokens, dtype=torch.float32, device=x_MK.device)
    total = torch.empty(tokens, dtype=torch.int32, device=x_MK.device)
    block = 1024 if padded <= 1024 else 4096
    kernel.round_tokens[(tokens,)](
        x_MK,
        q,
        scale,
        total,
        inputs,
        padded,
        BLOCK=block,
        SPREAD=spread,
        STAGES=1,
        num_warps=16 if padded > 8192 else block // 512,
        num_stages=1,
        enable_fp_fusion=True,
    )
    return Int8Tokens(q, scale, total, inputs, spread, x_MK.dtype)


def dense(weight: PackedWeight, dtype: torch.dtype) -> Tensor:
    """Unpacked weights [N, K]."""
    n, k = weight.rows, weight.cols
    assert weight.scales is not None
    if weight.bits == 4:
        groups = weight.scales.shape[1]
        w = torch.empty(n, groups * GPU_GROUP, dtype=dtype, device=weight.data.device)
        grid = (n, -(-groups // 16))
        kernel.unpack_w4[grid](
            weight.data,
            weight.scales.view(torch.int32),
            w,
            groups,
            BLOCK_G=16,
            num_warps=4,
            num_stages=1,
            enable_fp_fusion=True,
        )
        return w[:, :k]
    padded = weight.data.shape[1]
    w = torch.empty(n, padded, dtype=dtype, device=weight.data.device)
    kernel.unpack_w8[(n, -(-padded // 2048))](
        weight.data, weight.scales, w, padded, BLOCK=2048, num_warps=4, num_stages=1, enable_fp_fusion=True
    )
    return w[:, :k]


def _gemv(x: Tensor, weight: PackedWeight, bias_N: Tensor | None, y_MN: Tensor, config: Gemv | None = None) -> None:
    """One token of 16-bit activations; ``config`` instead of the table's, for the search that made the table."""
    assert weight.scales is not None
    rows = weight.rows
    bias = bias_N if bias_N is not None else y_MN
    if weight.bits == 4:
        groups = weight.scales.shape[1]
        c = config or gemv_w4_config(rows, weight.cols)
        kernel.gemv_w4[(-(-rows // c.block_n),)](
            x,
            weight.data,
            weight.scales.view(torch.int32),
            bias,
            y_MN,
            rows,
            groups,
            HAS_BIAS=bias_N is not None,
            BLOCK_N=c.block_n,
            BLOCK_T=c.block_t,
            EVEN=groups * 4 % c.block_t == 0,
            STAGES=c.stages,
            ASM=ASM,
            num_warps=c.warps,
            num_stages=c.stages,
            enable_fp_fusion=True,
        )
        return
    blocks = weight.data.shape[1] // GPU_GROUP
    c = config or gemv_w8_config(rows, weight.cols)
    kernel.gemv_w8[(-(-rows // c.block_n),)](
        x,
        weight.data,
        weight.scales,
        bias,
        y_MN,
        rows,
        blocks,
        HAS_BIAS=bias_N is not None,
        BLOCK_N=c.block_n,
        BLOCK_T=c.block_t,
        EVEN=blocks * 16 % c.block_t == 0,
        STAGES=c.stages,
        num_warps=c.warps,
        num_stages=c.stages,
        enable_fp_fusion=True,
    )


def _gemm(
    x: Tensor,
    x_scale_M: Tensor | None,
    weight: PackedWeight,
    bias_N: Tensor | None,
    y_MN: Tensor,
    config: Gemm | None = None,
) -> None:
    """Several tokens; x_scale_M None: 16-bit activations."""
    assert weight.scales is not None
    tokens, rows = y_MN.shape
    groups = weight.scales.shape[1] if weight.bits == 4 else weight.data.shape[1] // GPU_GROUP
    c = config or gemm_config(
        tokens, 16 if weight.bits == 8 and x_scale_M is None else weight.bits, capability_of(x.device)
    )
    programs = -(-rows // c.block_n) * -(-tokens // c.block_m)
    split = split_of(programs, groups, processors(y_MN.device))
    out = y_MN if split == 1 else torch.empty(split, tokens, rows, dtype=torch.float32, device=y_MN.device)
    grid = (programs, split)
    bias = bias_N if bias_N is not None else y_MN
    if weight.bits == 4:
        sums = torch.empty(groups, tokens, dtype=torch.float32, device=x.device)
        kernel.group_sums[(tokens, -(-groups // 16))](
            x, sums, tokens, groups, BLOCK_G=16, num_warps=4, num_stages=1, enable_fp_fusion=True
        )
        kernel.gemm_w4[grid](
            x,
            sums,
            weight.data,
            weight.scales.view(torch.int32),
            bias,
            out,
            tokens,
            rows,
            groups,
            -(-groups // split),
            HAS_BIAS=bias_N is not None,
            BLOCK_N=c.block_n,
            BLOCK_M=c.block_m,
            STAGES=c.stages,
            ASM=ASM,
            num_warps=c.warps,
            num_stages=c.stages,
            enable_fp_fusion=True,
        )
    else:
        kernel.gemm_w8[grid](
            x,
            x_scale_M if x_scale_M is not None else weight.scales,
            weight.data,
            weight.scales,
            bias,
            out,
            tokens,
            rows,
            groups,
            -(-groups // split),
            INT8=x_scale_M is not None,
            HAS_BIAS=bias_N is not None,
            BLOCK_N=c.block_n,
            BLOCK_M=c.block_m,
            STAGES=c.stages,
            num_warps=c.warps,
            num_stages=c.stages,
            enable_fp_fusion=True,
        )
    if split > 1:
        add_parts(out, y_MN)


def add_parts(part_SMN: Tensor, y_MN: Tensor) -> None:
    """y = sum of parts."""
    elements = y_MN.numel()
    kernel.add_parts[(-(-elements // 1024),)](
        part_SMN,
        y_MN,
        elements,
        SPLIT=part_SMN.shape[0],
        BLOCK=1024,
        num_warps=4,
        num_stages=1,
        enable_fp_fusion=True,
    )


def capability_of(device: torch.device) -> int:
    """90 for an H100; 80 for the CPU of Triton's interpreter."""
    major, minor = capability(device) or (8, 0)
    return 10 * major + minor


def processors(device: torch.device) -> int:
    """Multiprocessors of a CUDA device; 1 for the CPU of Triton's interpreter."""
    if device.type != "cuda":
        return 1
    return int(torch.cuda.get_device_properties(device).multi_processor_count)
