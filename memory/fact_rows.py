"""Rows of ``facts`` and ``claims`` as values: names that mean one thing, order of answers, integrity.

It reads; `claims.py` writes.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from datetime import datetime
from itertools import groupby
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from ..clock import from_us, to_us
from ..records import Fact, Interval, Problem, Trust
from .names import name_match, thing_key
from .schema import claims, fact_sources, facts
from .timeline import BEGINNING, FOREVER, Claim, timeline

valid_from = sa.func.coalesce(facts.c.valid_from_us, BEGINNING)
valid_to = sa.func.coalesce(facts.c.valid_to_us, FOREVER)
_CHUNK = 500
_REPAIR = "perdure rebuild DIR facts"


def claim_of(row: Row[Any]) -> Claim:
    return Claim(
        row.seq, row.item, row.about, row.object, row.object_key, row.functional, row.negated, row.by,
        Trust(row.trust), row.start_us, row.end_us,
    )  # fmt: skip


def start_of(row: Row[Any]) -> int:
    return BEGINNING if row.valid_from_us is None else int(row.valid_from_us)


def end_of(row: Row[Any]) -> int:
    return FOREVER if row.valid_to_us is None else int(row.valid_to_us)


def content_of(row: Row[Any]) -> tuple[object, ...]:
    """What `Belief.content` is for a stored belief."""
    return row.object_key, row.functional, row.negated, row.by, Trust(row.trust), start_of(row), end_of(row)


def facts_of(connection: Connection, rows: Sequence[Row[Any]], as_of: datetime | None) -> list[Fact]:
    """Rows with their lineage, as far as it was known at ``as_of``."""
    links: dict[tuple[int, bool], list[int]] = {}
    ids = [row.id for row in rows]
    for place in range(0, len(ids), _CHUNK):
        query = sa.select(fact_sources).where(fact_sources.c.fact.in_(ids[place : place + _CHUNK]))
        if as_of is not None:
            query = query.where(fact_sources.c.known_us <= to_us(as_of))
        for link in connection.execute(query.order_by(fact_sources.c.seq)):
            links.setdefault((link.fact, link.ends), []).append(link.seq)
    return [
        Fact(
            id=row.id,
            subject=row.subject,
            predicate=row.predicate,
            object=row.object,
            valid=_interval(row.valid_from_us, row.valid_to_us),
            known=_interval(row.known_from_us, row.known_to_us),
            evidence=tuple(links.get((row.id, False), ())),
            trust=Trust(row.trust),
            by=row.by,
            negated=row.negated,
            ended_by=tuple(links.get((row.id, True), ())),
        )
        for row in rows
    ]


def _interval(start_us: int | None, end_us: int | None) -> Interval:
    return Interval(None if start_us is None else from_us(start_us), None if end_us is None else from_us(end_us))


def keys_named(connection: Connection, column: sa.ColumnElement[str], owner: str, name: str) -> list[str]:
    """The keys in ``column`` (of subjects or objects) that ``name`` may mean: its own, fuller ones, its bare one.

    Hops from key to key through the index, so it costs as much as there are things, however much is known of them.
    """
    own = facts.c.owner == owner
    keys = sa.select(sa.func.min(column).label("key")).where(own).cte(recursive=True)
    following = sa.select(sa.func.min(column)).where(own, column > keys.c.key).scalar_subquery()
    keys = keys.union_all(sa.select(following).where(keys.c.key.is_not(None)))
    key = thing_key(name)
    fits = (
        (keys.c.key == key) | (keys.c.key == key.rpartition("'s ")[2]) | keys.c.key.endswith(" " + key, autoescape=True)
    )
    return list(connection.execute(sa.select(keys.c.key).where(fits)).scalars())


def grade(asked: str | None, known: str) -> int:
    """`name_match`, where None asks for anything."""
    return 3 if asked is None else name_match(asked, known)


def holds(at: datetime | Interval) -> sa.ColumnElement[bool]:
    if isinstance(at, datetime):
        return (to_us(at) >= valid_from) & (to_us(at) < valid_to)
    start_us = BEGINNING if at.start is None else to_us(at.start)
    end_us = FOREVER if at.end is None else max(to_us(at.end), start_us + 1)
    return (end_us > valid_from) & (start_us < valid_to)


def order(grades: Sequence[int], row: Row[Any], one_time: bool) -> tuple[object, ...]:
    names = tuple(-grade for grade in grades)
    newest, owners, denied = -start_of(row), row.trust != Trust.OWNER.value, row.negated
    first = (owners, denied, newest) if one_time else (newest, owners, denied)
    return *names, *first, -row.known_from_us, -row.id


def check_rows(connection: Connection) -> list[Problem]:
    """Each fact by itself, each claim's lineage, and that no two values of one functional predicate ever overlapped."""
    problems = []
    sourced = sa.select(fact_sources.c.fact).where(~fact_sources.c.ends)
    bare = sa.select(facts.c.id).where(facts.c.id.not_in(sourced))
    problems += [f"fact {id} has no source" for id in connection.execute(bare).scalars()]
    turned = sa.select(facts.c.id).where((valid_from >= valid_to) | (facts.c.known_to_us < facts.c.known_from_us))
    problems += [f"fact {id} ends before it begins" for id in connection.execute(turned).scalars()]
    lost = sa.select(claims.c.seq).distinct().where(claims.c.seq.not_in(sa.select(fact_sources.c.seq)))
    problems += [f"what record {seq} says is in no fact" for seq in connection.execute(lost).scalars()]
    column = facts.c
    single = sa.select(facts).where(column.functional, ~column.negated)
    ordered = single.order_by(column.owner, column.subject_key, column.predicate_key, column.trust)
    lanes = groupby(connection.execute(ordered), lambda row: (row.owner, row.subject_key, row.predicate_key, row.trust))
    for _, rows in lanes:
        problems += [f"facts {one} and {other} contradict each other" for one, other in _overlaps(list(rows))]
    return [Problem("facts", message, _REPAIR) for message in problems]


