"""Checking what is stored: packs, the end of the journal, and projections against a fresh derivation.

Knows how the parts of a memory belong together; holds no state. `Memory.check` and `replay` are its users.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import sqlalchemy as sa
from sqlalchemy.engine import Engine

from ..errors import BadInput, DamagedError
from ..records import Problem
from .database import scratch_engine
from .journal import Journal
from .packs import Packs
from .projection import CatchUp, Projection
from .schema import projections
from .vectors import TextVectors, VectorProjection
from .writer import Writer

CHEAP = ("words", "facts")
"""Projections that `Memory.check` derives again: they need neither encoder nor packs."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What a check needs of a memory."""

    root: Path
    engine: Engine
    journal: Journal
    members: Callable[[Path, Engine], Sequence[Projection]]
    """Makes the projections with their files below a folder and their rows in a database."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A stored projection beside one that was derived again from the same records."""

    name: str
    seq: int
    """The newest record that the stored one reflects."""
    live: str
    """Digest of the stored one."""
    replayed: str

    @property
    def equal(self) -> bool:
        """Whether both are the same."""
        return self.live == self.replayed


def check_end(root: Path, witnessed: int, journal: Journal) -> list[Problem]:
    """The journal does not end before the newest record that was acknowledged."""
    last = journal.last_seq()
    if last >= witnessed:
        return []
    repair = f"restore perdure.db and perdure.db-wal from a copy, or delete {root / 'witness'} to go on without them"
    return [Problem("journal", f"records {last + 1} to {witnessed} were acknowledged and are gone", repair)]


def check_packs(journal: Journal, packs: Packs, faded: Set[tuple[str, int]]) -> list[Problem]:
    """Every blob has its checksum, but those that have faded (pack and offset)."""
    problems = []
    for seq, blob in journal.blobs():
        if (blob.pack, blob.offset) in faded:
            continue
        try:
            packs.read(blob)
        except DamagedError as error:
            problems.append(Problem(blob.pack, f"record {seq}: {error}", "restore the pack from a copy"))
    return problems


def check_projections(parts: Parts, members: Mapping[str, Projection]) -> list[Problem]:
    """Each projection is by this version, passes its own check, and the cheap ones are what the journal gives."""
    problems = []
    with parts.engine.connect() as connection:
        stored = {row.name: row for row in connection.execute(sa.select(projections))}
        for name, member in members.items():
            if name in stored and stored[name].producer != member.producer:
                message = "was made by another version or encoder; it will be rebuilt when the agent wakes"
                problems.append(Problem(name, message, f"perdure rebuild DIR {name}"))
            elif name in stored:
                problems += member.check(connection)
        if TextVectors.name in stored and TextVectors.name not in members:
            problems += _Unencoded(parts.root, parts.engine).check(connection)
    suspect = {problem.place for problem in problems}
    for row in compare(parts, members, [name for name in CHEAP if name not in suspect]):
        if not row.equal:
            message = f"differs from what the journal gives up to record {row.seq}"
            problems.append(Problem(row.name, message, f"perdure rebuild DIR {row.name}"))
    return problems


def compare(parts: Parts, members: Mapping[str, Projection], names: Iterable[str] = ()) -> list[Comparison]:
    """Derive projections again, each up to the record that the stored one reflects, in a folder that is then deleted.

    One that is not stored yet, or was made by another version or encoder, is left out: it does not answer either.

    Raises:
        BadInput: there is no projection of that name.
        DamagedError: the journal or a pack cannot be read.
    """
    wanted = list(names) or list(members)
    for name in wanted:
        if name not in members:
            raise BadInput(f"expected projections out of {', '.join(members)}, got {name!r}")
    with parts.engine.connect() as connection:  # one snapshot: numbers and contents belong together
        stored = {row.name: row for row in connection.execute(sa.select(projections)) if row.name in wanted}
        live = {
            name: members[name].digest(connection)
            for name, row in stored.items()
            if row.producer == members[name].producer
        }
    with TemporaryDirectory(prefix="perdure-replay-") as folder:
        engine = scratch_engine(Path(folder) / "perdure.db")
        writer = Writer(engine)
        try:
            fresh = {member.name: member for member in parts.members(Path(folder), engine)}
            catching_up = CatchUp(engine, parts.journal, list(fresh.values()), writer.do)
            rows = []
            for name, digest in live.items():
                catching_up.advance_to(name, stored[name].seq)
                with engine.connect() as connection:
                    rows.append(Comparison(name, stored[name].seq, digest, fresh[name].digest(connection)))
            return rows
        finally:
            writer.close()
            engine.dispose()


class _Unencoded(VectorProjection):
    """Text vectors of a memory that was opened without their encoder: their checksums can be checked all the same."""

    name = TextVectors.name
    kind = TextVectors.kind
