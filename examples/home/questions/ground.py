"""A life up to the minute of asking, as it decides which questions can be answered.

What was seen clearly can be asked, and what nobody could have seen; between the two lies much that is open to dispute
(something seen an hour earlier), and that is never asked.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..catalogue import GONE, ME
from ..plan import Plan
from .observed import Change, Observed
from .question import Kind
from .wordings import DAY, PARTS, Times, came, flipped, moved

TRIES = 150
NARROW = 12
"""A change is known well enough to be dated if its looks are at most this many minutes apart; answers may be 10 off."""
WIDE = 100
"""Nobody can date a change whose looks are at least this many minutes apart."""
STATES_ASKED = ("on", "open", "off", "closed", "wet")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A question before it is worded."""

    kind: Kind
    family: str
    slots: dict[str, str]
    value: Any
    answerable: bool
    tolerance: int = 0
    needs_events: int = 1
    proof: tuple[tuple[int, int], ...] = ()
    key: tuple[Any, ...] = ()
    """Two candidates with the same key ask the same."""
    spec: dict[str, Any] = field(default_factory=dict)


class Ground:
    """A life up to the minute of asking.

    Args:
        observed: level with ``asked``.
        plan: the home.
        times: says minutes as one does at ``asked``.
        rng: for drawing.
    """

    def __init__(self, observed: Observed, plan: Plan, times: Times, asked: int, rng: random.Random) -> None:
        self.seen, self.plan, self.times, self.asked, self.rng = observed, plan, times, asked, rng
        self.truth = observed.truth
        self.first = self.truth.lesson_end
        self.items = [i for i in self.truth.items if len(self.truth.ids_of(self.truth.name_of(i))) == 1]
        self.people = self.truth.people
        unique = set(self.items) | set(plan.fixtures) | set(self.people)
        self.changes = [
            c for c in observed.changes if self.first < c.begin and c.end <= asked - 5 and c.thing in unique
        ]

    def name(self, thing: str) -> str:
        """The taught name."""
        return self.truth.name_of(thing)

    def known(self, thing: str, minute: int, hours: int = 8) -> str | None:
        """Its value at a minute if it was in view then, or before and after with the same value and truly unchanged."""
        value = self.seen.seen_at(thing, minute)
        if value is not None:
            return value
        before, after = self.seen.last_before(thing, minute), self.seen.first_after(thing, minute)
        if before is None or minute - before[0] > hours * 60:
            return None
        until = after[0] if after is not None and after[0] <= self.asked else None
        if until is None and minute - before[0] > 90:
            return None
        end = until if until is not None else minute
        if (after is not None and until is not None and after[1] != before[1]) or end - before[0] > hours * 60:
            return None
        still = all(c.end < before[0] or c.begin > end for c in self.seen.changes_of(thing))
        return before[1] if still and self.seen.value_at(thing, minute) == before[1] else None

    def gap(self, thing: str, minute: int, margin: int = 15) -> tuple[int, int] | None:
        """(last seen, next seen) around a minute if the thing was elsewhere by then and nobody can tell since when."""
        before, after = self.seen.last_before(thing, minute), self.seen.first_after(thing, minute)
        if before is None or after is None or after[0] > self.asked:
            return None
        clear = before[1] != after[1] and minute - before[0] >= margin and after[0] - minute >= margin
        settled = not {before[1], after[1]} & {*self.people, ME}
        return (before[0], after[0]) if clear and settled and after[0] - before[0] >= 60 else None

    def any_minute(self) -> int:
        """A minute of the past by day, not too near."""
        while True:
            minute = self.rng.randint(self.first, max(self.first + 1, self.asked - 10))
            if 7 * 60 <= minute % DAY < 22 * 60:
                return minute

    def unique(self, change: Change, *, value: bool = True, part: bool = False) -> bool:
        """Whether it is the only one of its sort on its day (or in its part of the day)."""
        return self.similar(change, value=value, part=part) == 1

    def similar(self, change: Change, *, value: bool = True, part: bool = False) -> int:
        """How many changes of this thing (to this value) there were on that day."""
        first = change.end // DAY * DAY
        last = first + DAY
        if part:
            first, last = first + part_of(change.end)[0], first + part_of(change.end)[1]
        return sum(
            c.thing == change.thing
            and c.kind == change.kind
            and (not value or c.new == change.new)
            and first <= c.end < last
            for c in self.seen.changes_of(change.thing)
        )

    def dated(self, change: Change) -> bool:
        """Whether who saw it all can say when it was."""
        if change.kind == "entered":
            away = self.seen.last_before(change.thing, change.end - 1)
            long_gone = away is None or change.end - away[0] >= 40
            return self.seen.came_in(change) and long_gone
        if change.kind == "left":
            return self.seen.witnessed(change) and self._nowhere_else(change)
        bracket = self.seen.bracket(change)
        return bracket.width <= NARROW and change.end - change.begin <= NARROW and (bracket.after or 0) <= self.asked

    def _nowhere_else(self, change: Change) -> bool:
        """Whether who left the home cannot have gone anywhere else: all cells within two steps were in view."""
        cell = self.truth.cell(change.thing, change.begin - 1)
        if cell is None:
            return False
        near, edge = {cell}, {cell}
        for _ in range(2):
            edge = {there for at in edge for there in self.plan.neighbours(at)} - near
            near |= edge
        return near <= self.truth.in_view(change.begin)

    def undated(self, change: Change) -> bool:
        """Whether nobody can say when it was, though it is known that it was."""
        if change.kind == "entered":
            after = self.seen.first_after(change.thing, change.end)
            before = self.seen.last_before(change.thing, change.end)
            known = before is not None and change.end - before[0] >= 60
            return known and after is not None and change.end + WIDE <= after[0] <= self.asked
        if change.kind == "left":
            return False
        bracket = self.seen.bracket(change)
        hidden = self.hidden(change) and bracket.before is not None and bracket.after is not None
        return hidden and change.end - (bracket.before or 0) >= 30 and (bracket.after or 0) - change.end >= 30

    def hidden(self, change: Change) -> bool:
        """Whether nobody could say within hours when it was: neither by the thing nor by a place seen empty."""
        bracket = self.seen.bracket(change)
        last, first = bracket.before, bracket.after
        if last is None or first is None or first - last < WIDE or first > self.asked:
            return False
        places = (change.old, change.new) if change.kind == "moved" else ()
        return all(self.seen.share(place, last + 1, first - 1) == 0 for place in places)

    def seen_doing(self, change: Change) -> bool:
        """Whether one could see who opened or switched something: in view, and nobody else beside it."""
        return self.truth.witnessed(change.events[0], by=True) and self.seen.alone(change)

    def proof(self, change: Change) -> tuple[tuple[int, int], ...]:
        """Minutes around a change in which it shows."""
        bracket = self.seen.bracket(change)
        return ((bracket.before or change.begin, bracket.after or change.end),)

    def forms(self, change: Change) -> dict[str, str]:
        """Clauses that say the change."""
        name = self.name(change.thing)
        if change.kind == "moved":
            return moved(name, change.new)
        if change.kind == "state":
            return flipped(name, change.new, by_itself=change.by is None)
        return came(name, change.kind)


Draw = Callable[[Ground, bool], Candidate | None]


def part_of(minute: int) -> tuple[int, int]:
    return next((span for span in PARTS.values() if span[0] <= minute % DAY < span[1]), (0, 360))


def pick(ground: Ground, changes: Sequence[Change]) -> list[Change]:
    return ground.rng.sample(list(changes), min(TRIES, len(changes)))


def sayable(change: Change) -> bool:
    if change.kind == "state":
        return change.new in STATES_ASKED
    return change.kind in ("entered", "left") or GONE not in (change.old, change.new)


def unseen(ground: Ground, change: Change) -> bool:
    """Whether neither the thing nor who did it was in view around a change."""
    span = range(change.begin - 12, change.end + 13)
    hidden = all(ground.seen.seen_at(change.thing, m) is None for m in span)
    return hidden and (change.by is None or all(ground.seen.seen_at(change.by, m) is None for m in span))
