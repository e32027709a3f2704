"""Decode attention on the CPU: the torch path, and the kernels in Triton's interpreter, against the reference."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from perdure.errors import BadInput
from perdure.kernels.decode_attention import (
    FORMATS,
    RaggedKV,
    decode_attention,
    dequantize_kv,
    quantize_kv,
    ragged_attention_reference,
    ragged_from_dense,
)

sys.path.insert(0, str(Path(__file__).parent))
from ragged_cases import error, ragged

LENGTHS = [77, 0, 130, 64, 1, 200]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("page", [0, 64])
@pytest.mark.parametrize(("batch", "queries", "dim"), [(1, 1, 64), (2, 1, 80), (3, 5, 64)])
def test_every_format_equals_the_reference(format: str, page: int, batch: int, queries: int, dim: int) -> None:
    cache = ragged(LENGTHS, dim, format, page=page)
    q = torch.randn(batch, 7 * len(LENGTHS) // batch, queries, dim)
    out, lse = decode_attention(q, cache)
    exact, exact_lse = ragged_attention_reference(q, cache, dtype=torch.float64)
    assert error(out, exact) < 1e-5
    torch.testing.assert_close(lse.double(), exact_lse, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("window", [None, 1, 20])
@pytest.mark.parametrize("positions", [False, True])
def test_positions_and_windows_hide_keys(positions: bool, window: int | None) -> None:
    cache = ragged(LENGTHS, 64, positions=positions)
    q = torch.randn(2, 6, 3, 64)
    q_pos = torch.tensor([[40, 41, 42], [90, 91, 92]])
    out, lse = decode_attention(q, cache, q_pos_BS=q_pos, window=window)
    exact, exact_lse = ragged_attention_reference(q, cache, q_pos_BS=q_pos, window=window, dtype=torch.float64)
    assert error(out, exact) < 1e-5
    assert torch.equal(lse.isfinite(), exact_lse.isfinite())


def test_the_dense_case_is_torch_attention_with_a_bias() -> None:
    k, v, bias = torch.randn(2, 3, 50, 64), torch.randn(2, 3, 50, 64), torch.randn(2, 3, 50)
    q = torch.randn(2, 12, 1, 64)
    mask = bias.repeat_interleave(4, 1)[:, :, None]
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)
    torch.testing.assert_close(decode_attention(q, ragged_from_dense(k, v, bias)).out_BHSD, expected)


def test_two_halves_of_a_cache_merge_to_the_whole() -> None:
    k, v, bias, q = (
        torch.randn(1, 2, 90, 64),
        torch.randn(1, 2, 90, 64),
        torch.randn(1, 2, 90),
        torch.randn(1, 6, 1, 64),
    )
    whole = decode_attention(q, ragged_from_dense(k, v, bias))
    parts = [
        decode_attention(q, ragged_from_dense(k[:, :, at].contiguous(), v[:, :, at].contiguous(), bias[:, :, at]))
        for at in (slice(0, 31), slice(31, 90))
    ]
    lse = torch.logaddexp(parts[0].lse_BHS, parts[1].lse_BHS)
    merged = sum(part.out_BHSD * (part.lse_BHS - lse).exp()[..., None] for part in parts)
    torch.testing.assert_close(merged, whole.out_BHSD)
    torch.testing.assert_close(lse, whole.lse_BHS)


@pytest.mark.parametrize("format", FORMATS)
def test_nothing_to_see_gives_zeros_and_minus_infinity(format: str) -> None:
    empty = decode_attention(torch.randn(1, 4, 2, 64), ragged([0, 0], 64, format))
    assert (empty.out_BHSD == 0).all()
    cache = ragged([0, 64], 64, format)
    assert cache.bias_N is not None
    cache.bias_N.fill_(-math.inf)
    out, lse = decode_attention(torch.randn(1, 4, 2, 64), cache)
    assert (out == 0).all()
    assert (lse == -math.inf).all()


def test_a_bias_of_minus_infinity_is_a_key_that_is_not_there() -> None:
    cache = ragged([40], 64)
    assert cache.bias_N is not None
    cache.bias_N[7] = -math.inf
    rest = torch.tensor([i for i in range(40) if i != 7])
    fewer = RaggedKV(
        cache.k_ND[rest], cache.v_ND[rest], torch.tensor([0, 39], dtype=torch.int32), bias_N=cache.bias_N[rest]
    )
    q = torch.randn(1, 3, 1, 64)
    torch.testing.assert_close(decode_attention(q, cache), decode_attention(q, fewer))


def test_a_cache_grows_in_place() -> None:
    cache = ragged([100, 100], 64)
    q = torch.randn(1, 4, 1, 64)
    used = replace(cache, len_S=torch.tensor([37, 100], dtype=torch.int32))
    exact, _ = ragged_attention_reference(q, used)
    torch.testing.assert_close(decode_attention(q, used).out_BHSD, exact)
    first = (x[None, None, :37] for x in (cache.k_ND, cache.v_ND, cache.bias_N) if x is not None)
    shorter, _ = ragged_attention_reference(q[:, :2], ragged_from_dense(*first))
    torch.testing.assert_close(exact[:, :2], shorter)


@pytest.mark.parametrize("size", [1e-20, 1e-4, 1.0, 1e4, 1e15])
@pytest.mark.parametrize("format", ["int8", "int4"])
def test_rounding_follows_the_size_of_the_values(format: str, size: float) -> None:
    plain = ragged([150, 33], 64, size=size)
    packed = quantize_kv(plain, format)
    k, v = dequantize_kv(packed, 0, 150, torch.float32)
    steps = {"int8": 127, "int4": 7.5}[format]
    for ours, exact in ((k, plain.k_ND[:150]), (v, plain.v_ND[:150])):
        assert (ours - exact).abs().max() <= exact.abs().max() / steps * 0.55 + 0.01 * exact.abs().max()
    assert packed.nbytes < plain.nbytes / {"int8": 3.5, "int4": 6}[format]


def test_equal_values_are_kept_exactly() -> None:
    k = torch.full((64, 64), 0.5)
    cache = RaggedKV(k, k, torch.tensor([0, 64], dtype=torch.int32))
    for format in ("int8", "int4"):
        for ours in dequantize_kv(quantize_kv(cache, format), 0, 64, torch.float32):
            torch.testing.assert_close(ours, k, rtol=4e-3, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("format", FORMATS)
def test_half_precision_is_at_most_twice_as_wrong_as_plain_torch(format: str, dtype: torch.dtype) -> None:
    cache = ragged([300, 120], 64, format, dtype=dtype)
    q = torch.randn(1, 14, 1, 64).to(dtype)
    exact, _ = ragged_attention_reference(q, cache, dtype=torch.float64)
    plain, _ = ragged_attention_reference(q, cache, dtype=dtype)
    assert error(decode_attention(q, cache).out_BHSD, exact) <= 2 * error(plain, exact)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"k_ND": torch.zeros(10, 64).T.contiguous().T, "v_ND": torch.zeros(10, 64)}, "contiguous"),
        ({"v_ND": torch.zeros(10, 32)}, "expected k and v"),
        ({"k_ND": torch.zeros(10, 64, dtype=torch.int16), "v_ND": torch.zeros(10, 64, dtype=torch.int16)}, "int4"),
        ({"cu_len": torch.tensor([0, 10])}, "cu_len"),
        ({"bias_N": torch.zeros(9)}, "bias_N"),
        ({"bias_N": torch.zeros(10, dtype=torch.float16)}, "bias_N"),
        ({"pos_N": torch.zeros(10, dtype=torch.int32)}, "pos_N"),
        ({"k_ND": torch.zeros(10, 64, dtype=torch.int8), "v_ND": torch.zeros(10, 64, dtype=torch.int8)}, "k_scale"),
        ({"group": 24}, "group"),
        ({"block_table_SP": torch.zeros(1, 1, dtype=torch.int32), "page": 24}, "pages"),
    ],
)
def test_caches_that_do_not_fit_are_refused(change: dict[str, object], says: str) -> None:
    fields: dict[str, object] = {"k_ND": torch.zeros(10, 64), "v_ND": torch.zeros(10, 64)}
    fields["cu_len"] = torch.tensor([0, 10], dtype=torch.int32)
    with pytest.raises(BadInput, match=says):
        RaggedKV(**(fields | change))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("q", "options", "says"),
    [
        (torch.zeros(1, 4, 1, 32), {}, "expected q"),
        (torch.zeros(3, 4, 1, 64), {}, "segments"),
        (torch.zeros(1, 3, 1, 64), {}, "divisor"),
        (torch.zeros(1, 4, 0, 64), {}, "empty"),
        (torch.zeros(1, 4, 1, 64, dtype=torch.float16), {}, "one dtype"),
        (torch.zeros(1, 4, 1, 64, dtype=torch.float64), {}, "float64"),
        (torch.zeros(1, 4, 64, 1).transpose(2, 3), {}, "contiguous last axis"),
        (torch.zeros(1, 4, 1, 64), {"window": 3}, "query positions"),
        (torch.zeros(1, 4, 1, 64), {"q_pos_BS": torch.zeros(1, 2, dtype=torch.int64)}, "query positions"),
    ],
)
def test_queries_that_do_not_fit_are_refused(q: torch.Tensor, options: dict[str, object], says: str) -> None:
    if says == "contiguous last axis":
        q = torch.zeros(1, 4, 64, 2).transpose(2, 3)
    with pytest.raises(BadInput, match=says):
        decode_attention(q, ragged([10, 20], 64), **options)  # type: ignore[arg-type]


def test_the_kernels_equal_the_reference_in_the_interpreter() -> None:
    pytest.importorskip("triton")
    script = Path(__file__).parent / "ragged_interpreted.py"
    done = subprocess.run([sys.executable, "-P", str(script)], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
