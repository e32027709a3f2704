"""Triton kernel: few or many queries over a ragged, biased, quantised cache and a causal tail of new tokens.

One kernel serves `decode_attention` (no tail) and `append_attention`. The work is cut as README.md says: a unit is one
tile of rows (heads of a group times queries) of one segment; programs take equal shares of all key tiles, and a second
kernel merges the partial results of a unit. Needs triton; imported when the first call on a GPU comes.

    M rows of a tile, N keys of a tile, D channels; FORMAT 0 plain, 1 fp8, 2 int8, 3 int4
"""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["LENGTHS", "merge_kernel", "ragged_kernel", "unpack_kernel"]

_LOG2E = tl.constexpr(1.4426950408889634)
_LN2 = tl.constexpr(0.6931471805599453)

# Codes become bfloat16 by standing in its lowest bits: an unsigned byte u there reads u * 2^-133, below 128 as a
# subnormal number and above it as a number of exponent 1, whose step is the same. The matrix unit takes subnormal
# numbers as they are, so a code costs half an instruction; the conversion unit does 16 a clock and multiprocessor.
_UP = tl.constexpr(2.0**100)
_DOWN = tl.constexpr(2.0**33)
_LESS_128 = tl.constexpr(-(2.0**-126))  # -128 in the codes' unit

# Four int8 codes of one register, each plus 128.
_INT8 = tl.constexpr("""{
.reg .b32 a;
xor.b32 a, $2, 0x80808080;
prmt.b32 $0, a, 0, 0x4140;
prmt.b32 $1, a, 0, 0x4342;
}""")
# Eight int4 codes of one register: four low nibbles, four high ones.
_INT4 = tl.constexpr("""{
.reg .b32 a, b;
and.b32 a, $4, 0x0f0f0f0f;
prmt.b32 $0, a, 0, 0x4140;
prmt.b32 $1, a, 0, 0x4342;
shr.u32 b, $4, 4;
and.b32 b, b, 0x0f0f0f0f;
prmt.b32 $2, b, 0, 0x4140;
prmt.b32 $3, b, 0, 0x4342;
}""")
_FP8 = tl.constexpr("""{
.reg .b16 a, b;
mov.b32 {a, b}, $2;
cvt.rn.f16x2.e4m3x2 $0, a;
cvt.rn.f16x2.e4m3x2 $1, b;
}""")
_PRODUCT = tl.constexpr("{ .reg .b32 z; mov.b32 z, 0x80008000; fma.rn.bf16x2 $0, $1, $2, z; }")


# Two words (scale, low) of bfloat16 to two scales and two lows.
_APART = tl.constexpr("{ prmt.b32 $0, $2, $3, 0x5410; prmt.b32 $1, $2, $3, 0x7632; }")


@triton.jit
def _apart(w, ASM: tl.constexpr):
    """int32 words to (scale, low), in bfloat16."""
    if ASM:
        return tl.inline_asm_elementwise(
            _APART, "=r,=r,r,r", [w], dtype=(tl.bfloat16, tl.bfloat16), is_pure=True, pack=2
        )
    else:
        return _low_half(w), _high_half(w)


@triton.jit
def _low_half(w):
    return (w << 16).to(tl.float32, bitcast=True)


@triton.jit
def _high_half(w):
    return (w & -65536).to(tl.float32, bitcast=True)


@triton.jit
def _product(a, b, ASM: tl.constexpr):
    """a * b in bfloat16, two at a time (adding -0 keeps every product)."""
    if ASM:
        return tl.inline_asm_elementwise(_PRODUCT, "=r,r,r", [a, b], dtype=tl.bfloat16, is_pure=True, pack=2)
    else:
        return a.to(tl.float32) * b.to(tl.float32)


@triton.jit
def _from_fp8(x, ASM: tl.constexpr, PURE: tl.constexpr):
    if ASM:
        return tl.inline_asm_elementwise(_FP8, "=r,=r,r", [x], dtype=tl.float16, is_pure=PURE, pack=4)
    else:
        return x.to(tl.float8e4nv, bitcast=True).to(tl.float16)


@triton.jit
def _from_int8(x, ASM: tl.constexpr, PURE: tl.constexpr):
    """(code + 128) * 2^-133; without assembler code + 128."""
    if ASM:
        return tl.inline_asm_elementwise(_INT8, "=r,=r,r", [x], dtype=tl.bfloat16, is_pure=PURE, pack=4)
    else:
        return x.to(tl.float32) + 128.0


@triton.jit
def _from_int4(x, ASM: tl.constexpr, PURE: tl.constexpr):
    """(low nibbles, high nibbles) * 2^-133; without assembler the codes."""
    if ASM:
        return tl.inline_asm_elementwise(
            _INT4, "=r,=r,=r,=r,r", [x], dtype=(tl.bfloat16, tl.bfloat16), is_pure=PURE, pack=4
        )
    else:
        return (x & 15).to(tl.float32), (x >> 4).to(tl.float32)


