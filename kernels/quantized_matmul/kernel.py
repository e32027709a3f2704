"""Triton kernels: one token (GEMV), a few and many tokens (GEMM) against 4 and 8-bit weights, and int8 activations.

Every format keeps a row's inputs in blocks of 128. A thread of a GEMV loads 16 bytes of one row at a time, and its sums
stay in its registers until the row ends; no value moves between threads before that (README.md has the arithmetic).

N: output rows, K: inputs, M: tokens, T: 16-byte pieces of a row, G: groups of 128 inputs.

``ASM`` False replaces inline PTX by plain operations with the same result, for Triton's interpreter.
"""

from __future__ import annotations

import triton
import triton.language as tl

# Inline PTX. lop3 with table 0xea is (a & b) | c: nibbles become the low mantissa bits of 128.0 (bfloat16, 0x4300) or
# of 1024.0 (float16, 0x6400).
_PAIRS = [
    f"shr.u32 $0, $2, {4 * j}; lop3.b32 $1, $0, 0x000f000f, 0x43004300, 0xea; shl.b32 $0, $1, 16;" for j in range(4)
]
_PAIR_0 = tl.constexpr(_PAIRS[0])
_PAIR_1 = tl.constexpr(_PAIRS[1])
_PAIR_2 = tl.constexpr(_PAIRS[2])
_PAIR_3 = tl.constexpr(_PAIRS[3])


