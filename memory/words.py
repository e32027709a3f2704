"""Words: the full-text projection of the journal, and the lists that it proposes to a recall.

It knows which text a record is searched by, and SQLite's FTS5. It knows no vectors and fuses nothing.

Each document has its text and, as context, the texts of its two neighbours on either side from the same source: what
was said just before and after. BM25 over both columns, the context at half weight, finds 82.8 % of the evidence of
LoCoMo's development half among the first ten, the text alone 68.8 % (turns, Porter stems, no vectors).
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..clock import to_us
from ..records import Problem, Record
from .projection import BrokenProjectionError
from .schema import documents

NEIGHBOURS = 2
"""Documents of the same source on either side that make the context (1: 79.9 %, 2: 82.8 %, 3: 81.9 % on LoCoMo)."""
CONTEXT_WEIGHT = 0.5
"""Weight of a word of the context in BM25 (0.25: 82.0 %, 0.5: 82.8 %, 0.75: 81.0 %, 1: 79.1 %)."""
_SAME_TALK_US = 3_600_000_000
"""Documents further apart than an hour are no neighbours."""
_BUDGET = 3_000
"""Documents that one ranking may score: FTS5 takes about 1 us for each, so a list takes about 3 ms."""
_NEWEST = 1_000
"""When every word of a question is more common than that, this many of the newest documents a word are looked at."""
_MOST_TERMS = 32
_LAST = 2**62
_MOST_VALUE = 200

_STOP_WORDS = """
    a about after all also am an and any are as at be because been before being both but by can could did do
    does doing during each for from had has have having he her here hers him his how i if in into is it its
    just me might my no nor not of on one or our out over s should so some such t than that the their them
    then there these they this those to too under until up was we were what when where which while who whom
    why will with would you your
