"""Which ternary kernel a product uses on a GPU, with which blocks, and the launches.

Imported when a GPU product is first made. The tables are measurements on an H100 (README.md).
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..quantized_matmul import GPU_GROUP, Int8Tokens
from ..quantized_matmul.launch import (
    ASM,
    Gemm,
    Gemv,
    add_parts,
    capability_of,
    gemm_config,
    int8_product,
    processors,
    split_of,
)
from . import kernel
from .formats import SPARSITY, TernaryWeight

SPARSE_DENSE_FROM = 4
"""Tokens from which sparse weights are first unpacked to dense ones."""
DENSE_FROM = 512
"""Tokens from which dense ternary weights are first unpacked to int8."""


def unpack_blocks(group: int) -> int:
    """Blocks of one row that a program of one warp unpacks to the dense format. Measured: README.md."""
    return 128 // group


def gemv_config(rows: int, cols: int) -> Gemv:
    """Measured: README.md."""
    if cols <= 2048:
        return Gemv(4, 32, 1, 1)
    return Gemv(4, 128, 4, 1) if rows <= 2048 or cols > 16384 else Gemv(8, 64, 2, 1)


def sparse_config(rows: int, blocks: int) -> Gemv:
    """Measured: README.md. ``blocks`` of 32 groups in a row."""
    if blocks <= 16:
        return Gemv(16 if rows > 8192 else 8, 16, 4, 1)
    return Gemv(4 if rows <= 2048 else 8, 32, 4, 1)


def order_of(weight: TernaryWeight, tokens: int) -> tuple[int, int]:
    """(spread, multiple) in which the product wants int8 tokens."""
    if weight.pattern == "dense":
        return 1, GPU_GROUP
    group = SPARSITY[weight.pattern].group
    return (group if tokens < SPARSE_DENSE_FROM else 1), 32 * group


def matmul(x: Int8Tokens, weight: TernaryWeight, bias_N: Tensor | None) -> Tensor:
    """x W^T + bias for tokens in the order that `order_of` says."""
    tokens, rows = x.q_MK.shape[0], weight.rows
    y_MN = torch.empty(tokens, rows, dtype=x.dtype, device=x.q_MK.device)
    if weight.pattern != "dense":
        if x.spread > 1:
            _sparse(x, weight, bias_N, y_MN)
            return y_MN
        weight = dense(weight)
    if tokens >= DENSE_FROM:
        return int8_product(x, unpacked(weight), weight.scale_N, bias_N, y_MN)
    if tokens == 1:
        _gemv(x, weight, bias_N, y_MN)
    else:
        _gemm(x, weight, bias_N, y_MN)
    return y_MN


def dense(weight: TernaryWeight) -> TernaryWeight:
    """Sparse weights in the dense format, their inputs padded to whole blocks of the sparse one."""
    kept, group = SPARSITY[weight.pattern]
    blocks = weight.data.shape[2]
    words = torch.empty(weight.rows, blocks * 2 * group, dtype=torch.int32, device=weight.data.device)
    block_b = unpack_blocks(group)
    kernel.unpack_sparse[(weight.rows, -(-blocks // block_b))](
        weight.data,
        words,
        blocks,
        KEPT=kept,
        BLOCK_B=block_b,
        num_warps=1,
        num_stages=1,
        enable_fp_fusion=True,
    )
    return TernaryWeight(weight.layout, "dense", weight.rows, weight.cols, words.view(torch.uint8), weight.scale_N)


def unpacked(weight: TernaryWeight) -> Tensor:
    """int8 [N, padded K]."""
    weight = weight if weight.pattern == "dense" else dense(weight)
    blocks = weight.data.shape[1] // 32
    w = torch.empty(weight.rows, blocks * GPU_GROUP, dtype=torch.int8, device=weight.data.device)
    kernel.unpack_t2[(weight.rows, -(-blocks // 32))](
        weight.data.view(torch.int8), w, blocks, BLOCK_B=32, num_warps=4, num_stages=1, enable_fp_fusion=True
    )
    return w


def _gemv(
    x: Int8Tokens, weight: TernaryWeight, bias_N: Tensor | None, y_MN: Tensor, config: Gemv | None = None
) -> None:
    rows, blocks = weight.rows, weight.data.shape[1] // 32
    c = config or gemv_config(rows, weight.cols)
    kernel.gemv_t2[(-(-rows // c.block_n),)](
        x.q_MK.view(torch.int32),
        x.scale_M,
        x.sum_M,
        weight.data.view(torch.int32),
        weight.scale_N,
        bias_N if bias_N is not None else y_MN,
        y_MN,
        rows,
        blocks,
        HAS_BIAS=bias_N is not None,
        BLOCK_N=c.block_n,
        BLOCK_T=c.block_t,
        EVEN=blocks * 2 % c.block_t == 0,
        STAGES=c.stages,
        ASM=ASM,
        num_warps=c.warps,
        num_stages=c.stages,
        enable_fp_fusion=True,
    )


def _sparse(
    x: Int8Tokens, weight: TernaryWeight, bias_N: Tensor | None, y_MN: Tensor, config: Gemv | None = None
) -> None:
    tokens, rows = y_MN.shape
    blocks = weight.data.shape[2]
    c = config or sparse_config(rows, blocks)
    kernel.gemv_sparse[(-(-rows // c.block_n), tokens)](
        x.q_MK.view(torch.int32),
        x.scale_M,
        weight.data,
        weight.scale_N,
        bias_N if bias_N is not None else y_MN,
        y_MN,
        rows,
        blocks,
        KEPT=SPARSITY[weight.pattern].kept,
        HAS_BIAS=bias_N is not None,
        BLOCK_N=c.block_n,
        BLOCK_T=c.block_t,
        EVEN=blocks % c.block_t == 0,
        STAGES=c.stages,
        ASM=ASM,
        num_warps=c.warps,
        num_stages=c.stages,
        enable_fp_fusion=True,
    )


def _gemm(
    x: Int8Tokens, weight: TernaryWeight, bias_N: Tensor | None, y_MN: Tensor, config: Gemm | None = None
) -> None:
    tokens, rows = y_MN.shape
    blocks = weight.data.shape[1] // 32
    c = config or gemm_config(tokens, 2, capability_of(y_MN.device))
    programs = -(-rows // c.block_n) * -(-tokens // c.block_m)
    split = split_of(programs, blocks, processors(y_MN.device))
    out = y_MN if split == 1 else torch.empty(split, tokens, rows, dtype=torch.float32, device=y_MN.device)
    kernel.gemm_t2[(programs, split)](
        x.q_MK,
        x.scale_M,
        x.sum_M,
        weight.data.view(torch.int8),
        weight.scale_N,
        bias_N if bias_N is not None else y_MN,
        out,
        tokens,
        rows,
        blocks,
        -(-blocks // split),
        HAS_BIAS=bias_N is not None,
        BLOCK_N=c.block_n,
        BLOCK_M=c.block_m,
        STAGES=c.stages,
        ASM=ASM,
        num_warps=c.warps,
        num_stages=c.stages,
        enable_fp_fusion=True,
    )
    if split > 1:
        add_parts(out, y_MN)
