"""Timing of kernels: medians, warm or from a cold cache, and the row of a benchmark.

GPU times come from CUDA events around replays of a CUDA graph, so that Python and launches are not counted. A function
that reads memory is timed cold: give several functions over different buffers (they are rotated inside one graph; use
more bytes than the second-level cache holds), or ``cold=True`` for one function (the cache is overwritten before each
call, outside of the timed region).
"""

from __future__ import annotations

import math
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

__all__ = ["Timing", "commit", "compile_only", "cpu_time_s", "gpu_time_s", "row"]

Function = Callable[[], Any]

_FLUSH_BYTES = 256 << 20  # five times the 50 MB of an H100's second-level cache
_TARGET_S = 1e-3  # one replay of a graph takes about this long, so that its launch (2 us) is 0.2 %


class _State:
    """Set by ``compile_only``: which worker of how many this process is, and the timings asked for so far."""

    worker: int = 0
    workers: int = 0
    asked: int = 0


def compile_only(worker: int, workers: int) -> None:
    """From here on ``gpu_time_s`` measures nothing: it runs every ``workers``-th function once, so that it is compiled.

    A benchmark is first run so in several processes: the caches on disk are full when it is measured.
    """
    _State.worker, _State.workers = worker, workers


class Timing(NamedTuple):
    """Seconds of one call: the median, and the greatest minus the least of the middle 80 %."""

    median_s: float
    spread_s: float


def gpu_time_s(
    fn: Function | Sequence[Function],
    *,
    repetitions: int = 30,
    cold: bool = False,
    graph: bool = True,
    budget_s: float = 0.4,
) -> Timing:
    """Seconds of one call of ``fn`` on the current CUDA device.

    Args:
        fn: a function that enqueues work, or several over different buffers that are called in turn (the time is then
            that of one of them).
        repetitions: measured samples; fewer (at least 5) if they would take longer than ``budget_s``.
        cold: overwrite the second-level cache before every call; only for a single function.
        graph: replay a CUDA graph; a function that cannot be captured needs False.
        budget_s: bound on the measured seconds.

    Source: ``triton.testing.do_bench`` flushes in the same way.
    """
    functions = [fn] if callable(fn) else list(fn)
    if _State.workers:
        _State.asked += 1
        if _State.asked % _State.workers == _State.worker:
            functions[0]()
            torch.cuda.synchronize()
        return Timing(1.0, 0.0)
    flush_bytes = _FLUSH_BYTES if cold and len(functions) == 1 else 0
    for function in functions:
        function()
    torch.cuda.synchronize()
    begun, ended = _event(), _event()
    begun.record()
    for function in functions:
        function()
    ended.record()
    torch.cuda.synchronize()
    once_s = max(begun.elapsed_time(ended) * 1e-3, 1e-6)
    rounds = 1 if flush_bytes else min(256, math.ceil(_TARGET_S / once_s))
    run = _captured(functions, rounds) if graph else _plain(functions, rounds)
    run()
    samples = max(5, min(repetitions, int(budget_s / (once_s * rounds))))
    flush = torch.empty(flush_bytes, dtype=torch.uint8, device="cuda")
    events = [(_event(), _event()) for _ in range(samples)]
    for begun, ended in events:
        if flush_bytes:
            flush.zero_()
        begun.record()
        run()
        ended.record()
    torch.cuda.synchronize()
    calls = rounds * len(functions)
    return _timing([begun.elapsed_time(ended) * 1e-3 / calls for begun, ended in events])


def cpu_time_s(fn: Function, *, repetitions: int = 15, budget_s: float = 1.0) -> Timing:
    """Seconds of one call of ``fn`` on the CPU; short functions are called several times per sample."""
    fn()
    begun = time.perf_counter()
    fn()
    once_s = max(time.perf_counter() - begun, 1e-7)
    rounds = min(1000, math.ceil(_TARGET_S / once_s))
    samples = max(3, min(repetitions, int(budget_s / (once_s * rounds))))
    times = []
    for _ in range(samples):
        begun = time.perf_counter()
        for _ in range(rounds):
            fn()
        times.append((time.perf_counter() - begun) / rounds)
    return _timing(times)


def commit() -> str:
    """Short hash of the checkout that this code lies in; ``unknown`` where there is none, or no git."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "unknown"
    return done.stdout.strip() or "unknown"


def row(
    bench: str,
    case: str,
    metric: str,
    value: float,
    unit: str,
    *,
    spread: float | None = None,
    peer: str | None = None,
    peer_value: float | None = None,
    larger_is_better: bool = True,
) -> dict[str, Any]:
    """One row of a benchmark (docs/design.md, section 8); ``ratio`` above 1: Perdure is ahead of the peer.

    Args:
        bench: name of the operation, ``attention``.
        case: the shape in words, ``hd128 causal 16k fwd``.
        metric: what is measured, ``rate``, ``time``, ``error``.
        value: the figure, in ``unit``.
        unit: ``TFLOP/s``, ``TB/s``, ``us``, ...; shares are fractions.
        spread: of the value, same unit.
        peer: who is compared.
        peer_value: the peer's figure in the same unit and run.
        larger_is_better: False for times and errors.
    """
    ratio = None
    if peer_value is not None:
        over, under = (value, peer_value) if larger_is_better else (peer_value, value)
        ratio = over / under if under else None
    return {
        "bench": bench,
        "case": case,
        "metric": metric,
        "value": value,
        "unit": unit,
        "spread": spread,
        "peer": peer,
        "peer_value": peer_value,
        "ratio": ratio,
    }


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


def _plain(functions: Sequence[Function], rounds: int) -> Function:
    def run() -> None:
        for _ in range(rounds):
            for function in functions:
                function()

    return run


def _captured(functions: Sequence[Function], rounds: int) -> Function:
    run, side = _plain(functions, rounds), torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # allocations and handles are made before the capture
        _plain(functions, 1)()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


def _timing(times_s: list[float]) -> Timing:
    times_s = sorted(times_s)
    cut = len(times_s) // 10
    return Timing(statistics.median(times_s), times_s[-1 - cut] - times_s[cut])