def _nibbles_ptx(magic: str) -> str:
    lines = ["prmt.b32 a, $8, $9, 0x5410;", "prmt.b32 b, $8, $9, 0x7632;"]
    for j in range(8):
        half = "ab"[j // 4]
        lines.append(f"shr.u32 t, {half}, {4 * (j % 4)}; lop3.b32 ${j}, t, 0x000f000f, {magic}, 0xea;")
    return "{ .reg .b32 a, b, t; " + " ".join(lines) + " }"


_NIBBLES_BF16 = tl.constexpr(_nibbles_ptx("0x43004300"))
_NIBBLES_FP16 = tl.constexpr(_nibbles_ptx("0x64006400"))
_NIBBLES_REGISTERS = tl.constexpr("=&r,=&r,=&r,=&r,=&r,=&r,=&r,=&r,r,r")


@triton.jit
def pair_asm(w, text: tl.constexpr):
    return tl.inline_asm_elementwise(text, "=&r,=&r,r", [w], dtype=(tl.float32, tl.float32), is_pure=True, pack=1)


@triton.jit
def nibble_pair(w, j: tl.constexpr, ASM: tl.constexpr):
    """Nibbles j and j + 4 of each 32-bit word as float32 128 + q, and 128.26171875 + q within 2.3e-4.

    Both are put into the mantissas of two bfloat16 with one masked OR (exponent of 128). Read as a float32, the word is
    the upper one with the bits of the lower one behind it: 0x4300 / 2^16 = 0.26171875 and q_j / 2^16 more.
    """
    if ASM:
        if j == 0:
            lo, hi = pair_asm(w, _PAIR_0)
        elif j == 1:
            lo, hi = pair_asm(w, _PAIR_1)
        elif j == 2:
            lo, hi = pair_asm(w, _PAIR_2)
        else:
            lo, hi = pair_asm(w, _PAIR_3)
    else:
        pair = ((w >> (4 * j)) & 0x000F000F) | 0x43004300
        hi = pair.to(tl.float32, bitcast=True)
        lo = (pair << 16).to(tl.float32, bitcast=True)
    return lo, hi


@triton.jit
def dp4a(a, b, c, ASM: tl.constexpr):
    """c + the dot product of four unsigned bytes of a with four signed bytes of b."""
    if ASM:
        out = tl.inline_asm_elementwise(
            "dp4a.u32.s32 $0, $1, $2, $3;", "=r,r,r,r", [a, b, c], dtype=tl.int32, is_pure=True, pack=1
        )
    else:
        out = c
        for byte in tl.static_range(4):
            out += ((a >> (8 * byte)) & 0xFF) * ((b << (24 - 8 * byte)) >> 24)
    return out


@triton.jit
def dp4a_signed(a, b, c, ASM: tl.constexpr):
    """c + the dot product of four signed bytes of a with four signed bytes of b."""
    if ASM:
        out = tl.inline_asm_elementwise(
            "dp4a.s32.s32 $0, $1, $2, $3;", "=r,r,r,r", [a, b, c], dtype=tl.int32, is_pure=True, pack=1
        )
    else:
        out = c
        for byte in tl.static_range(4):
            out += ((a << (24 - 8 * byte)) >> 24) * ((b << (24 - 8 * byte)) >> 24)
    return out


@triton.jit(do_not_specialize=["rows", "groups"])
def gemv_w4(
    x_K,
    words_NW,
    scales_NG,
    bias_N,
    y_N,
    rows,
    groups,
    HAS_BIAS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_T: tl.constexpr,
    EVEN: tl.constexpr,
    STAGES: tl.constexpr,
    ASM: tl.constexpr,
):
    """y = W x for w = scale * code + low, groups of 128; scales hold float16 scale and low in one 32-bit word."""
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    row = tl.minimum(n, rows - 1).to(tl.int64)[None, :, None]
    t = tl.arange(0, BLOCK_T)[:, None, None]
    i = tl.arange(0, 4)[None, None, :]
    units = groups * 4
    row_words = words_NW + row * (groups * 16) + i
    row_scales = scales_NG + row * groups
    acc_TN1 = tl.zeros((BLOCK_T, BLOCK_N, 1), tl.float32)
    for start in tl.range(0, units, BLOCK_T, num_stages=STAGES):
        u = start + t
        inside = u < units
        if EVEN:
            w = tl.load(row_words + u * 4, eviction_policy="evict_first")
            s = tl.load(row_scales + u // 4)
        else:
            w = tl.load(row_words + u * 4, mask=inside, other=0, eviction_policy="evict_first")
            s = tl.load(row_scales + u // 4, mask=inside, other=0)
        part = tl.zeros((BLOCK_T, BLOCK_N, 4), tl.float32)
        sum_lo = tl.zeros((BLOCK_T, 1, 4), tl.float32)
        sum_hi = tl.zeros((BLOCK_T, 1, 4), tl.float32)
        at = x_K + (u // 4) * 128 + (u % 4) * 4 + i
        for j in tl.static_range(4):
            if EVEN:
                x_lo = tl.load(at + 16 * j).to(tl.float32)
                x_hi = tl.load(at + 16 * j + 64).to(tl.float32)
            else:
                x_lo = tl.load(at + 16 * j, mask=inside, other=0).to(tl.float32)
                x_hi = tl.load(at + 16 * j + 64, mask=inside, other=0).to(tl.float32)
            w_lo, w_hi = nibble_pair(w, j, ASM)
            part += w_hi * x_hi
            part += w_lo * x_lo
            sum_lo += x_lo
            sum_hi += x_hi
        scale = (s & 0xFFFF).to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32)
        low = (s >> 16).to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32)
        sum_hi_T11 = tl.sum(sum_hi, 2, keep_dims=True)
        x_sum_T11 = tl.sum(sum_lo, 2, keep_dims=True) + sum_hi_T11
        offset_T11 = 128.0 * x_sum_T11 + 0.26171875 * sum_hi_T11
        acc_TN1 += scale * (tl.sum(part, 2, keep_dims=True) - offset_T11) + low * x_sum_T11
    y = tl.sum(tl.sum(acc_TN1, 2), 0)
    if HAS_BIAS:
        y += tl.load(bias_N + n, mask=n < rows, other=0).to(tl.float32)
    tl.store(y_N + n, y.to(y_N.dtype.element_ty), mask=n < rows)


@triton.jit(do_not_specialize=["rows", "blocks"])
def gemv_w8(
    x_K,
    bytes_NK,
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
):
    """y = scale W x with int8 weights and bf16 or fp16 activations."""
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    row = tl.minimum(n, rows - 1).to(tl.int64)[None, :, None]
    t = tl.arange(0, BLOCK_T)[:, None, None]
    i = tl.arange(0, 8)[None, None, :]
    units = blocks * 16
    row_bytes = bytes_NK + row * (blocks * 128) + i
    acc_TN1 = tl.zeros((BLOCK_T, BLOCK_N, 1), tl.float32)
    for start in tl.range(0, units, BLOCK_T, num_stages=STAGES):
        u = start + t
        inside = u < units
        if EVEN:
            w = tl.load(row_bytes + u * 8, eviction_policy="evict_first")
            x = tl.load(x_K + u * 8 + i)
        else:
            w = tl.load(row_bytes + u * 8, mask=inside, other=0, eviction_policy="evict_first")
            x = tl.load(x_K + u * 8 + i, mask=inside, other=0)
        acc_TN1 += tl.sum(w.to(tl.float32) * x.to(tl.float32), 2, keep_dims=True)
    y = tl.sum(tl.sum(acc_TN1, 2), 0) * tl.load(scale_N + n, mask=n < rows, other=0)
    if HAS_BIAS:
        y += tl.load(bias_N + n, mask=n < rows, other=0).to(tl.float32)
    tl.store(y_N + n, y.to(y_N.dtype.element_ty), mask=n < rows)


@triton.jit(do_not_specialize=["rows", "blocks"])
def gemv_i8(
    x_W,
    x_scale,
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
    """y = scale W x with int8 weights and one token of int8 activations, both as 32-bit words; the sum is exact."""
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    row = tl.minimum(n, rows - 1).to(tl.int64)[None, :, None]
    t = tl.arange(0, BLOCK_T)[:, None, None]
    i = tl.arange(0, 4)[None, None, :]
    units = blocks * 8
    row_words = words_NW + row * (blocks * 32) + i
    acc = tl.zeros((BLOCK_T, BLOCK_N, 4), tl.int32)
    for start in tl.range(0, units, BLOCK_T, num_stages=STAGES):
        u = start + t
        inside = u < units
        if EVEN:
            w = tl.load(row_words + u * 4, eviction_policy="evict_first")
            x = tl.load(x_W + u * 4 + i)
        else:
            w = tl.load(row_words + u * 4, mask=inside, other=0, eviction_policy="evict_first")
            x = tl.load(x_W + u * 4 + i, mask=inside, other=0)
        acc = dp4a_signed(w, x, acc, ASM)
    y = tl.sum(tl.sum(acc, 2), 0).to(tl.float32) * tl.load(x_scale) * tl.load(scale_N + n, mask=n < rows, other=0)
    if HAS_BIAS:
        y += tl.load(bias_N + n, mask=n < rows, other=0).to(tl.float32)
    tl.store(y_N + n, y.to(y_N.dtype.element_ty), mask=n < rows)


@triton.jit
def nibbles(w, kind: tl.constexpr):
    """The eight nibbles of each word as 128 + q (bfloat16) or 1024 + q (float16), in eight tensors.

    Two neighbouring words are taken at once: their lower and upper halves are put side by side, so that each result
    register holds the same nibble of both. 16 instructions for 16 weights.
    """
    if kind == tl.bfloat16:
        out = tl.inline_asm_elementwise(
            _NIBBLES_BF16, _NIBBLES_REGISTERS, [w], dtype=(tl.bfloat16,) * 8, is_pure=True, pack=2
        )
    else:
        out = tl.inline_asm_elementwise(
            _NIBBLES_FP16, _NIBBLES_REGISTERS, [w], dtype=(tl.float16,) * 8, is_pure=True, pack=2
        )
    return out


@triton.jit
def nibbles_plain(w, j: tl.constexpr, kind: tl.constexpr):
    """Nibble j of each word as 128 + q or 1024 + q, by plain operations."""
    q = (w >> (4 * j)) & 0xF
    if kind == tl.bfloat16:
        out = (q | 0x4300).to(tl.int16).to(tl.bfloat16, bitcast=True)
    else:
        out = (q | 0x6400).to(tl.int16).to(tl.float16, bitcast=True)
    return out


@triton.jit
def block_of(program, n_blocks, m_blocks):
    """Blocks of rows and of tokens of a program. Tokens run first, 16 blocks at a time: neighbours share both."""
    per_group = 16 * n_blocks
    first = program // per_group * 16
    size = tl.minimum(m_blocks - first, 16)
    inside = program % per_group
    return inside // size, first + inside % size


@triton.jit
def gemm_w4(
    x_MK,
    x_sums_GM,
    words_NW,
    scales_NG,
    bias_N,
    y_SMN,
    tokens,
    rows,
    groups,
    split_groups,
    HAS_BIAS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_M: tl.constexpr,
    STAGES: tl.constexpr,
    ASM: tl.constexpr,
):
    """y = x W^T for several tokens. The weights are the left operand, unpacked in registers, so 16 tokens suffice.

    x_sums holds the sum of every token over each group. Program axis 1 splits the inputs; each part writes its own y.
    """
    n_block, m_block = block_of(tl.program_id(0), tl.cdiv(rows, BLOCK_N), tl.cdiv(tokens, BLOCK_M))
    n = n_block * BLOCK_N + tl.arange(0, BLOCK_N)
    m = m_block * BLOCK_M + tl.arange(0, BLOCK_M)
    part_of = tl.program_id(1)
    kind: tl.constexpr = x_MK.dtype.element_ty
    offset: tl.constexpr = 128.0 if kind == tl.bfloat16 else 1024.0
    row = tl.minimum(n, rows - 1).to(tl.int64)
    token = tl.minimum(m, tokens - 1).to(tl.int64)
    i = tl.arange(0, 16)
    row_words = words_NW + row[:, None] * (groups * 16) + i[None, :]
    row_scales = scales_NG + row * groups
    x_token = x_MK + token[None, :] * (groups * 128) + i[:, None]
    acc_NM = tl.zeros((BLOCK_N, BLOCK_M), tl.float32)
    first = part_of * split_groups
    last = tl.minimum(first + split_groups, groups)
    for g in tl.range(first, last, num_stages=STAGES):
        w = tl.load(row_words + g * 16)
        s = tl.load(row_scales + g)
        x_sum = tl.load(x_sums_GM + g * tokens + token)
        part = tl.zeros((BLOCK_N, BLOCK_M), tl.float32)
        at = x_token + g * 128
        if ASM:
            q0, q1, q2, q3, q4, q5, q6, q7 = nibbles(w, kind)
            part = tl.dot(q0, tl.load(at), part)
            part = tl.dot(q1, tl.load(at + 16), part)
            part = tl.dot(q2, tl.load(at + 32), part)
            part = tl.dot(q3, tl.load(at + 48), part)
            part = tl.dot(q4, tl.load(at + 64), part)
            part = tl.dot(q5, tl.load(at + 80), part)
            part = tl.dot(q6, tl.load(at + 96), part)
            part = tl.dot(q7, tl.load(at + 112), part)
        else:
            for j in tl.static_range(8):
                part = tl.dot(nibbles_plain(w, j, kind), tl.load(at + 16 * j), part)
        scale = (s & 0xFFFF).to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32)
        low = (s >> 16).to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32)
        acc_NM += scale[:, None] * part + (low - offset * scale)[:, None] * x_sum[None, :]
    if HAS_BIAS and part_of == 0:
        acc_NM += tl.load(bias_N + n, mask=n < rows, other=0).to(tl.float32)[:, None]
    at = y_SMN + (part_of * tokens + m[None, :]).to(tl.int64) * rows + n[:, None]
    tl.store(at, acc_NM.to(y_SMN.dtype.element_ty), mask=(n < rows)[:, None] & (m < tokens)[None, :])


@triton.jit
def gemm_w8(
    x_MK,
    x_scale_M,
    bytes_NK,
    scale_N,
    bias_N,
    y_SMN,
    tokens,
    rows,
    blocks,
    split_blocks,
    INT8: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_M: tl.constexpr,
    STAGES: tl.constexpr,
):
    """y = scale x W^T with int8 weights; activations int8 with a scale per token (INT8), or bf16 or fp16."""
    n_block, m_block = block_of(tl.program_id(0), tl.cdiv(rows, BLOCK_N), tl.cdiv(tokens, BLOCK_M))
    n = n_block * BLOCK_N + tl.arange(0, BLOCK_N)
    m = m_block * BLOCK_M + tl.arange(0, BLOCK_M)
    part_of = tl.program_id(1)
    row = tl.minimum(n, rows - 1).to(tl.int64)
    token = tl.minimum(m, tokens - 1).to(tl.int64)
    k = tl.arange(0, 128)
    row_bytes = bytes_NK + row[:, None] * (blocks * 128) + k[None, :]
    x_token = x_MK + token[None, :] * (blocks * 128) + k[:, None]
    sum_type: tl.constexpr = tl.int32 if INT8 else tl.float32
    acc = tl.zeros((BLOCK_N, BLOCK_M), sum_type)
    first = part_of * split_blocks
    last = tl.minimum(first + split_blocks, blocks)
    for block in tl.range(first, last, num_stages=STAGES):
        w = tl.load(row_bytes + block * 128)
        x = tl.load(x_token + block * 128)
        acc = tl.dot(w, x, acc, out_dtype=tl.int32) if INT8 else tl.dot(w.to(x.dtype), x, acc)
    acc_NM = acc.to(tl.float32) * tl.load(scale_N + n, mask=n < rows, other=0)[:, None]
    if INT8:
        acc_NM *= tl.load(x_scale_M + token)[None, :]
    if HAS_BIAS and part_of == 0:
        acc_NM += tl.load(bias_N + n, mask=n < rows, other=0).to(tl.float32)[:, None]
    at = y_SMN + (part_of * tokens + m[None, :]).to(tl.int64) * rows + n[:, None]
    tl.store(at, acc_NM.to(y_SMN.dtype.element_ty), mask=(n < rows)[:, None] & (m < tokens)[None, :])


@triton.jit
def add_parts(part_SE, y_E, elements, SPLIT: tl.constexpr, BLOCK: tl.constexpr):
    """y = sum of the SPLIT parts of a product, in the order of the inputs."""
    e = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float32)
    for part in tl.static_range(SPLIT):
        total += tl.load(part_SE + part * elements + e, mask=e < elements, other=0)
    tl.store(y_E + e, total.to(y_E.dtype.element_ty), mask=e < elements)


