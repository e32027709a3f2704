"""Benchmark of low-bit attention: ``python -P -m perdure.kernels.bench --op lowbit_attention``.

Rates count 4 B H S T D operations (half when causal; 2.5 times that for a backward) and, unless the case says
otherwise, the quantisation. The peer is torch's attention in bfloat16 on the named backend, in the same run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from ..dispatch import capability, override
from ..timing import Timing, cpu_time_s, gpu_time_s, row
from . import attention_exact, lowbit_attention

__all__ = ["rows"]

_BENCH = "lowbit_attention"


def rows(device: torch.device, quick: bool) -> Iterator[dict[str, Any]]:
    """Forward beside cuDNN and flash, without quantisation, SageBwd, and errors."""
    if device.type == "cpu":
        yield from _cpu_rows()
        return
    shapes = [(128, 16, 16, 16384), (64, 32, 32, 16384), (256, 8, 8, 16384), (128, 32, 8, 8192), (64, 14, 2, 4096)]
    for dim, heads, kv_heads, length in shapes[: 2 if quick else None]:
        for causal in (False, True):
            yield from _forward_rows(device, dim, heads, kv_heads, length, causal)
    if capability(device) == (9, 0) and not quick:
        yield from _switch_rows(device)
    if capability(device) is not None:
        yield from _training_rows(device, 128, 16, 4096)
        yield from _error_rows(device, 128, 8, 2048)


def _forward_rows(
    device: torch.device, dim: int, heads: int, kv_heads: int, length: int, causal: bool
) -> Iterator[dict[str, Any]]:
    q, k, v = _tensors(device, dim, heads, kv_heads, length)
    work = 4 * heads * length**2 * dim / (2 if causal else 1)
    case = f"hd{dim} {heads}/{kv_heads} heads {'causal' if causal else 'full'} {length // 1024}k fwd"
    peers = {}
    wide_k, wide_v = (x.repeat_interleave(heads // kv_heads, dim=1) for x in (k, v))  # every backend takes these
    for name, backend in (("cuDNN bf16", SDPBackend.CUDNN_ATTENTION), ("flash-2 bf16", SDPBackend.FLASH_ATTENTION)):
        with sdpa_kernel(backend):
            peers[name] = work / gpu_time_s(lambda: _torch(q, wide_k, wide_v, causal), repetitions=10).median_s / 1e12
    for values in ("fp8", "half") if dim == 128 else ("fp8",):
        timing = gpu_time_s(lambda values=values: lowbit_attention(q, k, v, causal=causal, values=values))  # type: ignore[misc]
        for peer in peers if values == "fp8" else list(peers)[:1]:
            yield _rate(f"{case} {values} values", work, timing, peer, peers[peer])
    if capability(device) == (9, 0):
        from .launch import hopper_forward, hopper_tile, quantize

        tile = hopper_tile(dim, True)
        ready = quantize(k, v, tile.n, True, permute=True)
        timing = gpu_time_s(lambda: hopper_forward(q, k, v, causal, dim**-0.5, True, tile, ready))
        yield _rate(f"{case} fp8 values, quantised before", work, timing, "cuDNN bf16", peers["cuDNN bf16"])


def _switch_rows(device: torch.device) -> Iterator[dict[str, Any]]:
    """The kernel alone with one of its switches turned; the peer is the kernel as it is shipped."""
    from .launch import hopper_forward, hopper_tile, quantize

    for dim, heads, turned in (
        (128, 16, {"hold": True}),
        (128, 16, {"ping": False}),
        (128, 16, {"share": 1}),
        (64, 32, {"hold": True}),
        (64, 32, {"share": 0}),
        (256, 8, {"hold": True}),
    ):
        q, k, v = _tensors(device, dim, heads, heads, 16384)
        tile = hopper_tile(dim, True)
        run = partial(hopper_forward, q, k, v, False, dim**-0.5, True, ready=quantize(k, v, tile.n, True, permute=True))
        timings = [gpu_time_s(partial(run, tile=t)) for t in (replace(tile, **turned), tile)]
        work = 4 * heads * 16384**2 * dim
        words = " ".join(f"{name}={value}" for name, value in turned.items())
        case = f"hd{dim} {heads}/{heads} heads full 16k fwd quantised before, {words}"
        yield _rate(case, work, timings[0], "as shipped", work / timings[1].median_s / 1e12)


def _training_rows(device: torch.device, dim: int, heads: int, length: int) -> Iterator[dict[str, Any]]:
    """Forward and backward of SageBwd, which the dispatcher does not use where it is slower."""
    inputs = [x.requires_grad_() for x in _tensors(device, dim, heads, heads, length)]
    gradient = torch.randn_like(inputs[0])

    def both(forward: Callable[[], Tensor]) -> Callable[[], object]:
        return lambda: torch.autograd.grad(forward(), inputs, gradient)

    q, k, v = inputs
    work = 14 * heads * length**2 * dim / 2
    with torch.enable_grad(), override("lowbit_attention training", "sage"):
        ours = gpu_time_s(both(lambda: lowbit_attention(q, k, v).out), repetitions=10, graph=False)
    with torch.enable_grad(), sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
        peer = gpu_time_s(both(lambda: _torch(q, k, v, True)), repetitions=10, graph=False)
    case = f"hd{dim} {heads}/{heads} heads causal {length // 1024}k fwd+bwd SageBwd"
    yield _rate(case, work, ours, "cuDNN bf16", work / peer.median_s / 1e12)


def _error_rows(device: torch.device, dim: int, heads: int, length: int) -> Iterator[dict[str, Any]]:
    """Relative error against float32, keys with a mean (which rounding without smoothing would not survive)."""
    q, k, v = _tensors(device, dim, heads, heads, length)
    exact = attention_exact(q.float(), k.float(), v.float())[0]
    peer = _relative(_torch(q, k, v, True), exact)
    for values in ("fp8", "half"):
        error = _relative(lowbit_attention(q, k, v, values=values).out, exact)
        case = f"hd{dim} causal {length // 1024}k fwd {values} values"
        yield row(_BENCH, case, "relative error", error, "", peer="torch bf16", peer_value=peer, larger_is_better=False)


def _cpu_rows() -> Iterator[dict[str, Any]]:
    q, k, v = (x.float() for x in _tensors(torch.device("cpu"), 64, 14, 2, 512))
    pairs = [(cpu_time_s(lambda: lowbit_attention(q, k, v)), cpu_time_s(lambda: _torch(q, k, v, True))) for _ in "123"]
    ours, peer = (min(timings) for timings in zip(*pairs, strict=True))  # in turn: another process may come between
    yield row(
        _BENCH, "hd64 14/2 heads causal 512 fwd", "time", ours.median_s * 1e3, "ms", spread=ours.spread_s * 1e3,
        peer="torch SDPA", peer_value=peer.median_s * 1e3, larger_is_better=False,
    )  # fmt: skip


def _tensors(device: torch.device, dim: int, heads: int, kv_heads: int, length: int) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator(device=device).manual_seed(dim + length)
    q = torch.randn(1, heads, length, dim, device=device, generator=g)
    k, v = (torch.randn(1, kv_heads, length, dim, device=device, generator=g) for _ in range(2))
    k = k + 2 * torch.randn(1, kv_heads, 1, dim, device=device, generator=g)
    return q.bfloat16(), k.bfloat16(), v.bfloat16()


def _torch(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
    return scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=q.shape[1] != k.shape[1])


def _relative(out: Tensor, exact: Tensor) -> float:
    return float((out.float() - exact).norm() / exact.norm())


def _rate(case: str, work: float, timing: Timing, peer: str, peer_value: float) -> dict[str, Any]:
    value = work / timing.median_s / 1e12
    spread = value * timing.spread_s / timing.median_s
    return row(_BENCH, case, "rate", value, "TFLOP/s", spread=spread, peer=peer, peer_value=peer_value)
