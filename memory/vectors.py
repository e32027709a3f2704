"""Vectors: the projections that keep what was said and seen as points, and the search for the nearest.

A vector is stored with its record's numbers in the table ``vectors``. The newest ones of a space are its active segment
and lie in the table itself; when there are enough of them they are sealed into a file (`segments`), written and synced
before the transaction that names it. So a crash leaves a file that nobody names, never a name without a file.

This module knows spaces, rows and files. It does not know how vectors were made, nor what they are asked for.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from ..clock import to_us
from ..errors import DamagedError
from ..perception.protocols import TextEncoder
from ..records import Problem, Record, Space, Vector
from .index import Index, Near
from .packs import Packs
from .projection import BrokenProjectionError
from .schema import projections, segments, vectors
from .segments import Rows, Sealed, Segment, TornSegmentError, seal
from .steps import decode_vector
from .words import Scope, document

__all__ = ["Near", "PictureVectors", "TextEncoder", "TextVectors", "VectorProjection"]

SEGMENT_ROWS = 4096
"""Vectors in a sealed segment. More than the records of one transaction, so that sealing keeps pace."""
_SKEW = 1_000
"""An index may be this many records ahead of a reader whose transaction began earlier; more means a rebuild."""


class _Item(NamedTuple):
    space: str
    item: int
    vector: Vector


class _Pending(NamedTuple):
    """A segment whose file is written and that no transaction names yet."""

    space: str
    owner: str
    sealed: Sealed
    ids: list[int]
    rows: Rows


class VectorProjection:
    """What text and picture vectors share. Subclasses say which vectors a record has (`_items`)."""

    name: str
    producer: str
    kind: str
    """First word of the names of its spaces, so that two projections never share one."""

    def __init__(self, root: Path, engine: Engine) -> None:
        self._root = root
        self._engine = engine
        self._segment_rows = SEGMENT_ROWS
        self._active: dict[tuple[str, str], int] = {}
        self._is_swept = False
        self._pending: _Pending | None = None
        self._generation = 0
        self._searching = threading.Lock()
        self._indexes: dict[tuple[str, str], tuple[int, Index]] = {}

    def key(self, space: Space) -> str:
        """Name of a space in tables and paths."""
        return f"{self.kind}-{space.encoder[:16]}-{space.dim}"

    def prepare(self, record: Record) -> list[_Item]:
        """Vectors of the record. A segment that is due is written here, outside the transaction."""
        self._seal_one()
        return self._items(record)

    def apply(self, tx: Connection, record: Record, prepared: Any) -> None:
        if not self._is_swept:
            self._sweep(tx)
        if self._pending is not None:
            self._adopt(tx, self._pending)
            self._pending = None
        for space, item, vector in prepared:
            value = np.asarray(vector, "<f4").tobytes()
            row = {
                "space": space,
                "seq": record.seq,
                "item": item,
                "owner": record.owner,
                "start_us": to_us(record.start),
                "end_us": to_us(record.end),
                "value": value,
                "checksum": hashlib.sha256(value).digest(),
                "weight": 1.0,
            }
            tx.execute(vectors.insert().values(row))
            key = (space, record.owner)
            self._active[key] = self._active.get(key, 0) + 1

    def reset(self, tx: Connection) -> None:
        """Drop everything. The files go when the transaction that drops their names is durable: see `_sweep`."""
        for table in (vectors, segments):
            tx.execute(table.delete().where(table.c.space.startswith(f"{self.kind}-", autoescape=True)))
        self._is_swept = False
        self._pending = None
        self._generation += 1

    def digest(self, connection: Connection) -> str:
        """Over space, seq, item and checksum of each vector, in that order: the same however they are segmented."""
        columns = (vectors.c.space, vectors.c.seq, vectors.c.item, vectors.c.checksum)
        query = sa.select(*columns).where(self._mine(vectors)).order_by(*columns[:3])
        hashed = hashlib.sha256()
        for space, seq, item, checksum in connection.execute(query).yield_per(1000):
            hashed.update(f"{space} {seq} {item} ".encode() + checksum)
        return hashed.hexdigest()

    def check(self, connection: Connection) -> list[Problem]:
        """Every active row has its checksum; every segment is whole and holds as many rows as the table says."""
        repair = f"perdure rebuild DIR {self.name}"
        problems = []
        active = sa.select(vectors.c.seq, vectors.c.value, vectors.c.checksum)
        active = active.where(self._mine(vectors), vectors.c.segment.is_(None))
        for seq, value, checksum in connection.execute(active).yield_per(500):
            if value is None or hashlib.sha256(value).digest() != checksum:
                problems.append(Problem(self.name, f"a vector of record {seq} does not have its checksum", repair))
        for row in connection.execute(sa.select(segments).where(self._mine(segments)).order_by(segments.c.id)).all():
            try:
                whole = self._open(row).everything()
            except TornSegmentError as error:
                problems.append(Problem(row.path, str(error), repair))
                continue
            named = sa.select(sa.func.count()).where(vectors.c.space == row.space, vectors.c.segment == row.id)
            if connection.execute(named).scalar() != len(whole.seq):
                problems.append(Problem(row.path, "holds other rows than the table names", repair))
        return problems

    def search(
        self,
        connection: Connection,
        space: Space,
        query: Vector,
        scope: Scope,
        depth: int,
        accept: Callable[[Sequence[int]], set[int]] | None = None,
    ) -> list[Near]:
        """The records with the nearest vectors, best first, ties by seq; each record once, with its best vector.

        Exact up to `index.EXACT_ROWS` vectors in scope; above that the nearest lists of each segment are read.

        Args:
            space: of the query; vectors of other spaces are not looked at.
            query: float32 [dim], unit length.
            scope: owner, time and newest record.
            depth: most entries.
            accept: given record numbers, returns those that may be found, for conditions that are not in ``scope``.

        Raises:
            BrokenProjectionError: a segment or a row is not what was stored.
        """
        with self._whole():
            index = self._index(connection, self.key(space), scope.owner, space.dim)
            return index.search(np.asarray(query, np.float32), scope, depth, accept)

    def of_records(self, connection: Connection, space: Space, owner: str, seqs: Sequence[int]) -> dict[int, Vector]:
        """The (first) vectors of records; records without one are left out.

        Raises:
            BrokenProjectionError: a segment is not what was stored.
        """
        with self._whole():
            return self._index(connection, self.key(space), owner, space.dim).of_records(seqs)

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """One search at a time; what it finds torn makes it fail."""
        with self._searching:
            try:
                yield
            except TornSegmentError as error:
                self._indexes.clear()
                raise BrokenProjectionError(self.name, str(error)) from error

    def _items(self, record: Record) -> list[_Item]:
        raise NotImplementedError

    def _mine(self, table: sa.Table) -> sa.ColumnElement[bool]:
        return sa.and_(table.c.space >= f"{self.kind}-", table.c.space < f"{self.kind}.")

    def _open(self, row: Any) -> Segment:
        return Segment(self._root, row.path, row.space, row.sha256, row.bytes)

    # ---------------------------------------------------------------- sealing

    def _seal_one(self) -> None:
        """Write the file of one segment that is due; the next `apply` names it."""
        if self._pending is not None:
            return
        if not self._active:
            self._active = self._count()
        for (space, owner), count in self._active.items():
            if count < self._segment_rows:
                continue
            with self._engine.connect() as connection:
                query = sa.select(vectors).where(
                    vectors.c.space == space, vectors.c.owner == owner, vectors.c.segment.is_(None)
                )
                rows = connection.execute(query.order_by(vectors.c.id).limit(self._segment_rows)).all()
                taken = sa.select(sa.func.count()).where(segments.c.space == space)
                number = int(connection.execute(taken).scalar() or 0) + 1
            if len(rows) < self._segment_rows:
                # An earlier transaction sealed some of them, or was rolled back.
                self._active[space, owner] = len(rows)
                continue
            with self._whole():
                content = _rows(rows)
            sealed = seal(self._root, f"vectors/{space}/{number:06d}.seg", space, content)
            self._pending = _Pending(space, owner, sealed, [row.id for row in rows], content)
            return

    def _count(self) -> dict[tuple[str, str], int]:
        query = sa.select(vectors.c.space, vectors.c.owner, sa.func.count()).where(
            self._mine(vectors), vectors.c.segment.is_(None)
        )
        with self._engine.connect() as connection:
            rows = connection.execute(query.group_by(vectors.c.space, vectors.c.owner))
            return {(space, owner): int(count) for space, owner, count in rows}

    def _adopt(self, tx: Connection, pending: _Pending) -> None:
        """Name a written segment in the database and let its rows go."""
        rows, sealed = pending.rows, pending.sealed
        number = int(tx.execute(sa.select(sa.func.max(segments.c.id))).scalar() or 0) + 1
        tx.execute(
            segments.insert().values(
                id=number,
                space=pending.space,
                owner=pending.owner,
                path=sealed.path,
                count=len(rows.seq),
                first_seq=int(rows.seq.min()),
                last_seq=int(rows.seq.max()),
                start_us=int(rows.start_us.min()),
                end_us=int(rows.end_us.max()),
                sha256=sealed.sha256,
                bytes=sealed.bytes,
            )
        )
        moved = vectors.update().where(vectors.c.id == sa.bindparam("vector"))
        moved = moved.values(segment=number, row=sa.bindparam("place"), value=None)
        tx.execute(moved, [{"vector": pending.ids[old], "place": new} for new, old in enumerate(sealed.order)])

    def _sweep(self, tx: Connection) -> None:
        """Delete files that no row names: from before a reset, or from a crash between writing and naming."""
        named = {row.path for row in tx.execute(sa.select(segments.c.path).where(self._mine(segments)))}
        if self._pending is not None:
            named.add(self._pending.sealed.path)
        for path in sorted(self._root.glob(f"vectors/{self.kind}-*/*")):
            if path.relative_to(self._root).as_posix() not in named:
                path.unlink()
        self._is_swept = True

    # -------------------------------------------------------------- searching

    def _index(self, connection: Connection, space: str, owner: str, dim: int) -> Index:
        """The index of a space, level with the committed projection."""
        generation, index = self._indexes.get((space, owner), (-1, None))
        if index is None or generation != self._generation:
            generation, index = self._generation, Index(dim)
        query = sa.select(projections.c.seq).where(projections.c.name == self.name)
        reflects = int(connection.execute(query).scalar() or 0)
        if reflects < index.reflects - _SKEW:
            index = Index(dim)
        if reflects > index.reflects:
            self._level(connection, index, space, owner)
            index.reflects = reflects
        self._indexes[space, owner] = (generation, index)
        return index

    def _level(self, connection: Connection, index: Index, space: str, owner: str) -> None:
        mine = (segments.c.space == space, segments.c.owner == owner)
        for row in connection.execute(sa.select(segments).where(*mine).order_by(segments.c.id)):
            if not index.has(row.id):
                index.add_segment(row.id, self._open(row))
        query = sa.select(vectors).where(
            vectors.c.space == space, vectors.c.segment.is_(None), vectors.c.id > index.last_id
        )
        rows = connection.execute(query.order_by(vectors.c.id)).all()
        rows = [row for row in rows if row.owner == owner]
        if rows:
            index.add_active(_rows(rows), rows[-1].id)


class TextVectors(VectorProjection):
    """The projection ``text_vectors``: one vector for each document with words."""

    name = "text_vectors"
    kind = "text"

    def __init__(self, root: Path, encoder: TextEncoder, engine: Engine) -> None:
        super().__init__(root, engine)
        self._encoder = encoder
        self.producer = f"text-vectors/1 {encoder.space.encoder}"

    def _items(self, record: Record) -> list[_Item]:
        text = document(record)
        if not text:
            return []
        return [_Item(self.key(self._encoder.space), 0, self._encoder.encode_texts([text])[0])]


class PictureVectors(VectorProjection):
    """The projection ``picture_vectors``: the vectors that key frames were journaled with, in the space of their event.

    Its producer names no encoder, because it encodes nothing: each event says which space its vectors are in.
    """

    name = "picture_vectors"
    kind = "picture"
    producer = "picture-vectors/1"

    def __init__(self, root: Path, packs: Packs, engine: Engine) -> None:
        super().__init__(root, engine)
        self._packs = packs

    def _items(self, record: Record) -> list[_Item]:
        told = record.payload.get("space") if record.kind == "event" else None
        if told is None:
            return []
        key = self.key(Space(told["encoder"], told["dim"], told["metric"], told["name"]))
        items = []
        for item, frame in enumerate(record.payload["key_frames"]):
            if frame["vector"] is None:
                continue
            vector = decode_vector(self._packs.read(record.blobs[frame["vector"]]))
            if len(vector) != told["dim"]:
                raise DamagedError(
                    f"record {record.seq}: expected a vector of {told['dim']} numbers, got {len(vector)}; "
                    "restore the pack from a copy of the directory"
                )
            items.append(_Item(key, item, vector))
        return items


def _rows(rows: Sequence[Any]) -> Rows:
    """Active rows of the table, checked."""
    for row in rows:
        if row.value is None or hashlib.sha256(row.value).digest() != row.checksum:
            raise TornSegmentError(f"the vector of record {row.seq} does not have its checksum")
    return Rows(
        np.stack([decode_vector(row.value) for row in rows]),
        np.array([row.seq for row in rows], np.int64),
        np.array([row.item for row in rows], np.int32),
        np.array([row.start_us for row in rows], np.int64),
        np.array([row.end_us for row in rows], np.int64),
    )
