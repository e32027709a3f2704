"""Triton kernels of SageBwd: the backward of INT8 attention, in INT8 but for dP = dO V^T.

Legend as in ``kernel.py``. Quantised rows come from ``quantize_rows``: one scale for each tile of M queries. Pointers:
q8 [B H, S_PAD, D] and its transpose qt8 [B H, D, S_PAD]; dot8 the transpose of quantised dO; v, do in half precision;
lse and delta = rowsum(dO * O) [B H, S] fp32, lse in base 2 and of the keys without their mean.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .kernel import to_int8

__all__ = ["backward_keys", "backward_queries"]


@triton.jit
def _scores(q8, k8t, d, lse, delta, do, v_t, seen):
    """P and dS of one tile, [M, N] fp32."""
    s = tl.dot(q8, k8t, out_dtype=tl.int32).to(tl.float32)
    p = tl.where(seen, tl.exp2(s * d - lse[:, None]), 0.0)
    dp = tl.dot(do, v_t)
    return p, p * (dp - delta[:, None])


@triton.jit
def _scores_t(k8, q8t, d, lse, delta, v, do_t, seen):
    """The same, transposed: [N, M]."""
    s = tl.dot(k8, q8t, out_dtype=tl.int32).to(tl.float32)
    p = tl.where(seen, tl.exp2(s * d - lse[None, :]), 0.0)
    dp = tl.dot(v, do_t)
    return p, p * (dp - delta[None, :])


@triton.jit(do_not_specialize=["H", "K", "S", "T"])
def backward_keys(
    q8_ptr, qt8_ptr, q_scale_ptr, k8_ptr, k_scale_ptr, v_ptr, do_ptr, dot8_ptr, do_scale_ptr, lse_ptr, delta_ptr,
    dk_ptr, dv_ptr, scale, scale_log2e, H, K, S, S_PAD, T, T_PAD,
    D: tl.constexpr, M: tl.constexpr, N: tl.constexpr, CAUSAL: tl.constexpr,
):  # fmt: skip
    """dK and dV of N keys: dV = P^T dO and dK = dS^T Q, summed over the query heads of the group."""
    tile, bk = tl.program_id(0), tl.program_id(1).to(tl.int64)
    group = H // K
    cols = tile * N + tl.arange(0, N)
    dims = tl.arange(0, D)
    here = (cols < T)[:, None]
    offset = (bk * T + cols)[:, None] * D + dims[None, :]
    k8 = tl.load(k8_ptr + (bk * T_PAD + cols)[:, None] * D + dims[None, :])
    k_scale = tl.load(k_scale_ptr + bk * (T_PAD // N) + tile)
    v = tl.load(v_ptr + offset, mask=here, other=0.0)
    dk = tl.zeros([N, D], tl.float32)
    dv = tl.zeros([N, D], tl.float32)
    first = 0
    if CAUSAL:
        first = tl.maximum(tile * N - (T - S), 0) // M
    for g in range(0, group):
        bh = bk // K * H + bk % K * group + g
        for i in range(first, tl.cdiv(S, M)):
            rows = i * M + tl.arange(0, M)
            live = rows < S
            transposed = (bh * D + dims)[None, :] * S_PAD + rows[:, None]
            q8t = tl.load(q8_ptr + (bh * S_PAD + rows)[None, :] * D + dims[:, None])
            q_scale = tl.load(q_scale_ptr + bh * (S_PAD // M) + i)
            do_scale = tl.load(do_scale_ptr + bh * (S_PAD // M) + i)
            do_t = tl.load(do_ptr + (bh * S + rows)[None, :] * D + dims[:, None], mask=live[None, :], other=0.0)
            lse = tl.load(lse_ptr + bh * S + rows, mask=live, other=0.0)
            delta = tl.load(delta_ptr + bh * S + rows, mask=live, other=0.0)
            seen = here & live[None, :]
            if CAUSAL:
                seen = seen & (cols[:, None] <= (T - S + rows)[None, :])
            p, ds = _scores_t(k8, q8t, k_scale * q_scale * scale_log2e, lse, delta, v, do_t, seen)
            p_top = tl.maximum(tl.max(p), 1e-20)
            pv = tl.dot(to_int8(p, 127.0 / p_top), tl.load(dot8_ptr + transposed), out_dtype=tl.int32)
            dv += pv.to(tl.float32) * (p_top / 127.0 * do_scale)
            ds_top = tl.maximum(tl.max(tl.abs(ds)), 1e-20)
            dq = tl.dot(to_int8(ds, 127.0 / ds_top), tl.load(qt8_ptr + transposed), out_dtype=tl.int32)
            dk += dq.to(tl.float32) * (ds_top / 127.0 * q_scale)
    tl.store(dk_ptr + offset, (dk * scale).to(dk_ptr.dtype.element_ty), mask=here)
    tl.store(dv_ptr + offset, dv.to(dv_ptr.dtype.element_ty), mask=here)


@triton.jit(do_not_specialize=["H", "K", "S", "T"])
def backward_queries(
    q8_ptr, q_scale_ptr, k8_ptr, kt8_ptr, k_scale_ptr, mean_ptr, v_ptr, do_ptr, lse_ptr, delta_ptr,
    dq_ptr, scale, scale_log2e, H, K, S, S_PAD, T, T_PAD,
    D: tl.constexpr, M: tl.constexpr, N: tl.constexpr, CAUSAL: tl.constexpr,
):  # fmt: skip
    """dQ of M queries: dS K' + rowsum(dS) mean(K); the row sum is zero but for the rounding of dS."""
    tile, bh = tl.program_id(0), tl.program_id(1).to(tl.int64)
    bk = bh // H * K + bh % H // (H // K)
    rows = tile * M + tl.arange(0, M)
    dims = tl.arange(0, D)
    live = rows < S
    offset = (bh * S + rows)[:, None] * D + dims[None, :]
    q8 = tl.load(q8_ptr + (bh * S_PAD + rows)[:, None] * D + dims[None, :])
    q_scale = tl.load(q_scale_ptr + bh * (S_PAD // M) + tile)
    do = tl.load(do_ptr + offset, mask=live[:, None], other=0.0)
    lse = tl.load(lse_ptr + bh * S + rows, mask=live, other=0.0)
    delta = tl.load(delta_ptr + bh * S + rows, mask=live, other=0.0)
    dq = tl.zeros([M, D], tl.float32)
    rest = tl.zeros([M], tl.float32)
    tiles = tl.cdiv(T, N)
    if CAUSAL:
        tiles = tl.minimum(tiles, tl.cdiv(T - S + (tile + 1) * M, N))
    for j in range(0, tiles):
        cols = j * N + tl.arange(0, N)
        k8t = tl.load(k8_ptr + (bk * T_PAD + cols)[None, :] * D + dims[:, None])
        k_scale = tl.load(k_scale_ptr + bk * (T_PAD // N) + j)
        v_t = tl.load(v_ptr + (bk * T + cols)[None, :] * D + dims[:, None], mask=(cols < T)[None, :], other=0.0)
        seen = live[:, None] & (cols < T)[None, :]
        if CAUSAL:
            seen = seen & (cols[None, :] <= (T - S + rows)[:, None])
        _, ds = _scores(q8, k8t, q_scale * k_scale * scale_log2e, lse, delta, do, v_t, seen)
        ds_top = tl.maximum(tl.max(tl.abs(ds)), 1e-20)
        ds8 = to_int8(ds, 127.0 / ds_top)
        k8 = tl.load(kt8_ptr + (bk * D + dims)[None, :] * T_PAD + cols[:, None])
        dq += tl.dot(ds8, k8, out_dtype=tl.int32).to(tl.float32) * (ds_top / 127.0 * k_scale)
        rest += tl.sum(ds8.to(tl.int32), 1).to(tl.float32) * (ds_top / 127.0)
    dq += rest[:, None] * tl.load(mean_ptr + bk * D + dims)[None, :]
    tl.store(dq_ptr + offset, (dq * scale).to(dq_ptr.dtype.element_ty), mask=live[:, None])
