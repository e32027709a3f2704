"""Questions about one thing or one event: where, when, who.

Each function draws a question that what was in view decides (``answerable``), or one that nobody can answer; it tries a
number of things and times at random and gives up with None.
"""

from __future__ import annotations

from ..catalogue import GONE, ME
from .ground import STATES_ASKED, TRIES, WIDE, Candidate, Ground, part_of, pick, sayable, unseen
from .wordings import DAY, PARTS, the, was

# --- where ------------------------------------------------------------------------------------------------------------


_NO_PROOF: tuple[tuple[int, int], ...] = ()


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
            proof: tuple[tuple[int, int], ...] = ((near[0] if near else minute, minute),)
        else:
            gap = ground.gap(item, minute)
            if gap is None:
                continue
            place, proof = None, _NO_PROOF
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
            proof: tuple[tuple[int, int], ...] = ((minute, minute),)
        else:
            if ground.gap(person, minute, 25) is None or ground.truth.position(person, minute) == GONE:
                continue
            room, proof = None, _NO_PROOF
        slots = {"x": person, "at": ground.times.at(minute)}
        spec = {"thing": person, "at": minute}
        return Candidate(
            "where", "where_person", slots, room, answerable, proof=proof, key=("at", person, minute // 60), spec=spec
        )
    return None


def where_when(ground: Ground, answerable: bool) -> Candidate | None:
    """Where something was when somebody came home."""
    comings = [c for c in ground.changes if c.kind == "entered" and ground.unique(c) and ground.dated(c)]
    for change in pick(ground, comings):
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
                "where",
                "where_when",
                slots,
                place,
                answerable,
                needs_events=2,
                proof=ground.proof(change) if answerable else (),
                key=("when", item, change),
                spec={"thing": item, "at": change.end},
            )
    return None


def where_before(ground: Ground, answerable: bool) -> Candidate | None:
    """From where something came to a place; nothing that nobody could know is asked in this way."""
    if not answerable:
        return None
    for change in pick(ground, [c for c in ground.changes if c.kind == "moved" and ground.unique(c)]):
        bracket = ground.seen.bracket(change)
        if bracket.width > 8 * 60 or (bracket.after or 0) > ground.asked or change.new == GONE or change.old == GONE:
            continue
        name = ground.name(change.thing)
        slots = {
            "x": the(name),
            "was": was(name),
            "it": "they" if was(name) == "were" else "it",
            "place": change.new,
            "day": ground.times.day(change.end),
        }
        return Candidate(
            "where",
            "where_before",
            slots,
            change.old,
            True,
            needs_events=2,
            proof=ground.proof(change),
            key=("before", change),
            spec={"thing": change.thing},
        )
    return None


def where_taken(ground: Ground, answerable: bool) -> Candidate | None:
    """Where somebody put something, twins included; nothing that nobody could know is asked in this way."""
    if not answerable:
        return None
    moves = [c for c in ground.seen.changes if c.kind == "moved" and c.by in ground.people and c.begin > ground.first]
    for change in pick(ground, moves):
        name, part = ground.name(change.thing), part_of(change.end)
        day = change.end // DAY
        same = [c for c in moves if ground.name(c.thing) == name and c.by == change.by and c.end // DAY == day]
        alone = sum(part_of(c.end) == part for c in same) == 1 and change.end % DAY >= PARTS["morning"][0]
        bracket = ground.seen.bracket(change)
        quick = change.end - change.begin <= 60 and bracket.after is not None and bracket.after - change.end <= 60
        seen = quick and ground.seen.doer_seen(change)
        if not alone or not seen or (bracket.after or 0) > ground.asked or GONE in (change.old, change.new):
            continue
        slots = {"x": the(name), "p": str(change.by), "part": ground.times.part(change.end)}
        return Candidate(
            "where",
            "where_taken",
            slots,
            change.new,
            True,
            needs_events=2,
            proof=((change.begin, bracket.after or change.end),),
            key=("taken", change),
            spec={"thing": change.thing},
        )
    return None


# --- when, who --------------------------------------------------------------------------------------------------------


def when_did(ground: Ground, answerable: bool) -> Candidate | None:
    """When something changed."""
    for change in pick(ground, ground.changes):
        if not sayable(change) or not ground.unique(change):
            continue
        if not (ground.dated(change) if answerable else ground.undated(change)):
            continue
        slots = {**ground.forms(change), "day": ground.times.day(change.end)}
        return Candidate(
            "when",
            "when_did",
            slots,
            change.end if answerable else None,
            answerable,
            tolerance=10,
            proof=ground.proof(change) if answerable else (),
            key=("when", change),
            spec={"thing": change.thing, "kind": change.kind},
        )
    return None


def _window(ground: Ground, first: int, last: int) -> tuple[int, int] | None:
    """A window of half hours around two minutes of one day."""
    begin, end = (first - 10) // 30 * 30, -(-(last + 10) // 30) * 30
    if begin // DAY != (end - 1) // DAY or end % DAY == 0 or end > ground.asked:
        return None
    return begin, end


def who_moved(ground: Ground, answerable: bool) -> Candidate | None:
    """Who moved something in a window with one move."""
    for change in pick(
        ground, [c for c in ground.changes if c.kind == "moved" and c.by and GONE not in (c.old, c.new)]
    ):
        window = _window(ground, change.begin, change.end)
        if window is None:
            continue
        inside = [c for c in ground.seen.changes_of(change.thing) if c.end >= window[0] and c.begin <= window[1]]
        if not ground.seen.only(change.thing, *window, [change]):
            continue
        bracket = ground.seen.bracket(change)
        if answerable and not (ground.seen.doer_seen(change) and bracket.width <= WIDE):
            continue
        if not answerable:
            hidden = all(
                ground.seen.seen_at(t, m) is None
                for t in (change.thing, change.by or "")
                for m in range(change.begin - 1, change.end + 2)
            )
            if not hidden or not 40 <= bracket.width < 10**6 or ground.seen.doer_seen(change):
                continue
        if len(inside) > 1 or (bracket.after or 10**9) > ground.asked:
            continue
        name = ground.name(change.thing)
        slots = {"x": the(name), "was": was(name), "between": ground.times.between(*window)}
        return Candidate(
            "who",
            "who_moved",
            slots,
            change.by if answerable else None,
            answerable,
            needs_events=1,
            proof=ground.proof(change) if answerable else (),
            key=("who", change),
            spec={"thing": change.thing, "window": window},
        )
    return None


def who_did(ground: Ground, answerable: bool) -> Candidate | None:
    """Who opened or switched something at a time."""
    flips = [
        c
        for c in ground.changes
        if c.kind == "state" and c.by in ground.people and c.new in STATES_ASKED and c.new != "wet"
    ]
    for change in pick(ground, flips):
        same = [
            c for c in ground.seen.changes_of(change.thing) if c.new == change.new and abs(c.end - change.end) <= 12
        ]
        if len(same) > 1:
            continue
        bracket = ground.seen.bracket(change)
        if answerable and not (ground.seen_doing(change) and bracket.width <= 3):
            continue
        if not answerable and not (
            unseen(ground, change) and 40 <= bracket.width < 10**6 and (bracket.after or 0) <= ground.asked
        ):
            continue
        slots = {**ground.forms(change), "at": ground.times.at(change.end)}
        return Candidate(
            "who",
            "who_did",
            slots,
            change.by if answerable else None,
            answerable,
            proof=ground.proof(change) if answerable else (),
            key=("who", change),
            spec={"thing": change.thing, "at": change.end},
        )
    return None