@triton.jit
def group_sums(x_MK, sums_GM, tokens, groups, BLOCK_G: tl.constexpr):
    """float32 sum of each token over each group of 128 inputs."""
    m = tl.program_id(0)
    g = tl.program_id(1) * BLOCK_G + tl.arange(0, BLOCK_G)
    at = x_MK + m.to(tl.int64) * (groups * 128) + g[:, None] * 128 + tl.arange(0, 128)[None, :]
    x = tl.load(at, mask=(g < groups)[:, None], other=0).to(tl.float32)
    tl.store(sums_GM + g * tokens + m, tl.sum(x, 1), mask=g < groups)


@triton.jit
def round_tokens(
    x_MK, q_MK, scale_M, sum_M, inputs, padded, BLOCK: tl.constexpr, SPREAD: tl.constexpr, STAGES: tl.constexpr
):
    """int8 q = round(x / scale) with scale = max |x| / 127 of a token, and the sum of q.

    q has ``padded`` inputs, zero past ``inputs``. SPREAD > 1 is the order of the sparse ternary product: groups of
    SPREAD inputs in blocks of 32 groups; word (b, r, block) holds input b of groups r, r + 8, r + 16 and r + 24.
    """
    m = tl.program_id(0)
    k = tl.arange(0, BLOCK)
    row = x_MK + m.to(tl.int64) * inputs
    peaks = tl.zeros((BLOCK,), tl.float32)
    for start in tl.range(0, inputs, BLOCK, num_stages=STAGES):
        x = tl.load(row + start + k, mask=start + k < inputs, other=0).to(tl.float32)
        peaks = tl.maximum(peaks, tl.abs(x))
    peak = tl.max(peaks, 0)
    inverse = tl.where(peak > 0, 127.0 / peak, 0.0)
    sums = tl.zeros((BLOCK,), tl.int32)
    for start in tl.range(0, padded, BLOCK, num_stages=STAGES):
        at = start + k
        x = tl.load(row + at, mask=at < inputs, other=0).to(tl.float32) * inverse
        # Adding 1.5 * 2^23 leaves the nearest integer, ties to even, in the lowest mantissa bits.
        q = ((x + 12582912.0) - 12582912.0).to(tl.int32)
        sums += q
        if SPREAD > 1:
            group = at // SPREAD
            word = ((at % SPREAD) * 8 + group % 8) * (padded // (32 * SPREAD)) + group // 32
            place = word * 4 + (group % 32) // 8
        else:
            place = at
        tl.store(q_MK + m.to(tl.int64) * padded + place, q.to(tl.int8), mask=at < padded)
    tl.store(scale_M + m, peak / 127.0)
    tl.store(sum_M + m, tl.sum(sums, 0))


@triton.jit
def unpack_w4(words_NW, scales_NG, w_NK, groups, BLOCK_G: tl.constexpr):
    """Dense bf16 or fp16 weights of one row's groups, for products of so many tokens that unpacking once pays."""
    n = tl.program_id(0).to(tl.int64)
    g = tl.program_id(1) * BLOCK_G + tl.arange(0, BLOCK_G)
    i = tl.arange(0, 16)
    inside = (g < groups)[:, None]
    w = tl.load(words_NW + n * groups * 16 + g[:, None] * 16 + i[None, :], mask=inside, other=0)
    s = tl.load(scales_NG + n * groups + g, mask=g < groups, other=0)
    scale = (s & 0xFFFF).to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32)
    low = (s >> 16).to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32)
    at = w_NK + n * groups * 128 + g[:, None] * 128 + i[None, :]
    for j in tl.static_range(8):
        dense = ((w >> (4 * j)) & 0xF).to(tl.float32) * scale[:, None] + low[:, None]
        tl.store(at + 16 * j, dense.to(w_NK.dtype.element_ty), mask=inside)


@triton.jit
def unpack_w8(bytes_NK, scale_N, w_NK, padded, BLOCK: tl.constexpr):
    """Dense bf16 or fp16 weights of one row."""
    n = tl.program_id(0).to(tl.int64)
    k = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    w = tl.load(bytes_NK + n * padded + k, mask=k < padded, other=0).to(tl.float32) * tl.load(scale_N + n)
    tl.store(w_NK + n * padded + k, w.to(w_NK.dtype.element_ty), mask=k < padded)
