"""Rounding, packing and products of quantised weights."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from perdure.errors import BadInput
from perdure.kernels import PackedWeight, pack, quantize, quantized_matmul
from perdure.kernels.quantized_matmul import (
    best_layout,
    dequantize_packed,
    quantized_matmul_reference,
    round_tokens,
    unpack_triton,
)
from perdure.kernels.quantized_matmul.formats import Quantized

gguf = pytest.importorskip("gguf")


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


@pytest.mark.parametrize("shape", [(3, 128), (5, 130), (33, 896)])
@pytest.mark.parametrize(("bits", "group"), [(4, 128), (8, None)])
def test_the_gpu_layout_unpacks_to_what_was_packed(bits: int, group: int | None, shape: tuple[int, int]) -> None:
    weight = quantize(matrix(*shape), bits, group)  # type: ignore[arg-type]
    torch.testing.assert_close(unpack_triton(pack(weight, "triton")), weight.dequantize(), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("bits", "group", "per_weight"), [(4, 128, 4.25), (8, None, 8.03)])
def test_the_gpu_layout_takes_as_many_bits_as_stated(bits: int, group: int | None, per_weight: float) -> None:
    packed = pack(quantize(matrix(64, 1024), bits, group), "triton")  # type: ignore[arg-type]
    assert packed.bytes * 8 / (64 * 1024) == pytest.approx(per_weight, abs=0.01)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("bits", "group"), [(4, 128), (8, None)])
def test_the_gpu_layout_multiplies_on_the_cpu_too(bits: int, group: int | None, dtype: torch.dtype) -> None:
    weight, x, bias = quantize(matrix(50, 200), bits, group), matrix(3, 200, 1).to(dtype), matrix(1, 50, 2)[0].to(dtype)  # type: ignore[arg-type]
    y = quantized_matmul(x, pack(weight, "triton"), bias)
    assert y.dtype == dtype
    assert relative(y.float(), quantized_matmul_reference(x.float(), weight, bias.float())) < 4e-3


def test_int8_tokens_times_int8_weights_are_exact_before_the_scales() -> None:
    packed, x = pack(quantize(matrix(20, 200), 8, None), "triton"), round_tokens(matrix(3, 200, 1))
    dot = x.q_MK[:, :200].double() @ packed.data[:, :200].double().T
    assert packed.scales is not None
    expected = dot * x.scale_M.double()[:, None] * packed.scales.double()
    assert relative(quantized_matmul(x, packed).double(), expected) < 1e-6


def test_rounded_tokens_keep_their_greatest_value_and_zero_tokens_stay_zero() -> None:
    x = torch.tensor([[0.0, 0.0, 0.0], [1e-30, -2e-30, 0.0], [3e38, -1e38, 0.0]])
    rounded = round_tokens(x)
    assert rounded.q_MK[:, :3].tolist() == [[0, 0, 0], [64, -127, 0], [127, -42, 0]]
    assert rounded.sum_M.tolist() == [0, -63, 85]


def test_what_the_gpu_layout_cannot_take_is_refused() -> None:
    four, eight = pack(quantize(matrix(8, 128), 4, 128), "triton"), pack(quantize(matrix(8, 128), 8, None), "triton")
    x = matrix(2, 128).bfloat16()
    with pytest.raises(BadInput, match="groups of 128"):
        pack(quantize(matrix(8, 128), 4), "triton")
    with pytest.raises(BadInput, match="groups of 32"):
        pack(quantize(matrix(8, 128), 4, 128), "torch")
    with pytest.raises(BadInput, match=r"activations \[M, 128\]"):
        quantized_matmul(matrix(2, 64).bfloat16(), four)
    with pytest.raises(BadInput, match="not contiguous"):
        quantized_matmul(matrix(128, 2).bfloat16().T, four)
    with pytest.raises(BadInput, match="bfloat16, float16 or float32"):
        quantized_matmul(x.double(), four)
    with pytest.raises(BadInput, match=r"bias \[8\]"):
        quantized_matmul(x, four, matrix(1, 8)[0])
    with pytest.raises(BadInput, match="8-bit weights"):
        quantized_matmul(round_tokens(x), four)
    assert quantized_matmul(x[:0], eight).shape == (0, 8)


INTERPRETED = """
import sys, torch
from perdure.kernels.dispatch import override
from perdure.kernels.quantized_matmul import launch, pack, quantize, quantized_matmul, round_tokens
from perdure.kernels.quantized_matmul import quantized_matmul_reference, round_tokens_torch

torch.manual_seed(int(sys.argv[1]))
with override("quantized_matmul", "triton"):
    for rows, cols in ((5, 130), (9, 384)):
        w, bias = torch.randn(rows, cols), torch.randn(rows)
        four, eight = quantize(w, 4, 128), quantize(w, 8, None)
        for tokens in (1, 3):
            # The interpreter's tl.dot takes bfloat16 for integers; one token needs no tl.dot.
            for dtype in (torch.float16, torch.bfloat16)[: 2 if tokens == 1 else 1]:
                x = torch.randn(tokens, cols).to(dtype)
                for weight in (four, eight):
                    y = quantized_matmul(x, pack(weight, "triton"), bias.to(dtype)).float()
                    expected = quantized_matmul_reference(x.float(), weight, bias.to(dtype).float())
                    error = float((y - expected).norm() / expected.norm())
                    assert error < (1e-3 if dtype == torch.float16 else 6e-3), (rows, cols, tokens, dtype, error)
            ours, theirs = round_tokens(x), round_tokens_torch(x, 1, 128)
            difference = (ours.q_MK.short() - theirs.q_MK.short()).abs()
            assert difference.max() <= 1 and difference.float().mean() < 0.01, "only ties may be rounded differently"
            assert torch.equal(ours.q_MK.sum(1), ours.sum_M.long())
            y = quantized_matmul(ours, pack(eight, "triton"), bias.to(x.dtype)).float()
            rounded = ours.q_MK[:, :cols].float() * ours.scale_M[:, None]
            expected = rounded @ eight.dequantize().T + bias.to(x.dtype).float()
            error = float((y - expected).norm() / expected.norm())
            # bfloat16 twice at most: of the product and after the bias, 2^-8 each.
            assert error < 2**-7, (rows, cols, tokens, error)
        for weight in (four, eight):
            dense = launch.dense(pack(weight, "triton"), torch.float32)
            torch.testing.assert_close(dense, weight.dequantize(), rtol=1e-6, atol=1e-6)
"""


def test_the_gpu_kernels_agree_with_the_reference_in_tritons_interpreter() -> None:
    pytest.importorskip("triton")
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    seed = str(np.random.default_rng().integers(1 << 30))
    done = subprocess.run(
        [sys.executable, "-P", "-c", INTERPRETED, seed], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"seed {seed}: {done.stderr[-2000:]}"
