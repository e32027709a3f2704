"""Causal attention of new tokens over a cached prefix and themselves. Derivation: README.md."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from ...errors import BadInput
from .reference import attention_reference

__all__ = ["attention", "attention_reference"]


def attention(
    q_BHSD: Tensor,
    k_BKTD: Tensor,
    v_BKTD: Tensor,
    *,
    scale: float | None = None,
    window: int | None = None,
    key_bias_BKT: Tensor | None = None,
    mask_BHST: Tensor | None = None,
) -> Tensor:
    """out = softmax(scale * q k^T + bias + mask) v, grouped-query and causal.

    The S queries are the last S of the T positions: query i sees keys 0 .. T - S + i.

    Args:
        q_BHSD: queries [B, H, S, D], S >= 1.
        k_BKTD: keys [B, K, T, D], K divides H, T >= S, same dtype as q.
        v_BKTD: values [B, K, T, D].
        scale: factor of the scores; default D ** -0.5.
        window: a query sees only the last ``window`` positions, itself included; None for all.
        key_bias_BKT: added to the scores of a key in every query of its KV head (attention matching); float.
        mask_BHST: takes the place of the causal mask and the window: bool (True: seen) or additive float,
            [B or 1, H or 1, S, T].

    Returns:
        [B, H, S, D] in the dtype of q.

    Raises:
        BadInput: shapes or dtypes do not fit.
    """
    _check(q_BHSD, k_BKTD, v_BKTD, window, key_bias_BKT, mask_BHST)
    batch, heads, queries, dim = q_BHSD.shape
    kv_heads, keys = k_BKTD.shape[1], k_BKTD.shape[2]
    if queries == 1 and mask_BHST is None:
        # One query sees everything (inside the window): the heads of a group become its queries, nothing is repeated.
        if window is not None and keys > window:
            k_BKTD, v_BKTD = k_BKTD[:, :, -window:], v_BKTD[:, :, -window:]
            key_bias_BKT = None if key_bias_BKT is None else key_bias_BKT[:, :, -window:]
        bias = None if key_bias_BKT is None else key_bias_BKT[:, :, None].to(q_BHSD.dtype)
        q = q_BHSD.reshape(batch, kv_heads, heads // kv_heads, dim)
        return scaled_dot_product_attention(q, k_BKTD, v_BKTD, attn_mask=bias, scale=scale).reshape(q_BHSD.shape)
    if mask_BHST is None and keys == queries and key_bias_BKT is None and (window is None or window >= keys):
        return scaled_dot_product_attention(
            q_BHSD, k_BKTD, v_BKTD, is_causal=True, scale=scale, enable_gqa=heads != kv_heads
        )
    mask = _mask(queries, keys, window, q_BHSD) if mask_BHST is None else mask_BHST
    if mask.dtype == torch.bool and key_bias_BKT is not None:
        mask = torch.zeros(mask.shape, dtype=q_BHSD.dtype, device=mask.device).masked_fill_(~mask, -torch.inf)
    if key_bias_BKT is not None:
        mask = mask + key_bias_BKT.to(q_BHSD.dtype).repeat_interleave(heads // kv_heads, dim=1)[:, :, None]
    return scaled_dot_product_attention(
        q_BHSD, k_BKTD, v_BKTD, attn_mask=mask, scale=scale, enable_gqa=heads != kv_heads
    )


def _mask(queries: int, keys: int, window: int | None, like: Tensor) -> Tensor:
    """Additive [S, T]: 0 where query i sees key j, -inf elsewhere."""
    query_at = torch.arange(keys - queries, keys, device=like.device)[:, None]
    key_at = torch.arange(keys, device=like.device)
    hidden = key_at > query_at
    if window is not None:
        hidden |= key_at <= query_at - window
    return torch.zeros(queries, keys, dtype=like.dtype, device=like.device).masked_fill_(hidden, -torch.inf)


def _check(q: Tensor, k: Tensor, v: Tensor, window: int | None, bias: Tensor | None, mask: Tensor | None) -> None:
    if q.ndim != 4 or k.ndim != 4 or k.shape != v.shape:
        raise BadInput(
            f"expected q [B, H, S, D] and k, v [B, K, T, D], got {tuple(q.shape)}, {tuple(k.shape)}, {tuple(v.shape)}"
        )
    if q.shape[0] != k.shape[0] or q.shape[3] != k.shape[3] or q.shape[1] % k.shape[1]:
        raise BadInput(f"expected equal B and D, and H a multiple of K, got q {tuple(q.shape)} and k {tuple(k.shape)}")
    if not 1 <= q.shape[2] <= k.shape[2]:
        raise BadInput(f"expected 1 <= S <= T (the queries are the last positions), got S={q.shape[2]}, T={k.shape[2]}")
    if q.dtype != k.dtype or q.dtype != v.dtype:
        raise BadInput(f"expected one dtype for q, k and v, got {q.dtype}, {k.dtype}, {v.dtype}")
    if window is not None and window < 1:
        raise BadInput(f"expected a window of at least 1, got {window}")
    if bias is not None and bias.shape != k.shape[:3]:
        raise BadInput(f"expected a key bias {tuple(k.shape[:3])}, got {tuple(bias.shape)}")
    if mask is not None and (mask.ndim != 4 or mask.shape[-2:] != (q.shape[2], k.shape[2]) or window is not None):
        raise BadInput(f"expected a mask [B, H, {q.shape[2]}, {k.shape[2]}] and no window, got {tuple(mask.shape)}")
