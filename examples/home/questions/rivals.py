"""Other ways to answer the same questions from the same percepts, as good as sixty lines each allow.

    no_memory   only what is in view now
    last_seen   a table of where everything was seen last, in what state, when, and who stood by
    bm25        the events whose words answer best to the question; the value is taken from the best of them
    sql         a table of all sightings and changes, asked as good SQL can

All get the question parsed by the agent's own parser and names resolved by its own map; what differs is what they
remember and how they look it up. None is tuned to abstain where a sighting could have been missed: that is what a world
model is for. `full_log` (the language model reads the log itself) is in ``full_log.py``.
"""

from __future__ import annotations

import math
import re
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time
from statistics import median
from typing import Any, Protocol

from perdure.agent.queries import Happening, Query
from perdure.records import Answer, Evidence, Interval

from .log import FIXTURE, GONE, ITEM, PERSON, Log, Row

_HOURS = {"morning": (6, 12), "afternoon": (12, 18), "evening": (18, 24), "night": (22, 30)}


@dataclass(frozen=True, slots=True)
class Put:
    """A question as it is put to every rival."""

    text: str
    query: Query
    """Names in it are those of the home."""
    now: datetime


class Rival(Protocol):
    """One way to answer."""

    name: str

    def answer(self, put: Put, log: Log) -> Answer:
        """The answer from what the log says so far."""
        ...


Rooms = Callable[[str], str | None]
"""Room of a place."""


def resolved(query: Query, name_of: Callable[[str], str | None]) -> Query:
    """A query in names of the home, as the agent's own answerer has it."""

    def name(said: str | None) -> str | None:
        if said is None:
            return None
        bare = re.sub(r"^(?:in|on|at|from|to|near|with) ", "", said)
        return "me" if said == "agent" else name_of(bare) or said

    def event(asked: Happening) -> Happening:
        return Happening(
            asked.kind, name(asked.thing), asked.state, name(asked.origin), name(asked.place), name(asked.by)
        )

    return Query(
        query.kind,
        name(query.subject),
        query.predicate,
        name(query.object),
        query.when,
        query.order,
        query.text,
        tuple(event(e) for e in query.events),
        query.side,
        query.relation,
        event(query.anchor) if query.anchor else None,
        query.habit,
    )


def _said(value: Any, rows: Sequence[Row]) -> Answer:
    evidence = tuple(
        Evidence(
            r.seq,
            datetime.fromtimestamp(r.first, UTC),
            datetime.fromtimestamp(r.last, UTC),
            f"{r.thing}: {r.value}",
            1.0,
            "row",
        )
        for r in rows[:5]
    )
    return Answer(str(value), value, evidence, 0.5)


NOTHING = Answer("I don't know.", None, (), 0.0)


def _moment(seconds: int) -> Interval:
    at = datetime.fromtimestamp(seconds, UTC)
    return Interval(at, at)


def _span(when: Interval | None, put: Put) -> tuple[int, int]:
    start = int(when.start.timestamp()) if when and when.start else 0
    end = int(when.end.timestamp()) if when and when.end else int(put.now.timestamp())
    return start, end


def _fits(row: Row, event: Happening, rooms: Rooms) -> bool:
    """Whether a change that was seen is what a question speaks of."""
    role = {"moved": ITEM, "state": FIXTURE, "entered": PERSON, "left": PERSON}[event.kind]
    if row.role != role or not row.changed or event.thing not in (None, row.thing):
        return False
    if event.by not in (None, row.by) or (event.state is not None and row.value != event.state):
        return False
    if event.kind == "moved":
        return bool(row.value) and (event.place is None or event.place in (row.value, rooms(row.value)))
    if event.kind == "entered":
        return bool(row.value) and row.value != GONE if event.place is None else row.value == event.place
    return event.kind == "state" or row.value in ("", GONE)


class NoMemory:
    """What is in view now; nothing else."""

    name = "no_memory"

    def answer(self, put: Put, log: Log) -> Answer:
        """Only questions about now can be answered: where something is, in which state it is."""
        query, now = put.query, put.now.timestamp()
        about_now = query.when is None or (query.when.end is not None and query.when.end.timestamp() >= now - 60)
        if query.kind not in ("location", "state") or query.events or query.anchor or not about_now:
            return NOTHING
        rows = [r for r in log.rows if r.thing == query.subject and r.last >= now - 120 and r.value]
        return _said(rows[-1].value, rows[-1:]) if rows else NOTHING


