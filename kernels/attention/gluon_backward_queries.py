# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
"""dQ alone for Hopper in Gluon: each of two consumer warpgroups owns 64 queries, keys and values stream past.

Needs no atomics: with head dimension 256 two more products cost less than adding dQ in memory. Suffixes as in gluon.py.
"""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    warpgroup_mma,
    warpgroup_mma_wait,
)

from .forward import SIZES
from .gluon import _copy_in, _keep, _place


@gluon.jit
def _produce(
    q_desc, k_desc, v_desc, do_desc, q_smem, k_smem, v_smem, do_smem, q_full, k_full, k_free, v_full, v_free,
    tiles, heads, group, queries, keys,
    BLOCK_N: gl.constexpr, K_STAGES: gl.constexpr, V_STAGES: gl.constexpr, CAUSAL: gl.constexpr,
    heads_together,
):  # fmt: skip
    b, h, m0, count, _ = _place(tiles, heads, queries, keys, 128, BLOCK_N, CAUSAL, CAUSAL, heads_together)
    kv = h // group
    mbarrier.expect(q_full, 2 * q_desc.block_type.nbytes + 2 * do_desc.block_type.nbytes)
    for c in gl.static_range(2):
        _copy_in(q_desc, [b, h, m0 + 64 * c, 0], q_full, q_smem.index(c))
        _copy_in(do_desc, [b, h, m0 + 64 * c, 0], q_full, do_smem.index(c))
    for i in range(count):
        start = (count - 1 - i) * BLOCK_N
        stage = i % K_STAGES
        mbarrier.wait(k_free.index(stage), (i // K_STAGES & 1) ^ 1)
        mbarrier.expect(k_full.index(stage), k_desc.block_type.nbytes)
        _copy_in(k_desc, [b, kv, start, 0], k_full.index(stage), k_smem.index(stage))
        stage = i % V_STAGES
        mbarrier.wait(v_free.index(stage), (i // V_STAGES & 1) ^ 1)
        mbarrier.expect(v_full.index(stage), v_desc.block_type.nbytes)
        _copy_in(v_desc, [b, kv, start, 0], v_full.index(stage), v_smem.index(stage))


@gluon.jit
def _step(
    i, count, dq_MD, q, do, shift_M, delta_M, at_M, k_smem, v_smem, k_full, k_free, v_full, v_free, keys, scale,
    D: gl.constexpr, BLOCK_N: gl.constexpr, K_STAGES: gl.constexpr, V_STAGES: gl.constexpr, CAUSAL: gl.constexpr,
    MASKED: gl.constexpr, S_L: gl.constexpr, A_L: gl.constexpr,
):  # fmt: skip
    zero = gl.zeros([64, BLOCK_N], gl.float32, S_L)
    k_stage = i % K_STAGES
    v_stage = i % V_STAGES
    k_ND = k_smem.index(k_stage).reshape([BLOCK_N, D])
    mbarrier.wait(k_full.index(k_stage), i // K_STAGES & 1)
    s = warpgroup_mma(q, k_ND.permute((1, 0)), zero, use_acc=False, is_async=True)
    mbarrier.wait(v_full.index(v_stage), i // V_STAGES & 1)
    v_DN = v_smem.index(v_stage).reshape([BLOCK_N, D]).permute((1, 0))
    dp = warpgroup_mma(do, v_DN, zero, use_acc=False, is_async=True)
    s_MN = warpgroup_mma_wait(1, deps=[s])
    p_MN = gl.exp2(s_MN * scale - gl.expand_dims(shift_M, 1))
    if MASKED:
        n_N = (count - 1 - i) * BLOCK_N + gl.arange(0, BLOCK_N, layout=gl.SliceLayout(0, S_L))
        seen = gl.expand_dims(n_N < keys, 0)
        if CAUSAL:
            seen = seen & (gl.expand_dims(n_N, 0) <= gl.expand_dims(at_M, 1))
        p_MN = gl.where(seen, p_MN, 0.0)
    dp_MN = warpgroup_mma_wait(0, deps=[dp])
    mbarrier.arrive(v_free.index(v_stage), count=1)
    ds = gl.convert_layout((p_MN * (dp_MN - gl.expand_dims(delta_M, 1))).to(k_smem.dtype), A_L)
    dq = warpgroup_mma(ds, k_ND, dq_MD, is_async=True)
    dq_MD = warpgroup_mma_wait(0, deps=[dq])
    ds = _keep(ds)
    mbarrier.arrive(k_free.index(k_stage), count=1)
    return dq_MD


@gluon.jit
def _consume(
    dq, shift, delta, q_smem, k_smem, v_smem, do_smem, q_full, k_full, k_free, v_full, v_free,
    stride_dqb, stride_dqh, stride_dqs, tiles, heads, queries, keys, padded, scale_log2, scale,
    ME: gl.constexpr, D: gl.constexpr, BLOCK_N: gl.constexpr, K_STAGES: gl.constexpr, V_STAGES: gl.constexpr,
    CAUSAL: gl.constexpr, heads_together,
):  # fmt: skip
    S_L: gl.constexpr = gl.NVMMADistributedLayout(version=[3, 0], warps_per_cta=[4, 1], instr_shape=[16, BLOCK_N, 16])
    D_L: gl.constexpr = gl.NVMMADistributedLayout(version=[3, 0], warps_per_cta=[4, 1], instr_shape=[16, D, 16])
    A_L: gl.constexpr = gl.DotOperandLayout(operand_index=0, parent=D_L, k_width=2)
    b, h, m0, count, cut = _place(tiles, heads, queries, keys, 128, BLOCK_N, CAUSAL, CAUSAL, heads_together)
    row_M = m0 + 64 * ME + gl.arange(0, 64, layout=gl.SliceLayout(1, S_L))
    at_M = row_M + keys - queries
    at = (b * heads + h).to(gl.int64) * padded
    shift_M = gl.load(shift + at + row_M)
    delta_M = gl.load(delta + at + row_M)
    q = q_smem.index(ME).reshape([64, D])
    do = do_smem.index(ME).reshape([64, D])
    dq_MD = gl.zeros([64, D], gl.float32, D_L)
    mbarrier.wait(q_full, 0)
    for i in range(0, cut):
        dq_MD = _step(
            i, count, dq_MD, q, do, shift_M, delta_M, at_M, k_smem, v_smem, k_full, k_free, v_full, v_free, keys,
            scale_log2, D, BLOCK_N, K_STAGES, V_STAGES, CAUSAL, True, S_L, A_L,
        )  # fmt: skip
    for i in range(cut, count):
        dq_MD = _step(
            i, count, dq_MD, q, do, shift_M, delta_M, at_M, k_smem, v_smem, k_full, k_free, v_full, v_free, keys,
            scale_log2, D, BLOCK_N, K_STAGES, V_STAGES, CAUSAL, False, S_L, A_L,
        )  # fmt: skip
    row_D = m0 + 64 * ME + gl.arange(0, 64, layout=gl.SliceLayout(1, D_L))
    to = b.to(gl.int64) * stride_dqb + h.to(gl.int64) * stride_dqh
    to = to + gl.expand_dims(row_D.to(gl.int64) * stride_dqs, 1)
    to = to + gl.expand_dims(gl.arange(0, D, layout=gl.SliceLayout(0, D_L)), 0)
    gl.store(dq + to, (dq_MD * scale).to(k_smem.dtype), mask=gl.expand_dims(row_D < queries, 1) & (to >= 0))


@gluon.jit(do_not_specialize=SIZES)
def hopper_backward_queries(
    q_desc, k_desc, v_desc, do_desc, shift, delta, dq, stride_dqb, stride_dqh, stride_dqs,
    tiles, heads, group, queries, keys, padded, scale_log2, scale,
    D: gl.constexpr, BLOCK_N: gl.constexpr, K_STAGES: gl.constexpr, V_STAGES: gl.constexpr, CAUSAL: gl.constexpr,
    heads_together, REGISTERS: gl.constexpr,
):  # fmt: skip
    """Grid: tiles of 128 queries * heads * batch. dq [B, H, S, D]; shift, delta float32 [B, H, padded]."""
    q_smem = gl.allocate_shared_memory(q_desc.dtype, [2] + q_desc.block_type.shape, q_desc.layout)  # noqa: RUF005
    do_smem = gl.allocate_shared_memory(q_desc.dtype, [2] + do_desc.block_type.shape, do_desc.layout)  # noqa: RUF005
    k_smem = gl.allocate_shared_memory(q_desc.dtype, [K_STAGES] + k_desc.block_type.shape, k_desc.layout)  # noqa: RUF005
    v_smem = gl.allocate_shared_memory(q_desc.dtype, [V_STAGES] + v_desc.block_type.shape, v_desc.layout)  # noqa: RUF005
    q_full = gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout())
    k_full = gl.allocate_shared_memory(gl.int64, [K_STAGES, 1], mbarrier.MBarrierLayout())
    k_free = gl.allocate_shared_memory(gl.int64, [K_STAGES, 1], mbarrier.MBarrierLayout())
    v_full = gl.allocate_shared_memory(gl.int64, [V_STAGES, 1], mbarrier.MBarrierLayout())
    v_free = gl.allocate_shared_memory(gl.int64, [V_STAGES, 1], mbarrier.MBarrierLayout())
    mbarrier.init(q_full, count=1)
    for s in gl.static_range(K_STAGES):
        mbarrier.init(k_full.index(s), count=1)
        mbarrier.init(k_free.index(s), count=2)
    for s in gl.static_range(V_STAGES):
        mbarrier.init(v_full.index(s), count=1)
        mbarrier.init(v_free.index(s), count=2)
    fence_async_shared()
    gl.warp_specialize(
        [
            (_produce, (
                q_desc, k_desc, v_desc, do_desc, q_smem, k_smem, v_smem, do_smem, q_full, k_full, k_free, v_full,
                v_free, tiles, heads, group, queries, keys, BLOCK_N, K_STAGES, V_STAGES, CAUSAL, heads_together
            )),
            (_consume, (
                dq, shift, delta, q_smem, k_smem, v_smem, do_smem, q_full, k_full, k_free, v_full, v_free, stride_dqb,
                stride_dqh, stride_dqs, tiles, heads, queries, keys, padded, scale_log2, scale, 0, D, BLOCK_N, K_STAGES,
                V_STAGES, CAUSAL, heads_together
            )),
            (_consume, (
                dq, shift, delta, q_smem, k_smem, v_smem, do_smem, q_full, k_full, k_free, v_full, v_free, stride_dqb,
                stride_dqh, stride_dqs, tiles, heads, queries, keys, padded, scale_log2, scale, 1, D, BLOCK_N, K_STAGES,
                V_STAGES, CAUSAL, heads_together
            )),
        ],
        [4, 4],
        [REGISTERS, REGISTERS],
    )  # fmt: skip
