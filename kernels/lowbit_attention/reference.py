"""Low-bit attention in plain torch: exact, and with the same quantisation as the kernels."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["attention_exact", "attention_quantized", "int8_tiles"]


def attention_exact(
    q_BHSD: Tensor, k_BKTD: Tensor, v_BKTD: Tensor, *, causal: bool = True, scale: float | None = None
) -> tuple[Tensor, Tensor]:
    """Output [B, H, S, D] and natural log-sum-exp [B, H, S], written out, in the dtype of the inputs."""
    s = _scores(q_BHSD, k_BKTD, causal, scale)
    v = v_BKTD.repeat_interleave(q_BHSD.shape[1] // v_BKTD.shape[1], dim=1)
    return s.softmax(-1) @ v, s.logsumexp(-1)


def attention_quantized(
    q_BHSD: Tensor,
    k_BKTD: Tensor,
    v_BKTD: Tensor,
    *,
    causal: bool = True,
    scale: float | None = None,
    values: str = "fp8",
    tile: int = 128,
) -> Tensor:
    """What the kernels compute, in float32: INT8 q (a scale a row) and k minus its mean (a scale for ``tile`` keys).

    ``values``: ``fp8`` rounds V (a scale a channel) and P (times 256) to e4m3; ``half`` rounds P to the dtype of V.
    """
    q, k, v = (x.float() for x in (q_BHSD, k_BKTD, v_BKTD))
    q = _int8(q, q.abs().amax(-1, keepdim=True))
    k = int8_tiles(k - k.mean(2, keepdim=True), tile)
    s = _scores(q, k, causal, scale)
    p = (s - s.amax(-1, keepdim=True)).exp()
    total = p.sum(-1, keepdim=True)
    if values == "fp8":
        v_scale = v.abs().amax(2, keepdim=True).clamp_min(1e-30) / 448
        v = (v / v_scale).to(torch.float8_e4m3fn).float() * v_scale
        p = (p * 256).to(torch.float8_e4m3fn).float() / 256
    else:
        p = p.to(v_BKTD.dtype).float()
    return p @ v.repeat_interleave(q.shape[1] // v.shape[1], dim=1) / total


def int8_tiles(x_BHSD: Tensor, tile: int) -> Tensor:
    """Rounded to INT8 with one scale for each ``tile`` rows, and back."""
    parts = []
    for start in range(0, x_BHSD.shape[2], tile):
        part = x_BHSD[:, :, start : start + tile]
        parts.append(_int8(part, part.abs().amax((-1, -2), keepdim=True)))
    return torch.cat(parts, dim=2)


def _int8(x: Tensor, top: Tensor) -> Tensor:
    step = top.clamp_min(1e-20) / 127
    return (x / step).round() * step


def _scores(q: Tensor, k: Tensor, causal: bool, scale: float | None) -> Tensor:
    k = k.repeat_interleave(q.shape[1] // k.shape[1], dim=1)
    s = (q @ k.transpose(-1, -2)) * (q.shape[-1] ** -0.5 if scale is None else scale)
    if causal:
        queries, keys = s.shape[-2:]
        hidden = torch.ones(queries, keys, dtype=torch.bool, device=s.device).triu(keys - queries + 1)
        s = s.masked_fill(hidden, -torch.inf)
    return s
