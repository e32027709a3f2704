"""Decode attention beside its peers. Cold: caches are rotated over more bytes than the second-level cache holds."""

from __future__ import annotations

import importlib
import importlib.util
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from ..timing import Timing, cpu_time_s, gpu_time_s, row
from . import RaggedKV, decode_attention, quantize_kv, ragged_attention_reference, ragged_from_dense

__all__ = ["checked", "measure", "peers", "rows"]

_NAME = "decode_attention"
_COLD_BYTES = 1 << 30  # 20 times the second-level cache: whatever it keeps of one round does not count in the next

# (name, batch, query heads, KV heads, head dimension, tokens, formats)
_MODELS = (
    ("8B", 1, 32, 8, 128, 32768, ("plain", "fp8", "int8", "int4")),
    ("8B", 1, 32, 8, 128, 4096, ("plain", "int8", "int4")),
    ("0.5B", 1, 14, 2, 64, 32768, ("plain", "int4")),
)


def rows(device: torch.device, quick: bool) -> Iterator[dict[str, Any]]:
    """One row a shape and format: rate of the bytes of the cache; int8 and int4 also as times of bfloat16's."""
    if device.type == "cpu":
        yield from _cpu(device)
        return
    for model in _MODELS[:1] if quick else _MODELS:
        yield from _model(device, *model)
    yield from _ragged(device)
    if not quick:
        yield from _tiles(device)
        yield from _paged(device)
        yield from _flex(device)


def measure(calls: Sequence[Callable[[], Any]]) -> Timing:
    """Of one call, over rotated buffers."""
    if torch.cuda.is_available():
        return gpu_time_s(calls, budget_s=0.15)
    return cpu_time_s(calls[0])


def checked(
    case: str, out: Tensor, q: Tensor, cache: RaggedKV, tail: tuple[Tensor, Tensor] | None = None, name: str = _NAME
) -> dict[str, Any]:
    """The relative error against float32 as a row, beside plain torch's in bfloat16.

    Raises:
        RuntimeError: ours is more than twice plain torch's; no speed is reported of a wrong result.
    """
    exact, _ = ragged_attention_reference(q, cache, tail=tail)
    plain, _ = ragged_attention_reference(q, cache, tail=tail, dtype=torch.bfloat16)
    ours, theirs = (float((x.float() - exact).norm() / exact.norm()) for x in (out, plain))
    if not ours <= 2 * theirs:
        raise RuntimeError(f"{case}: relative error {ours:.2g}, plain torch {theirs:.2g}")
    return row(name, case, "error", ours, "share", peer="plain torch", peer_value=theirs, larger_is_better=False)


