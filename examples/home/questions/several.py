"""Questions that need several events: how often, in what order, what changed, why, what is usual.

Functions as in ``single.py``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from statistics import median

from ..catalogue import COMING, GONE, ME
from .ground import NARROW, TRIES, Candidate, Ground, pick, sayable, unseen
from .observed import Change
from .wordings import DAY, PARTS, came, flipped, the, was

# --- how often, in what order -----------------------------------------------------------------------------------------


def count_moved(ground: Ground, answerable: bool) -> Candidate | None:
    """How often something was moved in a window."""
    for _ in range(TRIES):
        item = ground.rng.choice(ground.items)
        first = ground.any_minute() // 30 * 30
        last = first + ground.rng.choice((120, 180, 240, 360, 480))
        if last > ground.asked or last // DAY != first // DAY:
            continue
        moves = [c for c in ground.seen.changes_of(item) if c.kind == "moved" and first <= c.end and c.begin <= last]
        if not moves or any(GONE in (c.old, c.new) for c in moves) or not ground.seen.only(item, first, last, moves):
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
        return Candidate(
            "how_often",
            "count_moved",
            slots,
            len(moves) if answerable else None,
            answerable,
            needs_events=2,
            proof=proof,
            key=("count", item, first),
            spec={"thing": item, "window": (first, last)},
        )
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
        inside = [c for c in ground.seen.changes_of(fixture) if first + 2 <= c.end <= last - 2]
        near = [c for c in ground.seen.changes_of(fixture) if first - 3 <= c.end <= last + 3]
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
        return Candidate(
            "how_often",
            "count_flips",
            slots,
            len(flips) if answerable else None,
            answerable,
            needs_events=2,
            proof=((first, last),) if answerable else (),
            key=("count", fixture, first),
            spec={"thing": fixture, "window": (first, last)},
        )
    return None


def count_seen(ground: Ground, answerable: bool) -> Candidate | None:
    """How often the agent itself saw something happen on a day."""
    if not answerable:
        return None
    for change in pick(ground, [c for c in ground.changes if c.kind == "state" and c.new in ("on", "open")]):
        day = change.end // DAY
        flips = [c for c in ground.changes if c.thing == change.thing and c.new == change.new and c.end // DAY == day]
        seen = [c for c in flips if ground.seen.witnessed(c) and ground.seen.bracket(c).width <= 2]
        half = [c for c in flips if c not in seen and (ground.seen.witnessed(c) or ground.seen.bracket(c).width <= 4)]
        if len(seen) < 2 or half:
            continue
        slots = {**ground.forms(change), "day": ground.times.day(change.end)}
        return Candidate(
            "how_often",
            "count_seen",
            slots,
            len(seen),
            True,
            tolerance=len(seen) // 4,
            needs_events=2,
            proof=tuple((c.end - 1, c.end + 1) for c in seen),
            key=("count", change.thing, day),
            spec={"thing": change.thing},
        )
    return None


def order_of(ground: Ground, answerable: bool) -> Candidate | None:
    """Which of two or three things that happened on one day came first."""
    number = ground.rng.choice((2, 2, 3)) if answerable else 2
    fit = ground.dated if answerable else ground.undated
    usable = [c for c in ground.changes if c.kind != "left" and sayable(c) and ground.unique(c) and fit(c)]
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
        slots = {
            "day": ground.times.day(true[0].end),
            **forms[0],
            "other_gerund": forms[1]["gerund"],
            "other_finite": forms[1]["finite"],
            "third_gerund": forms[-1]["gerund"],
        }
        if not slots.get("base"):
            slots["base"] = f"the {ground.name(chosen[0].thing)} get moved to the {chosen[0].new}"
        return Candidate(
            "order",
            "order_two" if number == 2 else "order_three",
            slots,
            tuple(ground.name(c.thing) for c in true) if answerable else None,
            answerable,
            needs_events=number,
            proof=ground.proof(true[0]) if answerable else (),
            key=("order", *sorted(c.thing for c in chosen), true[0].end // DAY),
            spec={"events": [(c.thing, c.kind, c.new, c.end) for c in chosen]},
        )
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
        moved = _moved_in(ground, room, first, last)
        if moved is None or not 1 <= len(moved) <= 4:
            continue
        names = {ground.name(item) for item in moved}
        if len(names) < len(moved):
            continue
        if answerable and not all(_told(ground, moves, first, last) for moves in moved.values()):
            continue
        wide = all(ground.hidden(c) for moves in moved.values() for c in moves)
        if not answerable and not (wide and _room_unseen(ground, room, first - 40, last + 40)):
            continue
        slots = {"room": room, "between": ground.times.between(first, last)}
        return Candidate(
            "changed",
            "changed",
            slots,
            frozenset(names) if answerable else None,
            answerable,
            needs_events=2,
            proof=((first - 30, last + 30),) if answerable else (),
            key=("changed", room, first // 60),
            spec={"room": room, "window": (first, last)},
        )
    return None


def _moved_in(ground: Ground, room: str, first: int, last: int) -> dict[str, list[Change]] | None:
    """Items moved within, into or out of a room, with their moves; None if it is open to dispute which these are."""
    found = {}
    for item in ground.truth.items:
        all_moves = [c for c in ground.seen.changes_of(item) if c.kind == "moved"]
        moves = [c for c in all_moves if c.end >= first and c.begin <= last]
        if any(_may_reach(ground, c, room, first, last) for c in all_moves if c not in moves):
            return None
        places = [ground.truth.position(item, m) for m in (first, last)]
        ways = {ground.plan.room_of(p) for c in moves for p in (c.old, c.new)}
        if not moves or room not in ways:
            continue
        whole = all(first <= c.begin and c.end <= last for c in moves) and GONE not in places
        whole = whole and ground.seen.only(item, first, last, moves) and _tellable(ground, item, first, last)
        if not whole or places[0] == places[1] or room not in {ground.plan.room_of(p) for p in places}:
            return None
        found[item] = moves
    return found


def _may_reach(ground: Ground, move: Change, room: str, first: int, last: int) -> bool:
    """Whether a move of another time could, by the looks, have been in a window."""
    if room not in (ground.plan.room_of(move.old), ground.plan.room_of(move.new)):
        return False
    if move.end < first:
        after = ground.seen.first_after(move.thing, move.end)
        return after is None or after[0] >= first
    before = ground.seen.last_before(move.thing, move.begin - 1)
    return before is None or before[0] <= last


def _tellable(ground: Ground, item: str, first: int, last: int) -> bool:
    """Whether its twins, if it has any, were known to be elsewhere."""
    twins = [t for t in ground.truth.ids_of(ground.name(item)) if t != item]
    return all(ground.known(twin, m) is not None for twin in twins for m in (first, last))


def _told(ground: Ground, moves: list[Change], first: int, last: int) -> bool:
    """Whether looks shortly before and after a window show that something was moved in it."""
    before, after = ground.seen.bracket(moves[0]).before, ground.seen.bracket(moves[-1]).after
    return before is not None and after is not None and first - 30 <= before and after <= min(last + 30, ground.asked)


def _room_unseen(ground: Ground, room: str, first: int, last: int) -> bool:
    return all(
        ground.seen.share(f, first, last) == 0 for f, fixture in ground.plan.fixtures.items() if fixture.room == room
    )


def why(ground: Ground, answerable: bool) -> Candidate | None:
    """Why a fixture went on or off: another fixture, itself, or a person."""
    own = ground.rng.random() < 0.7
    for change in pick(
        ground, [c for c in ground.changes if c.kind == "state" and c.new in ("on", "off", "wet", "dry")]
    ):
        same = [c for c in ground.seen.changes_of(change.thing) if c.new == change.new]
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
                or not unseen(ground, change)
                or not 60 <= bracket.width < 10**6
                or (bracket.after or 0) > ground.asked
            ):
                continue
        name = ground.name(change.thing)
        forms = flipped(name, change.new, by_itself=True)
        slots = {**forms, "x": the(name), "at": ground.times.at(change.end)}
        return Candidate(
            "why",
            "why",
            slots,
            value,
            answerable,
            needs_events=needs,
            proof=proof,
            key=("why", change),
            spec={"thing": change.thing, "at": change.end},
        )
    return None


def _source(ground: Ground, change: Change) -> Change | None:
    """The change of the causing fixture that a mechanism's effect followed."""
    before = [
        c
        for c in ground.seen.changes_of(change.cause or "")
        if c.kind == "state" and c.end <= change.end and c is not change
    ]
    return before[-1] if before and change.end - before[-1].end <= 60 else None


