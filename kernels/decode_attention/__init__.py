"""Few queries over a long cache: ragged lengths, per-key bias, pages, fp8, int8 and int4. Derivation: README.md.

Knows shapes and which implementation a device has. Does not know who owns the cache.
"""

# ruff: noqa: N815  (fields carry shape suffixes, as all tensors do)

from __future__ import annotations

import importlib.util
from typing import NamedTuple

import torch
from torch import Tensor

from ...errors import BadInput
from ..dispatch import choose
from .ragged import FORMATS, RaggedKV, dequantize_kv, quantize_kv, ragged_from_dense
from .reference import ragged_attention, ragged_attention_reference

__all__ = [
    "FORMATS",
    "Attended",
    "RaggedKV",
    "decode_attention",
    "dequantize_kv",
    "quantize_kv",
    "ragged_attention_reference",
    "ragged_from_dense",
]


class Attended(NamedTuple):
    """Output [B, H, S, D] in the dtype of q, and log-sum-exp of the scores, float32 [B, H, S] (-inf: nothing seen)."""

    out_BHSD: Tensor
    lse_BHS: Tensor


def decode_attention(
    q_BHSD: Tensor,
    cache: RaggedKV,
    *,
    scale: float | None = None,
    q_pos_BS: Tensor | None = None,
    window: int | None = None,
) -> Attended:
    """out = softmax(scale * q k^T + bias) v over the cache of each KV head, with its own length and biases.

    Two caches are joined exactly by their log-sum-exps (README.md), so parts can be attended apart.

    Args:
        q_BHSD: queries [B, H, S, D], bfloat16, float16 or float32; any strides with a contiguous last axis.
        cache: S = B * K segments, K divides H; plain caches have the dtype of q.
        scale: factor of the scores; default D ** -0.5.
        q_pos_BS: int64 [B, S], ascending in each row: a key is seen if its position is not greater. None: all are seen.
        window: keys must also be younger than this many positions; needs ``q_pos_BS``.

    Returns:
        `Attended`. A query that sees nothing gets zeros and -inf.

    Raises:
        BadInput: shapes, dtypes, devices or strides do not fit.

    Source: flash-decoding (split keys, merge by log-sum-exp); attention matching, arXiv 2602.16284 (bias per key);
    KIVI, arXiv 2402.02750 (per-channel keys, per-token values).
    """
    check_queries(q_BHSD, cache, q_pos_BS, window)
    scale = q_BHSD.shape[-1] ** -0.5 if scale is None else scale
    if choose("decode_attention", q_BHSD.device, CANDIDATES) == "triton" and serves(q_BHSD, cache):
        from .launch import ragged_triton

        return Attended(*ragged_triton(q_BHSD, cache, scale=scale, q_pos_BS=q_pos_BS, window=window))
    return Attended(*ragged_attention(q_BHSD, cache, scale=scale, q_pos_BS=q_pos_BS, window=window))


def serves(q_BHSD: Tensor, cache: RaggedKV) -> bool:
    """Whether the Triton kernels know these dtypes and head dims (else torch operators are used)."""
    fp8_here = cache.format != "fp8" or torch.cuda.get_device_capability(q_BHSD.device) >= (8, 9)
    return q_BHSD.dtype in (torch.bfloat16, torch.float16) and q_BHSD.shape[-1] in (64, 128, 256) and fp8_here


def check_queries(q: Tensor, cache: RaggedKV, q_pos: Tensor | None, window: int | None) -> None:
    """Raise BadInput where queries and cache do not fit."""
    if q.ndim != 4 or q.shape[3] != cache.dim or 0 in q.shape:
        raise BadInput(f"expected q [B, H, S, {cache.dim}] with no empty axis, got {tuple(q.shape)}")
    if q.stride(-1) != 1:
        raise BadInput(f"expected q with a contiguous last axis, got strides {q.stride()}; call .contiguous()")
    if cache.segments % q.shape[0] or q.shape[1] % (cache.segments // q.shape[0]):
        raise BadInput(
            f"expected B * K segments with K a divisor of H, got {cache.segments} segments for q {tuple(q.shape)}"
        )
    if q.dtype not in (torch.bfloat16, torch.float16, torch.float32):
        raise BadInput(f"expected bfloat16, float16 or float32 queries, got {q.dtype}")
    if cache.format == "plain" and cache.k_ND.dtype != q.dtype:
        raise BadInput(f"expected one dtype for q and a plain cache, got {q.dtype} and {cache.k_ND.dtype}")
    if q.device != cache.k_ND.device:
        raise BadInput(f"expected q and the cache on one device, got {q.device} and {cache.k_ND.device}")
    if q_pos is not None:
        if q_pos.shape != (q.shape[0], q.shape[2]) or q_pos.dtype != torch.int64 or not q_pos.is_contiguous():
            raise BadInput(
                f"expected contiguous int64 query positions {(q.shape[0], q.shape[2])}, "
                f"got {tuple(q_pos.shape)} {q_pos.dtype}"
            )
        if q_pos.device != q.device:
            raise BadInput(f"expected query positions on {q.device}, got {q_pos.device}")
    if window is not None and (window < 1 or q_pos is None):
        raise BadInput(f"expected a window of at least 1 and query positions, got {window}")


def _triton(device: torch.device) -> bool:
    if device.type != "cuda" or importlib.util.find_spec("triton") is None:
        return False
    from .launch import able

    return able(device)


CANDIDATES = {"triton": _triton, "torch": lambda device: True}
