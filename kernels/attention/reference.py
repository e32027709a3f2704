"""Attention written out: scores, mask, softmax, sum. What every faster path is compared with."""

from __future__ import annotations

import torch
from torch import Tensor


def attention_reference(
    q_BHSD: Tensor,
    k_BKTD: Tensor,
    v_BKTD: Tensor,
    *,
    scale: float | None = None,
    window: int | None = None,
    key_bias_BKT: Tensor | None = None,
    causal: bool = True,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """[B, H, S, D] in ``dtype``; the arguments of `perdure.kernels.attention`, computed in ``dtype``."""
    q, k, v = (x.to(dtype) for x in (q_BHSD, k_BKTD, v_BKTD))
    return attention_written_out(q, k, v, scale=scale, window=window, key_bias_BKT=key_bias_BKT, causal=causal)[0]


def attention_written_out(
    q_BHSD: Tensor,
    k_BKTD: Tensor,
    v_BKTD: Tensor,
    *,
    scale: float | None = None,
    window: int | None = None,
    key_bias_BKT: Tensor | None = None,
    causal: bool = True,
) -> tuple[Tensor, Tensor]:
    """(out in the dtype of q, log-sum-exp [B, H, S]); the arithmetic is that of the dtype, at least float32.

    A query that sees no key (or only keys of bias -inf) gets zeros and -inf, and no gradient.
    """
    _, heads, queries, dim = q_BHSD.shape
    per_kv, keys = heads // k_BKTD.shape[1], k_BKTD.shape[2]
    wide = torch.promote_types(q_BHSD.dtype, torch.float32)
    k = k_BKTD.to(wide).repeat_interleave(per_kv, dim=1)
    v = v_BKTD.to(wide).repeat_interleave(per_kv, dim=1)
    scores = q_BHSD.to(wide) @ k.transpose(-1, -2) * (dim**-0.5 if scale is None else scale)
    if key_bias_BKT is not None:
        scores = scores + key_bias_BKT.to(wide).repeat_interleave(per_kv, dim=1)[:, :, None]
    query_at = torch.arange(keys - queries, keys, device=q_BHSD.device)[:, None]
    key_at = torch.arange(keys, device=q_BHSD.device)
    seen = torch.ones(queries, keys, dtype=torch.bool, device=q_BHSD.device)
    if causal:
        seen &= key_at <= query_at
    if window is not None:
        seen &= key_at > query_at - window
        if not causal:
            seen &= key_at < query_at + window
    scores = scores.masked_fill(~seen, -torch.inf)
    alive = (scores > -torch.inf).any(-1, keepdim=True)
    # Rows without keys are computed on zeros and then cleared: neither they nor their gradients are NaN.
    scores = torch.where(alive, scores, torch.zeros_like(scores))
    lse = torch.logsumexp(scores, dim=-1)
    out = torch.where(alive, torch.softmax(scores, dim=-1), torch.zeros_like(scores)) @ v
    return out.to(q_BHSD.dtype), torch.where(alive[..., 0], lse, torch.full_like(lse, -torch.inf))
