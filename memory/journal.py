"""The journal: the one truth. Append-only, contiguous, checksummed; what it acknowledged is durable.

It knows records and blobs, not what they mean. Everything else in memory is derived from it and may be dropped.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine, Row

from ..clock import from_us, to_us
from ..errors import BadInput, DamagedError
from ..records import Blob, Problem, Record, Trust
from .database import translated
from .schema import blobs, records

_PAGE = 500
_REPAIR = "restore perdure.db from a copy of the directory"


@dataclass(frozen=True, slots=True)
class Draft:
    """A record before it has a number: what a step collects."""

    kind: str
    payload: Mapping[str, Any]
    start: datetime
    end: datetime
    source: str
    trust: Trust
    items: tuple[tuple[str, bytes], ...] = ()
    """``(role, bytes)`` that go into a pack."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """What all records of one transaction share."""

    recorded: datetime
    recorded_error_us: int
    monotonic_us: int
    boot: str
    owner: str
    zone: str


def canonical(payload: Mapping[str, Any]) -> str:
    """JSON with sorted keys and no spaces: equal payloads are equal bytes.

    Raises:
        BadInput: a value has no JSON form, or is NaN or infinite.
    """
    try:
        text = json.dumps(payload, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        text.encode()  # half a surrogate pair (undecodable bytes of a command line) has no UTF-8 form
        return text
    except (TypeError, ValueError) as error:
        raise BadInput(
            f"expected a payload of JSON values (str, int, float, bool, None, list, dict): {error}"
        ) from error


def append(tx: Connection, draft: Draft, stamp: Stamp, items: Sequence[Blob]) -> Record:
    """Add one record inside the transaction ``tx``; durable when it commits. The blobs are already in their packs."""
    row: dict[str, Any] = {
        "kind": draft.kind,
        "payload": canonical(draft.payload),
        "start_us": to_us(draft.start),
        "end_us": to_us(draft.end),
        "wall_us": to_us(stamp.recorded),
        "wall_error_us": stamp.recorded_error_us,
        "monotonic_us": stamp.monotonic_us,
        "boot": stamp.boot,
        "source": draft.source,
        "trust": draft.trust.value,
        "owner": stamp.owner,
        "zone": stamp.zone,
    }
    if row["end_us"] < row["start_us"]:
        raise BadInput(f"expected a {draft.kind} that ends after it starts, got {draft.start} to {draft.end}")
    row["seq"] = (tx.execute(sa.select(sa.func.max(records.c.seq))).scalar() or 0) + 1
    row["checksum"] = _checksum(row, items)
    tx.execute(records.insert().values(row))
    for position, blob in enumerate(items):
        tx.execute(
            blobs.insert().values(
                seq=row["seq"],
                position=position,
                sha256=blob.sha256,
                role=blob.role,
                pack=blob.pack,
                offset=blob.offset,
                length=blob.length,
            )
        )
    return _record(row, tuple(items))


class Journal:
    """Reading the journal. Any thread, any process."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def last_seq(self) -> int:
        """Number of the newest record, 0 if there is none."""
        with translated("reading the journal"), self._engine.connect() as connection:
            return int(connection.execute(sa.select(sa.func.max(records.c.seq))).scalar() or 0)

    def read(
        self,
        *,
        after: int = 0,
        until: int | None = None,
        kinds: Iterable[str] | None = None,
        newest_first: bool = False,
        limit: int | None = None,
    ) -> Iterator[Record]:
        """Records with ``after < seq <= until``, in order of seq; read a page at a time, so any length is cheap.

        Raises:
            DamagedError: a record does not have its checksum.
        """
        selected = sorted(kinds) if kinds is not None else None
        position, left = (until if newest_first else after), limit
        while left is None or left > 0:
            query = sa.select(records)
            if newest_first:
                query = query.where(records.c.seq > after).order_by(records.c.seq.desc())
                query = query if position is None else query.where(records.c.seq <= position)
            else:
                query = query.where(records.c.seq > position).order_by(records.c.seq)
                query = query if until is None else query.where(records.c.seq <= until)
            if selected is not None:
                query = query.where(records.c.kind.in_(selected))
            page = self._fetch(query.limit(_PAGE if left is None else min(_PAGE, left)))
            yield from page
            if len(page) < _PAGE:
                return
            left = None if left is None else left - len(page)
            position = page[-1].seq - 1 if newest_first else page[-1].seq

    def get(self, seqs: Iterable[int]) -> dict[int, Record]:
        """The records with these numbers; numbers that do not exist are left out."""
        wanted = sorted(set(seqs))
        found: dict[int, Record] = {}
        for at in range(0, len(wanted), _PAGE):
            chunk = wanted[at : at + _PAGE]
            found |= {r.seq: r for r in self._fetch(sa.select(records).where(records.c.seq.in_(chunk)))}
        return found

    def newest(self, kind: str) -> Record | None:
        """The newest record of a kind."""
        return next(self.read(kinds=[kind], newest_first=True, limit=1), None)

    def check(self) -> list[Problem]:
        """Every record has its checksum and no number is missing, at the end either."""
        problems: list[Problem] = []
        try:
            with self._engine.connect() as connection:
                for result in connection.exec_driver_sql("PRAGMA integrity_check(10)").scalars():
                    if result != "ok":
                        problems.append(Problem("perdure.db", f"SQLite reports: {result}", _REPAIR))
                given = connection.exec_driver_sql("SELECT seq FROM sqlite_sequence WHERE name='records'").scalar()
                last = connection.execute(sa.select(sa.func.max(records.c.seq))).scalar()
                expected = 0
                for low in range(0, max(given or 0, last or 0), _PAGE):
                    expected = _check_page(connection, low, expected, problems)
                if expected < (given or 0):
                    problems.append(Problem("journal", f"records {expected + 1} to {given} are missing", _REPAIR))
        except sa.exc.DatabaseError as error:
            problems.append(Problem("perdure.db", f"SQLite cannot read it: {error.orig}", _REPAIR))
        return problems

    def blobs(self) -> Iterator[tuple[int, Blob]]:
        """Every ``(seq, blob)``, in order."""
        with translated("reading the journal"), self._engine.connect() as connection:
            for row in connection.execute(sa.select(blobs).order_by(blobs.c.seq, blobs.c.position)).yield_per(_PAGE):
                yield row.seq, _blob(row)

    def _fetch(self, query: sa.Select[Any]) -> list[Record]:
        with translated("reading the journal"), self._engine.connect() as connection:
            rows = connection.execute(query).all()
            items = _blobs_of(connection, [row.seq for row in rows])
        page = []
        for row in rows:
            own = items.get(row.seq, ())
            if _checksum(row._mapping, own) != row.checksum:
                raise DamagedError(
                    f"journal record {row.seq} does not have its checksum; restore perdure.db from a copy, "
                    "`perdure verify` lists what is damaged"
                )
            page.append(_record(row._mapping, own))
        return page


