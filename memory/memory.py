"""The room's front door: open an agent's memory, write steps, recall, and check what is stored.

It puts the parts together (directory, writer, journal, packs, projections) and holds none of their logic. It does not
know what the agent wants, nor how frames and words became vectors.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import networkx as nx
import numpy as np
import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from .. import __version__
from ..clock import Clock, SystemClock, from_us, to_us
from ..errors import BadInput, DamagedError, FadedError, PerdureError, StorageError
from ..records import Blob, Fact, Image, Interval, Outage, Problem, Recall, Record
from . import checking, database, directory, fading
from .checking import Comparison
from .directory import Settings
from .facts import Facts
from .graph import memory_graph
from .journal import Draft, Journal, Stamp, append
from .packs import Packs
from .projection import BrokenProjectionError, CatchUp, Projection
from .recall import Searcher
from .schema import alive
from .steps import Step
from .vectors import TextEncoder
from .writer import Writer

logger = logging.getLogger("perdure")

CLOCK_ERROR_US = 1_000_000
"""Uncertainty of a wall clock. One that is further behind the newest record has been set back; less is jitter."""
_CLOSING_S = 2.0
"""How long closing may take to catch up, so that who only reads finds every projection level."""


@dataclass(frozen=True, slots=True)
class Encoders:
    """What memory searches by meaning with. Without them it searches by words, time and entity alone."""

    text: TextEncoder | None = None
    """Embeds documents and queries (MiniLM)."""
    picture_text: TextEncoder | None = None
    """Embeds queries into the space of the key frames (the text half of the image encoder)."""


class Memory:
    """An agent's memory in one directory. Use `Memory.open`, as a context manager or with `close`.

    Every method may be called from any thread; writing happens on one.
    """

    def __init__(
        self, root: Path, settings: Settings, encoders: Encoders, clock: Clock, *, read_only: bool, upkeep: bool = False
    ) -> None:
        self.root = root
        self.settings = settings
        self.read_only = read_only
        self._lives = not read_only and not upkeep
        self.boot = uuid.uuid4().hex
        self.clock = clock
        self._encoders = encoders
        self._lock = None if read_only else directory.lock(root)
        self._open = True
        try:
            path = root / "perdure.db"
            is_finished = directory.is_finished(root)
            self._engine = database.open_engine(path, read_only=read_only)
            with database.translated(f"opening {path}"):
                if read_only:
                    database.check_revision(self._engine, path)
                else:
                    database.migrate(self._engine, path)
            self.journal = Journal(self._engine)
            self._witness = directory.Witness(root)
            if not read_only:
                self._witness.require(self.journal.last_seq())
            if not is_finished:
                directory.finish(root, settings, self.journal.last_seq())
            self._writer = None if read_only else Writer(self._engine)
            self._packs = Packs(root)
            self._fading = fading.Fading(root, self.journal)
            self._facts = Facts()
            self._searcher = Searcher(self._engine, self.journal, encoders)
            self._projections = CatchUp(
                self._engine,
                self.journal,
                [*self._searcher.projections(root, self._packs), self._facts],
                self._writer.do if self._writer else None,
            )
            self._newest = (self._last_sign_us(), clock.monotonic_us())
            if self._lives:
                self._wake()
        except BaseException:
            self._release()
            raise

    @classmethod
    def open(
        cls,
        root: Path | str,
        *,
        settings: Settings | None = None,
        encoders: Encoders | None = None,
        clock: Clock | None = None,
        read_only: bool = False,
        upkeep: bool = False,
    ) -> Memory:
        """Open the memory in the directory ``root``; made if it is not there (unless ``read_only``).

        Args:
            root: the agent's directory.
            settings: zone and owner for a new directory; an existing one keeps its own.
            encoders: what to search by meaning with.
            clock: where the time comes from; the system's by default.
            read_only: open beside a living agent; nothing can be written.
            upkeep: open to catch up or rebuild projections, without waking the agent: no boot and no stop is journaled.

        Raises:
            BadInput: ``root`` is not, and cannot become, an agent's directory.
            AgentAwakeError: another process has it open for writing.
            VersionError: a newer Perdure wrote it.
            StorageError: the disk refused.
        """
        path = Path(root)
        found = directory.read_settings(path) if read_only else directory.prepare(path, settings)
        return cls(path, found, encoders or Encoders(), clock or SystemClock(), read_only=read_only, upkeep=upkeep)

    # ---------------------------------------------------------------- writing

    @contextmanager
    def step(self) -> Iterator[Step]:
        """Collect what happened in one step; on leaving the block it is one durable transaction.

        ``step.records`` then holds the records with their numbers. If the block raises, nothing is stored.

        Raises:
            StorageError: the disk refused; nothing of this step is stored.
        """
        step = Step(self.now())
        yield step
        if step.drafts:
            step.records = self._append(step.drafts)

    def heartbeat(self) -> None:
        """Leave a sign of life, so that an outage is dated to the last one."""
        now_us = to_us(self.now())

        def work(tx: Connection) -> None:
            tx.execute(alive.delete())
            tx.execute(alive.insert().values(id=1, boot=self.boot, wall_us=now_us))

        self._write(work)

    def catch_up(self, budget_s: float | None = None) -> bool:
        """Let the projections catch up with the journal for at most ``budget_s`` seconds; True when all are level."""
        return self._projections.advance(budget_s)

    def fade(self, budget_bytes: int, keep: Callable[[Record], bool] = lambda record: False) -> fading.Faded:
        """Give up the oldest pictures until the packs fit a budget; everything else that is known of them stays.

        Args:
            budget_bytes: what the packs may take on the disk.
            keep: events whose pictures must stay.

        Raises:
            BadInput: the budget is negative.
            StorageError: the disk refused; what was journaled as faded is freed the next time.
        """
        if fading.stored_bytes(self.root) > budget_bytes:
            self._fading.free()  # what a crash left between journal and disk
        chosen = self._fading.choose(budget_bytes, keep)
        if chosen:
            with self.step() as step:
                step.note(fading.KIND, fading.payload(chosen))
            self._fading.free()
        return fading.Faded(len(chosen), sum(blob.length for blob in chosen))

    @property
    def is_open(self) -> bool:
        """False once it has been closed."""
        return self._open

    def close(self) -> None:
        """Note that this was on purpose, catch up, and let go of the directory. Harmless to repeat."""
        if not self._open:
            return
        try:
            if self._lives:
                with self.step() as step:
                    step.note("stop", {})
                self._catch_up_for_readers()
        finally:
            self._release()

    def __enter__(self) -> Memory:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---------------------------------------------------------------- reading

    def now(self) -> datetime:
        """The agent's own time: the wall clock, but never before the newest record.

        While the wall clock is far behind the newest record (it was set back), time goes on from there.
        """
        return self._time()[0]

    @database.translated("recalling")
    def recall(
        self,
        query: str | None = None,
        when: Interval | None = None,
        k: int = 10,
        *,
        entity: str | None = None,
        kinds: Sequence[str] | None = None,
        until: datetime | None = None,
    ) -> Recall:
        """Find what is remembered about ``query`` in the time ``when``, best first, each hit with its reasons.

        Args:
            query: words; None asks for everything in ``when``.
            when: world time that a hit must overlap.
            k: most hits, from 1.
            entity: only records that mention this thing.
            kinds: only records of these kinds (``event``, ``told``, ``outcome``).
            until: only what the agent had recorded by then.

        Raises:
            BadInput: neither query, nor time, nor entity was given, or ``k`` < 1.
            StaleProjectionError: opened read-only beside an agent that has not caught up.
        """
        for name in self._searcher.names:
            self._projections.ready(name)
        try:
            return self._searcher.recall(
                query, when, k, entity=entity, kinds=kinds, until=until, owner=self.settings.owner
            )
        except BrokenProjectionError as error:
            if self.read_only:
                raise
            logger.warning("%s; rebuilding it now", error)
            self._projections.distrust(error.name)
        return self.recall(query, when, k, entity=entity, kinds=kinds, until=until)

    @database.translated("reading facts")
    def facts(
        self,
        subject: str | None = None,
        predicate: str | None = None,
        object: str | None = None,
        *,
        at: datetime | Interval | None = None,
        as_of: datetime | None = None,
    ) -> list[Fact]:
        """Facts that match, newest belief first.

        Args:
            subject: entity, in any wording that names the same thing (``the keys`` finds ``key``).
            predicate: ``location``, ``owner``, ``colour`` ...
            object: the value, matched like an entity.
            at: world time at which it held; None for any time.
            as_of: what the agent believed then; None for now, that is, everything not taken back.
        """
        self._projections.ready("facts")
        with self._engine.connect() as connection:
            return self._facts.query(
                connection, subject, predicate, object, at=at, as_of=as_of, owner=self.settings.owner
            )

    def facts_of(self, seq: int) -> list[int]:
        """Ids of the facts that a record had a part in (its lineage, read the other way)."""
        self._projections.ready("facts")
        with self._engine.connect() as connection:
            return self._facts.lineage(connection, seq)

    def unread(self, limit: int = 4) -> list[Record]:
        """The oldest told records that gave no fact by rule and that no language model has read yet."""
        self._projections.ready("facts")
        with self._engine.connect() as connection:
            waiting = self._facts.unread(connection, self.settings.owner, limit)
        found = self.journal.get(waiting)
        return [found[seq] for seq in waiting]

    def graph(self, about: str | None = None, *, when: Interval | None = None, limit: int = 200) -> nx.MultiDiGraph:
        """A bounded view of memory: entities, facts, events and outages as a graph of at most ``limit`` nodes."""
        self._projections.ready("facts")
        return memory_graph(self, about=about, when=when, limit=limit)

    def outages(self) -> list[Outage]:
        """Stretches in which the agent was not running, oldest first."""
        found = []
        for boot in self.journal.read(kinds=["boot"]):
            previous = boot.payload["previous_us"]
            if previous is not None:
                found.append(Outage(Interval(from_us(previous), boot.recorded), boot.payload["previous_clean"]))
        return found

    def read_blob(self, blob: Blob) -> bytes:
        """The bytes of a blob.

        Raises:
            FadedError: they were given up (`fade`).
            DamagedError: they are not those that were stored.
        """
        try:
            return self._packs.read(blob)
        except DamagedError:
            if blob in self._fading:
                raise FadedError(
                    f"the picture at byte {blob.offset} of {blob.pack} has faded; the text of its event remains"
                ) from None
            raise

    def frame(self, blob: Blob) -> Image:
        """The picture of a blob with role ``frame``: uint8 [height, width, 3], RGB; raises as `read_blob` does."""
        return decode_frame(self.read_blob(blob))

    # --------------------------------------------------------------- checking

    @property
    def projections(self) -> Mapping[str, Projection]:
        """The projections by name."""
        return self._projections.members

    def reflects(self, name: str) -> int:
        """The newest record that a projection reflects; -1 if it must be rebuilt."""
        return self._projections.reflects(name)

    def rebuild(self, names: Sequence[str] = ()) -> dict[str, int]:
        """Drop projections and derive them again from the journal; all of them by default.

        Raises:
            BadInput: there is no projection of that name.
        """
        known = list(self.projections)
        for name in names:
            if name not in known:
                raise BadInput(f"expected projections out of {', '.join(known)}, got {name!r}")
        return {name: self._projections.rebuild(name) for name in names or known}

    @database.translated("reading projections")
    def digests(self) -> dict[str, str]:
        """sha256 of each projection's content, all level with the journal."""
        for name in self.projections:
            self._projections.ready(name)
        with self._engine.connect() as connection:
            return {name: member.digest(connection) for name, member in self.projections.items()}

    def check(self) -> list[Problem]:
        """Journal, packs and projections against their checksums; an empty list means all is well."""
        witnessed = self._witness.read()  # before the journal, which may grow meanwhile
        problems = self.journal.check()
        if not problems:
            problems += checking.check_end(self.root, witnessed, self.journal)
            problems += checking.check_packs(self.journal, self._packs, self._fading.spots())
        if not problems:
            problems += checking.check_projections(self._parts(), self.projections)
        return problems

    def compare(self, names: Sequence[str] = ()) -> list[Comparison]:
        """Derive projections anew from the journal in a private place and compare them with the stored ones.

        Args:
            names: all that are stored by default.
        """
        return checking.compare(self._parts(), self.projections, names)

    # ----------------------------------------------------------------- inside

    def _write(self, work: Any) -> Any:
        if self._writer is None:
            why = (
                "was opened read-only; open it without read_only"
                if self.read_only
                else "has been closed; open it again"
            )
            raise PerdureError(f"this memory {why} to write")
        return self._writer.do(work)

    def _append(self, drafts: Sequence[Draft]) -> tuple[Record, ...]:
        def work(tx: Connection) -> tuple[Record, ...]:
            stamp = self._stamp()
            stored = tuple(
                append(tx, draft, stamp, self._packs.append(stamp.owner, stamp.recorded, draft.items))
                for draft in drafts
            )
            self._newest = max(self._newest, (to_us(stamp.recorded), stamp.monotonic_us))
            return stored

        stored: tuple[Record, ...] = self._write(work)
        self._witness.note(stored[-1].seq)
        return stored

    def _time(self) -> tuple[datetime, int]:
        """The agent's own time and by how many microseconds it may be wrong."""
        wall_us, (newest_us, then_us) = to_us(self.clock.now()), self._newest
        if newest_us - wall_us > CLOCK_ERROR_US:
            newest_us += max(0, self.clock.monotonic_us() - then_us)
        now_us = max(wall_us, newest_us)
        return from_us(now_us), CLOCK_ERROR_US + now_us - wall_us

    def _stamp(self) -> Stamp:
        now, error_us = self._time()
        return Stamp(now, error_us, self.clock.monotonic_us(), self.boot, self.settings.owner, self.settings.zone)

    def _parts(self) -> checking.Parts:
        return checking.Parts(self.root, self._engine, self.journal, self._members)

    def _members(self, root: Path, engine: Engine) -> list[Projection]:
        """The projections with their files below ``root`` and their rows in ``engine``."""
        return [*Searcher(engine, self.journal, self._encoders).projections(root, self._packs), Facts()]

    def _last_sign_us(self) -> int:
        """When the newest record was written, or the newest sign of life after it; 0 for a new directory."""
        previous = next(self.journal.read(newest_first=True, limit=1), None)
        if previous is None:
            return 0
        with self._engine.connect() as connection:
            sign = connection.execute(sa.select(alive.c.wall_us)).scalar()
        return max(to_us(previous.recorded), sign or 0)

    def _wake(self) -> None:
        previous = next(self.journal.read(newest_first=True, limit=1), None)
        previous_us = None if previous is None else self._newest[0]
        reading = self.clock.now()
        behind_us = self._newest[0] - to_us(reading)
        with self.step() as step:
            step.note(
                "boot",
                {
                    "version": __version__,
                    "previous_us": previous_us,
                    "previous_clean": previous is not None and previous.kind == "stop",
                },
            )
            if behind_us > CLOCK_ERROR_US:
                step.note("clock", {"reading_us": to_us(reading), "behind_us": behind_us})

    def _catch_up_for_readers(self) -> None:
        try:
            self._projections.advance(_CLOSING_S)
        except StorageError as error:
            # Closing must not fail for what can be derived later; whoever reads it is told.
            logger.warning("closed without catching up: %s", error)

    def _release(self) -> None:
        self._open = False
        writer, lock = getattr(self, "_writer", None), self._lock
        if writer is not None:
            writer.close()
            self._writer = None
        engine = getattr(self, "_engine", None)
        if engine is not None:
            engine.dispose()
        if lock is not None:
            lock.release()
            self._lock = None


def decode_frame(data: bytes) -> Image:
    """The picture in JPEG bytes: uint8 [height, width, 3], RGB."""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    if image is None:
        raise DamagedError("these bytes are no picture; run `perdure verify`")
    return np.asarray(image, np.uint8)
