"""The memory graph: a bounded networkx view of what is remembered, and GraphML for other programs.

It knows how facts, records and outages hang together; it does not know how they are drawn. A view is made of indexed
queries with limits, never of the whole store: a million nodes resident would cost gigabytes.

Nodes are named ``KIND:KEY`` (``entity:spare key``, ``event:12``); every attribute is a str, int, float or bool.

    kind       key              attributes
    entity     entity key       label, facts (in this view); "in the drawer" and "the drawer" are one entity
    event      seq              time, end, text, labels ("bicycle 0.91, road 0.40"), source, trust, recorded and, if it
                                has a key frame, frame, frame_pack, frame_offset, frame_length (its `records.Blob`)
    told       seq              time, end, text, speaker, source, trust, recorded
    asked, answered, intent, outcome: seq; as told, without a speaker
    outage     seq of the boot  time, end, text, clean

    edge       from -> to                     attributes
    fact       entity -> entity               predicate, value (as told: "in the drawer"), fact (id), valid_from,
                                              valid_to, known_from, known_to ("" where unbounded), trust, negated, by,
                                              evidence and ended_by (seqs: "3,7")
    evidence   entity -> record               fact: the record made that fact
    evidence   answered -> record             the answer rests on it
    mentions   event, told, ... -> entity     its words or labels name the entity
    next       event -> event                 the following event of this view
    cause      intent -> record               the record that asked for the act
    outcome    intent -> outcome              how it ended
    answers    answered -> asked              the question
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import networkx as nx
import sqlalchemy as sa

from ..clock import from_us, to_us
from ..errors import BadInput
from ..perception.words import ARTICLES, PLACE_PREPOSITIONS, entity_key
from ..records import Blob, Interval, Record
from .database import translated
from .directory import write_atomically
from .names import thing_key
from .schema import fact_sources, facts, records

if TYPE_CHECKING:
    from .memory import Memory

RECORD_KINDS = ("event", "told", "asked", "answered", "intent", "outcome")
"""Kinds of record that are nodes of their own; a ``boot`` after a gap is an outage."""

_HOPS = 3
_PREPOSITION_KEYS = sorted({entity_key(word) for word in PLACE_PREPOSITIONS})
_NOT_XML = re.compile("[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def memory_graph(memory: Memory, *, about: str | None, when: Interval | None, limit: int) -> nx.MultiDiGraph:
    """A view of at most ``limit`` nodes, the same for the same memory.

    Half of the nodes at most are entities: those of the newest facts, or those nearest to ``about``. The rest are
    outages, the records that made these facts, and the newest records (those that mention ``about``).

    Args:
        memory: what to look at; its facts have caught up.
        about: an entity to start from, in any wording; None for everything.
        when: world time that records and the validity of facts must overlap.
        limit: most nodes, from 1.

    Raises:
        BadInput: ``limit`` is below 1.
    """
    if limit < 1:
        raise BadInput(f"expected a limit of at least 1 node, got {limit}")
    view = nx.MultiDiGraph()
    rows = _facts_around(memory, about, when, max(1, limit // 2))
    sources = _sources(memory, [row.id for row in rows])
    for row in rows:
        _add_fact(view, row, sources.get((row.id, False), ()), sources.get((row.id, True), ()))
    boots = _boots(memory, when, limit // 8)
    shown = _records(memory, about, when, sources.values(), limit - len(view) - len(boots))
    for boot in boots:
        if when is not None or not shown or boot.recorded > min(record.start for record in shown):
            _add_outage(view, boot)
    for record in shown:
        _add_record(view, record)
    _connect(view, memory.journal.get(data["seq"] for _, data in view.nodes(data=True) if "seq" in data))
    return view


def export_graphml(graph: nx.MultiDiGraph, path: Path | str) -> None:
    """Write ``graph`` as GraphML, replacing ``path`` whole or not at all.

    ``networkx.read_graphml(path, force_multigraph=True)`` gives it back.

    Raises:
        StorageError: the disk refused.
    """
    text = "\n".join(nx.generate_graphml(graph)) + "\n"
    with translated(f"writing {path}"):
        write_atomically(Path(path), text.encode())


def frame_of(node: Mapping[str, Any]) -> Blob | None:
    """The key frame that an ``event`` node names, if it has one."""
    if "frame" not in node:
        return None
    return Blob(node["frame"], "frame", node["frame_pack"], node["frame_offset"], node["frame_length"])


def seqs_of(fact: Mapping[str, Any], name: str) -> list[int]:
    """The record numbers in ``evidence`` or ``ended_by`` of a fact edge."""
    return [int(text) for text in fact[name].split(",") if text]


# ------------------------------------------------------------------- queries


def _facts_around(memory: Memory, about: str | None, when: Interval | None, most: int) -> list[sa.Row[Any]]:
    """Facts, newest first within a hop, whose ends are at most ``most`` entities."""
    ends: set[str] = set()
    if about is None:
        return _fitting(_facts(memory, None, when, 2 * most), ends, most)
    reached = {_bare_key(name) for name in (about, *(fact.subject for fact in memory.facts(about)[:most]))}
    frontier = sorted(reached)
    found: dict[int, sa.Row[Any]] = {}
    for _ in range(_HOPS):
        rows = _fitting(_facts(memory, frontier, when, 2 * most), ends, most)
        found |= {row.id: row for row in rows}
        frontier = sorted(ends - reached)
        reached |= ends
        if not frontier:
            break
    return list(found.values())


def _fitting(rows: Sequence[sa.Row[Any]], entities: set[str], most: int) -> list[sa.Row[Any]]:
    """The rows that keep ``entities``, which grows, within ``most``."""
    kept = []
    for row in rows:
        ends = {_bare_key(row.subject), _bare_key(row.object)}
        if len(entities | ends) <= most:
            entities |= ends
            kept.append(row)
    return kept


def _facts(memory: Memory, keys: Sequence[str] | None, when: Interval | None, limit: int) -> list[sa.Row[Any]]:
    """The newest facts, of ``keys`` if they are given."""
    # What the same record made and ended was never believed: a step on the way to what a sentence says.
    bounds = [sa.or_(facts.c.known_to_us.is_(None), facts.c.known_to_us > facts.c.known_from_us)]
    if when is not None and when.start is not None:
        bounds.append(sa.or_(facts.c.valid_to_us.is_(None), facts.c.valid_to_us > to_us(when.start)))
    if when is not None and when.end is not None:
        bounds.append(sa.or_(facts.c.valid_from_us.is_(None), facts.c.valid_from_us < to_us(when.end)))
    query, owner = sa.select(facts).where(*bounds).limit(limit), memory.settings.owner
    # SQLite is led to the right index: by number for the newest, by name for the rest (0.9 s else, of 200,000 facts).
    if keys is None:
        mine = query.where(sa.func.coalesce(facts.c.owner, "") == owner).order_by(facts.c.id.desc())
        return list(_fetch(memory, mine))
    values = [*keys, *(f"{preposition} {key}" for key in keys for preposition in _PREPOSITION_KEYS)]
    rows: dict[int, sa.Row[Any]] = {}
    for named in (facts.c.subject_key.in_(keys), facts.c.object_key.in_(values)):
        mine = query.where(facts.c.owner == owner, named).order_by(sa.func.coalesce(facts.c.id, 0).desc())
        rows |= {row.id: row for row in _fetch(memory, mine)}
    return [rows[number] for number in sorted(rows, reverse=True)[:limit]]


def _sources(memory: Memory, ids: Sequence[int]) -> dict[tuple[int, bool], list[int]]:
    """The records that made a fact (fact, False) and that ended it (fact, True), in order."""
    found: dict[tuple[int, bool], list[int]] = {}
    query = sa.select(fact_sources).where(fact_sources.c.fact.in_(ids))
    for row in _fetch(memory, query.order_by(fact_sources.c.seq)):
        found.setdefault((row.fact, row.ends), []).append(row.seq)
    return found


def _boots(memory: Memory, when: Interval | None, limit: int) -> list[Record]:
    """The newest ``limit`` boots after an outage that overlaps ``when``, oldest first."""
    when = when or Interval()
    bounds: list[sa.ColumnElement[bool]] = []
    if when.start is not None:
        bounds.append(records.c.wall_us > to_us(when.start))
    if when.end is not None:  # the first boot after the end may close a gap that began before it
        end_us = to_us(when.end)
        after = sa.select(sa.func.min(records.c.seq)).where(records.c.kind == "boot", records.c.wall_us >= end_us)
        bounds.append(sa.or_(records.c.wall_us < end_us, records.c.seq == after.scalar_subquery()))
    boots = memory.journal.get(_newest(memory, ["boot"], limit, bounds))
    gaps = [(boots[seq], boots[seq].payload["previous_us"]) for seq in sorted(boots)]
    return [b for b, us in gaps if us is not None and (when.end is None or from_us(us) < when.end)]


def _records(
    memory: Memory, about: str | None, when: Interval | None, sources: Iterable[Sequence[int]], limit: int
) -> list[Record]:
    """At most ``limit`` records: such as made the facts, then the newest or those that mention ``about``."""
    limit = max(0, limit)
    evidence = sorted({seq for seqs in sources for seq in seqs}, reverse=True)
    if about is None:
        others, evidence = _newest(memory, RECORD_KINDS, limit, _overlapping(when)), evidence[: limit // 2]
    else:
        found = memory.recall(None, when, max(1, limit), entity=about, kinds=["event", "told"])
        others = [hit.record.seq for hit in found.hits]
    bounds = [records.c.seq.in_(evidence), *_overlapping(when)]
    inside = _newest(memory, RECORD_KINDS, len(evidence), bounds)
    stored = memory.journal.get(list(dict.fromkeys([*inside, *others]))[:limit])
    return [stored[seq] for seq in sorted(stored)]


def _newest(memory: Memory, kinds: Sequence[str], limit: int, bounds: Sequence[sa.ColumnElement[bool]]) -> list[int]:
    """Numbers of the newest records within ``bounds``, newest first."""
    # Each kind by the index on (kind, seq): one query over all kinds would sort the whole journal.
    found: list[int] = []
    for kind in kinds:
        query = sa.select(records.c.seq).where(
            records.c.kind == kind, records.c.owner == memory.settings.owner, *bounds
        )
        found += [row.seq for row in _fetch(memory, query.order_by(records.c.seq.desc()).limit(limit))]
    return sorted(found, reverse=True)[:limit]


def _overlapping(when: Interval | None) -> list[sa.ColumnElement[bool]]:
    bounds: list[sa.ColumnElement[bool]] = []
    if when is not None and when.end is not None:
        bounds.append(records.c.start_us < to_us(when.end))
    if when is not None and when.start is not None:
        start_us = to_us(when.start)
        bounds.append(sa.or_(records.c.end_us > start_us, records.c.start_us >= start_us))
    return bounds


def _fetch(memory: Memory, query: sa.Select[Any]) -> Sequence[sa.Row[Any]]:
    with translated("reading the memory graph"), memory._engine.connect() as connection:
        return connection.execute(query).all()


# -------------------------------------------------------------------- adding


def _add_fact(view: nx.MultiDiGraph, row: sa.Row[Any], made: Sequence[int], ended: Sequence[int]) -> None:
    ends = []
    for name in (row.subject, row.object):
        node = f"entity:{_bare_key(name)}"
        if node not in view:
            view.add_node(node, kind="entity", label=_clean(_bare(name)), facts=0)
        view.nodes[node]["facts"] += 1
        ends.append(node)
    view.add_edge(
        *ends,
        kind="fact",
        predicate=_clean(row.predicate),
        value=_clean(row.object),
        fact=row.id,
        valid_from=_iso(row.valid_from_us),
        valid_to=_iso(row.valid_to_us),
        known_from=_iso(row.known_from_us),
        known_to=_iso(row.known_to_us),
        trust=row.trust,
        negated=bool(row.negated),
        by=_clean(row.by or ""),
        evidence=",".join(map(str, made)),
        ended_by=",".join(map(str, ended)),
    )


def _add_outage(view: nx.MultiDiGraph, boot: Record) -> None:
    since, clean = from_us(boot.payload["previous_us"]), bool(boot.payload["previous_clean"])
    view.add_node(
        f"outage:{boot.seq}",
        kind="outage",
        seq=boot.seq,
        time=since.isoformat(),
        end=boot.recorded.isoformat(),
        text="closed on purpose" if clean else "cut off",
        clean=clean,
    )


def _add_record(view: nx.MultiDiGraph, record: Record) -> None:
    node: dict[str, Any] = {
        "kind": record.kind,
        "seq": record.seq,
        "time": record.start.isoformat(),
        "end": record.end.isoformat(),
        "recorded": record.recorded.isoformat(),
        "text": _clean(_text(record)),
        "source": _clean(record.source),
        "trust": record.trust.value,
    }
    if record.kind == "told":
        node["speaker"] = _clean(record.payload["speaker"])
    if record.kind == "event":
        node["labels"] = _clean(", ".join(f"{name} {share:.2f}" for name, share in record.payload["labels"]))
        frames = record.payload["key_frames"]
        if frames:
            blob = record.blobs[max(frames, key=lambda frame: frame["novelty"])["frame"]]
            node |= {"frame": blob.sha256, "frame_pack": blob.pack}
            node |= {"frame_offset": blob.offset, "frame_length": blob.length}
    view.add_node(f"{record.kind}:{record.seq}", **node)


def _text(record: Record) -> str:
    values = record.payload
    match record.kind:
        case "asked":
            return str(values["question"])
        case "intent":
            return f"{values['tool']}({', '.join(f'{k}={v!r}' for k, v in values['arguments'].items())})"
        case "outcome":
            return ": ".join(str(v) for v in (values["status"], values["error"] or values["result"]) if v is not None)
        case _:
            return str(values["text"])


# ---------------------------------------------------------------- connecting


def _connect(view: nx.MultiDiGraph, found: Mapping[int, Record]) -> None:
    """Draw every edge between nodes that are in the view."""
    nodes = {data["seq"]: name for name, data in view.nodes(data=True) if "seq" in data}
    intents = {r.payload["intent"]: nodes[r.seq] for r in found.values() if r.kind == "intent"}
    for seq in sorted(found):
        record, values = found[seq], found[seq].payload
        if record.kind == "answered":
            _edge(view, nodes[seq], nodes.get(values["asked"]), "answers")
            for source in values["evidence"]:
                _edge(view, nodes[seq], nodes.get(source), "evidence")
        elif record.kind == "intent":
            _edge(view, nodes[seq], nodes.get(values["cause"]), "cause")
        elif record.kind == "outcome":
            _edge(view, intents.get(values["intent"]), nodes[seq], "outcome")
    for one, other in pairwise(seq for seq in sorted(found) if found[seq].kind == "event"):
        _edge(view, nodes[one], nodes[other], "next")
    _connect_evidence(view, nodes)
    _connect_mentions(view)


def _connect_evidence(view: nx.MultiDiGraph, nodes: Mapping[int, str]) -> None:
    for subject, object_, data in [edge for edge in view.edges(data=True) if edge[2]["kind"] == "fact"]:
        for seq in seqs_of(data, "evidence"):
            for entity in dict.fromkeys((subject, object_)):
                if seq in nodes:
                    view.add_edge(entity, nodes[seq], kind="evidence", fact=data["fact"])


def _connect_mentions(view: nx.MultiDiGraph) -> None:
    entities = [(name, f" {name[7:]} ") for name in view if name.startswith("entity:") and name != "entity:"]
    for name, data in list(view.nodes(data=True)):
        if data["kind"] in RECORD_KINDS:
            words = f" {entity_key(data['text'])} . {entity_key(data.get('labels', ''))} "
            for entity, key in entities:
                if key in words:
                    view.add_edge(name, entity, kind="mentions")


def _edge(view: nx.MultiDiGraph, one: str | None, other: str | None, kind: str) -> None:
    if one is not None and other is not None:
        view.add_edge(one, other, kind=kind)


def _bare(name: str) -> str:
    """The thing in a phrase of place: "drawer" of "in the drawer"."""
    words = name.split()
    while len(words) > 1 and words[0] in PLACE_PREPOSITIONS | ARTICLES:
        del words[0]
    return " ".join(words)


def _bare_key(name: str) -> str:
    return thing_key(_bare(name))


def _iso(microseconds: int | None) -> str:
    return "" if microseconds is None else from_us(microseconds).isoformat()


def _clean(text: str) -> str:
    """Text that XML can hold and gives back unchanged."""
    return _NOT_XML.sub("\ufffd", text.replace("\r\n", "\n").replace("\r", "\n"))
