"""Triton kernels of low-bit attention: quantisation, and the forward that runs on every device from sm_80.

Legend: B batch, H query heads, K key-value heads, S queries, T keys, D head dim; M and N rows and keys of a tile.
``T_PAD`` is T rounded up to N: quantised keys and values are padded with zeros, so that tiles are never cut.
Derivation: README.md.
"""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["forward", "quantize_keys_and_values", "quantize_rows", "statistics"]

LN2 = tl.constexpr(0.6931471805599453)
P_SHIFT = tl.constexpr(8.0)  # probabilities are scaled by 2^8 before FP8: 256 fits e4m3, and 2^-17 is not yet zero


@triton.jit(do_not_specialize=["T"])
def statistics(
    k_ptr, v_ptr, sum_ptr, top_ptr, T, CHUNK, D: tl.constexpr, ROWS: tl.constexpr, HAS_V: tl.constexpr
):  # fmt: skip
    """Sum of the keys and greatest |value| of every channel over one chunk of the sequence: [B K, chunks, D] fp32."""
    chunk, bk = tl.program_id(0), tl.program_id(1).to(tl.int64)
    dims = tl.arange(0, D)
    total = tl.zeros([ROWS, D], tl.float32)
    top = tl.zeros([ROWS, D], tl.float32)
    for start in range(chunk * CHUNK, min((chunk + 1) * CHUNK, T), ROWS):
        rows = start + tl.arange(0, ROWS)
        offset = (bk * T + rows)[:, None] * D + dims[None, :]
        total += tl.load(k_ptr + offset, mask=(rows < T)[:, None], other=0.0).to(tl.float32)
        if HAS_V:
            value = tl.load(v_ptr + offset, mask=(rows < T)[:, None], other=0.0).to(tl.float32)
            top = tl.maximum(top, tl.abs(value))
    out = (bk * tl.num_programs(0) + chunk) * D + dims
    tl.store(sum_ptr + out, tl.sum(total, 0))
    if HAS_V:
        tl.store(top_ptr + out, tl.max(top, 0))


@triton.jit
def to_int8(x, inverse):
    """x * inverse, at most 127 in size, rounded to the nearest integer.

    Adding 1.5 * 2^23 leaves the integer in the low bits: one operation, where a division, a rounding and a conversion
    would keep the units busy for longer than the memory.
    """
    return (x * inverse + 12582912.0).to(tl.int32, bitcast=True).to(tl.int8)


