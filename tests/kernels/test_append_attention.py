"""New tokens over a ragged cache, on the CPU. (The kernel in Triton's interpreter: test_decode_attention.py.)"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from perdure.errors import BadInput
from perdure.kernels.append_attention import append_attention
from perdure.kernels.decode_attention import FORMATS, decode_attention, ragged_attention_reference, ragged_from_dense

sys.path.insert(0, str(Path(__file__).parent))
from ragged_cases import error, ragged

LENGTHS = [77, 0, 130, 64]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(("batch", "queries", "tail"), [(1, 1, 1), (2, 16, 16), (2, 5, 33), (4, 70, 70)])
def test_every_shape_equals_the_reference(format: str, batch: int, queries: int, tail: int) -> None:
    cache = ragged(LENGTHS, 64, format)
    heads = len(LENGTHS) // batch
    q = torch.randn(batch, heads * 3, queries, 64)
    k, v = torch.randn(batch, heads, tail, 64), torch.randn(batch, heads, tail, 64)
    out, lse = append_attention(q, cache, k, v)
    exact, exact_lse = ragged_attention_reference(q, cache, tail=(k, v), dtype=torch.float64)
    assert error(out, exact) < 1e-5
    torch.testing.assert_close(lse.double(), exact_lse, rtol=1e-5, atol=1e-5)


def test_it_is_causal_attention_over_the_joined_tokens() -> None:
    k, v, q = torch.randn(1, 2, 60, 64), torch.randn(1, 2, 60, 64), torch.randn(1, 6, 20, 64)
    cache = ragged_from_dense(k[:, :, :40].contiguous(), v[:, :, :40].contiguous())
    mask = torch.ones(20, 60, dtype=torch.bool).tril(40)
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)
    torch.testing.assert_close(append_attention(q, cache, k[:, :, 40:], v[:, :, 40:]).out_BHSD, expected)


def test_the_window_spans_cache_and_tail() -> None:
    k, v, q = torch.randn(1, 2, 60, 64), torch.randn(1, 2, 60, 64), torch.randn(1, 6, 20, 64)
    cache = ragged_from_dense(k[:, :, :40].contiguous(), v[:, :, :40].contiguous())
    mask = torch.ones(20, 60, dtype=torch.bool).tril(40).triu(40 - 24)
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)
    q_pos = torch.arange(40, 60)[None]
    ours = append_attention(q, cache, k[:, :, 40:], v[:, :, 40:], q_pos_BS=q_pos, window=25)
    torch.testing.assert_close(ours.out_BHSD, expected)


def test_one_query_is_a_decode_step_with_its_token_in_the_tail() -> None:
    k, v, q = torch.randn(1, 2, 50, 64), torch.randn(1, 2, 50, 64), torch.randn(1, 14, 1, 64)
    cache = ragged_from_dense(k[:, :, :49].contiguous(), v[:, :, :49].contiguous())
    ours = append_attention(q, cache, k[:, :, 49:], v[:, :, 49:])
    torch.testing.assert_close(ours, decode_attention(q, ragged_from_dense(k, v)))


def test_huge_and_tiny_values() -> None:
    for size in (1e-4, 30.0):
        cache = ragged([70, 12], 64, "int8", dtype=torch.bfloat16, size=size)
        q = (torch.randn(1, 4, 9, 64) * size).bfloat16()
        k, v = ((torch.randn(1, 2, 9, 64) * size).bfloat16() for _ in range(2))
        exact, _ = ragged_attention_reference(q, cache, tail=(k, v), dtype=torch.float64)
        plain, _ = ragged_attention_reference(q, cache, tail=(k, v), dtype=torch.bfloat16)
        assert error(append_attention(q, cache, k, v).out_BHSD, exact) <= 2 * error(plain, exact)


@pytest.mark.parametrize(
    ("shape", "dtype", "says"),
    [
        ((1, 2, 3, 64), torch.float32, "T >= S"),
        ((1, 1, 9, 64), torch.float32, "new keys and values"),
        ((1, 2, 9, 32), torch.float32, "new keys and values"),
        ((1, 2, 9, 64), torch.bfloat16, "float32"),
    ],
)
def test_tails_that_do_not_fit_are_refused(shape: tuple[int, ...], dtype: torch.dtype, says: str) -> None:
    tail = torch.zeros(shape, dtype=dtype)
    with pytest.raises(BadInput, match=says):
        append_attention(torch.zeros(1, 4, 5, 64), ragged([10, 20], 64), tail, tail)


def test_a_tail_with_a_strided_last_axis_is_refused() -> None:
    tail = torch.zeros(1, 2, 64, 9).transpose(2, 3)
    with pytest.raises(BadInput, match="contiguous"):
        append_attention(torch.zeros(1, 4, 5, 64), ragged([10, 20], 64), tail, tail)
