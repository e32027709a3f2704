"""What could be known of a life by who saw what its camera saw: the ground on which a question is answerable or not.

It reads the truth log alone. A *move* is what people mean by it: an item leaves a place and comes to another, with
whoever carried it between; a *flip* is a change of state of a fixture; a *homecoming* is a person entering the home.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from ..catalogue import GONE, ME
from ..truth import Truth, TruthEvent


@dataclass(frozen=True, slots=True)
class Change:
    """A move, flip, homecoming or departure."""

    kind: str
    """``moved``, ``state``, ``entered`` or ``left``."""
    thing: str
    old: str
    new: str
    begin: int
    """Minute at which it left its old place ..."""
    end: int
    """... and at which it was at the new one; the same for what takes no time."""
    by: str | None
    cause: str | None = None
    events: tuple[TruthEvent, ...] = ()


@dataclass(frozen=True, slots=True)
class Bracket:
    """The last minute in which the old was seen, and the first in which the new was; None if never."""

    before: int | None
    after: int | None

    @property
    def width(self) -> int:
        """Minutes between them; very large if one of them is missing."""
        return 10**6 if self.before is None or self.after is None else self.after - self.before


class Observed:
    """A truth log with an index of who and what was in view when. ``catch_up`` after the life has gone on."""

    def __init__(self, truth: Truth) -> None:
        self.truth = truth
        self.changes: list[Change] = []
        self._changes_of: dict[str, list[Change]] = {}
        self._minutes: dict[str, list[int]] = {}
        self._values: dict[str, list[str]] = {}
        self._next = truth.lesson_end
        self._events = 0
        self._carried: dict[str, TruthEvent] = {}
        self._steps: dict[str, list[TruthEvent]] = {}

    @property
    def last_minute(self) -> int:
        """The newest minute that is indexed."""
        return self._next - 1

    def catch_up(self) -> None:
        """Indexes all that has happened since the last call."""
        truth = self.truth
        for minute in range(self._next, truth.last_minute + 1):
            for thing, (place, state) in truth.visible(minute).items():
                self._minutes.setdefault(thing, []).append(minute)
                self._values.setdefault(thing, []).append(state or place)
        self._next = truth.last_minute + 1
        for event in truth.events[self._events :]:
            self._note(event)
        self._events = len(truth.events)

    def _note(self, event: TruthEvent) -> None:
        people = set(self.truth.people) | {ME}
        if event.kind == "moved":
            self._steps.setdefault(event.thing, []).append(event)
            if event.new in people:
                self._carried.setdefault(event.thing, event)
                return
            first = self._carried.pop(event.thing, event)
            if first.old != event.new:
                by = event.by if event.by == first.by else None
                self._add(
                    Change(
                        "moved", event.thing, first.old, event.new, first.minute, event.minute, by, None, (first, event)
                    )
                )
        elif event.kind == "state":
            self._add(
                Change(
                    "state",
                    event.thing,
                    event.old,
                    event.new,
                    event.minute,
                    event.minute,
                    event.by,
                    event.cause,
                    (event,),
                )
            )
        elif (event.kind == "entered" and event.old == GONE) or (event.kind == "left" and event.new == GONE):
            self._add(
                Change(
                    event.kind,
                    event.thing,
                    event.old,
                    event.new,
                    event.minute,
                    event.minute,
                    event.thing,
                    None,
                    (event,),
                )
            )

    def _add(self, change: Change) -> None:
        self.changes.append(change)
        self._changes_of.setdefault(change.thing, []).append(change)

    def changes_of(self, thing: str) -> Sequence[Change]:
        """All changes of one thing, oldest first."""
        return self._changes_of.get(thing, ())

    def only(self, thing: str, first: int, last: int, moves: Sequence[Change]) -> bool:
        """Whether in [first, last] a thing was taken and put down in these moves alone: not there and back as well."""
        steps = {step for move in moves for step in move.events}
        return all(s in steps or not first <= s.minute <= last for s in self._steps.get(thing, ()))

    # --- what was in view

    def seen_at(self, thing: str, minute: int) -> str | None:
        """Place or state of a thing if it was in view in that minute."""
        minutes = self._minutes.get(thing, [])
        i = bisect_left(minutes, minute)
        return self._values[thing][i] if i < len(minutes) and minutes[i] == minute else None

    def last_before(self, thing: str, minute: int, value: str | None = None) -> tuple[int, str] | None:
        """The last (minute, value) at or before ``minute``, of one value only if it is given."""
        minutes, values = self._minutes.get(thing, []), self._values.get(thing, [])
        for i in range(bisect_right(minutes, minute) - 1, -1, -1):
            if value is None or values[i] == value:
                return minutes[i], values[i]
        return None

    def first_after(self, thing: str, minute: int) -> tuple[int, str] | None:
        """The first (minute, value) at or after ``minute``."""
        minutes = self._minutes.get(thing, [])
        i = bisect_left(minutes, minute)
        return (minutes[i], self._values[thing][i]) if i < len(minutes) else None

    def sightings(self, thing: str, first: int, last: int) -> list[tuple[int, str]]:
        """All (minute, value) in [first, last]."""
        minutes, values = self._minutes.get(thing, []), self._values.get(thing, [])
        return list(zip(minutes, values, strict=True))[bisect_left(minutes, first) : bisect_right(minutes, last)]

    def share(self, thing: str, first: int, last: int) -> float:
        """Share of the minutes [first, last] in which a thing was in view."""
        minutes = self._minutes.get(thing, [])
        return (bisect_right(minutes, last) - bisect_left(minutes, first)) / (last - first + 1)

    def longest_gap(self, thing: str, first: int, last: int) -> int:
        """The longest stretch in [first, last], in minutes, in which a thing was not in view."""
        minutes = [m for m, _ in self.sightings(thing, first, last)]
        edges = [first - 1, *minutes, last + 1]
        return max(b - a - 1 for a, b in pairwise(edges))

    def value_at(self, thing: str, minute: int) -> str:
        """What truly was: the state of a fixture that has one, else the place."""
        if thing in self.truth.people or thing in self.truth.items:
            return self.truth.position(thing, minute)
        return self.truth.state(thing, minute) or self.truth.position(thing, minute)

    # --- how well a change was seen

    def bracket(self, change: Change) -> Bracket:
        """Between which looks a change lies: the last at the old value, the first at the new one."""
        thing = change.thing
        if change.kind == "left":
            before = self.last_before(thing, change.begin)
            return Bracket(before[0] if before else None, None)
        if change.kind == "entered":
            after = self.first_after(thing, change.end)
            return Bracket(None, after[0] if after else None)
        before = self.last_before(thing, change.begin - 1)
        after = self.first_after(thing, change.end)
        return Bracket(
            before[0] if before and before[1] == change.old else None,
            after[0] if after and after[1] == change.new else None,
        )

    def doer_seen(self, change: Change) -> bool:
        """Whether who did it could be seen: at the act, or carrying the thing."""
        if change.by == ME:
            return True
        if any(self.truth.witnessed(event, by=True) for event in change.events):
            return True
        return change.kind == "moved" and any(
            value == change.by for _, value in self.sightings(change.thing, change.begin, change.end)
        )

    def alone(self, change: Change) -> bool:
        """Whether nobody but its doer stood so near that a watcher could take them for the doer."""
        event = change.events[0]
        cells = self.truth.fixture_cells(event.thing)
        for minute in (event.minute - 1, event.minute):
            for person in self.truth.people:
                at = self.truth.cell(person, minute)
                if person != event.by and at and any(abs(at[0] - x) + abs(at[1] - y) <= 2 for x, y in cells):
                    return False
        return True

    def came_in(self, change: Change) -> bool:
        """Whether a homecoming showed: the person in view, where in the minute before nobody was."""
        cell = self.truth.cell(change.thing, change.end)
        return self.seen_at(change.thing, change.end) is not None and cell in self.truth.in_view(change.end - 1)

    def witnessed(self, change: Change) -> bool:
        """Whether it was seen as it happened: for a move, that it left or that it came."""
        return any(self.truth.witnessed(event) for event in change.events)
