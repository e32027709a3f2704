"""Ways to make a cache short that others published: which keys stay; keys and values stay as they are.

Knows the scores of H2O, SnapKV, Expected Attention and KVzip and of a plain window, each in its own few lines. Does not
know budgets in bytes or how well they do.

    L layers, K KV heads, G query heads of a group, T keys, N queries, D channels
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from ...errors import BadInput
from ...kernels.decode_attention import RaggedKV
from ..cache import KVCache
from .queries import SINKS, PeakLog


@dataclass
class Prefill:
    """Queries of the ordinary reading of a text: every ``stride``-th, and the last ``window``; give it to
    `Decoder.observe`, one text only.

    Attributes:
        every: per layer float16 [heads, N, D], rotated.
        last: per layer float16 [heads, window, D], rotated.
        seen: tokens of each layer.
    """

    layers: int
    stride: int = 16
    window: int = 64
    every: list[list[Tensor]] = field(default_factory=list)
    last: list[Tensor | None] = field(default_factory=list)
    seen: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.every, self.last = [[] for _ in range(self.layers)], [None] * self.layers
        self.seen = [0] * self.layers

    def __call__(self, layer: int, q_HMD: Tensor) -> None:
        start = -self.seen[layer] % self.stride
        self.every[layer].append(q_HMD[:, start :: self.stride].half())
        before = self.last[layer]
        joined = q_HMD.half() if before is None else torch.cat((before, q_HMD.half()), 1)
        self.last[layer] = joined[:, -self.window :]
        self.seen[layer] += q_HMD.shape[1]

    def queries(self, layer: int) -> tuple[Tensor, Tensor]:
        """(float32 [heads, N, D], their positions int64 [N])."""
        q = torch.cat(self.every[layer], 1).float()
        return q, torch.arange(q.shape[1], device=q.device) * self.stride


def drop_oldest(cache: KVCache, rows: int, slots: int) -> list[RaggedKV]:
    """The first keys and the last ones (StreamingLLM, arXiv 2309.17453)."""
    kept = torch.cat((torch.arange(min(SINKS, slots)), torch.arange(rows - slots + min(SINKS, slots), rows)))
    return [_take(cache, i, [kept] * x.keys.shape[1]) for i, x in enumerate(cache.layers)]


def h2o(cache: KVCache, rows: int, slots: int, prefill: Prefill) -> list[RaggedKV]:
    """Half of the slots for the last keys, half for those of the greatest sum of attention (arXiv 2306.14048).

    The sum is over every ``stride``-th query of the prefill, each over the keys it could see.
    """
    kept = []
    for i, layer in enumerate(cache.layers):
        q_HND, at_N = prefill.queries(i)
        k_KTD = layer.keys[0, :, :rows].float()
        total_KT = k_KTD.new_zeros(k_KTD.shape[:2])
        hidden_NT = torch.arange(rows, device=k_KTD.device) > at_N[:, None]
        for head, q_ND in enumerate(q_HND):
            kv = head * k_KTD.shape[0] // q_HND.shape[0]
            scores = (q_ND @ k_KTD[kv].T * q_ND.shape[1] ** -0.5).masked_fill_(hidden_NT, -torch.inf)
            total_KT[kv] += scores.softmax(-1).sum(0)
        kept.append(_best(cache, i, total_KT, slots, range(rows - slots // 2, rows)))
    return kept


def snapkv(cache: KVCache, rows: int, slots: int, prefill: Prefill) -> list[RaggedKV]:
    """Attention of the last queries, mean over them, smoothed over 5 neighbours, mean over the group; the keys of those
    queries stay (arXiv 2404.14469; smoothing as in kvpress). With few slots the window takes half of them."""
    kept = []
    window = min(prefill.window, slots // 2)
    for i, layer in enumerate(cache.layers):
        last = prefill.last[i]
        assert last is not None
        k_KTD = layer.keys[0, :, :rows].float()
        q_KGND = last[:, -window:].float().view(k_KTD.shape[0], -1, window, k_KTD.shape[2])
        scores = q_KGND @ k_KTD.mT[:, None] * k_KTD.shape[2] ** -0.5
        later = torch.ones(window, window, dtype=torch.bool, device=scores.device).triu(1)
        scores[..., rows - window :].masked_fill_(later, -torch.inf)
        mean_KT = F.avg_pool1d(scores.softmax(-1).mean(2), 5, stride=1, padding=2).mean(1)
        kept.append(_best(cache, i, mean_KT, slots, range(rows - window, rows)))
    return kept


def expected_attention(
    cache: KVCache, rows: int, slots: int, prefill: Prefill, inverse_frequencies: Sequence[float], future: int = 512
) -> list[RaggedKV]:
    """Attention expected of queries that are normal with the mean and covariance of those seen, turned to the mean of
    the next ``future`` positions, times the size of the value (arXiv 2510.00636, eq. 8 and 9; epsilon 0)."""
    device = cache.layers[0].keys.device
    w_E = torch.tensor(inverse_frequencies, dtype=torch.float64, device=device)
    angle_FE = (rows + torch.arange(future, dtype=torch.float64, device=device))[:, None] * w_E
    cosine, sine = angle_FE.cos().mean(0).float().diag(), angle_FE.sin().mean(0).float().diag()
    turn_DD = torch.cat((torch.cat((cosine, -sine), 1), torch.cat((sine, cosine), 1)))
    kept = []
    for i, layer in enumerate(cache.layers):
        q_HND, at_N = prefill.queries(i)
        raw_HND = _unrotated(q_HND[:, SINKS:], at_N[SINKS:], w_E)
        mean_HD = raw_HND.mean(1)
        centred = raw_HND - mean_HD[:, None]
        cov_HDD = centred.mT @ centred / raw_HND.shape[1]
        mean_HD, cov_HDD = mean_HD @ turn_DD.T, turn_DD @ cov_HDD @ turn_DD.T
        k_KTD, v_KTD = layer.keys[0, :, :rows].float(), layer.values[0, :, :rows].float()
        heads, dim = k_KTD.shape[0], k_KTD.shape[2]
        k_HTD = k_KTD.repeat_interleave(q_HND.shape[0] // heads, 0)
        z_HT = (k_HTD @ mean_HD[:, :, None])[..., 0] * dim**-0.5
        z_HT += ((k_HTD @ cov_HDD) * k_HTD).sum(2) / (2 * dim)
        mean_KT = z_HT.softmax(-1).view(heads, -1, rows).mean(1)
        kept.append(_best(cache, i, mean_KT * v_KTD.norm(dim=2), slots, range(0)))
    return kept


def kvzip(cache: KVCache, rows: int, slots: int, peaks: PeakLog) -> list[RaggedKV]:
    """The keys of the greatest scores over all layers and heads together; the first keys stay.

    Source: KVzip, arXiv 2505.23416, eq. 2, with budgets of heads that differ.
    """
    score_LKT = torch.stack(peaks.scores)
    score_LKT[..., :SINKS] = torch.inf
    best = score_LKT.flatten().topk(slots * score_LKT.shape[0] * score_LKT.shape[1]).indices
    stays = torch.zeros_like(score_LKT, dtype=torch.bool).flatten()
    stays[best] = True
    return [_take(cache, i, [row.nonzero()[:, 0] for row in x]) for i, x in enumerate(stays.view(score_LKT.shape))]


def _best(cache: KVCache, layer: int, score_KT: Tensor, slots: int, always: range) -> RaggedKV:
    """The first keys, those of ``always``, and the best others."""
    if slots < SINKS + len(always):
        always = always[max(0, len(always) - slots + SINKS) :]
    score = score_KT.clone()
    score[:, :SINKS] = torch.inf
    score[:, always.start : always.stop] = torch.inf
    return _take(cache, layer, list(score.topk(slots, dim=1).indices.sort(1).values))


def _take(cache: KVCache, layer: int, kept: Sequence[Tensor]) -> RaggedKV:
    held = cache.layers[layer]
    kept = [x.to(held.keys.device) for x in kept]
    k, v = (torch.cat([x[0, head, at] for head, at in enumerate(kept)]) for x in (held.keys, held.values))
    cu_len = torch.tensor([0, *(len(at) for at in kept)], device=k.device).cumsum(0).int()
    return RaggedKV(k, v, cu_len, pos_N=torch.cat(list(kept)) + cache.base)


def _unrotated(q_HND: Tensor, at_N: Tensor, w_E: Tensor) -> Tensor:
    angle = at_N[:, None].double() * w_E
    cosine, sine = angle.cos().float(), angle.sin().float()
    a, b = q_HND.chunk(2, dim=-1)
    return torch.cat((a * cosine + b * sine, b * cosine - a * sine), dim=-1)


def watching(*observers: Callable[[int, Tensor], None]) -> Callable[[int, Tensor], None]:
    """Several observers as one."""

    def observe(layer: int, q_HMD: Tensor) -> None:
        for observer in observers:
            observer(layer, q_HMD)

    return observe


def check_slots(rows: int, slots: int) -> None:
    """Raise BadInput where a rival cannot keep so many."""
    if not SINKS < slots <= rows:
        raise BadInput(f"expected {SINKS + 1} to {rows} slots, got {slots}; compact less or a longer text")
