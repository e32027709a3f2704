"""Backward attention in Triton: one program per tile of keys, queries streamed past it.

dV = P' dO, dS = P * (dO V' - delta), dK = scale dS' Q, dQ = scale dS K with P rebuilt from the log-sum-exp.
dQ is added into float32 memory by every tile of keys (five products a tile), or computed by a second kernel that walks
keys for a tile of queries (seven products, but the same bits every time).
"""

from __future__ import annotations

import triton
import triton.language as tl

from .forward import LOG2E, NEVER, SIZES, _rows, locate


@triton.jit(do_not_specialize=SIZES)
def attention_delta(
    out, dout, lse, dlse, delta, shift, stride_ob, stride_oh, stride_os, stride_db, stride_dh, stride_ds, heads,
    queries,
    padded, D: tl.constexpr, BLOCK_M: tl.constexpr, HAS_DLSE: tl.constexpr,
):  # fmt: skip
    """delta[i] = sum over d of out * dout, less the gradient of the log-sum-exp; shift[i] = log-sum-exp in base 2.

    Both [B, H, padded]; rows past the end and rows that saw no key get shift = inf, so that their weights are zero.
    Grid: (padded / BLOCK_M, batch * heads).
    """
    row_M = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    batch_head = tl.program_id(1)
    b = (batch_head // heads).to(tl.int64)
    h = (batch_head % heads).to(tl.int64)
    inside = (row_M < queries)[:, None]
    d_D = tl.arange(0, D)[None, :]
    out_MD = tl.load(
        out + b * stride_ob + h * stride_oh + row_M[:, None].to(tl.int64) * stride_os + d_D, mask=inside, other=0.0
    )
    dout_MD = tl.load(
        dout + b * stride_db + h * stride_dh + row_M[:, None].to(tl.int64) * stride_ds + d_D, mask=inside, other=0.0
    )
    delta_M = tl.sum(out_MD.to(tl.float32) * dout_MD.to(tl.float32), 1)
    at = batch_head.to(tl.int64) * queries + row_M
    if HAS_DLSE:
        delta_M -= tl.load(dlse + at, mask=row_M < queries, other=0.0)
    lse_M = tl.load(lse + at, mask=row_M < queries, other=NEVER)
    to = batch_head.to(tl.int64) * padded + row_M
    tl.store(delta + to, delta_M)
    tl.store(shift + to, tl.where(lse_M == NEVER, float("inf"), lse_M * LOG2E))


@triton.jit
def _visible(i_M, j_N, queries, keys, window, MASKED: tl.constexpr, CAUSAL: tl.constexpr, WINDOW: tl.constexpr):
    """[N, M]: key j is seen by query i."""
    at_M = i_M + keys - queries
    seen = (j_N < keys)[:, None]
    if CAUSAL:
        seen &= j_N[:, None] <= at_M[None, :]
    if WINDOW:
        seen &= j_N[:, None] > at_M[None, :] - window
        if not CAUSAL:
            seen &= j_N[:, None] < at_M[None, :] + window
    return seen


@triton.jit
def _sweep_queries(
    dk_ND, dv_ND, db_N, k_ND, v_ND, bias_N, q, dout, dq, shift_row, delta_row, q_base, d_base, dq_base,
    stride_qs, stride_ds, stride_dqs, b, h, n0, queries, keys, scale, window, first, last,
    D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, MASKED: tl.constexpr, CAUSAL: tl.constexpr,
    WINDOW: tl.constexpr, BIAS: tl.constexpr, TMA: tl.constexpr, DQ: tl.constexpr,
):  # fmt: skip
    """Adds the share of the queries first..last (multiples of BLOCK_M); scale includes log2 e. DQ: 0 none, 1 atomics,
    2 reducing bulk copy."""
    for start in tl.range(first, last, BLOCK_M):
        i_M = start + tl.arange(0, BLOCK_M)
        q_MD = _rows(q, q_base, start, queries, stride_qs, b, h, BLOCK_M, D, TMA)
        shift_M = tl.load(shift_row + i_M, mask=i_M < queries, other=float("inf"))
        s_NM = tl.dot(k_ND, tl.trans(q_MD)) * scale
        if BIAS:
            s_NM += bias_N[:, None]
        p_NM = tl.exp2(s_NM - shift_M[None, :])
        if MASKED:
            j_N = n0 + tl.arange(0, BLOCK_N)
            p_NM = tl.where(_visible(i_M, j_N, queries, keys, window, MASKED, CAUSAL, WINDOW), p_NM, 0.0)
        do_MD = _rows(dout, d_base, start, queries, stride_ds, b, h, BLOCK_M, D, TMA)
        dp_NM = tl.dot(v_ND, tl.trans(do_MD))
        dv_ND = tl.dot(p_NM.to(do_MD.dtype), do_MD, dv_ND)
        delta_M = tl.load(delta_row + i_M, mask=i_M < queries, other=0.0)
        ds_NM = p_NM * (dp_NM - delta_M[None, :])
        if BIAS:
            db_N += tl.sum(ds_NM, 1)
        low_NM = ds_NM.to(q_MD.dtype)
        dk_ND = tl.dot(low_NM, q_MD, dk_ND)
        if DQ > 0:
            dq_MD = tl.dot(tl.trans(low_NM), k_ND)
            if DQ == 2:
                dq.atomic_add([b, h, start, 0], tl.reshape(dq_MD, [1, 1, BLOCK_M, D]))
            else:
                at = dq_base + i_M[:, None].to(tl.int64) * stride_dqs + tl.arange(0, D)[None, :]
                tl.atomic_add(dq + at, dq_MD, mask=(i_M < queries)[:, None], sem="relaxed")
    return dk_ND, dv_ND, db_N


@triton.jit(do_not_specialize=SIZES)
def attention_backward(
    q, k, v, dout, dq, dk, dv, dbias, shift, delta, bias, cu_q, cu_k,
    stride_qb, stride_qh, stride_qs, stride_kb, stride_kh, stride_kt, stride_vb, stride_vh, stride_vt,
    stride_db, stride_dh, stride_ds, stride_dqb, stride_dqh, stride_dqs, stride_dkb, stride_dkh, stride_dkt,
    stride_bb, stride_bh, stride_bt,
    kv_heads, group, queries, keys, padded, sequences, tiles, scale_log2, scale, window,
    D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, CAUSAL: tl.constexpr, WINDOW: tl.constexpr,
    BIAS: tl.constexpr, VARLEN: tl.constexpr, NZ: tl.constexpr, TMA: tl.constexpr, DQ: tl.constexpr,
    heads_together,
):  # fmt: skip
    """Grid: tiles of keys * KV heads * batch. dk, dv [B, K, T, D] (same strides), dbias float32 [B, K, T] contiguous,
    dq float32 or descriptor of it (unscaled). Tiles with the longest causal walk come first."""
    program = tl.program_id(0)
    span = tiles * heads_together
    first_head = program // span * heads_together
    beside = tl.minimum(heads_together, tl.num_programs(0) // tiles - first_head)
    rest = program % span
    tile = rest // beside
    batch_head = first_head + rest % beside
    b = batch_head // kv_heads
    kv_head = batch_head % kv_heads
    q_start = tl.zeros([], tl.int64)
    k_start = tl.zeros([], tl.int64)
    total_k = keys
    if VARLEN:
        found, q_start, queries, k_start, keys, tile = locate(tile, cu_q, cu_k, sequences, BLOCK_N, NZ, True)
        if not found:
            return
    n0 = tile * BLOCK_N
    b64 = b.to(tl.int64)
    kv64 = kv_head.to(tl.int64)
    k_base = b64 * stride_kb + kv64 * stride_kh + k_start * stride_kt
    v_base = b64 * stride_vb + kv64 * stride_vh + k_start * stride_vt
    offset = keys - queries
    j_N = n0 + tl.arange(0, BLOCK_N)

    first = 0
    last = queries
    full_first = 0
    full_last = queries
    if CAUSAL:
        first = tl.maximum(n0 - offset, 0) // BLOCK_M * BLOCK_M
        full_first = (tl.maximum(n0 + BLOCK_N - 1 - offset, 0) + BLOCK_M - 1) // BLOCK_M * BLOCK_M
    if WINDOW:
        last = tl.minimum(queries, n0 + BLOCK_N - 1 - offset + window)
        full_last = tl.minimum(last, tl.maximum(n0 - offset + window, 0) // BLOCK_M * BLOCK_M)
        if not CAUSAL:
            first = tl.maximum(n0 - offset - window + 1, 0) // BLOCK_M * BLOCK_M
            full_first = (tl.maximum(n0 + BLOCK_N - offset - window, 0) + BLOCK_M - 1) // BLOCK_M * BLOCK_M
    last_up = (tl.maximum(last, 0) + BLOCK_M - 1) // BLOCK_M * BLOCK_M
    full_first = tl.where(n0 + BLOCK_N > keys, last_up, full_first)
    full_first = tl.minimum(full_first, tl.maximum(last_up, first))
    full_last = tl.maximum(full_last, full_first)

    k_ND = _rows(k, k_base, n0, keys, stride_kt, b, kv_head, BLOCK_N, D, TMA)
    v_ND = _rows(v, v_base, n0, keys, stride_vt, b, kv_head, BLOCK_N, D, TMA)
    bias_N = tl.zeros([BLOCK_N], tl.float32)
    if BIAS:
        bias_row = bias + b64 * stride_bb + kv64 * stride_bh + k_start * stride_bt
        bias_N = tl.load(bias_row + j_N * stride_bt, mask=j_N < keys, other=0.0).to(tl.float32) * LOG2E
    dk_ND = tl.zeros([BLOCK_N, D], tl.float32)
    dv_ND = tl.zeros([BLOCK_N, D], tl.float32)
    db_N = tl.zeros([BLOCK_N], tl.float32)
    for member in range(0, group):
        h = kv_head * group + member
        h64 = h.to(tl.int64)
        q_base = b64 * stride_qb + h64 * stride_qh + q_start * stride_qs
        d_base = b64 * stride_db + h64 * stride_dh + q_start * stride_ds
        dq_base = b64 * stride_dqb + h64 * stride_dqh + q_start * stride_dqs
        row = (b64 * kv_heads * group + h64) * padded + q_start
        dk_ND, dv_ND, db_N = _sweep_queries(
            dk_ND, dv_ND, db_N, k_ND, v_ND, bias_N, q, dout, dq, shift + row, delta + row, q_base, d_base, dq_base,
            stride_qs, stride_ds, stride_dqs, b, h, n0, queries, keys, scale_log2, window,
            first, tl.minimum(full_first, last),
            D, BLOCK_M, BLOCK_N, True, CAUSAL, WINDOW, BIAS, TMA, DQ,
        )  # fmt: skip
        dk_ND, dv_ND, db_N = _sweep_queries(
            dk_ND, dv_ND, db_N, k_ND, v_ND, bias_N, q, dout, dq, shift + row, delta + row, q_base, d_base, dq_base,
            stride_qs, stride_ds, stride_dqs, b, h, n0, queries, keys, scale_log2, window, full_first, full_last,
            D, BLOCK_M, BLOCK_N, False, CAUSAL, WINDOW, BIAS, TMA, DQ,
        )  # fmt: skip
        if WINDOW:
            dk_ND, dv_ND, db_N = _sweep_queries(
                dk_ND, dv_ND, db_N, k_ND, v_ND, bias_N, q, dout, dq, shift + row, delta + row, q_base, d_base, dq_base,
                stride_qs, stride_ds, stride_dqs, b, h, n0, queries, keys, scale_log2, window, full_last, last,
                D, BLOCK_M, BLOCK_N, True, CAUSAL, WINDOW, BIAS, TMA, DQ,
            )  # fmt: skip

    inside = (j_N < keys)[:, None]
    at = b64 * stride_dkb + kv64 * stride_dkh + (k_start + j_N)[:, None].to(tl.int64) * stride_dkt
    at += tl.arange(0, D)[None, :]
    tl.store(dk + at, (dk_ND * scale).to(dk.dtype.element_ty), mask=inside)
    tl.store(dv + at, dv_ND.to(dv.dtype.element_ty), mask=inside)
    if BIAS:
        tl.store(dbias + batch_head.to(tl.int64) * total_k + k_start + j_N, db_N, mask=j_N < keys)


@triton.jit
def _sweep_keys(
    dq_MD, q_MD, do_MD, shift_M, delta_M, k, v, bias_row, k_base, v_base, stride_kt, stride_vt, stride_bt, b, kv_head,
    i_M, queries, keys, scale, window, first, last,
    D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, MASKED: tl.constexpr, CAUSAL: tl.constexpr,
    WINDOW: tl.constexpr, BIAS: tl.constexpr, TMA: tl.constexpr,
):  # fmt: skip
    for start in tl.range(first, last, BLOCK_N):
        j_N = start + tl.arange(0, BLOCK_N)
        k_ND = _rows(k, k_base, start, keys, stride_kt, b, kv_head, BLOCK_N, D, TMA)
        v_ND = _rows(v, v_base, start, keys, stride_vt, b, kv_head, BLOCK_N, D, TMA)
        s_MN = tl.dot(q_MD, tl.trans(k_ND)) * scale
        if BIAS:
            s_MN += (tl.load(bias_row + j_N * stride_bt, mask=j_N < keys, other=0.0).to(tl.float32) * LOG2E)[None, :]
        p_MN = tl.exp2(s_MN - shift_M[:, None])
        if MASKED:
            p_MN = tl.where(tl.trans(_visible(i_M, j_N, queries, keys, window, MASKED, CAUSAL, WINDOW)), p_MN, 0.0)
        dp_MN = tl.dot(do_MD, tl.trans(v_ND))
        ds_MN = p_MN * (dp_MN - delta_M[:, None])
        dq_MD = tl.dot(ds_MN.to(k_ND.dtype), k_ND, dq_MD)
    return dq_MD


@triton.jit(do_not_specialize=SIZES)
def attention_backward_queries(
    q, k, v, dout, dq, shift, delta, bias, cu_q, cu_k,
    stride_qb, stride_qh, stride_qs, stride_kb, stride_kh, stride_kt, stride_vb, stride_vh, stride_vt,
    stride_db, stride_dh, stride_ds, stride_dqb, stride_dqh, stride_dqs, stride_bb, stride_bh, stride_bt,
    heads, group, queries, keys, padded, sequences, tiles, scale_log2, scale, window,
    D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, CAUSAL: tl.constexpr, WINDOW: tl.constexpr,
    BIAS: tl.constexpr, VARLEN: tl.constexpr, NZ: tl.constexpr, TMA: tl.constexpr,
):  # fmt: skip
    """dQ alone, without atomics. Grid: tiles of queries * heads * batch; dq [B, H, S, D] in the dtype of q."""
    program = tl.program_id(0)
    tile = tiles - 1 - program % tiles
    b = program // tiles // heads
    h = program // tiles % heads
    q_start = tl.zeros([], tl.int64)
    k_start = tl.zeros([], tl.int64)
    if VARLEN:
        found, q_start, queries, k_start, keys, tile = locate(tile, cu_q, cu_k, sequences, BLOCK_M, NZ, False)
        if not found:
            return
    m0 = tile * BLOCK_M
    kv_head = h // group
    b64 = b.to(tl.int64)
    h64 = h.to(tl.int64)
    kv64 = kv_head.to(tl.int64)
    q_base = b64 * stride_qb + h64 * stride_qh + q_start * stride_qs
    d_base = b64 * stride_db + h64 * stride_dh + q_start * stride_ds
    k_base = b64 * stride_kb + kv64 * stride_kh + k_start * stride_kt
    v_base = b64 * stride_vb + kv64 * stride_vh + k_start * stride_vt
    bias_row = bias
    if BIAS:
        bias_row += b64 * stride_bb + kv64 * stride_bh + k_start * stride_bt
    offset = keys - queries
    i_M = m0 + tl.arange(0, BLOCK_M)
    first = 0
    last = keys
    full_last = keys // BLOCK_N * BLOCK_N
    if CAUSAL:
        last = tl.minimum(keys, m0 + BLOCK_M + offset)
        full_last = tl.minimum(full_last, tl.maximum(m0 + offset + 1, 0) // BLOCK_N * BLOCK_N)
    if WINDOW:
        first = tl.maximum(m0 + offset - window + 1, 0) // BLOCK_N * BLOCK_N
        full_last = first
        if not CAUSAL:
            last = tl.minimum(keys, m0 + BLOCK_M + offset + window - 1)
    q_MD = _rows(q, q_base, m0, queries, stride_qs, b, h, BLOCK_M, D, TMA)
    do_MD = _rows(dout, d_base, m0, queries, stride_ds, b, h, BLOCK_M, D, TMA)
    row = (b64 * heads + h64) * padded + q_start
    shift_M = tl.load(shift + row + i_M, mask=i_M < queries, other=float("inf"))
    delta_M = tl.load(delta + row + i_M, mask=i_M < queries, other=0.0)
    dq_MD = tl.zeros([BLOCK_M, D], tl.float32)
    dq_MD = _sweep_keys(
        dq_MD, q_MD, do_MD, shift_M, delta_M, k, v, bias_row, k_base, v_base, stride_kt, stride_vt, stride_bt, b,
        kv_head, i_M, queries, keys, scale_log2, window, first, full_last,
        D, BLOCK_M, BLOCK_N, False, CAUSAL, WINDOW, BIAS, TMA,
    )  # fmt: skip
    dq_MD = _sweep_keys(
        dq_MD, q_MD, do_MD, shift_M, delta_M, k, v, bias_row, k_base, v_base, stride_kt, stride_vt, stride_bt, b,
        kv_head, i_M, queries, keys, scale_log2, window, full_last, last,
        D, BLOCK_M, BLOCK_N, True, CAUSAL, WINDOW, BIAS, TMA,
    )  # fmt: skip
    at = b64 * stride_dqb + h64 * stride_dqh + (q_start + i_M)[:, None].to(tl.int64) * stride_dqs
    tl.store(dq + at + tl.arange(0, D)[None, :], (dq_MD * scale).to(dq.dtype.element_ty), mask=(i_M < queries)[:, None])


@triton.jit(do_not_specialize=SIZES)
def attention_finish_dq(dq32, dq, scale, queries, padded, D: tl.constexpr, BLOCK_M: tl.constexpr):
    """dq [B, H, S, D] = scale * dq32 [B, H, padded, D], both contiguous. Grid: (tiles of queries, batch * heads)."""
    row_M = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    batch_head = tl.program_id(1).to(tl.int64)
    inside = (row_M < queries)[:, None]
    d_D = tl.arange(0, D)[None, :]
    value_MD = tl.load(dq32 + (batch_head * padded + row_M[:, None]) * D + d_D, mask=inside, other=0.0) * scale
    tl.store(dq + (batch_head * queries + row_M[:, None]) * D + d_D, value_MD.to(dq.dtype.element_ty), mask=inside)
