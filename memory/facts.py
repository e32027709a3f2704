"""Facts: what is believed about things and when it held, as a projection of what was told.

It knows the projection and its decisions (`claims.py` writes, `fact_rows.py` reads, `timeline.py` holds the rules). It
does not know sentences (`perception.statements`) nor what a belief is good for.

Two time axes. *Valid*: when it held in the world. *Known*: when the agent believed it. Nothing is overwritten: a belief
that changes gets ``known_to`` and its successor gets ``known_from``, both the time of the record that changed it, so
``as_of`` answers what was believed then. Decisions
    start       A claim that names no time holds from when it was said; one that names an end in the future ("until
                Friday") ends there.
    were        A claim that names an end only ("were in the car", "until Friday") ends there what was believed of that
                value. If it was not believed, it begins where the last known other value ended; "were" (that is, until
                now) said while another value holds is about the time before that one.
    correction  "No, ...", "I meant ..." within `claims.CORRECTION_REACH` takes back the speaker's latest claim with the
                same predicate and the same thing, or else the same value, and takes its place in time: the wrong belief
                ends in what is known, not in what was valid. "Actually", "sorry", "wait" do so for functional
                predicates of the same thing only: "actually, Anna likes tea" may well come on top.
    names       "my keys", said by the owner, and "the keys" are one thing.
    trust       The owner's claims end everybody else's, never the reverse: both stay, queries name the owner's first.
    reading     A language model's reading of a told record counts where the rules found nothing, as the agent's own
                claim (or as somebody else's, if somebody else had told it), with both records as lineage.
"""

from __future__ import annotations

import hashlib
import json
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..clock import from_us, to_us
from ..perception.statements import entity_key, parse_statements, statements_from_json
from ..records import Fact, Interval, Problem, Record, Statement
from .claims import take_in
from .fact_rows import check_beliefs, check_rows, facts_of, grade, holds, keys_named, order
from .schema import claims, fact_sources, facts, unread

_RULES = {
    parse_statements.__module__.rpartition(".")[0]: (
        "clauses.py",
        "statements.py",
        "verbs.py",
        "words.py",
        "when.py",
        "when_grammar.py",
    ),
    __package__: ("facts.py", "claims.py", "fact_rows.py", "names.py", "timeline.py"),
}


class Entity(NamedTuple):
    """A thing that facts are about, or a value that they have."""

    name: str
    facts: int
    """Beliefs held now that name it."""
    first: datetime
    """When the agent first heard of it ..."""
    last: datetime
    """... and last."""


@dataclass(frozen=True, slots=True)
class Reader:
    """How sentences become statements; another one is for tests."""

    parse: Callable[[str, datetime, ZoneInfo, str], Sequence[Statement]] = parse_statements
    """(text, said, zone, speaker)"""
    from_json: Callable[[Any, str, datetime, ZoneInfo, str], Sequence[Statement]] = statements_from_json
    """(a language model's answer, text, said, zone, speaker)"""


