"""The three solvers for one head, in float64, by textbook steps: what the batched ones are compared with."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["nnls_reference", "omp_reference", "ridge_reference"]


def omp_reference(phi_NC: Tensor, target_N: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """(picks int64 [count], weights [count]): orthogonal matching pursuit with the residual in query space.

    Repeat: add the unused column that correlates most with the residual, refit by least squares, clamp at 0.
    """
    phi, target = phi_NC.double(), target_N.double()
    picks: list[int] = []
    residual, weights = target, target.new_empty(0)
    for _ in range(count):
        gain = residual @ phi
        gain[picks] = -torch.inf
        picks.append(int(gain.argmax()))
        chosen = phi[:, picks]
        weights = torch.linalg.lstsq(chosen, target[:, None]).solution[:, 0].clamp_min(0)
        residual = target - chosen @ weights
    return torch.tensor(picks), weights


def nnls_reference(phi_NT: Tensor, target_N: Tensor) -> Tensor:
    """[T]: w >= 0 that minimises |phi w - target|, by the active-set method of Lawson and Hanson (1974)."""
    phi, target = phi_NT.double(), target_N.double()
    passive = torch.zeros(phi.shape[1], dtype=torch.bool)
    w = phi.new_zeros(phi.shape[1])
    for _ in range(3 * phi.shape[1]):
        dual = phi.T @ (target - phi @ w)
        dual[passive] = -torch.inf
        if passive.all() or dual.max() <= 1e-10 * target.norm() * phi.norm():
            break
        passive[dual.argmax()] = True
        while True:
            trial = torch.zeros_like(w)
            trial[passive] = torch.linalg.lstsq(phi[:, passive], target[:, None]).solution[:, 0]
            if (trial[passive] > 0).all():
                break
            falling = passive & (trial <= 0)
            step = (w[falling] / (w[falling] - trial[falling])).min()
            w = w + step * (trial - w)
            passive &= w > 1e-14
            w[~passive] = 0
        w = trial
    return w


def ridge_reference(x_NT: Tensor, y_ND: Tensor, ridge: float) -> Tensor:
    """[T, D]: minimises |x c - y|^2 + ridge * mean(diag(x^T x)) * |c|^2, as one stacked least-squares problem."""
    x, y = x_NT.double(), y_ND.double()
    weight = (ridge * x.square().sum(0).mean()).sqrt()
    stacked = torch.cat((x, weight * torch.eye(x.shape[1], dtype=x.dtype)))
    solution: Tensor = torch.linalg.lstsq(stacked, torch.cat((y, y.new_zeros(x.shape[1], y.shape[1])))).solution
    return solution
