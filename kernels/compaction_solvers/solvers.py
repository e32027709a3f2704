"""The three solvers of attention matching for many heads at once, in plain batched torch on any device.

Knows Gram matrices and masks. Does not know attention. No Triton: after the Gram form nothing here is long (README.md).

    H heads, N reference queries, C candidate keys, T kept keys, D channels
"""

# ruff: noqa: N815  (fields carry shape suffixes, as all tensors do)

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ...errors import BadInput

__all__ = ["Selected", "nnls", "omp_select", "ridge_values"]

# Share of a column that must stand outside of the chosen ones: 16 times the rounding of float32.
_NEARLY_DEPENDENT = 1e-6


class Selected(NamedTuple):
    """Picked columns int64 [H, T] in the order of picking, and their weights float64 [H, T] >= 0."""

    index_HT: Tensor
    weight_HT: Tensor


def omp_select(gram_HCC: Tensor, moment_HC: Tensor, count: int, *, live_HC: Tensor | None = None) -> Selected:
    """Greedy choice of ``count`` columns whose non-negative combination matches a target; all heads in step.

    Batch-OMP: with G = Phi^T Phi and b = Phi^T mu the correlations are c = b - G_S w, so no step touches query space.
    The inverse of the Cholesky factor of G_SS grows by one row a step.

    Args:
        gram_HCC: Phi^T Phi, float32 or float64 [H, C, C]; not in TF32, columns are nearly collinear.
        moment_HC: Phi^T mu, [H, C].
        count: columns to pick, 1 .. C.
        live_HC: bool [H, C], False: never picked before every live column is.

    Raises:
        BadInput: shapes do not fit.

    Source: Rubinstein, Zibulevsky, Elad 2008 (Batch-OMP); arXiv 2602.16284 (least squares, then clamp).
    """
    heads, columns = moment_HC.shape
    if gram_HCC.shape != (heads, columns, columns) or not 1 <= count <= columns:
        raise BadInput(
            f"expected a Gram matrix [{heads}, {columns}, {columns}] and a count of 1 to {columns}, "
            f"got {tuple(gram_HCC.shape)} and {count}"
        )
    every = torch.arange(heads, device=moment_HC.device)
    diagonal = gram_HCC.diagonal(dim1=1, dim2=2).double()
    rows_HTC = gram_HCC.new_empty(heads, count, columns)
    inverse_HTT = gram_HCC.new_zeros(heads, count, count, dtype=torch.float64)
    picked_HT = torch.empty(heads, count, dtype=torch.int64, device=moment_HC.device)
    halfway_HT1 = inverse_HTT.new_zeros(heads, count, 1)  # inverse factor times moments
    moment = moment_HC.double()
    gain = moment_HC.clone()
    barred = torch.zeros_like(gain) if live_HC is None else torch.where(live_HC, 0.0, -1e30).to(gain.dtype)
    weights = moment.new_zeros(heads, count)
    for step in range(count):
        pick = (gain + barred).argmax(1)
        barred[every, pick] = -torch.inf
        picked_HT[:, step] = pick
        rows_HTC[:, step] = gram_HCC[every, pick]
        size = diagonal[every, pick]
        grown = inverse_HTT[:, :step, :step]
        cross = rows_HTC[every, :step, pick].double()[:, :, None]
        inner = grown @ cross
        left = torch.maximum(size - inner.square().sum((1, 2)), _NEARLY_DEPENDENT * size).clamp_min(1e-300).rsqrt()
        inverse_HTT[:, step, :step] = -(inner.mT @ grown)[:, 0] * left[:, None]
        inverse_HTT[:, step, step] = left
        taken = picked_HT[:, : step + 1]
        halfway_HT1[:, step, 0] = (inverse_HTT[:, step, : step + 1] * moment.gather(1, taken)).sum(1)
        weights = (inverse_HTT[:, : step + 1, : step + 1].mT @ halfway_HT1[:, : step + 1])[:, :, 0].clamp_min(0)
        gain = torch.baddbmm(
            moment_HC[:, None], weights[:, None].to(rows_HTC.dtype), rows_HTC[:, : step + 1], alpha=-1.0
        )[:, 0]
    return Selected(picked_HT, weights)


