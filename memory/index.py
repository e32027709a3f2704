"""The search for the nearest vectors of one space: the active rows and the sealed segments as one inverted file.

It knows arrays and segments, not where they are stored. It holds nothing that cannot be read again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .segments import Floats, Ints, Rows, Segment
from .words import Scope

EXACT_ROWS = 32_768
"""Sealed rows in scope up to which all are compared: 50 MB at 384 numbers, 5 ms."""
FIRST_LISTS = 256
"""Lists that are read first above that: about 16,000 rows. Of 500,000 vectors like MiniLM's of LoCoMo turns, 128, 256
and 512 lists find 67, 86 and 93 % of the exact ten nearest, in 4, 9 and 16 ms on a busy machine (all: 86 ms)."""


class Near(NamedTuple):
    """A record whose vector is near."""

    seq: int
    item: int
    score: float
    """Cosine, from -1 to 1."""


class Index:
    """All vectors of one space and owner."""

    def __init__(self, dim: int) -> None:
        self.reflects = -1
        """The record that it is level with."""
        self.last_id = 0
        """The newest row of the table that it has taken in."""
        self._dim = dim
        self._segments: dict[int, Segment] = {}
        self._active = _empty(dim)
        self._count = 0
        self._lists: _Lists | None = None

    def has(self, number: int) -> bool:
        return number in self._segments

    def add_segment(self, number: int, segment: Segment) -> None:
        """Take in a sealed segment. Its rows were the oldest active ones, if they had been taken in."""
        self._segments[number] = segment
        self._lists = None
        if self._count:
            kept = np.flatnonzero(~_contains(segment, self._active, self._count))
            self._active = self._active.take(kept)
            self._count = len(kept)

    def add_active(self, rows: Rows, last_id: int) -> None:
        """Take in the newest rows of the table."""
        need = self._count + len(rows.seq)
        if need > len(self._active.seq):
            self._active = _grown(self._active, self._count, max(need, 2 * self._count, 256))
        span = slice(self._count, need)
        for name in Rows.__slots__:
            getattr(self._active, name)[span] = getattr(rows, name)
        self._count = need
        self.last_id = last_id

    def search(
        self, query: Floats, scope: Scope, depth: int, accept: Callable[[Sequence[int]], set[int]] | None
    ) -> list[Near]:
        """See `vectors.VectorProjection.search`."""
        chosen = [segment for segment in self._segments.values() if _overlaps(segment, scope)]
        parts = [_scored(self._active, query, scope, self._count)]
        if sum(segment.count for segment in chosen) <= EXACT_ROWS:
            parts += [_scored(segment.everything(), query, scope) for segment in chosen]
            return _best(parts, depth, accept)
        if self._lists is None:
            self._lists = _Lists(list(self._segments.values()))
        unread = self._lists.of(chosen)
        distance = -self._lists.cosines(query)
        many = FIRST_LISTS
        while True:
            for at in _smallest(distance, unread, many):
                segment, number = self._lists.places[at]
                parts.append(_scored(segment.rows(number), query, scope))
                unread[at] = False
            best = _best(parts, depth, accept)
            if len(best) >= depth or not unread.any():
                return best
            many *= 3

    def of_records(self, seqs: Sequence[int]) -> dict[int, Floats]:
        """See `vectors.VectorProjection.of_records`."""
        wanted: dict[int, list[int]] = {}
        segments = list(self._segments.values())
        for seq, at in zip(seqs, np.searchsorted([segment.last_seq for segment in segments], seqs), strict=True):
            wanted.setdefault(int(at), []).append(seq)
        found: dict[int, Floats] = {}
        for at, some in wanted.items():
            if at < len(segments):
                found |= segments[at].of_records(some)
        known = self._active.seq[: self._count]
        for seq, row in zip(seqs, np.searchsorted(known, seqs), strict=True):
            if row < self._count and known[row] == seq and self._active.item[row] == 0:
                found[seq] = self._active.vectors[row]
        return found


class _Lists:
    """The lists of all segments side by side."""

    def __init__(self, segments: Sequence[Segment]) -> None:
        self._centroids = np.concatenate([segment.centroids for segment in segments])
        self._owner = np.repeat([id(segment) for segment in segments], [segment.lists for segment in segments])
        self.places = [(segment, at) for segment in segments for at in range(segment.lists)]

    def cosines(self, query: Floats) -> Floats:
        """Of the query with each list's centroid."""
        return np.asarray(np.vecdot(self._centroids, query), np.float32)

    def of(self, segments: Sequence[Segment]) -> NDArray[np.bool_]:
        """Which lists belong to these segments."""
        return np.isin(self._owner, [id(segment) for segment in segments])


