"""Where things can be: cells that were seen, fixtures on them, rooms, and ways through them.

It knows cells, names of fixtures and rooms, and shortest paths. It does not know what lies where (`objects`), nor how
cells are seen. All of it is made of what records say, so that the same journal gives the same map.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import networkx as nx

from ..records import Cell

FREE, WALL = "free", "wall"
AHEAD: tuple[Cell, ...] = ((1, 0), (0, 1), (-1, 0), (0, -1))
"""Step of each heading: 0 east, 1 south, 2 west, 3 north."""
FLOOR = " floor"
ME, GONE = "me", "gone"
"""Places that are no fixture: held by the agent; out of the home."""


def ahead(x: int, y: int, heading: int) -> Cell:
    """The cell in front of who stands at ``(x, y)``."""
    dx, dy = AHEAD[heading % 4]
    return x + dx, y + dy


def near(a: Cell, b: Cell, reach: int = 1) -> bool:
    """Whether two cells are at most ``reach`` apart, diagonals counted as one."""
    return max(abs(a[0] - b[0]), abs(a[1] - b[1])) <= reach


class Geography:
    """The map: what each cell is, which room it belongs to, and how to get from one to another."""

    def __init__(self) -> None:
        self._kinds: dict[Cell, str] = {}
        self._fixtures: dict[Cell, str] = {}
        self._seeds: dict[Cell, str] = {}
        self._taught: set[Cell] = set()
        self._rooms: dict[Cell, str] | None = None
        self._graph: nx.Graph | None = None
        self._exits: tuple[Cell, ...] | None = None

    # ------------------------------------------------------------- what records say

    def learn_cells(self, free: Iterable[Cell] = (), wall: Iterable[Cell] = ()) -> None:
        """Note what cells are; the last word counts, but what was taught to stand somewhere does."""
        for kind, cells in ((FREE, free), (WALL, wall)):
            for cell in cells:
                if self._kinds.get(cell) != kind and cell not in self._taught:
                    self._kinds[cell] = kind
                    self._fixtures.pop(cell, None)
                    self._forget_derived()

    def learn_fixture(self, name: str, cell: Cell, *, taught: bool = False) -> None:
        """A fixture stands on ``cell``; ``taught`` if somebody showed it there."""
        if taught:
            self._taught.add(cell)
        if self._fixtures.get(cell) != name and (taught or cell not in self._taught):
            self._fixtures[cell] = name
            self._kinds.pop(cell, None)
            self._forget_derived()

    def learn_room(self, name: str, cell: Cell) -> None:
        """``cell`` is in the room ``name``."""
        if self._seeds.get(cell) != name:
            self._seeds[cell] = name
            self._forget_derived()

    # ------------------------------------------------------------------ questions

    @property
    def fixtures(self) -> Mapping[Cell, str]:
        """Name of the fixture on each cell that has one."""
        return self._fixtures

    @property
    def rooms(self) -> tuple[str, ...]:
        """Names of the rooms, in alphabetical order."""
        return tuple(sorted(set(self._seeds.values())))

    def kind(self, cell: Cell) -> str | None:
        """``free``, ``wall``, the name of a fixture, or None where nobody looked."""
        return self._fixtures.get(cell) or self._kinds.get(cell)

    def cells_of(self, place: str) -> tuple[Cell, ...]:
        """Cells of a fixture, a room or a room's floor; empty if there is no such place."""
        found = [cell for cell, name in self._fixtures.items() if name == place]
        if not found:
            room = place.removesuffix(FLOOR)
            found = [cell for cell, name in self._by_room().items() if name == room and cell not in self._fixtures]
        return tuple(sorted(found))

    def room_at(self, cell: Cell) -> str | None:
        """The room a cell lies in; None where that is not known."""
        return self._by_room().get(cell)

    def room_of(self, place: str) -> str | None:
        """The room of a place: a fixture, ``kitchen floor``, or a room itself."""
        if place in self.rooms:
            return place
        if place.endswith(FLOOR) and place.removesuffix(FLOOR) in self.rooms:
            return place.removesuffix(FLOOR)
        found = [room for cell in self.cells_of(place) if (room := self.room_at(cell))]
        return max(sorted(set(found)), key=found.count) if found else None

    def place_at(self, cell: Cell, on: str = "") -> str:
        """The name of the place of something that lies on ``cell``.

        Args:
            cell: where.
            on: what it was seen to lie on, if that was read.
        """
        fixture = self._fixtures.get(cell)
        if fixture or on:
            return fixture or on
        room = self.room_at(cell)
        return f"{room}{FLOOR}" if room else f"floor at {cell[0]},{cell[1]}"

    def room_cells(self, room: str) -> tuple[Cell, ...]:
        """All cells known to be in a room, fixtures included."""
        return tuple(sorted(cell for cell, name in self._by_room().items() if name == room))

    @property
    def graph(self) -> nx.Graph:
        """Cells one can stand on (free ones and doorways), joined where one can step from one to the other."""
        if self._graph is None:
            graph = nx.Graph()
            passable = [cell for cell, kind in self._kinds.items() if kind == FREE and cell not in self._fixtures]
            passable += [cell for cell in self._fixtures if self._is_doorway(cell)]
            for cell in sorted(passable):
                graph.add_node(cell, door=self._fixtures.get(cell))
            for x, y in sorted(passable):
                for step in ((x + 1, y), (x, y + 1)):
                    if step in graph:
                        graph.add_edge((x, y), step)
            self._graph = graph
        return self._graph

    @property
    def exits(self) -> tuple[Cell, ...]:
        """Cells of doors that lead out of what is known: one side is free, what is behind was never seen."""
        if self._exits is None:
            self._exits = tuple(self._find_exits())
        return self._exits

    def _find_exits(self) -> Iterator[Cell]:
        for cell in sorted(self._fixtures):
            if cell in self.graph and self.graph.degree(cell) == 1:
                (x, y) = next(iter(self.graph.neighbors(cell)))
                if self.kind((2 * cell[0] - x, 2 * cell[1] - y)) is None:
                    yield cell

    def path(self, start: Cell, goal: Cell, *, beside: bool = False, avoid: Iterable[Cell] = ()) -> list[Cell] | None:
        """A shortest way from ``start`` to ``goal``, both included; None if none is known.

        Args:
            start: where one stands.
            goal: where to go.
            beside: stop on a cell beside ``goal`` (as one must for a fixture); the last cell is then that one.
            avoid: cells not to step on (people, things on the floor).
        """
        graph, blocked = self.graph, set(avoid)
        goals = {(goal[0] + dx, goal[1] + dy) for dx, dy in AHEAD} if beside else {goal}
        came: dict[Cell, Cell | None] = {start: None}
        queue = deque([start])
        while queue:
            cell = queue.popleft()
            if cell in goals and (cell in graph or cell == start):
                return _walk_back(came, cell)
            for dx, dy in AHEAD:
                step = cell[0] + dx, cell[1] + dy
                if step not in came and step in graph and step not in blocked:
                    came[step] = cell
                    queue.append(step)
        return None

    # ----------------------------------------------------------------- inside

    def to_state(self) -> dict[str, Any]:
        """Everything as JSON values, in an order that does not depend on how it came to be."""
        return {
            "kinds": [[*cell, kind] for cell, kind in sorted(self._kinds.items())],
            "fixtures": [[*cell, name] for cell, name in sorted(self._fixtures.items())],
            "taught": [list(cell) for cell in sorted(self._taught)],
            "seeds": [[*cell, name] for cell, name in sorted(self._seeds.items())],
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Geography:
        """The map that `to_state` described."""
        new = cls()
        new._kinds = {(x, y): kind for x, y, kind in state["kinds"]}
        new._fixtures = {(x, y): name for x, y, name in state["fixtures"]}
        new._taught = {(x, y) for x, y in state["taught"]}
        new._seeds = {(x, y): name for x, y, name in state["seeds"]}
        return new

    def _forget_derived(self) -> None:
        self._rooms = self._graph = self._exits = None

    def _is_doorway(self, cell: Cell) -> bool:
        """Between two walls (or unknown) on one axis, with free cells on the other: people pass through it."""
        if self._fixtures[cell].endswith(("door", "doorway")):
            return True
        x, y = cell
        across = [(self._kinds.get((x - 1, y)), self._kinds.get((x + 1, y)))]
        across.append((self._kinds.get((x, y - 1)), self._kinds.get((x, y + 1))))
        return any(a == (WALL, WALL) and b == (FREE, FREE) for a, b in (across, across[::-1]))

    def _by_room(self) -> dict[Cell, str]:
        """Rooms grow from the cells that were named, over free cells, nearest first; fixtures (doors too) end them.

        A fixture belongs to the room of the free cells beside it.
        """
        if self._rooms is not None:
            return self._rooms
        rooms = dict(sorted(self._seeds.items()))
        queue = deque(rooms)
        while queue:
            x, y = queue.popleft()
            for dx, dy in AHEAD:
                step = x + dx, y + dy
                if step not in rooms and self._kinds.get(step) == FREE:
                    rooms[step] = rooms[x, y]
                    queue.append(step)
        for open_only in (True, False):  # a window over a sink has the sink's room
            for cell, name in sorted(self._fixtures.items()):
                x, y = cell
                steps = [(x + dx, y + dy) for dx, dy in AHEAD]
                beside = [rooms[c] for c in steps if c in rooms and (c not in self._fixtures or not open_only)]
                if beside and cell not in rooms:
                    rooms[cell] = _most(beside, name)
        self._rooms = rooms
        return rooms


def _most(rooms: list[str], name: str) -> str:
    """The room most often beside a fixture; of equals, the one it is named after."""
    return max(sorted(set(rooms)), key=lambda room: (rooms.count(room), room in name))


def _walk_back(came: Mapping[Cell, Cell | None], cell: Cell) -> list[Cell]:
    way: list[Cell] = []
    here: Cell | None = cell
    while here is not None:
        way.append(here)
        here = came[here]
    return way[::-1]
