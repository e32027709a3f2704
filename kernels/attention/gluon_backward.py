"""Backward attention for Hopper in Gluon: a producer and two consumer warpgroups over one tile of 128 keys.

Each consumer owns 64 keys: it holds their dK and dV in registers and rebuilds the transposed weights P' for every tile
of queries. dS goes through shared memory once, so that both consumers can multiply their half of dQ = dS K, which is
added to float32 memory. Source: FlashAttention-3 (arXiv 2407.08608), written anew.

Knows tiles and barriers; does not know autograd. Suffixes: M queries of a tile, N the 64 keys of a consumer, D head
dimension.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from .forward import SIZES
from .gluon import _copy_in, _descriptor, _keep, _reduce_add

if TYPE_CHECKING:
    from .launch import Call


@gluon.jit
def _place(tiles, kv_heads, BLOCK_N: gl.constexpr, heads_together):
    """(batch, KV head, first key); the tiles with the longest causal walk come first."""
    program = gl.program_id(0)
    span = tiles * heads_together
    first_head = program // span * heads_together
    beside = gl.minimum(heads_together, gl.num_programs(0) // tiles - first_head)
    rest = program % span
    batch_head = first_head + rest % beside
    return batch_head // kv_heads, batch_head % kv_heads, rest // beside * BLOCK_N


@gluon.jit
def _walk(n0, queries, keys, M: gl.constexpr, BLOCK_N: gl.constexpr, CAUSAL: gl.constexpr):
    """Tiles of queries that see keys n0.. : first tile, number of them, how many of the first are cut by the mask."""
    total = (queries + M - 1) // M
    first = 0
    cut = 0
    if CAUSAL:
        offset = keys - queries
        first = gl.minimum(gl.maximum(n0 - offset, 0) // M, total)
        cut = gl.minimum((gl.maximum(n0 + BLOCK_N - 1 - offset, 0) + M - 1) // M, total) - first
    count = total - first
    cut = gl.where(n0 + BLOCK_N > keys, count, cut)
    return first, count, cut


@gluon.jit
def _produce(
    q_desc, k_desc, v_desc, do_desc, shift_desc, delta_desc, q_smem, k_smem, v_smem, do_smem, shift_smem, delta_smem,
    kv_full, q_full, q_free, do_full, do_free, tiles, kv_heads, group, queries, keys,
    M: gl.constexpr, STAGES: gl.constexpr, CAUSAL: gl.constexpr, heads_together,
):  # fmt: skip
    b, kv, n0 = _place(tiles, kv_heads, 128, heads_together)
    first, count, _ = _walk(n0, queries, keys, M, 128, CAUSAL)
    mbarrier.expect(kv_full, k_desc.block_type.nbytes + v_desc.block_type.nbytes)
    _copy_in(k_desc, [b, kv, n0, 0], kv_full, k_smem)
    _copy_in(v_desc, [b, kv, n0, 0], kv_full, v_smem)
    i = 0
    for member in range(group):
        h = kv * group + member
        for t in range(first, first + count):
            stage = i % STAGES
            parity = (i // STAGES & 1) ^ 1
            mbarrier.wait(q_free.index(stage), parity)
            mbarrier.expect(q_full.index(stage), q_desc.block_type.nbytes + shift_desc.block_type.nbytes)
            _copy_in(shift_desc, [b * kv_heads * group + h, t * M], q_full.index(stage), shift_smem.index(stage))
            _copy_in(q_desc, [b, h, t * M, 0], q_full.index(stage), q_smem.index(stage))
            mbarrier.wait(do_free.index(stage), parity)
            mbarrier.expect(do_full.index(stage), do_desc.block_type.nbytes + delta_desc.block_type.nbytes)
            _copy_in(delta_desc, [b * kv_heads * group + h, t * M], do_full.index(stage), delta_smem.index(stage))
            _copy_in(do_desc, [b, h, t * M, 0], do_full.index(stage), do_smem.index(stage))
            i += 1


@gluon.jit
def _step(
    i, t, dk_ND, dv_ND, b, h, k_own, v_own, k_part, q_smem, do_smem, ds_smem, dq_smem, dq_desc,
    q_full, q_free, do_full, do_free, ds_full, ds_free, shift_smem, delta_smem, at_N, queries, keys, scale,
    ME: gl.constexpr, M: gl.constexpr, D: gl.constexpr, STAGES: gl.constexpr, CAUSAL: gl.constexpr,
    MASKED: gl.constexpr, S_L: gl.constexpr, A_L: gl.constexpr, Q_L: gl.constexpr,
):  # fmt: skip
    """Tile t of queries."""
    stage = i % STAGES
    parity = i // STAGES & 1
    q_MD = q_smem.index(stage).reshape([M, D])
    do_MD = do_smem.index(stage).reshape([M, D])
    zero = gl.zeros([64, M], gl.float32, S_L)
    mbarrier.wait(q_full.index(stage), parity)
    s = warpgroup_mma(k_own, q_MD.permute((1, 0)), zero, use_acc=False, is_async=True)
    mbarrier.wait(do_full.index(stage), parity)
    dp = warpgroup_mma(v_own, do_MD.permute((1, 0)), zero, use_acc=False, is_async=True)
    s_NM = warpgroup_mma_wait(1, deps=[s])
    shift_M = shift_smem.index(stage).reshape([M]).load(gl.SliceLayout(0, S_L))
    p_NM = gl.exp2(s_NM * scale - gl.expand_dims(shift_M, 0))
    if MASKED:
        m_M = t * M + gl.arange(0, M, layout=gl.SliceLayout(0, S_L))
        seen = gl.expand_dims(at_N < keys, 1)
        if CAUSAL:
            seen = seen & (gl.expand_dims(at_N, 1) <= gl.expand_dims(m_M, 0) + (keys - queries))
        p_NM = gl.where(seen, p_NM, 0.0)
    p = gl.convert_layout(p_NM.to(q_smem.dtype), A_L)
    dp_NM = warpgroup_mma_wait(0, deps=[dp])
    dv = warpgroup_mma(p, do_MD, dv_ND, is_async=True)
    delta_M = delta_smem.index(stage).reshape([M]).load(gl.SliceLayout(0, S_L))
    ds_NM = (p_NM * (dp_NM - gl.expand_dims(delta_M, 0))).to(q_smem.dtype)
    mbarrier.wait(ds_free, (i & 1) ^ 1)
    ds_smem.slice(64 * ME, 64, dim=0).store(ds_NM)
    fence_async_shared()
    mbarrier.arrive(ds_full, count=1)
    ds = gl.convert_layout(ds_NM, A_L)
    dk = warpgroup_mma(ds, q_MD, dk_ND, is_async=True)
    mbarrier.wait(ds_full, i & 1)
    if M == 128:  # noqa: SIM108
        ds_part = ds_smem.slice(64 * ME, 64, dim=1).permute((1, 0))
    else:
        ds_part = ds_smem.permute((1, 0))
    dq = warpgroup_mma(ds_part, k_part, gl.zeros([64, 64], gl.float32, Q_L), use_acc=False, is_async=True)
    dv_ND, dk_ND, dq_64 = warpgroup_mma_wait(0, deps=[dv, dk, dq])
    p = _keep(p)
    ds = _keep(ds)
    mbarrier.arrive(do_free.index(stage), count=1)
    mbarrier.arrive(q_free.index(stage), count=1)
    mbarrier.arrive(ds_free, count=1)
    tma.store_wait(0)
    dq_smem.store(dq_64)
    fence_async_shared()
    if M == 128:
        _reduce_add(dq_desc, [b, h, t * M + 64 * ME, 0], dq_smem.reshape([1, 1, 64, 64]))
    else:
        _reduce_add(dq_desc, [b, h, t * M, D // 2 * ME], dq_smem.reshape([1, 1, 64, 64]))
    return dk_ND, dv_ND


@gluon.jit
def _consume(
    dq_desc, dk, dv, shift_smem, delta_smem, q_smem, k_smem, v_smem, do_smem, ds_smem, dq_both, kv_full, q_full, q_free,
    do_full, do_free, ds_full, ds_free, stride_dkb, stride_dkh, stride_dkt, tiles, kv_heads, group, queries, keys,
    scale_log2, scale,
    ME: gl.constexpr, M: gl.constexpr, D: gl.constexpr, STAGES: gl.constexpr, CAUSAL: gl.constexpr,
    heads_together,
):  # fmt: skip
    S_L: gl.constexpr = gl.NVMMADistributedLayout(version=[3, 0], warps_per_cta=[4, 1], instr_shape=[16, M, 16])
    D_L: gl.constexpr = gl.NVMMADistributedLayout(version=[3, 0], warps_per_cta=[4, 1], instr_shape=[16, D, 16])
    Q_L: gl.constexpr = gl.NVMMADistributedLayout(version=[3, 0], warps_per_cta=[4, 1], instr_shape=[16, 64, 16])
    A_L: gl.constexpr = gl.DotOperandLayout(operand_index=0, parent=D_L, k_width=2)
    b, kv, n0 = _place(tiles, kv_heads, 128, heads_together)
    first, count, cut = _walk(n0, queries, keys, M, 128, CAUSAL)
    at_N = n0 + 64 * ME + gl.arange(0, 64, layout=gl.SliceLayout(1, S_L))
    k_ND = k_smem.reshape([128, D])
    k_own = k_ND.slice(64 * ME, 64, dim=0)
    v_own = v_smem.reshape([128, D]).slice(64 * ME, 64, dim=0)
    dq_smem = dq_both.index(ME)
    # The share of dQ: 64 of 128 queries, or all 64 queries and half of the head dimension.
    if M == 128:  # noqa: SIM108
        k_part = k_ND
    else:
        k_part = k_ND.slice(D // 2 * ME, D // 2, dim=1)
    dk_ND = gl.zeros([64, D], gl.float32, D_L)
    dv_ND = gl.zeros([64, D], gl.float32, D_L)
    mbarrier.wait(kv_full, 0)
    i = 0
    for member in range(group):
        h = kv * group + member
        for t in range(first, first + cut):
            dk_ND, dv_ND = _step(
                i, t, dk_ND, dv_ND, b, h, k_own, v_own, k_part, q_smem, do_smem, ds_smem, dq_smem,
                dq_desc, q_full, q_free, do_full, do_free, ds_full, ds_free, shift_smem, delta_smem, at_N, queries,
                keys, scale_log2, ME, M, D, STAGES, CAUSAL, True, S_L, A_L, Q_L,
            )  # fmt: skip
            i += 1
        for t in range(first + cut, first + count):
            dk_ND, dv_ND = _step(
                i, t, dk_ND, dv_ND, b, h, k_own, v_own, k_part, q_smem, do_smem, ds_smem, dq_smem,
                dq_desc, q_full, q_free, do_full, do_free, ds_full, ds_free, shift_smem, delta_smem, at_N, queries,
                keys, scale_log2, ME, M, D, STAGES, CAUSAL, False, S_L, A_L, Q_L,
            )  # fmt: skip
            i += 1
    at_row = n0 + 64 * ME + gl.arange(0, 64, layout=gl.SliceLayout(1, D_L))
    base = b.to(gl.int64) * stride_dkb + kv.to(gl.int64) * stride_dkh
    at = (
        base
        + gl.expand_dims(at_row.to(gl.int64) * stride_dkt, 1)
        + gl.expand_dims(gl.arange(0, D, layout=gl.SliceLayout(0, D_L)), 0)
    )
    inside = gl.expand_dims(at_row < keys, 1) & (at >= 0)
    gl.store(dk + at, (dk_ND * scale).to(q_smem.dtype), mask=inside)
    gl.store(dv + at, dv_ND.to(q_smem.dtype), mask=inside)
    tma.store_wait(0)


@gluon.jit(do_not_specialize=SIZES)
def hopper_backward(
    q_desc, k_desc, v_desc, do_desc, shift_desc, delta_desc, dq_desc, dk, dv, stride_dkb, stride_dkh, stride_dkt,
    tiles, kv_heads, group, queries, keys, scale_log2, scale,
    M: gl.constexpr, D: gl.constexpr, STAGES: gl.constexpr, CAUSAL: gl.constexpr,
    heads_together, REGISTERS: gl.constexpr,
):  # fmt: skip
    """Grid: tiles of 128 keys * KV heads * batch.

    dq_desc of float32 [B, H, padded, D] zeros; shift (log-sum-exp in base 2, infinite where a row sees nothing or lies
    past the end) and delta float32 [B, H, padded]; dk, dv [B, K, T, D] with the same strides; padded: queries rounded
    up to 128.
    """
    q_smem = gl.allocate_shared_memory(q_desc.dtype, [STAGES] + q_desc.block_type.shape, q_desc.layout)  # noqa: RUF005
    do_smem = gl.allocate_shared_memory(q_desc.dtype, [STAGES] + do_desc.block_type.shape, do_desc.layout)  # noqa: RUF005
    k_smem = gl.allocate_shared_memory(q_desc.dtype, k_desc.block_type.shape, k_desc.layout)
    v_smem = gl.allocate_shared_memory(q_desc.dtype, v_desc.block_type.shape, v_desc.layout)
    shift_smem = gl.allocate_shared_memory(gl.float32, [STAGES] + shift_desc.block_type.shape, shift_desc.layout)  # noqa: RUF005
    delta_smem = gl.allocate_shared_memory(gl.float32, [STAGES] + delta_desc.block_type.shape, delta_desc.layout)  # noqa: RUF005
    DQ_L: gl.constexpr = gl.NVMMASharedLayout(swizzle_byte_width=128, element_bitwidth=32, rank=2)
    DS_L: gl.constexpr = gl.NVMMASharedLayout.get_default_for([128, M], q_desc.dtype)
    ds_smem = gl.allocate_shared_memory(q_desc.dtype, [128, M], DS_L)
    dq_both = gl.allocate_shared_memory(gl.float32, [2, 64, 64], DQ_L)
    kv_full = gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout())
    ds_full = gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout())
    ds_free = gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout())
    q_full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    q_free = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    do_full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    do_free = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    mbarrier.init(kv_full, count=1)
    mbarrier.init(ds_full, count=2)
    mbarrier.init(ds_free, count=2)
    for s in gl.static_range(STAGES):
        mbarrier.init(q_full.index(s), count=1)
        mbarrier.init(do_full.index(s), count=1)
        mbarrier.init(q_free.index(s), count=2)
        mbarrier.init(do_free.index(s), count=2)
    fence_async_shared()
    gl.warp_specialize(
        [
            (_produce, (
                q_desc, k_desc, v_desc, do_desc, shift_desc, delta_desc, q_smem, k_smem, v_smem, do_smem, shift_smem,
                delta_smem, kv_full, q_full, q_free, do_full, do_free, tiles, kv_heads, group, queries, keys, M, STAGES,
                CAUSAL, heads_together
            )),
            (_consume, (
                dq_desc, dk, dv, shift_smem, delta_smem, q_smem, k_smem, v_smem, do_smem, ds_smem, dq_both, kv_full,
                q_full, q_free, do_full, do_free, ds_full, ds_free, stride_dkb, stride_dkh, stride_dkt, tiles, kv_heads,
                group, queries, keys, scale_log2, scale, 0, M, D, STAGES, CAUSAL, heads_together
            )),
            (_consume, (
                dq_desc, dk, dv, shift_smem, delta_smem, q_smem, k_smem, v_smem, do_smem, ds_smem, dq_both, kv_full,
                q_full, q_free, do_full, do_free, ds_full, ds_free, stride_dkb, stride_dkh, stride_dkt, tiles, kv_heads,
                group, queries, keys, scale_log2, scale, 1, M, D, STAGES, CAUSAL, heads_together
            )),
        ],
        [4, 4],
        [REGISTERS, REGISTERS],
    )  # fmt: skip


class HopperBackwardConfig(NamedTuple):
    """One way to launch `hopper_backward`: queries of a tile (64 or 128), tiles of Q and dO in the ring, heads that are
    walked side by side, registers of a consumer's thread."""

    block_m: int
    stages: int
    heads_together: int = 4
    registers: int = 240


