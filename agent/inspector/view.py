"""What the parts of the page look at, and how they write words, times and links. It knows HTML, not the layout."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from html import escape
from typing import Any
from zoneinfo import ZoneInfo

import networkx as nx

from ...records import Record
from .pictures import Picture

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_UNSHOWABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
LANES = {"event": "seen", "told": "told", "asked": "said", "answered": "said", "intent": "did", "outcome": "did"}
"""The colour of each kind of record."""
VERBS = {"event": "Seen", "told": "Told", "asked": "Asked", "answered": "Answered", "intent": "Meant to do"}


@dataclass(frozen=True)
class View:
    """A bounded piece of memory, ready to be written down."""

    graph: nx.MultiDiGraph
    records: Mapping[int, Record]
    """The records of the graph's nodes, by seq, in order."""
    pictures: Mapping[int, list[Picture]]
    zone: ZoneInfo
    now: datetime
    """When the newest record of the journal was written: what "now" means on the page."""

    @cached_property
    def things(self) -> dict[str, str]:
        """Anchor of each entity, by its node."""
        names = (name for name, kind in self.graph.nodes(data="kind") if kind == "entity")
        return {name: f"e{number}" for number, name in enumerate(names, 1)}

    @cached_property
    def facts(self) -> list[tuple[str, str, dict[str, Any]]]:
        """Facts as (subject, object, attributes), newest belief first."""
        return [edge for edge in self.graph.edges(data=True) if edge[2]["kind"] == "fact"]

    @cached_property
    def _revisions(self) -> set[tuple[object, ...]]:
        return {_claim(*fact, "known_from") for fact in self.facts}

    def state(self, fact: Mapping[str, Any]) -> str:
        """What has become of a fact.

        ``held``: believed, and it holds. ``past``: believed, and it holds no longer. ``revised``: the same is believed
        for another time. ``back``: taken back.
        """
        if not fact["known_to"]:
            return "past" if fact["valid_to"] and datetime.fromisoformat(fact["valid_to"]) <= self.now else "held"
        one, other = self._ends[fact["fact"]]
        return "revised" if _claim(one, other, fact, "known_to") in self._revisions else "back"

    @cached_property
    def _ends(self) -> dict[int, tuple[str, str]]:
        return {data["fact"]: (one, other) for one, other, data in self.facts}

    @cached_property
    def outages(self) -> list[tuple[int, datetime, datetime, bool]]:
        """(seq of the boot, since, until, whether on purpose)"""
        nodes = [data for _, data in self.graph.nodes(data=True) if data["kind"] == "outage"]
        times = datetime.fromisoformat
        return [(data["seq"], times(data["time"]), times(data["end"]), data["clean"]) for data in nodes]

    @cached_property
    def anchors(self) -> dict[int, str]:
        """Anchor of each record; a question is shown with its answer."""
        anchors = {seq: f"r{seq}" for seq in [*self.records, *(outage[0] for outage in self.outages)]}
        for record in self.records.values():
            if record.kind == "answered" and record.payload["asked"] in self.records:
                anchors[record.payload["asked"]] = f"r{record.seq}"
        return anchors

    def shown(self) -> Iterator[Record]:
        """Records with a card of their own."""
        return (record for seq, record in self.records.items() if self.anchors[seq] == f"r{seq}")

    def neighbours(self, node: str, kind: str, *, back: bool = False) -> list[str]:
        """Nodes at the other end of the edges of one kind, each once, in order."""
        edges = self.graph.in_edges(node, data="kind") if back else self.graph.out_edges(node, data="kind")
        return list(dict.fromkeys(one if back else other for one, other, found in edges if found == kind))

    # ------------------------------------------------------------------ words

    def clock(self, moment: datetime, *, seconds: bool = True) -> str:
        """``08:53:01``"""
        return f"{moment.astimezone(self.zone):{'%H:%M:%S' if seconds else '%H:%M'}}"

    def day(self, moment: datetime) -> str:
        """``Tue 17 Nov``"""
        local = moment.astimezone(self.zone)
        return f"{_DAYS[local.weekday()]} {local.day} {_MONTHS[local.month - 1]}"

    def moment(self, moment: datetime) -> str:
        """``Tue 17 Nov 2026, 08:53:01``"""
        return f"{self.day(moment)} {moment.astimezone(self.zone).year}, {self.clock(moment)}"

    def stamp(self, iso: str, unbounded: str) -> str:
        """The moment in an attribute of the graph, or words for "" (unbounded)."""
        return self.moment(datetime.fromisoformat(iso)) if iso else unbounded

    def link(self, seq: int) -> str:
        """A line that leads to a record, if it is on the page."""
        record = self.records.get(seq)
        if record is None:
            return f'<a class="mute">record {seq}, not on this page</a>'
        verb = VERBS.get(record.kind, record.kind.capitalize())
        text = words(self.graph.nodes[f"{record.kind}:{seq}"]["text"], 90)
        return f'<a href="#{self.anchors[seq]}">{text}<small>{verb}, {self.moment(record.start)}</small></a>'

    def thing(self, node: str) -> str:
        """A link to an entity."""
        return f'<a href="#{self.things[node]}">{words(self.graph.nodes[node]["label"], 80)}</a>'


def _claim(one: str, other: str, fact: Mapping[str, Any], time: str) -> tuple[object, ...]:
    return one, other, fact["predicate"], fact["negated"], fact[time]


def words(text: object, most: int | None = None) -> str:
    """Any text as HTML, made harmless, and isolated in its direction."""
    return f"<bdi>{attribute(text, most)}</bdi>"


def attribute(text: object, most: int | None = 300) -> str:
    """Any text as the value of an attribute: escaped, without control characters, cut after ``most`` characters."""
    plain = _UNSHOWABLE.sub("\ufffd", str(text))
    return escape(plain if most is None else shorten(plain, most))


def shorten(text: str, most: int) -> str:
    """At most ``most`` characters, the last an ellipsis if some are missing."""
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


def length(span: timedelta) -> str:
    """``1.6 s``, ``22 min``, ``5 h 17 min``, ``3 d 4 h``"""
    seconds = span.total_seconds()
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    for size, unit, small_size, small in ((1440, "d", 60, "h"), (60, "h", 1, "min")):
        if minutes >= size:
            rest = minutes % size // small_size
            return f"{minutes // size} {unit}" + (f" {rest} {small}" if rest else "")
    raise AssertionError("an hour has sixty minutes")


def links(lines: Iterable[str]) -> str:
    """A list of links."""
    return f'<ul class="links">{"".join(f"<li>{line}</li>" for line in lines)}</ul>'
