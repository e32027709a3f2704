"""All that truly happened in the home, and what of it the robot could have seen.

Histories are kept as runs (one entry per change), the robot's pose as three bytes a minute, and what was in view is
worked out when asked for, so that a month stays small. A change is stamped with the first minute in whose frame the
new state holds.

Things are ids: fixtures and persons by name, items by name or, where there are several, ``blue mug#1``. Places are
fixtures, ``kitchen floor``, persons, ``me``, ``gone``; of a person and of a fixture, the room.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from perdure.errors import BadInput

from .catalogue import GONE, ME
from .plan import HEIGHT, WIDTH, Cell, Fixture, Plan
from .view import lit_up, obstructions, view_cells


@dataclass(frozen=True, slots=True)
class TruthEvent:
    """One change."""

    minute: int
    kind: str
    """``moved``, ``state``, ``entered`` or ``left`` (persons: each change of room gives both)."""
    thing: str
    """Id of an item, name of a fixture or person."""
    old: str
    new: str
    by: str | None = None
    """Person, ``me`` for the robot, None if a mechanism did it."""
    cause: str | None = None
    """Fixture whose state made it happen, or ``clock``; None if somebody did it."""


@dataclass(slots=True)
class _Runs:
    """Values over time: value[i] holds from minute[i] on."""

    minutes: array[int] = field(default_factory=lambda: array("i"))
    values: list[tuple[str, Cell | None]] = field(default_factory=list)

    def set(self, minute: int, place: str, cell: Cell | None) -> None:
        if self.minutes and self.minutes[-1] == minute:
            self.values[-1] = (place, cell)
            return
        self.minutes.append(minute)
        self.values.append((place, cell))

    def at(self, minute: int) -> tuple[str, Cell | None]:
        index = bisect_right(self.minutes, minute) - 1
        return self.values[index] if index >= 0 else (GONE, None)


@lru_cache(maxsize=20_000)
def shadow(x: int, y: int, heading: int, opaque: frozenset[Cell]) -> tuple[Cell | None, ...]:
    """View cells (by number) that are not hidden; None where hidden."""
    cells = view_cells(x, y, heading)
    dark = np.array([c in opaque or not (0 <= c[0] < WIDTH and 0 <= c[1] < HEIGHT) for c in cells])
    seen = lit_up(dark)
    inside = [0 <= c[0] < WIDTH and 0 <= c[1] < HEIGHT for c in cells]
    return tuple(c if s and i else None for c, s, i in zip(cells, seen, inside, strict=True))


class Truth:
    """The log of one life; `House` writes it."""

    def __init__(self, plan: Plan, seed: int, first_minute: int, lesson_end: int) -> None:
        self.events: list[TruthEvent] = []
        self.first_minute = first_minute
        self.lesson_end = lesson_end
        self._plan, self._seed = plan, seed
        self._things: dict[str, _Runs] = {}
        self._states: dict[str, _Runs] = {}
        self._people: dict[str, _Runs] = {}
        self._opaque: _OpaqueRuns = _OpaqueRuns()
        self._poses = array("b")
        self._names: dict[str, str] = {}
        self._index: dict[str, array[int]] = {}
        self._indexed = first_minute

    # --- written by the house

    def set_item(self, minute: int, item: str, name: str, place: str, cell: Cell | None) -> None:
        """An item is at a place from ``minute`` on; ``cell`` is None if carried, held or gone."""
        self._names[item] = name
        self._things.setdefault(item, _Runs()).set(minute, place, cell)

    def set_state(self, minute: int, fixture: str, state: str) -> None:
        """A fixture is in a state from ``minute`` on."""
        self._states.setdefault(fixture, _Runs()).set(minute, state, None)

    def set_person(self, minute: int, person: str, room: str, cell: Cell | None) -> None:
        """A person stands in a cell from ``minute`` on (None: not at home)."""
        self._people.setdefault(person, _Runs()).set(minute, room, cell)

    def set_opaque(self, minute: int, cells: frozenset[Cell]) -> None:
        """Cells that hide what is behind them from ``minute`` on."""
        self._opaque.set(minute, cells)

    def set_pose(self, x: int, y: int, heading: int) -> None:
        """Pose of the robot in the next minute that has none."""
        self._poses.extend((x, y, heading))

    # --- read by everybody

    @property
    def last_minute(self) -> int:
        """The newest minute of which anything is known."""
        return self.first_minute + len(self._poses) // 3 - 1

    @property
    def things(self) -> list[str]:
        """All ids: items, fixtures, persons."""
        return [*self._things, *self._plan.fixtures, *self._people]

    @property
    def items(self) -> list[str]:
        """Ids of all items that ever were."""
        return list(self._things)

    @property
    def people(self) -> list[str]:
        """Names of the residents."""
        return list(self._people)

    def name_of(self, thing: str) -> str:
        """The taught name of an id: ``blue mug#1`` -> ``blue mug``."""
        return self._names.get(thing, thing)

    def ids_of(self, name: str) -> list[str]:
        """All ids that bear a taught name."""
        found = [i for i, n in self._names.items() if n == name]
        return found or [t for t in self.things if t == name]

    def pose(self, minute: int) -> tuple[int, int, int]:
        """Robot's (x, y, heading) in a minute; `BadInput` outside the life so far."""
        at = 3 * (minute - self.first_minute)
        if not 0 <= at < len(self._poses):
            raise BadInput(
                f"minute {minute} is outside the life so far ({self.first_minute} to {self.last_minute}); ask within it"
            )
        return self._poses[at], self._poses[at + 1], self._poses[at + 2]

    def position(self, thing: str, minute: int) -> str:
        """Place of an item, room of a person (``gone`` if not at home) or of a fixture."""
        if thing in self._things:
            return self._things[thing].at(minute)[0]
        if thing in self._people:
            return self._people[thing].at(minute)[0]
        return self._fixture(thing).room

    def state(self, fixture: str, minute: int) -> str:
        """State of a fixture in a minute; empty if its kind has none."""
        self._fixture(fixture)
        return self._states[fixture].at(minute)[0] if fixture in self._states else ""

    def cell(self, thing: str, minute: int) -> Cell | None:
        """Where the pixels of an item or person are: the carrier's cell if carried; None if gone."""
        if thing in self._people:
            return self._people[thing].at(minute)[1]
        place, cell = self._things[thing].at(minute)
        if place == ME:
            return self.pose(minute)[:2]
        return self._people[place].at(minute)[1] if place in self._people else cell

    def fixture_cells(self, fixture: str) -> tuple[Cell, ...]:
        """Cells of a fixture."""
        cells: tuple[Cell, ...] = self._fixture(fixture).cells
        return cells

    def in_view(self, minute: int, *, obstructed: bool = False) -> frozenset[Cell]:
        """Cells in the camera's view; those partly hidden by an obstruction only if ``obstructed``."""
        x, y, heading = self.pose(minute)
        seen = list(shadow(x, y, heading, self._opaque.at(minute)))
        if not obstructed and minute >= self.lesson_end:
            for thing in obstructions(self._seed, minute):
                seen[thing.cell] = None
        return frozenset(c for c in seen if c is not None)

    def visible(self, minute: int) -> dict[str, tuple[str, str]]:
        """(place, state) of everything whose pixels were in view and unobstructed: items, fixtures, persons.

        Not drawn, so not in it: items in closed containers, what lies beneath a person or the robot, the cell the robot
        stands on (but what it holds is).
        """
        view = self.in_view(minute)
        x, y, _ = self.pose(minute)
        found: dict[str, tuple[str, str]] = {}
        stood_on: set[Cell] = {(x, y)}
        for person, runs in self._people.items():
            room, cell = runs.at(minute)
            if cell is not None:
                stood_on.add(cell)
                if cell in view:
                    found[person] = (room, "")
        for fixture in self._plan.fixtures.values():
            if any(c in view and c not in stood_on for c in fixture.cells):
                found[fixture.name] = (fixture.room, self.state(fixture.name, minute))
        for item, runs in self._things.items():
            place, own = runs.at(minute)
            if own is not None and (own in stood_on or self._shut(place, minute)):
                continue
            cell = self.cell(item, minute)
            if cell is not None and cell in view:
                found[item] = (place, "")
        return found

    def sightings(self, thing: str) -> list[tuple[int, str]]:
        """(minute, place) of every minute in which a thing was visible."""
        for minute in range(self._indexed, self.last_minute + 1):
            for seen in self.visible(minute):
                self._index.setdefault(seen, array("i")).append(minute)
        self._indexed = self.last_minute + 1
        return [(m, self.position(thing, m)) for m in self._index.get(thing, ())]

    def witnessed(self, event: TruthEvent, *, by: bool = False) -> bool:
        """Whether the robot could see it happen: thing or place in view in the minute before and in its own.

        With ``by`` also whether the one who did it was in view in one of the two minutes (the robot itself always is).
        """
        before, after = event.minute - 1, event.minute
        if before < self.first_minute:
            return False
        views = (self.in_view(before), self.in_view(after))
        if event.by == ME:
            return True
        if by and (event.by is None or not any(self.cell(event.by, m) in views[m - before] for m in (before, after))):
            return False
        if event.kind == "state":
            return any(c in views[0] and c in views[1] for c in self._plan.fixtures[event.thing].cells)
        cells = (self.cell(event.thing, before), self.cell(event.thing, after))
        if event.kind in ("entered", "left"):
            return all(c is None or c in views[i] for i, c in enumerate(cells)) and cells != (None, None)
        return any(c is not None and c in views[0] and c in views[1] for c in cells)

    # --- helpers

    def _shut(self, place: str, minute: int) -> bool:
        fixture = self._plan.fixtures.get(place)
        if fixture is None or fixture.kind.holds != "container":
            return False
        return self.state(place, minute) != "open"

    def _fixture(self, name: str) -> Fixture:
        if name not in self._plan.fixtures:
            raise BadInput(f"expected an item, a person or a fixture of this home, got {name!r}; see Truth.things")
        return self._plan.fixtures[name]


class _OpaqueRuns:
    """Which cells hide what is behind them, over time."""

    def __init__(self) -> None:
        self.minutes = array("i")
        self.values: list[frozenset[Cell]] = []

    def set(self, minute: int, cells: frozenset[Cell]) -> None:
        if self.minutes and self.minutes[-1] == minute:
            self.values[-1] = cells
        else:
            self.minutes.append(minute)
            self.values.append(cells)

    def at(self, minute: int) -> frozenset[Cell]:
        return self.values[max(bisect_right(self.minutes, minute) - 1, 0)]
