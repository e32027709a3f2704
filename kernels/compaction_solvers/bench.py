"""The solvers on all heads of a small model; errors beside times, so that nobody is fast by being wrong."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from ..timing import row
from . import compact_kv, nnls, omp_select, ridge_values

__all__ = ["rows"]

_NAME = "compaction_solvers"


def rows(device: torch.device, quick: bool) -> Iterator[dict[str, Any]]:
    """Seconds of a whole compaction, of each solver, and the output error on queries that were not used."""
    heads, queries, keys, kept = (48, 4096, 8192, 164) if device.type == "cuda" else (2, 1024, 2048, 64)
    what = "24 layers x 2 KV heads" if device.type == "cuda" else f"{heads} heads"
    q, k, v = _clustered(heads, 2 * queries, keys, 64, device)
    q, unseen = q[:, :queries].contiguous(), q[:, queries:]
    methods: tuple[Literal["omp", "highest"], ...] = ("omp",) if quick else ("omp", "highest")
    for method in methods:
        case = f"{method} {what} hd64, {keys} keys to {kept}, {queries} queries"
        median_s, spread_s = _seconds(partial(compact_kv, q, k, v, kept, method=method), device)
        yield row(_NAME, case, "time", median_s, "s", spread=spread_s)
        ours = compact_kv(q, k, v, kept, method=method)
        yield row(
            _NAME,
            case,
            "output error, unseen queries",
            _error(ours.k_ND, ours.v_ND, ours.bias_N, unseen, k, v),
            "share",
        )
    pool = 4 * kept
    phi = torch.rand(heads, queries, pool, device=device) ** 4
    gram, moment = phi.mT @ phi, (phi.sum(2)[:, None] @ phi)[:, 0]
    few = phi[:, :, :kept].double()
    few_gram, few_moment = few.mT @ few, (phi.sum(2).double()[:, None] @ few)[:, 0]
    y = torch.randn(heads, queries, 64, device=device)
    solvers: dict[str, Callable[[], Any]] = {
        f"omp_select {heads} x {pool} to {kept}": lambda: omp_select(gram, moment, kept),
        f"nnls {heads} x {kept}": lambda: nnls(few_gram, few_moment),
        f"ridge_values {heads} x {queries} x {kept}": lambda: ridge_values(few, y),
    }
    lstsq_s, _ = _seconds(lambda: torch.linalg.lstsq(few, y.double()), device)
    for case, call in solvers.items():
        median_s, spread_s = _seconds(call, device)
        peer = "torch lstsq float64" if case.startswith("ridge") else None
        yield row(
            _NAME, case, "time", median_s * 1e3, "ms", spread=spread_s * 1e3, peer=peer,
            peer_value=lstsq_s * 1e3 if peer else None, larger_is_better=False,
        )  # fmt: skip


def _seconds(call: Callable[[], Any], device: torch.device) -> tuple[float, float]:
    """Median and range of three calls after one: host code is part of the work, so wall time counts."""
    times = []
    for _ in range(4):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        begun = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - begun)
    return sorted(times[1:])[1], max(times[1:]) - min(times[1:])


def _clustered(heads: int, queries: int, keys: int, dim: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Queries and keys around 32 common centres a head, bfloat16."""
    centres = torch.randn(heads, 32, dim, device=device) * 1.2
    which_k, which_q = (torch.randint(32, (heads, n), device=device) for n in (keys, queries))
    k = centres.gather(1, which_k[..., None].expand(-1, -1, dim)) + torch.randn(heads, keys, dim, device=device) * 0.6
    q = centres.gather(1, which_q[..., None].expand(-1, -1, dim)) + torch.randn(heads, queries, dim, device=device)
    return q.bfloat16(), k.bfloat16(), torch.randn(heads, keys, dim, device=device, dtype=torch.bfloat16)


def _error(k_ND: Tensor, v_ND: Tensor, bias_N: Tensor, q: Tensor, k: Tensor, v: Tensor) -> float:
    """Mean over heads of the relative error of the attention outputs."""
    found = []
    few_k, few_v, few_b = (x.view(k.shape[0], -1, *x.shape[1:]).float() for x in (k_ND, v_ND, bias_N))
    for head in range(k.shape[0]):
        query = q[head].float() * k.shape[-1] ** -0.5
        exact = (query @ k[head].float().T).softmax(-1) @ v[head].float()
        ours = (query @ few_k[head].T + few_b[head]).softmax(-1) @ few_v[head]
        found.append((ours - exact).norm() / exact.norm())
    return float(torch.stack(found).mean())