class LastSeen:
    """A table with one line for each thing: its last place or state, since when, and who stood by."""

    name = "last_seen"

    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms

    def answer(self, put: Put, log: Log) -> Answer:
        """From the last line of each thing alone."""
        table: dict[str, Row] = {}
        changed: dict[str, Row] = {}
        for row in log.rows:
            if row.value:
                table[row.thing] = row
            if row.changed and row.value:
                changed[row.thing] = row
        query = put.query
        if query.kind in ("location", "state", "usual_place"):
            known = table.get(query.subject or "")
            return _said(known.value, [known]) if known else NOTHING
        if query.kind == "changed":
            start, end = _span(query.when, put)
            rows = [
                r
                for r in changed.values()
                if r.role == ITEM and start <= r.first <= end and self._there(r, query.object)
            ]
            return _said(sorted(r.thing for r in rows), rows) if rows else NOTHING
        events = [changed.get(e.thing or "") for e in query.events]
        found = [r for r in events if r is not None]
        if not found or len(found) < len(query.events):
            return NOTHING
        latest = found[0]
        if query.kind == "who_did":
            return _said(latest.by, [latest]) if latest.by else NOTHING
        if query.kind == "when_happened":
            return _said(_moment(latest.first), [latest])
        if query.kind == "usual_time":
            return _said(datetime.fromtimestamp(latest.first, UTC).time(), [latest])
        if query.kind == "order":
            return _said([r.thing for r in sorted(found, key=lambda r: r.first)], found)
        if query.kind == "count":
            return _said(1, [latest])
        return _said(latest.by, [latest]) if query.kind == "why" and latest.by else NOTHING

    def _there(self, row: Row, room: str | None) -> bool:
        return room in (None, row.value, self._rooms(row.value))


