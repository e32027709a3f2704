"""Attention against its written-out reference."""

from __future__ import annotations

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
