"""Attention with INT8 scores and FP8 (or half-precision) values. Derivation and measurements: README.md."""

from __future__ import annotations

import importlib.util
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from ...errors import BadInput
from ..dispatch import capability, choose
from .reference import attention_exact, attention_quantized

__all__ = ["LowbitResult", "attention_exact", "attention_quantized", "lowbit_attention"]

_DIMS = (64, 128, 256)
_HALF = (torch.bfloat16, torch.float16)


class LowbitResult(NamedTuple):
    """Output [B, H, S, D] in the dtype of q; log-sum-exp of the scores [B, H, S], natural, fp32, or None."""

    out: Tensor
    lse: Tensor | None


def lowbit_attention(
    q_BHSD: Tensor,
    k_BKTD: Tensor,
    v_BKTD: Tensor,
    *,
    causal: bool = True,
    scale: float | None = None,
    values: str = "fp8",
    smooth_q: bool = False,
    return_lse: bool = False,
) -> LowbitResult:
    """softmax(scale * q k^T) v with q and k (minus its mean) rounded to INT8, grouped-query.

    The S queries are the last S of the T positions: with ``causal``, query i sees keys 0 .. T - S + i. Quantisation is
    part of the call. Without a device that has the kernels (a CPU, or a head dim other than 64, 128, 256) the result is
    that of torch's unquantised attention. If a gradient is wanted, the dispatcher chooses between SageBwd (INT8
    backward, head dims 64 and 128) and half precision for both directions;
    ``override("lowbit_attention training", "sage")`` forces SageBwd.

    Args:
        q_BHSD: queries [B, H, S, D], contiguous; bfloat16 or float16 (any float on a CPU).
        k_BKTD: keys [B, K, T, D], K divides H, contiguous, dtype of q.
        v_BKTD: values [B, K, T, D], likewise.
        causal: hide later keys; needs S <= T.
        scale: factor of the scores; default D ** -0.5.
        values: ``fp8`` (P and V in e4m3) or ``half`` (dtype of v, more exact, slower).
        smooth_q: also take the mean off each 128 queries before rounding (SageAttention 2); slower, for queries whose
            channels have large means.
        return_lse: also return the log-sum-exp, through which no gradient flows.

    Returns:
        The output and the log-sum-exp or None.

    Raises:
        BadInput: shapes, dtypes, strides or ``values`` do not fit.

    Source: SageAttention 1 and 2 (arXiv 2410.02367, 2411.10958), SageBwd (2603.02170).
    """
    _check(q_BHSD, k_BKTD, v_BKTD, causal, values)
    scale = q_BHSD.shape[-1] ** -0.5 if scale is None else scale
    if q_BHSD.numel() == 0 or k_BKTD.shape[2] == 0:
        nothing = q_BHSD.new_full(q_BHSD.shape[:3], -torch.inf, dtype=torch.float32)
        return LowbitResult(torch.zeros_like(q_BHSD), nothing if return_lse else None)
    name = "torch"
    if q_BHSD.shape[-1] in _DIMS and q_BHSD.dtype in _HALF:
        name = choose("lowbit_attention", q_BHSD.device, {"hopper": _hopper, "triton": _triton, "torch": _always})
    wants_gradient = torch.is_grad_enabled() and any(x.requires_grad for x in (q_BHSD, k_BKTD, v_BKTD))
    if name != "torch" and wants_gradient:
        training = choose("lowbit_attention training", q_BHSD.device, {"sage": _sage_pays, "half": _always})
        if training == "sage" and q_BHSD.shape[-1] <= 128:
            from .launch import SageAttention

            out, lse = SageAttention.apply(q_BHSD, k_BKTD, v_BKTD, causal, scale)
            return LowbitResult(out, lse if return_lse else None)
        name = "torch"
    if name == "torch":
        return _torch(q_BHSD, k_BKTD, v_BKTD, causal, scale, return_lse)
    from .launch import forward

    out, lse = forward(name, q_BHSD, k_BKTD, v_BKTD, causal, scale, values, smooth_q, return_lse)
    return LowbitResult(out, lse if return_lse else None)


def _torch(q: Tensor, k: Tensor, v: Tensor, causal: bool, scale: float, return_lse: bool) -> LowbitResult:
    """Torch's attention; the log-sum-exp, which it does not give, is computed 256 queries at a time."""
    queries, keys = q.shape[2], k.shape[2]
    mask = None
    if causal and queries != keys:
        mask = torch.ones(queries, keys, dtype=torch.bool, device=q.device).tril(keys - queries)
    out = scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=causal and mask is None, scale=scale, enable_gqa=q.shape[1] != k.shape[1]
    )
    if not return_lse:
        return LowbitResult(out, None)
    parts = []
    with torch.no_grad():
        for start in range(0, queries, 256):
            stop = min(start + 256, queries)
            seen = keys - queries + stop if causal else keys
            part = attention_exact(
                q[:, :, start:stop].float(), k[:, :, :seen].float(), v[:, :, :seen].float(), causal=causal, scale=scale
            )
            parts.append(part[1])
    return LowbitResult(out, torch.cat(parts, dim=2))


def _always(device: torch.device) -> bool:
    return True


def _hopper(device: torch.device) -> bool:
    return capability(device) == (9, 0) and importlib.util.find_spec("triton") is not None


def _triton(device: torch.device) -> bool:
    able = capability(device)
    return able is not None and able >= (8, 0) and importlib.util.find_spec("triton") is not None


def _sage_pays(device: torch.device) -> bool:
    """SageBwd in Triton is slower than bfloat16 on an H100 (README.md has the figures), and unmeasured elsewhere."""
    return False


def _check(q: Tensor, k: Tensor, v: Tensor, causal: bool, values: str) -> None:
    if q.ndim != 4 or k.ndim != 4 or k.shape != v.shape:
        raise BadInput(
            f"expected q [B, H, S, D] and k, v [B, K, T, D], got {tuple(q.shape)}, {tuple(k.shape)}, {tuple(v.shape)}"
        )
    if q.shape[0] != k.shape[0] or q.shape[3] != k.shape[3] or k.shape[1] == 0 or q.shape[1] % k.shape[1]:
        raise BadInput(f"expected equal B and D, and H a multiple of K, got q {tuple(q.shape)} and k {tuple(k.shape)}")
    if causal and q.shape[2] > k.shape[2]:
        raise BadInput(f"expected S <= T (the queries are the last positions), got S={q.shape[2]}, T={k.shape[2]}")
    if q.dtype != k.dtype or q.dtype != v.dtype or not q.dtype.is_floating_point:
        raise BadInput(f"expected one floating dtype for q, k and v, got {q.dtype}, {k.dtype}, {v.dtype}")
    if q.device != k.device or q.device != v.device:
        raise BadInput(f"expected one device for q, k and v, got {q.device}, {k.device}, {v.device}")
    if q.device.type == "cuda" and q.dtype not in _HALF:
        raise BadInput(f"expected bfloat16 or float16 on a GPU, got {q.dtype}")
    if not (q.is_contiguous() and k.is_contiguous() and v.is_contiguous()):
        raise BadInput("expected contiguous q, k and v; call .contiguous() on them")
    if values not in ("fp8", "half"):
        raise BadInput(f"expected values to be 'fp8' or 'half', got {values!r}")
