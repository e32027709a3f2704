"""Attention over a ragged cache (and new tokens behind it) written out, one segment at a time.

What the kernels are compared with (float32 or float64), and, through torch's own CPU attention, what serves on a CPU.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from .ragged import RaggedKV, dequantize_kv

__all__ = ["ragged_attention", "ragged_attention_reference"]

_FLASH_CPU = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu


def ragged_attention_reference(
    q_BHSD: Tensor,
    cache: RaggedKV,
    *,
    tail: tuple[Tensor, Tensor] | None = None,
    scale: float | None = None,
    q_pos_BS: Tensor | None = None,
    window: int | None = None,
    dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor]:
    """(out [B, H, S, D], log-sum-exp [B, H, S]) in ``dtype``; nothing visible: 0 and -inf.

    The arguments are those of `decode_attention`, and with a ``tail`` (k_BKTD, v_BKTD) those of `append_attention`.
    """
    batch, heads, queries, dim = q_BHSD.shape
    kv_heads = cache.segments // batch
    per_kv = heads // kv_heads
    out = q_BHSD.new_empty(batch, kv_heads, per_kv, queries, dim, dtype=dtype)
    lse = q_BHSD.new_empty(batch, kv_heads, per_kv, queries, dtype=dtype)
    for segment, length in enumerate(cache.lengths().tolist()):
        b, h = divmod(segment, kv_heads)
        k, v = dequantize_kv(cache, segment, length, dtype)
        bias = _bias(cache, segment, length, dtype)
        seen = _seen(cache, segment, length, None if q_pos_BS is None else q_pos_BS[b], window, queries)
        if tail is not None:
            k, v, bias, seen = _with_tail(k, v, bias, seen, tail, b, h, queries, window)
        q = q_BHSD.reshape(batch, kv_heads, per_kv, queries, dim)[b, h].to(dtype)
        scores = q @ k.T * (dim**-0.5 if scale is None else scale) + bias
        scores = scores.masked_fill(~seen, -torch.inf)
        lse[b, h] = torch.logsumexp(scores, dim=-1)
        weights = torch.exp(scores - lse[b, h].nan_to_num(neginf=0.0)[..., None])
        out[b, h] = weights @ v
    return out.view(batch, heads, queries, dim), lse.view(batch, heads, queries)


def ragged_attention(
    q_BHSD: Tensor,
    cache: RaggedKV,
    *,
    tail: tuple[Tensor, Tensor] | None = None,
    scale: float,
    q_pos_BS: Tensor | None = None,
    window: int | None = None,
) -> tuple[Tensor, Tensor]:
    """The same in the dtype of q (lse float32), by the fastest torch operators: the path of CPUs and odd devices.

    The rows of a segment are its group's heads times the queries: keys and values are read once.
    """
    batch, heads, queries, dim = q_BHSD.shape
    kv_heads = cache.segments // batch
    rows = heads // kv_heads * queries
    lengths = cache.lengths().tolist()
    q_SRD = q_BHSD.reshape(cache.segments, rows, dim)
    if tail is None and q_pos_BS is None and cache.block_table_SP is None and _equal(cache, lengths):
        return _dense(q_BHSD, q_SRD, cache, scale)
    out, lse = q_SRD.new_empty(q_SRD.shape), q_SRD.new_empty(cache.segments, rows, dtype=torch.float32)
    for segment, length in enumerate(lengths):
        b, h = divmod(segment, kv_heads)
        k, v = dequantize_kv(cache, segment, length, q_BHSD.dtype)
        bias = None if cache.bias_N is None else _bias(cache, segment, length, q_BHSD.dtype)
        if tail is not None and q_pos_BS is None:
            parts = [_tail(q_SRD[segment], tail[0][b, h], tail[1][b, h], scale, heads // kv_heads)]
            if length:
                parts.append(_attend(q_SRD[segment], k, v, bias, scale, heads // kv_heads))
            out[segment], lse[segment] = _merge(parts)
            continue
        if q_pos_BS is not None:
            seen = _seen(cache, segment, length, None if q_pos_BS is None else q_pos_BS[b], window, queries)
            bias = _bias(cache, segment, length, q_BHSD.dtype) if bias is None else bias
            if tail is not None:
                k, v, bias, seen = _with_tail(k, v, bias, seen, tail, b, h, queries, window)
            bias = torch.where(seen, bias, -torch.inf).to(q_BHSD.dtype)
        out[segment], lse[segment] = _attend(q_SRD[segment], k, v, bias, scale, heads // kv_heads)
    return out.view(q_BHSD.shape), lse.view(batch, heads, queries)


def _tail(q_RD: Tensor, k_TD: Tensor, v_TD: Tensor, scale: float, per_kv: int) -> tuple[Tensor, Tensor]:
    """The new tokens alone, causally."""
    new, queries = k_TD.shape[0], q_RD.shape[0] // per_kv
    hidden = torch.ones(queries, new, dtype=torch.bool, device=k_TD.device).triu(new - queries + 1)
    mask = torch.zeros(queries, new, dtype=q_RD.dtype, device=k_TD.device).masked_fill_(hidden, -torch.inf)
    return _attend(q_RD, k_TD, v_TD, mask, scale, per_kv)


def _merge(parts: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Outputs [R, D] and log-sum-exps [R] of disjoint keys to those of all; at least one part is not empty."""
    lse = torch.logsumexp(torch.stack([part[1] for part in parts]), dim=0)
    out = sum(part[0] * (part[1] - lse).exp()[:, None] for part in parts)
    assert isinstance(out, Tensor)
    return out, lse