def _overlaps(rows: Sequence[Row[Any]]) -> list[tuple[int, int]]:
    """Pairs that were believed at one time for one time. A sweep over the known axis: n log n."""
    changes = []
    for row in rows:
        until_us = FOREVER if row.known_to_us is None else row.known_to_us
        if row.known_from_us < until_us:
            span = (start_of(row), end_of(row), row.id)
            changes += [(row.known_from_us, 1, span), (until_us, 0, span)]
    held: list[tuple[int, int, int]] = []
    found = []
    for _, begins, span in sorted(changes):
        place = bisect_left(held, span)
        if not begins:
            if place < len(held) and held[place] == span:
                del held[place]
            continue
        if place and held[place - 1][1] > span[0]:
            found.append((held[place - 1][2], span[2]))
        if place < len(held) and held[place][0] < span[1]:
            found.append((held[place][2], span[2]))
        held.insert(place, span)
    return found


def check_beliefs(connection: Connection) -> list[Problem]:
    """Whether the beliefs held now are those that the claims, taken all together, give."""
    active = sa.select(claims).where(claims.c.withdrawn_us.is_(None))
    ordered = active.order_by(claims.c.owner, claims.c.subject_key, claims.c.predicate_key)
    expected: set[tuple[object, ...]] = set()
    groups = groupby(connection.execute(ordered), lambda row: (row.owner, row.subject_key, row.predicate_key))
    for key, rows in groups:
        expected |= {(*key, *belief.content) for belief in timeline(map(claim_of, rows))}
    held = connection.execute(sa.select(facts).where(facts.c.known_to_us.is_(None)))
    found = {(row.owner, row.subject_key, row.predicate_key, *content_of(row)) for row in held}
    places = sorted({(str(owner), str(subject), str(what)) for owner, subject, what, *_ in expected ^ found})
    return [
        Problem("facts", f"what is believed of {owner}'s {subject!r} ({what}) is not what was told", _REPAIR)
        for owner, subject, what in places
    ]