def usual_place(ground: Ground, answerable: bool) -> Candidate | None:
    """Where something mostly is in the morning, in the afternoon or in the evening."""
    for _ in range(TRIES // 2):
        item, part = ground.rng.choice(ground.items), ground.rng.choice(list(PARTS))
        truly: Counter[str] = Counter()
        looked: Counter[str] = Counter()
        minutes: Counter[str] = Counter()
        days = moot = 0
        for day in range(ground.asked // DAY + 1):
            first, last = (max(ground.first, day * DAY + m) for m in PARTS[part])
            if last > ground.asked or last - first < 120:
                continue
            days += 1
            truly.update(ground.truth.position(item, m) for m in range(first, last, 10))
            found = ground.seen.sightings(item, first, last - 1)
            minutes.update(v for _, v in found if v not in (ME, *ground.people))
            looked.update({Counter(v for _, v in found).most_common(1)[0][0]: 1} if found else {})
            before, after = ground.seen.last_before(item, first), ground.seen.first_after(item, last)
            moot += not found and (before is None or after is None or before[1] != after[1])
        if days < 3 or not truly or ground.name(item) in COMING:
            continue
        place, times = truly.most_common(1)[0]
        if answerable:
            best = looked.most_common(2)
            clear = (
                bool(best)
                and best[0][0] == place == minutes.most_common(1)[0][0]
                and sum(looked.values()) >= 3
                and (len(best) == 1 or best[0][1] >= best[1][1] + 2)
            )
            if not clear or times / sum(truly.values()) < 0.6 or place in ground.people or place in (ME, GONE):
                continue
        elif looked or moot < 0.7 * days:
            continue
        name = ground.name(item)
        slots = {"x": the(name), "is": "are" if was(name) == "were" else "is", "part": part}
        return Candidate(
            "usual",
            "usual_place",
            slots,
            place if answerable else None,
            answerable,
            needs_events=3,
            key=("usual", item, part),
            spec={"thing": item, "part": part},
        )
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
        return Candidate(
            "usual",
            "usual_time",
            slots,
            middle if answerable else None,
            answerable,
            tolerance=30,
            needs_events=3,
            key=("usual", person),
            spec={"thing": person},
        )
    return None
