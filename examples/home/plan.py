"""The plan of one home: rooms, walls, doors and fixtures, drawn anew from a seed.

A hall two cells wide runs through the middle; bedroom, bathroom and study lie on one side, kitchen and living room on
the other, with a door between the two; everything may be mirrored. Each fixture can be reached from a free cell beside
each of its cells.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .catalogue import APPLIANCES, FURNITURE, KINDS, Kind

Cell = tuple[int, int]
WIDTH, HEIGHT = 19, 15
HEADINGS: tuple[Cell, ...] = ((1, 0), (0, 1), (-1, 0), (0, -1))
"""East, south, west, north as (dx, dy)."""
WALL = ("wall", "")


@dataclass(frozen=True, slots=True)
class Fixture:
    """Something that stays where it is."""

    name: str
    kind: Kind
    room: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Plan:
    """One home."""

    fixtures: dict[str, Fixture]
    room_at: dict[Cell, str]
    """Room of every cell that is not a wall, fixtures and doors included (a door belongs to the room, not the hall)."""
    walls: frozenset[Cell]
    floors: dict[str, int]
    """Which of three floor patterns each room has."""
    start: Cell
    """Where the robot stands when its life begins."""
    fixture_at: dict[Cell, Fixture] = field(default_factory=dict)
    floor: frozenset[Cell] = frozenset()
    """Cells one can stand on, doorways excluded."""
    beside: dict[Cell, tuple[Cell, ...]] = field(default_factory=dict)
    """Cells that can be walked on beside each such cell; doors count as open, the front door is not one of them."""
    access: dict[str, tuple[Cell, ...]] = field(default_factory=dict)
    """Free cells beside each fixture."""
    looks: tuple[tuple[str, str], ...] = ()
    """(kind, state) by look number: 0 is the wall, then three floors, then fixtures."""
    look_of: dict[tuple[str, str], int] = field(default_factory=dict)

    @property
    def doors(self) -> list[Fixture]:
        """Doors between rooms and the front door."""
        return [f for f in self.fixtures.values() if f.kind.name == "door"]

    def room_of(self, place: str) -> str | None:
        """Room of a place: a fixture, ``kitchen floor`` or a room; None for persons, ``me`` and ``gone``."""
        if place in self.fixtures:
            return self.fixtures[place].room
        room = place.removesuffix(" floor")
        return room if room in self.floors else None

    def room_cells(self, room: str) -> list[Cell]:
        """Free cells of a room in reading order."""
        return sorted(c for c in self.floor if self.room_at[c] == room)

    def neighbours(self, cell: Cell) -> tuple[Cell, ...]:
        """The cells beside a cell that can be walked on, closed doors counted as open; the front door is not one."""
        return self.beside.get(cell, ())

    def distances(self, targets: Iterable[Cell]) -> dict[Cell, int]:
        """Steps from every cell to the nearest of ``targets``, by walking through doors."""
        found = dict.fromkeys(targets, 0)
        queue = deque(found)
        while queue:
            cell = queue.popleft()
            for there in self.neighbours(cell):
                if there not in found:
                    found[there] = found[cell] + 1
                    queue.append(there)
        return found


@dataclass(frozen=True, slots=True)
class _Area:
    room: str
    x0: int
    y0: int
    width: int
    height: int

    def cells(self) -> list[Cell]:
        return [(x, y) for y in range(self.y0, self.y0 + self.height) for x in range(self.x0, self.x0 + self.width)]

    def rim(self) -> list[Cell]:
        """Cells along the walls, corners excluded."""
        x1, y1 = self.x0 + self.width - 1, self.y0 + self.height - 1
        corners = {(self.x0, self.y0), (x1, self.y0), (self.x0, y1), (x1, y1)}
        return [c for c in self.cells() if c not in corners and (c[0] in (self.x0, x1) or c[1] in (self.y0, y1))]


def _areas(rng: random.Random) -> list[_Area]:
    small = ["bedroom", "bathroom", "study"]
    rng.shuffle(small)
    widths = {"bedroom": 5, "bathroom": 5, "study": 5}
    if rng.random() < 0.6:
        widths["study"], widths[rng.choice(["bedroom", "bathroom"])] = 4, 6
    areas, x = [], 1
    for room in small:
        areas.append(_Area(room, x, 1, widths[room], 5))
        x += widths[room] + 1
    kitchen = rng.choice([8, 9])
    large = [("kitchen", kitchen), ("living room", 16 - kitchen)]
    rng.shuffle(large)
    x = 1
    for room, width in large:
        areas.append(_Area(room, x, 10, width, 4))
        x += width + 1
    areas.append(_Area("hall", 1, 7, 17, 2))
    return areas


class _Builder:
    """Places doors, windows and furniture, and starts again when something cannot be reached."""

    def __init__(self, rng: random.Random, appliances: frozenset[str]) -> None:
        self.rng = rng
        self.areas = {a.room: a for a in _areas(rng)}
        self.room_at = {c: a.room for a in self.areas.values() for c in a.cells()}
        self.taken: dict[Cell, str] = {}
        self.reserved: set[Cell] = set()
        self.fixtures: dict[str, Fixture] = {}
        self.appliances = appliances

    def add(self, name: str, kind: str, room: str, cells: list[Cell]) -> None:
        self.fixtures[name] = Fixture(name, KINDS[kind], room, tuple(cells))
        for cell in cells:
            self.taken[cell] = name
            self.room_at[cell] = room

    def doors(self) -> None:
        for area in self.areas.values():
            if area.room == "hall":
                x, inside = self.rng.choice([(0, 1), (18, 17)])
                y = self.rng.choice([7, 8])
                self.add("front door", "door", "hall", [(x, y)])
                self.reserved |= {(inside, y)}
                continue
            x = self.rng.randrange(area.x0 + 1, area.x0 + area.width - 1)
            wall = 6 if area.y0 < 7 else 9
            step = -1 if wall == 6 else 1
            self.add(f"{area.room} door", "door", area.room, [(x, wall)])
            self.reserved |= {(x, wall + step), (x, wall - step)}

        kitchen, living = self.areas["kitchen"], self.areas["living room"]
        wall = max(kitchen.x0, living.x0) - 1
        y = self.rng.choice([11, 12])
        self.add("dining door", "door", "living room", [(wall, y)])
        self.reserved |= {(wall - 1, y), (wall + 1, y)}

    def windows(self) -> None:
        for name, kind, room in APPLIANCES:
            if kind == "window" and name in self.appliances:
                area = self.areas[room]
                wall, inside = (0, 1) if area.y0 < 7 else (14, 13)
                x = self.rng.randrange(area.x0 + 1, area.x0 + area.width - 1)
                self.add(name, kind, room, [(x, wall)])
                self.reserved.add((x, inside))

    def furnish(self, room: str) -> bool:
        wanted = [(n, k, c) for n, k, r, c in FURNITURE if r == room]
        wanted += [(n, k, 1) for n, k, r in APPLIANCES if r == room and n in self.appliances and k != "window"]
        self.rng.shuffle(wanted)
        wanted.sort(key=lambda w: -w[2])
        placed: list[str] = []
        for name, kind, count in wanted:
            spot = self._spot(self.areas[room], count)
            if spot is None:
                for other in placed:
                    for cell in self.fixtures.pop(other).cells:
                        del self.taken[cell]
                return False
            self.add(name, kind, room, spot)
            placed.append(name)
        return True

    def _spot(self, area: _Area, count: int) -> list[Cell] | None:
        rim = [c for c in area.rim() if c not in self.taken and c not in self.reserved]
        if area.room == "hall":
            rim = [c for c in rim if c[1] == area.y0]  # one side only, so that two can pass
        choices = []
        for x, y in rim:
            for dx, dy in ((1, 0), (0, 1)):
                run = [(x + i * dx, y + i * dy) for i in range(count)]
                if all(c in rim for c in run):
                    choices.append(run)
        self.rng.shuffle(choices)
        for run in choices:
            if self._stays_open(area, set(run)):
                return run
        return None

    def _stays_open(self, area: _Area, run: set[Cell]) -> bool:
        free = {c for c in area.cells() if c not in self.taken and c not in run}
        seen, queue = set(), [next(iter(sorted(free)))]
        while queue:
            x, y = queue.pop()
            if (x, y) in seen:
                continue
            seen.add((x, y))
            queue += [c for c in ((x + dx, y + dy) for dx, dy in HEADINGS) if c in free]
        filled = run | {c for c in area.cells() if c in self.taken}
        return seen == free and all(any((x + dx, y + dy) in free for dx, dy in HEADINGS) for x, y in filled)


def draw_plan(rng: random.Random, appliances: frozenset[str]) -> Plan:
    """A home with the given appliances (names of `catalogue.APPLIANCES`); the same numbers give the same home."""
    while True:
        builder = _Builder(rng, appliances)
        builder.doors()
        builder.windows()
        if all(any(builder.furnish(room) for _ in range(20)) for room in builder.areas):
            break
    flip_x, flip_y = rng.random() < 0.5, rng.random() < 0.5

    def turned(cell: Cell) -> Cell:
        return (WIDTH - 1 - cell[0] if flip_x else cell[0], HEIGHT - 1 - cell[1] if flip_y else cell[1])

    fixtures = {
        n: Fixture(n, f.kind, f.room, tuple(sorted(turned(c) for c in f.cells))) for n, f in builder.fixtures.items()
    }
    return _finished(rng, fixtures, {turned(c): r for c, r in builder.room_at.items()})


def _finished(rng: random.Random, fixtures: dict[str, Fixture], room_at: dict[Cell, str]) -> Plan:
    walls = frozenset((x, y) for y in range(HEIGHT) for x in range(WIDTH) if (x, y) not in room_at)
    fixture_at = {c: f for f in fixtures.values() for c in f.cells}
    floor = frozenset(c for c in room_at if c not in fixture_at)
    access = {
        f.name: tuple(
            sorted({(x + dx, y + dy) for x, y in f.cells for dx, dy in HEADINGS if (x + dx, y + dy) in floor})
        )
        for f in fixtures.values()
    }
    looks: list[tuple[str, str]] = [WALL, ("floor", "0"), ("floor", "1"), ("floor", "2")]
    for kind in sorted({f.kind.name for f in fixtures.values()}):
        looks += [(kind, s) for s in KINDS[kind].states or ("",)]
    hall = sorted(c for c in floor if room_at[c] == "hall")
    ways = floor | {c for c, f in fixture_at.items() if f.kind.name == "door" and f.name != "front door"}
    beside = {
        (x, y): tuple((x + dx, y + dy) for dx, dy in HEADINGS if (x + dx, y + dy) in ways) for x, y in sorted(ways)
    }
    floors = {room: rng.randrange(3) for room in sorted(set(room_at.values()))}
    return Plan(
        fixtures=dict(sorted(fixtures.items())),
        room_at=room_at,
        walls=walls,
        floors=floors,
        start=hall[len(hall) // 2],
        fixture_at=fixture_at,
        floor=floor,
        beside=beside,
        access=access,
        looks=tuple(looks),
        look_of={look: i for i, look in enumerate(looks)},
    )


def base_looks(plan: Plan) -> NDArray[np.int16]:
    """Look number of every cell [HEIGHT, WIDTH] with all fixtures at rest."""
    looks = np.zeros((HEIGHT, WIDTH), np.int16)
    for (x, y), room in plan.room_at.items():
        fixture = plan.fixture_at.get((x, y))
        if fixture is None:
            looks[y, x] = plan.look_of["floor", str(plan.floors[room])]
        else:
            looks[y, x] = plan.look_of[fixture.kind.name, (fixture.kind.states or ("",))[0]]
    return looks
