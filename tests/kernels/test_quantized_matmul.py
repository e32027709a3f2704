"""Rounding, packing and products of quantised weights."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
import torch
from perdure.errors import BadInput
from perdure.kernels import PackedWeight, pack, quantize, quantized_matmul
from perdure.kernels.quantized_matmul import best_layout, dequantize_packed, quantized_matmul_reference
from perdure.kernels.quantized_matmul.formats import Quantized


def matrix(rows: int, cols: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, cols, generator=torch.Generator().manual_seed(seed)) * 0.1


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize(("kind", "bits"), [("Q4_0", 4), ("Q4_1", 4), ("Q5_0", 5), ("Q8_0", 8)])
def test_values_of_a_gguf_lattice_are_kept(kind: str, bits: int) -> None:
    as_type = gguf.GGMLQuantizationType[kind]
    stored = gguf.quants.quantize(matrix(64, 128).numpy(), as_type)
    values = torch.from_numpy(np.array(gguf.quants.dequantize(stored, as_type)))
    assert relative(quantize(values, bits).dequantize(), values) < 1e-3  # type: ignore[arg-type]


@pytest.mark.parametrize(("bits", "error"), [(4, 0.08), (5, 0.045), (8, 0.006)])
def test_the_error_of_gaussian_weights_is_as_stated(bits: int, error: float) -> None:
    w = matrix(256, 256)
    assert relative(quantize(w, bits).dequantize(), w) < error  # type: ignore[arg-type]


@pytest.mark.parametrize("bits", [4, 5, 8])
def test_zero_and_constant_groups_stay_finite_and_small(bits: int) -> None:
    w = matrix(16, 96)
    w[0], w[1, :32], w[2, 32:64], w[3] = 0, 0.25, -1e-9, 3e-8
    error = (quantize(w, bits).dequantize() - w).abs()  # type: ignore[arg-type]
    assert error.max() < 0.03
    assert error[0].max() == 0


@pytest.mark.parametrize("bits", [4, 5, 8])
@pytest.mark.parametrize("shape", [(16, 32), (1, 64), (50, 96), (129, 512)])
def test_a_product_of_any_size_is_close_to_the_reference(kernels: str, bits: int, shape: tuple[int, int]) -> None:
    weight = quantize(matrix(*shape), bits)  # type: ignore[arg-type]
    packed, bias = pack(weight, best_layout()), matrix(1, shape[0], 2)[0]
    for tokens in (1, 2, 3, 7, 60):
        x = matrix(tokens, shape[1], seed=tokens)
        expected = quantized_matmul_reference(x, weight, bias)
        # In units of a typical output; int8 activations in groups of 32 cost 0.4 %, bfloat16 0.3 %, torch's int8 per
        # output once more 0.6 %, each as a standard deviation.
        typical = x.norm(dim=1).max() * weight.dequantize().norm(dim=1).max() / shape[1] ** 0.5
        assert (quantized_matmul(x, packed, bias) - expected).abs().max() < 0.035 * typical


@pytest.mark.parametrize("bits", [4, 5, 8])
def test_unpacking_gives_back_exactly_what_was_packed(kernels: str, bits: int) -> None:
    weight = quantize(matrix(40, 96), bits)  # type: ignore[arg-type]
    if kernels == "torch":
        assert torch.equal(dequantize_packed(pack(weight, "dense")), weight.dequantize().bfloat16())
        return
    assert torch.equal(dequantize_packed(pack(weight, "vnni")), weight.dequantize().bfloat16())


def test_large_activations_do_not_overflow(kernels: str) -> None:
    weight = Quantized(8, torch.full((16, 512), 255, dtype=torch.uint8), torch.ones(16, 16).half(), None)
    x = torch.full((1, 512), 1e4)
    y = quantized_matmul(x, pack(weight, best_layout()))
    torch.testing.assert_close(y, torch.full((1, 16), 127.0 * 1e4 * 512), rtol=0.01, atol=0)


def test_shapes_that_do_not_fit_are_refused_with_the_shape_that_does() -> None:
    packed = PackedWeight("dense", 32, 8, 64, matrix(8, 64))
    with pytest.raises(BadInput, match=r"\[M, 64\]"):
        quantized_matmul(matrix(2, 32), packed)
    with pytest.raises(BadInput, match=r"bias \[8\]"):
        quantized_matmul(matrix(2, 64), packed, matrix(1, 9)[0])
    with pytest.raises(BadInput, match="multiple of 32"):
        quantize(matrix(4, 40), 4)
    with pytest.raises(BadInput, match="3 bits"):
        quantize(matrix(4, 32), 3)  # type: ignore[arg-type]
