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
) -> Tensor:
    """float32 [B, H, S, D]; the arguments of `perdure.kernels.attention`, computed in float32."""
    _, heads, queries, dim = q_BHSD.shape
    per_kv, keys = heads // k_BKTD.shape[1], k_BKTD.shape[2]
    k = k_BKTD.float().repeat_interleave(per_kv, dim=1)
    v = v_BKTD.float().repeat_interleave(per_kv, dim=1)
    scores = q_BHSD.float() @ k.transpose(-1, -2) * (dim**-0.5 if scale is None else scale)
    if key_bias_BKT is not None:
        scores = scores + key_bias_BKT.float().repeat_interleave(per_kv, dim=1)[:, :, None]
    query_at = torch.arange(keys - queries, keys, device=q_BHSD.device)[:, None]
    key_at = torch.arange(keys, device=q_BHSD.device)
    seen = key_at <= query_at
    if window is not None:
        seen &= key_at > query_at - window
    return torch.softmax(scores.masked_fill(~seen, -torch.inf), dim=-1) @ v
