"""Which questions a life offers: for each kind, draws one that what was in view decides, or one that nobody can answer.

Between the two lies much that is open to dispute (something seen an hour earlier); that is never asked. A draw tries a
number of things and times at random and gives up.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median
from typing import Any

from ..catalogue import GONE, ME
from ..plan import Plan
from .observed import Change, Observed
from .question import Kind
from .wordings import DAY, PARTS, Times, came, flipped, moved, the, was

TRIES = 150
NARROW = 12
"""A change is known well enough to be dated if its looks are at most this many minutes apart; answers may be 10 off."""
WIDE = 100
"""Nobody can date a change whose looks are at least this many minutes apart."""
_STATES_ASKED = ("on", "open", "off", "closed", "wet")


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
        still = all(c.thing != thing or c.end < before[0] or c.begin > end for c in self.seen.changes)
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
            first, last = first + _part_of(change.end)[0], first + _part_of(change.end)[1]
        return sum(
            c.thing == change.thing
            and c.kind == change.kind
            and (not value or c.new == change.new)
            and first <= c.end < last
            for c in self.seen.changes
        )

    def dated(self, change: Change) -> bool:
        """Whether who saw it all can say when it was."""
        if change.kind == "entered":
            away = self.seen.last_before(change.thing, change.end - 1)
            long_gone = away is None or change.end - away[0] >= 40
            return self.seen.came_in(change) and long_gone
        if change.kind == "left":
            return self.seen.witnessed(change)
        bracket = self.seen.bracket(change)
        return bracket.width <= NARROW and change.end - change.begin <= NARROW and (bracket.after or 0) <= self.asked

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
        if not WIDE <= bracket.width < 10**6 or (bracket.after or 0) > self.asked:
            return False
        return (
            bracket.before is not None and change.end - bracket.before >= 30 and (bracket.after or 0) - change.end >= 30
        )

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


def _part_of(minute: int) -> tuple[int, int]:
    return next((span for span in PARTS.values() if span[0] <= minute % DAY < span[1]), (0, 360))


def _pick(ground: Ground, changes: Sequence[Change]) -> list[Change]:
    return ground.rng.sample(list(changes), min(TRIES, len(changes)))


# --- where ------------------------------------------------------------------------------------------------------------


def where_at(ground: Ground, answerable: bool) -> Candidate | None:
    """Where something was at a time; half of the answers are no longer true."""
    stale = ground.rng.random() < 0.6
    for _ in range(TRIES):
        minute, item = ground.any_minute(), ground.rng.choice(ground.items)
        if answerable:
            place = ground.known(item, minute)
            if place in (None, ME) or (stale and ground.seen.value_at(item, ground.asked) == place):
                continue
            near = ground.seen.last_before(item, minute)
            proof = ((near[0] if near else minute, minute),)
        else:
            gap = ground.gap(item, minute)
            if gap is None:
                continue
            place, proof = None, ()
        name = ground.name(item)
        slots = {"x": the(name), "was": was(name), "at": ground.times.at(minute)}
        spec = {"thing": item, "at": minute}
        return Candidate(
            "where", "where_at", slots, place, answerable, proof=proof, key=("at", item, minute // 60), spec=spec
        )
    return None


def where_person(ground: Ground, answerable: bool) -> Candidate | None:
    """In which room a person was."""
    for _ in range(TRIES):
        minute, person = ground.any_minute(), ground.rng.choice(ground.people)
        if answerable:
            room = ground.seen.seen_at(person, minute)
            around = {ground.truth.position(person, m) for m in (minute - 1, minute, minute + 1)}
            if room is None or len(around) > 1:
                continue
            proof = ((minute, minute),)
        else:
            if ground.gap(person, minute, 25) is None or ground.truth.position(person, minute) == GONE:
                continue
            room, proof = None, ()
        slots = {"x": person, "at": ground.times.at(minute)}
        spec = {"thing": person, "at": minute}
        return Candidate(
            "where", "where_person", slots, room, answerable, proof=proof, key=("at", person, minute // 60), spec=spec
        )
    return None


def where_when(ground: Ground, answerable: bool) -> Candidate | None:
    """Where something was when somebody came home."""
    comings = [c for c in ground.changes if c.kind == "entered" and ground.unique(c) and ground.dated(c)]
    for change in _pick(ground, comings):
        for item in ground.rng.sample(ground.items, len(ground.items)):
            if answerable:
                places = {
                    ground.known(item, m) for m in (change.end - 12, change.end, change.end + 12) if m < ground.asked
                }
                if len(places) > 1 or not places.isdisjoint({None, ME, *ground.people}):
                    continue
                place = places.pop()
            else:
                place = None
                if ground.gap(item, change.end, 25) is None:
                    continue
            name = ground.name(item)
            slots = {
                "x": the(name),
                "was": was(name),
                "clause": ground.forms(change)["finite"],
                "day": ground.times.day(change.end),
            }
            return Candidate(
                "where", "where_when", slots, place, answerable, needs_events=2, proof=ground.proof(change) if answerable else (),
                key=("when", item, change), spec={"thing": item, "at": change.end},
            )  # fmt: skip
    return None


def where_before(ground: Ground, answerable: bool) -> Candidate | None:
    """From where something came to a place; nothing that nobody could know is asked in this way."""
    if not answerable:
        return None
    for change in _pick(ground, [c for c in ground.changes if c.kind == "moved" and ground.unique(c)]):
        bracket = ground.seen.bracket(change)
        if bracket.width > 8 * 60 or (bracket.after or 0) > ground.asked or change.new == GONE or change.old == GONE:
            continue
        name = ground.name(change.thing)
        slots = {"x": the(name), "was": was(name), "it": "they" if was(name) == "were" else "it", "place": change.new,
                 "day": ground.times.day(change.end)}  # fmt: skip
        return Candidate("where", "where_before", slots, change.old, True, needs_events=2, proof=ground.proof(change),
                         key=("before", change), spec={"thing": change.thing})  # fmt: skip
    return None


# --- when, who --------------------------------------------------------------------------------------------------------


def when_did(ground: Ground, answerable: bool) -> Candidate | None:
    """When something changed."""
    for change in _pick(ground, ground.changes):
        if not _sayable(change) or not ground.unique(change):
            continue
        if not (ground.dated(change) if answerable else ground.undated(change)):
            continue
        slots = {**ground.forms(change), "day": ground.times.day(change.end)}
        return Candidate(
            "when", "when_did", slots, change.end if answerable else None, answerable, tolerance=10,
            proof=ground.proof(change) if answerable else (), key=("when", change), spec={"thing": change.thing, "kind": change.kind},
        )  # fmt: skip
    return None


def _sayable(change: Change) -> bool:
    if change.kind == "state":
        return change.new in _STATES_ASKED
    return change.kind in ("entered", "left") or GONE not in (change.old, change.new)


def _window(ground: Ground, first: int, last: int) -> tuple[int, int] | None:
    """A window of half hours around two minutes of one day."""
    begin, end = (first - 10) // 30 * 30, -(-(last + 10) // 30) * 30
    if begin // DAY != (end - 1) // DAY or end % DAY == 0 or end > ground.asked:
        return None
    return begin, end


def who_moved(ground: Ground, answerable: bool) -> Candidate | None:
    """Who moved something in a window with one move."""
    for change in _pick(
        ground, [c for c in ground.changes if c.kind == "moved" and c.by and GONE not in (c.old, c.new)]
    ):
        window = _window(ground, change.begin, change.end)
        if window is None:
            continue
        inside = [
            c for c in ground.seen.changes if c.thing == change.thing and c.end >= window[0] and c.begin <= window[1]
        ]
        bracket = ground.seen.bracket(change)
        if answerable and not (ground.seen.doer_seen(change) and bracket.width <= WIDE):
            continue
        if not answerable:
            hidden = all(
                ground.seen.seen_at(t, m) is None
                for t in (change.thing, change.by)
                for m in range(change.begin - 1, change.end + 2)
            )
            if not hidden or not 40 <= bracket.width < 10**6 or ground.seen.doer_seen(change):
                continue
        if len(inside) > 1 or (bracket.after or 10**9) > ground.asked:
            continue
        name = ground.name(change.thing)
        slots = {"x": the(name), "was": was(name), "between": ground.times.between(*window)}
        return Candidate(
            "who", "who_moved", slots, change.by if answerable else None, answerable, needs_events=1,
            proof=ground.proof(change) if answerable else (), key=("who", change), spec={"thing": change.thing, "window": window},
        )  # fmt: skip
    return None


def who_did(ground: Ground, answerable: bool) -> Candidate | None:
    """Who opened or switched something at a time."""
    flips = [
        c
        for c in ground.changes
        if c.kind == "state" and c.by in ground.people and c.new in _STATES_ASKED and c.new != "wet"
    ]
    for change in _pick(ground, flips):
        same = [
            c
            for c in ground.seen.changes
            if c.thing == change.thing and c.new == change.new and abs(c.end - change.end) <= 12
        ]
        if len(same) > 1:
            continue
        bracket = ground.seen.bracket(change)
        if answerable and not (ground.seen_doing(change) and bracket.width <= 3):
            continue
        if not answerable and not (
            _unseen(ground, change) and 40 <= bracket.width < 10**6 and (bracket.after or 0) <= ground.asked
        ):
            continue
        slots = {**ground.forms(change), "at": ground.times.at(change.end)}
        return Candidate(
            "who", "who_did", slots, change.by if answerable else None, answerable,
            proof=ground.proof(change) if answerable else (), key=("who", change), spec={"thing": change.thing, "at": change.end},
        )  # fmt: skip
    return None


def _unseen(ground: Ground, change: Change) -> bool:
    """Whether neither the thing nor who did it was in view around a change."""
    span = range(change.begin - 12, change.end + 13)
    hidden = all(ground.seen.seen_at(change.thing, m) is None for m in span)
    return hidden and (change.by is None or all(ground.seen.seen_at(change.by, m) is None for m in span))


# --- how often, in what order -----------------------------------------------------------------------------------------


def count_moved(ground: Ground, answerable: bool) -> Candidate | None:
    """How often something was moved in a window."""
    for _ in range(TRIES):
        item = ground.rng.choice(ground.items)
        first = ground.any_minute() // 30 * 30
        last = first + ground.rng.choice((120, 180, 240, 360, 480))
        if last > ground.asked or last // DAY != first // DAY:
            continue
        moves = [
            c
            for c in ground.seen.changes
            if c.thing == item and c.kind == "moved" and first <= c.end and c.begin <= last
        ]
        if not moves or any(GONE in (c.old, c.new) for c in moves):
            continue
        brackets = [ground.seen.bracket(c) for c in moves]
        if answerable:
            tight = all(
                b.before is not None and b.after is not None and first <= b.before and b.after <= last for b in brackets
            )
            if not tight:
                continue
        else:
            gap = ground.gap(item, (first + last) // 2)
            if gap is None or gap[0] > first - 10 or gap[1] < last + 10:
                continue
        name = ground.name(item)
        slots = {"x": the(name), "was": was(name), "between": ground.times.between(first, last)}
        proof = tuple((b.before or first, b.after or last) for b in brackets) if answerable else ()
        return Candidate("how_often", "count_moved", slots, len(moves) if answerable else None, answerable, needs_events=2,
                         proof=proof, key=("count", item, first), spec={"thing": item, "window": (first, last)})  # fmt: skip
    return None


def count_flips(ground: Ground, answerable: bool) -> Candidate | None:
    """How often something was opened or switched on in a window that was watched, or that was not."""
    fixtures = [f for f, fixture in ground.plan.fixtures.items() if fixture.kind.states]
    for _ in range(TRIES):
        fixture = ground.rng.choice(fixtures)
        first = ground.any_minute() // 10 * 10
        last = first + ground.rng.choice((30, 40, 60, 90, 120))
        if last > ground.asked or last // DAY != first // DAY:
            continue
        inside = [c for c in ground.seen.changes if c.thing == fixture and first + 2 <= c.end <= last - 2]
        near = [c for c in ground.seen.changes if c.thing == fixture and first - 3 <= c.end <= last + 3]
        flips = [c for c in inside if c.new in ("on", "open")]
        if not flips or len(near) != len(inside):
            continue
        if answerable and (
            ground.seen.share(fixture, first, last) < 0.9 or ground.seen.longest_gap(fixture, first, last) > 3
        ):
            continue
        if not answerable and ground.seen.share(fixture, first - 15, last + 15) > 0:
            continue
        slots = {**ground.forms(flips[0]), "between": ground.times.between(first, last)}
        return Candidate("how_often", "count_flips", slots, len(flips) if answerable else None, answerable, needs_events=2,
                         proof=((first, last),) if answerable else (), key=("count", fixture, first),
                         spec={"thing": fixture, "window": (first, last)})  # fmt: skip
    return None


def count_seen(ground: Ground, answerable: bool) -> Candidate | None:
    """How often the agent itself saw something happen on a day."""
    if not answerable:
        return None
    for change in _pick(ground, [c for c in ground.changes if c.kind == "state" and c.new in ("on", "open")]):
        day = change.end // DAY
        flips = [c for c in ground.changes if c.thing == change.thing and c.new == change.new and c.end // DAY == day]
        seen = [c for c in flips if ground.seen.witnessed(c)]
        half = [c for c in flips if c not in seen and ground.seen.bracket(c).width <= 4]
        if len(seen) < 2 or half:
            continue
        slots = {**ground.forms(change), "day": ground.times.day(change.end)}
        return Candidate("how_often", "count_seen", slots, len(seen), True, tolerance=len(seen) // 4, needs_events=2,
                         proof=tuple((c.end - 1, c.end + 1) for c in seen), key=("count", change.thing, day),
                         spec={"thing": change.thing})  # fmt: skip
    return None


def order_of(ground: Ground, answerable: bool) -> Candidate | None:
    """Which of two or three things that happened on one day came first."""
    number = ground.rng.choice((2, 2, 3)) if answerable else 2
    fit = ground.dated if answerable else ground.undated
    usable = [c for c in ground.changes if c.kind != "left" and _sayable(c) and ground.unique(c) and fit(c)]
    by_day: dict[int, list[Change]] = {}
    for change in usable:
        by_day.setdefault(change.end // DAY, []).append(change)
    days = [d for d, found in by_day.items() if len({c.thing for c in found}) >= number]
    for _ in range(TRIES if days else 0):
        chosen = ground.rng.sample(by_day[ground.rng.choice(days)], number)
        if len({c.thing for c in chosen}) < number:
            continue
        true = sorted(chosen, key=lambda c: c.end)
        if answerable and any(b.begin - a.end < 2 * NARROW for a, b in pairwise(true)):
            continue
        if not answerable and not _overlapping(ground, true):
            continue
        forms = [ground.forms(c) for c in chosen]
        slots = {"day": ground.times.day(true[0].end), **forms[0], "other_gerund": forms[1]["gerund"], "other_finite": forms[1]["finite"],
                 "third_gerund": forms[-1]["gerund"]}  # fmt: skip
        if not slots.get("base"):
            slots["base"] = f"the {ground.name(chosen[0].thing)} get moved to the {chosen[0].new}"
        return Candidate(
            "order", "order_two" if number == 2 else "order_three", slots,
            tuple(ground.name(c.thing) for c in true) if answerable else None, answerable, needs_events=number,
            proof=ground.proof(true[0]) if answerable else (), key=("order", *sorted(c.thing for c in chosen), true[0].end // DAY),
            spec={"events": [(c.thing, c.kind, c.new, c.end) for c in chosen]},
        )  # fmt: skip
    return None


def _overlapping(ground: Ground, pair: Sequence[Change]) -> bool:
    """Whether each of two can have been first: both lie where the brackets of both do."""
    spans = []
    for change in pair:
        bracket = ground.seen.bracket(change)
        away = ground.seen.last_before(change.thing, change.end)
        begin = bracket.before if bracket.before is not None else (away[0] if away else change.end)
        spans.append((begin, bracket.after if bracket.after is not None else change.end))
    low, high = max(s[0] for s in spans), min(s[1] for s in spans)
    return high - low >= 60 and all(low + 10 <= c.end <= high - 10 for c in pair)


# --- what changed, why, what is usual ---------------------------------------------------------------------------------


def changed(ground: Ground, answerable: bool) -> Candidate | None:
    """Which items were moved within, into or out of a room."""
    rooms = sorted(ground.plan.floors)
    for _ in range(4 * TRIES):
        room = ground.rng.choice(rooms)
        first = ground.any_minute() // 15 * 15
        last = first + ground.rng.choice((30, 45, 60, 90, 120, 180, 240))
        if last > ground.asked - 5 or last // DAY != first // DAY:
            continue
        names, sure = [], True
        for item in ground.truth.items:
            places = [ground.truth.position(item, m) for m in (first, last)]
            rooms_then = [ground.plan.room_of(p) for p in places]
            moves = [
                c
                for c in ground.seen.changes
                if c.thing == item and c.kind == "moved" and c.end >= first and c.begin <= last
            ]
            touched = room in rooms_then or any(
                room in (ground.plan.room_of(c.old), ground.plan.room_of(c.new)) for c in moves
            )
            if not touched or (places[0] == places[1] and not moves):
                continue
            names.append(ground.name(item))
            whole = all(first <= c.begin and c.end <= last for c in moves) and GONE not in places
            told = all(
                ground.known(item, m) is not None for m, r in zip((first, last), rooms_then, strict=True) if r == room
            )
            sure = sure and whole and places[0] != places[1] and room in rooms_then and (told or not answerable)
        if not sure or not 1 <= len(names) <= 4 or len(set(names)) < len(names):
            continue
        if not answerable and not _room_unseen(ground, room, first - 40, last + 40):
            continue
        slots = {"room": room, "between": ground.times.between(first, last)}
        return Candidate("changed", "changed", slots, frozenset(names) if answerable else None, answerable, needs_events=2,
                         proof=((first - 30, last + 30),) if answerable else (), key=("changed", room, first // 60),
                         spec={"room": room, "window": (first, last)})  # fmt: skip
    return None


def _room_unseen(ground: Ground, room: str, first: int, last: int) -> bool:
    return all(
        ground.seen.share(f, first, last) == 0 for f, fixture in ground.plan.fixtures.items() if fixture.room == room
    )


def why(ground: Ground, answerable: bool) -> Candidate | None:
    """Why a fixture went on or off: another fixture, itself, or a person."""
    own = ground.rng.random() < 0.7
    for change in _pick(
        ground, [c for c in ground.changes if c.kind == "state" and c.new in ("on", "off", "wet", "dry")]
    ):
        same = [c for c in ground.seen.changes if c.thing == change.thing and c.new == change.new]
        if change.cause == "clock" or change.by == ME or sum(abs(c.end - change.end) <= 12 for c in same) > 1:
            continue
        bracket = ground.seen.bracket(change)
        needs = 1
        if answerable:
            value = change.cause or change.by
            proof = ground.proof(change)
            if (change.cause is not None) != own or bracket.width > 5:
                continue
            if change.cause is None and not ground.seen_doing(change):
                continue
            if change.cause is not None:
                needs = 2
                source = _source(ground, change)
                if source is None or ground.seen.bracket(source).width > 15:
                    continue
        else:
            value, proof = None, ()
            reasons = {c.cause or "somebody" for c in same}
            if (
                len(reasons) < 2
                or not _unseen(ground, change)
                or not 60 <= bracket.width < 10**6
                or (bracket.after or 0) > ground.asked
            ):
                continue
        name = ground.name(change.thing)
        forms = flipped(name, change.new, by_itself=True)
        slots = {**forms, "x": the(name), "at": ground.times.at(change.end)}
        return Candidate("why", "why", slots, value, answerable, needs_events=needs, proof=proof, key=("why", change),
                         spec={"thing": change.thing, "at": change.end})  # fmt: skip
    return None


def _source(ground: Ground, change: Change) -> Change | None:
    """The change of the causing fixture that a mechanism's effect followed."""
    before = [
        c
        for c in ground.seen.changes
        if c.thing == change.cause and c.kind == "state" and c.end <= change.end and c is not change
    ]
    return before[-1] if before and change.end - before[-1].end <= 60 else None


