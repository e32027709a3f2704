"""Quantised products beside what torch ships: tinygemm, int8 packed, ``_int_mm``, fp8 ``_scaled_mm`` and bf16 cuBLAS.

Times of one token are taken with cold caches: several copies of a matrix in turn, more than the second-level cache
holds. Bytes are those of the packed weights with their scales, each format's own.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..timing import Timing, cpu_time_s, gpu_time_s, row
from . import PackedWeight, best_layout, pack, quantize, quantized_matmul, round_tokens

__all__ = ["cold_copies", "compile_ahead", "random_w4", "random_w8", "rows", "time_us"]

GEMV_SHAPES = ((28672, 8192), (8192, 28672), (14336, 4096), (4096, 14336))
"""The figures of merit, both ways round: outputs x inputs."""
MODEL_SHAPES = {
    "0.5B attention": (896, 896),
    "0.5B up": (4864, 896),
    "0.5B down": (896, 4864),
    "0.5B head": (151936, 896),
    "3B up": (11008, 2048),
    "8B attention": (4096, 4096),
}
GEMM_CASES = {(28672, 8192): (16, 64, 4096), (14336, 4096): (4, 16, 64, 256, 1024, 4096), (4864, 896): (16, 256)}
"""Tokens by shape."""
_CACHE_BYTES = 160e6


def rows(device: torch.device, quick: bool) -> Iterator[dict[str, Any]]:
    """Rows of docs/design.md, section 8."""
    yield from _cpu(quick) if device.type == "cpu" else _gpu(device, quick)


def random_w4(n: int, k: int, device: torch.device) -> PackedWeight:
    """Random 4-bit weights in layout ``triton``, K a multiple of 128."""
    words = torch.randint(-(2**31), 2**31 - 1, (n, k // 8), device=device, dtype=torch.int32)
    scale = torch.rand(n, k // 128, device=device) * 0.01 + 0.001
    return PackedWeight("triton", 4, n, k, words, torch.stack([scale, -7.5 * scale], dim=-1).half())


def random_w8(n: int, k: int, device: torch.device) -> PackedWeight:
    """Random 8-bit weights in layout ``triton``, K a multiple of 128."""
    data = torch.randint(-127, 128, (n, k), device=device, dtype=torch.int8)
    return PackedWeight("triton", 8, n, k, data, torch.rand(n, device=device) * 0.01)


def cold_copies(make: Callable[[], Any], size: float) -> list[Any]:
    """As many as together exceed the second-level cache three times over, at most 48."""
    return [make() for _ in range(min(48, max(2, int(-(-_CACHE_BYTES // size)))))]


def time_us(functions: Sequence[Callable[[], Any]]) -> Timing:
    """Microseconds on a GPU, the functions called in turn."""
    timing = gpu_time_s(functions, repetitions=15, budget_s=0.05)
    return Timing(timing.median_s * 1e6, timing.spread_s * 1e6)


def compile_ahead(calls: Iterable[Callable[[], Any]]) -> None:
    """Calls each once, several at a time: Triton takes a second for every kernel that it has not compiled yet."""
    with ThreadPoolExecutor(8) as pool:
        for future in [pool.submit(call) for call in calls]:
            future.result()
    torch.cuda.synchronize()


def _gpu(device: torch.device, quick: bool) -> Iterator[dict[str, Any]]:
    shapes = GEMV_SHAPES[:1] + GEMV_SHAPES[3:] if quick else GEMV_SHAPES
    models = {} if quick else MODEL_SHAPES
    gemms: dict[tuple[int, int], tuple[int, ...]] = {(14336, 4096): (16, 4096)} if quick else GEMM_CASES
    compile_ahead(_calls([*shapes, *models.values()], shapes, gemms, device))
    for n, k in shapes:
        yield from _w4_gemv(f"W4A16 GEMV {n}x{k}", n, k, device)
    for n, k in shapes:
        yield from _w8_gemv(n, k, device)
    for name, (n, k) in models.items():
        yield from _w4_gemv(f"W4A16 GEMV {name} {n}x{k}", n, k, device)
    for (n, k), counts in gemms.items():
        for tokens in counts:
            yield from _gemm(n, k, tokens, device)


def _calls(
    four: Sequence[tuple[int, int]],
    eight: Sequence[tuple[int, int]],
    gemms: dict[tuple[int, int], tuple[int, ...]],
    device: torch.device,
) -> Iterator[Callable[[], Any]]:
    """One product of every case."""
    cases = [(n, k, 1, True) for n, k in four] + [(n, k, 1, False) for n, k in eight]
    cases += [
        (n, k, tokens, is_four) for (n, k), counts in gemms.items() for tokens in counts for is_four in (True, False)
    ]
    for n, k, tokens, is_four in cases:
        yield partial(_once, n, k, tokens, is_four, device)


def _once(n: int, k: int, tokens: int, is_four: bool, device: torch.device) -> None:
    x = torch.randn(tokens, k, device=device).bfloat16()
    quantized_matmul(x, random_w4(n, k, device) if is_four else random_w8(n, k, device))
    if not is_four:
        quantized_matmul(round_tokens(x), random_w8(n, k, device))


def _w4_gemv(case: str, n: int, k: int, device: torch.device) -> Iterator[dict[str, Any]]:
    x = torch.randn(1, k, device=device).bfloat16()
    weights = cold_copies(lambda: random_w4(n, k, device), n * k / 2)
    ours = time_us([partial(quantized_matmul, x, w) for w in weights])
    size = weights[0].bytes
    del weights
    rate = size / ours.median_s * 1e-6
    packed = cold_copies(lambda: _tinygemm_weight(n, k, device), n * k / 2)
    scales = torch.rand(k // 128, n, 2, device=device).bfloat16()
    theirs = time_us([partial(torch._weight_int4pack_mm, x, w, 128, scales) for w in packed]).median_s
    del packed
    their_rate = (n * k / 2 + scales.nbytes) / theirs * 1e-6
    spread = rate * ours.spread_s / ours.median_s
    yield row("quantized_matmul", case, "rate", rate, "TB/s", spread=spread, peer="tinygemm", peer_value=their_rate)
    yield _times("quantized_matmul", case, ours, "cuBLAS bf16", _bf16_us(x, n, k))
    made = _torchao_us(x, n, k)
    if made is not None:
        yield _times("quantized_matmul", case, ours, "torchao int4", made)


def _w8_gemv(n: int, k: int, device: torch.device) -> Iterator[dict[str, Any]]:
    x = torch.randn(1, k, device=device).bfloat16()
    weights = cold_copies(lambda: random_w8(n, k, device), n * k)
    ours = time_us([partial(quantized_matmul, x, w) for w in weights])
    tokens = round_tokens(x)
    rounded = time_us([partial(quantized_matmul, tokens, w) for w in weights])
    counted = time_us([partial(_rounded, x, w) for w in weights])
    scales = torch.rand(n, device=device).bfloat16()
    try:
        theirs = time_us([partial(torch._weight_int8pack_mm, x, w.data, scales) for w in weights]).median_s
        peer = "torch int8 packed"
    except RuntimeError:  # not every torch has it for CUDA
        theirs, peer = _bf16_us(x, n, k), "cuBLAS bf16"
    yield _times("quantized_matmul", f"W8A16 GEMV {n}x{k}", ours, peer, theirs)
    dense = _bf16_us(x, n, k)
    yield _times("quantized_matmul", f"W8A8 GEMV {n}x{k}", rounded, "cuBLAS bf16", dense)
    yield _times("quantized_matmul", f"W8A8 GEMV {n}x{k}, rounding counted", counted, "cuBLAS bf16", dense)


def _gemm(n: int, k: int, tokens: int, device: torch.device) -> Iterator[dict[str, Any]]:
    x = torch.randn(tokens, k, device=device).bfloat16()
    four, eight = (cold_copies(partial(f, n, k, device), n * k / 2)[:4] for f in (random_w4, random_w8))
    case = f"{n}x{k}, {tokens} tokens"
    dense = _bf16_us(x, n, k)
    ours = time_us([partial(quantized_matmul, x, w) for w in four])
    yield _times("quantized_matmul", f"W4A16 {case}", ours, "cuBLAS bf16", dense)
    if tokens <= 256:
        packed = [_tinygemm_weight(n, k, device) for _ in four]
        scales = torch.rand(k // 128, n, 2, device=device).bfloat16()
        theirs = time_us([partial(torch._weight_int4pack_mm, x, w, 128, scales) for w in packed]).median_s
        yield _times("quantized_matmul", f"W4A16 {case}", ours, "tinygemm", theirs)
    ours = time_us([partial(quantized_matmul, x, w) for w in eight])
    yield _times("quantized_matmul", f"W8A16 {case}", ours, "cuBLAS bf16", dense)
    q = round_tokens(x)
    ours = time_us([partial(quantized_matmul, q, w) for w in eight])
    counted = time_us([partial(_rounded, x, w) for w in eight])
    peer, theirs = "cuBLAS bf16", dense
    if tokens > 16:
        peer = "torch._int_mm, scales applied"
        scale = torch.rand(n, device=device)
        theirs = time_us([partial(_int_mm, q.q_MK, q.scale_M, w.data, scale) for w in eight]).median_s
    yield _times("quantized_matmul", f"W8A8 {case}", ours, peer, theirs)
    yield _times("quantized_matmul", f"W8A8 {case}, rounding counted", counted, "cuBLAS bf16", dense)
    theirs_fp8 = _fp8_us(x, eight)
    if theirs_fp8 is not None:
        yield _times("quantized_matmul", f"W8A8 {case}", ours, "fp8 _scaled_mm", theirs_fp8)


def _fp8_us(x: Tensor, weights: Sequence[PackedWeight]) -> float | None:
    """torch's fp8 product with a scale per token and per output, where the device and the shape allow it."""
    (tokens, _), n = x.shape, weights[0].rows
    if tokens < 16 or torch.cuda.get_device_capability(x.device) < (8, 9):
        return None
    fp8, x8 = [w.data.to(torch.float8_e4m3fn) for w in weights], x.to(torch.float8_e4m3fn)
    one_M, one_N = torch.ones(tokens, 1, device=x.device), torch.ones(1, n, device=x.device)
    calls = [partial(torch._scaled_mm, x8, w.t(), one_M, one_N, out_dtype=torch.bfloat16) for w in fp8]
    try:
        return time_us(calls).median_s
    except RuntimeError:
        return None


