"""Low-bit attention: torch path and Triton's interpreter on the CPU, the kernels on a GPU (marked ``gpu``)."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from perdure.errors import BadInput
from perdure.kernels import dispatch
from perdure.kernels.lowbit_attention import attention_exact, attention_quantized, lowbit_attention

SHAPES = [(1, 1, 1, 5), (2, 1, 77, 391), (2, 2, 256, 256), (6, 1, 113, 1023), (8, 1, 300, 300), (14, 2, 64, 640)]


def tensors(
    heads: int, kv: int, queries: int, keys: int, dim: int, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Fresh random inputs; the keys have a mean, as those of real models."""
    q = torch.randn(2, heads, queries, dim, device=device)
    k = torch.randn(2, kv, keys, dim, device=device) + 2 * torch.randn(2, kv, 1, dim, device=device)
    return q.to(dtype), k.to(dtype), torch.randn(2, kv, keys, dim, device=device).to(dtype)


def relative(found: torch.Tensor, exact: torch.Tensor) -> float:
    return float((found.double() - exact.double()).norm() / exact.double().norm())


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("heads", "kv", "queries", "keys"), SHAPES)
def test_without_a_gpu_the_result_is_exact(heads: int, kv: int, queries: int, keys: int, causal: bool) -> None:
    q, k, v = tensors(heads, kv, queries, keys, 64)
    found = lowbit_attention(q, k, v, causal=causal, return_lse=True)
    out, lse = attention_exact(q, k, v, causal=causal)
    torch.testing.assert_close(found.out, out, rtol=1e-4, atol=1e-5)
    assert found.lse is not None
    torch.testing.assert_close(found.lse, lse, rtol=1e-4, atol=1e-4)


def test_the_mean_of_the_keys_does_not_reach_the_rounding() -> None:
    q, k, v = tensors(4, 2, 100, 200, 64)
    exact = attention_exact(q, k + 50, v)[0]
    assert relative(attention_quantized(q, k + 50, v, values="half"), exact) < 0.03


def test_no_queries_and_no_keys_give_zeros() -> None:
    q, k, v = tensors(2, 1, 0, 4, 64)
    assert lowbit_attention(q, k, v).out.shape == q.shape
    q, k, v = tensors(2, 1, 3, 0, 64)
    found = lowbit_attention(q, k, v, causal=False, return_lse=True)
    assert found.out.eq(0).all()
    assert found.lse is not None
    assert found.lse.isneginf().all()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"q": torch.zeros(1, 3, 4, 64)}, "multiple of K"),
        ({"q": torch.zeros(1, 4, 9, 64)}, "S <= T"),
        ({"q": torch.zeros(4, 4, 64)}, "expected q"),
        ({"k": torch.zeros(1, 2, 7, 64)}, "expected q"),
        ({"q": torch.zeros(1, 4, 4, 64).half()}, "one floating dtype"),
        ({"q": torch.zeros(1, 4, 64, 4).mT}, "contiguous"),
        ({"values": "int4"}, "'fp8' or 'half'"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, object], says: str) -> None:
    given = {"q": torch.zeros(1, 4, 4, 64), "k": torch.zeros(1, 2, 8, 64), "v": torch.zeros(1, 2, 8, 64), **change}
    with pytest.raises(BadInput, match=says):
        lowbit_attention(given.pop("q"), given.pop("k"), given.pop("v"), **given)  # type: ignore[arg-type]


INTERPRETED = """
import torch
from perdure.kernels.lowbit_attention import attention_exact, attention_quantized, launch
torch.manual_seed(0)

def relative(found, exact):
    return float((found.double() - exact.double()).norm() / exact.double().norm())

tile = launch.Tile(64, 64, 2, 4)
for heads, kv, queries, keys, causal, fp8, smooth in [
    (2, 1, 70, 150, True, False, False), (2, 1, 70, 150, False, True, False), (2, 2, 70, 130, True, False, True),
]:
    q = torch.randn(1, heads, queries, 64).half()
    k = (torch.randn(1, kv, keys, 64) + 2 * torch.randn(1, kv, 1, 64)).half()
    v = torch.randn(1, kv, keys, 64).half()
    out, lse, mean = launch.portable_forward(q, k, v, causal, 0.125, fp8, smooth, tile)
    exact, exact_lse = attention_exact(q.double(), k.double(), v.double(), causal=causal)
    rounded = attention_quantized(q, k, v, causal=causal, values="fp8" if fp8 else "half", tile=64)
    # the interpreter rounds to FP8 towards zero, which doubles that error
    assert relative(out, exact) < (3 if fp8 else 1.5) * relative(rounded, exact), relative(out, exact)
    if not smooth:
        assert (lse + 0.125 * launch.with_mean(q, mean) - exact_lse).abs().max() < 0.02

q, k, v = (torch.randn(1, h, s, 64).half().requires_grad_() for h, s in ((2, 70), (1, 150), (1, 150)))
out, _ = launch.SageAttention.apply(q, k, v, True, 0.125)
found = torch.autograd.grad(out, (q, k, v), torch.ones_like(out))
exact = [x.detach().double().requires_grad_() for x in (q, k, v)]
expected = torch.autograd.grad(attention_exact(*exact)[0].sum(), exact)
for name, ours, theirs in zip("qkv", found, expected, strict=True):
    assert relative(ours, theirs) < 0.15, (name, relative(ours, theirs))
print("right")
"""