def nnls(
    gram_HTT: Tensor, moment_HT: Tensor, *, live_HT: Tensor | None = None, rounds: int = 40, ridge: float = 1e-10
) -> Tensor:
    """float64 [H, T]: w >= 0 that minimises w^T G w / 2 - b^T w of every head, exact when it ends before ``rounds``.

    Block principal pivoting: solve for the free weights, let every negative weight and every negative gradient change
    sides at once; a head where that does not lower the number of wrong ones for three rounds changes one at a time.

    Args:
        gram_HTT: Phi^T Phi, best computed in float64, [H, T, T].
        moment_HT: Phi^T mu, [H, T].
        live_HT: bool [H, T]; False: the weight stays 0.
        rounds: bound on the solves.
        ridge: share of the mean diagonal added to it.

    Source: Portugal, Judice, Vicente 1994; Kim and Park 2011.
    """
    heads, keys = moment_HT.shape
    if gram_HTT.shape != (heads, keys, keys):
        raise BadInput(f"expected a Gram matrix [{heads}, {keys}, {keys}], got {tuple(gram_HTT.shape)}")
    gram, moment = gram_HTT.double(), moment_HT.double()
    scale = gram.diagonal(dim1=1, dim2=2).clamp_min(1e-300).rsqrt()  # columns of length 1: one tolerance for all heads
    gram = gram * scale[:, :, None] * scale[:, None, :]
    moment = moment * scale
    tolerance = 1e-12 * moment.abs().amax(1, keepdim=True)
    live = torch.ones_like(moment, dtype=torch.bool) if live_HT is None else live_HT
    free = live.clone()
    fewest = torch.full((heads,), keys + 1, device=moment.device)
    patience = torch.full((heads,), 3, device=moment.device)
    order = torch.arange(keys, device=moment.device)
    best, best_value = torch.zeros_like(moment), torch.zeros(heads, dtype=moment.dtype, device=moment.device)
    for _ in range(rounds):
        w = _solve_free(gram, moment, free, ridge)
        clamped = w.clamp_min(0)
        pull = (gram @ clamped[:, :, None])[:, :, 0]
        value = (clamped * (pull / 2 - moment)).sum(1)
        better = value < best_value
        best, best_value = torch.where(better[:, None], clamped, best), torch.where(better, value, best_value)
        slope = (gram @ w[:, :, None])[:, :, 0] - moment
        wrong = ((free & (w < -tolerance)) | (~free & (slope < -tolerance))) & live
        count = wrong.sum(1)
        if not bool(count.any()):
            break
        fewer = count < fewest
        patience = torch.where(fewer, 3, patience - 1)
        fewest = torch.minimum(fewest, count)
        last = torch.where(wrong, order, -1).amax(1, keepdim=True)
        flip = torch.where(patience[:, None] >= 0, wrong, wrong & (order == last))
        free = free ^ flip
    return best * scale


def _solve_free(gram: Tensor, moment: Tensor, free: Tensor, ridge: float) -> Tensor:
    """Weights of the free columns (unit length), 0 for the others; ever more ridge for a head that is singular."""
    both = free[:, :, None] & free[:, None, :]
    system = torch.where(both, gram, 0.0)
    for strength in (ridge, 1e-6, 1e-3):
        fill = torch.where(free, strength, 1.0)
        factor, failed = torch.linalg.cholesky_ex(system + torch.diag_embed(fill))
        if not bool(failed.any()):
            break
    return torch.cholesky_solve(torch.where(free, moment, 0.0)[:, :, None], factor)[:, :, 0]


def ridge_values(weights_HNT: Tensor, outputs_HND: Tensor, *, ridge: float = 1e-8) -> Tensor:
    """float64 [H, T, D]: the values C that minimise |X C - Y|^2 + ridge * mean(diag(X^T X)) * |C|^2 of every head.

    Normal equations in float64: with float32 inputs their error is that of a float32 QR of X.

    Args:
        weights_HNT: X, attention weights over the kept keys, [H, N, T].
        outputs_HND: Y, outputs to be matched, [H, N, D].
        ridge: share of the mean diagonal; more hurts (arXiv 2602.16284), less fails on twin keys.

    Raises:
        BadInput: shapes do not fit.
    """
    if weights_HNT.ndim != 3 or outputs_HND.ndim != 3 or weights_HNT.shape[:2] != outputs_HND.shape[:2]:
        raise BadInput(
            f"expected weights [H, N, T] and outputs [H, N, D], got {tuple(weights_HNT.shape)}, "
            f"{tuple(outputs_HND.shape)}"
        )
    x, y = weights_HNT.double(), outputs_HND.double()
    gram = x.mT @ x
    mean = gram.diagonal(dim1=1, dim2=2).mean(1).clamp_min(1e-300)
    right = x.mT @ y
    for strength in (ridge, 1e-6, 1e-3):
        fill = (strength * mean)[:, None].expand(gram.shape[:2])
        factor, failed = torch.linalg.cholesky_ex(gram + torch.diag_embed(fill))
        if not bool(failed.any()):
            break
    return torch.cholesky_solve(right, factor)
