"""Fast compaction of a `KVCache` by attention matching. Derivation and measurements: README.md.

Knows spans of a cache, which queries matter to which span, and how a budget is dealt out over spans and heads. Does not
know how keys, biases and values are solved for (kernels/compaction_solvers) or where queries come from (queries.py).

    L layers, K KV heads, H = L * K heads, N reference queries, T keys of a span, D channels
"""

# ruff: noqa: N815  (fields carry shape suffixes, as all tensors do)

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ...errors import BadInput
from ...kernels.compaction_solvers import compact_kv
from ...kernels.decode_attention import RaggedKV
from ..cache import KVCache
from ..ragged import plain, to_dense
from .budgets import HeadBudgets
from .queries import QueryLog

_BYTES = 256 << 20


@dataclass(frozen=True)
class Plan:
    """How a span is compacted.

    Attributes:
        ratio: tokens of which one slot is left, on the average over heads, >= 1.
        method: how keys are chosen: ``omp`` (pursuit), ``highest`` (greatest attention).
        budgets: what each head gets of it; None: all the same.
        chunk: tokens that are solved together; the cost grows linearly with the length.
        keep_first: first positions of the text, kept as they are (attention sinks).
        keep_last: last tokens of what is compacted, kept as they are.
        queries: reference queries of each span and head, those that look at it most.
        candidates: the pursuit looks at so many times the keys it shall find.
        pursue_up_to: heads that keep a greater share of their keys choose by ``highest``, which is as good there.
        weighted: errors count as much as they change the output over the whole cache, not over the span alone.
        ridge: of the values, towards the old ones.
    """

    ratio: float
    method: Literal["omp", "highest"] = "omp"
    budgets: HeadBudgets | None = None
    chunk: int = 2048
    keep_first: int = 4
    keep_last: int = 0
    queries: int = 4096
    candidates: int = 4
    pursue_up_to: float = 0.3
    weighted: bool = True
    ridge: float = 1e-4

    def __post_init__(self) -> None:
        if self.ratio < 1 or self.method not in ("omp", "highest"):
            raise BadInput(f"expected a ratio >= 1 and method omp or highest, got {self.ratio} and {self.method!r}")
        if min(self.chunk, self.queries, self.candidates) < 1 or min(self.keep_first, self.keep_last) < 0:
            raise BadInput(f"expected positive chunk, queries and candidates, and nothing negative to keep, got {self}")


Kind = Literal["kept", "exact", "old", "new"]


class _Span(NamedTuple):
    """Keys that are treated together: k_HTD, v_HTD, bias_HT (-inf: none there), pos_HT.

    ``kind``: ``kept`` and ``exact`` stay as they are, the first without being counted; ``old`` was compacted before.
    """

    k_HTD: Tensor
    v_HTD: Tensor
    bias_HT: Tensor
    pos_HT: Tensor
    kind: Kind

    def lengths(self) -> Tensor:
        """int64 [H] keys of each head."""
        return (self.bias_HT > -torch.inf).sum(1)


class Masses(NamedTuple):
    """Log-masses of queries: float32 [H, N] over each span, and over all."""

    each: list[Tensor]
    all_HN: Tensor


def compact(
    cache: KVCache,
    rows: int,
    queries: QueryLog | Sequence[Tensor],
    plan: Plan,
    *,
    slots: float | None = None,
    weight_N: Tensor | None = None,
) -> list[RaggedKV]:
    """What `KVCache.compacted` shall keep for the oldest ``rows`` tokens and for all that was kept before.

    Args:
        cache: left as it is.
        rows: of the tail, from the oldest.
        queries: reference queries: a log, or per layer rotated ones, float [K, N, D].
        plan: how.
        slots: slots a head may hold afterwards, on the average, for all together: what was kept before is compacted
            once more, as far as needed. None: it stays as it is, and ``rows`` get ``rows / plan.ratio`` slots.

        weight_N: float [N] > 0, how much errors of each query count (`weights_of`); None: all the same.

    Returns:
        Per layer a plain cache of K segments in the dtype of the tail, with biases and the logical positions of the
        keys, in ascending order.

    Raises:
        BadInput: there are no such rows, no queries, or fewer slots than are kept exactly.

    Source: arXiv 2602.16284, chunked (its "KV-based" form); weighting by the share of attention: README.md.
    """
    if not 1 <= rows <= cache.length:
        raise BadInput(f"expected 1 to {cache.length} rows to compact, got {rows}")
    spans = _old_spans(cache, plan, again=slots is not None) + _new_spans(cache, rows, plan)
    layers, heads = len(cache.layers), cache.layers[0].keys.shape[1]
    per_layer = [queries.of(i) for i in range(layers)] if isinstance(queries, QueryLog) else list(queries)
    if len(per_layer) != layers or any(q.ndim != 3 or q.shape[0] != heads or not q.shape[1] for q in per_layer):
        raise BadInput(
            f"expected queries [{heads}, N, D] of {layers} layers, got {[tuple(q.shape) for q in per_layer]}"
        )
    q_HND = torch.cat(per_layer)
    if weight_N is not None and weight_N.shape != q_HND.shape[1:2]:
        raise BadInput(f"expected a weight for each of {q_HND.shape[1]} queries, got {tuple(weight_N.shape)}")
    budgets = _deal(spans, rows, plan, slots)
    total = _masses(q_HND, spans)
    parts: list[list[tuple[Tensor, Tensor, Tensor, Tensor]]] = [[] for _ in range(layers * heads)]
    for span, budget, lse_HN in zip(spans, budgets, total.each, strict=True):
        share_HN = (lse_HN - total.all_HN).exp()
        share_HN = share_HN if weight_N is None else share_HN * weight_N
        for head, part in enumerate(_shrink(span, budget, q_HND, share_HN, plan)):
            parts[head].append(part)
    return [_packed(parts[i * heads : (i + 1) * heads]) for i in range(layers)]


