"""Products with quantised weights on a GPU: one, some and many tokens against float64."""

from __future__ import annotations

import pytest
import torch
from perdure.errors import BadInput
from perdure.kernels.dispatch import override
from perdure.kernels.quantized_matmul import (
    PackedWeight,
    Quantized,
    dequantize_packed,
    pack,
    quantize,
    quantized_matmul,
    round_tokens,
    round_tokens_torch,
)

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

SHAPES = [(5, 130), (33, 896), (300, 4096), (129, 4864)]
TOKENS = [1, 2, 17, 70, 300]


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.double() - b.double()).norm() / b.double().norm())


def quantized(rows: int, cols: int, bits: int, spread: float = 0.1) -> tuple[Quantized, PackedWeight]:
    weight = quantize(torch.randn(rows, cols, device="cuda") * spread, bits, 128 if bits == 4 else None)  # type: ignore[arg-type]
    return weight, pack(weight, "triton")


@pytest.mark.parametrize(
    ("shape", "dtype"), [*((shape, torch.bfloat16) for shape in SHAPES), (SHAPES[1], torch.float16)]
)
@pytest.mark.parametrize("bits", [4, 8])
def test_the_error_is_at_most_twice_that_of_plain_low_precision(
    shape: tuple[int, int], bits: int, dtype: torch.dtype
) -> None:
    weight, packed = quantized(*shape, bits)
    dense, bias = weight.dequantize(), torch.randn(shape[0], device="cuda").to(dtype)
    for tokens in TOKENS:
        x = torch.randn(tokens, shape[1], device="cuda").to(dtype)
        exact = x.double() @ dense.double().T + bias.double()
        plain = torch.nn.functional.linear(x, dense.to(dtype), bias)
        y = quantized_matmul(x, packed, bias)
        assert y.dtype == dtype
        assert relative(y, exact) <= 2 * relative(plain, exact), tokens


@pytest.mark.parametrize("shape", SHAPES)
def test_int8_sums_are_exact(shape: tuple[int, int]) -> None:
    _, packed = quantized(*shape, 8)
    assert packed.scales is not None
    for tokens in TOKENS:
        x = round_tokens(torch.randn(tokens, shape[1], device="cuda"))
        dot = x.q_MK[:, : shape[1]].double() @ packed.data[:, : shape[1]].double().T
        exact = dot * x.scale_M.double()[:, None] * packed.scales.double()
        assert relative(quantized_matmul(x, packed), exact) < 1e-6, tokens


def test_tokens_are_rounded_as_in_plain_torch() -> None:
    for tokens, cols in ((1, 130), (7, 896), (3, 28672)):
        x = torch.randn(tokens, cols, device="cuda").bfloat16()
        ours, plain = round_tokens(x), round_tokens_torch(x, 1, 128)
        difference = (ours.q_MK.int() - plain.q_MK.int()).abs()
        assert difference.max() <= 1
        assert difference.float().mean() < 0.01, "only ties may be rounded differently"
        assert torch.equal(ours.q_MK.int().sum(1), ours.sum_M.long())
        assert relative(ours.scale_M, plain.scale_M) < 1e-6


@pytest.mark.parametrize("tokens", [1, 20])
def test_every_output_is_written_and_none_beside(tokens: int) -> None:
    _, packed = quantized(77, 256, 4)
    torch.full((1 << 24,), float("nan"), device="cuda")  # what the allocator hands out next is full of NaN
    y = quantized_matmul(torch.randn(tokens, 256, device="cuda").bfloat16(), packed)
    assert bool(y.isfinite().all())


@pytest.mark.parametrize("scale", [1e-20, 1e20])
@pytest.mark.parametrize("tokens", [1, 20])
def test_tiny_and_huge_activations_keep_their_precision(tokens: int, scale: float) -> None:
    weight, packed = quantized(64, 512, 4)
    x = (torch.randn(tokens, 512, device="cuda") * scale).bfloat16()
    exact = x.double() @ weight.dequantize().double().T
    assert relative(quantized_matmul(x, packed), exact) < 4e-3


def test_activations_that_are_all_alike_lose_nothing_to_the_offset() -> None:
    weight, packed = quantized(256, 4096, 4)
    x = torch.full((1, 4096), 3.0, device="cuda").bfloat16()
    exact = x.double() @ weight.dequantize().double().T
    assert relative(quantized_matmul(x, packed), exact) < 4e-3
    assert relative(quantized_matmul(x.expand(20, -1).contiguous(), packed), exact.expand(20, -1)) < 4e-3


@pytest.mark.parametrize("bits", [4, 8])
def test_triton_and_torch_agree(bits: int) -> None:
    _, packed = quantized(200, 384, bits)
    x = torch.randn(9, 384, device="cuda").bfloat16()
    with override("quantized_matmul", "torch"):
        expected = quantized_matmul(x, packed)
    assert relative(quantized_matmul(x, packed), expected) < 4e-3
    assert dequantize_packed(packed).shape == (200, 384)


def test_what_does_not_fit_is_refused() -> None:
    _, packed = quantized(8, 128, 4)
    with pytest.raises(BadInput, match="bfloat16 or float16"):
        quantized_matmul(torch.randn(2, 128, device="cuda"), packed)
    with pytest.raises(BadInput, match="on cuda"):
        quantized_matmul(torch.randn(2, 128).bfloat16(), packed)
    with pytest.raises(BadInput, match="not contiguous"):
        quantized_matmul(torch.randn(128, 2, device="cuda").bfloat16().T, packed)