class Sql:
    """All rows in a table, asked in SQL: the last row before a time, counts, groups, orders."""

    name = "sql"

    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms
        self._db = sqlite3.connect(":memory:")
        self._db.execute("create table seen (seq, first, last, role, thing, value, room, by, changed)")
        self._taken = 0

    def _level(self, log: Log) -> None:
        more = [
            (r.seq, r.first, r.last, r.role, r.thing, r.value, self._rooms(r.value), r.by, r.changed)
            for r in log.rows[self._taken :]
        ]
        self._db.executemany("insert into seen values (?,?,?,?,?,?,?,?,?)", more)
        self._taken = len(log.rows)

    def _ask(self, where: str, *values: Any, order: str = "first, seq", limit: int = 1000) -> list[Row]:
        found = self._db.execute(
            f"select seq, first, last, role, thing, value, by, changed from seen where {where} "
            f"order by {order} limit {limit}",
            values,
        )
        return [Row(line[0], line[1], line[2], line[3], line[4], line[5], line[6], bool(line[7])) for line in found]

    def answer(self, put: Put, log: Log) -> Answer:
        """One query for each kind of question."""
        self._level(log)
        query = put.query
        start, end = _span(query.when, put)
        if query.kind in ("location", "state"):
            return self._where(put, start, end)
        if query.kind == "usual_place":
            return self._usual(put)
        if query.kind == "changed":
            rows = self._ask("role = 'item' and changed and value != '' and first between ? and ?", start, end)
            rows = [r for r in rows if query.object in (None, self._rooms(r.value))]
            return _said(sorted({r.thing for r in rows}), rows) if rows else NOTHING
        if not query.events:
            return NOTHING
        if query.anchor is not None:
            start, end = self._cut(query, start, end)
        found = [self._happened(event, start, end) for event in query.events]
        if not all(found):
            return NOTHING
        rows = found[0]
        row = rows[0] if query.order == "first" else rows[-1]
        if query.kind == "who_did":
            return _said(row.by, [row]) if row.by else NOTHING
        if query.kind == "when_happened":
            return _said(_moment(row.first), [row])
        if query.kind == "count":
            return _said(len(rows), rows)
        if query.kind == "order":
            first = [r[0] for r in found]
            return _said([r.thing for r in sorted(first, key=lambda r: r.first)], first)
        if query.kind == "usual_time":
            by_day = {datetime.fromtimestamp(r.first, UTC).date(): r.first % 86400 // 60 for r in rows}
            middle = int(median(by_day.values()))
            return _said(time(middle // 60, middle % 60), rows)
        return self._why(row) if query.kind == "why" else NOTHING

    def _happened(self, event: Happening, start: int, end: int) -> list[Row]:
        rows = self._ask("changed and first >= ? and first < ?", start, end)
        return [r for r in rows if _fits(r, event, self._rooms)]

    def _cut(self, query: Query, start: int, end: int) -> tuple[int, int]:
        assert query.anchor is not None
        rows = self._happened(query.anchor, start, end)
        if not rows:
            return start, end
        at = rows[-1].first
        return {"before": (start, at), "after": (at, end)}.get(query.relation or "when", (at - 600, at + 600))

    def _where(self, put: Put, start: int, end: int) -> Answer:
        query = put.query
        at = (start + end) // 2 if query.when and end - start <= 7200 else end
        if query.events:
            rows = self._happened(query.events[0], start, end)
            if not rows:
                return NOTHING
            at = rows[-1].first - 1 if query.side == "origin" else rows[-1].first
        elif query.anchor is not None:
            rows = self._happened(query.anchor, start, end)
            if not rows:
                return NOTHING
            at = rows[-1].first - (60 if query.relation == "before" or query.side == "origin" else 0)
        rows = self._ask(
            "thing = ? and value != '' and first <= ?", query.subject, at, order="first desc, seq desc", limit=1
        )
        return _said(rows[0].value, rows) if rows else NOTHING

    def _usual(self, put: Put) -> Answer:
        low, high = _HOURS.get(next(iter(put.query.habit), ""), (0, 24))
        rows = self._ask("thing = ? and value not in ('', 'gone', 'me')", put.query.subject)
        spent: Counter[str] = Counter()
        for row in rows:
            if low <= row.first % 86400 // 3600 < high:
                spent[row.value] += row.last - row.first + 60
        return _said(spent.most_common(1)[0][0], rows) if spent else NOTHING

    def _why(self, row: Row) -> Answer:
        """Who stood by; else the change that came most often within a quarter of an hour before such a change."""
        if row.by:
            return _said(row.by, [row])
        before: Counter[str] = Counter()
        for other in self._ask("changed and thing = ? and value = ?", row.thing, row.value):
            near = self._ask(
                "changed and role = 'fixture' and first between ? and ? and seq != ?",
                other.first - 900,
                other.first,
                other.seq,
            )
            before.update({r.thing for r in near})
        return _said(before.most_common(1)[0][0], [row]) if before else NOTHING


class Bm25:
    """The event texts that answer best to the words of a question (Robertson and Zaragoza 2009: k1 1.2, b 0.75).

    A document is the text of an event with its day and time in words, so that a question about Tuesday at ten finds it.
    """

    name = "bm25"

    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms
        self._docs: list[tuple[int, Counter[str]]] = []
        self._df: Counter[str] = Counter()
        self._by_seq: dict[int, list[Row]] = {}
        self._taken = self._rows = 0

    def _level(self, log: Log) -> None:
        for seq, at, text in log.texts[self._taken :]:
            words = Counter(_words(f"{text} {datetime.fromtimestamp(at, UTC):%A %H:%M %d %B}"))
            self._docs.append((seq, words))
            self._df.update(words.keys())
        for row in log.rows[self._rows :]:
            self._by_seq.setdefault(row.seq, []).append(row)
        self._taken, self._rows = len(log.texts), len(log.rows)

    def _best(self, text: str, number: int) -> list[int]:
        wanted = [w for w in _words(text) if w in self._df]
        count = len(self._docs)
        mean = sum(sum(d.values()) for _, d in self._docs) / max(1, count)
        scored = []
        for seq, doc in self._docs:
            size = sum(doc.values())
            score = 0.0
            for word in wanted:
                if word in doc:
                    idf = math.log(1 + (count - self._df[word] + 0.5) / (self._df[word] + 0.5))
                    score += idf * doc[word] * 2.2 / (doc[word] + 1.2 * (0.25 + 0.75 * size / mean))
            scored.append((score, seq))
        return [seq for score, seq in sorted(scored, reverse=True)[:number] if score > 0]

    def answer(self, put: Put, log: Log) -> Answer:
        """The value that the best events hold for what is asked."""
        self._level(log)
        query = put.query
        day = f" {query.when.start:%A %d %B}" if query.when and query.when.start else ""
        rows = [row for seq in self._best(put.text + day, 8) for row in self._by_seq.get(seq, ())]
        if query.kind in ("location", "state", "usual_place"):
            mine = [r for r in rows if r.thing == query.subject and r.value]
            return _said(mine[0].value, mine[:1]) if mine else NOTHING
        if query.kind == "changed":
            mine = [
                r
                for r in rows
                if r.role == ITEM and r.changed and r.value and query.object in (None, self._rooms(r.value))
            ]
            return _said(sorted({r.thing for r in mine}), mine) if mine else NOTHING
        found = [[r for r in rows if _fits(r, event, self._rooms)] for event in query.events]
        if not found or not all(found):
            return NOTHING
        row = found[0][0]
        if query.kind == "who_did" or (query.kind == "why" and row.by):
            return _said(row.by, [row]) if row.by else NOTHING
        if query.kind == "when_happened":
            return _said(_moment(row.first), [row])
        if query.kind == "count":
            return _said(len(found[0]), found[0])
        if query.kind == "order":
            return _said([r[0].thing for r in sorted(found, key=lambda r: r[0].first)], [r[0] for r in found])
        if query.kind == "usual_time":
            return _said(datetime.fromtimestamp(row.first, UTC).time(), [row])
        near = [r for r in rows if r.role == FIXTURE and r.thing != row.thing]
        return _said(near[0].thing, near[:1]) if query.kind == "why" and near else NOTHING


def _words(text: str) -> Iterable[str]:
    return (w for w in re.findall(r"\w+", text.lower()) if w not in _COMMON)


_COMMON = frozenset(
    "the a an is are was were in on at to of and or did do does when where who how what which it".split()
)


def rivals(rooms: Rooms) -> list[Rival]:
    """All of this module, fresh."""
    return [NoMemory(), LastSeen(rooms), Bm25(rooms), Sql(rooms)]


__all__ = ["NOTHING", "Put", "Rival", "resolved", "rivals"]