def _old_spans(cache: KVCache, plan: Plan, *, again: bool) -> list[_Span]:
    """What is kept already: all of it as it is, or sinks as they are and the rest as one span."""
    if cache.kept is None:
        return []
    dtype = cache.layers[0].keys.dtype
    dense = [to_dense(plain(x, dtype)) for x in cache.kept]
    longest = max(x.bias_ST.shape[1] for x in dense)
    k, v, bias, pos = (
        torch.cat([_padded(x[i], longest, fill) for x in dense]) for i, fill in enumerate((0.0, 0.0, -torch.inf, -1))
    )
    if not again:
        return [_Span(k, v, bias, pos, "kept")]
    sinks = 0  # of every head: what all of them hold exactly comes first in each
    while sinks < min(plan.keep_first, longest) and bool((pos[:, sinks] == sinks).all()):
        sinks += 1
    spans = [_Span(k[:, a:b], v[:, a:b], bias[:, a:b], pos[:, a:b], kind) for a, b, kind in _cut(sinks, longest)]
    return [span for span in spans if span.k_HTD.shape[1]]


def _cut(sinks: int, longest: int) -> list[tuple[int, int, Kind]]:
    return [(0, sinks, "exact"), (sinks, longest, "old")]


def _padded(x: Tensor, longest: int, fill: float) -> Tensor:
    out = x.new_full((x.shape[0], longest, *x.shape[2:]), fill)
    out[:, : x.shape[1]] = x
    return out