def test_the_kernels_are_right_in_the_interpreter() -> None:
    pytest.importorskip("triton")
    done = subprocess.run(
        [sys.executable, "-P", "-c", INTERPRETED],
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "right\n", done.stderr[-2000:]


# ----------------------------------------------------------------------------- on a GPU


@pytest.mark.gpu
@pytest.mark.parametrize("values", ["fp8", "half"])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("dim", [64, 128, 256])
@pytest.mark.parametrize("implementation", ["hopper", "triton"])
def test_a_kernel_is_as_right_as_its_rounding(implementation: str, dim: int, causal: bool, values: str) -> None:
    if implementation == "hopper" and torch.cuda.get_device_capability() != (9, 0):
        pytest.skip("needs sm_90")
    for dtype in (torch.bfloat16, torch.float16):
        for heads, kv, queries, keys in SHAPES:
            q, k, v = tensors(heads, kv, queries, keys, dim, "cuda", dtype)
            with dispatch.override("lowbit_attention", implementation):
                found = lowbit_attention(q, k, v, causal=causal, values=values, return_lse=True)
            exact, lse = attention_exact(q.double(), k.double(), v.double(), causal=causal)
            rounded = attention_quantized(q, k, v, causal=causal, values=values)
            assert relative(found.out, exact) < 1.5 * relative(rounded, exact) + 3e-3, (dtype, heads, queries, keys)
            assert found.lse is not None
            assert (found.lse - lse).abs().max() < 0.05


@pytest.mark.gpu
@pytest.mark.parametrize("size", [1e-4, 30.0])
def test_tiny_and_huge_inputs_stay_finite_and_right(size: float) -> None:
    q, k, v = tensors(4, 2, 200, 500, 128, "cuda", torch.bfloat16)
    found = lowbit_attention(q * size, k * size, v * size).out
    exact = attention_exact((q * size).double(), (k * size).double(), (v * size).double())[0]
    rounded = attention_quantized(q * size, k * size, v * size)
    assert found.isfinite().all()
    assert relative(found, exact) < 1.5 * relative(rounded, exact) + 3e-3


@pytest.mark.gpu
def test_smoothing_of_the_queries_helps_queries_with_a_mean() -> None:
    q, k, v = tensors(4, 2, 500, 500, 128, "cuda", torch.bfloat16)
    q += 20 * torch.randn(2, 4, 1, 128, device="cuda").bfloat16() / 128**0.5
    exact, lse = attention_exact(q.double(), k.double(), v.double())
    found = lowbit_attention(q, k, v, values="half", smooth_q=True, return_lse=True)
    assert relative(found.out, exact) < 0.9 * relative(lowbit_attention(q, k, v, values="half").out, exact)
    assert found.lse is not None
    # Written out in torch, rounding K alone is off by 0.04 to 0.08 at the worst row: the mean multiplies its error.
    assert (found.lse - lse).abs().max() < 0.12


@pytest.mark.gpu
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("dim", [64, 128])
def test_the_gradients_of_sagebwd_are_those_of_the_paper(dim: int, causal: bool) -> None:
    """Bounds: the paper's table of relative errors (dQ 0.258, dK 0.307, dV 0.054), one tile or many."""
    with torch.inference_mode(False), torch.enable_grad():
        for heads, kv, queries, keys in SHAPES[1:]:
            inputs = [x.requires_grad_() for x in tensors(heads, kv, queries, keys, dim, "cuda", torch.bfloat16)]
            gradient = torch.randn_like(inputs[0])
            with dispatch.override("lowbit_attention training", "sage"):
                out = lowbit_attention(*inputs, causal=causal).out
            found = torch.autograd.grad(out, inputs, gradient)
            exact = [x.detach().double().requires_grad_() for x in inputs]
            expected = torch.autograd.grad(attention_exact(*exact, causal=causal)[0], exact, gradient.double())
            for bound, ours, theirs in zip((0.2, 0.2, 0.06), found, expected, strict=True):
                assert relative(ours, theirs) < bound


@pytest.mark.gpu
def test_training_uses_half_precision_unless_told_otherwise() -> None:
    with torch.inference_mode(False), torch.enable_grad():
        inputs = [x.requires_grad_() for x in tensors(2, 1, 64, 64, 64, "cuda", torch.bfloat16)]
        out = lowbit_attention(*inputs).out
        assert out.requires_grad
        assert relative(out.detach(), attention_exact(*(x.detach().double() for x in inputs))[0]) < 0.01
