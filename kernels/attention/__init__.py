"""Attention of queries over keys, forward and backward. Derivation and figures: README.md."""

from __future__ import annotations

import importlib.util
from itertools import pairwise
from typing import Literal, overload

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from ...errors import BadInput
from ..dispatch import capability, choose
from .reference import attention_reference, attention_written_out

__all__ = ["attention", "attention_reference"]


@overload
def attention(
    q_BHSD: Tensor, k_BKTD: Tensor, v_BKTD: Tensor, *, scale: float | None = ..., window: int | None = ...,
    key_bias_BKT: Tensor | None = ..., mask_BHST: Tensor | None = ..., causal: bool = ...,
    cu_seqlens: Tensor | None = ...,
    cu_seqlens_k: Tensor | None = ..., deterministic: bool = ..., return_lse: Literal[False] = ...,
) -> Tensor: ...  # fmt: skip


@overload
def attention(
    q_BHSD: Tensor, k_BKTD: Tensor, v_BKTD: Tensor, *, scale: float | None = ..., window: int | None = ...,
    key_bias_BKT: Tensor | None = ..., mask_BHST: Tensor | None = ..., causal: bool = ...,
    cu_seqlens: Tensor | None = ...,
    cu_seqlens_k: Tensor | None = ..., deterministic: bool = ..., return_lse: Literal[True],
) -> tuple[Tensor, Tensor]: ...  # fmt: skip


def attention(
    q_BHSD: Tensor,
    k_BKTD: Tensor,
    v_BKTD: Tensor,
    *,
    scale: float | None = None,
    window: int | None = None,
    key_bias_BKT: Tensor | None = None,
    mask_BHST: Tensor | None = None,
    causal: bool = True,
    cu_seqlens: Tensor | None = None,
    cu_seqlens_k: Tensor | None = None,
    deterministic: bool = False,
    return_lse: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """out = softmax(scale * q k^T + bias + mask) v, grouped-query, differentiable.

    The S queries are the last S of the T positions: query i stands at T - S + i and, if causal, sees keys up to there.
    Packed sequences: B = 1 and ``cu_seqlens``; each sequence is aligned at its own end and sees nothing of the others.
    A query that sees no key gets zeros and the log-sum-exp -inf.

    Args:
        q_BHSD: queries [B, H, S, D]. On a GPU the kernels take float16 and bfloat16, D a power of two from 16 to 256
            and any strides whose last is 1; other types and sizes go to torch.
        k_BKTD: keys [B, K, T, D], K divides H, same dtype as q; T >= S if causal.
        v_BKTD: values [B, K, T, D].
        scale: factor of the scores, > 0; default D ** -0.5.
        window: causal: a query sees only the last ``window`` positions, itself included; else keys closer than
            ``window`` on both sides; None for all.
        key_bias_BKT: added to the scores of a key in every query of its KV head (attention matching); float;
            -inf hides a key.
        mask_BHST: takes the place of the causal mask and the window: bool (True: seen) or additive float,
            [B or 1, H or 1, S, T]; always computed by torch.
        causal: False: every key is seen.
        cu_seqlens: int32 [n + 1], first 0, rising: queries (and keys) of sequence i are the rows c[i] .. c[i + 1] - 1.
        cu_seqlens_k: the same of the keys, if they are not those of the queries.
        deterministic: the same bits every time, for dQ too (slower).
        return_lse: also return float32 [B, H, S], the natural logarithm of the sum of exp(score) (differentiable).

    Returns:
        [B, H, S, D] in the dtype of q, or that and the log-sum-exp.

    Raises:
        BadInput: shapes, dtypes, strides or devices do not fit.

    Source: FlashAttention-2 and -3 (arXiv 2307.08691, 2407.08608), FlashAttention-4 (arXiv 2603.05451).
    """
    _check(q_BHSD, k_BKTD, v_BKTD, scale, window, key_bias_BKT, mask_BHST, causal, cu_seqlens is not None)
    _check_packing(q_BHSD, k_BKTD, cu_seqlens, cu_seqlens_k, mask_BHST)
    scale = q_BHSD.shape[3] ** -0.5 if scale is None else scale
    if window is not None and causal and window >= k_BKTD.shape[2]:
        window = None
    alone = q_BHSD.shape[2] == 1 and causal and cu_seqlens is None and not return_lse  # decode_attention is for these
    if mask_BHST is None and not alone:
        chosen = choose("attention", q_BHSD.device, CANDIDATES)
        if chosen == "flash-attn-4" and key_bias_BKT is None and not return_lse and cu_seqlens is None:
            return _flash_attn_4(q_BHSD, k_BKTD, v_BKTD, scale, window, causal, deterministic)
        if chosen != "torch" and _kernel_can(q_BHSD, key_bias_BKT):
            from .launch import Call, run

            call = Call(scale, causal, window, deterministic, gluon=chosen == "gluon")
            out, lse = run(q_BHSD, k_BKTD, v_BKTD, key_bias_BKT, cu_seqlens, cu_seqlens_k, call)
            return (out, lse) if return_lse else out
    if cu_seqlens is not None:
        return _packed(
            q_BHSD, k_BKTD, v_BKTD, scale, window, key_bias_BKT, causal, cu_seqlens, cu_seqlens_k, return_lse
        )
    if return_lse:
        if mask_BHST is not None:
            raise BadInput("the log-sum-exp is not available with a mask")
        return attention_written_out(
            q_BHSD, k_BKTD, v_BKTD, scale=scale, window=window, key_bias_BKT=key_bias_BKT, causal=causal
        )
    return _torch(q_BHSD, k_BKTD, v_BKTD, scale, window, key_bias_BKT, mask_BHST, causal)


def _is_hopper(device: torch.device) -> bool:
    return capability(device) == (9, 0) and importlib.util.find_spec("triton") is not None


def _has_triton(device: torch.device) -> bool:
    found = capability(device)
    return found is not None and found >= (8, 0) and importlib.util.find_spec("triton") is not None


def _has_flash_attn_4(device: torch.device) -> bool:
    found = capability(device)
    if found is None or found < (10, 0) or importlib.util.find_spec("flash_attn") is None:
        return False
    return importlib.util.find_spec("flash_attn.cute") is not None


CANDIDATES = {
    "flash-attn-4": _has_flash_attn_4,
    "gluon": _is_hopper,
    "triton": _has_triton,
    "torch": lambda device: True,
}


def _kernel_can(q: Tensor, bias: Tensor | None) -> bool:
    if q.dtype not in (torch.float16, torch.bfloat16) or q.shape[3] not in (16, 32, 64, 128, 256):
        return False
    return bias is None or bias.is_floating_point()


def _flash_attn_4(
    q: Tensor, k: Tensor, v: Tensor, scale: float, window: int | None, causal: bool, deterministic: bool
) -> Tensor:
    """Blackwell: the published kernels (layout [B, S, H, D]). Not tested here: no such card and no such package."""
    from flash_attn.cute import flash_attn_func  # type: ignore[import-not-found,unused-ignore]

    left = None if window is None else window - 1
    out = flash_attn_func(
        q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), softmax_scale=scale, causal=causal,
        window_size=(left, 0 if causal and left is not None else left), deterministic=deterministic,
    )  # fmt: skip
    out = out[0] if isinstance(out, tuple) else out
    result: Tensor = out.transpose(1, 2)
    return result