def usual_place(ground: Ground, answerable: bool) -> Candidate | None:
    """Where something mostly is in the morning, in the afternoon or in the evening."""
    for _ in range(TRIES // 2):
        item, part = ground.rng.choice(ground.items), ground.rng.choice(list(PARTS))
        truly: Counter[str] = Counter()
        looked: Counter[str] = Counter()
        days = moot = 0
        for day in range(ground.asked // DAY + 1):
            first, last = (max(ground.first, day * DAY + m) for m in PARTS[part])
            if last > ground.asked or last - first < 120:
                continue
            days += 1
            truly.update(ground.truth.position(item, m) for m in range(first, last, 10))
            found = ground.seen.sightings(item, first, last - 1)
            looked.update({Counter(v for _, v in found).most_common(1)[0][0]: 1} if found else {})
            before, after = ground.seen.last_before(item, first), ground.seen.first_after(item, last)
            moot += not found and (before is None or after is None or before[1] != after[1])
        if days < 3 or not truly:
            continue
        place, times = truly.most_common(1)[0]
        if answerable:
            best = looked.most_common(2)
            clear = (
                bool(best)
                and best[0][0] == place
                and sum(looked.values()) >= 3
                and (len(best) == 1 or best[0][1] >= best[1][1] + 2)
            )
            if not clear or times / sum(truly.values()) < 0.6 or place in ground.people or place in (ME, GONE):
                continue
        elif looked or moot < 2:
            continue
        name = ground.name(item)
        slots = {"x": the(name), "is": "are" if was(name) == "were" else "is", "part": part}
        return Candidate("usual", "usual_place", slots, place if answerable else None, answerable, needs_events=3,
                         key=("usual", item, part), spec={"thing": item, "part": part})  # fmt: skip
    return None


def usual_time(ground: Ground, answerable: bool) -> Candidate | None:
    """When somebody usually comes home."""
    for person in ground.rng.sample(ground.people, len(ground.people)):
        comings = [c for c in ground.changes if c.kind == "entered" and c.thing == person]
        if len({c.end // DAY for c in comings}) < 3:
            continue
        times = [c.end % DAY for c in comings]
        middle = round(median(times))
        close = [t for t in times if abs(t - middle) <= 40]
        dated = [c for c in comings if ground.dated(c)]
        seen = round(median([c.end % DAY for c in dated])) if dated else 0
        if answerable and not (len(close) >= 0.75 * len(times) and len(dated) >= 3 and abs(seen - middle) <= 20):
            continue
        if not answerable and not all(ground.undated(c) for c in comings):
            continue
        slots = {**came(person, "entered"), "p": person}
        return Candidate("usual", "usual_time", slots, middle if answerable else None, answerable, tolerance=30, needs_events=3,
                         key=("usual", person), spec={"thing": person})  # fmt: skip
    return None


DRAWS: dict[Kind, tuple[Draw, ...]] = {
    "where": (where_at, where_when, where_at, where_before, where_person),
    "when": (when_did,),
    "who": (who_moved, who_did),
    "how_often": (count_moved, count_flips, count_seen),
    "order": (order_of,),
    "changed": (changed,),
    "why": (why,),
    "usual": (usual_place, usual_time, usual_place),
}
