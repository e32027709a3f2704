"""Taking in statements: they become rows of ``claims``, and the beliefs in ``facts`` follow.

It knows SQL and applies the rules of `timeline.py`; `facts.py` says what the rules mean for people.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from ..clock import to_us
from ..perception.statements import entity_key
from ..records import Record, Statement, Trust
from .fact_rows import claim_of, content_of, end_of, start_of, valid_from
from .names import thing_key
from .schema import claims, fact_sources, facts
from .timeline import BEGINNING, FOREVER, Belief, timeline

CORRECTION_REACH = timedelta(hours=1)
"""Later than this, "no, ..." is news about the world: what was told then may well have been true then."""
_CORRECTION = re.compile(
    r"\W*(?:(?P<strong>no(?=[,.!:;])|nope|correction|i meant?|that was wrong|that is wrong)|actually|sorry|wait)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Group:
    """Claims that can end one another: about one predicate of one thing and, if it may have several, one value."""

    owner: str
    subject_key: str
    predicate_key: str
    object_key: str | None
    """None if the predicate is functional."""

    @classmethod
    def of(cls, row: Mapping[Any, Any]) -> Group:
        value = None if row["functional"] else str(row["object_key"])
        return cls(row["owner"], row["subject_key"], row["predicate_key"], value)

    def where(self, table: sa.Table) -> sa.ColumnElement[bool]:
        column = table.c
        same = (column.owner == self.owner) & (column.subject_key == self.subject_key)
        same &= (column.predicate_key == self.predicate_key) & (column.functional == (self.object_key is None))
        return same if self.object_key is None else same & (column.object_key == self.object_key)


def take_in(
    tx: Connection, record: Record, found: Iterable[Statement], told: Mapping[Any, Any], about: int | None
) -> None:
    """Store what ``record`` states; ``told`` is the told record that it is about (a row of ``unread``, or like one)."""
    trust = Trust(told["trust"])
    if about is not None and trust is not Trust.OTHER:
        trust = Trust.AGENT
    for item, statement in enumerate(found):
        row = _row(record, 2 * item, statement, trust, told["said_us"], about)
        changed: dict[Group, int] = {}
        wrong = _wrong(tx, row, told["text"])
        if wrong:
            changed[Group.of(wrong[0]._mapping)] = _withdraw(tx, wrong, row["known_us"])
            if row["start_us"] == told["said_us"] and wrong[0].start_us < row["end_us"]:
                row["start_us"] = wrong[0].start_us
        group, since_us = _store(tx, row, told["said_us"])
        changed[group] = min(since_us, changed.get(group, since_us))
        for group, since_us in changed.items():
            _refresh(tx, group, since_us, row["known_us"])


def _row(
    record: Record, item: int, statement: Statement, trust: Trust, said_us: int, about: int | None
) -> dict[str, Any]:
    """A row of ``claims``; start and end are equal if the statement names its end only."""
    start, end = statement.valid.start, statement.valid.end
    end_us = FOREVER if end is None else to_us(end)
    start_us = to_us(start) if start is not None else said_us if end is None else end_us
    if start is not None and start_us >= end_us:
        end_us = FOREVER
    return {
        "seq": record.seq,
        "item": item,
        "about": about,
        "owner": record.owner,
        "subject": statement.subject,
        "subject_key": thing_key(statement.subject),
        "predicate": statement.predicate,
        "predicate_key": entity_key(statement.predicate),
        "object": statement.object,
        "object_key": thing_key(statement.object),
        "functional": statement.functional,
        "negated": statement.negated,
        "by": statement.by,
        "trust": trust.value,
        "start_us": start_us,
        "end_us": end_us,
        "known_us": to_us(record.recorded),
        "withdrawn_us": None,
    }


def _wrong(tx: Connection, row: Mapping[str, Any], text: str) -> list[Row[Any]]:
    """What ``row`` takes back, if its text begins like a correction: one claim and its repetitions, by their start."""
    lead = _CORRECTION.match(text)
    if lead is None:
        return []
    column = claims.c
    mine = (column.owner == row["owner"]) & (column.trust == row["trust"]) & (column.seq < row["seq"])
    mine &= (column.predicate_key == row["predicate_key"]) & column.withdrawn_us.is_(None)
    mine &= column.known_us >= row["known_us"] - CORRECTION_REACH // timedelta(microseconds=1)
    query = sa.select(claims).where(mine, column.start_us < column.end_us)
    same_thing = query.where(column.subject_key == row["subject_key"])
    same_value = query.where(column.object_key == row["object_key"], ~column.negated)
    strong = lead["strong"] is not None
    choices = [same_thing, same_value] if strong and not row["negated"] else [same_thing]
    for choice in choices:
        found = tx.execute(choice.order_by(column.seq.desc(), column.item.desc()).limit(1)).one_or_none()
        if found is None:
            continue
        differs = (found.subject_key, found.object_key, found.negated) != (
            row["subject_key"], row["object_key"], row["negated"]
        )  # fmt: skip
        value_fits = found.object_key == row["object_key"] or not (row["negated"] or found.negated)
        if differs and value_fits and (strong or row["functional"]):
            same = Group.of(found._mapping).where(claims) & (column.object_key == found.object_key)
            same &= column.negated == found.negated
            return list(tx.execute(query.where(same).order_by(column.start_us)))
    return []


def _withdraw(tx: Connection, wrong: Sequence[Row[Any]], known_us: int) -> int:
    """Take claims of one group back, their end marks too; returns the time from which beliefs may change."""
    since_us = int(wrong[0].start_us)
    for row in wrong:
        same = (claims.c.seq == row.seq) & (claims.c.item.in_((row.item, row.item + 1)))
        tx.execute(claims.update().where(same).values(withdrawn_us=known_us))
        touched = sa.select(sa.func.min(valid_from)).join(fact_sources, fact_sources.c.fact == facts.c.id)
        first = tx.execute(touched.where(fact_sources.c.seq == row.seq, facts.c.known_to_us.is_(None))).scalar()
        since_us = min(since_us, since_us if first is None else int(first))
    return since_us


def _store(tx: Connection, row: dict[str, Any], said_us: int) -> tuple[Group, int]:
    """Store one claim; an end in the future becomes an end mark of its own, so that later news can move it.

    Returns:
        Its group, and the time from which beliefs may change.
    """
    group = Group.of(row)
    rows = [row]
    if row["start_us"] == row["end_us"]:
        row["start_us"], row["end_us"] = _past_span(tx, group, row, said_us)
    elif said_us < row["end_us"] < FOREVER:
        rows = [{**row, "end_us": FOREVER}, {**row, "item": row["item"] + 1, "start_us": row["end_us"]}]
    tx.execute(claims.insert(), rows)
    return group, int(row["start_us"])


def _past_span(tx: Connection, group: Group, row: Mapping[str, Any], said_us: int) -> tuple[int, int]:
    """Start and end of a claim that names its end only; both are that end if it ends a belief of the same value."""
    end_us, vague = int(row["end_us"]), row["end_us"] == said_us
    lane = sa.select(facts).where(group.where(facts), facts.c.known_to_us.is_(None), facts.c.trust == row["trust"])
    for belief in tx.execute(lane.where(valid_from < end_us).order_by(valid_from.desc())):
        same_value = belief.object_key == row["object_key"]
        if start_of(belief) >= end_us or (not same_value and (belief.negated or row["negated"])):
            continue
        if end_of(belief) < end_us:
            return end_of(belief), end_us
        if same_value and belief.negated == row["negated"]:
            return end_us, end_us
        if vague and end_of(belief) > end_us > start_of(belief) > BEGINNING:
            end_us = start_of(belief)
            continue
        last = sa.select(sa.func.max(claims.c.start_us)).where(
            group.where(claims), claims.c.trust == row["trust"], claims.c.object_key == belief.object_key,
            claims.c.start_us >= start_of(belief), claims.c.start_us < end_us,
        )  # fmt: skip
        last_us = int(tx.execute(last).scalar_one())
        return BEGINNING if last_us == BEGINNING else min(last_us + 1, end_us - 1), end_us
    return BEGINNING, end_us


def _refresh(tx: Connection, group: Group, since_us: int, known_us: int) -> None:
    """Bring the beliefs that claims from ``since_us`` on can have changed in line with the claims of ``group``.

    What lies before is left alone: a belief ends only where a claim begins. So news costs as much as there is after it.
    """
    mine = group.where(facts) & facts.c.known_to_us.is_(None)
    begins, ends = facts.c.valid_from_us, facts.c.valid_to_us
    reach = _reach(tx, mine, ends >= since_us, since_us)
    while reach < since_us:
        since_us = reach
        reach = _reach(tx, mine, ends > since_us, since_us)
    later = mine if since_us == BEGINNING else mine & (begins >= since_us)
    held = {content_of(row): row for row in tx.execute(sa.select(facts).where(later))}
    column = claims.c
    query = sa.select(claims).where(group.where(claims), column.withdrawn_us.is_(None), column.start_us >= since_us)
    rows = {(row.seq, row.item): row for row in tx.execute(query)}
    fresh = {belief.content: belief for belief in timeline(claim_of(row) for row in rows.values())}
    gone = [row.id for content, row in held.items() if content not in fresh]
    tx.execute(facts.update().where(facts.c.id.in_(gone)).values(known_to_us=known_us))
    for content, belief in fresh.items():
        if content in held:
            fact, have = held[content].id, _lineage(tx, held[content].id)
        else:
            fact, have = _insert(tx, belief, rows[belief.newest], known_us), set()
        want = {(seq, False) for seq in belief.sources} | {(seq, True) for seq in belief.ended_by}
        links = [{"fact": fact, "seq": seq, "ends": ends, "known_us": known_us} for seq, ends in sorted(want - have)]
        if links:
            tx.execute(fact_sources.insert(), links)


def _reach(tx: Connection, mine: sa.ColumnElement[bool], ends: sa.ColumnElement[bool], since_us: int) -> int:
    """The first beginning of the beliefs that never end or where ``ends`` holds; ``since_us`` if that comes first."""
    # Two queries, because SQLite does not search its index for both sides of an "or".
    for lasting in (facts.c.valid_to_us.is_(None), ends):
        first = tx.execute(sa.select(sa.func.min(valid_from)).where(mine, lasting)).scalar()
        since_us = since_us if first is None else min(since_us, int(first))
    return since_us


def _insert(tx: Connection, belief: Belief, named: Row[Any], known_us: int) -> int:
    result = tx.execute(
        facts.insert().values(
            owner=named.owner,
            subject=named.subject,
            subject_key=named.subject_key,
            predicate=named.predicate,
            predicate_key=named.predicate_key,
            object=belief.object,
            object_key=belief.object_key,
            functional=belief.functional,
            negated=belief.negated,
            by=belief.by,
            trust=belief.trust.value,
            valid_from_us=None if belief.start_us == BEGINNING else belief.start_us,
            valid_to_us=None if belief.end_us == FOREVER else belief.end_us,
            known_from_us=known_us,
            known_to_us=None,
        )
    )
    assert result.inserted_primary_key is not None, "SQLite numbers the row"
    return int(result.inserted_primary_key[0])


def _lineage(tx: Connection, fact: int) -> set[tuple[int, bool]]:
    links = tx.execute(sa.select(fact_sources.c.seq, fact_sources.c.ends).where(fact_sources.c.fact == fact))
    return {(row.seq, row.ends) for row in links}