@triton.jit(do_not_specialize=["T", "CHUNKS"])
def quantize_keys_and_values(
    k_ptr, v_ptr, sum_ptr, top_ptr, k8_ptr, kt8_ptr, k_scale_ptr, mean_ptr, v8_ptr, v_scale_ptr, T, T_PAD, CHUNKS,
    D: tl.constexpr, N: tl.constexpr, CHUNKS_P2: tl.constexpr, HAS_V: tl.constexpr, HAS_KT: tl.constexpr,
    PERMUTE: tl.constexpr,
):  # fmt: skip
    """One tile of N keys: K - mean in INT8 with one scale, V^T in FP8 with one scale a channel.

    ``kt8`` is the transpose [B K, D, T_PAD] of ``k8`` (the backward needs it). PERMUTE stores the keys of each group of
    16 in V^T in the order in which a thread of Hopper's matrix unit holds them (README.md).
    """
    # From the last to the first: what the pass before read last is still in the second-level cache.
    tile = tl.num_programs(0) - 1 - tl.program_id(0)
    bk = (tl.num_programs(1) - 1 - tl.program_id(1)).to(tl.int64)
    dims = tl.arange(0, D)
    chunks = tl.arange(0, CHUNKS_P2)
    partial = (bk * CHUNKS + chunks)[:, None] * D + dims[None, :]
    live = (chunks < CHUNKS)[:, None]
    mean = tl.sum(tl.load(sum_ptr + partial, mask=live, other=0.0), 0) / T
    rows = tile * N + tl.arange(0, N)
    offset = (bk * T + rows)[:, None] * D + dims[None, :]
    seen = (rows < T)[:, None]
    k = tl.load(k_ptr + offset, mask=seen, other=0.0).to(tl.float32) - mean[None, :]
    k = tl.where(seen, k, 0.0)
    top = tl.maximum(tl.max(tl.abs(k)), 1e-20)
    k8 = to_int8(k, 127.0 / top)
    tl.store(k8_ptr + (bk * T_PAD + rows)[:, None] * D + dims[None, :], k8)
    tl.store(k_scale_ptr + bk * (T_PAD // N) + tile, top / 127.0)
    transposed = (bk * D + dims)[:, None] * T_PAD + rows[None, :]
    if HAS_KT:
        tl.store(kt8_ptr + transposed, tl.trans(k8))
    if tile == 0:
        tl.store(mean_ptr + bk * D + dims, mean)
    if HAS_V:
        v_top = tl.maximum(tl.max(tl.load(top_ptr + partial, mask=live, other=0.0), 0), 1e-30)
        v = tl.load(v_ptr + offset, mask=seen, other=0.0).to(tl.float32) * (448.0 / v_top)[None, :]
        v8 = v.to(v8_ptr.dtype.element_ty)
        if PERMUTE:
            v8 = tl.reshape(v8, [N // 16, 2, 4, 2, D])
            v8 = tl.reshape(tl.permute(v8, [0, 2, 1, 3, 4]), [N, D])
        tl.store(v8_ptr + transposed, tl.trans(v8))
        if tile == 0:
            tl.store(v_scale_ptr + bk * D + dims, v_top / 448.0)


@triton.jit(do_not_specialize=["S"])
def quantize_rows(
    x_ptr, x8_ptr, xt8_ptr, scale_ptr, S, S_PAD, D: tl.constexpr, M: tl.constexpr
):  # fmt: skip
    """One tile of M rows of [B H, S, D] in INT8 with one scale: [B H, S_PAD, D], and its transpose [B H, D, S_PAD]."""
    tile, bh = tl.program_id(0), tl.program_id(1).to(tl.int64)
    dims = tl.arange(0, D)
    rows = tile * M + tl.arange(0, M)
    x = tl.load(x_ptr + (bh * S + rows)[:, None] * D + dims[None, :], mask=(rows < S)[:, None], other=0.0)
    x = x.to(tl.float32)
    top = tl.maximum(tl.max(tl.abs(x)), 1e-20)
    x8 = to_int8(x, 127.0 / top)
    tl.store(x8_ptr + (bh * S_PAD + rows)[:, None] * D + dims[None, :], x8)
    tl.store(xt8_ptr + (bh * D + dims)[:, None] * S_PAD + rows[None, :], tl.trans(x8))
    tl.store(scale_ptr + bh * (S_PAD // M) + tile, top / 127.0)


@triton.jit(do_not_specialize=["H", "K", "S", "T"])
def forward(
    q_ptr, k8_ptr, v_ptr, k_scale_ptr, v_scale_ptr, shift_ptr, o_ptr, lse_ptr, scale_log2e, H, K, S, T, T_PAD,
    D: tl.constexpr, M: tl.constexpr, N: tl.constexpr, CAUSAL: tl.constexpr, FP8: tl.constexpr,
    ONE_Q_SCALE: tl.constexpr, SHIFT: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """One tile of M queries: INT8 scores, softmax in base 2, PV in FP8 or in the type of V.

    Pointers: q [B H, S, D]; k8 [B K, T_PAD, D]; v FP8 [B K, D, T_PAD] or [B K, T, D]; k_scale [B K, T_PAD / N];
    v_scale [B K, D]; shift [B H, S / M, T_PAD] (smoothing of Q: what the mean of the queries of a tile adds to a score,
    in base-2 units, with ``q`` already smoothed); o [B H, S, D]; lse [B H, S] natural, of the keys without their mean.
    """
    tile = tl.program_id(0)
    if CAUSAL:
        tile = tl.num_programs(0) - 1 - tile  # the longest rows first
    bh = tl.program_id(1).to(tl.int64)
    bk = bh // H * K + bh % H // (H // K)
    rows = tile * M + tl.arange(0, M)
    dims = tl.arange(0, D)
    offset = (bh * S + rows)[:, None] * D + dims[None, :]
    q = tl.load(q_ptr + offset, mask=(rows < S)[:, None], other=0.0).to(tl.float32)
    q_top = tl.maximum(tl.max(tl.abs(q), 1), 1e-20)
    if ONE_Q_SCALE:
        q_top = tl.max(q_top) + tl.zeros([M], tl.float32)
    q8 = to_int8(q, (127.0 / q_top)[:, None])
    q_scale = q_top / 127.0 * scale_log2e
    top = tl.full([M], -1e30, tl.float32)
    total = tl.zeros([M], tl.float32)
    acc = tl.zeros([M, D], tl.float32)
    tiles = tl.cdiv(T, N)
    whole = T // N
    if CAUSAL:
        tiles = tl.minimum(tiles, tl.cdiv(T - S + (tile + 1) * M, N))
        whole = tl.minimum(whole, (T - S + tile * M + 1) // N)
    for j in tl.range(0, tiles, num_stages=STAGES):
        cols = j * N + tl.arange(0, N)
        k8 = tl.load(k8_ptr + (bk * T_PAD + cols)[None, :] * D + dims[:, None])
        s = tl.dot(q8, k8, out_dtype=tl.int32).to(tl.float32)
        d = q_scale * tl.load(k_scale_ptr + bk * (T_PAD // N) + j)
        s *= d[:, None]
        if SHIFT:
            s += tl.load(shift_ptr + (bh * tl.num_programs(0) + tile) * T_PAD + cols)[None, :]
        if j >= whole:
            seen = (cols < T)[None, :]
            if CAUSAL:
                seen = seen & (cols[None, :] <= (T - S + rows)[:, None])
            s = tl.where(seen, s, float("-inf"))
        new_top = tl.maximum(top, tl.max(s, 1))
        alpha = tl.exp2(top - new_top)
        top = new_top
        if FP8:
            p = tl.exp2(s - (top - P_SHIFT)[:, None])
            v = tl.load(v_ptr + (bk * D + dims)[None, :] * T_PAD + cols[:, None])
        else:
            p = tl.exp2(s - top[:, None])
            v = tl.load(v_ptr + (bk * T + cols)[:, None] * D + dims[None, :], mask=(cols < T)[:, None], other=0.0)
        total = total * alpha + tl.sum(p, 1)
        acc = tl.dot(p.to(v.dtype), v, acc=acc * alpha[:, None])
    acc /= total[:, None]
    if FP8:
        acc *= tl.load(v_scale_ptr + bk * D + dims)[None, :]
        top -= P_SHIFT
    tl.store(o_ptr + offset, acc.to(o_ptr.dtype.element_ty), mask=(rows < S)[:, None])
    tl.store(lse_ptr + bh * S + rows, (top + tl.log2(total)) * LN2, mask=rows < S)
