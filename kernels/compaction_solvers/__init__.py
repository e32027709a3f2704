"""Attention matching: a long cache replaced by few keys, biases and values that attend alike. Derivation: README.md.

Knows scores, budgets per head and how the three solvers follow each other. Does not know models or caches.
"""

# ruff: noqa: N815  (fields carry shape suffixes, as all tensors do)

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ...errors import BadInput
from .solvers import Selected, nnls, omp_select, ridge_values

__all__ = ["Compacted", "Selected", "compact_kv", "nnls", "omp_select", "ridge_values"]

_BYTES = {"cpu": 256 << 20, "cuda": 2 << 30}
_LEAST_BIAS = -7.0  # weights below e^-7 are as good as none (arXiv 2602.16284)
_CLIP = {"omp": 7.0, "highest": 3.0}


class Compacted(NamedTuple):
    """A ragged cache (the layout of `RaggedKV`): packed over heads, keys of a head in their old order.

    k_ND, v_ND: dtype of the input; bias_N: float32; index_N: int64 index of the kept key among the T;
    cu_len: int32 [H + 1].
    """

    k_ND: Tensor
    v_ND: Tensor
    bias_N: Tensor
    index_N: Tensor
    cu_len: Tensor


def compact_kv(
    q_HND: Tensor,
    k_HTD: Tensor,
    v_HTD: Tensor,
    keep: int | Sequence[int],
    *,
    bias_HT: Tensor | None = None,
    share_HN: Tensor | None = None,
    scale: float | None = None,
    method: Literal["omp", "highest"] = "omp",
    candidates: int = 4,
    ridge: float = 1e-8,
) -> Compacted:
    """Fewer keys, with biases and new values, that give these queries the same output and the same attention mass.

    Args:
        q_HND: reference queries [H, N, D] of the H = B * K KV heads (those of a group pooled), any float dtype.
        k_HTD: keys [H, T, D].
        v_HTD: values [H, T, D].
        keep: keys to keep, 1 .. T, of every head or one number a head (a budget per head costs no padding).
        bias_HT: biases that the keys already have, float [H, T]; -inf: no key there (heads of different lengths).
        share_HN: how much of all its attention a query gives to these keys (others are around them), float [H, N] >= 0:
            errors count as much as they change the output over all keys. None: every query's greatest score counts 1.
        scale: factor of the scores; default D ** -0.5.
        method: ``omp`` (orthogonal matching pursuit) or ``highest`` (greatest root mean square attention).
        candidates: OMP looks at the ``candidates * keep`` keys of the highest attention.
        ridge: of the values (`ridge_values`), towards the old values: a key that no query determines keeps its own.

    Raises:
        BadInput: shapes do not fit, or a head has fewer keys than it shall keep.

    Source: Fast KV compaction via attention matching, arXiv 2602.16284.
    """
    budgets = _check(q_HND, k_HTD, v_HTD, keep, bias_HT, share_HN)
    _, queries, dim = q_HND.shape
    scale = dim**-0.5 if scale is None else scale
    limit = _BYTES.get(q_HND.device.type, 256 << 20)
    parts: list[tuple[int, Tensor, Tensor, Tensor, Tensor]] = []
    # The attention of a head over all keys is long; what the solvers need of it is not. So many heads are solved at
    # once, and the greedy choice, a long row of short steps, is taken for all of them together.
    solved_at_once = max(1, limit // (8 * queries * max(budgets) * (candidates if method == "omp" else 1)))
    attended_at_once = max(1, limit // (queries * k_HTD.shape[1] * 4))
    for chunk in _chunks(budgets, solved_at_once):
        index = torch.tensor(chunk, device=q_HND.device)
        most = max(budgets[head] for head in chunk)
        pool = min(k_HTD.shape[1], candidates * most) if method == "omp" else most
        pooled = [
            _attend(
                q_HND[some].float(),
                k_HTD[some],
                v_HTD[some],
                None if bias_HT is None else bias_HT[some].float(),
                None if share_HN is None else share_HN[some].float(),
                scale,
                pool,
            )
            for some in (index[at : at + attended_at_once] for at in range(0, len(chunk), attended_at_once))
        ]
        sizes = torch.tensor([budgets[head] for head in chunk], device=q_HND.device)
        kept, betas, values = _solve(
            _Pool(*(torch.cat(part) for part in zip(*pooled, strict=True))), v_HTD[index], sizes, most, method, ridge
        )
        if bias_HT is not None:  # phi already holds the old biases of the keys: the new one comes on top
            betas = betas + bias_HT[index].double().gather(1, kept)
        for row, head in enumerate(chunk):
            at = kept[row, : budgets[head]]
            v = values[row, : budgets[head]].to(v_HTD.dtype)
            parts.append((head, k_HTD[head, at], v, betas[row, : budgets[head]].float(), at))
    parts.sort(key=lambda part: part[0])
    k, v, betas, at = (torch.cat([part[i] for part in parts]) for i in range(1, 5))  # type: ignore[misc]
    cu_len = torch.tensor([0, *budgets], dtype=torch.int32, device=k.device).cumsum(0, dtype=torch.int32)
    return Compacted(k, v, betas, at, cu_len)


class _Pool(NamedTuple):
    """What the solvers need of some heads: phi [h, N, P] over the pool of candidate keys, ``keys`` [h, P] of those and
    whether they are ``live``, ``mass`` [h, N] and ``outputs`` [h, N, D] over all keys, ``weight`` [h, N] of a query."""

    phi: Tensor
    keys: Tensor
    live: Tensor
    mass: Tensor
    outputs: Tensor
    weight: Tensor


def _attend(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, share: Tensor | None, scale: float, pool: int
) -> _Pool:
    """Scores relative to a query's greatest, or to its mass over all keys where the share of these is given; the pool
    is the keys of the greatest root mean square attention."""
    scores = torch.bmm(q * scale, k.float().mT)
    if bias is not None:
        scores += bias[:, None]
    scores -= scores.amax(2, keepdim=True)
    scores.exp_()
    mass = scores.sum(2)
    scores /= mass[:, :, None]
    weight = torch.ones_like(mass) if share is None else share
    mass = mass if share is None else share
    rank = torch.linalg.vector_norm(scores if share is None else scores * share[:, :, None], dim=1)
    if bias is not None:
        rank = rank.masked_fill(bias == -torch.inf, -1.0)
    best = rank.topk(pool, dim=1)
    phi = _columns(scores, best.indices) * mass[:, :, None]
    return _Pool(phi, best.indices, best.values >= 0, mass, torch.bmm(scores, v.float()), weight)


def _solve(
    pool: _Pool, v: Tensor, sizes: Tensor, most: int, method: str, ridge: float
) -> tuple[Tensor, Tensor, Tensor]:
    """(kept int64, bias, values) [h, most, ...] of some heads; kept keys in ascending order, unused ones at the end."""
    phi, kept, mass = pool.phi, pool.keys, pool.mass
    used = torch.arange(most, device=phi.device) < sizes[:, None]
    if method == "omp" and phi.shape[2] > most:
        moment = (mass[:, None] @ phi)[:, 0]
        picks = omp_select(phi.mT @ phi, moment, most, live_HC=pool.live).index_HT
        kept, phi = kept.gather(1, picks), _columns(phi, picks)
    # The first picks of a greedy choice are the choice of a smaller budget; the others leave here.
    order = kept.masked_fill(~used, torch.iinfo(torch.int64).max).argsort(1)
    kept, used = kept.gather(1, order), used.gather(1, order)
    phi = (_columns(phi, order) * used[:, None]).double()
    w = nnls(phi.mT @ phi, (mass[:, None].double() @ phi)[:, 0], live_HT=used)
    beta = w.clamp_min(1e-30).log().clamp(max(_LEAST_BIAS, -_CLIP[method]), _CLIP[method])
    weighted = phi * beta.exp()[:, None]
    weighted /= weighted.sum(2, keepdim=True).clamp_min(1e-300)
    old = v.gather(1, kept[:, :, None].expand(-1, -1, v.shape[2])).double() * used[:, :, None]
    weight = pool.weight[:, :, None].double()
    wanted = weight * (pool.outputs.double() - weighted @ old)
    return kept, beta, old + ridge_values(weight * weighted, wanted, ridge=ridge)


def _columns(x_hNC: Tensor, index_hT: Tensor) -> Tensor:
    return x_hNC.gather(2, index_hT[:, None].expand(-1, x_hNC.shape[1], -1))


def _chunks(budgets: list[int], at_once: int) -> Iterator[list[int]]:
    """Heads that are solved together: neighbours by budget, none more than twice another's."""
    order = sorted(range(len(budgets)), key=lambda head: budgets[head])
    chunk: list[int] = []
    for head in order:
        if chunk and (len(chunk) == at_once or budgets[head] > 2 * budgets[chunk[0]]):
            yield chunk
            chunk = []
        chunk.append(head)
    yield chunk


def _check(
    q: Tensor, k: Tensor, v: Tensor, keep: int | Sequence[int], bias: Tensor | None, share: Tensor | None
) -> list[int]:
    if q.ndim != 3 or k.ndim != 3 or k.shape != v.shape or q.shape[0] != k.shape[0] or q.shape[2] != k.shape[2]:
        raise BadInput(
            f"expected q [H, N, D] and k, v [H, T, D], got {tuple(q.shape)}, {tuple(k.shape)}, {tuple(v.shape)}"
        )
    if 0 in q.shape or 0 in k.shape:
        raise BadInput(f"expected no empty axis, got q {tuple(q.shape)} and k {tuple(k.shape)}")
    if share is not None and share.shape != q.shape[:2]:
        raise BadInput(f"expected a share {tuple(q.shape[:2])} for every query, got {tuple(share.shape)}")
    heads, keys = k.shape[:2]
    budgets = [keep] * heads if isinstance(keep, int) else [int(x) for x in keep]
    lengths = [keys] * heads
    if bias is not None:
        if bias.shape != k.shape[:2]:
            raise BadInput(f"expected a bias {tuple(k.shape[:2])}, got {tuple(bias.shape)}")
        lengths = (bias > -torch.inf).sum(1).tolist()
    if len(budgets) != heads or any(not 1 <= x <= most for x, most in zip(budgets, lengths, strict=True)):
        raise BadInput(f"expected {heads} numbers of keys to keep, each 1 to the keys of its head, got {keep}")
    return budgets
