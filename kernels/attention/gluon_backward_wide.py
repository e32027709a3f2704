"""Backward attention for Hopper and head dimension 256: dK and dV of 64 keys fill the registers of two warpgroups.

Both consumers work on the same 64 keys. Each rebuilds the weights of half of the 64 queries, shares them through shared
memory, and then owns half of the head dimension of dV and dK. dQ is left to a second kernel: added tile by tile it
would cost 64 KiB of float32 reductions a tile, and those bound it (README.md). Suffixes as in gluon_backward.py, and
H half of D.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    warpgroup_mma,
    warpgroup_mma_wait,
)
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from .forward import SIZES
from .gluon import _copy_in, _descriptor
from .gluon_backward import HopperBackwardConfig, _place, _walk, hopper_backward_config
from .gluon_backward_queries import hopper_backward_queries

if TYPE_CHECKING:
    from .launch import Call


@gluon.jit
def _produce(
    q_desc, k_desc, v_desc, do_desc, shift_desc, delta_desc, q_smem, k_smem, v_smem, do_smem, shift_smem, delta_smem,
    kv_full, q_full, q_free, do_full, do_free, tiles, kv_heads, group, queries, keys,
    STAGES: gl.constexpr, CAUSAL: gl.constexpr, heads_together,
):  # fmt: skip
    b, kv, n0 = _place(tiles, kv_heads, 64, heads_together)
    first, count, _ = _walk(n0, queries, keys, 64, 64, CAUSAL)
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
            _copy_in(shift_desc, [b * kv_heads * group + h, t * 64], q_full.index(stage), shift_smem.index(stage))
            _copy_in(q_desc, [b, h, t * 64, 0], q_full.index(stage), q_smem.index(stage))
            mbarrier.wait(do_free.index(stage), parity)
            mbarrier.expect(do_full.index(stage), do_desc.block_type.nbytes + delta_desc.block_type.nbytes)
            _copy_in(delta_desc, [b * kv_heads * group + h, t * 64], do_full.index(stage), delta_smem.index(stage))
            _copy_in(do_desc, [b, h, t * 64, 0], do_full.index(stage), do_smem.index(stage))
            i += 1


@gluon.jit
def _step(
    i, t, dk_NH, dv_NH, k_ND, v_ND, q_smem, do_smem, p_smem, ds_smem, q_full, q_free, do_full, do_free,
    p_full, ds_full, both_free, shift_smem, delta_smem, at_N, queries, keys, scale,
    ME: gl.constexpr, D: gl.constexpr, STAGES: gl.constexpr, CAUSAL: gl.constexpr, MASKED: gl.constexpr,
    S_L: gl.constexpr,
):  # fmt: skip
    H: gl.constexpr = D // 2
    stage = i % STAGES
    parity = i // STAGES & 1
    q_MD = q_smem.index(stage).reshape([64, D])
    do_MD = do_smem.index(stage).reshape([64, D])
    zero = gl.zeros([64, 32], gl.float32, S_L)
    mbarrier.wait(q_full.index(stage), parity)
    s = warpgroup_mma(k_ND, q_MD.slice(32 * ME, 32, dim=0).permute((1, 0)), zero, use_acc=False, is_async=True)
    mbarrier.wait(do_full.index(stage), parity)
    dp = warpgroup_mma(v_ND, do_MD.slice(32 * ME, 32, dim=0).permute((1, 0)), zero, use_acc=False, is_async=True)
    s_NM = warpgroup_mma_wait(1, deps=[s])
    shift_M = shift_smem.index(stage).reshape([64]).slice(32 * ME, 32, dim=0).load(gl.SliceLayout(0, S_L))
    p_NM = gl.exp2(s_NM * scale - gl.expand_dims(shift_M, 0))
    if MASKED:
        m_M = t * 64 + 32 * ME + gl.arange(0, 32, layout=gl.SliceLayout(0, S_L))
        seen = gl.expand_dims(at_N < keys, 1)
        if CAUSAL:
            seen = seen & (gl.expand_dims(at_N, 1) <= gl.expand_dims(m_M, 0) + (keys - queries))
        p_NM = gl.where(seen, p_NM, 0.0)
    mbarrier.wait(both_free, (i & 1) ^ 1)
    p_smem.slice(32 * ME, 32, dim=0).permute((1, 0)).store(p_NM.to(q_smem.dtype))
    fence_async_shared()
    mbarrier.arrive(p_full, count=1)
    dp_NM = warpgroup_mma_wait(0, deps=[dp])
    delta_M = delta_smem.index(stage).reshape([64]).slice(32 * ME, 32, dim=0).load(gl.SliceLayout(0, S_L))
    ds_NM = p_NM * (dp_NM - gl.expand_dims(delta_M, 0))
    ds_smem.slice(32 * ME, 32, dim=0).permute((1, 0)).store(ds_NM.to(q_smem.dtype))
    fence_async_shared()
    mbarrier.arrive(ds_full, count=1)
    mbarrier.wait(p_full, i & 1)
    dv = warpgroup_mma(p_smem.permute((1, 0)), do_MD.slice(H * ME, H, dim=1), dv_NH, is_async=True)
    mbarrier.wait(ds_full, i & 1)
    dk = warpgroup_mma(ds_smem.permute((1, 0)), q_MD.slice(H * ME, H, dim=1), dk_NH, is_async=True)
    dv_NH = warpgroup_mma_wait(1, deps=[dv])
    mbarrier.arrive(do_free.index(stage), count=1)
    dk_NH = warpgroup_mma_wait(0, deps=[dk])
    mbarrier.arrive(q_free.index(stage), count=1)
    mbarrier.arrive(both_free, count=1)
    return dk_NH, dv_NH


@gluon.jit
def _consume(
    dk, dv, shift_smem, delta_smem, q_smem, k_smem, v_smem, do_smem, p_smem, ds_smem, kv_full, q_full, q_free,
    do_full, do_free, p_full, ds_full, both_free, stride_dkb, stride_dkh, stride_dkt, tiles, kv_heads, group, queries,
    keys, scale_log2, scale,
    ME: gl.constexpr, D: gl.constexpr, STAGES: gl.constexpr, CAUSAL: gl.constexpr, heads_together,
):  # fmt: skip
    H: gl.constexpr = D // 2
    S_L: gl.constexpr = gl.NVMMADistributedLayout(version=[3, 0], warps_per_cta=[4, 1], instr_shape=[16, 32, 16])
    H_L: gl.constexpr = gl.NVMMADistributedLayout(version=[3, 0], warps_per_cta=[4, 1], instr_shape=[16, H, 16])
    b, kv, n0 = _place(tiles, kv_heads, 64, heads_together)
    first, count, cut = _walk(n0, queries, keys, 64, 64, CAUSAL)
    at_N = n0 + gl.arange(0, 64, layout=gl.SliceLayout(1, S_L))
    k_ND = k_smem.reshape([64, D])
    v_ND = v_smem.reshape([64, D])
    dk_NH = gl.zeros([64, H], gl.float32, H_L)
    dv_NH = gl.zeros([64, H], gl.float32, H_L)
    mbarrier.wait(kv_full, 0)
    i = 0
    for _ in range(group):
        for t in range(first, first + cut):
            dk_NH, dv_NH = _step(
                i, t, dk_NH, dv_NH, k_ND, v_ND, q_smem, do_smem, p_smem, ds_smem, q_full,
                q_free, do_full, do_free, p_full, ds_full, both_free, shift_smem, delta_smem, at_N, queries, keys,
                scale_log2, ME, D, STAGES, CAUSAL, True, S_L,
            )  # fmt: skip
            i += 1
        for t in range(first + cut, first + count):
            dk_NH, dv_NH = _step(
                i, t, dk_NH, dv_NH, k_ND, v_ND, q_smem, do_smem, p_smem, ds_smem, q_full,
                q_free, do_full, do_free, p_full, ds_full, both_free, shift_smem, delta_smem, at_N, queries, keys,
                scale_log2, ME, D, STAGES, CAUSAL, False, S_L,
            )  # fmt: skip
            i += 1
    at_row = n0 + gl.arange(0, 64, layout=gl.SliceLayout(1, H_L))
    base = b.to(gl.int64) * stride_dkb + kv.to(gl.int64) * stride_dkh + H * ME
    at = (
        base
        + gl.expand_dims(at_row.to(gl.int64) * stride_dkt, 1)
        + gl.expand_dims(gl.arange(0, H, layout=gl.SliceLayout(0, H_L)), 0)
    )
    inside = gl.expand_dims(at_row < keys, 1) & (at >= 0)
    gl.store(dk + at, (dk_NH * scale).to(q_smem.dtype), mask=inside)
    gl.store(dv + at, dv_NH.to(q_smem.dtype), mask=inside)


@gluon.jit(do_not_specialize=SIZES)
def hopper_backward_wide(
    q_desc, k_desc, v_desc, do_desc, shift_desc, delta_desc, dk, dv, stride_dkb, stride_dkh, stride_dkt,
    tiles, kv_heads, group, queries, keys, scale_log2, scale,
    D: gl.constexpr, STAGES: gl.constexpr, CAUSAL: gl.constexpr, heads_together,
    REGISTERS: gl.constexpr,
):  # fmt: skip
    """Grid: tiles of 64 keys * KV heads * batch; the arguments of `hopper_backward`."""
    q_smem = gl.allocate_shared_memory(q_desc.dtype, [STAGES] + q_desc.block_type.shape, q_desc.layout)  # noqa: RUF005
    do_smem = gl.allocate_shared_memory(q_desc.dtype, [STAGES] + do_desc.block_type.shape, do_desc.layout)  # noqa: RUF005
    k_smem = gl.allocate_shared_memory(q_desc.dtype, k_desc.block_type.shape, k_desc.layout)
    v_smem = gl.allocate_shared_memory(q_desc.dtype, v_desc.block_type.shape, v_desc.layout)
    shift_smem = gl.allocate_shared_memory(gl.float32, [STAGES] + shift_desc.block_type.shape, shift_desc.layout)  # noqa: RUF005
    delta_smem = gl.allocate_shared_memory(gl.float32, [STAGES] + delta_desc.block_type.shape, delta_desc.layout)  # noqa: RUF005
    P_L: gl.constexpr = gl.NVMMASharedLayout.get_default_for([64, 64], q_desc.dtype)
    p_smem = gl.allocate_shared_memory(q_desc.dtype, [64, 64], P_L)
    ds_smem = gl.allocate_shared_memory(q_desc.dtype, [64, 64], P_L)
    kv_full = gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout())
    p_full = gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout())
    ds_full = gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout())
    both_free = gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout())
    q_full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    q_free = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    do_full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    do_free = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    mbarrier.init(kv_full, count=1)
    mbarrier.init(p_full, count=2)
    mbarrier.init(ds_full, count=2)
    mbarrier.init(both_free, count=2)
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
                delta_smem, kv_full, q_full, q_free, do_full, do_free, tiles, kv_heads, group, queries, keys, STAGES,
                CAUSAL, heads_together
            )),
            (_consume, (
                dk, dv, shift_smem, delta_smem, q_smem, k_smem, v_smem, do_smem, p_smem, ds_smem, kv_full, q_full,
                q_free, do_full, do_free, p_full, ds_full, both_free, stride_dkb, stride_dkh, stride_dkt, tiles,
                kv_heads, group, queries, keys, scale_log2, scale, 0, D, STAGES, CAUSAL, heads_together
            )),
            (_consume, (
                dk, dv, shift_smem, delta_smem, q_smem, k_smem, v_smem, do_smem, p_smem, ds_smem, kv_full, q_full,
                q_free, do_full, do_free, p_full, ds_full, both_free, stride_dkb, stride_dkh, stride_dkt, tiles,
                kv_heads, group, queries, keys, scale_log2, scale, 1, D, STAGES, CAUSAL, heads_together
            )),
        ],
        [4, 4],
        [REGISTERS, REGISTERS],
    )  # fmt: skip


def gluon_backward_wide(
    q: Tensor, k: Tensor, v: Tensor, dout: Tensor, dq: Tensor, dk: Tensor, dv: Tensor, shift: Tensor, delta: Tensor,
    call: Call, config: HopperBackwardConfig | None = None,
) -> None:  # fmt: skip
    """Writes dq, dk and dv for head dimension 256; dense, no bias, no window, S <= T if causal."""
    batch, kv_heads, keys, dim = k.shape
    heads, queries = q.shape[1], q.shape[2]
    config = config or hopper_backward_config(dim, call.causal)
    padded = shift.shape[2]
    rows = gl.NVMMASharedLayout(swizzle_byte_width=0, element_bitwidth=32, rank=2)
    vectors = [TensorDescriptor(x, [batch * heads, padded], [padded, 1], [1, 64], rows) for x in (shift, delta)]
    tensors = [_descriptor(x, 64) for x in (q, k, v, dout)]
    log2_scale = call.scale * 1.4426950408889634
    with torch.cuda.device_of(q):
        tiles = -(-keys // 64)
        hopper_backward_wide[(tiles * kv_heads * batch,)](
            *tensors, *vectors, dk, dv, *dk.stride()[:3],
            tiles, kv_heads, heads // kv_heads, queries, keys, log2_scale, call.scale,
            D=dim, STAGES=config.stages, CAUSAL=call.causal, heads_together=config.heads_together,
            REGISTERS=config.registers, num_warps=4, enable_fp_fusion=True,
        )  # fmt: skip
        tiles = -(-queries // 128)
        hopper_backward_queries[(tiles * heads * batch,)](
            *tensors, shift, delta, dq, *dq.stride()[:3],
            tiles, heads, heads // kv_heads, queries, keys, padded, log2_scale, call.scale,
            D=dim, BLOCK_N=64, K_STAGES=2, V_STAGES=1, CAUSAL=call.causal, heads_together=config.heads_together,
            REGISTERS=config.registers, num_warps=4, enable_fp_fusion=True,
        )  # fmt: skip
