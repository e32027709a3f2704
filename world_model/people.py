"""Who is where: people are seen coming into rooms and leaving them, and beside what happens.

A person who is not seen has left a room if no cell that could have been reached since the last sight of them is out of
view; and has left the home if they stood beside an open door that leads out of what is known.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..records import Cell, Scene
from .doubt import Doubts
from .fold import PERSON, SAME_VISIT_S
from .geography import AHEAD, GONE, Geography, near
from .glance import OPEN, Found, View
from .spans import Spans
from .stays import Stay

LEAST_CERTAINTY = 0.5
WHOLE = 0.9
"""Share of a room's cells in view from which nobody in it could be missed."""
CELLS_A_STEP = 5
"""People walk no faster."""
_FOLLOWED_STEPS = 3
"""For so many steps after a sight of a person it is worked out where they can have gone."""
LONG_UNSEEN_S = 20 * 60
"""Who was not seen for so long and then stands beside a way out has come in by it: so it was in 15 of 16 cases in four
homes (a week each)."""
_UNSEEN = 0.96
"""Certainty that a person is not where all cells were in view; of a room that was nearly in view, less."""
_UNSEEN_IN_ROOM = 0.8


class PeopleWatch:
    """Follows people from scene to scene."""

    def __init__(self, doubts: Doubts, spans: Spans, step_s: int) -> None:
        self._doubts, self._spans, self._step_s = doubts, spans, step_s
        self._now: dict[str, tuple[Cell, int]] = {}
        self._before: dict[str, tuple[Cell, int]] = {}
        self._without: dict[tuple[str, str], int] = {}
        self._vacant: dict[Cell, int] = {}
        self._previous: Scene | None = None

    def see(self, view: View) -> None:
        """Note where people are in a scene, before anything is made of it."""
        self._before = dict(self._now)
        self._now |= {n: (s.cell, view.t) for n, s in view.people.items() if s.certainty >= LEAST_CERTAINTY}

    def at(self, cell: Cell) -> str | None:
        """Who was last seen on a cell."""
        return next((name for name, (where, _) in sorted(self._now.items()) if where == cell), None)

    def near(self, cells: Iterable[Cell], at: int) -> list[str]:
        """People seen right beside one of some cells within a step of ``at``: close enough to lay hands on it."""
        spots = {(x + dx, y + dy) for x, y in cells for dx, dy in (*AHEAD, (0, 0))}
        both = [*self._now.items(), *self._before.items()]
        return sorted({name for name, (where, t) in both if abs(at - t) <= self._step_s and where in spots})

    def compare(self, view: View, found: Found) -> None:
        """Who has come into a room, who has left one."""
        for name in view.people:
            self._compare(view, found, name)
        for name, life in view.fold.people.items():
            now = life.now
            if now is not None and now.gone is None and name not in view.people and now.value not in ("", GONE):
                self._maybe_left(view, found, name, now)
        known_map = view.fold.map
        known = [name for name, role in view.fold.roles.items() if role == PERSON]
        where = {name: view.fold.map.room_at(sighting.cell) for name, sighting in view.people.items()}
        for room, share in view.coverage.items():
            if share >= WHOLE:
                self._without |= {(name, room): view.t for name in known if where.get(name) != room}
        occupied = {sighting.cell for sighting in view.people.values()}
        for x, y in known_map.exits:
            beside = {(x + dx, y + dy) for dx in (-1, 0, 1) for dy in (-1, 0, 1)}
            self._vacant |= dict.fromkeys((beside & view.scene.seen) - occupied - view.scene.unreadable, view.t)
        self._previous = view.scene

    def _compare(self, view: View, found: Found, name: str) -> None:
        """A person in view: where they were, or come into a room."""
        sighting, known, t = view.people[name], view.fold.map, view.t
        room = known.room_at(sighting.cell)
        if sighting.certainty < LEAST_CERTAINTY or room is None:
            return
        life = view.fold.people.get(name)
        now = None if life is None else life.now
        last = self._spans.last(PERSON, name) or (0 if now is None else now.last)
        if now is not None and now.gone is None and now.value == room and t - last <= SAME_VISIT_S:
            self._doubts.clear(("left", name))
            self._spans.see(PERSON, name, sighting.cell, room, t)
            return
        before = self._before.get(name)
        follows = before is not None and t - before[1] <= self._step_s and near(before[0], sighting.cell, 2)
        doubt = self._doubts.look((PERSON, name), room, t, sighting.certainty)
        if not self._doubts.settled(doubt, explained=follows or sighting.certainty >= 0.8):
            return
        self._doubts.clear((PERSON, name))
        was = self._spans.end(found.spans, PERSON, name)
        came = now.value if now is not None and (now.gone is None or now.value == GONE) else None
        cleared = self._without.get((name, room))
        if not follows and self._came_in(view, sighting.cell, first=life is None):
            came, cleared = GONE, t - self._step_s
        elif t - last >= LONG_UNSEEN_S and self._at_a_door(view, sighting.cell):
            came, cleared = GONE, self._vacant.get(sighting.cell, cleared)
        since = max([s for s in (was, cleared) if s is not None], default=None)
        found.people.append(
            {"name": name, "kind": "entered", "room": room, "cell": list(sighting.cell), "first": doubt.first,
             "last": t, "since": since, "from": came}
        )  # fmt: skip

    def _came_in(self, view: View, cell: Cell, *, first: bool) -> bool:
        """Beside a way out that stands open, where a step ago nobody was: they came in by it."""
        known = view.fold.map
        for way_out in known.exits:
            if near(cell, way_out, 2) and self._stands_open(view.scene, way_out):
                inner = [c for dx, dy in AHEAD if (c := (way_out[0] + dx, way_out[1] + dy)) in known.graph]
                if first or (self._previous is not None and any(c in self._previous.seen for c in inner)):
                    return True
        return False

    def _at_a_door(self, view: View, cell: Cell) -> bool:
        return any(near(cell, way_out) for way_out in view.fold.map.exits)

    def _stands_open(self, scene: Scene | None, way_out: Cell) -> bool:
        sightings = () if scene is None else scene.sightings
        return any(s.cell == way_out and s.state == OPEN for s in sightings)

    def _maybe_left(self, view: View, found: Found, name: str, now: Stay) -> None:
        """A person not in view: left, if nowhere in the room can they be."""
        cell, seen_at = self._now.get(name, (now.cell, now.last))
        steps = (view.t - seen_at) // self._step_s
        known, out, certainty = view.fold.map, False, _UNSEEN_IN_ROOM
        if cell is not None and steps == 1 and self._gone_out(view, cell):
            out, certainty = True, _UNSEEN
        elif cell is not None and steps <= _FOLLOWED_STEPS:
            area = _reach(known, cell, CELLS_A_STEP * steps)
            hidden = {c for c in area if c not in view.scene.seen or c in view.scene.unreadable}
            if any(known.room_at(c) == now.value for c in hidden - set(known.exits)):
                return
            certainty = _UNSEEN
        elif view.coverage.get(now.value, 0.0) < WHOLE:
            return
        doubt = self._doubts.look(("left", name), now.value, view.t, certainty)
        if not self._doubts.settled(doubt):
            return
        self._doubts.clear(("left", name))
        last = self._spans.end(found.spans, PERSON, name) or now.last
        found.people.append(
            {"name": name, "kind": "left", "room": now.value, "cell": None, "first": doubt.first, "last": last,
             "since": last, "from": None, "to": GONE if out else None}
        )  # fmt: skip

    def _gone_out(self, view: View, cell: Cell) -> bool:
        """Not there any more, who a step ago stood beside a way out that stands open."""
        if cell not in view.scene.seen or cell in view.scene.unreadable:
            return False
        exits = [e for e in view.fold.map.exits if near(cell, e)]
        return any(self._stands_open(view.scene, e) for e in exits)


def _reach(known: Geography, cell: Cell, steps: int) -> set[Cell]:
    """Cells that can be reached from ``cell`` in so many steps."""
    found, edge = {cell}, {cell}
    for _ in range(steps):
        edge = {
            (x + dx, y + dy) for x, y in edge for dx, dy in AHEAD if (x + dx, y + dy) in known.graph
        } - found  # fmt: skip
        found |= edge
    return found
