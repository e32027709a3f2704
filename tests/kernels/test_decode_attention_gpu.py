"""The ragged kernels on a CUDA device, against the written-out reference in float64."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from perdure.kernels.append_attention import append_attention
from perdure.kernels.decode_attention import FORMATS, RaggedKV, decode_attention, ragged_attention_reference

sys.path.insert(0, str(Path(__file__).parent))
from ragged_cases import error, ragged

pytestmark = pytest.mark.gpu

LENGTHS = [777, 0, 130, 64, 1, 3000]


def decoded(q: torch.Tensor, cache: RaggedKV, **options: object) -> None:
    """Ours is at most twice as wrong as plain torch in the same precision, and the log-sum-exps agree."""
    out, lse = decode_attention(q, cache, **options)  # type: ignore[arg-type]
    exact, exact_lse = ragged_attention_reference(q, cache, dtype=torch.float64, **options)  # type: ignore[arg-type]
    plain, _ = ragged_attention_reference(q, cache, dtype=plain_dtype(q, cache), **options)  # type: ignore[arg-type]
    assert error(out, exact) <= 2 * error(plain, exact)
    finite = exact_lse.isfinite()
    assert torch.equal(lse.isfinite(), finite)
    torch.testing.assert_close(lse[finite].double(), exact_lse[finite], rtol=1e-2, atol=2e-2)


def plain_dtype(q: torch.Tensor, cache: RaggedKV) -> torch.dtype:
    """int8 and int4 caches are multiplied in bfloat16 whatever the queries are."""
    return torch.bfloat16 if cache.format in ("int8", "int4") else q.dtype


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(("heads", "dim"), [(1, 64), (4, 128), (7, 64), (8, 256), (16, 128)])
def test_decode_of_every_format(format: str, dtype: torch.dtype, heads: int, dim: int) -> None:
    cache = ragged(LENGTHS, dim, format, dtype=dtype, device="cuda")
    decoded(torch.randn(2, 3 * heads, 1, dim, device="cuda").to(dtype), cache)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("page", [16, 64, 256])
def test_decode_of_pages(format: str, page: int) -> None:
    cache = ragged(LENGTHS, 128, format, dtype=torch.bfloat16, page=page, group=16 if page == 16 else 64, device="cuda")
    decoded(torch.randn(1, 24, 1, 128, device="cuda").bfloat16(), cache)


@pytest.mark.parametrize("window", [None, 1, 50])
@pytest.mark.parametrize("positions", [False, True])
@pytest.mark.parametrize("format", ["plain", "int4"])
def test_decode_with_positions_and_windows(format: str, positions: bool, window: int | None) -> None:
    cache = ragged(LENGTHS, 64, format, dtype=torch.bfloat16, positions=positions, device="cuda")
    q_pos = torch.tensor([[80, 81, 82], [99, 100, 2999]], device="cuda")
    decoded(torch.randn(2, 6, 3, 64, device="cuda").bfloat16(), cache, q_pos_BS=q_pos, window=window)


@pytest.mark.parametrize("size", [1e-3, 20.0])
@pytest.mark.parametrize("format", FORMATS)
def test_decode_of_huge_and_tiny_values(format: str, size: float) -> None:
    cache = ragged(LENGTHS, 128, format, dtype=torch.bfloat16, size=size, device="cuda")
    decoded((torch.randn(1, 24, 1, 128, device="cuda") / size**0.5).bfloat16(), cache)


def test_decode_reads_neither_unused_tokens_nor_old_outputs() -> None:
    cache = ragged([500, 700], 128, dtype=torch.bfloat16, device="cuda")
    used = replace(cache, len_S=torch.tensor([123, 0], dtype=torch.int32, device="cuda"))
    for x in (used.k_ND, used.v_ND, used.bias_N):
        assert x is not None
        x[123:500] = math.nan
        x[500:] = math.nan
    q = torch.randn(1, 8, 1, 128, device="cuda").bfloat16()
    torch.full((1 << 22,), math.nan, device="cuda")  # what the allocator hands out next is filled with NaN
    out, lse = decode_attention(q, used)
    assert out.isfinite().all()
    assert (out[:, 4:] == 0).all()
    assert (lse[:, 4:] == -math.inf).all()


def test_all_masked_rows_are_zero() -> None:
    cache = ragged([300, 64], 64, "int8", dtype=torch.bfloat16, device="cuda")
    assert cache.bias_N is not None
    cache.bias_N.fill_(-math.inf)
    out, lse = decode_attention(torch.randn(1, 4, 2, 64, device="cuda").bfloat16(), cache)
    assert (out == 0).all()
    assert (lse == -math.inf).all()


def test_decode_twice_is_bitwise_equal() -> None:
    cache = ragged([5000, 9000], 128, "int4", dtype=torch.bfloat16, device="cuda")
    q = torch.randn(1, 8, 1, 128, device="cuda").bfloat16()
    first = decode_attention(q, cache)
    assert all(torch.equal(first.out_BHSD, decode_attention(q, cache).out_BHSD) for _ in range(20))


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(
    ("heads", "dim", "queries", "tail"),
    [
        (4, 128, 1, 1),
        (7, 64, 1, 30),
        (4, 128, 16, 16),
        (7, 64, 33, 50),
        (4, 128, 200, 200),
        (2, 256, 70, 70),
        (7, 64, 512, 512),
    ],
)
def test_append(format: str, heads: int, dim: int, queries: int, tail: int) -> None:
    cache = ragged(LENGTHS, dim, format, dtype=torch.bfloat16, device="cuda")
    q = torch.randn(2, queries, 3 * heads, dim, device="cuda").bfloat16().transpose(1, 2)
    k, v = (torch.randn(2, tail, 3, dim, device="cuda").bfloat16().transpose(1, 2) for _ in range(2))
    out, lse = append_attention(q, cache, k, v)
    q = q.contiguous()
    exact, exact_lse = ragged_attention_reference(q, cache, tail=(k, v), dtype=torch.float64)
    plain, _ = ragged_attention_reference(q, cache, tail=(k, v), dtype=torch.bfloat16)
    assert error(out, exact) <= 2 * error(plain, exact)
    torch.testing.assert_close(lse.double(), exact_lse, rtol=1e-2, atol=2e-2)


@pytest.mark.parametrize("window", [3, 100])
@pytest.mark.parametrize("queries", [5, 150])
def test_append_with_a_window(queries: int, window: int) -> None:
    cache = ragged([400, 400], 64, dtype=torch.bfloat16, device="cuda")
    q = torch.randn(1, 8, queries, 64, device="cuda").bfloat16()
    k, v = (torch.randn(1, 2, queries, 64, device="cuda").bfloat16() for _ in range(2))
    q_pos = torch.arange(400, 400 + queries, device="cuda")[None]
    out, _ = append_attention(q, cache, k, v, q_pos_BS=q_pos, window=window)
    options = {"tail": (k, v), "q_pos_BS": q_pos, "window": window}
    exact, _ = ragged_attention_reference(q, cache, dtype=torch.float64, **options)  # type: ignore[arg-type]
    plain, _ = ragged_attention_reference(q, cache, dtype=torch.bfloat16, **options)  # type: ignore[arg-type]
    assert error(out, exact) <= 2 * error(plain, exact)


def test_a_head_dimension_without_a_kernel_is_computed_by_torch() -> None:
    cache = ragged([90, 10], 80, "int8", dtype=torch.bfloat16, device="cuda")
    decoded(torch.randn(1, 4, 1, 80, device="cuda").bfloat16(), cache)
