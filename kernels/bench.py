"""Measures every operation beside its peers: ``python -P -m perdure.kernels.bench --device cuda --json PATH``.

    --device cuda|cpu   where; the default is cuda where there is one
    --op NAME           only this operation (its folder's name; ``machine`` for the rates of the card); may be repeated
    --quick             fewer shapes
    --json PATH         writes the object of docs/design.md, section 8
    --commit NAME       what to write as the commit, where there is no git
    --check             first run the operations' tests for that device (needs pytest); no figures if one fails
    --workers N         on a GPU, all is first compiled in N processes for each operation (0: while it is measured)

Each operation's ``bench.py`` has ``rows(device, quick)``. The rates of the machine itself (copy, matrix products) come
first, so that every figure can be read as a share of them. Needs torch alone; a peer that is not installed is left out
by the operation. An operation that fails does not stop the others: its traceback is printed, its name is written under
``failed``, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from . import native
from .timing import commit, compile_only, cpu_time_s, gpu_time_s, row

__all__ = ["machine_name", "machine_rows", "main", "operations"]

_HERE = Path(__file__).parent
_COLUMNS = ("bench", "case", "metric", "value", "unit", "spread", "peer", "peer_value", "ratio")

_COMPILE_LIMIT_S = 90.0

Rows = Callable[[torch.device, bool], Iterator[dict[str, Any]]]


def operations() -> list[str]:
    """Names of the folders beside this file that have a ``bench.py``."""
    return sorted(path.parent.name for path in _HERE.glob("*/bench.py"))


def machine_name(device: torch.device) -> str:
    """``h100``, ``h200``, another card's name in lower case, or ``cpu`` and the number of threads."""
    if device.type == "cpu":
        return f"cpu{torch.get_num_threads()}"
    name = torch.cuda.get_device_name(device).lower()
    return next((known for known in ("h100", "h200") if known in name), name.replace(" ", "-"))


def machine_rows(device: torch.device, quick: bool) -> Iterator[dict[str, Any]]:
    """The roofs: copy (bytes read and written) and square matrix products on fresh random data."""
    if device.type == "cpu":
        source = torch.rand(64 << 20)
        target = torch.empty_like(source)
        timing = cpu_time_s(lambda: target.copy_(source))
        yield _rate("copy 256 MB", 2 * source.nbytes, timing, "GB/s", 1e-9)
        a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
        yield _rate("fp32 matmul 1024^3", 2 * 1024**3, cpu_time_s(lambda: a @ b), "GFLOP/s", 1e-9)
        return
    source = torch.empty(1 << 30, dtype=torch.int32, device=device).random_()
    target = torch.empty_like(source)
    yield _rate("copy 4 GiB", 2 * source.nbytes, gpu_time_s(lambda: target.copy_(source)), "TB/s", 1e-12)
    n = 8192
    operations_count = 2 * n**3
    a, b = (torch.randn(n, n, device=device) for _ in range(2))
    a_bf16, b_bf16 = a.bfloat16(), b.bfloat16()
    yield _rate("bf16 matmul 8192^3", operations_count, gpu_time_s(lambda: a_bf16 @ b_bf16), "TFLOP/s", 1e-12)
    a_int8, b_int8 = (torch.randint(-127, 128, (n, n), device=device, dtype=torch.int8) for _ in range(2))
    timing = gpu_time_s(lambda: torch._int_mm(a_int8, b_int8.t()))
    yield _rate("int8 matmul 8192^3", operations_count, timing, "TFLOP/s", 1e-12)
    if torch.cuda.get_device_capability(device) < (8, 9):
        return
    a_fp8, b_fp8 = (x.to(torch.float8_e4m3fn) for x in (a, b))
    one = torch.ones((), device=device)
    timing = gpu_time_s(
        lambda: torch._scaled_mm(a_fp8, b_fp8.t(), one, one, out_dtype=torch.bfloat16, use_fast_accum=True)
    )
    yield _rate("fp8 matmul 8192^3", operations_count, timing, "TFLOP/s", 1e-12)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    known = ["machine", *operations()]
    parser = argparse.ArgumentParser(
        prog="python -P -m perdure.kernels.bench", description="Measures every operation beside its peers."
    )
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--op", action="append", choices=known, metavar="NAME", help=", ".join(known))
    parser.add_argument("--quick", action="store_true", help="fewer shapes")
    parser.add_argument("--json", type=Path, metavar="PATH")
    parser.add_argument("--commit", help="written as the commit where there is no git")
    parser.add_argument("--check", action="store_true", help="run the tests first; no figures if one fails")
    parser.add_argument(
        "--workers", type=int, default=3, metavar="N", help="processes that compile, for each operation"
    )
    parser.add_argument("--compile-only", type=int, metavar="WORKER", help=argparse.SUPPRESS)
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = parser.parse_args(given)
    chosen: list[str] = options.op or known
    if options.check:
        code = _check(chosen, options.device)
        if code:
            return code
    device = torch.device(options.device)
    if device.type == "cuda":
        device = torch.device("cuda", torch.cuda.current_device())
        if options.compile_only is not None:
            compile_only(options.compile_only, options.workers)
        elif options.workers:
            _compile(chosen, options.quick, options.workers)
    found: dict[str, Any] = {
        "machine": machine_name(device),
        "commit": options.commit or commit(),
        "command": " ".join(["python -P -m perdure.kernels.bench", *given]),
        "torch": torch.__version__,
        "triton": _triton_version(),
    }

    def keep(rows: list[dict[str, Any]], failed: list[str]) -> None:
        if options.json is not None:
            kept = {**found, "rows": rows, **({"failed": failed} if failed else {})}
            options.json.write_text(json.dumps(kept, indent=1) + "\n", "utf-8")

    return 1 if _measure(chosen, device, options.quick, keep) else 0