def _rounded(x_MK: Tensor, weight: PackedWeight) -> Tensor:
    return quantized_matmul(round_tokens(x_MK), weight)


def _bf16(x_MK: Tensor, w_NK: Tensor) -> Tensor:
    return F.linear(x_MK.bfloat16(), w_NK).float()


def _int_mm(q_MK: Tensor, x_scale_M: Tensor, w_NK: Tensor, scale_N: Tensor) -> Tensor:
    return (torch._int_mm(q_MK, w_NK.t()) * x_scale_M[:, None] * scale_N).bfloat16()


def _tinygemm_weight(n: int, k: int, device: torch.device) -> Tensor:
    codes = torch.randint(0, 256, (n, k // 2), device=device, dtype=torch.uint8)
    return torch._convert_weight_to_int4pack(codes, 8)


def _bf16_us(x: Tensor, n: int, k: int) -> float:
    dense = cold_copies(lambda: torch.randn(n, k, device=x.device, dtype=torch.bfloat16), 2 * n * k)
    return time_us([partial(F.linear, x, w) for w in dense]).median_s


def _torchao_us(x: Tensor, n: int, k: int) -> float | None:
    """torchao's int4 weight-only linear, where it is installed and works."""
    if importlib.util.find_spec("torchao") is None:
        return None
    try:
        quantization: Any = importlib.import_module("torchao.quantization")
        layer = torch.nn.Linear(k, n, bias=False, device=x.device, dtype=torch.bfloat16)
        quantization.quantize_(layer, quantization.Int4WeightOnlyConfig(group_size=128))
        return gpu_time_s(lambda: layer(x), cold=True, budget_s=0.05).median_s * 1e6
    except Exception:  # noqa: BLE001  (a peer that does not work here is left out)
        return None


def _times(bench: str, case: str, ours: Timing, peer: str, theirs_us: float) -> dict[str, Any]:
    return row(
        bench,
        case,
        "time",
        ours.median_s,
        "us",
        spread=ours.spread_s,
        peer=peer,
        peer_value=theirs_us,
        larger_is_better=False,
    )


def _cpu(quick: bool) -> Iterator[dict[str, Any]]:
    """The default planner's shapes, beside the best of the packed operators and the dense product of torch."""
    with torch.inference_mode():
        for name in ("0.5B up", "0.5B down") if quick else ("0.5B attention", "0.5B up", "0.5B down", "8B attention"):
            n, k = MODEL_SHAPES[name]
            dense = torch.randn(n, k) * 0.1
            for bits in (4, 8):
                yield from _cpu_case(f"{name} {n}x{k}", dense, bits)


def _cpu_case(name: str, dense: Tensor, bits: int) -> Iterator[dict[str, Any]]:
    quantized = quantize(dense, bits)  # type: ignore[arg-type]
    ours, packed = pack(quantized, best_layout()), pack(quantized, "torch")
    dense_bf16 = dense.bfloat16()
    for tokens in (1, 4, 16, 128):
        x = torch.randn(tokens, dense.shape[1])
        peers = {
            "torch packed": cpu_time_s(partial(quantized_matmul, x, packed), budget_s=0.2).median_s * 1e6,
            "torch bf16": cpu_time_s(partial(_bf16, x, dense_bf16), budget_s=0.2).median_s * 1e6,
            "torch fp32": cpu_time_s(partial(F.linear, x, dense), budget_s=0.2).median_s * 1e6,
        }
        peer = min(peers, key=lambda p: peers[p])
        timing = cpu_time_s(partial(quantized_matmul, x, ours), budget_s=0.2)
        timing = Timing(timing.median_s * 1e6, timing.spread_s * 1e6)
        yield _times("quantized_matmul", f"W{bits} {name}, {tokens} tokens", timing, peer, peers[peer])
