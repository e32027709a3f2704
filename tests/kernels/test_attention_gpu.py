"""Attention kernels on a GPU: outputs and all gradients at most twice as wrong as torch in the same low precision."""

from __future__ import annotations

import itertools

import pytest
import torch
from perdure.errors import BadInput
from perdure.kernels import attention
from perdure.kernels.attention.reference import attention_written_out
from perdure.kernels.dispatch import override
from torch import Tensor

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]


@pytest.fixture(autouse=True)
def _no_gradients() -> None:
    """Takes the place of the folder's fixture: these tests want gradients."""


def fresh(*shape: int, dtype: torch.dtype = torch.bfloat16, scale: float = 1.0) -> Tensor:
    return (torch.randn(*shape, device="cuda") * scale).to(dtype)


def grads(outs: tuple[Tensor, ...], ins: list[Tensor], gouts: list[Tensor]) -> list[Tensor]:
    return list(torch.autograd.grad(outs, ins, [g.to(o.dtype) for g, o in zip(gouts, outs, strict=True)]))


def compare(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None, factor: float = 2.0, **options) -> None:
    """Our error against float64 is at most ``factor`` times that of plain torch in the dtype of q."""
    given = [x for x in (q, k, v, bias) if x is not None]
    gouts = [torch.randn(q.shape, device="cuda"), torch.randn(q.shape[:3], device="cuda")]

    def low_precision(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        group = q.shape[1] // k.shape[1]
        s = (q @ k.repeat_interleave(group, 1).transpose(-1, -2)).float() * q.shape[-1] ** -0.5
        if bias is not None:
            s = s + bias.float().repeat_interleave(group, 1)[:, :, None]
        at = torch.arange(s.shape[-2], device=s.device)[:, None] + s.shape[-1] - s.shape[-2]
        j = torch.arange(s.shape[-1], device=s.device)
        if options.get("causal", True):
            s = s.masked_fill(j > at, -torch.inf)
        if options.get("window") is not None:
            s = s.masked_fill((j <= at - options["window"]) | (j >= at + options["window"]), -torch.inf)
        dead = (s == -torch.inf).all(-1, keepdim=True)
        s = torch.where(dead, 0.0, s)
        lse = torch.where(dead[..., 0], -torch.inf, torch.logsumexp(s, -1))
        return torch.where(dead, 0.0, torch.softmax(s, -1)).to(q.dtype) @ v.repeat_interleave(group, 1), lse

    def run(dtype: torch.dtype | None, what: str) -> list[Tensor]:
        ins = [x.detach().to(x.dtype if dtype is None else dtype).requires_grad_() for x in given]
        tensors = (*ins[:3], ins[3] if bias is not None else None)
        if what == "ours":
            outs = attention(*tensors[:3], key_bias_BKT=tensors[3], return_lse=True, **options)
        elif what == "low":
            outs = low_precision(*tensors)
        else:
            exact = {name: value for name, value in options.items() if name in ("causal", "window")}
            outs = attention_written_out(*tensors[:3], key_bias_BKT=tensors[3], **exact)
        alive = torch.isfinite(outs[1])
        outs = (outs[0], torch.where(alive, outs[1], 0.0))
        return [x.double() for x in (*outs, *grads(outs, ins, gouts))]

    exact, low, ours = run(torch.float64, "exact"), run(None, "low"), run(None, "ours")
    for name, e, b, o in zip(("out", "lse", "dq", "dk", "dv", "dbias"), exact, low, ours, strict=False):
        assert torch.isfinite(o).all(), name
        grain = 1e-5 * e.abs().max() if name in ("lse", "dbias") else 2.0**-11 * e.abs().max()
        error, allowed = (o - e).abs().max(), factor * (b - e).abs().max() + grain
        assert error <= allowed, f"{name}: {error:.3e} > {allowed:.3e}"


IMPLEMENTATIONS = ("gluon", "triton")


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("dim", [64, 128, 256])
@pytest.mark.parametrize("causal", [True, False])
def test_every_head_dim_group_and_length(implementation: str, dim: int, causal: bool) -> None:
    shapes = [(2, 4, 4, 256, 256), (1, 7, 1, 333, 333), (1, 8, 2, 100, 1001), (1, 6, 1, 1, 77), (1, 8, 1, 65, 129)]
    with override("attention", implementation):
        for (b, h, kv, s, t), dtype in zip(shapes, itertools.cycle((torch.bfloat16, torch.float16)), strict=False):
            compare(*(fresh(b, n, m, dim, dtype=dtype) for n, m in ((h, s), (kv, t), (kv, t))), causal=causal)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("window", [None, 1, 70])
@pytest.mark.parametrize("biased", [False, True])
def test_windows_and_key_bias(causal: bool, window: int | None, biased: bool) -> None:
    for dim in (64, 128):
        bias = torch.randn(2, 2, 300, device="cuda") if biased else None
        q, k, v = fresh(2, 8, 200, dim), fresh(2, 2, 300, dim), fresh(2, 2, 300, dim)
        compare(q, k, v, bias, causal=causal, window=window)


def test_rows_whose_keys_are_all_hidden_are_zero() -> None:
    q, k, v = fresh(1, 4, 128, 64), fresh(1, 2, 128, 64), fresh(1, 2, 128, 64)
    bias = torch.zeros(1, 2, 128, device="cuda")
    bias[:, :, :50] = -torch.inf
    out, lse = attention(q, k, v, key_bias_BKT=bias, return_lse=True)
    assert (out[:, :, :50] == 0).all()
    assert (lse[:, :, :50] == -torch.inf).all()
    compare(q, k, v, bias)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("scale", [1e-4, 30.0])
def test_huge_and_tiny_values(implementation: str, scale: float) -> None:
    with override("attention", implementation):
        compare(fresh(1, 4, 300, 128, scale=scale), fresh(1, 4, 300, 128, scale=scale), fresh(1, 4, 300, 128))


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("dim", [64, 128])
def test_packed_sequences_equal_separate_ones(causal: bool, dim: int) -> None:
    lengths_q, lengths_k = [5, 0, 200, 64, 1], [70, 3, 200, 129, 1]
    cu_q, cu_k = (torch.tensor([0, *itertools.accumulate(x)], dtype=torch.int32) for x in (lengths_q, lengths_k))
    ins = [fresh(1, 4, sum(lengths_q), dim), fresh(1, 2, sum(lengths_k), dim), fresh(1, 2, sum(lengths_k), dim)]
    ins = [x.requires_grad_() for x in ins]
    out, lse = attention(*ins, causal=causal, cu_seqlens=cu_q.cuda(), cu_seqlens_k=cu_k.cuda(), return_lse=True)
    g = torch.randn_like(out)
    found = torch.autograd.grad(out, ins, g)
    wide = [x.detach().double().requires_grad_() for x in ins]
    parts = [
        attention_written_out(wide[0][:, :, a:b], wide[1][:, :, c:d], wide[2][:, :, c:d], causal=causal)
        for a, b, c, d in zip(cu_q, cu_q[1:], cu_k, cu_k[1:], strict=False)
        if b > a
    ]
    exact = torch.cat([x for x, _ in parts], 2)
    torch.testing.assert_close(lse.double(), torch.cat([x for _, x in parts], 2), rtol=1e-3, atol=1e-3)
    for ours, theirs in zip((out, *found), (exact, *torch.autograd.grad(exact, wide, g.double())), strict=True):
        assert (ours.double() - theirs).norm() <= 6e-3 * theirs.norm()


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_strided_inputs_and_poisoned_memory(implementation: str) -> None:
    poison = [torch.full((1 << 22,), torch.nan, device="cuda") for _ in range(8)]
    del poison
    x = fresh(2, 320, 12, 64)  # [B, S, H, D] as projections give it
    q, k, v = (x[:, :, a:b].transpose(1, 2) for a, b in ((0, 8), (8, 10), (10, 12)))
    with override("attention", implementation):
        compare(q, k, v)


def test_deterministic_gradients_have_the_same_bits() -> None:
    q, k, v, g = (fresh(1, 4, 1000, 64).requires_grad_() for _ in range(4))
    first, second = (torch.autograd.grad(attention(q, k, v, deterministic=True), (q, k, v), g) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    compare(q.detach(), k.detach(), v.detach(), deterministic=True)


def test_strides_that_a_kernel_cannot_read_are_refused() -> None:
    q = fresh(1, 2, 64, 32).transpose(2, 3)
    with pytest.raises(BadInput, match="contiguous"):
        attention(q, q, q)