"""
_STOP = frozenset(_STOP_WORDS.split())
_ADD = "INSERT INTO documents_fts(rowid, text, context) VALUES (:seq, :text, :context)"
_REMOVE = "INSERT INTO documents_fts(documents_fts, rowid, text, context) VALUES ('delete', :seq, :text, :context)"


@dataclass(frozen=True, slots=True)
class Scope:
    """Which records a recall may find at all. Times in microseconds, ``start <= t < end``."""

    owner: str
    start_us: int | None = None
    end_us: int | None = None
    last_seq: int | None = None
    kinds: tuple[str, ...] | None = None
    entity: str | None = None
    """FTS5 expression that the text must match."""


class Found(NamedTuple):
    """One entry of a list."""

    seq: int
    score: float


def document(record: Record) -> str | None:
    """Text by which a record is searched; None if it is not searched. Empty for an event without words.

    Depends on nothing but the record.
    """
    payload = record.payload
    if record.kind == "told":
        text, speaker = str(payload["text"]), str(payload.get("speaker", "owner"))
        return text if speaker in {"owner", "user"} else f"{speaker}: {text}"
    if record.kind == "event":
        text = str(payload["text"])
        seen = [*payload["labels"], *(label for frame in payload["key_frames"] for label in frame["labels"])]
        names = dict.fromkeys(str(name) for name, _ in seen)
        extra = [name for name in names if name.casefold() not in text.casefold()]
        return " ".join(part for part in (text, f"({', '.join(extra)})" if extra else "") if part)
    if record.kind == "intent":
        arguments = ", ".join(f"{name} {_short(value)}" for name, value in payload["arguments"].items())
        return f"{str(payload['tool']).replace('_', ' ')}: {arguments}".rstrip(": ")
    if record.kind == "outcome":
        said = [payload[name] for name in ("result", "error") if payload.get(name) is not None]
        return ": ".join([str(payload["status"]), *(_short(value) for value in said)])
    return None


def terms_of(query: str) -> list[str]:
    """The words of a question that are worth looking up, lower case, each once; all of them if all are stop words."""
    words = list(dict.fromkeys(re.findall(r"[^\W_]+", unicodedata.normalize("NFC", query).casefold())))
    return [word for word in words if word not in _STOP][:_MOST_TERMS] or words[:_MOST_TERMS]


def all_of(terms: Iterable[str], column: str | None = None) -> str:
    """FTS5 expression for documents that hold every term, in one column or in any."""
    return _within(column, " AND ".join(f'"{term}"' for term in terms))


def any_of(terms: Iterable[str], column: str | None = None) -> str:
    """FTS5 expression for documents that hold at least one term, in one column or in any."""
    return _within(column, " OR ".join(f'"{term}"' for term in terms))


class Words:
    """The projection ``words``: tables ``documents`` and ``documents_fts``."""

    name = "words"
    producer = f"words/1 fts5-porter neighbours-{NEIGHBOURS}"

    def prepare(self, record: Record) -> str | None:
        return document(record)

    def apply(self, tx: Connection, record: Record, prepared: Any) -> None:
        if prepared is None:
            return
        new = _Document(record.seq, prepared, "", to_us(record.start), to_us(record.end))
        window = [*_latest(tx, record), new]
        for at in range(max(0, len(window) - 1 - NEIGHBOURS), len(window) - 1):
            _update_context(tx, window[at], _context(window, at))
        new = new._replace(context=_context(window, len(window) - 1))
        values = {**new._asdict(), "owner": record.owner, "kind": record.kind, "source": record.source}
        _run(
            tx,
            "INSERT INTO documents (seq, owner, kind, source, text, context, start_us, end_us) "
            "VALUES (:seq, :owner, :kind, :source, :text, :context, :start_us, :end_us)",
            values,
        )
        _run(tx, _ADD, new._asdict())

    def reset(self, tx: Connection) -> None:
        tx.execute(documents.delete())
        tx.exec_driver_sql("INSERT INTO documents_fts(documents_fts) VALUES ('delete-all')")

    def digest(self, connection: Connection) -> str:
        hashed = hashlib.sha256()
        for row in connection.execute(sa.select(documents).order_by(documents.c.seq)).yield_per(500):
            hashed.update(json.dumps(list(row), separators=(",", ":")).encode())
        return hashed.hexdigest()

    def check(self, connection: Connection) -> list[Problem]:
        """The full-text index holds exactly the documents. A read-only connection can only compare their number."""
        repair = "perdure rebuild DIR words"
        counts = [
            connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar()
            for table in ("documents", "documents_fts_docsize")
        ]
        if counts[0] != counts[1]:
            return [Problem("words", f"{counts[0]} documents, {counts[1]} of them in the full-text index", repair)]
        if connection.exec_driver_sql("PRAGMA query_only").scalar():
            return []
        try:
            connection.exec_driver_sql("INSERT INTO documents_fts(documents_fts, rank) VALUES ('integrity-check', 1)")
        except sa.exc.OperationalError as error:
            if "readonly" in str(error.orig):
                return []
            return [Problem("words", f"the full-text index cannot be read: {error.orig}", repair)]
        except sa.exc.DatabaseError as error:
            return [Problem("words", f"the full-text index does not agree with the documents: {error.orig}", repair)]
        return []


class _Where(NamedTuple):
    """Conditions on the table ``documents`` and what they are worth to the full-text index."""

    sql: str
    parameters: dict[str, Any]
    low: int
    high: int
    is_narrow: bool
    """So few documents are in scope that all of them can be scored."""


class WordSearch:
    """The lists that words propose. One instance a process; it remembers which words are common."""

    def __init__(self) -> None:
        self._common: dict[str, int] = {}
        self._longest = (0, 0)

    def ranked(self, connection: Connection, terms: Sequence[str], scope: Scope, depth: int) -> list[Found]:
        """Documents by BM25 over text and context, best first, ties by seq; scores are larger for better ones.

        Words are taken from the rarest on, for as long as they are in at most 3,000 documents together. When even the
        rarest is in more, the newest documents with most of the words are proposed: BM25 could hardly tell them apart.

        Args:
            terms: from `terms_of`.
            scope: what may be found.
            depth: most entries.
        """
        where = self._where(connection, scope)
        counts = self._counts(connection, terms)
        present = sorted((term for term in terms if counts[term]), key=lambda term: (counts[term], term))
        kept = present if where.is_narrow else _affordable(present, counts)
        if not present:
            return []
        if not kept:
            return self._newest(connection, present, scope, where, depth)
        rows = _match(
            connection,
            f"f.rowid, bm25(documents_fts, 1.0, {CONTEXT_WEIGHT}) AS score",
            _and(any_of(kept), scope.entity),
            where,
            "score, f.rowid",
            depth,
        )
        return [Found(int(row[0]), -float(row[1])) for row in rows]

    def mentions(self, connection: Connection, scope: Scope, expression: str, depth: int) -> list[int]:
        """seq of the newest documents in ``scope`` that match an FTS5 expression, newest first."""
        where = self._where(connection, scope)
        rows = _match(connection, "f.rowid", _and(expression, scope.entity), where, "f.rowid DESC", depth)
        return [int(row[0]) for row in rows]

    def newest(self, connection: Connection, scope: Scope, depth: int) -> list[int]:
        """seq of the documents in ``scope``, newest in world time first; of a frequent entity, the newest known."""
        where = self._where(connection, scope)
        query = sa.select(documents.c.seq)
        if scope.entity is None:
            query = query.where(sa.text(where.sql).bindparams(**where.parameters))
        else:
            rows = _match(connection, "f.rowid", scope.entity, where, "f.rowid DESC", max(depth, _NEWEST))
            query = query.where(documents.c.seq.in_([int(row[0]) for row in rows]))
        query = query.order_by(documents.c.start_us.desc(), documents.c.seq.desc()).limit(depth)
        return [int(row[0]) for row in connection.execute(query)]

    def accepted(self, connection: Connection, scope: Scope, seqs: Sequence[int]) -> set[int]:
        """Those of ``seqs`` that are in ``scope``, whatever list they come from."""
        where = self._where(connection, scope)
        query = sa.select(documents.c.seq).where(sa.text(where.sql).bindparams(**where.parameters))
        found = set()
        for at in range(0, len(seqs), _NEWEST):
            chunk = query.where(documents.c.seq.in_(seqs[at : at + _NEWEST]))
            found |= {int(row[0]) for row in connection.execute(chunk)}
        if scope.entity is None or not found:
            return found
        narrow = where._replace(low=min(found), high=max(found))
        return found & {
            int(row[0]) for row in _match(connection, "f.rowid", scope.entity, narrow, "f.rowid DESC", 20_000)
        }

    def neighbours(self, connection: Connection, seqs: Sequence[int]) -> dict[int, list[int]]:
        """The documents just before and after each of ``seqs`` in the same talk."""
        found: dict[int, list[int]] = {}
        one = (
            "SELECT d.seq, o.seq, {gap} FROM documents d JOIN documents o "
            "ON o.seq = (SELECT {pick}(x.seq) FROM documents x WHERE x.source = d.source AND x.seq {sign} d.seq) "
            "AND o.owner = d.owner WHERE d.seq IN (SELECT value FROM json_each(:seqs))"
        )
        before = one.format(gap="d.start_us - o.end_us", pick="max", sign="<")
        after = one.format(gap="o.start_us - d.end_us", pick="min", sign=">")
        for seq, other, gap in _select(connection, f"{before} UNION ALL {after}", {"seqs": json.dumps(list(seqs))}):
            if abs(gap) <= _SAME_TALK_US:
                found.setdefault(int(seq), []).append(int(other))
        return found

    def matched(self, connection: Connection, terms: Sequence[str], seqs: Sequence[int]) -> dict[int, str]:
        """The words of documents, as they stand there, that match a term."""
        if not terms:
            return {}
        sql = (
            "SELECT rowid, highlight(documents_fts, 0, char(2), char(3)) FROM documents_fts "
            "WHERE documents_fts MATCH :terms AND rowid IN (SELECT value FROM json_each(:seqs))"
        )
        rows = _select(connection, sql, {"terms": any_of(terms, "text"), "seqs": json.dumps(list(seqs))})
        marked = {int(seq): re.findall("\x02(.*?)\x03", text) for seq, text in rows}
        return {seq: ", ".join(dict.fromkeys(word.casefold() for word in words)) for seq, words in marked.items()}

    def _counts(self, connection: Connection, terms: Sequence[str]) -> dict[str, int]:
        """Documents with each term, counted up to just over the budget. A common word stays common."""
        unknown = [term for term in terms if term not in self._common]
        one = "(SELECT count(*) FROM (SELECT 1 FROM documents_fts WHERE documents_fts MATCH :t{} LIMIT :most))"
        found: dict[str, int] = {}
        if unknown:
            parameters = {f"t{at}": any_of([term]) for at, term in enumerate(unknown)}
            sql = f"SELECT {', '.join(one.format(at) for at in range(len(unknown)))}"
            row = _select(connection, sql, {**parameters, "most": _BUDGET + 1})[0]
            found = dict(zip(unknown, map(int, row), strict=True))
        self._common |= {term: count for term, count in found.items() if count > _BUDGET}
        return {term: found.get(term, _BUDGET + 1) for term in terms}

    def _newest(
        self, connection: Connection, terms: Sequence[str], scope: Scope, where: _Where, depth: int
    ) -> list[Found]:
        """Documents by the number of terms that they hold, newest first, out of the newest of each term."""
        held: dict[int, int] = {}
        for expression, worth in [*((any_of([t]), 1) for t in terms), (all_of(terms), len(terms))]:
            for row in _match(connection, "f.rowid", _and(expression, scope.entity), where, "f.rowid DESC", _NEWEST):
                held[int(row[0])] = worth if worth > 1 else held.get(int(row[0]), 0) + 1
        ordered = sorted(held.items(), key=lambda entry: (-entry[1], -entry[0]))
        return [Found(seq, float(worth)) for seq, worth in ordered[:depth]]

    def _where(self, connection: Connection, scope: Scope) -> _Where:
        parts = ["documents.owner = :owner"]
        values: dict[str, Any] = {"owner": scope.owner}
        if scope.end_us is not None:
            parts.append("documents.start_us < :end_us")
            values["end_us"] = scope.end_us
        if scope.start_us is not None:
            # An instant at the start is inside. The last condition lets the index on start_us do the work.
            parts.append("(documents.end_us > :start_us OR documents.start_us >= :start_us)")
            parts.append("documents.start_us >= :earliest_us")
            values |= {"start_us": scope.start_us, "earliest_us": scope.start_us - self._duration(connection)}
        if scope.last_seq is not None:
            parts.append("documents.seq <= :last_seq")
            values["last_seq"] = scope.last_seq
        if scope.kinds is not None:
            names = {f"kind{at}": kind for at, kind in enumerate(scope.kinds)}
            parts.append(f"documents.kind IN ({', '.join(':' + name for name in names)})")
            values |= names
        sql = " AND ".join(parts)
        everything = _Where(sql, values, 0, _LAST, False)
        if scope.start_us is None or scope.end_us is None:
            return everything
        span = f"SELECT min(seq), max(seq), count(*) FROM (SELECT seq FROM documents WHERE {sql} LIMIT {_BUDGET + 1})"
        low, high, count = _select(connection, span, values)[0]
        if count > _BUDGET or (high or 0) - (low or 0) > 4 * _BUDGET:
            return everything
        return _Where(sql, values, int(low or 0), int(high or 0), True)

    def _duration(self, connection: Connection) -> int:
        """Length of the longest document so far, in microseconds."""
        seen, longest = self._longest
        query = sa.select(sa.func.max(documents.c.seq), sa.func.max(documents.c.end_us - documents.c.start_us))
        last, found = connection.execute(query.where(documents.c.seq > seen)).one()
        if last is not None:
            self._longest = (int(last), max(longest, int(found)))
        return self._longest[1]


def _affordable(terms: Sequence[str], counts: dict[str, int]) -> list[str]:
    """The first terms, rarest first, that are in at most `_BUDGET` documents together."""
    kept: list[str] = []
    total = 0
    for term in terms:
        total += counts[term]
        if total > _BUDGET:
            break
        kept.append(term)
    return kept


def _match(
    connection: Connection, columns: str, expression: str, where: _Where, order: str, limit: int
) -> Sequence[Any]:
    sql = (
        f"SELECT {columns} FROM documents_fts f JOIN documents ON documents.seq = f.rowid "
        "WHERE documents_fts MATCH :expression AND f.rowid BETWEEN :low AND :high "
        f"AND {where.sql} ORDER BY {order} LIMIT :limit"
    )
    more = {"expression": expression, "low": where.low, "high": where.high, "limit": limit}
    return _select(connection, sql, {**where.parameters, **more})


def _select(connection: Connection, sql: str, parameters: dict[str, Any]) -> Sequence[Any]:
    """Rows of a statement in SQLite's own words: SQLAlchemy would compile it for longer than most of them run."""
    try:
        return connection.exec_driver_sql(sql, parameters).all()
    except sa.exc.DatabaseError as error:
        if "malformed" not in str(error.orig) and "corrupt" not in str(error.orig):
            raise
        raise BrokenProjectionError(Words.name, str(error.orig)) from error


