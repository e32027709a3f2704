"""Attention against its written-out reference."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from perdure.errors import BadInput
from perdure.kernels import attention, attention_reference


def tensors(heads: int, kv: int, queries: int, keys: int, dim: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(heads * 1000 + keys)
    return (
        torch.randn(1, heads, queries, dim, generator=g),
        torch.randn(1, kv, keys, dim, generator=g),
        torch.randn(1, kv, keys, dim, generator=g),
    )


@pytest.mark.parametrize("window", [None, 1, 5, 64])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("queries", "keys"), [(1, 1), (1, 37), (9, 9), (5, 37), (64, 113)])
@pytest.mark.parametrize(("heads", "kv", "dim"), [(4, 4, 16), (6, 2, 32), (14, 2, 64)])
def test_every_shape_equals_the_reference(
    heads: int, kv: int, dim: int, queries: int, keys: int, bias: bool, window: int | None
) -> None:
    q, k, v = tensors(heads, kv, queries, keys, dim)
    key_bias = torch.randn(1, kv, keys) if bias else None
    ours = attention(q, k, v, window=window, key_bias_BKT=key_bias)
    expected = attention_reference(q, k, v, window=window, key_bias_BKT=key_bias)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("queries", [1, 40])
def test_half_precision_is_at_most_twice_as_wrong_as_rounding_the_inputs(dtype: torch.dtype, queries: int) -> None:
    q, k, v = tensors(14, 2, queries, 200, 64)
    exact = attention_reference(q, k, v)
    rounded = attention_reference(q.to(dtype), k.to(dtype), v.to(dtype)).to(dtype).float()
    ours = attention(q.to(dtype), k.to(dtype), v.to(dtype)).float()
    assert (ours - exact).abs().max() <= 2 * (rounded - exact).abs().max() + 1e-3


def test_a_mask_takes_the_place_of_causality() -> None:
    q, k, v = tensors(4, 2, 6, 6, 16)
    everything = torch.ones(1, 1, 6, 6, dtype=torch.bool)
    first_only = everything.tril().tril(-5).logical_or(torch.eye(6, dtype=torch.bool))
    assert not torch.allclose(attention(q, k, v, mask_BHST=everything), attention(q, k, v))
    assert torch.allclose(attention(q, k, v, mask_BHST=everything.tril()), attention(q, k, v), atol=1e-6)
    torch.testing.assert_close(attention(q, k, v, mask_BHST=first_only)[:, :, 0], v[:, :, 0].repeat_interleave(2, 1))


def test_a_very_negative_bias_hides_a_key() -> None:
    q, k, v = tensors(4, 2, 1, 8, 16)
    bias = torch.zeros(1, 2, 8)
    bias[:, :, 3] = -1e4
    without = attention(q, k[:, :, [0, 1, 2, 4, 5, 6, 7]], v[:, :, [0, 1, 2, 4, 5, 6, 7]])
    torch.testing.assert_close(attention(q, k, v, key_bias_BKT=bias), without)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"q": (1, 5, 2, 16)}, "multiple of K"),
        ({"q": (1, 4, 9, 16)}, "S <= T"),
        ({"k": (1, 2, 8, 8)}, "expected q"),
        ({"bias": (1, 2, 7)}, "key bias"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(change: dict[str, tuple[int, ...]], says: str) -> None:
    q, k, v = (
        torch.zeros(change.get(n, d)) for n, d in (("q", (1, 4, 2, 16)), ("k", (1, 2, 8, 16)), ("v", (1, 2, 8, 16)))
    )
    bias = torch.zeros(change["bias"]) if "bias" in change else None
    with pytest.raises(BadInput, match=says):
        attention(q, k, v, key_bias_BKT=bias)


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("queries", "keys"), [(5, 9), (9, 5), (1, 4)])
def test_without_causality_a_window_reaches_both_ways(queries: int, keys: int, bias: bool, window: int | None) -> None:
    q, k, v = tensors(4, 2, queries, keys, 16)
    key_bias = torch.randn(1, 2, keys) if bias else None
    options = {"causal": False, "window": window, "key_bias_BKT": key_bias}
    alive = torch.isfinite(attention(q, k, v, return_lse=True, **options)[1])
    ours = attention(q, k, v, **options)[alive]
    torch.testing.assert_close(ours, attention_reference(q, k, v, **options)[alive], rtol=1e-4, atol=1e-5)


def test_log_sum_exp_is_that_of_the_scores() -> None:
    q, k, v = tensors(4, 2, 6, 9, 16)
    out, lse = attention(q, k, v, causal=False, scale=0.5, return_lse=True)
    scores = q @ k.repeat_interleave(2, 1).transpose(-1, -2) * 0.5
    torch.testing.assert_close(lse, torch.logsumexp(scores, -1))
    torch.testing.assert_close(out, attention(q, k, v, causal=False, scale=0.5), rtol=1e-4, atol=1e-5)


def test_packed_sequences_equal_separate_ones_and_empty_rows_are_zero() -> None:
    lengths_q, lengths_k = [3, 0, 4, 2], [5, 2, 4, 0]
    cu_q, cu_k = (torch.tensor([0, *itertools.accumulate(x)], dtype=torch.int32) for x in (lengths_q, lengths_k))
    q, k, v = tensors(4, 2, 9, 11, 16)
    out, lse = attention(q, k, v, cu_seqlens=cu_q, cu_seqlens_k=cu_k, return_lse=True)
    first = attention(q[:, :, :3], k[:, :, :5], v[:, :, :5])
    third = attention(q[:, :, 3:7], k[:, :, 7:], v[:, :, 7:])
    torch.testing.assert_close(out[:, :, :7], torch.cat([first, third], 2), rtol=1e-4, atol=1e-5)
    assert (out[:, :, 7:] == 0).all()
    assert (lse[:, :, 7:] == -torch.inf).all()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"scale": -1.0}, "positive scale"),
        ({"cu_seqlens": torch.tensor([0, 2]), "cu_seqlens_k": torch.tensor([0, 8])}, "int32"),
        ({"cu_seqlens": torch.tensor([0, 2], dtype=torch.int32)}, "cu_seqlens_k"),
        ({"cu_seqlens_k": torch.tensor([0, 2], dtype=torch.int32)}, "needs cu_seqlens"),
        ({"window": 0}, "window"),
        ({"key_bias_BKT": torch.zeros(1, 2, 8, dtype=torch.int64)}, "floating key bias"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, object], says: str) -> None:
    q, k, v = tensors(4, 2, 2, 8, 16)
    with pytest.raises(BadInput, match=says):
        attention(q, k, v, **options)


def test_dtypes_that_differ_are_refused() -> None:
    q, k, v = tensors(4, 2, 2, 8, 16)
    with pytest.raises(BadInput, match="one floating dtype"):
        attention(q.half(), k, v)


def test_the_triton_kernels_equal_the_reference_in_the_interpreter() -> None:
    pytest.importorskip("triton")
    script = Path(__file__).with_name("attention_interpreted.py")
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "-P", str(script)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
