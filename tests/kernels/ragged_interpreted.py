"""Runs the ragged kernels in Triton's interpreter, in a process of its own: ``python -P ragged_interpreted.py``.

The interpreter is switched on by the environment of this process; the library itself reads none.
"""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path
from typing import Any

os.environ["TRITON_INTERPRET"] = "1"
sys.path.insert(0, str(Path(__file__).parent))

import torch
from perdure.kernels.decode_attention import dequantize_kv, ragged_attention_reference
from perdure.kernels.decode_attention.launch import Config, prepare, unpack_launch
from ragged_cases import error, ragged

DECODE = Config(8, 32, 4, 2, 2, swap=True)
APPEND = Config(32, 32, 4, 2, 2, lazy=False)
LENGTHS = [77, 0, 130, 32]
CASES: list[tuple[str, Config, bool, int, int, dict[str, Any], dict[str, Any]]] = [
    # format, configuration, split, queries, tail, cache, call
    ("plain", DECODE, True, 1, 0, {}, {}),
    ("fp8", DECODE, True, 1, 0, {}, {}),
    ("int8", DECODE, True, 2, 5, {}, {}),
    ("int4", DECODE, True, 1, 0, {"page": 64}, {}),
    ("int4", DECODE, False, 2, 5, {}, {}),
    ("plain", DECODE, True, 2, 0, {"page": 16}, {"window": 20}),
    ("int8", DECODE, True, 2, 6, {"positions": True}, {"window": 20}),
    ("plain", APPEND, True, 37, 40, {}, {}),
    ("int4", APPEND, False, 37, 40, {}, {"window": 9}),
]


def check(
    format: str,
    config: Config,
    split: bool,
    queries: int,
    tail: int,
    cache_is: dict[str, Any],
    call: dict[str, Any],
    processors: int = 3,
) -> None:
    batch, dim, per_kv = 2, 64, 3
    kv_heads = len(LENGTHS) // batch
    cache = ragged(LENGTHS, dim, format, dtype=torch.float16, group=32, **cache_is)
    q = torch.randn(batch, kv_heads * per_kv, queries, dim).half()
    new = tuple(torch.randn(batch, kv_heads, tail, dim).half() for _ in range(2)) if tail else None
    q_pos = (torch.arange(queries) + 60).expand(batch, queries).contiguous() if call else None
    options: dict[str, Any] = {"tail": new, "scale": dim**-0.5, "q_pos_BS": q_pos, "window": call.get("window")}
    launches, out, lse = prepare(q, cache, config=config, split=split, processors=processors, asm=False, **options)
    written = [out, lse, *(launches[0].arguments[name] for name in ("part_ptr", "stat_ptr") if split)]
    for x in written:
        x.fill_(math.nan)
    for launch in launches:
        launch.kernel[launch.grid](**launch.arguments, **launch.constants)
    exact, exact_lse = ragged_attention_reference(q, cache, dtype=torch.float64, **options)
    finite = exact_lse.isfinite()
    assert error(out, exact) < 2e-3, (format, config, error(out, exact))
    assert torch.equal(finite, lse.isfinite())
    assert (lse[finite] - exact_lse[finite]).abs().max() < 1e-3, (format, config)


def check_unpack(format: str, page: int) -> None:
    cache = ragged(LENGTHS, 64, format, page=page)
    k, v = (torch.full((cache.k_ND.shape[0], 64), math.nan) for _ in range(2))
    launch = unpack_launch(cache, k, v)
    launch.kernel[launch.grid](**launch.arguments, **launch.constants)
    for segment, length in enumerate(LENGTHS):
        for ours, exact in zip((k, v), dequantize_kv(cache, segment, length, torch.float32), strict=True):
            torch.testing.assert_close(ours[cache.rows(segment, length)], exact)


if __name__ == "__main__":
    for case in CASES:
        check(*case)
    check(*CASES[0], processors=9)  # more programs than tiles: some have no share
    for format, page in (("int8", 0), ("int4", 64)):
        check_unpack(format, page)