def _new_spans(cache: KVCache, rows: int, plan: Plan) -> list[_Span]:
    """The oldest rows of the tail: sinks, chunks of like length, last tokens."""
    first = min(rows, max(0, plan.keep_first - cache.base))
    last = max(first, rows - plan.keep_last)
    chunks = max(1, round((last - first) / plan.chunk))
    cuts = [first + (last - first) * i // chunks for i in range(chunks + 1)]
    edges: list[tuple[int, int, Kind]] = [(0, first, "exact")]
    edges += [(a, b, "new") for a, b in pairwise(cuts)]
    edges.append((last, rows, "exact"))
    return [_rows(cache, a, b, kind) for a, b, kind in edges if b > a]


def _rows(cache: KVCache, first: int, last: int, kind: Kind) -> _Span:
    k_HTD = torch.cat([layer.keys[0, :, first:last] for layer in cache.layers])
    v_HTD = torch.cat([layer.values[0, :, first:last] for layer in cache.layers])
    bias_HT = torch.zeros(k_HTD.shape[:2], device=k_HTD.device)
    pos = torch.arange(cache.base + first, cache.base + last, device=k_HTD.device)
    return _Span(k_HTD, v_HTD, bias_HT, pos.expand(k_HTD.shape[:2]), kind)


def _deal(spans: Sequence[_Span], rows: int, plan: Plan, slots: float | None) -> list[list[int]]:
    """Slots of every head in every span: the exact ones, ``1 / ratio`` of the new, and what is left for the old."""
    lengths = [span.lengths() for span in spans]
    held = dict.fromkeys(("kept", "exact", "old", "new"), 0.0)
    for span, n in zip(spans, lengths, strict=True):
        held[span.kind] += float(n.double().mean())
    room = (rows / plan.ratio if slots is None else slots) - held["exact"]
    new = min(held["new"], room, rows / plan.ratio)
    old = min(held["old"], room - new)
    new = min(held["new"], room - old)
    least = {kind: sum(span.kind == kind for span in spans) for kind in ("old", "new")}
    if new < least["new"] or old < least["old"]:
        raise BadInput(
            f"expected room for one slot in each of {least['new']} new and {least['old']} old spans beside "
            f"{held['exact']:.0f} exact ones, got {new:.0f} and {old:.0f}; give a smaller ratio or more slots"
        )
    share = {"old": old / max(held["old"], 1.0), "new": new / max(held["new"], 1.0)}
    return [
        n.tolist() if span.kind in ("kept", "exact") else _per_head(n, share[span.kind], plan)
        for span, n in zip(spans, lengths, strict=True)
    ]


def _per_head(lengths_H: Tensor, share: float, plan: Plan) -> list[int]:
    """Slots of each head, together ``share`` of the keys of all, to one slot."""
    lengths = lengths_H.double()
    shares = torch.full_like(lengths, share)
    if plan.budgets is not None and share < 1:
        shares = torch.tensor(plan.budgets.shares(share), dtype=torch.float64, device=lengths.device)
        if shares.shape != lengths.shape:
            raise BadInput(f"expected budgets of {len(lengths)} heads, got {len(shares)}; they are of another model")
    wanted = shares * lengths
    ends = (wanted.cumsum(0) + 1e-6).floor()  # of sums: over all heads no slot is lost
    slots = torch.minimum(torch.diff(ends, prepend=ends.new_zeros(1)).clamp_min(1), lengths)
    most = slots.argmax()
    over = max(0.0, float(slots.sum() - ends[-1]))  # what heads of one slot got more than their share
    slots[most] = max(1.0, float(slots[most]) - over)
    return [int(n) for n in slots.tolist()]


def _masses(q_HND: Tensor, spans: Sequence[_Span]) -> Masses:
    """In blocks of queries and keys that stay in reach."""
    each = []
    for span in spans:
        heads, keys = span.bias_HT.shape
        lse = torch.empty(q_HND.shape[:2], device=q_HND.device)
        step = max(1, min(q_HND.shape[1], _BYTES // (4 * keys)))
        for head in range(heads):
            k_DT, bias_T = span.k_HTD[head].float().T, span.bias_HT[head]
            for at in range(0, q_HND.shape[1], step):
                q_ND = q_HND[head, at : at + step].float() * q_HND.shape[2] ** -0.5
                lse[head, at : at + step] = torch.addmm(bias_T, q_ND, k_DT).logsumexp(1)
        each.append(lse)
    return Masses(each, torch.stack(each).logsumexp(0))


Part = tuple[Tensor, Tensor, Tensor, Tensor]


def _shrink(span: _Span, budget: Sequence[int], q_HND: Tensor, share_HN: Tensor, plan: Plan) -> list[Part]:
    """(keys, values, biases, positions) that stay of every head of a span."""
    lengths = span.lengths().tolist()
    parts: dict[int, Part] = {}
    methods: dict[str, list[int]] = {"omp": [], "highest": []}
    for head, (length, slots) in enumerate(zip(lengths, budget, strict=True)):
        if slots >= length:
            live = span.bias_HT[head] > -torch.inf
            parts[head] = (*(x[head, live] for x in span[:4]),)  # type: ignore[assignment]
        else:
            methods["omp" if plan.method == "omp" and slots <= plan.pursue_up_to * length else "highest"].append(head)
    for method, some in methods.items():
        if not some:
            continue
        index = torch.tensor(some, device=q_HND.device)
        best = share_HN[index].topk(min(plan.queries, share_HN.shape[1]), dim=1)
        few = compact_kv(
            q_HND[index].gather(1, best.indices[:, :, None].expand(-1, -1, q_HND.shape[2])),
            span.k_HTD[index],
            span.v_HTD[index],
            [budget[head] for head in some],
            bias_HT=span.bias_HT[index],
            share_HN=best.values if plan.weighted else None,
            method=method,  # type: ignore[arg-type]
            candidates=plan.candidates,
            ridge=plan.ridge,
        )
        cuts = few.cu_len.tolist()
        for row, head in enumerate(some):
            at = slice(cuts[row], cuts[row + 1])
            parts[head] = (few.k_ND[at], few.v_ND[at], few.bias_N[at], span.pos_HT[head, few.index_N[at]])
    return [parts[head] for head in range(len(budget))]


def _packed(heads: Sequence[Sequence[Part]]) -> RaggedKV:
    """One layer from the parts of its heads."""
    k, v, bias, pos = (torch.cat([part[i] for head in heads for part in head]) for i in range(4))
    lengths = torch.tensor([sum(part[0].shape[0] for part in head) for head in heads], device=k.device)
    cu_len = torch.zeros(len(heads) + 1, dtype=torch.int32, device=k.device)
    cu_len[1:] = lengths.cumsum(0)
    return RaggedKV(k.contiguous(), v.contiguous(), cu_len, bias_N=bias.contiguous(), pos_N=pos.contiguous())