def _smallest(values: Floats, among: NDArray[np.bool_], many: int) -> list[int]:
    """Places of the ``many`` smallest values among some."""
    places = np.flatnonzero(among)
    if len(places) > many:
        places = places[np.argpartition(values[places], many)[:many]]
    return [int(place) for place in places]


class _Scores(NamedTuple):
    seq: Ints
    item: NDArray[np.int32]
    score: Floats


def _scored(rows: Rows, query: Floats, scope: Scope, count: int | None = None) -> _Scores:
    """Cosines of the rows that are in scope."""
    span = slice(0, len(rows.seq) if count is None else count)
    # Not `@`: for so few rows BLAS starts all its threads, which took 2.5 times as long on a busy machine.
    score = np.vecdot(rows.vectors[span], query)
    seq, item = rows.seq[span], rows.item[span]
    if scope.start_us is None and scope.end_us is None and scope.last_seq is None:
        return _Scores(seq, item, score)
    start, end = rows.start_us[span], rows.end_us[span]
    keep = np.ones(len(seq), bool)
    if scope.end_us is not None:
        keep &= start < scope.end_us
    if scope.start_us is not None:
        keep &= (end > scope.start_us) | (start >= scope.start_us)
    if scope.last_seq is not None:
        keep &= seq <= scope.last_seq
    return _Scores(seq[keep], item[keep], score[keep])


def _best(parts: Sequence[_Scores], depth: int, accept: Callable[[Sequence[int]], set[int]] | None) -> list[Near]:
    """The best ``depth`` records, each with its best vector; ties by seq, then item."""
    seq, item, score = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    many = 4 * depth
    while True:
        kept = np.arange(len(seq)) if many >= len(seq) else np.flatnonzero(score >= -np.partition(-score, many)[many])
        order = kept[np.lexsort((item[kept], seq[kept], -score[kept]))]
        allowed = None if accept is None else accept(list({int(s) for s in seq[order]}))
        found: dict[int, Near] = {}
        for at in order:
            record = int(seq[at])
            if record not in found and (allowed is None or record in allowed):
                found[record] = Near(record, int(item[at]), float(score[at]))
                if len(found) == depth:
                    break
        if len(found) == depth or many >= len(seq):
            return list(found.values())
        many *= 4


def _overlaps(segment: Segment, scope: Scope) -> bool:
    return (
        (scope.end_us is None or segment.first_us < scope.end_us)
        and (scope.start_us is None or segment.last_us >= scope.start_us)
        and (scope.last_seq is None or segment.first_seq <= scope.last_seq)
    )


def _contains(segment: Segment, rows: Rows, count: int) -> NDArray[np.bool_]:
    """Which of the first rows are in the segment."""
    places = (rows.seq[:count] << 20) + rows.item[:count]
    return np.isin(places, (segment.seq << 20) + segment.item)


def _empty(dim: int) -> Rows:
    numbers = np.zeros(0, np.int64)
    return Rows(np.zeros((0, dim), np.float32), numbers, np.zeros(0, np.int32), numbers, numbers)


def _grown(rows: Rows, count: int, size: int) -> Rows:
    """A copy of the first rows with room for ``size``."""
    arrays = {}
    for name in Rows.__slots__:
        old = getattr(rows, name)
        arrays[name] = np.zeros((size, *old.shape[1:]), old.dtype)
        arrays[name][:count] = old[:count]
    return Rows(**arrays)
