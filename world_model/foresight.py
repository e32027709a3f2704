"""What will be: what is expected to change, what a plan would lead to, and how often the world surprised.

It plays acts through what is believed: ways, doors, what lies where, and the causes that were learned. It never acts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any, Protocol

from ..errors import BadInput
from ..records import Cell, Change, Estimate
from .geography import GONE, ME
from .queries import Queries, moment

VERBS = ("go", "pick_up", "put_down", "use", "give", "discard", "wait")
_ACT_WORKS = 0.98
"""Chance that an act does what it should when all that it needs is so."""
_CLOSED, _OPEN = "closed", "open"


class Causes(Protocol):
    """What was learned of causes (`causes.CausalModel`)."""

    def learn(self, changes: Sequence[Change], acts: Any = ..., coverage: Any = ...) -> Any:
        """Learn from changes of state, own acts and when each fixture was in view."""

    def explain(self, change: Change) -> Estimate:
        """The cause of a change: a fixture, a person, or None (``not identifiable``)."""

    def effects(self, fixture: str, state: str) -> Iterable[tuple[str, str, float, float]]:
        """``(fixture, state, probability, minutes)`` of what a state brings about."""


@dataclass(frozen=True, slots=True)
class Act:
    """One step of a plan."""

    verb: str
    """``go``, ``pick_up``, ``put_down``, ``use``, ``give``, ``discard`` or ``wait``."""
    thing: str = ""
    """Item to pick up; fixture to use."""
    place: str = ""
    """Where to go or to put it; person to give it to."""
    state: str = ""
    """State that the fixture is to have after ``use``; any other if empty."""
    minutes: int = 0
    """How long to wait."""

    def __post_init__(self) -> None:
        if self.verb not in VERBS:
            raise BadInput(f"expected an act out of {', '.join(VERBS)}, got {self.verb!r}")


@dataclass(slots=True)
class Simulation:
    """What a plan would lead to."""

    places: dict[str, str] = field(default_factory=dict)
    """Where moved items would be, by id."""
    states: dict[str, str] = field(default_factory=dict)
    """States of fixtures that would have changed."""
    probability: float = 1.0
    """That all of it works, from 0 to 1."""
    minutes: int = 0
    """How long it would take."""
    effects: list[str] = field(default_factory=list)
    """Side effects, in words."""
    problem: str = ""
    """Why it cannot work; empty if it can."""


class Foresight(Queries):
    """Expectations of a model that knows the past."""

    causes: Causes | None = None
    """Set by whoever learns them."""

    # ---------------------------------------------------------------- expecting

    def predict(self, minutes: float = 60, names: Iterable[str] | None = None) -> dict[str, Estimate]:
        """What places and states are expected to be ``minutes`` after the newest scene.

        Args:
            minutes: from 0.
            names: ids of items and names of fixtures; all by default.

        Returns:
            By id or name, the most probable value with its probability as confidence. A thing is expected to stay as
            it is with a probability that falls with time, by how often it changed; learned causes that are under way
            override that.
        """
        fold = self.fold
        at = fold.time + int(minutes * 60)
        found: dict[str, Estimate] = {}
        for life in (*fold.objects.items.values(), *fold.fixtures.values()):
            now = life.now
            if now is None or now.value == "" or now.gone is not None or (names is not None and life.id not in names):
                continue
            stays = math.exp(-self._rate(life) * max(0, at - now.last))
            found[life.id] = Estimate(now.value, "as last seen", tuple(now.seqs[-2:]), round(stays, 3))
        for fixture, state, chance, after in self._under_way():
            if fixture in found and after <= minutes and found[fixture].value != state:
                cause = fold.fixtures[fixture].now
                seqs = tuple(cause.seqs[-1:]) if cause is not None else ()
                found[fixture] = Estimate(state, f"brought about in about {after:.0f} minutes", seqs, round(chance, 3))
        return found

    @property
    def surprise(self) -> Estimate:
        """Share of sightings that were not as expected, from 0 to 1."""
        seen, differed = self.fold.checked
        share = differed / seen if seen else 0.0
        return Estimate(round(share, 5), f"{differed} of {seen} sightings differed from what was expected", (), 1.0)

    # ------------------------------------------------------------------ explaining

    def why(self, fixture: str, state: str | None = None, at: datetime | None = None) -> Estimate:
        """What made a fixture take a state: a person or ``me`` that was seen to do it, else the cause that was learned.

        Args:
            fixture: its name.
            state: which state it took; None for its newest change.
            at: world time near which it happened; None for the last time.
        """
        found = [c for c in self.changes(thing=fixture, kind="state") if state is None or c.new == state]
        if not found:
            return Estimate(None, f"no such change of {fixture} is known")
        change = found[-1] if at is None else min(found, key=lambda c: (_distance(c, at), -c.latest.timestamp()))
        if change.by == ME:
            return Estimate(change.by, f"{change.by} did it {change.latest:%Y-%m-%d %H:%M}", change.evidence, 0.95)
        # A learned cause that was due just then explains it better than who stood beside it.
        explained = None if self.causes is None else self.causes.explain(replace(change, by=None))
        if explained is not None and explained.value is not None:
            return explained
        alone = [c for c in self.changes(thing=fixture, kind="state") if c.new == change.new and c.by is None]
        if change.by is not None and not any(c.witnessed for c in alone):
            return Estimate(change.by, f"{change.by} stood beside it as it happened", change.evidence, 0.8)
        if change.by is not None:
            why = f"{change.by} stood beside it, but it happens with nobody there too"
            return Estimate(None, f"not identifiable: {why}", change.evidence)
        reason = explained.reason if explained is not None else "nobody was seen to do it and no cause is known"
        return Estimate(None, reason, change.evidence)

    def coverage(self, fixture: str) -> list[tuple[datetime, datetime]]:
        """Stretches in which the state of a fixture was in view, oldest first."""
        life = self._fixture(fixture)
        runs = sorted(run for stay in life.stays for run in stay.runs) if life is not None else []
        merged: list[list[int]] = []
        for first, last in runs:
            if merged and first - merged[-1][1] <= self.fold.step_s:
                merged[-1][1] = max(merged[-1][1], last)
            else:
                merged.append([first, last])
        return [(moment(first), moment(last)) for first, last in merged]

    def learn_causes(self) -> None:
        """Learn `causes` anew from all that is known; nothing happens if none was set."""
        if self.causes is not None:
            fixtures = {name: self.coverage(name) for name in self.fold.fixtures}
            self.causes.learn(self.changes(kind="state"), self.acts(), fixtures)

    def acts(self, verb: str = "use") -> list[tuple[datetime, str, int]]:
        """The agent's own acts of one kind: time, thing, seq of the record."""
        return [(moment(at), thing, seq) for at, what, thing, seq in self.fold.acts if what == verb]

    # --------------------------------------------------------------------- planning

    def path(self, start: Cell, goal: Cell, *, beside: bool = False) -> list[Cell] | None:
        """A shortest way around things on the floor, through them if there is no other; see `Geography.path`."""
        known = self.fold.map
        lying = [stay.cell for _, stay in self.fold.objects.believed() if stay.cell is not None and not stay.carrier]
        floor = [cell for cell in lying if cell not in known.fixtures and cell not in (start, goal)]
        return known.path(start, goal, beside=beside, avoid=floor) or known.path(start, goal, beside=beside)

    def cell_of(self, place: str) -> Cell | None:
        """A cell where a place, an item or a person is believed to be: the first free one of a fixture."""
        fold = self.fold
        lives = self.lives(place)
        if lives and lives[0].now is not None:
            return lives[0].now.cell
        cells = fold.map.cells_of(place) or fold.map.room_cells(place)
        taken = {stay.cell for _, stay in fold.objects.believed()}
        return next((cell for cell in cells if cell not in taken), cells[0] if cells else None)

    def simulate(self, acts: Sequence[Act], start: Cell | None = None) -> Simulation:
        """Play a plan through what is believed.

        Args:
            acts: in order; going to where an act needs one to be is part of it.
            start: where the body stands; by default where it stood at the newest scene.
        """
        return _Play(self, start).run(acts)

    def _under_way(self) -> list[tuple[str, str, float, float]]:
        """Effects of present states that are still to come: (fixture, state, probability, minutes from now)."""
        if self.causes is None:
            return []
        found = []
        for name, life in self.fold.fixtures.items():
            now = life.now
            if now is not None and len(life.stays) > 1 and now.value:
                since = (self.fold.time - now.first) / 60
                for fixture, state, chance, lag in self.causes.effects(name, now.value):
                    if lag >= since:
                        found.append((fixture, state, chance, lag - since))
        return found


