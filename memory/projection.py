"""What a projection is, and how projections catch up with the journal.

A projection is derived state: a pure function of the journal and of its producer (code version, weights hash). It knows
the newest record that it reflects. It advances inside one transaction with that number, so a crash leaves it whole and
merely behind; one made by another producer is dropped and rebuilt. `CatchUp.ready` is the gate in front of every
reader: a projection that is behind or foreign never answers.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from ..errors import StaleProjectionError
from ..records import Problem, Record
from .database import translated
from .journal import Journal
from .schema import projections

logger = logging.getLogger("perdure")

_SLICE = 32
"""Records a transaction: a step that wants to write never waits for more than one slice."""
_READER_WAIT_S = 2.0

_T = TypeVar("_T")
Write = Callable[[Callable[[Connection], _T]], _T]
"""Runs a function in one transaction on the writer's thread."""


class BrokenProjectionError(StaleProjectionError):
    """A projection found its own storage torn, missing or foreign while answering; it must be rebuilt first."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(f"projection {name!r} is damaged: {message}; run `perdure rebuild DIR {name}`")
        self.name = name


class Projection(Protocol):
    """Derived state that follows the journal.

    `prepare` does the slow part (encoding) outside the transaction; `apply` writes. Both must depend on nothing but
    their arguments, earlier applied records and the producer.
    """

    name: str
    producer: str

    def prepare(self, record: Record) -> Any:
        """Whatever `apply` needs that takes long; None if the record does not concern this projection."""

    def apply(self, tx: Connection, record: Record, prepared: Any) -> None:
        """Take one record in."""

    def reset(self, tx: Connection) -> None:
        """Drop everything."""

    def digest(self, connection: Connection) -> str:
        """sha256 of the whole content, the same for the same journal and producer whatever the history of the files."""

    def check(self, connection: Connection) -> list[Problem]:
        """Integrity that can be seen without the journal (checksums of files and rows)."""


class CatchUp:
    """Keeps a set of projections level with the journal."""

    def __init__(
        self, engine: Engine, journal: Journal, members: Sequence[Projection], write: Write[None] | None
    ) -> None:
        self._engine = engine
        self._journal = journal
        self._members = {member.name: member for member in members}
        self._write = write
        self._turn = threading.RLock()
        self._distrusted: set[str] = set()

    @property
    def members(self) -> Mapping[str, Projection]:
        return self._members

    @translated("reading what a projection reflects")
    def reflects(self, name: str) -> int:
        """The newest record that a projection reflects; -1 if it is missing or another producer made it."""
        with self._engine.connect() as connection:
            row = connection.execute(sa.select(projections).where(projections.c.name == name)).one_or_none()
        if row is None or row.producer != self._members[name].producer or name in self._distrusted:
            return -1
        return int(row.seq)

    def distrust(self, name: str) -> None:
        """Have a projection that turned out to be damaged rebuilt before it answers again."""
        self._distrusted.add(name)

    def advance(self, budget_s: float | None = None) -> bool:
        """Catch up until level, or until ``budget_s`` seconds have passed. Returns whether all are level."""
        deadline = None if budget_s is None else time.monotonic() + budget_s
        with self._turn:
            last = self._journal.last_seq()
            level = [self._advance(member, last, deadline) for member in self._members.values()]
            return all(level)

    def advance_to(self, name: str, seq: int) -> None:
        """Have one projection take in the records up to ``seq``, for a comparison with another one."""
        with self._turn:
            self._advance(self._members[name], seq, None)

    def ready(self, name: str) -> None:
        """Return once ``name`` reflects the whole journal.

        Raises:
            StaleProjectionError: it is behind, this process may only read, and the one that writes did not catch up.
        """
        if self._write is not None:
            with self._turn:
                self._advance(self._members[name], self._journal.last_seq(), None)
            return
        last = self._journal.last_seq()
        give_up = time.monotonic() + _READER_WAIT_S
        while (reached := self.reflects(name)) < last:
            if time.monotonic() > give_up:
                raise StaleProjectionError(
                    f"expected projection {name!r} to reflect record {last}, it reflects {max(reached, 0)}; "
                    "let the agent catch up, or run `perdure rebuild` when it is closed"
                )
            time.sleep(0.02)

    def rebuild(self, name: str) -> int:
        """Drop one projection and derive it again; returns the record it then reflects."""
        member = self._members[name]
        with self._turn:
            self._reset(member)
            last = self._journal.last_seq()
            self._advance(member, last, None)
        return last

    @translated("catching up with the journal")
    def _advance(self, member: Projection, last: int, deadline: float | None) -> bool:
        reached = self.reflects(member.name)
        if reached < 0 or reached > last:
            self._reset(member)
            reached = 0
        while reached < last:
            if deadline is not None and time.monotonic() > deadline:
                return False
            batch = list(self._journal.read(after=reached, until=last, limit=_SLICE))
            try:
                reached = self._apply(member, batch)
            except BrokenProjectionError as error:
                logger.warning("%s; rebuilding it now", error)
                self._reset(member)
                reached = 0
        return True

    def _apply(self, member: Projection, batch: Sequence[Record]) -> int:
        prepared = [member.prepare(record) for record in batch]

        def work(tx: Connection) -> None:
            for record, extra in zip(batch, prepared, strict=True):
                member.apply(tx, record, extra)
            tx.execute(projections.update().where(projections.c.name == member.name).values(seq=batch[-1].seq))

        assert self._write is not None
        self._write(work)
        return batch[-1].seq

    def _reset(self, member: Projection) -> None:
        def work(tx: Connection) -> None:
            member.reset(tx)
            tx.execute(projections.delete().where(projections.c.name == member.name))
            tx.execute(projections.insert().values(name=member.name, producer=member.producer, seq=0))

        assert self._write is not None
        self._write(work)
        self._distrusted.discard(member.name)