def peers(q: Tensor, kv: list[tuple[Tensor, Tensor]]) -> dict[str, float]:
    """Seconds of torch's attention by backend, the faster of its two ways to say grouped queries; no bias."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    batch, heads, queries, dim = q.shape
    kv_heads = kv[0][0].shape[1]
    as_rows = q.view(batch, kv_heads, heads // kv_heads * queries, dim)
    found: dict[str, float] = {}
    for name, backend in (
        ("cudnn", SDPBackend.CUDNN_ATTENTION),
        ("flash", SDPBackend.FLASH_ATTENTION),
        ("efficient", SDPBackend.EFFICIENT_ATTENTION),
    ):
        for query, grouped in ((q, True), (as_rows, False)):
            attend = partial(scaled_dot_product_attention, query, enable_gqa=grouped)
            try:
                with sdpa_kernel(backend):
                    timing = measure([partial(attend, k, v) for k, v in kv])
            except RuntimeError:  # this backend does not know this shape
                continue
            found[name] = min(found.get(name, math.inf), timing.median_s)
    return found


def _model(
    device: torch.device,
    name: str,
    batch: int,
    heads: int,
    kv_heads: int,
    dim: int,
    tokens: int,
    formats: tuple[str, ...],
) -> Iterator[dict[str, Any]]:
    size = 4 * batch * kv_heads * tokens * dim
    copies = max(1, math.ceil(_COLD_BYTES / size))
    case = f"{name} B{batch} {heads}/{kv_heads} hd{dim} {tokens // 1024}k"
    q = torch.randn(batch, heads, 1, dim, device=device, dtype=torch.bfloat16)
    kv = [_kv(batch, kv_heads, tokens, dim, device) for _ in range(copies)]
    known = peers(q, kv)
    plain_s = math.nan
    for format in formats:
        made = max(copies, math.ceil(_COLD_BYTES * {"plain": 1, "fp8": 2, "int8": 2, "int4": 4}[format] / size))
        caches = [
            _cache(*(kv[i] if i < copies else _kv(batch, kv_heads, tokens, dim, device)), format) for i in range(made)
        ]
        yield checked(f"{case} {format} with bias", decode_attention(q, caches[0]).out_BHSD, q, caches[0])
        timing = measure([partial(decode_attention, q, cache) for cache in caches])
        yield from _compared(
            f"{case} {format} with bias", caches[0].nbytes, timing, known if format == "plain" else {}, size
        )
        if format == "plain":
            plain_s = timing.median_s
        else:
            yield row(
                _NAME,
                f"{case} {format} with bias",
                "time",
                timing.median_s * 1e6,
                "us",
                spread=timing.spread_s * 1e6,
                peer="own bf16",
                peer_value=plain_s * 1e6,
                larger_is_better=False,
            )


def _compared(
    case: str, nbytes: int, timing: Timing, known: dict[str, float], peer_bytes: int
) -> Iterator[dict[str, Any]]:
    rate = nbytes / timing.median_s * 1e-12
    spread = rate * timing.spread_s / timing.median_s
    for peer, seconds in known.items():
        yield row(
            _NAME,
            case,
            "rate",
            rate,
            "TB/s",
            spread=spread,
            peer=f"{peer} (no bias)",
            peer_value=peer_bytes / seconds * 1e-12,
        )
    if not known:
        yield row(_NAME, case, "rate", rate, "TB/s", spread=spread)


def _ragged(device: torch.device) -> Iterator[dict[str, Any]]:
    """Heads of very different lengths, as budgets per head make them; the peer pads to the longest head."""
    lengths = [1024, 2048, 4096, 8192, 8192, 16384, 32768, 59392]
    cu_len = torch.tensor([0, *lengths], device=device).cumsum(0).int()
    total, longest = sum(lengths), max(lengths)
    q = torch.randn(1, 32, 1, 128, device=device, dtype=torch.bfloat16)
    caches = []
    for _ in range(8):
        k, v = (torch.randn(total, 128, device=device, dtype=torch.bfloat16) for _ in range(2))
        caches.append(RaggedKV(k, v, cu_len, bias_N=torch.randn(total, device=device)))
    timing = measure([partial(decode_attention, q, cache) for cache in caches])
    kv = [_kv(1, 8, longest, 128, device)]
    mask = torch.zeros(1, 8, 1, longest, device=device, dtype=torch.bfloat16)
    padded = measure([lambda: scaled_dot_product_attention(q.view(1, 8, 4, 128), *kv[0], attn_mask=mask)])
    yield row(
        _NAME, "8B B1 32/8 hd128 ragged 1k to 58k (132k) with bias", "time", timing.median_s * 1e6, "us",
        spread=timing.spread_s * 1e6, peer="sdpa padded with bias", peer_value=padded.median_s * 1e6,
        larger_is_better=False,
    )  # fmt: skip
    yield row(_NAME, "8B ragged 1k to 58k with bias", "rate", caches[0].nbytes / timing.median_s * 1e-12, "TB/s")


def _tiles(device: torch.device) -> Iterator[dict[str, Any]]:
    """The kernel that serves int8 and int4 with more than 8 rows, and other tiles than those of the table."""
    from .launch import CodesConfig, Config, ragged_triton

    q = torch.randn(1, 32, 1, 128, device=device, dtype=torch.bfloat16)
    through_shared = Config(8, 128, 4, 2, 3, swap=True, registers=168)
    tiles: dict[str, dict[str, Config | CodesConfig]] = {
        "int8": {"values through shared memory": through_shared, "16 keys a warp": CodesConfig(16, 4, 2, 255)},
        "int4": {
            "values through shared memory": replace(through_shared, stages=3),
            "32 keys a warp": CodesConfig(32, 4, 2, 255),
        },
    }
    for format, configs in tiles.items():
        caches = [_cache(*_kv(1, 8, 32768, 128, device), format) for _ in range({"int8": 16, "int4": 28}[format])]
        for name, config in configs.items():
            attend = partial(ragged_triton, q, scale=128**-0.5, config=config, split=True)
            timing = measure([partial(attend, cache=cache) for cache in caches])
            case = f"8B B1 32/8 hd128 32k {format}, {name}"
            yield row(_NAME, case, "time", timing.median_s * 1e6, "us", spread=timing.spread_s * 1e6)


def _paged(device: torch.device) -> Iterator[dict[str, Any]]:
    for page, format in ((64, "plain"), (128, "int8"), (128, "int4")):
        caches = []
        for _ in range({"plain": 8, "int8": 16, "int4": 28}[format]):
            pages = 8 * 32768 // page
            k, v = (torch.randn(pages * page, 128, device=device, dtype=torch.bfloat16) for _ in range(2))
            table = torch.randperm(pages, device=device).view(8, -1).int()
            cu_len = torch.arange(9, device=device, dtype=torch.int32) * 32768
            bias = torch.randn(pages * page, device=device)
            cache = RaggedKV(k, v, cu_len, bias_N=bias, block_table_SP=table, page=page)
            caches.append(cache if format == "plain" else quantize_kv(cache, format, group=128))
        q = torch.randn(1, 32, 1, 128, device=device, dtype=torch.bfloat16)
        timing = measure([partial(decode_attention, q, cache) for cache in caches])
        yield from _compared(
            f"8B B1 32/8 hd128 32k pages of {page} {format} with bias", caches[0].nbytes, timing, {}, 0
        )


def _flex(device: torch.device) -> Iterator[dict[str, Any]]:
    """FlexAttention with a bias per key, and FlashInfer without one where it is installed."""
    from torch.nn.attention.flex_attention import flex_attention

    q = torch.randn(1, 32, 1, 128, device=device, dtype=torch.bfloat16)
    kv = [_kv(1, 8, 32768, 128, device) for _ in range(8)]
    caches = [_cache(k, v, "plain") for k, v in kv]
    bias = torch.randn(8, 32768, device=device)

    def biased(score: Tensor, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return score + bias[h // 4, j]

    compiled = torch.compile(flex_attention, dynamic=False)
    attend = partial(compiled, q, score_mod=biased, enable_gqa=True)
    flex = gpu_time_s([partial(attend, k, v) for k, v in kv], budget_s=0.15)
    ours = measure([partial(decode_attention, q, cache) for cache in caches])
    known = {"flex with bias": flex.median_s}
    if importlib.util.find_spec("flashinfer") is not None:
        flashinfer = importlib.import_module("flashinfer")

        nhd = [(k[0].transpose(0, 1).contiguous(), v[0].transpose(0, 1).contiguous()) for k, v in kv]
        calls = [partial(flashinfer.single_decode_with_kv_cache, q[0, :, 0], k, v) for k, v in nhd]
        known["flashinfer (no bias)"] = measure(calls).median_s
    for peer, seconds in known.items():
        yield row(
            _NAME, "8B B1 32/8 hd128 32k plain with bias", "time", ours.median_s * 1e6, "us",
            spread=ours.spread_s * 1e6, peer=peer, peer_value=seconds * 1e6, larger_is_better=False,
        )  # fmt: skip


def _cpu(device: torch.device) -> Iterator[dict[str, Any]]:
    """The torch path beside torch's attention with the same bias, float32, 0.5B model."""
    for tokens, lengths in ((4096, [4096, 4096]), (4096, [4096, 1024])):
        k, v = (torch.randn(sum(lengths), 64) for _ in range(2))
        cu_len = torch.tensor([0, lengths[0], sum(lengths)], dtype=torch.int32)
        cache = RaggedKV(k, v, cu_len, bias_N=torch.randn(sum(lengths)))
        q, dense_k, dense_v = torch.randn(1, 14, 1, 64), torch.randn(1, 2, tokens, 64), torch.randn(1, 2, tokens, 64)
        mask = torch.randn(1, 14, 1, tokens)
        ours = cpu_time_s(partial(decode_attention, q, cache))
        theirs = cpu_time_s(partial(scaled_dot_product_attention, q, dense_k, dense_v, attn_mask=mask, enable_gqa=True))
        yield row(
            _NAME, f"0.5B 14/2 hd64 fp32 lengths {lengths} with bias", "time", ours.median_s * 1e6, "us",
            spread=ours.spread_s * 1e6, peer="sdpa (padded, enable_gqa)", peer_value=theirs.median_s * 1e6,
            larger_is_better=False,
        )  # fmt: skip


def _kv(batch: int, heads: int, tokens: int, dim: int, device: torch.device) -> tuple[Tensor, Tensor]:
    shape = (batch, heads, tokens, dim)
    return torch.randn(shape, device=device, dtype=torch.bfloat16), torch.randn(
        shape, device=device, dtype=torch.bfloat16
    )


def _cache(k: Tensor, v: Tensor, format: str) -> RaggedKV:
    cache = ragged_from_dense(k, v, torch.randn(k.shape[:3], device=k.device))
    return cache if format == "plain" else quantize_kv(cache, format)
