"""Findings about a world that the agent watches, from its world model: where, when, who, how often, in what order, what
changed, why, and what is usual.

It asks a `World` and never a language model. Where the looks of the agent do not decide a question it says so; what is
known only within hours is no answer to "when", and what happened while nobody looked has no doer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, time, timedelta
from itertools import pairwise

from ..memory.names import thing_key
from ..records import Change, Estimate, Interval
from .findings import Asked, Finding, evidence_of, unknown
from .happenings import state_word
from .moves import GONE, ME, Happened, joined, nearest
from .queries import Query
from .world_search import (
    DATED,
    MOST_EVIDENCE,
    Proof,
    Search,
    World,
    capital,
    instant,
    listed,
    overlaps,
    padded,
    same_thing,
    the,
    touches,
)

__all__ = ["World", "find_in_world"]

LEAST_SURE = 0.6
"""A place or state of the past that is less sure is not said."""
LEAST_SURE_NOW = 0.2
"""Of now, "last seen there" is worth more."""
EXPLAINED = timedelta(minutes=30)
"""A change whose looks are further apart has no cause worth saying."""
LEAST_WATCHED = 0.6
"""To count what happened, so much of the time must have been in view."""
_EDGE = timedelta(minutes=10)
_SHORTLY = timedelta(minutes=32)
"""A move whose looks lie so little outside a span is counted to it."""
_CLOSE = timedelta(minutes=3)
"""So near to a look, what it showed is taken to hold."""


def find_in_world(memory: Proof, world: World, asked: Asked) -> Finding | None:
    """What the world model says to a question; None if the question is not about a world, or not about this one."""
    finder = _FINDERS.get(asked.query.kind)
    return finder(Search(memory, world, asked)) if finder is not None else None


# --- where, in which state --------------------------------------------------------------------------------------------


def _where(search: Search) -> Finding | None:
    query = search.query
    name = search.name(query.subject)
    if name is None:
        return None
    if query.anchor is not None:
        return _where_then(search, name)
    if query.events:
        return _where_to(search, name)
    role = search.world.role_of(name)
    if role in ("fixture", "room"):
        return None if role == "room" else _room(search, name)
    return _place(search, name, query.when)


def _room(search: Search, fixture: str) -> Finding | None:
    room = search.world.room_of(fixture)
    estimate = search.world.state_of(fixture)
    if room is None:
        return None
    return search.say(room, f"The {fixture} is in the {room}.", room, estimate.evidence, 0.95, "on the map")


def _place(search: Search, name: str, when: Interval | None) -> Finding:
    at = instant(when)
    estimate = search.world.place_of(name, at)
    least = LEAST_SURE_NOW if at is None else LEAST_SURE
    told = _told_place(search, name, at, estimate)
    if told is not None:
        return told
    moving = _on_its_way(search, name, at) if at is not None else None
    if moving is not None:
        return unknown(f"it was moved {search.span(Interval(moving.earliest, moving.latest))}, when nobody looked")
    if estimate.value is None:
        return unknown(estimate.reason, evidence_of(search.memory, estimate.evidence[:MOST_EVIDENCE], "near it"))
    if estimate.confidence < least:
        return unknown(f"not sure enough: {estimate.value}, {estimate.reason}")
    place = str(estimate.value)
    said = f"{capital(the(search, name))} {_be(search, name, at)} {_at_place(search, place)}; {estimate.reason}."
    return search.say(place, said, place, estimate.evidence, estimate.confidence, estimate.reason)


def _be(search: Search, name: str, at: datetime | None) -> str:
    """``is`` or ``are``, ``was`` or ``were``: keys, glasses and scissors are many."""
    bare = name.partition("#")[0]
    many = bare.endswith("s") and not bare.endswith("ss") and not search.person(bare)
    return {(False, False): "is", (False, True): "are", (True, False): "was", (True, True): "were"}[
        at is not None, many
    ]


def _on_its_way(search: Search, name: str, at: datetime) -> Change | None:
    """A change of place of which nobody can say whether it was before or after a moment."""
    kind = "entered" if search.world.role_of(name.partition("#")[0]) == "person" else "moved"
    for change in search.world.changes(Interval(at, at + timedelta(minutes=1)), thing=name, kind=kind):
        if change.new is not None and change.earliest + _CLOSE < at < change.latest - _CLOSE:
            return change
    return None


def _told_place(search: Search, name: str, at: datetime | None, seen: Estimate) -> Finding | None:
    """What was said of where it is, if it was said after it was last seen."""
    moment = at or search.asked.now
    facts = search.memory.facts(name, "location", at=moment, as_of=search.asked.as_of)
    facts = [f for f in facts if not f.negated and thing_key(f.subject) == thing_key(name.partition("#")[0])]
    if not facts:
        return None
    records = evidence_of(search.memory, [seq for f in facts[:1] for seq in f.evidence], "told")
    shown = evidence_of(search.memory, seen.evidence, "seen")
    if not records or records[-1].time > moment or any(e.end >= records[-1].time for e in shown if e.time <= moment):
        return None
    place = facts[0].object
    value = search.name(place) or place
    said = f"{capital(the(search, name))} should be {place}; I was told {search.time(records[-1].time)}."
    return Finding(value, said, place, records, 0.7, "told after it was last seen")


def _where_then(search: Search, name: str) -> Finding | None:
    """Where something was when, before or after something happened."""
    query = search.query
    assert query.anchor is not None
    event = search.event(query.anchor)
    if event is None:
        return None
    found = search.one(event, query.when)
    if found is None:
        return unknown("I did not see that happen")
    if event.kind == "moved" and event.thing is not None and same_thing(event.thing, name):
        origin = query.relation == "before" or query.side == "origin"
        side = found.change.old if origin else found.change.new
        if side is None or search.person(side):
            return unknown(f"where {name} was {query.relation} that is not known")
        said = f"{capital(the(search, name))} was {_at_place(search, side)}; moved {search.span(found.moment)}."
        return search.say(side, said, side, found.change.evidence, 0.85, "the move was seen")
    if found.width > DATED:
        return unknown(f"that was {search.span(found.moment)}; where {name} was then is not sure")
    at = {"before": found.change.earliest, "after": found.change.latest + timedelta(minutes=1)}.get(
        query.relation or "when", found.came.latest
    )
    place = _place(search, name, Interval(at, at + timedelta(minutes=1)))
    if place.value is None:
        return place
    seqs = [*found.change.evidence, *(e.seq for e in place.evidence)]
    return search.say(place.value, place.said, place.must_say, seqs, place.confidence, place.reason)


def _where_to(search: Search, name: str) -> Finding | None:
    """Where somebody put something, or took it from."""
    event = search.event(search.query.events[0])
    if event is None:
        return None
    found = search.one(event, search.query.when)
    if found is None:
        if event.by is None and search.query.when is None:
            return _place(search, name, None)
        return unknown(f"I did not see that {name} was moved then")
    place = found.change.old if search.query.side == "origin" else found.change.new
    if place is None or place == GONE or (search.person(place) and search.query.side == "origin"):
        return unknown(
            f"I saw that {name} was moved, but not {'from' if search.query.side == 'origin' else 'to'} where"
        )
    verb = "was moved from" if search.query.side == "origin" else "was moved to"
    said = f"{capital(the(search, name))} {verb} {the(search, place)}, {search.span(found.moment)}."
    return search.say(place, said, place, found.change.evidence, 0.85, "the move is known")


def _state(search: Search) -> Finding | None:
    name = search.name(search.query.subject)
    if name is None or search.world.role_of(name) != "fixture":
        return None
    at = instant(search.query.when)
    estimate = search.world.state_of(name, at)
    if estimate.value in (None, "") or estimate.confidence < (LEAST_SURE_NOW if at is None else LEAST_SURE):
        return unknown(estimate.reason)
    state = str(estimate.value)
    said = f"The {name} {'was' if at else 'is'} {state}; {estimate.reason}."
    return search.say(state, said, state, estimate.evidence, estimate.confidence, estimate.reason)


def _yes_no(search: Search) -> Finding | None:
    """ "Was the fridge open?", "is the mug on the table?"."""
    query = search.query
    name = search.name(query.subject)
    if name is None or query.object is None:
        return None
    wanted = state_word(query.object.split(" ")[-1])
    if search.world.role_of(name) == "fixture":
        found = _state(search) if wanted is not None else None
        right = wanted
    else:
        place = search.name(query.object)
        found = _place(search, name, query.when) if place is not None and query.predicate == "location" else None
        right = place
    if found is None or found.value is None or right is None:
        return found
    yes = found.value == right or (isinstance(found.value, str) and search.same(right, found.value))
    word = "Yes" if yes else "No"
    return replace(found, value=yes, said=f"{word}: {found.said}", must_say=word)


def _at_place(search: Search, place: str) -> str:
    if place == GONE:
        return "out of the home"
    if place == ME:
        return "with me"
    return f"with {place}" if search.person(place) else f"at the {place}"


# --- who, when, how often ---------------------------------------------------------------------------------------------


def _who(search: Search) -> Finding | None:
    query = search.query
    if not query.events:
        return _who_there(search)
    event = search.event(query.events[0])
    if event is None:
        return None
    within = _dated_by(search)
    found = search.one(event, within)
    if found is None:
        return unknown("I did not see that happen")
    if event.kind in ("entered", "left"):
        doer: str | None = found.change.thing
    else:
        doer = found.change.by
    if doer is None and event.kind == "state" and found.width <= EXPLAINED:
        why = search.world.why(found.change.thing, found.change.new, found.came.latest)
        doer = str(why.value) if why.value is not None and search.person(str(why.value)) else None
    if doer is None:
        return unknown(f"it happened {search.span(found.moment)}; I did not see who did it")
    name = "I" if doer == ME else doer
    said = f"{name} did, {search.span(found.moment)}."
    return search.say(doer, said, name, found.change.evidence, 0.9 if found.change.witnessed else 0.7, "seen")


def _who_there(search: Search) -> Finding | None:
    """ "Who was in the kitchen at ten?"."""
    query = search.query
    room = search.name(query.object) if query.predicate == "location" else None
    if room is None or search.world.role_of(room) != "room":
        return None
    estimate = search.world.people_in(room, instant(query.when))
    if not estimate.value:
        return unknown(estimate.reason)
    names = list(estimate.value)
    listed = " and ".join(names)
    said = f"{listed} {'was' if len(names) == 1 else 'were'} in the {room}."
    return search.say(
        names[0] if len(names) == 1 else names, said, listed, estimate.evidence, estimate.confidence, "seen"
    )


def _dated_by(search: Search) -> Interval | None:
    """The span asked about, cut by the change that dates the question."""
    query = search.query
    if query.anchor is None:
        return query.when
    found = search.anchored(query.anchor)
    if found is None:
        return query.when
    start, end = (query.when.start, query.when.end) if query.when else (None, None)
    if query.relation == "after":
        return Interval(found.came.latest, end)
    if query.relation == "before":
        return Interval(start, found.change.earliest)
    return Interval(found.change.earliest - _EDGE, found.change.latest + _EDGE)


def _when(search: Search) -> Finding | None:
    query = search.query
    if not query.events:
        return None
    event = search.event(query.events[0])
    if event is None:
        return None
    found = search.one(event, _dated_by(search))
    if found is None:
        return unknown("I did not see that happen")
    if found.width > DATED:
        return unknown(f"it was {search.span(found.moment)}; nobody looked in between")
    when = search.span(found.moment)
    said = f"That was {when}."
    return search.say(found.moment, said, when, found.change.evidence, 0.9 if found.came.witnessed else 0.7, "seen")


def _count(search: Search) -> Finding | None:
    query = search.query
    if not query.events:
        return None
    event = search.event(query.events[0])
    if event is None:
        return None
    within = _dated_by(search)
    found = search.happened(event, within)
    if query.predicate == "seen":
        found = [h for h in found if h.change.witnessed and touches(h, within)]
    inside = [h for h in found if h.inside(within)]
    open_ended = [h for h in found if h not in inside]
    if query.predicate != "seen" and event.thing is not None and within is not None:
        share = _watched(search, event.thing, within)
        if share is not None and share < LEAST_WATCHED:
            return unknown(f"I had it in view only {share:.0%} of that time")
    if not inside:
        known = [h for h in open_ended if not touches(h, within) or h.width > DATED]
        if known or not open_ended:
            return unknown("I did not see that happen then" + ("; it may have" if known else ""))
        inside = open_ended
    number = len(inside)
    seqs = [seq for h in inside for seq in h.change.evidence]
    said = f"{number} time{'s' if number != 1 else ''}, last {search.span(inside[-1].moment)}."
    return search.say(number, said, str(number), seqs, 0.8, "changes counted")


def _watched(search: Search, fixture: str, within: Interval) -> float | None:
    """Share of a short span in which a fixture was in view; None for items, and for spans of more than half a day."""
    if search.world.role_of(fixture) != "fixture" or within.start is None or within.end is None:
        return None
    length = within.end - within.start
    if not timedelta(0) < length <= timedelta(hours=12):
        return None
    step, seen = timedelta(minutes=1), timedelta(0)
    for first, last in search.world.coverage(fixture):
        seen += max(timedelta(0), min(last + step, within.end) - max(first, within.start))
    return min(1.0, seen / length)


# --- order, what changed, why, what is usual --------------------------------------------------------------------------


def _order(search: Search) -> Finding | None:
    found: list[tuple[Happened, str]] = []
    if not search.query.events:
        return None
    for asked in search.query.events:
        event = search.event(asked)
        if event is None:
            return None
        one = search.one(event, search.query.when)
        if one is None:
            return unknown(f"I did not see that happen: {asked.thing}")
        found.append((one, one.change.thing.partition("#")[0]))
    found.sort(key=lambda pair: (pair[0].came.latest, pair[0].came.earliest))
    for (early, _), (late, _) in pairwise(found):
        if early.came.latest > late.came.earliest + timedelta(minutes=1) and not (
            early.came.witnessed and late.came.witnessed
        ):
            return unknown(f"either can have been first: {search.span(early.moment)}, {search.span(late.moment)}")
    names = [name for _, name in found]
    said = "; then ".join(f"{the(search, name)} {search.span(h.moment)}" for h, name in found)
    seqs = [seq for h, _ in found for seq in h.change.evidence]
    return search.say(names, f"First {said}.", names[0], seqs, 0.85, "times compared")


def _changed(search: Search) -> Finding | None:
    query = search.query
    place = search.name(query.object)
    if query.object is not None and place is None:
        return None
    within = _dated_by(search) or Interval()
    found = joined(search.world.changes(padded(within, timedelta(hours=2)), kind="moved"), search.person)
    sure: dict[str, Happened] = {}
    open_ended = []
    for happened in found:
        change = happened.change
        sides = [p for p in (change.old, change.new) if p is not None]
        if place is not None and not any(search.same(place, p) for p in sides):
            continue
        if not overlaps(change, within):
            continue
        if _within_looks(search, happened, within, place):
            sure[change.thing] = happened
        else:
            open_ended.append(happened)
    names = sorted({thing.partition("#")[0] for thing in sure})
    if not names:
        many = f"; {len(open_ended)} things may have been" if open_ended else ""
        return unknown(f"I did not see that anything was moved there then{many}")
    seqs = [seq for h in sure.values() for seq in h.change.evidence]
    said = f"{capital(listed([the(search, name) for name in names]))}."
    return search.say(names, said, names[0], seqs, 0.75, f"{len(names)} moves known, {len(open_ended)} may be more")


def _within_looks(search: Search, happened: Happened, within: Interval, place: str | None) -> bool:
    """Whether a move happened in a span: its looks lie in it or little outside, or the place was known at both ends."""
    change = happened.change
    if happened.inside(within, _SHORTLY):
        return True
    if within.start is None or within.end is None:
        return False
    if any(_on_its_way(search, change.thing, at) for at in (within.start, within.end)):
        return False
    before = search.world.place_of(change.thing, within.start)
    after = search.world.place_of(change.thing, within.end)
    sides = ((before, change.old), (after, change.new))
    there = [e for e, side in sides if side and (place is None or search.same(place, side))]
    known = bool(there) and all(e.value is not None and e.confidence >= LEAST_SURE for e in there)
    return known and before.value != after.value and None not in (before.value, after.value)


def _why(search: Search) -> Finding | None:
    query = search.query
    event = search.event(query.events[0]) if query.events else None
    if event is None or event.thing is None:
        return None
    found = search.happened(event, padded(query.when, _EDGE) if query.when else None)
    if not found:
        return unknown("I did not see that happen")
    at = instant(query.when)
    chosen = nearest(found, at) if at is not None else found[-1]
    if chosen.width > EXPLAINED:
        return unknown(f"it happened {search.span(chosen.moment)}, when nobody looked")
    estimate = search.world.why(event.thing, event.state, chosen.came.latest)
    if estimate.value is None:
        return unknown(estimate.reason)
    cause = str(estimate.value)
    by = "I did it" if cause == ME else f"{cause} did it" if search.person(cause) else f"because of the {cause}"
    seqs = [*chosen.change.evidence, *estimate.evidence]
    said = f"{capital(by)}, {search.span(chosen.moment)}; {estimate.reason}."
    must = "I" if cause == ME else cause
    return search.say(cause, said, must, seqs, estimate.confidence, estimate.reason)


_PARTS = ("morning", "afternoon", "evening", "night")


def _usual_place(search: Search) -> Finding | None:
    name = search.name(search.query.subject)
    if name is None:
        return None
    part, weekday = _habit(search.query)
    estimate = search.world.usual_place(name, part, weekday)
    if estimate.value is None:
        return unknown(estimate.reason)
    place = str(estimate.value)
    said = f"{capital(the(search, name))} is mostly {_at_place(search, place)}: {estimate.reason}."
    return search.say(place, said, place, estimate.evidence, estimate.confidence, estimate.reason)


def _usual_time(search: Search) -> Finding | None:
    event = search.event(search.query.events[0]) if search.query.events else None
    if event is None:
        return None
    _, weekday = _habit(search.query)
    which = {"weekday": weekday} if weekday else {}
    if event.kind in ("entered", "left"):
        estimate = search.world.usual_time(event.thing, event.kind, event.place, **which)
    else:
        if event.thing is not None:
            which["thing"] = event.thing
        estimate = search.world.usual_time(event.by, event.kind, event.state or event.place, **which)
    if not isinstance(estimate.value, int):
        return unknown(estimate.reason)
    clock = time(estimate.value // 60 % 24, estimate.value % 60)
    said = f"Mostly at {clock:%H:%M}: {estimate.reason}."
    return search.say(clock, said, f"{clock:%H:%M}", estimate.evidence, estimate.confidence, estimate.reason)


def _habit(query: Query) -> tuple[str | None, str | None]:
    part = next((word for word in query.habit if word in _PARTS), None)
    return part, next((word for word in query.habit if word not in _PARTS), None)


_FINDERS: dict[str, Callable[[Search], Finding | None]] = {
    "location": _where,
    "state": _state,
    "yes_no": _yes_no,
    "who_did": _who,
    "when_happened": _when,
    "count": _count,
    "order": _order,
    "changed": _changed,
    "why": _why,
    "usual_place": _usual_place,
    "usual_time": _usual_time,
}
