"""Sealed vector segments: immutable, checksummed, memory-mapped files, each with its own inverted index.

A segment knows rows of float32, when they happened and which records they belong to. It knows no database. Its rows are
sorted into lists of neighbours (k-means by FAISS, an inverted file with exact float32 rows as in Jegou et al. 2011,
section IV), so a search reads the few lists whose centroids are nearest to the query. All segments of a space together
are one inverted file that grows by whole segments: nothing is ever trained again, and erasure rewrites one file.

File, little endian; n rows of D numbers in L lists:

    bytes            what; each part begins at a multiple of 64
    8                ``PDRVSEG1``
    12               n, D, L as uint32
    64               the name of the space, padded with zeros
    8 (L + 1)        where each list begins, int64
    32 L             sha256 of each list's rows
    4 L D            centroids, float32
    8 n each         seq, start, end (microseconds), int64
    4 n              item, int32
    4 n D            rows, float32, unit length

The database names a segment by the sha256 of everything before the rows (`Sealed.sha256`), which holds the sha256 of
each list: so a torn, exchanged or foreign file is noticed when it is opened, and a damaged list before it is used.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .packs import sync_folder

_MAGIC = b"PDRVSEG1"
_HEAD = struct.Struct("<8sIII64s")
_ROWS_A_LIST = 64
_ALIGNMENT = 64

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


class TornSegmentError(Exception):
    """A segment file is missing, or is not what was sealed. `vectors` turns it into a rebuild."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Vectors with what a search filters by; all arrays have length n."""

    vectors: Floats
    """float32 [n, D], unit rows."""
    seq: Ints
    item: NDArray[np.int32]
    start_us: Ints
    end_us: Ints

    def take(self, order: Ints) -> Rows:
        return Rows(self.vectors[order], self.seq[order], self.item[order], self.start_us[order], self.end_us[order])


@dataclass(frozen=True, slots=True)
class Sealed:
    """What the database keeps of a segment."""

    path: str
    """Relative to the agent's directory."""
    sha256: str
    bytes: int
    order: Ints
    """Which input row became row 0, 1, 2 ... of the file."""


class Segment:
    """One open segment."""

    def __init__(self, root: Path, path: str, space: str, sha256: str, size: int) -> None:
        """Map the file and check its head; `rows` checks each list when it is first used.

        Raises:
            TornSegmentError: it is missing, has another size, or is not the one that was sealed.
        """
        self.path = path
        try:
            data = np.asarray(np.memmap(root / path, np.uint8, mode="r"))
        except (OSError, ValueError) as error:
            raise TornSegmentError(f"{path} cannot be opened: {error}") from error
        if len(data) != size or size < _HEAD.size:
            raise TornSegmentError(f"{path} has {len(data)} bytes, {size} were sealed")
        magic, self.count, dim, lists, name = _HEAD.unpack(data[: _HEAD.size].tobytes())
        layout = _Layout(self.count, dim, lists)
        if magic != _MAGIC or name.rstrip(b"\0").decode("utf-8", "replace") != space or layout.size != size:
            raise TornSegmentError(f"{path} is not a segment of space {space}")
        if _sha256(data[: layout.rows]).hex() != sha256:
            raise TornSegmentError(f"the head of {path} does not have its checksum")
        self.begins = layout.array(data, "begins", np.int64)
        self._sums = layout.array(data, "sums", np.uint8).reshape(lists, 32)
        self.centroids = layout.array(data, "centroids", np.float32).reshape(lists, dim)
        self.seq = layout.array(data, "seq", np.int64)
        self.start_us = layout.array(data, "start_us", np.int64)
        self.end_us = layout.array(data, "end_us", np.int64)
        self.item = layout.array(data, "item", np.int32)
        self.first_us, self.last_us = int(self.start_us.min()), int(self.end_us.max())
        self.first_seq, self.last_seq = int(self.seq.min()), int(self.seq.max())
        self._vectors = data[layout.rows :].view(np.float32).reshape(self.count, dim)
        self._checked = np.zeros(lists, bool)
        self._by_seq: Ints | None = None

    @property
    def lists(self) -> int:
        return len(self._sums)

    def rows(self, at: int) -> Rows:
        """The rows of list ``at``.

        Raises:
            TornSegmentError: they do not have their checksum.
        """
        span = slice(int(self.begins[at]), int(self.begins[at + 1]))
        vectors = self._vectors[span]
        if not self._checked[at]:
            if _sha256(vectors) != self._sums[at].tobytes():
                raise TornSegmentError(f"list {at} of {self.path} does not have its checksum")
            self._checked[at] = True
        return Rows(vectors, self.seq[span], self.item[span], self.start_us[span], self.end_us[span])

    def everything(self) -> Rows:
        """All rows, checked like `rows`."""
        if not self._checked.all():
            for at in range(self.lists):
                self.rows(at)
        return Rows(self._vectors, self.seq, self.item, self.start_us, self.end_us)

    def of_records(self, seqs: Sequence[int]) -> dict[int, Floats]:
        """The vectors with item 0 of those of ``seqs`` that are here, checked like `rows`."""
        if self._by_seq is None:
            first = np.flatnonzero(self.item == 0)
            self._by_seq = first[np.argsort(self.seq[first])]
        found = {}
        for place in np.searchsorted(self.seq[self._by_seq], seqs):
            if place < len(self._by_seq):
                row = int(self._by_seq[place])
                at = int(np.searchsorted(self.begins, row, side="right")) - 1
                found[int(self.seq[row])] = self.rows(at).vectors[row - int(self.begins[at])]
        return {seq: found[seq] for seq in seqs if seq in found}


