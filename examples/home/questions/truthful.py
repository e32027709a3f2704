"""A memory that confuses nothing, for diagnosis: what was in view, with the identities and doers that it truly had.

It answers the questions of a `World` from the truth log as far as the camera saw it, and so tells what the agent's
memory loses from what its percepts never held.
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from statistics import median

from perdure.records import Change as Changed
from perdure.records import Estimate, Interval

from ..catalogue import GONE, ME
from ..plan import Plan
from ..truth import Truth
from .observed import Change, Observed
from .perfect import LooseMemory
from .wordings import DAY

_HOURS = {"morning": (6, 12), "afternoon": (12, 18), "evening": (18, 24), "night": (22, 30)}


class TruthfulWorld:
    """The past as far as it was in view; ``now`` is the minute up to which it is known.

    Args:
        truth, plan: of the home.
        start: world time of minute 0.
    """

    def __init__(self, truth: Truth, plan: Plan, start: datetime) -> None:
        self._truth, self._plan, self._start = truth, plan, start
        self._seen = Observed(truth)
        self._seen.catch_up()
        self.now = truth.last_minute
        self.memory = LooseMemory()
        for minute in range(truth.first_minute, truth.last_minute + 1, 10):
            at = self._time(minute)
            self.memory.add("event", at, at + timedelta(minutes=10), {"text": "in view"})

    # --- names

    def name_of(self, said: str) -> str | None:
        """The name that is spelled so."""
        low = said.lower()
        names = [*{self._truth.name_of(i) for i in self._truth.items}, *self._truth.people, *self._plan.fixtures]
        return next((n for n in [*names, *self._plan.floors] if n.lower() == low), None)

    def role_of(self, name: str) -> str | None:
        """``person``, ``fixture``, ``room`` or ``item``."""
        if name in self._truth.people:
            return "person"
        if name in self._plan.fixtures:
            return "fixture"
        return "room" if name in self._plan.floors else "item"

    def room_of(self, place: str) -> str | None:
        """Room of a place."""
        return self._plan.room_of(place)

    # --- what was

    def place_of(self, thing: str, at: datetime | None = None) -> Estimate:
        """Where it was when in view, or before and after."""
        return self._value(thing, at)

    def state_of(self, fixture: str, at: datetime | None = None) -> Estimate:
        """The state, likewise."""
        return self._value(fixture, at)

    def _value(self, thing: str, at: datetime | None) -> Estimate:
        ids = self._truth.ids_of(thing)
        if len(ids) != 1:
            return Estimate(None, "there are several")
        minute = min(self.now, self.now if at is None else self._minute(at))
        before, after = self._seen.last_before(ids[0], minute), self._seen.first_after(ids[0], minute)
        if before is None:
            return Estimate(None, "not seen yet")
        if after is not None and after[0] <= self.now and after[1] != before[1]:
            return Estimate(None, "it changed meanwhile")
        return Estimate(before[1], "in view", self._seqs(before[0]), 0.95)

    def changes(
        self, within: Interval | None = None, *, thing: str | None = None, kind: str | None = None
    ) -> list[Changed]:
        """All changes of which the result was seen, with their looks."""
        found = []
        ids = set(self._truth.ids_of(thing)) if thing is not None else None
        for change in self._seen.changes:
            if (
                change.end > self.now
                or (ids is not None and change.thing not in ids)
                or kind not in (None, change.kind)
            ):
                continue
            known = self._known(change)
            if known is not None and _overlaps(known, within):
                found.append(known)
        return sorted(found, key=lambda c: (c.latest, c.earliest))

    def _known(self, change: Change) -> Changed | None:
        bracket = self._seen.bracket(change)
        seen = self._seen.witnessed(change)
        if change.kind == "entered":
            if not self._seen.came_in(change):
                return None
            first, last = change.end - 1, change.end
        elif change.kind == "left":
            if not seen:
                return None
            first, last = change.end - 1, change.end
        elif (
            bracket.after is None
            or bracket.after > self.now
            or (bracket.before is None and not self._seen.doer_seen(change))
        ):
            return None
        else:
            first, last = change.begin if bracket.before is None else bracket.before, bracket.after
        by = change.by if self._seen.doer_seen(change) else None
        old = change.old
        return Changed(
            change.kind,
            self._truth.name_of(change.thing),
            old,
            change.new,
            self._time(first),
            self._time(last),
            by,
            seen and last - first <= 2,
            self._seqs(first, last),
        )

    # --- rooms, causes, habits

    def watched(self, room: str, within: Interval) -> float:
        """Share of a span in which something of the room was in view."""
        first, last = self._ends(within)
        return max(
            (self._seen.share(f, first, last) for f, x in self._plan.fixtures.items() if x.room == room), default=0.0
        )

    def coverage(self, fixture: str) -> list[tuple[datetime, datetime]]:
        """Minutes in which it was in view."""
        seen = self._seen.sightings(fixture, self._truth.first_minute, self.now)
        return [(self._time(m), self._time(m)) for m, _ in seen]

    def people_in(self, room: str, at: datetime | None = None) -> Estimate:
        """Who was in view in a room."""
        minute = self.now if at is None else self._minute(at)
        names = tuple(p for p in self._truth.people if self._seen.seen_at(p, minute) == room)
        return Estimate(names or None, "in view", self._seqs(minute), 0.9)

    def why(self, fixture: str, state: str | None = None, at: datetime | None = None) -> Estimate:
        """The true cause of the change nearest to a time: what a memory that also knew all causes would say."""
        minute = self.now if at is None else self._minute(at)
        found = [c for c in self._seen.changes if c.thing == fixture and c.kind == "state" and state in (None, c.new)]
        if not found:
            return Estimate(None, "no such change")
        change = min(found, key=lambda c: abs(c.end - minute))
        return Estimate(change.cause or change.by, "true cause", self._seqs(change.end), 0.95)

    def usual_place(self, thing: str, part_of_day: str | None = None, weekday: str | None = None) -> Estimate:
        """Where it was seen most."""
        ids = self._truth.ids_of(thing)
        first, last = _HOURS.get(part_of_day or "", (0, 24))
        spent: Counter[str] = Counter()
        days = set()
        for minute, place in self._seen.sightings(ids[0], self._truth.lesson_end, self.now) if len(ids) == 1 else ():
            if first <= minute % DAY // 60 < last and place not in (ME, GONE, *self._truth.people):
                spent[place] += 1
                days.add(minute // DAY)
        if len(days) < 2:
            return Estimate(None, "seen on too few days")
        return Estimate(spent.most_common(1)[0][0], "in view most", self._seqs(self.now), 0.8)

    def usual_time(self, person: str | None, kind: str, place: str | None = None, **which: str) -> Estimate:
        """The middle of the times seen."""
        times = [c.latest for c in self.changes(thing=person, kind=kind)]
        if len({t.date() for t in times}) < 2:
            return Estimate(None, "seen on too few days")
        return Estimate(int(median(t.hour * 60 + t.minute for t in times)), "in view", self._seqs(self.now), 0.8)

    # --- helpers

    def _time(self, minute: int) -> datetime:
        return self._start + timedelta(minutes=minute)

    def _minute(self, at: datetime) -> int:
        return int((at - self._start).total_seconds() // 60)

    def _ends(self, within: Interval) -> tuple[int, int]:
        first = self._minute(within.start) if within.start else self._truth.first_minute
        return first, self._minute(within.end) if within.end else self.now

    def _seqs(self, *minutes: int) -> tuple[int, ...]:
        first = self._truth.first_minute
        return tuple(dict.fromkeys(max(0, m - first) // 10 + 1 for m in minutes))


def _overlaps(change: Changed, within: Interval | None) -> bool:
    if within is None:
        return True
    return (within.start is None or change.latest >= within.start) and (
        within.end is None or change.earliest < within.end
    )
