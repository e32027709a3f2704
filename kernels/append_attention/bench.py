"""Append attention beside dense attention of torch over the same number of tokens in bfloat16 (no bias, no tail)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from ..decode_attention import RaggedKV, quantize_kv
from ..decode_attention.bench import checked, peers
from ..timing import cpu_time_s, gpu_time_s, row
from . import append_attention

__all__ = ["rows"]

_NAME = "append_attention"

# (name, query heads, KV heads, head dimension, cached tokens, new tokens, format)
_CASES = (
    ("8B", 32, 8, 128, 16384, 512, "int8"),
    ("8B", 32, 8, 128, 16384, 512, "plain"),
    ("8B", 32, 8, 128, 16384, 2048, "int8"),
    ("8B", 32, 8, 128, 16384, 64, "int8"),
    ("0.5B", 14, 2, 64, 16384, 512, "int8"),
)


def rows(device: torch.device, quick: bool) -> Iterator[dict[str, Any]]:
    """Time of one call, unpacking counted; TFLOP/s count the visible pairs of queries and keys."""
    if device.type == "cpu":
        yield from _cpu()
        return
    for name, heads, kv_heads, dim, tokens, new, format in _CASES[:2] if quick else _CASES:
        cache = _ragged(kv_heads, tokens, dim, format, device)
        q, k, v = (_random(1, h, new, dim, device) for h in (heads, kv_heads, kv_heads))
        case = f"{name} {heads}/{kv_heads} hd{dim} {new} over ragged {tokens // 1024}k {format} with bias"
        yield checked(case, append_attention(q, cache, k, v).out_BHSD, q, cache, (k, v), _NAME)
        timing = gpu_time_s(partial(append_attention, q, cache, k, v), budget_s=0.15)
        dense = (_random(1, kv_heads, tokens, dim, device), _random(1, kv_heads, tokens, dim, device))
        flops = 4 * dim * heads * new * (tokens + (new + 1) / 2)
        for peer, seconds in peers(q, [dense]).items():
            if peer == "efficient":
                continue
            yield row(
                _NAME, case, "time", timing.median_s * 1e6, "us", spread=timing.spread_s * 1e6,
                peer=f"{peer} bf16 dense (no bias, no tail)", peer_value=seconds * 1e6, larger_is_better=False,
            )  # fmt: skip
        yield row(_NAME, case, "rate", flops / timing.median_s * 1e-12, "TFLOP/s")


def _cpu() -> Iterator[dict[str, Any]]:
    cache = _ragged(2, 2048, 64, "plain", torch.device("cpu"), torch.float32)
    q, k, v = torch.randn(1, 14, 64, 64), torch.randn(1, 2, 64, 64), torch.randn(1, 2, 64, 64)
    dense = torch.randn(1, 2, 2112, 64), torch.randn(1, 2, 2112, 64)
    mask = torch.zeros(64, 2112)
    ours = cpu_time_s(lambda: append_attention(q, cache, k, v))
    theirs = cpu_time_s(lambda: scaled_dot_product_attention(q, *dense, attn_mask=mask, enable_gqa=True))
    yield row(
        _NAME, "0.5B 14/2 hd64 64 over ragged 2k fp32 with bias", "time", ours.median_s * 1e6, "us",
        spread=ours.spread_s * 1e6, peer="sdpa dense with mask", peer_value=theirs.median_s * 1e6,
        larger_is_better=False,
    )  # fmt: skip


def _ragged(
    kv_heads: int, tokens: int, dim: int, format: str, device: torch.device, dtype: torch.dtype = torch.bfloat16
) -> RaggedKV:
    """``tokens`` a head in the mean, half to one and a half of it each; biased."""
    shares = torch.linspace(0.5, 1.5, kv_heads, dtype=torch.float64)
    ends = torch.cat((torch.zeros(1, dtype=torch.float64), (shares * tokens).round().cumsum(0)))
    total = int(ends[-1])
    k, v = (torch.randn(total, dim, device=device).to(dtype) for _ in range(2))
    cache = RaggedKV(k, v, ends.int().to(device), bias_N=torch.randn(total, device=device))
    return cache if format == "plain" else quantize_kv(cache, format)


def _random(batch: int, heads: int, tokens: int, dim: int, device: torch.device) -> Tensor:
    return torch.randn(batch, heads, tokens, dim, device=device, dtype=torch.bfloat16)