def _check_page(connection: Connection, low: int, expected: int, problems: list[Problem]) -> int:
    """Check the records ``low < seq <= low + _PAGE``, of which ``expected`` is the one before; returns the last one."""
    query = sa.select(records).where(records.c.seq > low, records.c.seq <= low + _PAGE).order_by(records.c.seq)
    try:
        rows = connection.execute(query).all()
        items = _blobs_of(connection, [row.seq for row in rows])
    except sa.exc.DatabaseError as error:
        problems.append(Problem("journal", f"records {low + 1} to {low + _PAGE} cannot be read: {error.orig}", _REPAIR))
        return low + _PAGE
    for row in rows:
        if row.seq != expected + 1:
            problems.append(Problem("journal", f"records {expected + 1} to {row.seq - 1} are missing", _REPAIR))
        expected = row.seq
        if _checksum(row._mapping, items.get(row.seq, ())) != row.checksum:
            problems.append(Problem("journal", f"record {row.seq} does not have its checksum", _REPAIR))
    return expected


def _blobs_of(connection: Connection, seqs: Sequence[int]) -> dict[int, tuple[Blob, ...]]:
    if not seqs:
        return {}
    query = sa.select(blobs).where(blobs.c.seq.in_(seqs)).order_by(blobs.c.seq, blobs.c.position)
    found: dict[int, list[Blob]] = {}
    for row in connection.execute(query):
        found.setdefault(row.seq, []).append(_blob(row))
    return {seq: tuple(items) for seq, items in found.items()}


def _blob(row: Row[Any]) -> Blob:
    return Blob(row.sha256, row.role, row.pack, row.offset, row.length)


def _checksum(row: Mapping[Any, Any], items: Sequence[Blob]) -> bytes:
    names = sorted(str(name) for name in row if name != "checksum")
    content = [[name, row[name]] for name in names]
    content.append(["blobs", [[b.sha256, b.role, b.pack, b.offset, b.length] for b in items]])
    # A damaged row may hold bytes where text was; `default` gives them some form, and a wrong checksum.
    return hashlib.sha256(json.dumps(content, separators=(",", ":"), default=repr).encode()).digest()


def _record(row: Mapping[Any, Any], items: tuple[Blob, ...]) -> Record:
    return Record(
        seq=row["seq"],
        kind=row["kind"],
        payload=json.loads(row["payload"]),
        start=from_us(row["start_us"]),
        end=from_us(row["end_us"]),
        recorded=from_us(row["wall_us"]),
        recorded_error_us=row["wall_error_us"],
        monotonic_us=row["monotonic_us"],
        boot=row["boot"],
        source=row["source"],
        trust=Trust(row["trust"]),
        owner=row["owner"],
        zone=row["zone"],
        blobs=items,
    )
