"""Fading: old pictures are given up to keep to a budget of bytes; what they showed stays, in words and numbers.

The journal says first which pictures go (a ``faded`` record), then their bytes are freed as holes in the packs, so
every other offset stays what it was. A crash in between leaves bytes that the next `fade` frees. Text, labels, counts,
vectors and lineage of an event never fade; neither do the pictures that the caller wants kept.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import errno
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import BadInput, StorageError
from ..records import Blob, Record
from .journal import Journal

KIND = "faded"
_PUNCH_HOLE_KEEP_SIZE = 0x02 | 0x01
_BLOCK = 4096
_libc = ctypes.CDLL(ctypes.util.find_library("c"), use_errno=True)


@dataclass(frozen=True, slots=True)
class Faded:
    """What one fading gave up."""

    pictures: int
    bytes: int


Spot = tuple[str, int]
"""Pack and offset of a picture."""


class Fading:
    """Which pictures of one agent have faded. Reads the journal once, then only what is new."""

    def __init__(self, root: Path, journal: Journal) -> None:
        self._root = root
        self._journal = journal
        self._reached = 0
        self._spots: set[Spot] = set()

    def __contains__(self, blob: Blob) -> bool:
        return (blob.pack, blob.offset) in self.spots()

    def spots(self) -> set[Spot]:
        """Every picture that has faded."""
        last = self._journal.last_seq()
        for record in self._journal.read(after=self._reached, until=last, kinds=[KIND]):
            self._spots |= {(pack, offset) for pack, offset, _ in record.payload["pictures"]}
        self._reached = last
        return self._spots

    def choose(self, budget_bytes: int, keep: Callable[[Record], bool]) -> list[Blob]:
        """The oldest pictures that have to go so that all packs together fit the budget.

        Args:
            budget_bytes: of the packs on the disk, from 0.
            keep: events whose pictures stay.

        Raises:
            BadInput: the budget is negative.
        """
        if budget_bytes < 0:
            raise BadInput(f"expected a budget of at least 0 bytes, got {budget_bytes}")
        excess = stored_bytes(self._root) - budget_bytes
        chosen: list[Blob] = []
        gone = self.spots()
        for record in self._journal.read(kinds=["event"]) if excess > 0 else ():
            if excess <= 0:
                break
            if keep(record):
                continue
            for blob in record.blobs:
                if blob.role == "frame" and (blob.pack, blob.offset) not in gone:
                    chosen.append(blob)
                    excess -= blob.length
        return chosen

    def free(self) -> None:
        """Give the bytes of all faded pictures back to the disk; harmless to repeat.

        Raises:
            StorageError: the disk refused.
        """
        records = self._journal.read(kinds=[KIND])
        pictures = [(p, o, n) for record in records for p, o, n in record.payload["pictures"]]
        for pack in sorted({pack for pack, _, _ in pictures}):
            spans = _merged((offset, offset + length) for name, offset, length in pictures if name == pack)
            _punch(self._root / pack, spans)


def stored_bytes(root: Path) -> int:
    """Bytes that the packs of the agent in ``root`` take on the disk."""
    return sum(path.stat().st_blocks * 512 for path in (root / "frames").rglob("*.pack"))


def payload(blobs: Sequence[Blob]) -> dict[str, list[list[object]]]:
    """What the ``faded`` record says."""
    return {"pictures": [[blob.pack, blob.offset, blob.length] for blob in blobs]}


def _merged(spans: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Spans in order, joined where no more than the header of an entry lies between them."""
    start = end = -_BLOCK
    for begin, stop in sorted(spans):
        if begin - end > 64:
            if end > start:
                yield start, end
            start = begin
        end = max(end, stop)
    if end > start:
        yield start, end


def _punch(path: Path, spans: Iterable[tuple[int, int]]) -> None:
    descriptor = os.open(path, os.O_RDWR)
    try:
        for start, end in spans:
            offset, length = ctypes.c_int64(start), ctypes.c_int64(end - start)
            if _libc.fallocate(descriptor, _PUNCH_HOLE_KEEP_SIZE, offset, length) != 0:
                code = ctypes.get_errno()
                if code not in (errno.EOPNOTSUPP, errno.ENOSYS):
                    raise StorageError(f"could not free faded pictures in {path}: {os.strerror(code)}")
                os.pwrite(descriptor, bytes(end - start), start)  # no holes on this disk: at least nothing is shown
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
