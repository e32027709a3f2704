"""What a robot's journal says it saw, as plain rows: the ground on which rivals answer.

One row is one thing at one place (or in one state, or one person in one room) from a first to a last look, as the
events of the journal say it. Nothing of the world model is in it but the map: which fixture stands in which room.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from perdure.records import Record

PERSON, FIXTURE, ITEM = "person", "fixture", "item"
GONE = "gone"
ME = "me"


@dataclass(frozen=True, slots=True)
class Row:
    """One stretch of looks that agree."""

    seq: int
    first: int
    """Seconds since the epoch."""
    last: int
    role: str
    """``item``, ``fixture`` or ``person``."""
    thing: str
    value: str
    """Place, state or room; empty for "no longer there"."""
    by: str | None
    changed: bool
    """Whether it was seen to have become so, not seen as before."""


@dataclass
class Log:
    """Rows and texts of the events up to now, in the order of the journal."""

    rows: list[Row] = field(default_factory=list)
    texts: list[tuple[int, int, str]] = field(default_factory=list)
    """(seq, seconds, words) of each event."""
    place: dict[str, str] = field(default_factory=dict)
    """The newest place of each item."""

    def take(self, record: Record) -> None:
        """Adds what one event record says; other records are ignored."""
        if record.kind != "event":
            return
        media = record.payload.get("media") or {}
        scene = media.get("scene")
        if not isinstance(scene, Mapping):
            return
        self.texts.append((record.seq, int(record.start.timestamp()), str(record.payload.get("text") or "")))
        self.rows += self._changes(scene, record.seq)
        self.rows += self._spans(scene, record.seq)

    def _changes(self, scene: Mapping[str, Any], seq: int) -> Iterable[Row]:
        act = scene.get("act")
        if act and act.get("thing"):
            yield from self._act(act, int(scene["t"]), seq)
        for entry in scene.get("gone", ()):
            yield Row(seq, entry["since"], entry["since"], ITEM, entry["name"], "", _only(entry), True)
        for entry in scene.get("things", ()):
            value = entry.get("carrier") or entry["place"]
            self.place[entry["name"]] = value
            yield Row(
                seq,
                entry["first"],
                entry["last"],
                ITEM,
                entry["name"],
                value,
                entry.get("carrier") or _only(entry),
                True,
            )
        for entry in scene.get("fixtures", ()):
            by = entry.get("by") or _only(entry)
            yield Row(
                seq,
                entry["first"],
                entry["last"],
                FIXTURE,
                entry["name"],
                entry.get("state") or "",
                by,
                entry.get("was") is not None,
            )
        for entry in scene.get("people", ()):
            value = (entry.get("room") or "") if entry["kind"] == "entered" else str(entry.get("to") or "")
            yield Row(
                seq,
                entry["first"],
                max(entry["first"], entry["last"]),
                PERSON,
                entry["name"],
                value,
                entry["name"],
                True,
            )

    def _act(self, act: Mapping[str, Any], at: int, seq: int) -> Iterable[Row]:
        value = {"pick_up": ME, "put_down": act.get("place"), "give": act.get("place"), "discard": GONE}.get(act["act"])
        if value:
            self.place[act["thing"]] = value
            yield Row(seq, at, at, ITEM, act["thing"], value, ME, True)

    def _spans(self, scene: Mapping[str, Any], seq: int) -> Iterable[Row]:
        for role, name, _, value, first, last in (span[:6] for span in scene.get("spans", ())):
            shown = value or (self.place.get(name, "") if role == ITEM else "")
            if shown:
                yield Row(seq, first, last, role, name, shown, None, False)


def _only(entry: Mapping[str, Any]) -> str | None:
    """The one person beside it, if there was one."""
    near: Sequence[Any] = entry.get("near") or ()
    return str(near[0]) if len(near) == 1 else None


def clock(seconds: int, start: datetime) -> str:
    """``Tue 10:15`` of a time in seconds, in the zone of ``start``."""
    moment = datetime.fromtimestamp(seconds, start.tzinfo)
    return f"{moment:%a %H:%M}"
