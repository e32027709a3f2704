"""Spans: what is left of stretches of the story that no longer fit as they were read. They get coarser with age.

Knows how a span is made of rows of a cache, how two are made one, and which two. Does not know text or journals.

    L layers, K KV heads, S = L * K segments, N vectors, T keys, D head dimension

Each span is one `RaggedKV` of S segments. A stretch is compacted once when it leaves the tail; later only with a
neighbour, two of them into the room of one, first where the two are small against their age. So spans grow
geometrically into the past, their number is bounded, and a token is compacted again about as often as its age doubles.
"""

# ruff: noqa: N815  (fields carry shape suffixes, as all tensors do)

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from ...errors import BadInput
from ...kernels.compaction_solvers import compact_kv
from ...kernels.decode_attention import RaggedKV
from ...runtime.cache import KVCache
from ...runtime.ragged import from_cache_rows, join, positions, rotated, to_dense
from .queries import turned

__all__ = ["Rows", "Span", "joined", "merge_pair", "merged", "pinned", "spanned"]

SAMPLE = 64
"""Example queries that a span keeps for when it is merged, per segment."""


@dataclass(frozen=True)
class Span:
    """What is left of a stretch.

    Attributes:
        tokens: of the stretch.
        kv: keys, biases and values, S segments.
        queries_SND: float16, a sample of those it was matched for; at the positions of ``kv``.
    """

    tokens: int
    kv: RaggedKV
    queries_SND: Tensor

    @property
    def slots(self) -> float:
        """Keys of a head, on the average."""
        return self.kv.k_ND.shape[0] / self.kv.segments

    def moved(self, shift: int, inverse_frequencies: Tensor) -> Span:
        """The same span ``shift`` positions later."""
        if shift == 0:
            return self
        queries = turned(self.queries_SND, shift, inverse_frequencies)
        return Span(self.tokens, rotated(self.kv, shift, inverse_frequencies), queries)


class Rows(NamedTuple):
    """Dense keys and values of all segments; bias -inf where a segment has no key."""

    k_STD: Tensor
    v_STD: Tensor
    bias_ST: Tensor
    pos_ST: Tensor


def pinned(cache: KVCache, rows: int) -> Span:
    """The first rows as they are: the beginning, which every token attends to, is never compacted."""
    parts = [from_cache_rows(cache, layer, 0, rows) for layer in range(len(cache.layers))]
    kv = _stacked(parts)
    return Span(rows, kv, kv.k_ND.new_zeros(kv.segments, 0, kv.dim, dtype=torch.float16))


def spanned(cache: KVCache, rows: int, keep: Sequence[int], queries_SND: Tensor) -> Span:
    """The oldest ``rows`` of the tail, compacted to ``keep`` keys in each segment (not taken out of the cache)."""
    k = torch.cat([layer.keys[0, :, :rows] for layer in cache.layers])
    v = torch.cat([layer.values[0, :, :rows] for layer in cache.layers])
    at = torch.arange(rows) + cache.base
    return _matched(rows, Rows(k, v, torch.zeros(k.shape[:2]), at.expand(k.shape[:2])), keep, queries_SND, 0)


def merged(first: Span, second: Span, keep: Sequence[int], queries_SND: Tensor) -> Span:
    """Two neighbours in the room of one.

    Args:
        first, second: the older one first.
        keep: keys of each segment.
        queries_SND: of the agent's present reading; the samples of both spans are added.
    """
    rows = Rows(*to_dense(join([first.kv, second.kv])))
    sample = torch.cat([first.queries_SND, second.queries_SND], dim=1)
    rows = rows._replace(k_STD=rows.k_STD.to(first.kv.k_ND.dtype), v_STD=rows.v_STD.to(first.kv.k_ND.dtype))
    both = torch.cat([sample, queries_SND], dim=1)
    return _matched(first.tokens + second.tokens, rows, keep, both, sample.shape[1])


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
    for index, (first, second) in enumerate(zip(spans, spans[1:], strict=False)):
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
    for layer, (low, high) in enumerate(zip(starts, starts[1:], strict=False)):
        cu_len = whole.cu_len[layer * heads : (layer + 1) * heads + 1] - low
        bias = None if whole.bias_N is None else whole.bias_N[low:high].contiguous()
        kept.append(RaggedKV(whole.k_ND[low:high], whole.v_ND[low:high], cu_len, bias_N=bias, pos_N=place[low:high]))
    return kept


def _matched(tokens: int, rows: Rows, keep: Sequence[int], queries_SND: Tensor, sampled: int) -> Span:
    """Attention matching (arXiv 2602.16284) of all segments at once; ``sampled`` queries of the front are samples."""
    left = compact_kv(queries_SND, rows.k_STD, rows.v_STD, keep, bias_HT=rows.bias_ST)
    owner = torch.arange(len(keep)).repeat_interleave(torch.tensor(list(keep)))
    kv = RaggedKV(left.k_ND, left.v_ND, left.cu_len, bias_N=left.bias_N, pos_N=rows.pos_ST[owner, left.index_N])
    pool = queries_SND[:, :sampled] if sampled else queries_SND
    step = max(1, pool.shape[1] // SAMPLE)
    return Span(tokens, kv, pool[:, ::step][:, :SAMPLE].to(torch.float16).clone())


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
