"""Questions about what was, answered from stays alone: where, in what state, who, when, how often, in what order.

Every answer is an `Estimate`. ``value`` is None where nobody can know: nobody looked, or looks disagree. Confidence in
what was not looked at falls with the time since the last look, by how often such a thing changes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from ..memory.names import name_match, thing_key
from ..records import Change, Estimate, Interval
from .fold import WITNESS_STEPS, Fold, seconds
from .geography import GONE, ME
from .stays import Life, Stay

SEEN = 0.97
"""Confidence in what was in view at the time."""
LEAST_STAYED = 0.4
"""Less sure that something stayed as it was, nothing is said."""
_PRIOR_LOOKED_S = 86400.0
"""As if every thing had been watched for a day and had changed once: what is not known yet changes about daily."""


def moment(at_s: int) -> datetime:
    """Seconds since the epoch as an aware datetime."""
    return datetime.fromtimestamp(at_s, UTC)


class Queries:
    """What the fold says about the past. Names are matched as people say them (``the keys`` is ``keys``)."""

    fold: Fold

    # ---------------------------------------------------------------- one thing

    def place_of(self, thing: str, at: datetime | None = None) -> Estimate:
        """Where an item (or a person) is or was.

        Args:
            thing: a name, or an id such as ``blue mug#2``.
            at: world time; None for now.

        Returns:
            ``value`` is a place: a fixture, ``kitchen floor``, a person, ``me``, ``gone``; a room for a person.
        """
        lives = self.lives(thing)
        if not lives:
            return Estimate(None, f"never seen: {thing}")
        found = [self._at(life, at) for life in lives]
        values = {estimate.value for estimate in found}
        if len(found) == 1 or (len(values) == 1 and None not in values):
            return max(found, key=lambda e: e.confidence)
        placed = [estimate for estimate in found if estimate.value is not None]
        if len(placed) == 1:  # the others are misreads, or had left the home, or had not come
            sure = placed[0].confidence * (0.8 if lives[0].name in self.fold.several else 1.0)
            return replace(placed[0], confidence=round(sure, 3))
        known = [f"{life.id} {e.value or 'not known'}" for life, e in zip(lives, found, strict=True)]
        return Estimate(None, f"there are {len(lives)}: {', '.join(known)}", _joined(found))

    def state_of(self, fixture: str, at: datetime | None = None) -> Estimate:
        """The state of a fixture: ``on``, ``open`` ...; arguments and confidence as for `place_of`."""
        life = self._fixture(fixture)
        if life is None or life.now is None:
            return Estimate(None, f"never seen: {fixture}")
        return self._at(life, at)

    def who_moved(self, thing: str, within: Interval | None = None, to: str | None = None) -> Estimate:
        """Who moved an item last in ``within`` (to the place ``to``): a person, ``me``, or None if nobody was seen."""
        moves = [c for c in self.changes(within, thing=thing, kind="moved") if to is None or c.new == to]
        moves = [c for c in moves if c.new not in (None, c.by) or c is moves[-1]]
        if not moves:
            return Estimate(None, f"no move of {thing} is known of then")
        last = moves[-1]
        if last.by is None:
            return Estimate(None, f"{_bracket(last)}; nobody was seen to do it", last.evidence)
        sure = 0.95 if last.witnessed else 0.75
        return Estimate(last.by, f"{last.by} did: {last.old} to {last.new}, {_bracket(last)}", last.evidence, sure)

    # ------------------------------------------------------------------ changes

    def changes(
        self,
        within: Interval | None = None,
        *,
        thing: str | None = None,
        place: str | None = None,
        room: str | None = None,
        person: str | None = None,
        kind: str | None = None,
    ) -> list[Change]:
        """Changes that are known of, oldest first; those that can have happened in ``within``.

        Args:
            within: world time; a change counts if its bracket overlaps it. None for all.
            thing: of this item, fixture or person.
            place: from or to this place (or state, or room).
            room: in this room (the thing's old or new place lies in it).
            person: done by this person (``me`` for the agent), or of this person.
            kind: ``moved``, ``state``, ``entered`` or ``left``.
        """
        found = []
        lives = self.lives(thing) if thing is not None else None
        if thing is not None and not lives:
            fixture = self._fixture(thing)
            lives = [fixture] if fixture is not None else []
        for change in self._all_changes(lives):
            if kind is not None and change.kind != kind:
                continue
            if within is not None and not _overlaps(change, within):
                continue
            if place is not None and place not in (change.old, change.new):
                continue
            if person is not None and person not in (change.by, change.thing):
                continue
            if room is not None and room not in self._rooms_of(change):
                continue
            found.append(change)
        return sorted(found, key=lambda c: (c.latest, c.earliest, c.kind, c.thing))

    def count(self, within: Interval | None = None, **which: Any) -> Estimate:
        """How many changes were witnessed in ``within``; arguments as for `changes`, and ``new`` for the new value.

        Those found out later count if their whole bracket lies in ``within``. The reason says how many may be missing.
        """
        new = which.pop("new", None)
        found = [c for c in self.changes(within, **which) if new is None or c.new == new]
        sure = [c for c in found if within is None or _inside(c, within)]
        unsure = len(found) - len(sure)
        reason = f"{sum(c.witnessed for c in sure)} seen as they happened, {len(sure)} known, {unsure} more possible"
        evidence = tuple(sorted({seq for c in sure for seq in c.evidence}))
        share = sum(c.witnessed for c in sure) / len(sure) if sure else 0.5
        return Estimate(len(sure), reason, evidence, round(0.4 + 0.5 * share - (0.2 if unsure else 0.0), 3))

    def order(
        self, first: str | Mapping[str, Any], second: str | Mapping[str, Any], within: Interval | None
    ) -> Estimate:
        """Which of two happened first.

        Args:
            first, second: a thing, or what `changes` takes (``thing``, ``kind``, ``new``, ``place``, ``person``).
            within: world time in which to look.

        Returns:
            ``value`` is 1 or 2: which argument came first; None if one is not known or their brackets overlap.
        """
        ends = []
        for number, which in ((1, first), (2, second)):
            asked = {"thing": which} if isinstance(which, str) else dict(which)
            new = asked.pop("new", None)
            found = [c for c in self.changes(within, **asked) if new is None or c.new == new]
            if not found:
                return Estimate(None, f"no such change is known: {which}")
            ends.append((found[0], number))
        (a, _), (b, _) = ends
        evidence = tuple(sorted({*a.evidence, *b.evidence}))
        early, late = sorted(ends, key=lambda pair: (pair[0].latest, pair[0].earliest))
        if early[0].latest > late[0].earliest and not (early[0].witnessed and late[0].witnessed):
            return Estimate(None, f"both can have come first: {_bracket(a)}; {_bracket(b)}", evidence)
        return Estimate(early[1], f"{_bracket(a)}; {_bracket(b)}", evidence, 0.9)

    # ------------------------------------------------------------ rooms, people

    def watched(self, room: str, within: Interval) -> float:
        """Share of ``within`` (a bounded interval) in which most of ``room`` was in view, from 0 to 1."""
        fold = self.fold
        start = seconds(within.start) if within.start else 0
        end = seconds(within.end) if within.end else fold.time
        if end <= start:
            return 0.0
        total = 0
        for first, last in fold.views.get(room, ()):
            total += max(0, min(last + fold.step_s, end) - max(first, start))
        return min(1.0, total / (end - start))

    def people_in(self, room: str, at: datetime | None = None) -> Estimate:
        """Names of the people known to be in ``room`` at a time; None if the room was not watched then."""
        fold = self.fold
        t = fold.time if at is None else seconds(at)
        names, seqs = [], set()
        for name, life in sorted(fold.people.items()):
            before, _ = life.at(t)
            if before is None or before.value != room:
                continue
            if t <= before.last + fold.step_s and (before.gone is None or t < before.gone):
                names.append(name)
                seqs.update(before.seqs)
        seen = any(first <= t <= last + fold.step_s for first, last in fold.views.get(room, ()))
        if not names and not seen:
            return Estimate(None, f"nobody looked at the {room} then")
        return Estimate(tuple(names), "seen" if seen else "some were seen", tuple(sorted(seqs)), 0.9 if seen else 0.6)

    def room_of(self, place: str) -> str | None:
        """The room of a place or of a person's or item's place; None if that is not known."""
        return self.fold.map.room_of(place)

    # ------------------------------------------------------------------- inside

    def lives(self, name: str) -> list[Life]:
        """Items and people that a name may mean."""
        fold = self.fold
        exact = fold.objects.named(name) or [life for n, life in fold.people.items() if n == name]
        if exact:
            return exact
        names = [*fold.objects.names, *fold.people]
        best = _best(name, names)
        return [] if best is None else (fold.objects.named(best) or [fold.people[best]])

    def name_of(self, said: str) -> str | None:
        """The known name (item, person, fixture or room) that words mean; None if none or several do."""
        fold = self.fold
        names = [*fold.objects.names, *fold.people, *fold.fixtures, *fold.map.rooms]
        return said if said in names else _best(said, names)

    def role_of(self, name: str) -> str | None:
        """What a known name stands for: ``item``, ``person``, ``fixture`` or ``room``."""
        fold = self.fold
        return "room" if name in fold.map.rooms else fold.roles.get(name.partition("#")[0])

    def _fixture(self, name: str) -> Life | None:
        fixtures = self.fold.fixtures
        best = name if name in fixtures else _best(name, list(fixtures))
        return None if best is None else fixtures[best]

    def _at(self, life: Life, at: datetime | None) -> Estimate:
        fold = self.fold
        t = max(fold.time, life.now.last if life.now else 0) if at is None else seconds(at)
        before, after = life.at(t)
        if before is None:
            first = f"; first seen {_clock(after.first)}" if after is not None else ""
            return Estimate(None, f"{life.name} had not been seen yet{first}")
        if t <= before.last:
            return self._within(life, before, t)
        if after is None:
            return self._since(life, before, t)
        return self._between(life, before, after, t)

    def _within(self, life: Life, stay: Stay, t: int) -> Estimate:
        gap = stay.unseen(t)
        evidence = tuple(stay.seqs)
        if gap is None:
            return Estimate(stay.value, f"seen so {_clock(stay.first)} to {_clock(stay.last)}", evidence, SEEN)
        stayed = math.exp(-self._rate(life) * (gap[1] - gap[0]) / 4)  # it may have been away and come back
        reason = f"so when seen {_clock(gap[0])} and {_clock(gap[1])}; nobody looked between"
        return Estimate(stay.value, reason, evidence, round(SEEN * max(0.5, stayed), 3))

    def _since(self, life: Life, stay: Stay, t: int) -> Estimate:
        evidence = tuple(stay.seqs)
        if stay.gone is not None and t >= stay.gone and stay.value != GONE:
            who = f" by {stay.taken_by}" if stay.taken_by else ""
            return Estimate(None, f"no longer {stay.value} since {_clock(stay.gone)}{who}, not seen again", evidence)
        if stay.value in (GONE, ME) and stay.by == ME:
            return Estimate(stay.value, f"so since {_clock(stay.first)}, by {stay.by}", evidence, SEEN)
        age = t - stay.last
        sure = SEEN * math.exp(-self._rate(life) * max(0, age - WITNESS_STEPS * self.fold.step_s))
        return Estimate(stay.value, f"last seen so {_clock(stay.last)}", evidence, round(sure, 3))

    def _between(self, life: Life, before: Stay, after: Stay, t: int) -> Estimate:
        step = WITNESS_STEPS * self.fold.step_s
        evidence = (*before.seqs[-2:], *after.seqs[:2])
        if after.first - before.last <= step:
            near = before if t - before.last <= after.first - t else after
            return Estimate(near.value, f"it changed {_clock(before.last)} to {_clock(after.first)}", evidence, 0.8)
        if before.value == after.value and (before.gone is None or life.name in self.fold.people):
            stayed = math.exp(-self._rate(life) * (after.first - before.last) / 2)
            if stayed < LEAST_STAYED:
                return Estimate(None, f"nobody looked {_clock(before.last)} to {_clock(after.first)}", evidence)
            reason = f"so when seen {_clock(before.last)} and {_clock(after.first)}; nobody looked between"
            return Estimate(before.value, reason, evidence, round(SEEN * stayed, 3))
        if before.gone is None and t - before.last <= step:
            sure = SEEN * math.exp(-self._rate(life) * (t - before.last))
            return Estimate(before.value, f"last seen so {_clock(before.last)}", evidence, round(sure, 3))
        if before.gone is not None and t >= before.gone and before.taken_by and after.value != before.taken_by:
            reason = (
                f"{before.taken_by} took it {_clock(before.gone)}; next seen at {after.value} {_clock(after.first)}"
            )
            return Estimate(None, reason, evidence)
        reason = (
            f"it changed from {before.value} to {after.value} between {_clock(before.last)} and {_clock(after.first)}, "
            "when nobody looked"
        )
        return Estimate(None, reason, evidence)

    def _rate(self, life: Life) -> float:
        """Changes a second, by how often such a thing was found changed while it was known."""
        if not life.stays:
            return 1.0 / _PRIOR_LOOKED_S
        span = life.stays[-1].last - life.stays[0].first
        return len(life.stays) / (span + _PRIOR_LOOKED_S)

    def _all_changes(self, lives: list[Life] | None) -> Iterator[Change]:
        fold = self.fold
        wanted = None if lives is None else {id(life) for life in lives}
        for kind, group in (("moved", fold.objects.items), ("state", fold.fixtures), ("entered", fold.people)):
            for life in group.values():
                if wanted is None or id(life) in wanted:
                    yield from _changes_of(life, kind)

    def _rooms_of(self, change: Change) -> set[str | None]:
        fold = self.fold
        if change.kind == "state":
            return {fold.map.room_of(change.thing)}
        if change.kind in ("entered", "left"):
            return {change.new if change.kind == "entered" else change.old}
        return {fold.map.room_of(p) for p in (change.old, change.new) if p is not None} - {None}


def _changes_of(life: Life, kind: str) -> Iterator[Change]:
    name = life.id if kind == "moved" else life.name
    old: Stay | None = None
    for stay in life.stays:
        if old is None and kind == "entered" and stay.witnessed and stay.since is not None:
            yield Change(
                kind, name, None, stay.value, moment(stay.since), moment(stay.first), name, True, tuple(stay.seqs[:1])
            )  # fmt: skip
        again = old is not None and old.value == stay.value
        if old is not None and not (again and (old.gone is None or (kind == "entered" and not stay.witnessed))):
            since = max(old.last, stay.since or 0)
            if kind != "entered" or stay.value != GONE:
                yield Change(
                    kind, name, old.value, stay.value, moment(min(since, stay.first)), moment(stay.first), stay.by,
                    stay.witnessed, (*old.seqs[-1:], *stay.seqs[:1]),
                )  # fmt: skip
            if kind == "entered" and old.value != GONE:
                yield _left(life, old, stay)
        old = stay
    if old is not None and old.gone is not None and old.value != GONE:
        if kind == "entered":
            yield _left(life, old, None)
        elif kind == "moved":
            yield Change(
                kind, name, old.value, None, moment(old.last), moment(old.gone), old.taken_by,
                old.gone - old.last <= 120, tuple(old.seqs[-1:]),
            )  # fmt: skip


def _left(life: Life, old: Stay, new: Stay | None) -> Change:
    end = old.gone if old.gone is not None else (new.first if new is not None else old.last)
    value = None if new is None else new.value
    return Change(
        "left", life.name, old.value, value, moment(old.last), moment(max(old.last, end)), life.name,
        end - old.last <= 120, tuple(old.seqs[-1:]),
    )  # fmt: skip


def _best(said: str, names: list[str]) -> str | None:
    """The one name that answers best to what was said."""
    key = thing_key(said)
    same = [name for name in names if thing_key(name) == key]
    if len(set(same)) == 1:
        return same[0]
    scored = sorted(((name_match(said, name), name) for name in set(names)), reverse=True)
    if not scored or scored[0][0] == 0 or (len(scored) > 1 and scored[1][0] == scored[0][0]):
        return None
    return scored[0][1]


def _overlaps(change: Change, within: Interval) -> bool:
    return (within.start is None or change.latest >= within.start) and (
        within.end is None or change.earliest < within.end
    )


def _inside(change: Change, within: Interval) -> bool:
    slack = timedelta(minutes=1)
    return (within.start is None or change.earliest >= within.start - slack) and (
        within.end is None or change.latest <= within.end + slack
    )


def _joined(estimates: list[Estimate]) -> tuple[int, ...]:
    return tuple(sorted({seq for estimate in estimates for seq in estimate.evidence}))


def _bracket(change: Change) -> str:
    if change.witnessed:
        return f"{change.thing} {change.kind} {_clock(seconds(change.latest))}"
    return f"{change.thing} {change.kind} {_clock(seconds(change.earliest))} to {_clock(seconds(change.latest))}"


def _clock(at_s: int) -> str:
    return f"{moment(at_s):%Y-%m-%d %H:%M}"
