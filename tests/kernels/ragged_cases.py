"""Ragged caches for tests: fresh random ones of any format, length, page and position."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import torch
from perdure.kernels.decode_attention import RaggedKV, quantize_kv


def ragged(
    lengths: list[int],
    dim: int,
    format: str = "plain",
    *,
    dtype: torch.dtype = torch.float32,
    bias: bool = True,
    page: int = 0,
    positions: bool = False,
    group: int = 64,
    size: float = 1.0,
    device: str = "cpu",
) -> RaggedKV:
    """A cache of these lengths with random keys, values and biases of the given magnitude."""
    table = None
    tokens = sum(lengths)
    if page:
        pages = max(1, *(-(-length // page) for length in lengths))
        table = torch.randperm(len(lengths) * pages + 3)[: len(lengths) * pages].view(len(lengths), pages).int()
        tokens = (len(lengths) * pages + 3) * page
    cu_len = torch.tensor([0, *itertools.accumulate(lengths)], dtype=torch.int32)
    cache = RaggedKV(
        (torch.randn(tokens, dim) * size).to(dtype),
        (torch.randn(tokens, dim) * size).to(dtype),
        cu_len,
        bias_N=torch.randn(tokens) if bias else None,
        pos_N=torch.randint(0, 100, (tokens,)) if positions else None,
        block_table_SP=table,
        page=page,
    )
    cache = cache if format == "plain" else quantize_kv(cache, format, group=group)
    return moved(cache, device)


def moved(cache: RaggedKV, device: str) -> RaggedKV:
    tensors: dict[str, Any] = {name: x.to(device) for name, x in vars(cache).items() if isinstance(x, torch.Tensor)}
    return replace(cache, **tensors)


def error(ours: torch.Tensor, exact: torch.Tensor) -> float:
    """Relative error in the norm; NaN never passes a comparison."""
    return float((ours.double().cpu() - exact.double().cpu()).norm() / exact.double().norm().clamp_min(1e-30).cpu())
