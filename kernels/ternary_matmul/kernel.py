"""Triton kernels: int8 activations against ternary weights of 2 bits, and against N:M sparse ones of (M + N) / M bits.

Rows are cut into blocks of 128 inputs (dense, 32 bytes) or 256 inputs (sparse, bit planes); README.md draws both.
All sums are int32 and exact; one scale per token and one per row are applied at the end.

N: output rows, K: inputs, M: tokens, T: pieces of a row that one thread loads at once.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ..quantized_matmul.kernel import block_of, dp4a


@triton.jit(do_not_specialize=["rows", "blocks"])
def gemv_t2(
    x_W,
    x_scale,
    x_sum,
    words_NW,
    scale_N,
    bias_N,
    y_N,
    rows,
    blocks,
    HAS_BIAS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_T: tl.constexpr,
    EVEN: tl.constexpr,
    STAGES: tl.constexpr,
    ASM: tl.constexpr,
):
    """y = scale W x for one token. A thread's 16 bytes are 64 weights: 16 dp4a, each after one AND.

    Codes (weight + 1) are not shifted down: field j of each byte counts 4^j fold and has a sum of its own.
    """
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    row = tl.minimum(n, rows - 1).to(tl.int64)[None, :, None]
    t = tl.arange(0, BLOCK_T)[:, None, None]
    i = tl.arange(0, 4)[None, None, :]
    units = blocks * 2
    row_words = words_NW + row * (blocks * 8) + i
    acc_0 = tl.zeros((BLOCK_T, BLOCK_N, 4), tl.int32)
    acc_1 = tl.zeros((BLOCK_T, BLOCK_N, 4), tl.int32)
    acc_2 = tl.zeros((BLOCK_T, BLOCK_N, 4), tl.int32)
    acc_3 = tl.zeros((BLOCK_T, BLOCK_N, 4), tl.int32)
    for start in tl.range(0, units, BLOCK_T, num_stages=STAGES):
        u = start + t
        inside = u < units
        at = x_W + (u // 2) * 32 + (u % 2) * 4 + i
        if EVEN:
            w = tl.load(row_words + u * 4, eviction_policy="evict_first")
            x_0 = tl.load(at)
            x_1 = tl.load(at + 8)
            x_2 = tl.load(at + 16)
            x_3 = tl.load(at + 24)
        else:
            w = tl.load(row_words + u * 4, mask=inside, other=0, eviction_policy="evict_first")
            x_0 = tl.load(at, mask=inside, other=0)
            x_1 = tl.load(at + 8, mask=inside, other=0)
            x_2 = tl.load(at + 16, mask=inside, other=0)
            x_3 = tl.load(at + 24, mask=inside, other=0)
        acc_0 = dp4a(w & 0x03030303, x_0, acc_0, ASM)
        acc_1 = dp4a(w & 0x0C0C0C0C, x_1, acc_1, ASM)
        acc_2 = dp4a(w & 0x30303030, x_2, acc_2, ASM)
        acc_3 = dp4a((w >> 6) & 0x03030303, x_3, acc_3, ASM)
    acc = acc_0 + (acc_1 >> 2) + (acc_2 >> 4) + acc_3
    dot = tl.sum(tl.sum(acc, 2), 0) - tl.load(x_sum)
    y = dot.to(tl.float32) * tl.load(x_scale) * tl.load(scale_N + n, mask=n < rows, other=0)
    if HAS_BIAS:
        y += tl.load(bias_N + n, mask=n < rows, other=0).to(tl.float32)
    tl.store(y_N + n, y.to(y_N.dtype.element_ty), mask=n < rows)


_FIELDS = tl.constexpr(
    "and.b32 $0, $4, 0x03030303;"
    "shr.u32 $1, $4, 2; and.b32 $1, $1, 0x03030303;"
    "shr.u32 $2, $4, 4; and.b32 $2, $2, 0x03030303;"
    "shr.u32 $3, $4, 6; and.b32 $3, $3, 0x03030303;"
)


@triton.jit
def fields(w, ASM: tl.constexpr):
    """The four 2-bit fields of each byte, in four int8 tensors."""
    if ASM:
        f_0, f_1, f_2, f_3 = tl.inline_asm_elementwise(
            _FIELDS, "=&r,=&r,=&r,=&r,r", [w], dtype=(tl.int8,) * 4, is_pure=True, pack=4
        )
    else:
        f_0 = w & 3
        f_1 = (w >> 2) & 3
        f_2 = (w >> 4) & 3
        f_3 = (w >> 6) & 3
    return f_0, f_1, f_2, f_3


@triton.jit
def gemm_t2(
    x_MK,
    x_scale_M,
    x_sum_M,
    bytes_NB,
    scale_N,
    bias_N,
    y_SMN,
    tokens,
    rows,
    blocks,
    split_blocks,
    HAS_BIAS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_M: tl.constexpr,
    STAGES: tl.constexpr,
    ASM: tl.constexpr,
):
    """y = scale x W^T for several tokens; weights are unpacked to int8 in registers and multiplied on matrix units."""
    n_block, m_block = block_of(tl.program_id(0), tl.cdiv(rows, BLOCK_N), tl.cdiv(tokens, BLOCK_M))
    n = n_block * BLOCK_N + tl.arange(0, BLOCK_N)
    m = m_block * BLOCK_M + tl.arange(0, BLOCK_M)
    part_of = tl.program_id(1)
    row = tl.minimum(n, rows - 1).to(tl.int64)
    token = tl.minimum(m, tokens - 1).to(tl.int64)
    i = tl.arange(0, 32)
    row_bytes = bytes_NB + row[:, None] * (blocks * 32) + i[None, :]
    x_token = x_MK + token[None, :] * (blocks * 128) + i[:, None]
    acc = tl.zeros((BLOCK_N, BLOCK_M), tl.int32)
    first = part_of * split_blocks
    last = tl.minimum(first + split_blocks, blocks)
    for block in tl.range(first, last, num_stages=STAGES):
        w = tl.load(row_bytes + block * 32)
        at = x_token + block * 128
        f_0, f_1, f_2, f_3 = fields(w, ASM)
        acc = tl.dot(f_0, tl.load(at), acc, out_dtype=tl.int32)
        acc = tl.dot(f_1, tl.load(at + 32), acc, out_dtype=tl.int32)
        acc = tl.dot(f_2, tl.load(at + 64), acc, out_dtype=tl.int32)
        acc = tl.dot(f_3, tl.load(at + 96), acc, out_dtype=tl.int32)
    if part_of == 0:
        acc -= tl.load(x_sum_M + token)[None, :]
    acc_NM = (
        acc.to(tl.float32) * tl.load(scale_N + n, mask=n < rows, other=0)[:, None] * tl.load(x_scale_M + token)[None, :]
    )
    if HAS_BIAS and part_of == 0:
        acc_NM += tl.load(bias_N + n, mask=n < rows, other=0).to(tl.float32)[:, None]
    at = y_SMN + (part_of * tokens + m[None, :]).to(tl.int64) * rows + n[:, None]
    tl.store(at, acc_NM.to(y_SMN.dtype.element_ty), mask=(n < rows)[:, None] & (m < tokens)[None, :])


@triton.jit
def add_plane(mask, sign, x_plane, stride, inside, p_0, p_1, p_2, p_3, n_0, n_1, n_2, n_3, ASM: tl.constexpr):
    """Adds 32 groups' weights at one place of the group: + where only ``mask``, - where also ``sign``.

    Bit r of a byte stays where it is and counts 2^r fold; r and r + 4 share a sum.
    """
    negative = mask & sign
    positive = mask & (sign ^ -1)
    for half in tl.static_range(2):
        p = positive >> (4 * half)
        n = negative >> (4 * half)
        x_0 = tl.load(x_plane + (4 * half) * stride, mask=inside, other=0)
        x_1 = tl.load(x_plane + (4 * half + 1) * stride, mask=inside, other=0)
        x_2 = tl.load(x_plane + (4 * half + 2) * stride, mask=inside, other=0)
        x_3 = tl.load(x_plane + (4 * half + 3) * stride, mask=inside, other=0)
        p_0 = dp4a(p & 0x01010101, x_0, p_0, ASM)
        p_1 = dp4a(p & 0x02020202, x_1, p_1, ASM)
        p_2 = dp4a(p & 0x04040404, x_2, p_2, ASM)
        p_3 = dp4a(p & 0x08080808, x_3, p_3, ASM)
        n_0 = dp4a(n & 0x01010101, x_0, n_0, ASM)
        n_1 = dp4a(n & 0x02020202, x_1, n_1, ASM)
        n_2 = dp4a(n & 0x04040404, x_2, n_2, ASM)
        n_3 = dp4a(n & 0x08080808, x_3, n_3, ASM)
    return p_0, p_1, p_2, p_3, n_0, n_1, n_2, n_3


@triton.jit
def load_plane(plane, inside, EVEN: tl.constexpr):
    if EVEN:
        word = tl.load(plane, eviction_policy="evict_first")
    else:
        word = tl.load(plane, mask=inside, other=0, eviction_policy="evict_first")
    return word


@triton.jit
def gemv_sparse(
    x_MW,
    x_scale_M,
    planes_NPB,
    scale_N,
    bias_N,
    y_MN,
    rows,
    blocks,
    KEPT: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_T: tl.constexpr,
    EVEN: tl.constexpr,
    STAGES: tl.constexpr,
    ASM: tl.constexpr,
):
    """y = scale W x for KEPT of KEPT + 2 sparse weights; program axis 1 is the token.

    A block is 32 groups; plane b of the KEPT + 2 mask planes says whether each group's input b has a weight, plane b of
    the KEPT sign planes holds its sign. The last two inputs have no sign plane. Theirs lie in the places of inputs
    without a weight, of which there are enough: the last but one takes the first such place, the last one takes the
    parity of all.
    """
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    m = tl.program_id(1)
    row = tl.minimum(n, rows - 1).to(tl.int64)[None, :]
    t = tl.arange(0, BLOCK_T)[:, None]
    x_W = x_MW + m.to(tl.int64) * ((KEPT + 2) * 8) * blocks
    row_planes = planes_NPB + row * ((2 * KEPT + 2) * blocks)
    zero = tl.zeros((BLOCK_T, BLOCK_N), tl.int32)
    p_0, p_1, p_2, p_3 = zero, zero, zero, zero
    n_0, n_1, n_2, n_3 = zero, zero, zero, zero
    for start in tl.range(0, blocks, BLOCK_T, num_stages=STAGES):
        block = start + t
        inside = block < blocks
        at = row_planes + block
        x_at = x_W + block
        # Built from the last signed input to the first: the sign of the place that the first gap shows wins.
        first_gap = zero
        parity = zero
        for back in tl.static_range(KEPT):
            mask = load_plane(at + (KEPT - 1 - back) * blocks, inside, EVEN)
            sign = load_plane(at + (2 * KEPT + 1 - back) * blocks, inside, EVEN)
            first_gap = (first_gap & mask) | (sign & (mask ^ -1))
            parity ^= sign & (mask ^ -1)
            p_0, p_1, p_2, p_3, n_0, n_1, n_2, n_3 = add_plane(
                mask,
                sign,
                x_at + 8 * (KEPT - 1 - back) * blocks,
                blocks,
                inside,
                p_0,
                p_1,
                p_2,
                p_3,
                n_0,
                n_1,
                n_2,
                n_3,
                ASM,
            )
        mask = load_plane(at + KEPT * blocks, inside, EVEN)
        p_0, p_1, p_2, p_3, n_0, n_1, n_2, n_3 = add_plane(
            mask, first_gap, x_at + 8 * KEPT * blocks, blocks, inside, p_0, p_1, p_2, p_3, n_0, n_1, n_2, n_3, ASM
        )
        mask = load_plane(at + (KEPT + 1) * blocks, inside, EVEN)
        p_0, p_1, p_2, p_3, n_0, n_1, n_2, n_3 = add_plane(
            mask, parity, x_at + 8 * (KEPT + 1) * blocks, blocks, inside, p_0, p_1, p_2, p_3, n_0, n_1, n_2, n_3, ASM
        )
    acc = (p_0 - n_0) + ((p_1 - n_1) >> 1) + ((p_2 - n_2) >> 2) + ((p_3 - n_3) >> 3)
    y = tl.sum(acc, 0).to(tl.float32) * tl.load(x_scale_M + m) * tl.load(scale_N + n, mask=n < rows, other=0)
    if HAS_BIAS:
        y += tl.load(bias_N + n, mask=n < rows, other=0).to(tl.float32)
    tl.store(y_MN + m.to(tl.int64) * rows + n, y.to(y_MN.dtype.element_ty), mask=n < rows)


@triton.jit
def four_codes(mask, sign, shift, WIDTH: tl.constexpr):
    """One byte: the weights + 1 of four groups, WIDTH / 2 of them apart, of which ``shift`` is the first."""
    none = (mask ^ -1) >> shift
    plus = (mask & (sign ^ -1)) >> shift
    if WIDTH == 8:
        code = (none & 0x1111) | ((plus & 0x1111) << 1)
        code = (code | (code >> 2)) & 0x0F0F
        code = (code | (code >> 4)) & 0xFF
    else:
        code = (none & 0x01010101) | ((plus & 0x01010101) << 1)
        code = (code | (code >> 6)) & 0x000F000F
        code = (code | (code >> 12)) & 0xFF
    return code


@triton.jit(do_not_specialize=["blocks"])
def unpack_sparse(planes_NPB, words_NW, blocks, KEPT: tl.constexpr, BLOCK_B: tl.constexpr):
    """Sparse weights of one row as dense ones of 2 bits, for products of several tokens (`gemm_t2`, `unpack_t2`)."""
    n = tl.program_id(0).to(tl.int64)
    block = tl.program_id(1) * BLOCK_B + tl.arange(0, BLOCK_B)
    inside = block < blocks
    at = planes_NPB + n * ((2 * KEPT + 2) * blocks) + block
    width: tl.constexpr = KEPT + 2
    # 8 times width / 4 words for each block; byte b of a word (pair) holds place b of four groups
    word = tl.arange(0, 8)
    shift = ((word // 4 * 16 + word % 4) if width == 8 else word)[None, :]
    low = tl.zeros((BLOCK_B, 8), tl.int32)
    high = low
    first_gap = tl.zeros((BLOCK_B,), tl.int32)
    parity = first_gap
    for back in tl.static_range(KEPT):
        mask = tl.load(at + (KEPT - 1 - back) * blocks, mask=inside, other=0)
        sign = tl.load(at + (2 * KEPT + 1 - back) * blocks, mask=inside, other=0)
        first_gap = (first_gap & mask) | (sign & (mask ^ -1))
        parity ^= sign & (mask ^ -1)
        code = four_codes(mask[:, None], sign[:, None], shift, width) << (8 * ((KEPT - 1 - back) % 4))
        if KEPT - 1 - back < 4:
            low |= code
        else:
            high |= code
    for last in tl.static_range(2):
        mask = tl.load(at + (KEPT + last) * blocks, mask=inside, other=0)
        sign = first_gap if last == 0 else parity
        code = four_codes(mask[:, None], sign[:, None], shift, width) << (8 * ((KEPT + last) % 4))
        if KEPT + last < 4:
            low |= code
        else:
            high |= code
    out = words_NW + (n * blocks + block[:, None]) * (2 * width)
    if width == 8:
        both = tl.reshape(tl.join(low, high), (BLOCK_B, 16))
        tl.store(out + tl.arange(0, 16)[None, :], both, mask=inside[:, None])
    else:
        tl.store(out + word[None, :], low, mask=inside[:, None])


@triton.jit
def unpack_t2(bytes_NB, w_NK, blocks, BLOCK_B: tl.constexpr):
    """int8 -1, 0, 1 of one row in the natural order of inputs, for products of many tokens."""
    n = tl.program_id(0).to(tl.int64)
    block = tl.program_id(1) * BLOCK_B + tl.arange(0, BLOCK_B)
    i = tl.arange(0, 32)[None, :]
    inside = (block < blocks)[:, None]
    w = tl.load(bytes_NB + n * blocks * 32 + block[:, None] * 32 + i, mask=inside, other=0)
    at = w_NK + n * blocks * 128 + block[:, None] * 128 + i
    for j in tl.static_range(4):
        tl.store(at + 32 * j, ((w >> (2 * j)) & 3) - 1, mask=inside)
