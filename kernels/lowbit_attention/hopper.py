"""Forward of low-bit attention for Hopper in Gluon: one warp loads, two groups of four warps compute.

Each computing group owns 64 queries. While the matrix unit multiplies probabilities and values of the last tile, the
group computes the exponentials of the next one; while one group computes, the other keeps the matrix unit busy. What
the constants switch is measured in README.md.

Legend as in ``kernel.py``.
"""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)

__all__ = ["forward"]

_load = getattr(tma, "async_load", None) or tma.async_copy_global_to_shared  # renamed after Triton 3.6
_barrier = getattr(gl, "barrier", None) or gl.thread_barrier  # likewise

LN2 = gl.constexpr(0.6931471805599453)


@gluon.jit
def _exp2(x, SHARE: gl.constexpr):
    """2^x. SHARE of every 8 values are computed with additions and multiplications instead of the exponential unit.

    x = n + f with 0 <= f < 1: adding 1.5 * 2^23 rounding down leaves n in the low bits; 2^f is a polynomial of degree 3
    (relative error 8.8e-5, hidden by the rounding of P); n is added to its exponent.
    """
    if SHARE == 0:
        return gl.exp2(x)
    elif SHARE == 1:
        return gl.inline_asm_elementwise(
            """{
            .reg .f32 t, r, f, p;
            .reg .b32 i;
            ex2.approx.ftz.f32 $0, $8;
            ex2.approx.ftz.f32 $1, $9;
            ex2.approx.ftz.f32 $2, $10;
            ex2.approx.ftz.f32 $3, $11;
            ex2.approx.ftz.f32 $4, $12;
            ex2.approx.ftz.f32 $5, $13;
            ex2.approx.ftz.f32 $6, $14;
            max.ftz.f32 t, $15, 0fC2FE0000;
            add.rm.ftz.f32 r, t, 0f4B400000;
            sub.ftz.f32 f, r, 0f4B400000;
            sub.ftz.f32 f, t, f;
            fma.rn.ftz.f32 p, f, 0f3D9DF09D, 0f3E6906A4;
            fma.rn.ftz.f32 p, p, f, 0f3F31F519;
            fma.rn.ftz.f32 p, p, f, 0f3F800000;
            mov.b32 i, r;
            shl.b32 i, i, 23;
            mov.b32 $7, p;
            add.s32 $7, $7, i;
            }""",
            "=r,=r,=r,=r,=r,=r,=r,=r,r,r,r,r,r,r,r,r",
            [x],
            dtype=gl.float32,
            is_pure=True,
            pack=8,
        )
    else:
        return gl.inline_asm_elementwise(
            """{
            .reg .f32 t, r, f, p;
            .reg .b32 i;
            ex2.approx.ftz.f32 $0, $4;
            ex2.approx.ftz.f32 $1, $5;
            ex2.approx.ftz.f32 $2, $6;
            max.ftz.f32 t, $7, 0fC2FE0000;
            add.rm.ftz.f32 r, t, 0f4B400000;
            sub.ftz.f32 f, r, 0f4B400000;
            sub.ftz.f32 f, t, f;
            fma.rn.ftz.f32 p, f, 0f3D9DF09D, 0f3E6906A4;
            fma.rn.ftz.f32 p, p, f, 0f3F31F519;
            fma.rn.ftz.f32 p, p, f, 0f3F800000;
            mov.b32 i, r;
            shl.b32 i, i, 23;
            mov.b32 $3, p;
            add.s32 $3, $3, i;
            }""",
            "=r,=r,=r,=r,r,r,r,r",
            [x],
            dtype=gl.float32,
            is_pure=True,
            pack=4,
        )


@gluon.jit
def _values(v_smem, FP8: gl.constexpr):
    """The operand [N, D] of PV: FP8 values lie transposed, because the unit reads 8-bit operands along the sum only."""
    if FP8:
        return v_smem.permute((1, 0))
    else:
        return v_smem


