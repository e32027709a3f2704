"""Ternary weights: rounding, packing and products with int8 activations."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from perdure.errors import BadInput
from perdure.kernels import native
from perdure.kernels.ternary_matmul import (
    Ternary,
    best_ternary_layout,
    pack_ternary,
    round_tokens_for,
    ternarize,
    ternary_matmul,
    ternary_matmul_reference,
    unpack_ternary,
)
from perdure.kernels.ternary_matmul.formats import SPARSITY

PATTERNS = ["dense", "6:8", "2:4"]


def matrix(rows: int, cols: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, cols, generator=torch.Generator().manual_seed(seed)) * 0.1


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.double() - b.double()).norm() / b.double().norm())


def every_group(kept: int, group: int) -> torch.Tensor:
    """Every group of -1, 0, 1 that has at most ``kept`` weights, as one row each."""
    rows = torch.cartesian_prod(*[torch.tensor([-1, 0, 1], dtype=torch.int8)] * group)
    return rows[(rows != 0).sum(1) <= kept]


def test_rounding_is_that_of_bitnet() -> None:
    made = ternarize(torch.tensor([[0.1, -0.2, 0.9, -2.0], [0.0, 0.4, -0.44, 0.5]]))
    assert made.scale_N.tolist() == pytest.approx([0.5675, 0.5675])
    assert made.values_NK.tolist() == [[0, 0, 1, -1], [0, 1, -1, 1]]


@pytest.mark.parametrize("pattern", ["6:8", "2:4"])
def test_sparse_rounding_keeps_the_greatest_of_each_group(pattern: str) -> None:
    w = matrix(32, 64)
    sparse, dense = ternarize(w, pattern), ternarize(w)  # type: ignore[arg-type]
    kept, group = SPARSITY[pattern]
    order = w.abs().view(-1, group).argsort(dim=1).argsort(dim=1)
    expected = torch.where((order >= group - kept).view(w.shape), dense.values_NK, 0)
    assert torch.equal(sparse.values_NK, expected)
    assert torch.equal(sparse.scale_N, dense.scale_N)


@pytest.mark.parametrize("shape", [(5, 24), (16, 256), (33, 904)])
@pytest.mark.parametrize("layout", ["triton", "vnni", "torch"])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_packing_loses_nothing(pattern: str, layout: str, shape: tuple[int, int]) -> None:
    weight = ternarize(matrix(*shape), pattern)  # type: ignore[arg-type]
    assert torch.equal(unpack_ternary(pack_ternary(weight, layout)), weight.values_NK)  # type: ignore[arg-type]


@pytest.mark.parametrize("pattern", ["6:8", "2:4"])
def test_every_sparse_group_there_can_be_survives_packing(pattern: str) -> None:
    values = every_group(*SPARSITY[pattern])
    packed = pack_ternary(Ternary(pattern, values, torch.ones(len(values))), "triton")  # type: ignore[arg-type]
    assert torch.equal(unpack_ternary(packed), values)


@pytest.mark.parametrize(("pattern", "bits"), [("dense", 2.0), ("6:8", 1.75), ("2:4", 1.5)])
def test_packed_weights_take_as_many_bits_as_stated(pattern: str, bits: float) -> None:
    packed = pack_ternary(ternarize(matrix(64, 4096), pattern), "triton")  # type: ignore[arg-type]
    assert packed.bytes * 8 / (64 * 4096) == pytest.approx(bits, abs=0.01)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("shape", [(1, 8), (16, 128), (50, 200), (129, 512)])
def test_a_product_of_any_size_is_that_of_the_reference(kernels: str, pattern: str, shape: tuple[int, int]) -> None:
    weight = ternarize(matrix(*shape), pattern)  # type: ignore[arg-type]
    bias = matrix(1, shape[0], 2)[0]
    for layout in {"triton", best_ternary_layout(torch.device("cpu"))}:
        packed = pack_ternary(weight, layout)
        for tokens in (1, 2, 4, 7, 20):
            x = matrix(tokens, shape[1], seed=tokens)
            expected = ternary_matmul_reference(x, weight, bias)
            assert relative(ternary_matmul(x, packed, bias), expected) < 1e-5
            assert relative(ternary_matmul(round_tokens_for(x, packed), packed, bias), expected) < 1e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_product_has_the_type_of_the_activations(kernels: str, dtype: torch.dtype) -> None:
    weight, x = ternarize(matrix(40, 128)), matrix(3, 128, 1).to(dtype)
    y = ternary_matmul(x, pack_ternary(weight, best_ternary_layout(x.device)))
    assert y.dtype == dtype
    assert relative(y, ternary_matmul_reference(x, weight)) < 4e-3


def test_zero_tiny_and_huge_tokens_stay_finite(kernels: str) -> None:
    weight = Ternary("dense", torch.ones(16, 4096, dtype=torch.int8), torch.ones(16))
    x = torch.stack([torch.zeros(4096), torch.full((4096,), 1e-30), torch.full((4096,), 1e30)])
    y = ternary_matmul(x, pack_ternary(weight, best_ternary_layout(x.device)))
    torch.testing.assert_close(y[:, 0], torch.tensor([0.0, 4096e-30, 4096e30]))


def test_what_cannot_be_multiplied_is_refused(kernels: str) -> None:
    layout = best_ternary_layout(torch.device("cpu"))
    packed, x = pack_ternary(ternarize(matrix(8, 128)), layout), matrix(2, 128)
    with pytest.raises(BadInput, match=r"activations \[M, 128\]"):
        ternary_matmul(matrix(2, 64), packed)
    with pytest.raises(BadInput, match="not contiguous"):
        ternary_matmul(matrix(128, 2).T, packed)
    with pytest.raises(BadInput, match="float16 or float32"):
        ternary_matmul(x.double(), packed)
    with pytest.raises(BadInput, match=r"bias \[8\]"):
        ternary_matmul(x, packed, matrix(1, 9)[0])
    with pytest.raises(BadInput, match="at most 2 weights"):
        pack_ternary(Ternary("2:4", torch.ones(1, 4, dtype=torch.int8), torch.ones(1)), "triton")
    with pytest.raises(BadInput, match="-1, 0 and 1"):
        pack_ternary(Ternary("dense", torch.full((1, 4), 2, dtype=torch.int8), torch.ones(1)), layout)
    with pytest.raises(BadInput, match="groups of 8"):
        ternarize(matrix(2, 12), "6:8")
    with pytest.raises(BadInput, match="pattern"):
        ternarize(matrix(2, 12), "3:8")  # type: ignore[arg-type]
    assert ternary_matmul(x[:0], packed).shape == (0, 8)


def test_weights_for_the_own_cpp_are_refused_without_it() -> None:
    packed = pack_ternary(ternarize(matrix(8, 128)), "vnni")
    with native.torch_only(), pytest.raises(BadInput, match="not loaded"):
        ternary_matmul(matrix(2, 128), packed)


INTERPRETED = """
import sys, torch
from perdure.kernels.dispatch import override
from perdure.kernels.ternary_matmul import pack_ternary, round_tokens_for, ternarize, ternary_matmul
from perdure.kernels.ternary_matmul import ternary_matmul_reference

torch.manual_seed(int(sys.argv[1]))
with override("ternary_matmul", "triton"), override("quantized_matmul", "triton"):
    for rows, cols, pattern, counts in ((18, 896, "dense", (1, 3)), (5, 264, "6:8", (1, 10)), (5, 264, "2:4", (2, 10))):
        bias = torch.randn(rows)
        weight = ternarize(torch.randn(rows, cols), pattern)
        for tokens in counts:
            x = torch.randn(tokens, cols)
            y = ternary_matmul(x, pack_ternary(weight, "triton"), bias)
            expected = ternary_matmul_reference(x, weight, bias)
            error = float((y - expected).norm() / expected.norm())
            assert error < 1e-2, (rows, cols, pattern, tokens, error)
"""


def test_the_gpu_kernels_agree_with_the_reference_in_tritons_interpreter() -> None:
    pytest.importorskip("triton")
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    seed = str(int(torch.randint(1 << 30, ())))
    done = subprocess.run(
        [sys.executable, "-P", "-c", INTERPRETED, seed], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"seed {seed}: {done.stderr[-2000:]}"