@triton.jit
def _extent(
    cu_ptr, len_ptr, qpos_ptr, segment, live, queries, kv_heads, window,
    HAS_LEN: tl.constexpr, POS: tl.constexpr, WINDOW: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """(packed start, first key, one past the last key) of segments; the first is a multiple of BLOCK_N."""
    start = tl.load(cu_ptr + segment, mask=live, other=0)
    if HAS_LEN:
        high = tl.load(len_ptr + segment, mask=live, other=0)
    else:
        high = tl.load(cu_ptr + segment + 1, mask=live, other=0) - start
    low = high * 0
    if POS == 1:  # position = index: what no query can see is skipped
        first = tl.load(qpos_ptr + segment // kv_heads * queries, mask=live, other=0)
        last = tl.load(qpos_ptr + segment // kv_heads * queries + queries - 1, mask=live, other=-1)
        high = tl.minimum(high.to(tl.int64), tl.maximum(last + 1, 0)).to(tl.int32)
        if WINDOW:
            low = tl.minimum(tl.maximum(first - window + 1, 0), high.to(tl.int64)).to(tl.int32) // BLOCK_N * BLOCK_N
    return start, low, high


@triton.jit
def _sharing(programs, total):
    """How many programs have a share: one without would leave a hole between the partial results of a unit."""
    return tl.maximum(tl.minimum(programs.to(tl.int64), total), 1)


@triton.jit
def _scores(q, k_DN, acc, SWAP: tl.constexpr):
    """acc (or None) + q k, held as [M, N] or, swapped (q is [D, M] then), as [N, M]."""
    if SWAP:
        return tl.dot(tl.trans(k_DN), q, acc)
    else:
        return tl.dot(q, k_DN, acc)


@triton.jit
def _scaled(q, step_D, ASM: tl.constexpr, SWAP: tl.constexpr):
    """The queries times a step per channel, in bfloat16."""
    if SWAP:
        return _product(q, tl.broadcast_to(step_D[:, None], q.shape), ASM)
    else:
        return _product(q, tl.broadcast_to(step_D[None, :], q.shape), ASM)


@triton.jit
def _add_values(p_MN, v_ND, acc, factor_M, SWAP: tl.constexpr):
    """acc * factor + p v, held as [M, D] or, swapped, as [D, M]."""
    if SWAP:
        return tl.dot(tl.trans(v_ND), tl.trans(p_MN), acc * factor_M[None, :])
    else:
        return tl.dot(p_MN, v_ND, acc * factor_M[:, None])


@triton.jit
def _upright(x, SWAP: tl.constexpr):
    if SWAP:
        return tl.trans(x)
    else:
        return x


@triton.jit
def _update(s_MN, m_M, l_ML, LAZY: tl.constexpr):
    """One step of the running softmax in base 2: (weights, factor of the old sums, new maximum, new sum)."""
    new_M = tl.maximum(m_M, tl.max(s_MN, 1))
    safe_M = tl.where(new_M == float("-inf"), 0.0, new_M)
    p_MN = tl.exp2(s_MN - safe_M[:, None])
    factor_M = tl.exp2(m_M - safe_M)
    # Lazy: sums stay apart by key until the end, without an exchange between warps in the loop.
    added_ML = p_MN if LAZY else tl.sum(p_MN, 1)[:, None]
    return p_MN, factor_M, new_M, l_ML * factor_M[:, None] + added_ML


# These integers decide nothing in the code: a new length must not compile again.
LENGTHS = ["segments", "kv_heads", "queries", "tail", "row_tiles", "programs", "window", "pages"]


@triton.jit(do_not_specialize=LENGTHS)
def ragged_kernel(
    q_ptr, k_ptr, v_ptr, kscale_ptr, vscale_ptr, bias_ptr, pos_ptr,
    cu_ptr, len_ptr, group_ptr, table_ptr, qpos_ptr, tk_ptr, tv_ptr, out_ptr, lse_ptr, part_ptr, stat_ptr,
    scale, segments, kv_heads, queries, tail, row_tiles, programs, window, pages,
    q_b, q_h, q_s, tk_b, tk_h, tk_t, tv_b, tv_h, tv_t,
    HEADS: tl.constexpr, D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, FORMAT: tl.constexpr,
    GROUP: tl.constexpr, PAGE: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_LEN: tl.constexpr, POS: tl.constexpr,
    WINDOW: tl.constexpr, TAIL: tl.constexpr, SPLIT: tl.constexpr, SEGMENTS: tl.constexpr, STAGES: tl.constexpr,
    LAZY: tl.constexpr, ASM: tl.constexpr, PURE_K: tl.constexpr, PURE_V: tl.constexpr, SWAP: tl.constexpr,
    PEEL: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """One program: its share of the key tiles of all units (SPLIT), or one whole unit.

    HEADS query heads per KV head; POS 0 everything is visible, 1 positions are indices, 2 positions in pos_ptr;
    PAGE 0 packed, else tokens of a page; TAIL whether new tokens follow the cache; SEGMENTS segments rounded up.
    """
    program = tl.program_id(0)
    # Each kernel comes to the multiprocessors while the one before it ends, and waits there. The merge reads lengths
    # before it waits, so it may come only when this kernel has seen the end of whatever wrote them.
    if EARLY:
        tl.extra.cuda.gdc_wait()
        tl.extra.cuda.gdc_launch_dependents()
    tail_tiles = tl.cdiv(tail, BLOCK_N)
    if SPLIT:
        all_S = tl.arange(0, SEGMENTS)
        start_S, low_S, high_S = _extent(
            cu_ptr, len_ptr, qpos_ptr, all_S, all_S < segments, queries, kv_heads, window, HAS_LEN, POS, WINDOW, BLOCK_N
        )
        group_S = all_S * 0
        if FORMAT >= 2 and PAGE == 0:
            group_S = tl.load(group_ptr + all_S, mask=all_S < segments, other=0)
        work_S = (tl.cdiv(high_S - low_S, BLOCK_N) + tail_tiles) * row_tiles
        work_S = tl.where(all_S < segments, work_S, 0)
        ends_S = tl.cumsum(work_S, 0)
        total = tl.sum(work_S, 0).to(tl.int64)
        sharing = _sharing(programs, total)
        begin = tl.minimum(program * total // sharing, total).to(tl.int32)  # shares differ by one tile at most
        finish = tl.minimum((program + 1) * total // sharing, total).to(tl.int32)
    else:
        begin = 0
        finish = 1
    while begin < finish:
        if SPLIT:
            segment = tl.sum((ends_S <= begin).to(tl.int32), 0)
            inside = begin - tl.sum(tl.where(all_S < segment, work_S, 0), 0)
            here_S = all_S == segment  # taken from the vectors: another load would cost its latency again
            start = tl.sum(tl.where(here_S, start_S, 0), 0)
            low = tl.sum(tl.where(here_S, low_S, 0), 0)
            high = tl.sum(tl.where(here_S, high_S, 0), 0)
            group0 = tl.sum(tl.where(here_S, group_S, 0), 0)
        else:
            segment = program // row_tiles
            inside = 0
            start, low, high = _extent(
                cu_ptr, len_ptr, qpos_ptr, segment, segment < segments, queries, kv_heads, window,
                HAS_LEN, POS, WINDOW, BLOCK_N,
            )  # fmt: skip
            group0 = 0
            if FORMAT >= 2 and PAGE == 0:
                group0 = tl.load(group_ptr + segment)
        tiles = tl.cdiv(high - low, BLOCK_N)
        if SPLIT:
            row_tile = inside // (tiles + tail_tiles)
            tile = inside % (tiles + tail_tiles)
            until = tl.minimum(tiles + tail_tiles, tile + finish - begin)
        else:
            row_tile = program % row_tiles
            tile = 0
            until = tiles + tail_tiles
        b = (segment // kv_heads).to(tl.int64)
        h = (segment % kv_heads).to(tl.int64)
        row_M = row_tile * BLOCK_M + tl.arange(0, BLOCK_M)
        used_M = row_M < HEADS * queries
        query_M = row_M // HEADS
        head_M = row_M % HEADS
        q_at_M = b * q_b + (h * HEADS + head_M) * q_h + query_M.to(tl.int64) * q_s
        q_lane_D = tl.arange(0, D // 2 if FORMAT == 3 else D)
        if SWAP:
            q_at = q_at_M[None, :] + q_lane_D[:, None]
            q_used = used_M[None, :]
        else:
            q_at = q_at_M[:, None] + q_lane_D[None, :]
            q_used = used_M[:, None]
        q_MD = tl.load(q_ptr + q_at, mask=q_used, other=0.0)
        qb_MD = q_MD
        if FORMAT == 3:
            qb_MD = tl.load(q_ptr + q_at + D // 2, mask=q_used, other=0.0)
        qpos_M = query_M.to(tl.int64)
        if POS > 0:
            qpos_M = tl.load(qpos_ptr + b * queries + query_M, mask=used_M, other=0)

        m_M = tl.full([BLOCK_M], float("-inf"), tl.float32)
        l_ML = tl.zeros([BLOCK_M, BLOCK_N if LAZY else 1], tl.float32)
        z_ML = tl.zeros([BLOCK_M, BLOCK_N if LAZY else 1], tl.float32)
        width: tl.constexpr = D // 2 if FORMAT == 3 else D
        acc_MD = tl.zeros([width if SWAP else BLOCK_M, BLOCK_M if SWAP else width], tl.float32)
        accb_MD = tl.zeros([width if SWAP else BLOCK_M, BLOCK_M if SWAP else width], tl.float32)

        prefix = tl.minimum(until, tiles)
        if PEEL:  # whole tiles need no masks; worth a second loop where the arithmetic binds, not where the memory does
            whole = tl.maximum(tl.minimum(prefix, (high - low) // BLOCK_N), tile)
            m_M, l_ML, z_ML, acc_MD, accb_MD = _prefix(
                q_MD, qb_MD, qpos_M, m_M, l_ML, z_ML, acc_MD, accb_MD,
                k_ptr, v_ptr, kscale_ptr, vscale_ptr, bias_ptr, pos_ptr, table_ptr,
                segment, group0, start, low, high, tile, whole, scale, window, pages,
                D, BLOCK_N, FORMAT, GROUP, PAGE, HAS_BIAS, POS, WINDOW, STAGES, LAZY, ASM, PURE_K, PURE_V, SWAP, False,
            )  # fmt: skip
        else:
            whole = tile
        m_M, l_ML, z_ML, acc_MD, accb_MD = _prefix(
            q_MD, qb_MD, qpos_M, m_M, l_ML, z_ML, acc_MD, accb_MD,
            k_ptr, v_ptr, kscale_ptr, vscale_ptr, bias_ptr, pos_ptr, table_ptr,
            segment, group0, start, low, high, whole, prefix, scale, window, pages,
            D, BLOCK_N, FORMAT, GROUP, PAGE, HAS_BIAS, POS, WINDOW, STAGES, LAZY, ASM, PURE_K, PURE_V, SWAP, True,
        )  # fmt: skip
        if FORMAT >= 2:  # codes to values: their unit, and what is the same in all channels
            z_M = tl.sum(z_ML, 1)
            z_ML = tl.zeros_like(z_ML)
            if FORMAT == 2:
                z_M *= _LESS_128 if ASM else -128.0
                z_M *= _DOWN if ASM else 1.0
            if SWAP:
                acc_MD = acc_MD * (_DOWN if ASM else 1.0) + z_M[None, :]
                accb_MD = accb_MD * (_DOWN if ASM else 1.0) + z_M[None, :]
            else:
                acc_MD = acc_MD * (_DOWN if ASM else 1.0) + z_M[:, None]
                accb_MD = accb_MD * (_DOWN if ASM else 1.0) + z_M[:, None]
        if TAIL:
            m_M, l_ML, z_ML, acc_MD, accb_MD = _tail(
                q_MD, qb_MD, query_M + (tail - queries), m_M, l_ML, z_ML, acc_MD, accb_MD,
                tk_ptr + b * tk_b + h * tk_h, tv_ptr + b * tv_b + h * tv_h, tk_t, tv_t, tail,
                tl.maximum(tile - tiles, 0), until - tiles,
                tl.minimum((row_tile * BLOCK_M + BLOCK_M - 1) // HEADS, queries - 1) + (tail - queries),
                row_tile * BLOCK_M // HEADS + (tail - queries),
                scale, window, D, BLOCK_N, FORMAT, WINDOW, STAGES, LAZY, SWAP,
            )  # fmt: skip
        l_M = tl.sum(l_ML, 1)
        acc_MD = _upright(acc_MD, SWAP)
        accb_MD = _upright(accb_MD, SWAP)
        lane_D = tl.arange(0, width)
        if SPLIT:
            slot = (program + segment * row_tiles + row_tile).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
            to_MD = part_ptr + slot[:, None] * D + lane_D[None, :]
            tl.store(to_MD, acc_MD, mask=used_M[:, None])
            if FORMAT == 3:
                tl.store(to_MD + D // 2, accb_MD, mask=used_M[:, None])
            tl.store(stat_ptr + slot * 2, m_M, mask=used_M)
            tl.store(stat_ptr + slot * 2 + 1, l_M, mask=used_M)
            begin += until - tile
        else:
            inverse_M = tl.where(l_M > 0, 1.0 / l_M, 0.0)
            out_row_M = (segment.to(tl.int64) * HEADS + head_M) * queries + query_M
            to_MD = out_ptr + out_row_M[:, None] * D + lane_D[None, :]
            tl.store(to_MD, (acc_MD * inverse_M[:, None]).to(out_ptr.dtype.element_ty), mask=used_M[:, None])
            if FORMAT == 3:
                tl.store(
                    to_MD + D // 2, (accb_MD * inverse_M[:, None]).to(out_ptr.dtype.element_ty), mask=used_M[:, None]
                )
            tl.store(lse_ptr + out_row_M, (m_M + tl.log2(l_M)) * _LN2, mask=used_M)
            begin += 1


@triton.jit
def _load(ptr, seen, MASK: tl.constexpr):
    if MASK:
        return tl.load(ptr, mask=seen, other=0)
    else:
        return tl.load(ptr)


@triton.jit
def _prefix(
    q_MD, qb_MD, qpos_M, m_M, l_ML, z_ML, acc_MD, accb_MD,
    k_ptr, v_ptr, kscale_ptr, vscale_ptr, bias_ptr, pos_ptr, table_ptr,
    segment, group0, start, low, high, first, last, scale, window, pages,
    D: tl.constexpr, BLOCK_N: tl.constexpr, FORMAT: tl.constexpr, GROUP: tl.constexpr, PAGE: tl.constexpr,
    HAS_BIAS: tl.constexpr, POS: tl.constexpr, WINDOW: tl.constexpr, STAGES: tl.constexpr, LAZY: tl.constexpr,
    ASM: tl.constexpr, PURE_K: tl.constexpr, PURE_V: tl.constexpr, SWAP: tl.constexpr, MASK: tl.constexpr,
):  # fmt: skip
    """The key tiles first .. last of the cache (counted from ``low``); MASK: the last may be part of a tile."""
    width: tl.constexpr = D // 2 if FORMAT == 3 else D
    lane_D = tl.arange(0, width)
    scale2 = scale * _LOG2E
    # Quantised keys are multiplied in bfloat16; the interpreter (ASM off) knows neither assembler nor bfloat16.
    LOW: tl.constexpr = tl.bfloat16 if ASM else tl.float32
    UP: tl.constexpr = _UP if ASM else 1.0
    DOWN: tl.constexpr = _DOWN if ASM else 1.0
    LESS: tl.constexpr = _LESS_128 if ASM else -128.0
    q16_MD = q_MD.to(LOW)
    qb16_MD = qb_MD.to(LOW)
    if FORMAT >= 2:
        up_MD = (q16_MD.to(tl.float32) * UP).to(LOW)
        upb_MD = (qb16_MD.to(tl.float32) * UP).to(LOW)
    if FORMAT == 1:  # the row's greatest magnitude becomes 1, so that float16 holds any query
        q32_MD = q_MD.to(tl.float32)
        factor_q_M = tl.max(tl.abs(q32_MD), 0 if SWAP else 1)
        factor_q_M = tl.where(factor_q_M > 0, factor_q_M, 1.0)
        over_MD = factor_q_M[None, :] if SWAP else factor_q_M[:, None]
        qn_MD = (q32_MD / over_MD).to(tl.float16)
    for tile in tl.range(first, last, num_stages=STAGES):
        at = low + tile * BLOCK_N
        index_N = at + tl.arange(0, BLOCK_N)
        seen_N = index_N < high
        group = group0 + at // GROUP
        # One scalar address for the tile and constant offsets inside of it: 64-bit addresses of their own for every
        # copy would take half of the registers.
        if PAGE == 0:
            row0 = (start + at).to(tl.int64)
            row_N = tl.arange(0, BLOCK_N)
        elif PAGE >= BLOCK_N:
            row0 = tl.load(table_ptr + segment * pages + at // PAGE).to(tl.int64) * PAGE + at % PAGE
            row_N = tl.arange(0, BLOCK_N)
            group = (row0 // GROUP).to(tl.int32)
        else:
            row0 = tl.zeros([], tl.int64)
            page_N = _load(table_ptr + segment * pages + index_N // PAGE, seen_N, MASK)
            row_N = page_N.to(tl.int64) * PAGE + index_N % PAGE
        at_ND = row_N[:, None] * width + lane_D[None, :]
        k_ND = _load(k_ptr + row0 * width + at_ND, seen_N[:, None], MASK)
        # scores
        if FORMAT == 0:
            s_MN = _upright(_scores(q_MD, tl.trans(k_ND), None, SWAP), SWAP) * scale2
        elif FORMAT == 1:
            k16_DN = tl.trans(_from_fp8(k_ND, ASM, PURE_K))
            s_MN = _upright(_scores(qn_MD, k16_DN, None, SWAP), SWAP) * (factor_q_M * scale2)[:, None]
        elif FORMAT == 2:
            step_D = tl.load(kscale_ptr + group.to(tl.int64) * D + lane_D).to(LOW)
            qs_MD = _scaled(up_MD, step_D, ASM, SWAP)
            k16_DN = tl.trans(_from_int8(k_ND, ASM, PURE_K))
            # 128 is in every code: a second product, with a tile of ones, needs no exchange between threads
            ones = _scores(qs_MD, tl.full([D, BLOCK_N], 1.0, LOW), None, SWAP)
            s = _scores(qs_MD, k16_DN, None, SWAP) + ones * LESS
            s_MN = _upright(s, SWAP) * (scale2 * DOWN)
        else:
            word_D = tl.load(kscale_ptr + group.to(tl.int64) * D + lane_D)
            wordb_D = tl.load(kscale_ptr + group.to(tl.int64) * D + D // 2 + lane_D)
            step_D, low_D = _apart(word_D, ASM)
            stepb_D, lowb_D = _apart(wordb_D, ASM)
            qs_MD = _scaled(up_MD, step_D, ASM, SWAP)
            qsb_MD = _scaled(upb_MD, stepb_D, ASM, SWAP)
            lo_ND, hi_ND = _from_int4(k_ND, ASM, PURE_K)
            # the group's low is the same for all of its keys
            low32_D = low_D.to(tl.float32)
            lowb32_D = lowb_D.to(tl.float32)
            if SWAP:
                low_MD = q16_MD.to(tl.float32) * low32_D[:, None] + qb16_MD.to(tl.float32) * lowb32_D[:, None]
            else:
                low_MD = q16_MD.to(tl.float32) * low32_D[None, :] + qb16_MD.to(tl.float32) * lowb32_D[None, :]
            low_M = tl.sum(low_MD, 0 if SWAP else 1) * scale2
            s = _scores(qs_MD, tl.trans(lo_ND), None, SWAP)
            s = _scores(qsb_MD, tl.trans(hi_ND), s, SWAP)
            s_MN = _upright(s, SWAP) * (scale2 * DOWN) + low_M[:, None]
        if HAS_BIAS:
            s_MN += (_load(bias_ptr + row0 + row_N, seen_N, MASK) * _LOG2E)[None, :]
        if MASK:
            s_MN = tl.where(seen_N[None, :], s_MN, float("-inf"))
        if POS > 0:
            pos_N = index_N.to(tl.int64)
            if POS == 2:
                pos_N = _load(pos_ptr + row0 + row_N, seen_N, MASK)
            keep_MN = pos_N[None, :] <= qpos_M[:, None]
            if WINDOW:
                keep_MN = keep_MN & (pos_N[None, :] > qpos_M[:, None] - window)
            s_MN = tl.where(keep_MN, s_MN, float("-inf"))
        p_MN, factor_M, m_M, l_ML = _update(s_MN, m_M, l_ML, LAZY)
        # values
        v_ND = _load(v_ptr + row0 * width + at_ND, seen_N[:, None], MASK)
        if FORMAT == 0:
            acc_MD = _add_values(p_MN.to(v_ND.dtype), v_ND, acc_MD, factor_M, SWAP)
        elif FORMAT == 1:
            acc_MD = _add_values(p_MN.to(tl.float16), _from_fp8(v_ND, ASM, PURE_V), acc_MD, factor_M, SWAP)
        else:
            word_N = _load(vscale_ptr + row0 + row_N, seen_N, MASK)
            step_N = word_N
            if FORMAT == 3:
                step_N = _low_half(word_N)
            ps_MN = (p_MN * (step_N * UP)[None, :]).to(LOW)
            # int8: what the 128 in every code adds, times -128 at the end; int4: the lows of the tokens
            out_MN = ps_MN.to(tl.float32) if FORMAT == 2 else p_MN * _high_half(word_N)[None, :]
            out_ML = out_MN if LAZY else tl.sum(out_MN, 1)[:, None]
            z_ML = z_ML * factor_M[:, None] + out_ML
            if FORMAT == 2:
                acc_MD = _add_values(ps_MN, _from_int8(v_ND, ASM, PURE_V), acc_MD, factor_M, SWAP)
            else:
                lo_ND, hi_ND = _from_int4(v_ND, ASM, PURE_V)
                acc_MD = _add_values(ps_MN, lo_ND, acc_MD, factor_M, SWAP)
                accb_MD = _add_values(ps_MN, hi_ND, accb_MD, factor_M, SWAP)
    return m_M, l_ML, z_ML, acc_MD, accb_MD


@triton.jit
def _tail(
    q_MD, qb_MD, stands_M, m_M, l_ML, z_ML, acc_MD, accb_MD,
    tk_ptr, tv_ptr, tk_t, tv_t, tail, first, last, greatest, least, scale, window,
    D: tl.constexpr, BLOCK_N: tl.constexpr, FORMAT: tl.constexpr, WINDOW: tl.constexpr, STAGES: tl.constexpr,
    LAZY: tl.constexpr, SWAP: tl.constexpr,
):  # fmt: skip
    """The key tiles first .. last of the new tokens; rows stand at tokens least .. greatest."""
    width: tl.constexpr = D // 2 if FORMAT == 3 else D
    lane_D = tl.arange(0, width)
    half_D = tl.arange(0, width)
    scale2 = scale * _LOG2E
    last = tl.minimum(last, greatest // BLOCK_N + 1)
    if WINDOW:
        first = tl.maximum(first, (tl.maximum(least - window + 1, 0) // BLOCK_N).to(tl.int32))
    for tile in tl.range(first, last, num_stages=STAGES):
        index_N = tile * BLOCK_N + tl.arange(0, BLOCK_N)
        seen_N = index_N < tail
        k_at_ND = tk_ptr + index_N.to(tl.int64)[:, None] * tk_t + lane_D[None, :]
        v_at_ND = tv_ptr + index_N.to(tl.int64)[:, None] * tv_t + half_D[None, :]
        s = _scores(q_MD, tl.trans(tl.load(k_at_ND, mask=seen_N[:, None], other=0.0)), None, SWAP)
        if FORMAT == 3:
            kb_ND = tl.load(k_at_ND + D // 2, mask=seen_N[:, None], other=0.0)
            s = _scores(qb_MD, tl.trans(kb_ND), s, SWAP)
        s_MN = _upright(s, SWAP)
        keep_MN = (index_N[None, :] <= stands_M[:, None]) & seen_N[None, :]
        if WINDOW:
            keep_MN = keep_MN & (index_N[None, :] > stands_M[:, None] - window)
        s_MN = tl.where(keep_MN, s_MN * scale2, float("-inf"))
        p_MN, factor_M, m_M, l_ML = _update(s_MN, m_M, l_ML, LAZY)
        v_ND = tl.load(v_at_ND, mask=seen_N[:, None], other=0.0)
        acc_MD = _add_values(p_MN.to(v_ND.dtype), v_ND, acc_MD, factor_M, SWAP)
        if FORMAT == 3:
            v_ND = tl.load(v_at_ND + D // 2, mask=seen_N[:, None], other=0.0)
            accb_MD = _add_values(p_MN.to(v_ND.dtype), v_ND, accb_MD, factor_M, SWAP)
    return m_M, l_ML, z_ML, acc_MD, accb_MD


@triton.jit(do_not_specialize=LENGTHS[:-1])
def merge_kernel(
    part_ptr, stat_ptr, out_ptr, lse_ptr, cu_ptr, len_ptr, qpos_ptr,
    segments, kv_heads, queries, tail, row_tiles, programs, window,
    HEADS: tl.constexpr, D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, HAS_LEN: tl.constexpr,
    POS: tl.constexpr, WINDOW: tl.constexpr, SEGMENTS: tl.constexpr, PARTS: tl.constexpr, CHANNELS: tl.constexpr,
    EARLY: tl.constexpr,
):  # fmt: skip
    """One program: CHANNELS of one row; o = sum of 2^(m_i - m) o_i / sum of 2^(m_i - m) l_i over the programs i that
    saw its unit."""
    if EARLY:
        tl.extra.cuda.gdc_launch_dependents()
    row = tl.program_id(0)
    segment = tl.program_id(1)
    row_tile = row // BLOCK_M
    all_S = tl.arange(0, SEGMENTS)
    _, low_S, high_S = _extent(
        cu_ptr, len_ptr, qpos_ptr, all_S, all_S < segments, queries, kv_heads, window, HAS_LEN, POS, WINDOW, BLOCK_N
    )
    unit_S = tl.where(all_S < segments, tl.cdiv(high_S - low_S, BLOCK_N) + tl.cdiv(tail, BLOCK_N), 0)
    total = tl.sum(unit_S, 0).to(tl.int64) * row_tiles
    unit = tl.sum(tl.where(all_S == segment, unit_S, 0), 0)
    begin = tl.sum(tl.where(all_S < segment, unit_S, 0), 0) * row_tiles + row_tile * unit
    if EARLY:
        tl.extra.cuda.gdc_wait()
    m = float("-inf")
    l_sum = 0.0
    acc_D = tl.zeros([CHANNELS], tl.float32)
    lane_D = tl.program_id(2) * CHANNELS + tl.arange(0, CHANNELS)
    if unit > 0:
        # tile t is program p's if p * total // programs <= t, and p is the last such
        sharing = _sharing(programs, total)
        first = (((begin + 1).to(tl.int64) * sharing - 1) // total).to(tl.int32)
        last = (((begin + unit).to(tl.int64) * sharing - 1) // total).to(tl.int32)
        for at in range(first, last + 1, PARTS):
            program_P = at + tl.arange(0, PARTS)
            live_P = program_P <= last
            slot_P = (program_P + segment * row_tiles + row_tile).to(tl.int64) * BLOCK_M + row % BLOCK_M
            m_P = tl.load(stat_ptr + slot_P * 2, mask=live_P, other=float("-inf"))
            l_P = tl.load(stat_ptr + slot_P * 2 + 1, mask=live_P, other=0.0)
            part_PD = tl.load(part_ptr + slot_P[:, None] * D + lane_D[None, :], mask=live_P[:, None], other=0.0)
            new = tl.maximum(m, tl.max(m_P, 0))
            safe = tl.where(new == float("-inf"), 0.0, new)
            weight_P = tl.exp2(m_P - safe)
            factor = tl.exp2(m - safe)
            l_sum = l_sum * factor + tl.sum(weight_P * l_P, 0)
            acc_D = acc_D * factor + tl.sum(weight_P[:, None] * part_PD, 0)
            m = new
    query = row // HEADS
    out_row = (segment.to(tl.int64) * HEADS + row % HEADS) * queries + query
    inverse = tl.where(l_sum > 0, 1.0 / l_sum, 0.0)
    tl.store(out_ptr + out_row * D + lane_D, (acc_D * inverse).to(out_ptr.dtype.element_ty))
    if tl.program_id(2) == 0:
        tl.store(lse_ptr + out_row, (m + tl.log2(l_sum)) * _LN2)


@triton.jit(do_not_specialize=["segments", "pages"])
def unpack_kernel(
    k_ptr, v_ptr, kscale_ptr, vscale_ptr, cu_ptr, len_ptr, group_ptr, table_ptr, ko_ptr, vo_ptr,
    segments, pages,
    D: tl.constexpr, BLOCK_N: tl.constexpr, FORMAT: tl.constexpr, GROUP: tl.constexpr, PAGE: tl.constexpr,
    HAS_LEN: tl.constexpr, SEGMENTS: tl.constexpr,
):  # fmt: skip
    """One program: one tile of packed tokens of one segment, keys and values in full precision at the same rows."""
    all_S = tl.arange(0, SEGMENTS)
    start_S = tl.load(cu_ptr + all_S, mask=all_S < segments, other=0)
    if HAS_LEN:
        length_S = tl.load(len_ptr + all_S, mask=all_S < segments, other=0)
    else:
        length_S = tl.load(cu_ptr + all_S + 1, mask=all_S < segments, other=0) - start_S
    tiles_S = tl.where(all_S < segments, tl.cdiv(length_S, BLOCK_N), 0)
    segment = tl.sum((tl.cumsum(tiles_S, 0) <= tl.program_id(0)).to(tl.int32), 0)
    if segment < segments:
        at = (tl.program_id(0) - tl.sum(tl.where(all_S < segment, tiles_S, 0), 0)) * BLOCK_N
        length = tl.sum(tl.where(all_S == segment, length_S, 0), 0)
        start = tl.sum(tl.where(all_S == segment, start_S, 0), 0)
        seen_N = at + tl.arange(0, BLOCK_N) < length
        if PAGE == 0:
            row0 = (start + at).to(tl.int64)
            group = at // GROUP
            if FORMAT >= 2:
                group += tl.load(group_ptr + segment)
        else:
            row0 = tl.load(table_ptr + segment * pages + at // PAGE).to(tl.int64) * PAGE + at % PAGE
            group = (row0 // GROUP).to(tl.int32)
        row_N = row0 + tl.arange(0, BLOCK_N)
        width: tl.constexpr = D // 2 if FORMAT == 3 else D
        lane_D = tl.arange(0, width)
        from_ND = row_N[:, None] * width + lane_D[None, :]
        to_ND = row_N[:, None] * D + lane_D[None, :]
        k_ND = tl.load(k_ptr + from_ND, mask=seen_N[:, None], other=0)
        v_ND = tl.load(v_ptr + from_ND, mask=seen_N[:, None], other=0)
        kind = ko_ptr.dtype.element_ty
        if FORMAT == 1:
            k_ND = k_ND.to(tl.float8e4nv, bitcast=True).to(tl.float32)
            v_ND = v_ND.to(tl.float8e4nv, bitcast=True).to(tl.float32)
            tl.store(ko_ptr + to_ND, k_ND.to(kind), mask=seen_N[:, None])
            tl.store(vo_ptr + to_ND, v_ND.to(kind), mask=seen_N[:, None])
        else:
            scales_at_D = kscale_ptr + group.to(tl.int64) * D + lane_D
            word_D = tl.load(scales_at_D)[None, :]
            word_N = tl.load(vscale_ptr + row_N, mask=seen_N, other=0)[:, None]
            if FORMAT == 2:
                tl.store(ko_ptr + to_ND, (k_ND.to(tl.float32) * word_D).to(kind), mask=seen_N[:, None])
                tl.store(vo_ptr + to_ND, (v_ND.to(tl.float32) * word_N).to(kind), mask=seen_N[:, None])
            else:
                wordb_D = tl.load(scales_at_D + D // 2)[None, :]
                k_lo_ND = (k_ND & 15).to(tl.float32) * _low_half(word_D) + _high_half(word_D)
                k_hi_ND = (k_ND >> 4).to(tl.float32) * _low_half(wordb_D) + _high_half(wordb_D)
                tl.store(ko_ptr + to_ND, k_lo_ND.to(kind), mask=seen_N[:, None])
                tl.store(ko_ptr + to_ND + D // 2, k_hi_ND.to(kind), mask=seen_N[:, None])
                v_lo_ND = (v_ND & 15).to(tl.float32) * _low_half(word_N) + _high_half(word_N)
                v_hi_ND = (v_ND >> 4).to(tl.float32) * _low_half(word_N) + _high_half(word_N)
                tl.store(vo_ptr + to_ND, v_lo_ND.to(kind), mask=seen_N[:, None])
                tl.store(vo_ptr + to_ND + D // 2, v_hi_ND.to(kind), mask=seen_N[:, None])
