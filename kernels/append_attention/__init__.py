"""Attention of new tokens over a ragged, biased, quantised cache and causally over themselves. Derivation: README.md.

The operation of every agent step. Knows shapes and which implementation a device has; the kernels are those of
`decode_attention`.
"""

from __future__ import annotations

from torch import Tensor

from ...errors import BadInput
from ..decode_attention import CANDIDATES, Attended, RaggedKV, check_queries, serves
from ..decode_attention.reference import ragged_attention
from ..dispatch import choose

__all__ = ["append_attention"]

# From this many tiles of 128 rows on, a quantised cache is unpacked once instead of in every tile (README.md).
UNPACK_ROW_TILES = 4


def append_attention(
    q_BHSD: Tensor,
    cache: RaggedKV,
    k_BKTD: Tensor,
    v_BKTD: Tensor,
    *,
    scale: float | None = None,
    q_pos_BS: Tensor | None = None,
    window: int | None = None,
) -> Attended:
    """softmax over the whole cache and, causally, the new tokens: query i stands at token T - S + i of the tail.

    Args:
        q_BHSD: queries [B, H, S, D], the last S of the T new tokens; any strides with a contiguous last axis.
        cache: B * K segments (`RaggedKV`), all of it in the past of every query.
        k_BKTD: keys of the tail [B, K, T, D], T >= S, dtype of q; a contiguous last axis. More than S tokens where
            recent ones are not quantised yet.
        v_BKTD: values of the tail [B, K, T, D].
        scale: factor of the scores; default D ** -0.5.
        q_pos_BS: int64 [B, S] positions of the queries, consecutive; only needed with ``window`` (or to hide cached
            keys of later positions).
        window: a query sees keys of fewer than this many positions back.

    Returns:
        `Attended`: output [B, H, S, D] and log-sum-exp [B, H, S].

    Raises:
        BadInput: shapes, dtypes, devices or strides do not fit.
    """
    check_queries(q_BHSD, cache, q_pos_BS, window)
    _check_tail(q_BHSD, cache, k_BKTD, v_BKTD)
    scale = q_BHSD.shape[-1] ** -0.5 if scale is None else scale
    tail = (k_BKTD, v_BKTD)
    if choose("append_attention", q_BHSD.device, CANDIDATES) == "triton" and serves(q_BHSD, cache):
        from ..decode_attention.launch import ragged_triton, unpack

        rows = q_BHSD.shape[1] * q_BHSD.shape[0] // cache.segments * q_BHSD.shape[2]
        if cache.format != "plain" and rows >= UNPACK_ROW_TILES * 128:
            cache = unpack(cache, q_BHSD.dtype)
        return Attended(*ragged_triton(q_BHSD, cache, tail=tail, scale=scale, q_pos_BS=q_pos_BS, window=window))
    return Attended(*ragged_attention(q_BHSD, cache, tail=tail, scale=scale, q_pos_BS=q_pos_BS, window=window))


def _check_tail(q: Tensor, cache: RaggedKV, k: Tensor, v: Tensor) -> None:
    kv_heads = cache.segments // q.shape[0]
    if k.ndim != 4 or k.shape != v.shape or k.shape[:2] != (q.shape[0], kv_heads) or k.shape[3] != q.shape[3]:
        raise BadInput(
            f"expected new keys and values [{q.shape[0]}, {kv_heads}, T, {q.shape[3]}], "
            f"got {tuple(k.shape)} and {tuple(v.shape)}"
        )
    if k.shape[2] < q.shape[2]:
        raise BadInput(f"expected T >= S (the queries are the last new tokens), got T={k.shape[2]}, S={q.shape[2]}")
    if k.dtype != q.dtype or v.dtype != q.dtype or k.device != q.device or v.device != q.device:
        raise BadInput(f"expected new keys and values of {q.dtype} on {q.device}, got {k.dtype} on {k.device}")
    if k.stride(-1) != 1 or v.stride(-1) != 1:
        raise BadInput(f"expected a contiguous last axis, got strides {k.stride()}, {v.stride()}; call .contiguous()")