@gluon.jit
def _probabilities(p, dtype: gl.constexpr, layout: gl.constexpr, M: gl.constexpr, N: gl.constexpr, FP8: gl.constexpr):
    """P as left operand in registers. The keys of each 16 are renamed so that no value changes its thread."""
    p = p.to(dtype)
    if FP8:
        p = p.reshape([M, N // 16, 2, 4, 2]).permute([0, 1, 3, 2, 4]).reshape([M, N])
        return gl.convert_layout(p, layout, assert_trivial=True)
    else:
        return gl.convert_layout(p, layout)


@gluon.jit
def _finished(total):
    """``total``, of which the assembler must know the value before anything that follows.

    Without it the assembler moves the wait for PV before the exponentials that were to hide it: a wait has no operands.
    """
    return gl.inline_asm_elementwise(
        """{
        .reg .pred p;
        .reg .b32 m;
        setp.lt.f32 p, $1, 0f00000000;
        selp.b32 m, 0, -1, p;
        bar.warp.sync m;
        mov.b32 $0, $1;
        }""",
        "=r,r",
        [total],
        dtype=gl.float32,
        is_pure=False,
        pack=1,
    )


@gluon.jit
def _softmax(s, d, top, total, cols, row_last, T, MASK: gl.constexpr, SHIFT: gl.constexpr, SHARE: gl.constexpr):
    """One step of the online softmax in base 2: probabilities times 2^SHIFT, new maximum and sum, correction."""
    x = s.to(gl.float32)
    if MASK:
        x = gl.where((cols[None, :] < T) & (cols[None, :] <= row_last[:, None]), x, float("-inf"))
    new_top = gl.maximum(top, gl.max(x, 1) * d)
    alpha = gl.exp2(top - new_top)
    p = _exp2(x * d[:, None] - (new_top - SHIFT)[:, None], SHARE)
    return p, new_top, total * alpha + gl.sum(p, 1), alpha


@gluon.jit
def _producer(
    k_desc, v_desc, k_smem, v_smem, k_full, k_free, v_full, v_free, bk, T_PAD, tiles,
    D: gl.constexpr, N: gl.constexpr, FP8: gl.constexpr, STAGES: gl.constexpr,
):  # fmt: skip
    """Loads the tiles of keys and values from the last to the first."""
    for i in range(tiles):
        j = tiles - 1 - i
        stage = i % STAGES
        phase = ((i // STAGES) & 1) ^ 1
        mbarrier.wait(k_free.index(stage), phase)
        mbarrier.expect(k_full.index(stage), k_desc.block_type.nbytes)
        _load(k_desc, [bk * T_PAD + j * N, 0], k_full.index(stage), k_smem.index(stage))
        mbarrier.wait(v_free.index(stage), phase)
        mbarrier.expect(v_full.index(stage), v_desc.block_type.nbytes)
        if FP8:
            _load(v_desc, [bk * D, j * N], v_full.index(stage), v_smem.index(stage))
        else:
            _load(v_desc, [bk * T_PAD + j * N, 0], v_full.index(stage), v_smem.index(stage))


@gluon.jit
def _tiles(
    start, stop, tiles, p, k_scale, top, total, acc, q_scale, row_last, T, k_scale_ptr,
    q_smem, k_smem, v_smem, k_full, k_free, v_full, v_free, turn,
    D: gl.constexpr, M: gl.constexpr, N: gl.constexpr, MASK: gl.constexpr, FP8: gl.constexpr, SHARE: gl.constexpr,
    TWO: gl.constexpr, PING: gl.constexpr, HOLD: gl.constexpr, GROUP: gl.constexpr, STAGES: gl.constexpr,
):  # fmt: skip
    """Tiles start .. stop - 1 of ``tiles`` (counted from the last): QK of this one and PV of the one before."""
    S_LAYOUT: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, N, 32])
    O_LAYOUT: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, D, 32 if FP8 else 16])
    P_LAYOUT: gl.constexpr = gl.DotOperandLayout(0, O_LAYOUT, 4 if FP8 else 2)
    O_ROWS: gl.constexpr = gl.SliceLayout(1, O_LAYOUT)
    P_SHIFT: gl.constexpr = 8.0 if FP8 else 0.0
    zero_s = gl.full([M, N], 0, gl.int32, S_LAYOUT)
    zero_o = gl.full([M, D], 0.0, gl.float32, O_LAYOUT)
    for i in range(start, stop):
        j = tiles - 1 - i
        stage = i % STAGES
        before = (i - 1) % STAGES
        d = q_scale * k_scale
        k_scale = gl.load(k_scale_ptr + gl.maximum(j - 1, 0))
        mbarrier.wait(k_full.index(stage), (i // STAGES) & 1)
        if PING:
            mbarrier.wait(turn.index(GROUP), ((i - 1) & 1) ^ (1 - GROUP))
        s = warpgroup_mma(q_smem, k_smem.index(stage).permute((1, 0)), zero_s, use_acc=False, is_async=True)
        p_op = _probabilities(p, v_smem.dtype, P_LAYOUT, M, N, FP8)
        mbarrier.wait(v_full.index(before), ((i - 1) // STAGES) & 1)
        if TWO:
            pv = warpgroup_mma(p_op, _values(v_smem.index(before), FP8), zero_o, use_acc=False, is_async=True)
        else:
            pv = warpgroup_mma(p_op, _values(v_smem.index(before), FP8), acc, is_async=True)
        if PING:
            mbarrier.arrive(turn.index(1 - GROUP), count=1)
        s = warpgroup_mma_wait(1, (s,))
        _barrier()
        mbarrier.arrive(k_free.index(stage), count=1)
        cols = j * N + gl.arange(0, N, gl.SliceLayout(0, S_LAYOUT))
        p, top, total, alpha = _softmax(s, d, top, total, cols, row_last, T, MASK, P_SHIFT, SHARE)
        if HOLD:
            total = _finished(total)
        pv = warpgroup_mma_wait(0, (pv,))
        _barrier()
        mbarrier.arrive(v_free.index(before), count=1)
        acc = acc + pv if TWO else pv
        acc = acc * gl.convert_layout(alpha, O_ROWS)[:, None]
    return p, k_scale, top, total, acc


@gluon.jit
def _consumer(
    q_ptr, k_scale_ptr, v_scale_ptr, o_ptr, lse_ptr, q_smem, k_smem, v_smem, k_full, k_free, v_full, v_free, turn,
    row0, bh, bk, S, T, T_PAD, tiles, whole, scale_log2e,
    D: gl.constexpr, M: gl.constexpr, N: gl.constexpr, CAUSAL: gl.constexpr, FP8: gl.constexpr, SHARE: gl.constexpr,
    TWO: gl.constexpr, PING: gl.constexpr, HOLD: gl.constexpr, GROUP: gl.constexpr, STAGES: gl.constexpr,
):  # fmt: skip
    """M queries against all their keys."""
    S_LAYOUT: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, N, 32])
    O_LAYOUT: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, D, 32 if FP8 else 16])
    P_LAYOUT: gl.constexpr = gl.DotOperandLayout(0, O_LAYOUT, 4 if FP8 else 2)
    S_ROWS: gl.constexpr = gl.SliceLayout(1, S_LAYOUT)
    O_ROWS: gl.constexpr = gl.SliceLayout(1, O_LAYOUT)
    Q_LAYOUT: gl.constexpr = gl.BlockedLayout([1, 16], [512 // D, D // 16], [4, 1], [1, 0])
    P_SHIFT: gl.constexpr = 8.0 if FP8 else 0.0
    q_rows = row0 + gl.arange(0, M, gl.SliceLayout(1, Q_LAYOUT))
    q_dims = gl.arange(0, D, gl.SliceLayout(0, Q_LAYOUT))
    q_offset = (bh * S + q_rows).to(gl.int64)[:, None] * D + q_dims[None, :]
    q = gl.load(q_ptr + q_offset, mask=(q_rows < S)[:, None], other=0.0).to(gl.float32)
    q_top = gl.maximum(gl.max(gl.abs(q), 1), 1e-20)
    q_smem.store((q * (127.0 / q_top)[:, None] + 12582912.0).to(gl.int32, bitcast=True).to(gl.int8))  # see to_int8
    q_scale = gl.convert_layout(q_top, S_ROWS) * (scale_log2e / 127.0)
    fence_async_shared()
    _barrier()
    top = gl.full([M], -1e30, gl.float32, S_ROWS)
    total = gl.full([M], 0.0, gl.float32, S_ROWS)
    acc = gl.full([M, D], 0.0, gl.float32, O_LAYOUT)
    zero_s = gl.full([M, N], 0, gl.int32, S_LAYOUT)
    rows = row0 + gl.arange(0, M, S_ROWS)
    row_last = rows + (T - S) if CAUSAL else gl.full([M], 2147483647, gl.int32, S_ROWS)
    k_scale_ptr += bk * (T_PAD // N)
    k_scale = gl.load(k_scale_ptr + tiles - 1)
    mbarrier.wait(k_full.index(0), 0)
    s = warpgroup_mma(q_smem, k_smem.index(0).permute((1, 0)), zero_s, use_acc=False, is_async=True)
    s = warpgroup_mma_wait(0, (s,))
    _barrier()
    mbarrier.arrive(k_free.index(0), count=1)
    cols = (tiles - 1) * N + gl.arange(0, N, gl.SliceLayout(0, S_LAYOUT))
    p, top, total, _ = _softmax(s, q_scale * k_scale, top, total, cols, row_last, T, True, P_SHIFT, SHARE)
    k_scale = gl.load(k_scale_ptr + gl.maximum(tiles - 2, 0))
    masked = gl.maximum(tiles - whole, 1)
    p, k_scale, top, total, acc = _tiles(
        1, masked, tiles, p, k_scale, top, total, acc, q_scale, row_last, T, k_scale_ptr, q_smem, k_smem, v_smem,
        k_full, k_free, v_full, v_free, turn, D, M, N, True, FP8, SHARE, TWO, PING, HOLD, GROUP, STAGES,
    )  # fmt: skip
    p, k_scale, top, total, acc = _tiles(
        masked, tiles, tiles, p, k_scale, top, total, acc, q_scale, row_last, T, k_scale_ptr, q_smem, k_smem, v_smem,
        k_full, k_free, v_full, v_free, turn, D, M, N, False, FP8, SHARE, TWO, PING, HOLD, GROUP, STAGES,
    )  # fmt: skip
    p_op = _probabilities(p, v_smem.dtype, P_LAYOUT, M, N, FP8)
    last = (tiles - 1) % STAGES
    mbarrier.wait(v_full.index(last), ((tiles - 1) // STAGES) & 1)
    pv = warpgroup_mma(p_op, _values(v_smem.index(last), FP8), acc, is_async=True)
    acc = warpgroup_mma_wait(0, (pv,)) * gl.convert_layout(1.0 / total, O_ROWS)[:, None]
    o_rows = row0 + gl.arange(0, M, O_ROWS)
    o_dims = gl.arange(0, D, gl.SliceLayout(0, O_LAYOUT))
    if FP8:
        acc = acc * gl.load(v_scale_ptr + bk * D + o_dims)[None, :]
    o_offset = (bh * S + o_rows).to(gl.int64)[:, None] * D + o_dims[None, :]
    gl.store(o_ptr + o_offset, acc.to(o_ptr.dtype.element_ty), mask=(o_rows < S)[:, None])
    gl.store(lse_ptr + bh * S + rows, (top - P_SHIFT + gl.log2(total)) * LN2, mask=rows < S)


@gluon.jit(do_not_specialize=["H", "K", "S", "T"])
def forward(
    q_ptr, k_desc, v_desc, k_scale_ptr, v_scale_ptr, o_ptr, lse_ptr, scale_log2e, H, K, S, T, T_PAD,
    D: gl.constexpr, M: gl.constexpr, N: gl.constexpr, CAUSAL: gl.constexpr, FP8: gl.constexpr, SHARE: gl.constexpr,
    TWO: gl.constexpr, PING: gl.constexpr, HOLD: gl.constexpr, STAGES: gl.constexpr, REGISTERS: gl.constexpr,
):  # fmt: skip
    """M queries of one head; launched over (tiles of queries, B H) with 4 warps, to which the compiler adds 4 + 4.

    Pointers: q [B H, S, D]; o like q; lse [B H, S]; k_scale [B K, T_PAD / N]; v_scale [B K, D].
    Descriptors: keys [B K T_PAD, D] INT8 in blocks [N, D]; values FP8 [B K D, T_PAD] in blocks [D, N], or in the
    type of q [B K T_PAD, D] in blocks [N, D].
    """
    HALF: gl.constexpr = M // 2
    q_smem = gl.allocate_shared_memory(gl.int8, [2, HALF, D], gl.NVMMASharedLayout.get_default_for([HALF, D], gl.int8))
    k_smem = gl.allocate_shared_memory(k_desc.dtype, [STAGES, N, D], k_desc.layout)
    if FP8:
        v_smem = gl.allocate_shared_memory(v_desc.dtype, [STAGES, D, N], v_desc.layout)
    else:
        v_smem = gl.allocate_shared_memory(v_desc.dtype, [STAGES, N, D], v_desc.layout)
    k_full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    k_free = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    v_full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    v_free = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    turn = gl.allocate_shared_memory(gl.int64, [2, 1], mbarrier.MBarrierLayout())
    for stage in gl.static_range(STAGES):
        mbarrier.init(k_full.index(stage), count=1)
        mbarrier.init(v_full.index(stage), count=1)
        mbarrier.init(k_free.index(stage), count=2)
        mbarrier.init(v_free.index(stage), count=2)
    mbarrier.init(turn.index(0), count=1)
    mbarrier.init(turn.index(1), count=1)
    tile = gl.program_id(0)
    if CAUSAL:
        tile = gl.num_programs(0) - 1 - tile  # the longest rows first
    bh = gl.program_id(1)
    bk = bh // H * K + bh % H // (H // K)
    row0 = tile * M
    tiles = gl.cdiv(T, N)
    whole = T // N
    if CAUSAL:
        tiles = gl.minimum(tiles, gl.cdiv(T - S + row0 + M, N))
        whole = gl.minimum(whole, (T - S + row0 + 1) // N)
    gl.warp_specialize(
        [
            (
                _consumer,
                (
                    q_ptr, k_scale_ptr, v_scale_ptr, o_ptr, lse_ptr, q_smem.index(0), k_smem, v_smem, k_full, k_free,
                    v_full, v_free, turn, row0, bh, bk, S, T, T_PAD, tiles, whole, scale_log2e,
                    D, HALF, N, CAUSAL, FP8, SHARE, TWO, PING, HOLD, 0, STAGES,
                ),
            ),
            (
                _consumer,
                (
                    q_ptr, k_scale_ptr, v_scale_ptr, o_ptr, lse_ptr, q_smem.index(1), k_smem, v_smem, k_full, k_free,
                    v_full, v_free, turn, row0 + HALF, bh, bk, S, T, T_PAD, tiles, whole, scale_log2e,
                    D, HALF, N, CAUSAL, FP8, SHARE, TWO, PING, HOLD, 1, STAGES,
                ),
            ),
            (
                _producer,
                (k_desc, v_desc, k_smem, v_smem, k_full, k_free, v_full, v_free, bk, T_PAD, tiles, D, N, FP8, STAGES),
            ),
        ],
        [4, 1],
        [REGISTERS, 24],
    )  # fmt: skip