def _and(expression: str, entity: str | None) -> str:
    return expression if entity is None else f"({expression}) AND ({entity})"


def _within(column: str | None, expression: str) -> str:
    return expression if column is None else f"{column} : ({expression})"


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
    return text if len(text) <= _MOST_VALUE else f"{text[:_MOST_VALUE]}…"


class _Document(NamedTuple):
    """The columns of ``documents`` that contexts are made of."""

    seq: int
    text: str
    context: str
    start_us: int
    end_us: int


def _latest(tx: Connection, record: Record) -> list[_Document]:
    """The newest documents of the record's source, oldest first: all whose context it changes, and their neighbours."""
    sql = (
        "SELECT seq, text, context, start_us, end_us FROM documents "
        "WHERE source = :source AND owner = :owner AND seq < :seq ORDER BY seq DESC LIMIT :most"
    )
    values = {"source": record.source, "owner": record.owner, "seq": record.seq, "most": 2 * NEIGHBOURS}
    return [_Document(*row) for row in reversed(_select(tx, sql, values))]


def _context(window: Sequence[_Document], at: int) -> str:
    """The texts of the neighbours of one document, in order."""
    first = last = at
    while first > 0 and at - first < NEIGHBOURS and _linked(window[first - 1], window[first]):
        first -= 1
    while last < len(window) - 1 and last - at < NEIGHBOURS and _linked(window[last], window[last + 1]):
        last += 1
    return " ".join(near.text for near in window[first : last + 1] if near is not window[at] and near.text)


def _update_context(tx: Connection, old: _Document, context: str) -> None:
    if context == old.context:
        return
    new = old._replace(context=context)._asdict()
    _run(tx, _REMOVE, old._asdict())
    _run(tx, "UPDATE documents SET context = :context WHERE seq = :seq", new)
    _run(tx, _ADD, new)


def _run(tx: Connection, sql: str, values: dict[str, Any]) -> None:
    tx.exec_driver_sql(sql, values)


def _linked(earlier: _Document, later: _Document) -> bool:
    return abs(later.start_us - earlier.end_us) <= _SAME_TALK_US