class _Play:
    """A plan being played."""

    def __init__(self, model: Foresight, start: Cell | None) -> None:
        self._model, self._fold = model, model.fold
        pose = self._fold.pose
        self._at = start if start is not None else ((pose[0], pose[1]) if pose else None)
        held = self._fold.objects.held
        self._held = None if held is None else held.id
        self._opened: set[str] = set()
        self.result = Simulation()

    def run(self, acts: Sequence[Act]) -> Simulation:
        if self._at is None:
            self.result.problem, self.result.probability = "where the body stands is not known", 0.0
        for act in acts:
            if self.result.problem:
                break
            getattr(self, f"_{act.verb}")(act)
        return self.result

    def _fail(self, why: str) -> None:
        self.result.problem, self.result.probability = why, 0.0

    def _chance(self, chance: float) -> None:
        self.result.probability = round(self.result.probability * chance, 4)

    def _state(self, fixture: str) -> Estimate:
        changed = self.result.states.get(fixture)
        return self._model.state_of(fixture) if changed is None else Estimate(changed, "planned", (), 1.0)

    def _approach(self, cell: Cell | None, name: str) -> bool:
        assert self._at is not None
        way = None if cell is None else self._model.path(self._at, cell, beside=True)
        if way is None:
            self._fail(f"no way to {name} is known")
            return False
        for step in way[1:]:
            door = self._fold.map.fixtures.get(step)
            if door and door not in self._opened and self._state(door).value == _CLOSED:
                self._opened.add(door)
                self.result.minutes += 1
                self.result.effects.append(f"the {door} is left open")
                self._chance(_ACT_WORKS)
        self.result.minutes += len(way) + _turns(way)
        self._at = way[-1]
        return True

    def _go(self, act: Act) -> None:
        self._approach(self._model.cell_of(act.place), act.place)

    def _wait(self, act: Act) -> None:
        self.result.minutes += act.minutes

    def _pick_up(self, act: Act) -> None:
        if self._held is not None:
            return self._fail(f"the gripper holds {self._held} already")
        lives = self._model.lives(act.thing)
        known = [(self._model.place_of(life.id), life) for life in lives]
        known = [(place, life) for place, life in known if place.value not in (None, GONE)]
        if not known:
            return self._fail(f"where {act.thing} is, is not known")
        place, life = max(known, key=lambda pair: pair[0].confidence)
        if place.value in self._fold.people:
            return self._fail(f"{place.value} carries {act.thing}")
        assert life.now is not None
        if self._approach(life.now.cell, act.thing):
            self._open(str(place.value))
            self._held = life.id
            self.result.places[life.id] = ME
            self.result.minutes += 1
            self._chance(place.confidence * _ACT_WORKS)

    def _put_down(self, act: Act) -> None:
        if self._held is None:
            return self._fail("the gripper is empty")
        if self._approach(self._model.cell_of(act.place), act.place):
            self._open(act.place)
            self._release(act.place)

    def _give(self, act: Act) -> None:
        if self._held is None:
            return self._fail("the gripper is empty")
        where = self._model.place_of(act.place)
        if where.value is None:
            return self._fail(f"where {act.place} is, is not known")
        if self._approach(self._model.cell_of(act.place), act.place):
            self._chance(where.confidence)
            self._release(act.place)

    def _discard(self, act: Act) -> None:
        if self._held is None:
            return self._fail("the gripper is empty")
        bins = [act.place] if act.place else [name for name in self._fold.fixtures if "bin" in name.split()]
        if not bins:
            return self._fail("no bin is known")
        if self._approach(self._model.cell_of(bins[0]), bins[0]):
            self._release(GONE)

    def _use(self, act: Act) -> None:
        now = self._state(act.thing)
        if act.thing not in self._fold.fixtures:
            return self._fail(f"no fixture {act.thing} is known")
        if act.state and now.value == act.state:
            return self._chance(now.confidence)
        if self._approach(self._model.cell_of(act.thing), act.thing):
            others = [state for state in self._fold.states.get(act.thing, ()) if state != now.value]
            self._set(act.thing, act.state or (others[0] if others else ""))
            self.result.minutes += 1
            self._chance(_ACT_WORKS)

    def _set(self, fixture: str, state: str) -> None:
        self.result.states[fixture] = state
        causes = self._model.causes
        for other, new, chance, lag in causes.effects(fixture, state) if causes is not None else ():
            if self._state(other).value != new and chance >= 0.5:
                self.result.states[other] = new
                self.result.effects.append(f"the {other} will be {new} after about {lag:.0f} minutes ({chance:.0%})")

    def _open(self, place: str) -> None:
        """A closed container is opened first."""
        if place in self._fold.fixtures and self._state(place).value == _CLOSED:
            self.result.states[place] = _OPEN
            self.result.minutes += 1
            self._chance(_ACT_WORKS)

    def _release(self, place: str) -> None:
        assert self._held is not None
        self.result.places[self._held] = place
        self._held = None
        self.result.minutes += 1
        self._chance(_ACT_WORKS)


def _turns(way: Sequence[Cell]) -> int:
    """How often one has to turn on a way, and once at its end."""
    steps = [(b[0] - a[0], b[1] - a[1]) for a, b in pairwise(way)]
    return sum(a != b for a, b in pairwise(steps)) + 1


def _distance(change: Change, at: datetime) -> timedelta:
    if change.earliest <= at <= change.latest:
        return timedelta(0)
    return min(abs(change.earliest - at), abs(change.latest - at))
