"""Ternary products on a GPU: dense and sparse, one, some and many tokens against exact sums."""

from __future__ import annotations

import pytest
import torch
from perdure.errors import BadInput
from perdure.kernels.dispatch import override
from perdure.kernels.ternary_matmul import (
    Ternary,
    pack_ternary,
    round_tokens_for,
    ternarize,
    ternary_matmul,
    unpack_ternary,
)

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

PATTERNS = ["dense", "6:8", "2:4"]
TOKENS = [1, 2, 17, 70, 530]


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.double() - b.double()).norm() / b.double().norm())


def natural(x: torch.Tensor, weight: Ternary) -> tuple[torch.Tensor, torch.Tensor]:
    """int8 tokens in the natural order, and their scales."""
    rounded = round_tokens_for(x, pack_ternary(Ternary("dense", weight.values_NK, weight.scale_N), "triton"))
    return rounded.q_MK[:, : x.shape[1]], rounded.scale_M


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("shape", [(5, 136), (33, 896), (300, 4096)])
def test_sums_are_exact(shape: tuple[int, int], pattern: str) -> None:
    weight = ternarize(torch.randn(shape, device="cuda"), pattern)  # type: ignore[arg-type]
    packed, bias = pack_ternary(weight, "triton"), torch.randn(shape[0], device="cuda")
    for tokens in TOKENS:
        x = torch.randn(tokens, shape[1], device="cuda")
        q, scale = natural(x, weight)
        exact = (q.double() @ weight.values_NK.double().T) * scale.double()[:, None] * weight.scale_N.double()
        y = ternary_matmul(x, packed, bias)
        assert relative(y, exact + bias.double()) < 1e-6, tokens
        assert torch.equal(ternary_matmul(round_tokens_for(x, packed), packed, bias), y)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_triton_and_torch_agree(pattern: str, dtype: torch.dtype) -> None:
    packed = pack_ternary(ternarize(torch.randn(70, 384, device="cuda"), pattern), "triton")  # type: ignore[arg-type]
    for tokens in (1, 20):
        x = torch.randn(tokens, 384, device="cuda").to(dtype)
        with override("ternary_matmul", "torch"):
            expected = ternary_matmul(x, packed)
        y = ternary_matmul(x, packed)
        assert y.dtype == dtype
        assert relative(y, expected) < 5e-3


@pytest.mark.parametrize("pattern", ["6:8", "2:4"])
def test_sparse_weights_are_unpacked_for_many_tokens_as_in_plain_torch(pattern: str) -> None:
    from perdure.kernels.ternary_matmul import launch

    packed = pack_ternary(ternarize(torch.randn(37, 904, device="cuda"), pattern), "triton")  # type: ignore[arg-type]
    assert torch.equal(launch.unpacked(packed)[:, :904], unpack_ternary(packed))


@pytest.mark.parametrize("tokens", [1, 20])
def test_every_output_is_written_and_none_beside(tokens: int) -> None:
    packed = pack_ternary(ternarize(torch.randn(77, 256, device="cuda")), "triton")
    torch.full((1 << 24,), float("nan"), device="cuda")  # what the allocator hands out next is full of NaN
    assert bool(ternary_matmul(torch.randn(tokens, 256, device="cuda").bfloat16(), packed).isfinite().all())


def test_zero_tiny_and_huge_tokens_stay_finite() -> None:
    weight = Ternary("dense", torch.ones(16, 28672, dtype=torch.int8, device="cuda"), torch.ones(16, device="cuda"))
    packed = pack_ternary(weight, "triton")
    for value in (0.0, 1e-30, 1e30):
        for tokens in (1, 20):
            y = ternary_matmul(torch.full((tokens, 28672), value, device="cuda"), packed)
            torch.testing.assert_close(y, torch.full_like(y, 28672 * value), rtol=1e-5, atol=0)


def test_tokens_rounded_for_another_order_are_refused() -> None:
    w = torch.randn(8, 256, device="cuda")
    dense, sparse = pack_ternary(ternarize(w), "triton"), pack_ternary(ternarize(w, "6:8"), "triton")
    with pytest.raises(BadInput, match="round_tokens_for"):
        ternary_matmul(round_tokens_for(torch.randn(1, 256, device="cuda"), dense), sparse)