def _packed(
    q: Tensor, k: Tensor, v: Tensor, scale: float, window: int | None, bias: Tensor | None, causal: bool,
    cu_q: Tensor, cu_k: Tensor | None, return_lse: bool,
) -> Tensor | tuple[Tensor, Tensor]:  # fmt: skip
    """Sequence by sequence in plain torch."""
    ends_q, ends_k = cu_q.tolist(), (cu_q if cu_k is None else cu_k).tolist()
    outs, lses = [], []
    for (q0, q1), (k0, k1) in zip(pairwise(ends_q), pairwise(ends_k), strict=True):
        if q1 == q0:
            continue
        part = None if bias is None else bias[:, :, k0:k1]
        out, lse = attention_written_out(
            q[:, :, q0:q1], k[:, :, k0:k1], v[:, :, k0:k1], scale=scale, window=window, key_bias_BKT=part, causal=causal
        )
        outs.append(out)
        lses.append(lse)
    out = torch.cat(outs, 2) if outs else torch.empty_like(q)
    lse = torch.cat(lses, 2) if lses else q.new_empty(q.shape[:3], dtype=torch.float32)
    return (out, lse) if return_lse else out


def _torch(
    q: Tensor, k: Tensor, v: Tensor, scale: float, window: int | None, bias: Tensor | None, mask: Tensor | None,
    causal: bool,
) -> Tensor:  # fmt: skip
    """The best operator of torch for the case."""
    batch, heads, queries, dim = q.shape
    kv_heads, keys = k.shape[1], k.shape[2]
    if queries == 1 and mask is None and causal:
        # One query sees everything (inside the window): the heads of a group become its queries, nothing is repeated.
        if window is not None and keys > window:
            k, v = k[:, :, -window:], v[:, :, -window:]
            bias = None if bias is None else bias[:, :, -window:]
        added = None if bias is None else bias[:, :, None].to(q.dtype)
        grouped = q.reshape(batch, kv_heads, heads // kv_heads, dim)
        return scaled_dot_product_attention(grouped, k, v, attn_mask=added, scale=scale).reshape(q.shape)
    whole = window is None or window >= keys
    if mask is None and bias is None and whole and (not causal or keys == queries):
        return scaled_dot_product_attention(q, k, v, is_causal=causal, scale=scale, enable_gqa=heads != kv_heads)
    mask = _mask(queries, keys, window, causal, q) if mask is None else mask
    if mask.dtype == torch.bool and bias is not None:
        mask = torch.zeros(mask.shape, dtype=q.dtype, device=mask.device).masked_fill_(~mask, -torch.inf)
    if bias is not None:
        mask = mask + bias.to(q.dtype).repeat_interleave(heads // kv_heads, dim=1)[:, :, None]
    return scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale, enable_gqa=heads != kv_heads)


def _mask(queries: int, keys: int, window: int | None, causal: bool, like: Tensor) -> Tensor:
    """Additive [S, T]: 0 where query i sees key j, -inf elsewhere."""
    query_at = torch.arange(keys - queries, keys, device=like.device)[:, None]
    key_at = torch.arange(keys, device=like.device)
    hidden = torch.zeros(queries, keys, dtype=torch.bool, device=like.device)
    if causal:
        hidden |= key_at > query_at
    if window is not None:
        hidden |= key_at <= query_at - window
        if not causal:
            hidden |= key_at >= query_at + window
    return torch.zeros(queries, keys, dtype=like.dtype, device=like.device).masked_fill_(hidden, -torch.inf)


def _check(
    q: Tensor, k: Tensor, v: Tensor, scale: float | None, window: int | None, bias: Tensor | None, mask: Tensor | None,
    causal: bool, packed: bool,
) -> None:  # fmt: skip
    if q.ndim != 4 or k.ndim != 4 or k.shape != v.shape:
        raise BadInput(
            f"expected q [B, H, S, D] and k, v [B, K, T, D], got {tuple(q.shape)}, {tuple(k.shape)}, {tuple(v.shape)}"
        )
    if k.shape[1] == 0 or q.shape[0] != k.shape[0] or q.shape[3] != k.shape[3] or q.shape[1] % k.shape[1]:
        raise BadInput(f"expected equal B and D, and H a multiple of K, got q {tuple(q.shape)} and k {tuple(k.shape)}")
    if q.dtype != k.dtype or q.dtype != v.dtype or not q.is_floating_point():
        raise BadInput(f"expected one floating dtype for q, k and v, got {q.dtype}, {k.dtype}, {v.dtype}")
    if q.device != k.device or q.device != v.device or (bias is not None and bias.device != q.device):
        raise BadInput(f"expected tensors on one device, got {q.device}, {k.device}, {v.device}")
    if q.device.type != "cpu" and any(x.stride(3) != 1 for x in (q, k, v)):
        raise BadInput("expected q, k and v contiguous in the last dimension; call .contiguous() first")
    if scale is not None and not scale > 0:
        raise BadInput(f"expected a positive scale, got {scale}")
    if causal and mask is None and not 1 <= q.shape[2] <= k.shape[2] and not packed:
        raise BadInput(f"expected 1 <= S <= T (the queries are the last positions), got S={q.shape[2]}, T={k.shape[2]}")
    if q.shape[2] < 1 or k.shape[2] < 1:
        raise BadInput(f"expected at least one query and one key, got S={q.shape[2]}, T={k.shape[2]}")
    if window is not None and window < 1:
        raise BadInput(f"expected a window of at least 1, got {window}")
    if bias is not None and (bias.shape != k.shape[:3] or not bias.is_floating_point()):
        raise BadInput(f"expected a floating key bias {tuple(k.shape[:3])}, got {tuple(bias.shape)} {bias.dtype}")
    if mask is not None and (mask.ndim != 4 or mask.shape[-2:] != (q.shape[2], k.shape[2]) or window is not None):
        raise BadInput(f"expected a mask [B, H, {q.shape[2]}, {k.shape[2]}] and no window, got {tuple(mask.shape)}")


def _check_packing(
    q: Tensor, k: Tensor, cu_q: Tensor | None, cu_k: Tensor | None, mask: Tensor | None
) -> None:  # fmt: skip
    if cu_q is None:
        if cu_k is not None:
            raise BadInput("cu_seqlens_k needs cu_seqlens")
        return
    if q.shape[0] != 1 or mask is not None:
        raise BadInput(f"packed sequences need B = 1 and no mask, got q {tuple(q.shape)}")
    if cu_k is None and q.shape[2] != k.shape[2]:
        raise BadInput(f"expected cu_seqlens_k for {q.shape[2]} queries and {k.shape[2]} keys")
    for cu in (cu_q, cu_q if cu_k is None else cu_k):
        if cu.ndim != 1 or cu.dtype != torch.int32 or cu.shape != cu_q.shape or cu.numel() < 2 or cu.device != q.device:
            raise BadInput(f"expected int32 [n + 1] on {q.device}, got {cu.dtype} {tuple(cu.shape)} on {cu.device}")
