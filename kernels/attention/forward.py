"""Forward attention in Triton: one program per tile of queries, keys streamed past it with an online softmax.

Knows tensors, strides and tiles; does not know autograd nor which device it runs on. Suffixes: M queries of a tile,
N keys of a tile, D head dimension.
"""

from __future__ import annotations

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)
NEVER = tl.constexpr(float("-inf"))

# A new length must not compile a kernel anew.
SIZES = ["heads", "kv_heads", "group", "queries", "keys", "padded", "sequences", "tiles", "window", "heads_together"]


@triton.jit
def _exp2(x, SOFTWARE: tl.constexpr):
    """2 ** x; of every eight entries of a thread SOFTWARE (0 to 2) are computed by a cubic on the FMA units.

    Cody-Waite: adding 1.5 * 2**23 rounded down leaves floor(x) in the low mantissa bits, the cubic (FlashAttention-4,
    arXiv 2603.05451) gives 2 ** fraction within 8.8e-5, and the integer part is added to the exponent.
    """
    if SOFTWARE == 0:
        return tl.exp2(x)
    elif SOFTWARE == 1:
        return tl.inline_asm_elementwise(
            """
            {
            .reg .f32 r, f, p; .reg .b32 b;
            ex2.approx.ftz.f32 $0, $8; ex2.approx.ftz.f32 $1, $9; ex2.approx.ftz.f32 $2, $10;
            max.f32 f, $11, 0fC2FE0000; add.rm.ftz.f32 r, f, 0f4B400000; add.ftz.f32 p, r, 0fCB400000;
            sub.ftz.f32 f, f, p; fma.rn.ftz.f32 p, f, 0f3D9DF09D, 0f3E6906A4; fma.rn.ftz.f32 p, p, f, 0f3F31F519;
            fma.rn.ftz.f32 p, p, f, 0f3F800000; mov.b32 b, r; shl.b32 b, b, 23;
            { .reg .b32 c; mov.b32 c, p; add.s32 c, c, b; mov.b32 $3, c; }
            ex2.approx.ftz.f32 $4, $12; ex2.approx.ftz.f32 $5, $13; ex2.approx.ftz.f32 $6, $14;
            ex2.approx.ftz.f32 $7, $15;
            }
            """,
            "=f,=f,=f,=f,=f,=f,=f,=f,f,f,f,f,f,f,f,f",
            [x],
            dtype=tl.float32,
            is_pure=True,
            pack=8,
        )
    else:
        return tl.inline_asm_elementwise(
            """
            {
            .reg .f32 r, f, p; .reg .b32 b;
            ex2.approx.ftz.f32 $0, $4; ex2.approx.ftz.f32 $1, $5; ex2.approx.ftz.f32 $2, $6;
            max.f32 f, $7, 0fC2FE0000; add.rm.ftz.f32 r, f, 0f4B400000; add.ftz.f32 p, r, 0fCB400000;
            sub.ftz.f32 f, f, p; fma.rn.ftz.f32 p, f, 0f3D9DF09D, 0f3E6906A4; fma.rn.ftz.f32 p, p, f, 0f3F31F519;
            fma.rn.ftz.f32 p, p, f, 0f3F800000; mov.b32 b, r; shl.b32 b, b, 23;
            { .reg .b32 c; mov.b32 c, p; add.s32 c, c, b; mov.b32 $3, c; }
            }
            """,
            "=f,=f,=f,=f,f,f,f,f",
            [x],
            dtype=tl.float32,
            is_pure=True,
            pack=4,
        )


