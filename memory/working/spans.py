"""Spans: what is left of stretches of the story that no longer fit as they were read. They get coarser with age.

Knows how a span is made of rows of a cache, how two are made one, and which two. Does not know text or journals.

    L layers, K KV heads, S = L * K segments, N vectors, T keys, D head dimension

Each span is one `RaggedKV` of S segments. A stretch is compacted once when it leaves the tail; later only with a
neighbour, two of them into the room of one, first where the two are small against their age. So spans grow
geometrically into the past, their number is bounded, and a token is compacted again about as often as its age doubles.
"""

# ruff: noqa: N815  (fields carry shape suffixes, as all tensors do)

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from ...errors import BadInput
from ...kernels.compaction_solvers import compact_kv
from ...kernels.decode_attention import RaggedKV
from ...runtime.cache import KVCache
from ...runtime.ragged import from_cache_rows, join, positions, rotated, to_dense

__all__ = ["Rows", "Span", "dealt", "joined", "merge_pair", "merged", "pinned", "rows_of", "spanned", "tail_rows"]

QUERIES = 2048
"""Queries that a span is matched for, at most."""
LEAST = 2
"""Slots that a segment gets at least."""
_CELLS = 1 << 18
"""Scores that are held at once: as many as stay near the processor."""
_RIDGE = 1e-4


@dataclass(frozen=True)
class Span:
    """What is left of a stretch.

    Attributes:
        tokens: of the stretch.
        kv: keys, biases and values, S segments.
        told: ids of the tokens of the stretch that are worth rehearsing.
    """

    tokens: int
    kv: RaggedKV
    told: tuple[int, ...] = ()

    @property
    def slots(self) -> float:
        """Keys of a head, on the average."""
        return self.kv.k_ND.shape[0] / self.kv.segments

    def moved(self, shift: int, inverse_frequencies: Tensor) -> Span:
        """The same span ``shift`` positions later."""
        return self if shift == 0 else replace(self, kv=rotated(self.kv, shift, inverse_frequencies))


class Rows(NamedTuple):
    """Dense keys and values of all segments; bias -inf where a segment has no key."""

    k_STD: Tensor
    v_STD: Tensor
    bias_ST: Tensor
    pos_ST: Tensor


def pinned(cache: KVCache, rows: int) -> Span:
    """The first rows as they are: the beginning, which every token attends to, is never compacted."""
    parts = [from_cache_rows(cache, layer, 0, rows) for layer in range(len(cache.layers))]
    return Span(rows, _stacked(parts))


def tail_rows(cache: KVCache, first: int, last: int) -> Rows:
    """Rows ``first`` .. ``last - 1`` of the tail, of all layers."""
    k = torch.cat([layer.keys[0, :, first:last] for layer in cache.layers])
    v = torch.cat([layer.values[0, :, first:last] for layer in cache.layers])
    at = torch.arange(first, last) + cache.base
    return Rows(k, v, torch.zeros(k.shape[:2]), at.expand(k.shape[:2]))


def spanned(
    cache: KVCache, rows: int, slots: int, queries_SND: Tensor, beside: Sequence[Span], told: Sequence[int]
) -> Span:
    """The oldest ``rows`` of the tail, compacted (not taken out of the cache).

    Args:
        slots: keys a segment keeps on the average.
        queries_SND: what the span shall be matched for, at least one.
        beside: the spans before; what a query gives to them and to the rest of the tail does not count for this one.
        told: see `Span`.
    """
    others = [*rows_of(beside), tail_rows(cache, rows, cache.length)]
    return Span(rows, _matched(tail_rows(cache, 0, rows), slots, queries_SND, others), tuple(told))


def merged(
    first: Span, second: Span, slots: int, queries_SND: Tensor, cache: KVCache, beside: Sequence[Span]
) -> RaggedKV:
    """What is left of two neighbours, the older one first, in ``slots``; ``beside`` are all other spans."""
    others = [*rows_of(beside), tail_rows(cache, 0, cache.length)]
    return _matched(rows_of([first, second])[0], slots, queries_SND, others)


def merge_pair(spans: Sequence[Span], after: int) -> int:
    """Which neighbours to merge, by the index of the first: those that are shortest against their age.

    Args:
        spans: at least two, oldest first.
        after: tokens read since the last of them.
    """
    if len(spans) < 2:
        raise BadInput(f"expected at least two spans to merge, got {len(spans)}")
    best, chosen = float("inf"), 0
    age = after + sum(span.tokens for span in spans)
    for index, (first, second) in enumerate(pairwise(spans)):
        share = (first.tokens + second.tokens) / max(1, age)  # age of the pair: since its first token
        age -= first.tokens
        if share < best:
            best, chosen = share, index
    return chosen