def _compile(chosen: Sequence[str], quick: bool, workers: int) -> None:
    """Fills the compilers' caches; what fails here fails again, and is reported, when it is measured."""
    begun = time.perf_counter()
    command = [sys.executable, "-P", "-m", __spec__.name, "--device", "cuda", "--workers", str(workers)]
    command += ["--quick"] if quick else []
    running = [
        subprocess.Popen([*command, "--op", name, "--compile-only", str(worker)], stdout=subprocess.DEVNULL)
        for name in chosen
        if name != "machine"
        for worker in range(workers)
    ]
    for process in running:
        try:
            process.wait(max(1.0, begun + _COMPILE_LIMIT_S - time.perf_counter()))
        except subprocess.TimeoutExpired:
            process.kill()
    _say(f"# compiled in {time.perf_counter() - begun:.1f} s")


def _measure(
    chosen: Sequence[str], device: torch.device, quick: bool, keep: Callable[[list[dict[str, Any]], list[str]], None]
) -> list[str]:
    """Measures and prints; ``keep`` gets all rows so far after each operation. Returns those that failed."""
    rows: list[dict[str, Any]] = []
    failed = []
    _say(f"{machine_name(device)}, torch {torch.__version__}, triton {_triton_version()}")
    _say(_line(_COLUMNS))
    with tempfile.TemporaryDirectory() as build_dir:
        if device.type == "cpu":
            native.enable(Path(build_dir))
        for name in chosen:
            begun = time.perf_counter()
            try:
                for found in _rows_of(name)(device, quick):
                    rows.append(found)
                    _say(_line([_cell(found[column]) for column in _COLUMNS]))
            except Exception:  # noqa: BLE001  (one operation's failure must not lose the others' figures)
                failed.append(name)
                _say(traceback.format_exc())
            if device.type == "cuda":
                torch.cuda.empty_cache()
            keep(rows, failed)
            _say(f"# {name}: {time.perf_counter() - begun:.1f} s")
    if failed:
        _say(f"# failed: {', '.join(failed)}")
    return failed


def _rows_of(name: str) -> Rows:
    if name == "machine":
        return machine_rows
    found: Rows = importlib.import_module(f".{name}.bench", __package__).rows
    return found


def _check(chosen: Sequence[str], device: str) -> int:
    """Runs the tests of the chosen operations in another process; the exit code of pytest."""
    if importlib.util.find_spec("pytest") is None:
        _say("--check needs pytest: install pytest and pytest-timeout, or leave --check out")
        return 2
    folder = _HERE.parent / "tests" / "kernels"
    files = [str(path) for name in chosen for path in sorted(folder.glob(f"test_{name}*.py"))]
    marks = "gpu" if device == "cuda" else "not gpu and not slow"
    command = [sys.executable, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", marks, *files]
    return subprocess.run(command, cwd=_HERE.parent, check=False).returncode


def _rate(case: str, amount: float, timing: Any, unit: str, factor: float) -> dict[str, Any]:
    value = amount / timing.median_s * factor
    return row("machine", case, "rate", value, unit, spread=value * timing.spread_s / timing.median_s)


def _triton_version() -> str | None:
    if importlib.util.find_spec("triton") is None:
        return None
    return str(importlib.import_module("triton").__version__)


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)


def _line(cells: Sequence[str]) -> str:
    widths = (18, 46, 14, 9, 8, 8, 22, 10, 6)
    return "  ".join(f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True)).rstrip()


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
