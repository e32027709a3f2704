"""Ternary products beside cuBLAS in bf16 and torch's int8 product; on the CPU beside the best torch operator.

Times of one token are taken with cold caches, as in quantized_matmul/bench.py. torch has no ternary product.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..quantized_matmul.bench import cold_copies, compile_ahead, time_us
from ..timing import Timing, cpu_time_s, row
from . import TernaryWeight, best_ternary_layout, pack_ternary, round_tokens_for, ternarize, ternary_matmul
from .formats import SPARSITY, Pattern

__all__ = ["random_ternary", "rows"]

GEMV_SHAPES = ((28672, 8192), (8192, 28672), (14336, 4096), (4096, 14336))
MODEL_SHAPES = {"0.5B up": (4864, 896), "0.5B down": (896, 4864), "2B up": (6912, 2560), "8B attention": (4096, 4096)}
PATTERNS: tuple[Pattern, ...] = ("dense", "6:8", "2:4")


def rows(device: torch.device, quick: bool) -> Iterator[dict[str, Any]]:
    """Rows of docs/design.md, section 8."""
    yield from _cpu(quick) if device.type == "cpu" else _gpu(device, quick)


def random_ternary(n: int, k: int, pattern: Pattern, device: torch.device) -> TernaryWeight:
    """Random packed weights in layout ``triton``; sparse ones may hold more weights than the pattern allows."""
    scale = torch.full((n,), 0.01, device=device)
    if pattern == "dense":
        codes = torch.randint(0, 3, (n, k // 4, 4), device=device, dtype=torch.uint8)
        data = codes[..., 0] | (codes[..., 1] << 2) | (codes[..., 2] << 4) | (codes[..., 3] << 6)
        return TernaryWeight("triton", pattern, n, k, data, scale)
    kept, group = SPARSITY[pattern]
    shape = (n, kept + group, -(-k // (32 * group)))
    planes = torch.randint(-(2**31), 2**31 - 1, shape, device=device, dtype=torch.int32)
    return TernaryWeight("triton", pattern, n, k, planes, scale)


def _gpu(device: torch.device, quick: bool) -> Iterator[dict[str, Any]]:
    shapes = list(GEMV_SHAPES[:1]) if quick else [*GEMV_SHAPES, *MODEL_SHAPES.values()]
    gemms = {(28672, 8192): (16, 1024)} if quick else {(28672, 8192): (16, 64), (14336, 4096): (4, 16, 64, 256, 1024)}
    cases = [(n, k, 1) for n, k in shapes] + [(n, k, tokens) for (n, k), counts in gemms.items() for tokens in counts]
    compile_ahead(partial(_once, n, k, tokens, pattern, device) for n, k, tokens in cases for pattern in PATTERNS)
    for n, k in shapes:
        x = torch.randn(1, k, device=device).bfloat16()
        dense = cold_copies(partial(torch.randn, n, k, device=device, dtype=torch.bfloat16), 2 * n * k)
        bf16 = time_us([partial(F.linear, x, w) for w in dense]).median_s
        del dense
        for pattern in PATTERNS:
            yield from _gemv(n, k, pattern, bf16, device)
    for (n, k), counts in gemms.items():
        for tokens in counts:
            yield from _gemm(n, k, tokens, device)


def _once(n: int, k: int, tokens: int, pattern: Pattern, device: torch.device) -> None:
    x = torch.randn(tokens, k, device=device).bfloat16()
    ternary_matmul(x, random_ternary(n, k, pattern, device))


def _gemv(n: int, k: int, pattern: Pattern, bf16: float, device: torch.device) -> Iterator[dict[str, Any]]:
    x = torch.randn(1, k, device=device).bfloat16()
    weights = cold_copies(partial(random_ternary, n, k, pattern, device), n * k / 4)
    rounded = round_tokens_for(x, weights[0])
    ours = time_us([partial(ternary_matmul, rounded, w) for w in weights])
    counted = time_us([partial(ternary_matmul, x, w) for w in weights])
    case = f"ternary {pattern} GEMV {n}x{k}"
    rate = weights[0].bytes / ours.median_s * 1e-6
    yield row("ternary_matmul", case, "rate", rate, "TB/s", spread=rate * ours.spread_s / ours.median_s)
    yield _times(case, ours, "cuBLAS bf16", bf16)
    yield _times(f"{case}, rounding counted", counted, "cuBLAS bf16", bf16)


def _gemm(n: int, k: int, tokens: int, device: torch.device) -> Iterator[dict[str, Any]]:
    x = torch.randn(tokens, k, device=device).bfloat16()
    dense = cold_copies(partial(torch.randn, n, k, device=device, dtype=torch.bfloat16), 2 * n * k)
    bf16 = time_us([partial(F.linear, x, w) for w in dense]).median_s
    del dense
    for pattern in PATTERNS:
        weights = cold_copies(partial(random_ternary, n, k, pattern, device), n * k / 4)[:3]
        rounded = round_tokens_for(x, weights[0])
        ours = time_us([partial(ternary_matmul, rounded, w) for w in weights])
        case = f"ternary {pattern} {n}x{k}, {tokens} tokens"
        yield _times(case, ours, "cuBLAS bf16", bf16)
        if tokens > 16 and pattern == "dense":
            w8 = torch.randint(-1, 2, (n, k), device=device, dtype=torch.int8)
            theirs = time_us([partial(torch._int_mm, rounded.q_MK, w8.t())]).median_s
            yield _times(case, ours, "torch._int_mm, no scales", theirs)


def _times(case: str, ours: Timing, peer: str, theirs_us: float) -> dict[str, Any]:
    return row(
        "ternary_matmul",
        case,
        "time",
        ours.median_s,
        "us",
        spread=ours.spread_s,
        peer=peer,
        peer_value=theirs_us,
        larger_is_better=False,
    )


def _int8_packed(x_MK: Tensor, w_NK: Tensor, scale_N: Tensor) -> Tensor:
    return torch._weight_int8pack_mm(x_MK.bfloat16(), w_NK, scale_N).float()


def _bf16(x_MK: Tensor, w_NK: Tensor) -> Tensor:
    return F.linear(x_MK.bfloat16(), w_NK).float()


def _cpu(quick: bool) -> Iterator[dict[str, Any]]:
    layout = best_ternary_layout(torch.device("cpu"))
    with torch.inference_mode():
        for name in ("0.5B up", "0.5B down") if quick else MODEL_SHAPES:
            n, k = MODEL_SHAPES[name]
            dense = torch.randn(n, k)
            made = ternarize(dense)
            ours, values, bf16 = pack_ternary(made, layout), made.values_NK, made.dequantize().bfloat16()
            scale = made.scale_N.bfloat16()
            for tokens in (1, 4, 16, 128):
                x = torch.randn(tokens, k)
                q = torch.randint(-127, 128, (tokens, k), dtype=torch.int8)
                calls: dict[str, Callable[[], Tensor]] = {
                    "torch._int_mm, no rounding, no scales": partial(torch._int_mm, q, values.t()),
                    "torch int8 packed": partial(_int8_packed, x, values, scale),
                    "torch bf16": partial(_bf16, x, bf16),
                }
                peers = {p: cpu_time_s(call, budget_s=0.2).median_s * 1e6 for p, call in calls.items()}
                peer = min(peers, key=lambda p: peers[p])
                timing = cpu_time_s(partial(ternary_matmul, x, ours), budget_s=0.2)
                timing = Timing(timing.median_s * 1e6, timing.spread_s * 1e6)
                yield _times(f"ternary {name} {n}x{k}, {tokens} tokens", timing, peer, peers[peer])
