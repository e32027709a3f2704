"""Run by test_attention.py in a process of its own: Triton's interpreter is chosen by the environment, at import.

Compares the Triton kernels with the written-out reference: out, log-sum-exp and all gradients. Prints what differs.
"""

from __future__ import annotations

import itertools
import sys

import torch
from perdure.kernels.attention.launch import Call, Config, run
from perdure.kernels.attention.reference import attention_written_out
from torch import Tensor

SCALE = 0.25


def gradients(outs: tuple[Tensor, Tensor], ins: list[Tensor]) -> list[Tensor]:
    g = torch.Generator().manual_seed(1)
    weights = [torch.randn(x.shape, generator=g) for x in outs]
    alive = torch.isfinite(outs[1])
    outs = (outs[0], torch.where(alive, outs[1], 0.0))
    return [*outs, *torch.autograd.grad(outs, ins, [w.to(x.dtype) for w, x in zip(weights, outs, strict=True)])]


def differs(ours: list[Tensor], exact: list[Tensor]) -> str:
    for name, a, b in zip(("out", "lse", "dq", "dk", "dv", "dbias"), ours, exact, strict=False):
        error = (a.double() - b.double()).norm() / b.double().norm().clamp_min(1e-9)
        if not error < 2e-3:  # rounding to float16 gives 3e-4
            return f"{name} {error:.1e}"
    return ""


def inputs(batch: int, heads: int, kv_heads: int, queries: int, keys: int, biased: bool) -> list[Tensor]:
    q, k, v = (torch.randn(batch, h, n, 16).half() for h, n in ((heads, queries), (kv_heads, keys), (kv_heads, keys)))
    bias = [torch.randn(batch, kv_heads, keys)] if biased else []
    return [x.requires_grad_() for x in (q, k, v, *bias)]


def call(causal: bool, window: int | None, deterministic: bool) -> Call:
    config = Config(32, 32, 4, 1, dq=1)
    return Call(SCALE, causal, window, deterministic, forward=config, backward=config)


def dense(shape: tuple[int, ...], causal: bool, window: int | None, biased: bool, deterministic: bool) -> str:
    ins = inputs(*shape, biased)
    bias = ins[3] if biased else None
    ours = gradients(run(*ins[:3], bias, None, None, call(causal, window, deterministic)), ins)
    wide = [x.detach().double().requires_grad_() for x in ins]
    exact = attention_written_out(
        *wide[:3], scale=SCALE, window=window, key_bias_BKT=wide[3] if biased else None, causal=causal
    )
    return differs(ours, gradients(exact, wide))


def packed(causal: bool, biased: bool, deterministic: bool) -> str:
    lengths_q, lengths_k = [5, 0, 40, 1], [50, 3, 40, 9]
    cu_q, cu_k = (torch.tensor([0, *itertools.accumulate(x)], dtype=torch.int32) for x in (lengths_q, lengths_k))
    ins = inputs(1, 2, 1, sum(lengths_q), sum(lengths_k), biased)
    ours = gradients(run(*ins[:3], ins[3] if biased else None, cu_q, cu_k, call(causal, None, deterministic)), ins)
    wide = [x.detach().double().requires_grad_() for x in ins]
    parts = [
        attention_written_out(
            wide[0][:, :, a:b], wide[1][:, :, c:d], wide[2][:, :, c:d], scale=SCALE, causal=causal,
            key_bias_BKT=wide[3][:, :, c:d] if biased else None,
        )
        for a, b, c, d in zip(cu_q, cu_q[1:], cu_k, cu_k[1:], strict=False)
        if b > a
    ]  # fmt: skip
    return differs(ours, gradients((torch.cat([x for x, _ in parts], 2), torch.cat([x for _, x in parts], 2)), wide))


def main() -> int:
    torch.manual_seed(0)
    bad = []
    ways = ((False, True), (True, False))  # bias, deterministic
    for shape, causal, window, (biased, deterministic) in itertools.product(
        ((1, 2, 1, 45, 45), (2, 2, 2, 20, 70)), (True, False), (None, 12), ways
    ):
        if said := dense(shape, causal, window, biased, deterministic):
            bad.append(f"{shape} causal={causal} {window=} {biased=} {deterministic=}: {said}")
    for causal, (biased, deterministic) in itertools.product((True, False), ways):
        if said := packed(causal, biased, deterministic):
            bad.append(f"packed {causal=} {biased=} {deterministic=}: {said}")
    ins = inputs(1, 2, 1, 40, 40, True)
    with torch.no_grad():
        ins[3][:, :, :10] = -torch.inf
    out, lse = run(*ins, None, None, call(True, None, False))
    if not (out[:, :, :10] == 0).all() or not (lse[:, :, :10] == -torch.inf).all():
        bad.append("rows whose keys are all hidden are not zero")
    print("\n".join(bad))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