class Facts:
    """The projection. Every statement leads to a fact that names its record; every change keeps what it replaces."""

    name = "facts"

    def __init__(self, reader: Reader | None = None) -> None:
        self._reader = reader or Reader()
        self.producer = f"facts/1+{_code_hash()}"

    def prepare(self, record: Record) -> Any:
        """The statements of a told record, or of what the agent inferred."""
        if record.kind == "inferred":
            return tuple(
                Statement(subject, predicate, value, functional)
                for subject, predicate, value, functional in record.payload["statements"]
            )
        if record.kind != "told":
            return None
        speaker = str(record.payload.get("speaker", "owner"))
        return tuple(self._reader.parse(str(record.payload["text"]), record.start, ZoneInfo(record.zone), speaker))

    def apply(self, tx: Connection, record: Record, prepared: Any) -> None:
        """Take in a told record, a language model's reading of one, or what the agent inferred."""
        if record.kind == "inferred":
            said = {"text": "", "said_us": to_us(record.start), "trust": record.trust.value}
            take_in(tx, record, prepared, said, None)
        elif record.kind == "told":
            told = {
                "seq": record.seq,
                "owner": record.owner,
                "text": str(record.payload["text"]),
                "speaker": str(record.payload.get("speaker", "owner")),
                "said_us": to_us(record.start),
                "zone": record.zone,
                "trust": record.trust.value,
            }
            if prepared:
                take_in(tx, record, prepared, told, None)
            else:
                tx.execute(unread.insert().values(read=False, **told))
        elif record.kind == "model_call" and record.payload.get("purpose") == "statements":
            self._read(tx, record)

    def _read(self, tx: Connection, record: Record) -> None:
        about = record.payload.get("about")
        told = tx.execute(sa.select(unread).where(unread.c.seq == about)).one_or_none()
        if told is None:
            return
        answer = record.payload.get("statements")
        answer = {"statements": answer} if isinstance(answer, list) else answer
        said, zone = from_us(told.said_us), ZoneInfo(told.zone)
        found = self._reader.from_json(answer, told.text, said, zone, told.speaker)
        if found:
            tx.execute(unread.delete().where(unread.c.seq == about))
            take_in(tx, record, found, told._mapping, told.seq)
        else:
            tx.execute(unread.update().where(unread.c.seq == about).values(read=True))

    def reset(self, tx: Connection) -> None:
        """Drop everything."""
        for table in (fact_sources, facts, claims, unread):
            tx.execute(table.delete())

    # ---------------------------------------------------------------- reading

    def query(
        self,
        connection: Connection,
        subject: str | None,
        predicate: str | None,
        object: str | None,
        *,
        at: datetime | Interval | None,
        as_of: datetime | None,
        owner: str,
    ) -> list[Fact]:
        """Facts that match; None matches anything.

        Args:
            subject: a name; also finds things with a fuller name ("key" finds "spare key"), after those of that name.
            predicate: as told, in any inflection.
            object: a value, matched like ``subject`` ("blue tin" finds "in the blue tin").
            at: world time at which it held, or a span that it overlaps.
            as_of: what was believed then; None for now.
            owner: whose facts.

        Returns:
            The best matching names first. Then, if ``at`` is given: the owner's before others', values before denials,
            newest first; the first functional fact is the one to believe. If not: newest beginning first.
        """
        known: sa.ColumnElement[bool] = facts.c.known_to_us.is_(None)
        if as_of is not None:
            then = to_us(as_of)
            known = (facts.c.known_from_us <= then) & (known | (facts.c.known_to_us > then))
        wanted = sa.select(facts).where(facts.c.owner == owner, known)
        if subject is not None:
            wanted = wanted.where(facts.c.subject_key.in_(keys_named(connection, facts.c.subject_key, owner, subject)))
        if predicate is not None:
            wanted = wanted.where(facts.c.predicate_key == entity_key(predicate))
        if object is not None:
            wanted = wanted.where(facts.c.object_key.in_(keys_named(connection, facts.c.object_key, owner, object)))
        if at is not None:
            wanted = wanted.where(holds(at))
        graded = []
        for row in connection.execute(wanted):
            grades = [grade(subject, row.subject), grade(object, row.object)]
            if 0 not in grades:
                graded.append((grades, row))
        graded.sort(key=lambda pair: order(pair[0], pair[1], at is not None))
        return facts_of(connection, [row for _, row in graded], as_of)

    def entities(self, connection: Connection, owner: str, like: str | None = None, limit: int = 100) -> list[Entity]:
        """Things that are subject or object of facts, the most mentioned first.

        Args:
            owner: whose facts.
            like: only those that this name may mean.
            limit: most entities.
        """
        sides = []
        for name, key in ((facts.c.subject, facts.c.subject_key), (facts.c.object, facts.c.object_key)):
            side = sa.select(
                key.label("key"), name.label("name"), facts.c.id, facts.c.known_to_us, fact_sources.c.known_us
            )
            side = side.join(fact_sources, fact_sources.c.fact == facts.c.id).where(facts.c.owner == owner, key != "")
            sides.append(side if like is None else side.where(key.in_(keys_named(connection, key, owner, like))))
        every = sa.union_all(*sides).subquery()
        count = sa.func.count(sa.distinct(sa.case((every.c.known_to_us.is_(None), every.c.id))))
        grouped = (
            sa.select(sa.func.min(every.c.name), count, sa.func.min(every.c.known_us), sa.func.max(every.c.known_us))
            .group_by(every.c.key)
            .order_by(count.desc(), every.c.key)
            .limit(limit)
        )
        return [Entity(name, n, from_us(first), from_us(last)) for name, n, first, last in connection.execute(grouped)]

    def lineage(self, connection: Connection, seq: int) -> list[int]:
        """Ids of the facts that a record made or ended, those no longer believed too."""
        query = sa.select(fact_sources.c.fact).distinct().where(fact_sources.c.seq == seq)
        return sorted(connection.execute(query).scalars())

    def unread(self, connection: Connection, owner: str, limit: int = 4) -> list[int]:
        """seq of the oldest told records that gave no statement by rule and that no language model has read."""
        waiting = sa.select(unread.c.seq).where(unread.c.owner == owner, ~unread.c.read)
        return list(connection.execute(waiting.order_by(unread.c.seq).limit(limit)).scalars())

    # --------------------------------------------------------------- checking

    def digest(self, connection: Connection) -> str:
        """sha256 of all facts with their lineage, claims and unread records; row numbers do not count."""
        sources: dict[int, list[list[int]]] = {}
        for row in connection.execute(sa.select(fact_sources).order_by(fact_sources.c.seq, fact_sources.c.ends)):
            sources.setdefault(row.fact, []).append([row.seq, int(row.ends), row.known_us])
        lines = [
            json.dumps(["fact", *row[1:], sources.get(row.id, [])]) for row in connection.execute(sa.select(facts))
        ]
        for table in (claims, unread):
            lines += [json.dumps([table.name, *row]) for row in connection.execute(sa.select(table))]
        return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()

    def check(self, connection: Connection) -> list[Problem]:
        """Whether the beliefs held now are those that the claims give, and history is in order."""
        return check_rows(connection) + check_beliefs(connection)


@cache
def _code_hash() -> str:
    """Names the rules that made the facts: they are derived again when one of these files changes."""
    digest = hashlib.sha256()
    for package, files in _RULES.items():
        for file in files:
            digest.update(pkgutil.get_data(package, file) or b"")
    return digest.hexdigest()[:12]