def _equal(cache: RaggedKV, lengths: list[int]) -> bool:
    """Whether the segments are one dense tensor (nothing between them, all of one length)."""
    return (
        len(set(lengths)) == 1
        and lengths[0] > 0
        and cache.k_ND.shape[0] == len(lengths) * lengths[0]
        and cache.format == "plain"
    )


def _dense(q_BHSD: Tensor, q_SRD: Tensor, cache: RaggedKV, scale: float) -> tuple[Tensor, Tensor]:
    shape = (1, cache.segments, -1, cache.dim)
    k, v = cache.k_ND.view(shape), cache.v_ND.view(shape)
    bias = None if cache.bias_N is None else cache.bias_N.to(q_SRD.dtype).view(1, cache.segments, 1, -1)
    out, lse = _operator(q_SRD[None], k.to(q_SRD.dtype), v.to(q_SRD.dtype), bias, scale)
    return out.reshape(q_BHSD.shape), lse.reshape(q_BHSD.shape[:3])


def _attend(
    q_RD: Tensor, k_TD: Tensor, v_TD: Tensor, bias: Tensor | None, scale: float, per_kv: int
) -> tuple[Tensor, Tensor]:
    """One segment. bias [T] or [S, T]: with a row per query, the heads stay heads that share keys, values and bias."""
    if bias is None or bias.shape[0] == 1 or bias.ndim == 1:
        mask = None if bias is None else bias.view(1, 1, 1, -1)
        out, lse = _operator(q_RD[None, None], k_TD[None, None], v_TD[None, None], mask, scale)
        return out[0, 0], lse[0, 0]
    q_HSD = q_RD.view(per_kv, -1, q_RD.shape[1])
    k_HTD, v_HTD = (x.expand(per_kv, *x.shape) for x in (k_TD, v_TD))
    out, lse = _operator(q_HSD[None], k_HTD[None], v_HTD[None], bias[None, None], scale)
    return out[0].flatten(0, 1), lse[0].flatten()


def _operator(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
    """torch's CPU flash attention, or plain operators on another device and where a row sees nothing."""
    if k.shape[2] and q.device.type == "cpu":
        out, lse = _FLASH_CPU(q, k, v, attn_mask=mask, scale=scale)
        lse = lse.view(q.shape[:3]) if lse.shape == q.shape[:3] else lse.transpose(1, 2)
        if mask is None or bool((mask > -torch.inf).any(-1).all()):
            return out, lse.float()
    scores = (q @ k.transpose(-1, -2)).float() * scale
    scores = scores if mask is None else scores + mask
    lse = torch.logsumexp(scores, dim=-1)
    weights = torch.exp(scores - lse.nan_to_num(neginf=0.0)[..., None])
    return weights.to(v.dtype) @ v, lse


def _bias(cache: RaggedKV, segment: int, length: int, dtype: torch.dtype) -> Tensor:
    if cache.bias_N is None:
        return torch.zeros(length, dtype=dtype, device=cache.k_ND.device)
    return cache.bias_N[cache.rows(segment, length)].to(dtype)


def _seen(
    cache: RaggedKV, segment: int, length: int, q_pos_S: Tensor | None, window: int | None, queries: int
) -> Tensor:
    """bool [S, length]."""
    if q_pos_S is None:
        return torch.ones(queries, length, dtype=torch.bool, device=cache.k_ND.device)
    at = torch.arange(length, device=cache.k_ND.device)
    pos = at if cache.pos_N is None else cache.pos_N[cache.rows(segment, length)]
    seen = pos <= q_pos_S[:, None]
    return seen if window is None else seen & (pos > q_pos_S[:, None] - window)


def _with_tail(
    k: Tensor,
    v: Tensor,
    bias: Tensor,
    seen: Tensor,
    tail: tuple[Tensor, Tensor],
    b: int,
    h: int,
    queries: int,
    window: int | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Prefix and tail of one segment joined; query i stands at token T - S + i of the tail."""
    k_tail, v_tail = (x[b, h].to(k.dtype) for x in tail)
    new = k_tail.shape[0]
    at, stands = torch.arange(new, device=k.device), torch.arange(new - queries, new, device=k.device)[:, None]
    causal = at <= stands
    if window is not None:
        causal &= at > stands - window
    return torch.cat((k, k_tail)), torch.cat((v, v_tail)), pad(bias, (0, new)), torch.cat((seen, causal), dim=1)