def joined(spans: Sequence[Span], layers: int) -> list[RaggedKV]:
    """Per layer what a cache keeps: all spans one after another."""
    whole = join([span.kv for span in spans])
    heads = whole.segments // layers
    starts = whole.cu_len[::heads].tolist()
    place = positions(whole)
    kept = []
    for layer, (low, high) in enumerate(pairwise(starts)):
        cu_len = whole.cu_len[layer * heads : (layer + 1) * heads + 1] - low
        bias = None if whole.bias_N is None else whole.bias_N[low:high].contiguous()
        kept.append(RaggedKV(whole.k_ND[low:high], whole.v_ND[low:high], cu_len, bias_N=bias, pos_N=place[low:high]))
    return kept


def _matched(rows: Rows, slots: int, queries_SND: Tensor, others: Sequence[Rows]) -> RaggedKV:
    """Attention matching (arXiv 2602.16284) of all segments at once.

    A query counts by the share of all its attention that it gives to these rows: what it looks for elsewhere need not
    be right here. The queries that give most are taken.
    """
    mass_SN = _mass(queries_SND, rows)
    total_SN = torch.stack([mass_SN, *(_mass(queries_SND, other) for other in others)]).logsumexp(0)
    keep = dealt(queries_SND, rows, total_SN, slots * len(queries_SND))
    most = (mass_SN - total_SN).exp().topk(min(QUERIES, queries_SND.shape[1]), dim=1)
    chosen = queries_SND.gather(1, most.indices[:, :, None].expand(-1, -1, queries_SND.shape[2]))
    left = compact_kv(
        chosen,
        rows.k_STD,
        rows.v_STD,
        keep,
        bias_HT=rows.bias_ST,
        share_HN=most.values,
        ridge=_RIDGE,
        method="highest",
    )
    owner = torch.arange(len(keep)).repeat_interleave(torch.tensor(keep))
    return RaggedKV(left.k_ND, left.v_ND, left.cu_len, bias_N=left.bias_N, pos_N=rows.pos_ST[owner, left.index_N])


def dealt(queries_SND: Tensor, rows: Rows, total_SN: Tensor, slots: int) -> list[int]:
    """How many of ``slots`` each segment gets: as many as it has among the keys that get most of all attention.

    A key is rated by the root of the mean square of its share of a query's attention over the whole cache. Few heads
    look back over long stretches at all; they get nearly everything, and nothing is measured beforehand.

    Args:
        total_SN: logarithm of the mass of each query over the whole cache.
        slots: of all segments together; each gets `LEAST` if it has as many.
    """
    rated = torch.zeros(rows.bias_ST.shape)
    for segment, at, score_NT in _scores(queries_SND, rows):
        share_NT = score_NT.sub_(total_SN[segment, at][:, None]).exp_()
        rated[segment] += share_NT.square_().sum(0)
    live = (rows.bias_ST > -torch.inf).sum(1)
    rated.masked_fill_(rows.bias_ST == -torch.inf, -1.0)
    ranked = rated.sort(dim=1, descending=True).values
    ranked[:, :LEAST] = torch.where(ranked[:, :LEAST] >= 0, torch.inf, -1.0)
    counts = torch.bincount(ranked.flatten().topk(slots).indices // ranked.shape[1], minlength=len(live))
    return [int(count) for count in torch.minimum(counts, live)]


def _mass(queries_SND: Tensor, rows: Rows) -> Tensor:
    """float32 [S, N]: logarithm of the sum of exp(score) over the rows."""
    found = torch.empty(queries_SND.shape[:2])
    for segment, at, score_NT in _scores(queries_SND, rows):
        found[segment, at] = score_NT.logsumexp(1)
    return found


def _scores(queries_SND: Tensor, rows: Rows) -> Iterator[tuple[int, slice, Tensor]]:
    """(segment, some of its queries, their scores [N', T] over the rows)."""
    count, keys = queries_SND.shape[1], rows.k_STD.shape[1]
    step = max(1, _CELLS // keys)
    for segment, (k_TD, bias_T) in enumerate(zip(rows.k_STD, rows.bias_ST, strict=True)):
        k_DT, q_ND = k_TD.float().T, queries_SND[segment].float() * queries_SND.shape[2] ** -0.5
        for first in range(0, count, step):
            at = slice(first, first + step)
            yield segment, at, torch.addmm(bias_T, q_ND[at], k_DT)


def rows_of(spans: Sequence[Span]) -> list[Rows]:
    """Some spans side by side; none for no spans."""
    if not spans:
        return []
    dense = to_dense(join([span.kv for span in spans]))
    dtype = spans[0].kv.k_ND.dtype
    return [Rows(dense.k_STD.to(dtype), dense.v_STD.to(dtype), dense.bias_ST, dense.pos_ST)]


def _stacked(parts: Sequence[RaggedKV]) -> RaggedKV:
    """Layers with equally long heads, as segments of one."""
    cu_len, total = [parts[0].cu_len.new_zeros(1)], 0
    for part in parts:
        cu_len.append(part.cu_len[1:] + total)
        total += part.k_ND.shape[0]
    return replace(
        parts[0],
        k_ND=torch.cat([x.k_ND for x in parts]),
        v_ND=torch.cat([x.v_ND for x in parts]),
        cu_len=torch.cat(cu_len),
        bias_N=torch.zeros(total),
        pos_N=torch.cat([positions(x) for x in parts]),
    )