@triton.jit
def locate(tile, cu_q, cu_k, sequences, BLOCK: tl.constexpr, NZ: tl.constexpr, BY_KEYS: tl.constexpr):
    """Which packed sequence a tile lies in: (found, first query, queries, first key, keys, tile within it)."""
    z = tl.arange(0, NZ)
    inside = z < sequences
    if BY_KEYS:
        lengths = tl.load(cu_k + z + 1, mask=inside, other=0) - tl.load(cu_k + z, mask=inside, other=0)
    else:
        lengths = tl.load(cu_q + z + 1, mask=inside, other=0) - tl.load(cu_q + z, mask=inside, other=0)
    tiles = tl.where(inside, (lengths + BLOCK - 1) // BLOCK, 0)
    before = tl.cumsum(tiles, 0) <= tile
    sequence = tl.sum((before & inside).to(tl.int32), 0)
    found = sequence < sequences
    sequence = tl.minimum(sequence, sequences - 1)
    within = tile - tl.sum(tl.where(z < sequence, tiles, 0), 0)
    q_start = tl.load(cu_q + sequence)
    k_start = tl.load(cu_k + sequence)
    queries = tl.load(cu_q + sequence + 1) - q_start
    keys = tl.load(cu_k + sequence + 1) - k_start
    return found, q_start.to(tl.int64), queries, k_start.to(tl.int64), keys, within


@triton.jit
def _rows(source, base, start, length, stride, b, h, BLOCK: tl.constexpr, D: tl.constexpr, TMA: tl.constexpr):
    """[BLOCK, D] rows start.. of one head; rows from ``length`` on are zero."""
    if TMA:
        rows = tl.reshape(source.load([b, h, start, 0]), [BLOCK, D])
    else:
        at = start + tl.arange(0, BLOCK)
        offsets = base + at[:, None].to(tl.int64) * stride + tl.arange(0, D)[None, :]
        rows = tl.load(source + offsets, mask=(at < length)[:, None], other=0.0)
    return rows


@triton.jit
def _sweep(
    acc_MD, m_M, l_M, q_MD, k, v, bias_row, k_base, v_base, stride_kt, stride_vt, stride_bt, b, kv_head,
    at_M, keys, scale, window, first, last,
    D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, MASKED: tl.constexpr, CAUSAL: tl.constexpr,
    WINDOW: tl.constexpr, BIAS: tl.constexpr, TMA: tl.constexpr, SOFTWARE: tl.constexpr, LAZY: tl.constexpr,
    SPECIALIZE: tl.constexpr,
):  # fmt: skip
    """Online softmax over the keys first..last (multiples of BLOCK_N); scale includes log2 e."""
    for start in tl.range(first, last, BLOCK_N, warp_specialize=SPECIALIZE):
        k_ND = _rows(k, k_base, start, keys, stride_kt, b, kv_head, BLOCK_N, D, TMA)
        s_MN = tl.dot(q_MD, tl.trans(k_ND))
        if BIAS or MASKED:
            s_MN = s_MN * scale
            n_N = start + tl.arange(0, BLOCK_N)
            if BIAS:
                bias_N = tl.load(bias_row + n_N * stride_bt, mask=n_N < keys, other=0.0).to(tl.float32)
                s_MN += (bias_N * LOG2E)[None, :]
            if MASKED:
                seen = (n_N < keys)[None, :]
                if CAUSAL:
                    seen &= n_N[None, :] <= at_M[:, None]
                if WINDOW:
                    seen &= n_N[None, :] > at_M[:, None] - window
                    if not CAUSAL:
                        seen &= n_N[None, :] < at_M[:, None] + window
                s_MN = tl.where(seen, s_MN, NEVER)
            new_M = tl.maximum(m_M, tl.max(s_MN, 1))
        else:
            new_M = tl.maximum(m_M, tl.max(s_MN, 1) * scale)
        if LAZY > 0:
            # A maximum that is stale by at most 2 ** 8 is kept, so that most rows need no rescaling.
            new_M = tl.where(new_M - m_M <= 8.0, m_M, new_M)
        if BIAS or MASKED:
            shift_M = tl.where(new_M == NEVER, 0.0, new_M)
            p_MN = _exp2(s_MN - shift_M[:, None], SOFTWARE)
        else:
            shift_M = new_M
            p_MN = _exp2(s_MN * scale - shift_M[:, None], SOFTWARE)
        alpha_M = tl.exp2(m_M - shift_M)
        l_M = l_M * alpha_M + tl.sum(p_MN, 1)
        if LAZY == 2:
            if tl.min(alpha_M, 0) < 1.0:
                acc_MD = acc_MD * alpha_M[:, None]
        else:
            acc_MD = acc_MD * alpha_M[:, None]
        v_ND = _rows(v, v_base, start, keys, stride_vt, b, kv_head, BLOCK_N, D, TMA)
        acc_MD = tl.dot(p_MN.to(v_ND.dtype), v_ND, acc_MD)
        m_M = new_M
    return acc_MD, m_M, l_M


@triton.jit(do_not_specialize=SIZES)
def attention_forward(
    q, k, v, out, lse, bias, cu_q, cu_k,
    stride_qb, stride_qh, stride_qs, stride_kb, stride_kh, stride_kt, stride_vb, stride_vh, stride_vt,
    stride_ob, stride_oh, stride_os, stride_bb, stride_bh, stride_bt,
    heads, group, queries, keys, sequences, tiles, scale, window,
    D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, CAUSAL: tl.constexpr, WINDOW: tl.constexpr,
    BIAS: tl.constexpr, VARLEN: tl.constexpr, NZ: tl.constexpr, TMA: tl.constexpr, SOFTWARE: tl.constexpr,
    LAZY: tl.constexpr, LONGEST_FIRST: tl.constexpr, heads_together, SPECIALIZE: tl.constexpr,
):  # fmt: skip
    """Grid: tiles * heads * batch. out [B, H, S, D], lse float32 [B, H, S] (natural log), scale includes log2 e.

    heads_together heads are walked together, so that their keys and values stay in the L2 cache; within them
    LONGEST_FIRST starts with the tiles that see most keys.
    """
    program = tl.program_id(0)
    span = tiles * heads_together
    first_head = program // span * heads_together
    beside = tl.minimum(heads_together, tl.num_programs(0) // tiles - first_head)
    rest = program % span
    tile = rest // beside
    batch_head = first_head + rest % beside
    b = batch_head // heads
    h = batch_head % heads
    if LONGEST_FIRST:
        tile = tiles - 1 - tile
    q_start = tl.zeros([], tl.int64)
    k_start = tl.zeros([], tl.int64)
    total = queries
    if VARLEN:
        found, q_start, queries, k_start, keys, tile = locate(tile, cu_q, cu_k, sequences, BLOCK_M, NZ, False)
        if not found:
            return
    m0 = tile * BLOCK_M
    kv_head = h // group
    q_base = b.to(tl.int64) * stride_qb + h.to(tl.int64) * stride_qh + q_start * stride_qs
    k_base = b.to(tl.int64) * stride_kb + kv_head.to(tl.int64) * stride_kh + k_start * stride_kt
    v_base = b.to(tl.int64) * stride_vb + kv_head.to(tl.int64) * stride_vh + k_start * stride_vt
    o_base = b.to(tl.int64) * stride_ob + h.to(tl.int64) * stride_oh + q_start * stride_os
    bias_row = bias
    if BIAS:
        bias_row += b.to(tl.int64) * stride_bb + kv_head.to(tl.int64) * stride_bh + k_start * stride_bt

    offset = keys - queries
    row_M = m0 + tl.arange(0, BLOCK_M)
    at_M = row_M + offset
    # Tiles first..full_first and full_last..last are cut by the mask, full_first..full_last are not.
    first = 0
    last = keys
    full_first = 0
    full_last = keys // BLOCK_N * BLOCK_N
    if CAUSAL:
        last = tl.minimum(keys, m0 + BLOCK_M + offset)
        full_last = tl.minimum(full_last, tl.maximum(m0 + offset + 1, 0) // BLOCK_N * BLOCK_N)
    if WINDOW:
        first = tl.maximum(m0 + offset - window + 1, 0) // BLOCK_N * BLOCK_N
        full_first = (tl.maximum(m0 + BLOCK_M + offset - window, 0) + BLOCK_N - 1) // BLOCK_N * BLOCK_N
        if not CAUSAL:
            last = tl.minimum(keys, m0 + BLOCK_M + offset + window - 1)
            full_last = tl.minimum(full_last, tl.maximum(m0 + offset + window, 0) // BLOCK_N * BLOCK_N)
        full_first = tl.minimum(full_first, (tl.maximum(last, first) + BLOCK_N - 1) // BLOCK_N * BLOCK_N)
    full_last = tl.maximum(full_last, full_first)

    q_MD = _rows(q, q_base, m0, queries, stride_qs, b, h, BLOCK_M, D, TMA)
    acc_MD = tl.zeros([BLOCK_M, D], tl.float32)
    m_M = tl.full([BLOCK_M], NEVER, tl.float32)
    l_M = tl.zeros([BLOCK_M], tl.float32)
    if WINDOW:
        acc_MD, m_M, l_M = _sweep(
            acc_MD, m_M, l_M, q_MD, k, v, bias_row, k_base, v_base, stride_kt, stride_vt, stride_bt, b, kv_head,
            at_M, keys, scale, window, first, tl.minimum(full_first, last),
            D, BLOCK_M, BLOCK_N, True, CAUSAL, WINDOW, BIAS, TMA, 0, 0, False,
        )  # fmt: skip
    acc_MD, m_M, l_M = _sweep(
        acc_MD, m_M, l_M, q_MD, k, v, bias_row, k_base, v_base, stride_kt, stride_vt, stride_bt, b, kv_head,
        at_M, keys, scale, window, full_first, full_last,
        D, BLOCK_M, BLOCK_N, False, CAUSAL, WINDOW, BIAS, TMA, SOFTWARE, LAZY, SPECIALIZE,
    )  # fmt: skip
    acc_MD, m_M, l_M = _sweep(
        acc_MD, m_M, l_M, q_MD, k, v, bias_row, k_base, v_base, stride_kt, stride_vt, stride_bt, b, kv_head,
        at_M, keys, scale, window, full_last, last,
        D, BLOCK_M, BLOCK_N, True, CAUSAL, WINDOW, BIAS, TMA, 0, 0, False,
    )  # fmt: skip

    alive_M = l_M > 0.0
    inverse_M = tl.where(alive_M, 1.0 / l_M, 0.0)
    lse_M = tl.where(alive_M, m_M * LN2 + tl.log(l_M), NEVER)
    lse_row = lse + (b * heads + h).to(tl.int64) * total + q_start
    tl.store(lse_row + row_M, lse_M, mask=row_M < queries)
    out_MD = acc_MD * inverse_M[:, None]
    if TMA:
        out.store([b, h, m0, 0], tl.reshape(out_MD.to(out.dtype), [1, 1, BLOCK_M, D]))
    else:
        offsets = o_base + row_M[:, None].to(tl.int64) * stride_os + tl.arange(0, D)[None, :]
        tl.store(out + offsets, out_MD.to(out.dtype.element_ty), mask=(row_M < queries)[:, None])