def hopper_backward_config(dim: int, causal: bool) -> HopperBackwardConfig:
    """The configuration for a head dimension of 64, 128 or 256; measured, see README.md."""
    together = {64: (8, 1), 128: (4, 1), 256: (4, 2)}[dim][0 if causal else 1]
    return HopperBackwardConfig(128 if dim == 64 else 64, 2, together)


def gluon_backward(
    q: Tensor, k: Tensor, v: Tensor, dout: Tensor, dq32: Tensor, dk: Tensor, dv: Tensor, shift: Tensor, delta: Tensor,
    call: Call, config: HopperBackwardConfig | None = None,
) -> None:  # fmt: skip
    """Writes dk and dv and adds to dq32 [B, H, padded, D]; dense, no bias, no window, S <= T if causal."""
    batch, kv_heads, keys, dim = k.shape
    heads, queries = q.shape[1], q.shape[2]
    config = config or hopper_backward_config(dim, call.causal)
    padded = dq32.shape[2]
    tiles = -(-keys // 128)
    rows = gl.NVMMASharedLayout(swizzle_byte_width=0, element_bitwidth=32, rank=2)
    vectors = [
        TensorDescriptor(x, [batch * heads, padded], [padded, 1], [1, config.block_m], rows) for x in (shift, delta)
    ]
    with torch.cuda.device_of(q):
        hopper_backward[(tiles * kv_heads * batch,)](
            _descriptor(q, config.block_m), _descriptor(k, 128), _descriptor(v, 128), _descriptor(dout, config.block_m),
            *vectors, _dq_descriptor(dq32), dk, dv, *dk.stride()[:3], tiles, kv_heads, heads // kv_heads, queries, keys,
            call.scale * 1.4426950408889634, call.scale,
            M=config.block_m, D=dim, STAGES=config.stages, CAUSAL=call.causal, heads_together=config.heads_together,
            REGISTERS=config.registers, num_warps=4, enable_fp_fusion=True,
        )  # fmt: skip


def _dq_descriptor(dq32: Tensor) -> TensorDescriptor:
    layout = gl.NVMMASharedLayout(swizzle_byte_width=128, element_bitwidth=32, rank=4)
    return TensorDescriptor(dq32, list(dq32.shape), list(dq32.stride()), [1, 1, 64, 64], layout)
