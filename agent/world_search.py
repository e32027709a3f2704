"""One question put to one world: names, changes and times as both the question and the world model mean them.

It knows what a question's words stand for in a world and which change is meant if several fit. It does not know what an
answer to each kind of question is (`world_answering`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Protocol

from ..perception.words import PLACE_PREPOSITIONS
from ..records import Change, Estimate, Fact, Interval
from .asking import ARTICLE_LEAD
from .findings import Asked, Finding, describe_time, evidence_of, unknown
from .moves import ME, Happened, fits, joined
from .queries import Happening, Query

DATED = timedelta(minutes=25)
"""A change whose looks are further apart has no time worth saying."""
MOST_EVIDENCE = 5


class Proof(Protocol):
    """What is asked of a memory: records by number, and told facts; `perdure.memory.Memory` is one."""

    @property
    def journal(self) -> Any: ...
    def facts(
        self,
        subject: str | None = None,
        predicate: str | None = None,
        object: str | None = None,
        *,
        at: datetime | Interval | None = None,
        as_of: datetime | None = None,
    ) -> Sequence[Fact]: ...


class World(Protocol):
    """What is asked of a world model; `perdure.world_model.WorldModel` is one."""

    def name_of(self, said: str) -> str | None: ...
    def role_of(self, name: str) -> str | None: ...
    def room_of(self, place: str) -> str | None: ...
    def place_of(self, thing: str, at: datetime | None = None) -> Estimate: ...
    def state_of(self, fixture: str, at: datetime | None = None) -> Estimate: ...
    def changes(
        self, within: Interval | None = None, *, thing: str | None = None, kind: str | None = None
    ) -> list[Change]: ...
    def watched(self, room: str, within: Interval) -> float: ...
    def coverage(self, fixture: str) -> list[tuple[datetime, datetime]]: ...
    def people_in(self, room: str, at: datetime | None = None) -> Estimate: ...
    def why(self, fixture: str, state: str | None = None, at: datetime | None = None) -> Estimate: ...
    def usual_place(self, thing: str, part_of_day: str | None = None, weekday: str | None = None) -> Estimate: ...
    def usual_time(self, person: str | None, kind: str, place: str | None = None, **which: str) -> Estimate: ...


@dataclass(frozen=True, slots=True)
class Search:
    """One question put to one world."""

    memory: Proof
    world: World
    asked: Asked

    @property
    def query(self) -> Query:
        return self.asked.query

    # --- names

    def name(self, said: str | None) -> str | None:
        """The name in the world of what was said."""
        if said is None:
            return None
        if said == "agent":
            return ME
        words = said.split(" ")
        if len(words) > 1 and words[0] in PLACE_PREPOSITIONS:
            said = ARTICLE_LEAD.sub("", " ".join(words[1:]))
        if said.startswith("floor of "):
            said = f"{said.removeprefix('floor of ').removeprefix('the ')} floor"
        known = self.world.name_of(said)
        if known is None and said.endswith(" floor"):
            room = self.world.name_of(said.removesuffix(" floor"))
            return f"{room} floor" if room else None
        return known

    def person(self, name: str) -> bool:
        """Whether a place is somebody who carries."""
        return name == ME or self.world.role_of(name) == "person"

    def same(self, named: str, place: str) -> bool:
        """Whether a place is what was named, or lies in the room that was."""
        return named == place or (self.world.role_of(named) == "room" and self.world.room_of(place) == named)

    def event(self, event: Happening) -> Happening | None:
        """The change that a question speaks of in names of the world; None if it speaks of something unknown."""
        names = {field: self.name(getattr(event, field)) for field in ("thing", "origin", "place", "by")}
        if any(getattr(event, field) is not None and name is None for field, name in names.items()):
            return None
        found = replace(event, **names)  # type: ignore[arg-type]
        thing = found.thing
        if found.kind == "left" and thing and self.world.role_of(thing) != "person":  # "the lamp went out"
            return replace(found, kind="state", state="off", place=None)
        if found.kind == "entered" and thing and self.world.role_of(thing) == "item":  # "the keys went to the sofa"
            return replace(found, kind="moved")
        if found.kind == "moved" and thing and self.world.role_of(thing) == "fixture" and found.place is None:
            return None
        return found

    # --- changes

    def happened(self, event: Happening, within: Interval | None) -> list[Happened]:
        """Known changes of that sort that can have happened in a span, oldest first."""
        kind = {"left": "left", "entered": "entered"}.get(event.kind, event.kind)
        wide = None
        if within is not None:
            pad = timedelta(hours=2) if event.kind == "moved" else timedelta(0)  # a carry may begin before the span
            wide = Interval(within.start - pad if within.start else None, within.end + pad if within.end else None)
        steps = self.world.changes(wide, thing=event.thing, kind=kind)
        found = [h for h in joined(steps, self.person) if fits(h, event, self.same)]
        return [h for h in found if within is None or overlaps(h.came, within) or overlaps(h.change, within)]

    def one(self, event: Happening, within: Interval | None) -> Happened | None:
        """The change that is meant if several fit: the best known inside the span, the last or the first of those."""
        found = self.happened(event, within)
        inside = [h for h in found if h.inside(within)] or [h for h in found if touches(h, within)] or found
        if not inside:
            return None
        if self.query.order == "first":
            return inside[0]
        dated = [h for h in inside if h.width <= DATED] or inside
        return dated[-1]

    def anchored(self, anchor: Happening) -> Happened | None:
        """The change that dates the question."""
        event = self.event(anchor)
        return None if event is None else self.one(event, self.query.when)

    # --- findings

    def say(self, value: Any, said: str, must_say: str, seqs: Sequence[int], confidence: float, reason: str) -> Finding:
        """A finding with its records; without any there is none."""
        shown = list(dict.fromkeys(seqs))
        if len(shown) > MOST_EVIDENCE:
            shown = [*shown[:2], *shown[-(MOST_EVIDENCE - 2) :]]
        evidence = evidence_of(self.memory, shown, reason)
        if not evidence:
            return unknown(f"no record proves it ({reason})")
        return Finding(value, said, must_say, evidence, confidence, reason)

    def time(self, moment: datetime) -> str:
        """A moment in words."""
        return describe_time(moment, self.asked.zone, self.asked.now)[:-3]  # no seconds

    def span(self, moment: Interval) -> str:
        """A moment as exactly as it is known, in words."""
        assert moment.start is not None
        assert moment.end is not None
        if moment.end - moment.start <= timedelta(minutes=2):
            return self.time(moment.end)
        return f"between {self.time(moment.start)} and {self.time(moment.end)}"


def overlaps(change: Change, within: Interval) -> bool:
    return (within.start is None or change.latest >= within.start) and (
        within.end is None or change.earliest < within.end
    )


def touches(happened: Happened, within: Interval | None) -> bool:
    """Whether the new place or state was first seen in a span."""
    if within is None:
        return True
    late = happened.came.latest
    return (within.start is None or late >= within.start) and (within.end is None or late <= within.end)


def the(search: Search, name: str) -> str:
    bare = name.partition("#")[0]
    return bare if search.person(bare) else f"the {bare}"


def padded(within: Interval, pad: timedelta) -> Interval:
    return Interval(within.start - pad if within.start else None, within.end + pad if within.end else None)


def instant(when: Interval | None) -> datetime | None:
    """The moment that a question about a state is about: the middle of a short span, the end of a long one."""
    if when is None:
        return None
    if when.start is not None and when.end is not None and when.end - when.start <= timedelta(minutes=2):
        return when.start
    if when.start is not None and when.end is not None and when.end - when.start <= timedelta(hours=2):
        return when.start + (when.end - when.start) / 2
    if when.end is not None:
        return when.end - timedelta(minutes=1)
    return when.start


def same_thing(one: str, other: str) -> bool:
    return one.partition("#")[0] == other.partition("#")[0]


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def listed(items: Sequence[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"