def seal(root: Path, path: str, space: str, rows: Rows) -> Sealed:
    """Write a segment: temporary file, sync, rename, sync of the folder. A file of that name is replaced.

    Args:
        root: the agent's directory.
        path: of the new file, relative to ``root``.
        space: name of the space, at most 64 bytes.
        rows: at least one.

    Raises:
        OSError: the disk refused.
    """
    count, dim = rows.vectors.shape
    centroids, lists = _cluster(rows.vectors)
    order = np.argsort(lists, kind="stable")
    taken = rows.take(order)
    begins = np.searchsorted(lists[order], np.arange(len(centroids) + 1)).astype(np.int64)
    layout = _Layout(count, dim, len(centroids))
    head = bytearray(layout.rows)
    _HEAD.pack_into(head, 0, _MAGIC, count, dim, len(centroids), space.encode())
    sums = b"".join(_sha256(taken.vectors[a:b]) for a, b in pairwise(begins))
    parts = {
        "begins": begins.tobytes(),
        "sums": sums,
        "centroids": centroids.tobytes(),
        "seq": taken.seq.tobytes(),
        "start_us": taken.start_us.tobytes(),
        "end_us": taken.end_us.tobytes(),
        "item": taken.item.tobytes(),
    }
    for name, data in parts.items():
        head[layout.at[name] : layout.at[name] + len(data)] = data
    target = root / path
    if not target.parent.is_dir():
        target.parent.mkdir(parents=True)
        sync_folder(target.parent.parent)
    temporary = target.with_suffix(".tmp")
    with temporary.open("wb") as file:
        file.write(head)
        file.write(np.ascontiguousarray(taken.vectors).data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(target)
    sync_folder(target.parent)
    return Sealed(path, hashlib.sha256(head).hexdigest(), layout.size, order)


class _Layout:
    """Where everything lies in a file."""

    def __init__(self, count: int, dim: int, lists: int) -> None:
        sizes = {
            "begins": 8 * (lists + 1),
            "sums": 32 * lists,
            "centroids": 4 * lists * dim,
            "seq": 8 * count,
            "start_us": 8 * count,
            "end_us": 8 * count,
            "item": 4 * count,
        }
        self._sizes = sizes
        self.at: dict[str, int] = {}
        here = _aligned(_HEAD.size)
        for name, size in sizes.items():
            self.at[name] = here
            here = _aligned(here + size)
        self.rows = here
        self.size = here + 4 * count * dim

    def array(self, data: NDArray[np.uint8], name: str, kind: type[Any]) -> NDArray[Any]:
        return data[self.at[name] : self.at[name] + self._sizes[name]].view(kind)


def _sha256(array: NDArray[Any]) -> bytes:
    return hashlib.sha256(array.data).digest()


def _aligned(place: int) -> int:
    return -(-place // _ALIGNMENT) * _ALIGNMENT


def _cluster(vectors: Floats) -> tuple[Floats, Ints]:
    """Unit centroids [L, D] and the list of each row, L = n / 64, at least 1."""

    count, dim = vectors.shape
    lists = count // _ROWS_A_LIST
    if lists < 2:
        mean = vectors.mean(axis=0, keepdims=True)
        return np.ascontiguousarray(mean / max(float(np.linalg.norm(mean)), 1e-12)), np.zeros(count, np.int64)
    import faiss  # loading it takes 0.2 s, and only sealing needs it

    means = faiss.Kmeans(dim, lists, niter=10, seed=1, spherical=True, min_points_per_centroid=1)
    means.train(vectors)
    centroids = np.ascontiguousarray(means.centroids, np.float32)
    return centroids, np.argmax(vectors @ centroids.T, axis=1).astype(np.int64)
