"""Skills: how the robot walks, takes, puts and sets things. Plain code, one body action a step, no decisions.

Each skill is a generator that yields an action and is sent what was observed after it. It reads the agent's own world
model, which is level with every observation, and raises `Failed` with the reason when it cannot go on.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

import networkx as nx
from perdure.records import Cell, Observation, Pose, Scene
from perdure.world_model import WorldModel

Skill = Generator[int, Observation, None]
"""Yields actions, is sent observations."""


class Move(IntEnum):
    """What the body can do in a minute."""

    WAIT = 0
    LEFT = 1
    RIGHT = 2
    FORWARD = 3
    PICK_UP = 4
    PUT_DOWN = 5
    USE = 6
    GIVE = 7
    DISCARD = 8


class Failed(Exception):
    """A skill cannot go on; the message says why."""


class NotUsable(Failed):
    """A fixture does not go into another state when it is used."""


class Body(Protocol):
    """What skills need to know."""

    world: WorldModel

    @property
    def pose(self) -> Pose: ...

    @property
    def scene(self) -> Scene | None: ...

    @property
    def holding(self) -> bool: ...

    @property
    def bumped(self) -> bool: ...

    def states_of(self, fixture: str) -> tuple[str, ...]: ...


AHEAD: tuple[Cell, ...] = ((1, 0), (0, 1), (-1, 0), (0, -1))
BIN = "bin"
ME = "me"
FLOOR = " floor"
OPEN, CLOSED = "open", "closed"
_MOST_STEPS = 70
_PATIENCE = 2
"""Minutes to wait for somebody in the way before going around."""
_JUST_SEEN_S = 600


def walk(body: Body, goal: Cell, *, beside: bool) -> Skill:
    """Go to ``goal``, or to a cell beside it and face it.

    Raises:
        Failed: there is no way, or it takes too long.
    """
    avoid: dict[Cell, int] = {}
    looked: set[Cell] = set()
    bumps = 0
    for step in range(_MOST_STEPS):
        pose = body.pose
        here = (pose.x, pose.y)
        blocked = [cell for cell, until in avoid.items() if until > step]
        path = body.world.map.path(here, goal, beside=beside, avoid=blocked)
        if path is None and blocked:
            yield from _make_way(body, blocked)
            avoid.clear()
            continue
        if path is None and (found := _frontier(body, here, looked)) is not None:
            looked.add(found)
            yield from _explore(body, here, found)
            continue
        if path is None:
            raise Failed(f"no way is known from {here} to {goal}")
        if len(path) == 1:
            if beside:
                yield from face(body, goal)
            return
        ahead = path[1]
        if _ahead(pose) != ahead:
            yield from face(body, ahead)
            continue
        if state_at(body, ahead) == CLOSED:
            yield Move.USE
            continue
        yield Move.FORWARD
        bumps = bumps + 1 if body.bumped else 0
        if bumps > _PATIENCE:
            avoid[ahead] = step + 12
            bumps = 0
    raise Failed(f"did not get to {goal} within {_MOST_STEPS} minutes")


def _frontier(body: Body, here: Cell, looked: set[Cell]) -> Cell | None:
    """The nearest cell one can reach from which something unknown lies beside; None if all is known."""
    known = body.world.map
    graph = body.world.graph
    reach: dict[Cell, int] = nx.single_source_shortest_path_length(graph, here) if here in graph else {}
    for cell, _ in sorted(reach.items(), key=lambda item: (item[1], item[0])):
        unknown = any(known.kind((cell[0] + dx, cell[1] + dy)) is None for dx, dy in AHEAD)
        if unknown and cell not in looked:
            return cell
    return None


def _explore(body: Body, here: Cell, cell: Cell) -> Skill:
    """Go to a cell from which something unknown may be seen, and look around."""
    if cell != here:
        yield from walk(body, cell, beside=False)
    yield from look_around(body)


def _make_way(body: Body, blocked: Iterable[Cell]) -> Skill:
    """Step aside for somebody who stands in the only way, and give them time to pass."""
    pose = body.pose
    here, graph, taken = (pose.x, pose.y), body.world.graph, {*blocked, *_people_cells(body)}
    beside = [cell for cell in graph.neighbors(here) if cell not in taken] if here in graph else []
    aside = max(beside, key=lambda cell: (graph.degree(cell), cell), default=None)
    if aside is not None:
        yield from face(body, aside)
        yield Move.FORWARD
    yield Move.WAIT
    yield Move.WAIT


def _people_cells(body: Body) -> set[Cell]:
    people = body.world.fold.people
    return {s.cell for s in body.scene.sightings if s.name in people} if body.scene is not None else set()


def face(body: Body, cell: Cell) -> Skill:
    """Turn towards a cell beside the body."""
    for _ in range(4):
        pose = body.pose
        if _ahead(pose) == cell:
            return
        wanted = AHEAD.index((cell[0] - pose.x, cell[1] - pose.y))
        yield Move.LEFT if (wanted - pose.heading) % 4 == 3 else Move.RIGHT


def look_around(body: Body) -> Skill:
    """Look in all four directions."""
    for _ in range(4):
        yield Move.RIGHT


def visit(body: Body, room: str) -> Skill:
    """Go to the middle of a room and look around."""
    free = [cell for cell in body.world.map.room_cells(room) if cell in body.world.graph]
    if not free:
        raise Failed(f"no free cell of the {room} is known")
    x, y = sum(c[0] for c in free) / len(free), sum(c[1] for c in free) / len(free)
    yield from walk(body, min(free, key=lambda c: (abs(c[0] - x) + abs(c[1] - y), c)), beside=False)
    yield from look_around(body)


def set_state(body: Body, fixture: str, state: str) -> Skill:
    """Bring a fixture into a state.

    Raises:
        Failed: it cannot be reached, or does not go into that state.
    """
    cell = nearest(body, body.world.map.cells_of(fixture))
    yield from walk(body, cell, beside=True)
    for _ in range(3):
        now = read_state(body, cell)
        if not now:
            yield Move.WAIT
            continue
        if now == state:
            return
        yield Move.USE
    if read_state(body, cell) != state:
        raise NotUsable(f"the {fixture} does not become {state}")


def look_into(body: Body, container: str) -> Skill:
    """Open a fixture if it is shut, look at all of its cells, and leave it as it was."""
    cells = body.world.map.cells_of(container)
    first = nearest(body, cells)
    yield from walk(body, first, beside=True)
    was_shut = read_state(body, first) == CLOSED
    if was_shut:
        yield Move.USE
    yield Move.WAIT
    if was_shut and read_state(body, first) == OPEN:
        yield Move.USE


def take(body: Body, thing: str) -> Skill:
    """Find a thing and pick it up: where it is believed to be, then room by room, then in what is shut.

    Rooms come in the order of how often the thing was there and how near they are; those that were in view since it was
    last seen are left for the end.

    Raises:
        Failed: it was not found, or could not be taken.
    """
    tried: set[Cell] = set()
    for cell in sorted(_known_cells(body, thing), key=lambda c: (_distance(body, c), c)):
        tried.add(cell)
        yield from _take_from(body, thing, cell)
        if not _hand_is_free(body):
            return
    rooms = sorted(body.world.map.rooms)
    first, second = [_Look(room, shut=False) for room in rooms], [_Look(room, shut=True) for room in rooms]
    for looks in (first, second):
        while looks:
            look = max(looks, key=lambda each: _promise(body, thing, each.room))
            looks.remove(look)
            spotted: set[Cell] = set()
            yield from _watching_for(body, thing, look.skill(body, thing), spotted)
            if not _hand_is_free(body):
                return
            for cell in sorted((_known_cells(body, thing) | spotted) - tried):
                tried.add(cell)
                yield from _take_from(body, thing, cell)
                if not _hand_is_free(body):
                    return
    raise Failed(f"the {thing} is not where it was last seen, nor anywhere in sight")


@dataclass(frozen=True)
class _Look:
    """One place to search: a room from its middle, or what is shut in it."""

    room: str
    shut: bool

    def skill(self, body: Body, thing: str) -> Skill:
        if not self.shut:
            yield from visit(body, self.room)
            return
        for cell in _shut_in(body, self.room):
            yield from _take_from(body, thing, cell)


def _promise(body: Body, thing: str, room: str) -> float:
    """How promising it is to look for a thing in a room."""
    places = [stay.value for life in body.world.lives(thing) for stay in life.stays]
    share = sum(body.world.map.room_of(place) == room for place in places) / max(1, len(places))
    views = body.world.fold.views.get(room)
    last = max((life.now.last for life in body.world.lives(thing) if life.now is not None), default=0)
    seen = views[-1][1] if views else 0
    just_seen = body.world.fold.time - seen < _JUST_SEEN_S
    return share + 0.1 - _room_distance(body, room) / 60 - 0.5 * (seen > last) - just_seen


def _shut_in(body: Body, room: str) -> list[Cell]:
    """Cells of what can be shut and holds things, in a room."""
    found = sorted(body.world.map.fixtures.items())
    return [
        cell
        for cell, name in found
        if OPEN in body.states_of(name)
        and not name.endswith(("door", "window"))
        and body.world.map.room_at(cell) == room
    ]


def _watching_for(body: Body, thing: str, skill: Skill, spotted: set[Cell]) -> Skill:
    """A skill that is left as soon as a thing is seen, or when it fails; ``spotted`` gets the cells."""
    try:
        for action in skill:
            yield action
            spotted |= _seen_at(body, thing)
            if spotted:
                return
    except Failed:
        return


def _whatever(skill: Skill) -> Skill:
    """A skill whose failure does not matter."""
    try:
        yield from skill
    except Failed:
        return


def _take_from(body: Body, thing: str, cell: Cell) -> Skill:
    """Look on a cell, into what stands there if it is shut, and pick the thing up if it is there."""
    container = body.world.map.fixtures.get(cell)
    try:
        yield from walk(body, cell, beside=True)
    except Failed:
        return
    if container is not None and read_state(body, cell) == CLOSED and OPEN in body.states_of(container):
        yield Move.USE
    if cell not in _seen_at(body, thing):
        yield Move.WAIT  # a second look: pictures are noisy
    if cell in _seen_at(body, thing):
        yield Move.PICK_UP
    yield from _shut(body, cell, container)


def _known_cells(body: Body, thing: str) -> set[Cell]:
    """Where a thing is believed to lie now, and where it is seen."""
    now = [life.now for life in body.world.lives(thing)]
    return {stay.cell for stay in now if stay is not None and stay.gone is None and stay.cell} | _seen_at(body, thing)


def _room_distance(body: Body, room: str) -> int:
    return min((_distance(body, cell) for cell in body.world.map.room_cells(room)), default=10_000)


def put(body: Body, place: str) -> Skill:
    """Put down what is held: on or in a fixture, on a floor, or hand it to a person.

    Raises:
        Failed: nothing is held, the place is full, or the person is not there.
    """
    if not body.holding:
        raise Failed("nothing is held")
    if body.world.fold.roles.get(place) == "person":
        yield from _hand(body, place)
        return
    cells = body.world.map.cells_of(place)
    if place.endswith(FLOOR):
        cells = tuple(cell for cell in cells if cell in body.world.graph)
    taken = {stay.cell for _, stay in body.world.fold.objects.believed()}
    for cell in sorted(cells, key=lambda c: (c in taken, _distance(body, c))):
        container = body.world.map.fixtures.get(cell)
        yield from walk(body, cell, beside=True)
        if container is not None and read_state(body, cell) == CLOSED:
            yield Move.USE
        yield Move.PUT_DOWN
        if _hand_is_free(body):
            yield from _shut(body, cell, container)
            return
    raise Failed(f"there is no room at {place}")


def discard(body: Body) -> Skill:
    """Throw what is held into the nearest bin: it cannot be had back.

    Raises:
        Failed: no bin is known, or it did not work.
    """
    bins = [cell for cell, name in body.world.map.fixtures.items() if name.endswith(BIN)]
    yield from walk(body, nearest(body, bins), beside=True)
    yield Move.DISCARD
    if body.holding:
        raise Failed("it is still in the gripper")


def nearest(body: Body, cells: Iterable[Cell]) -> Cell:
    """The nearest of some cells.

    Raises:
        Failed: there are none.
    """
    found = min(cells, key=lambda cell: (_distance(body, cell), cell), default=None)
    if found is None:
        raise Failed("no such place is known")
    return found


def read_state(body: Body, cell: Cell) -> str:
    """The state of the fixture on a cell as it is seen now; empty if it is not read."""
    for sighting in body.scene.sightings if body.scene is not None else ():
        if sighting.cell == cell and sighting.state:
            return sighting.state
    return ""


def state_at(body: Body, cell: Cell) -> str:
    """The state of the fixture on a cell: as seen now, else as believed; empty if there is none."""
    fixture = body.world.map.fixtures.get(cell)
    if fixture is None:
        return ""
    return read_state(body, cell) or str(body.world.state_of(fixture).value or "")


def _shut(body: Body, cell: Cell, container: str | None) -> Skill:
    """Close a container again."""
    if container is not None and CLOSED in body.states_of(container) and read_state(body, cell) == OPEN:
        yield Move.USE


def _hand(body: Body, person: str) -> Skill:
    """Hand what is held to a person, who may walk about meanwhile."""
    for _ in range(3):
        if _person_cell(body, person) is None:
            yield from _search(body, person)
        for _ in range(25):
            cell = _person_cell(body, person)
            if cell is None:
                break
            pose = body.pose
            if _ahead(pose) == cell:
                yield Move.GIVE
                if _hand_is_free(body):
                    return
                continue
            if abs(cell[0] - pose.x) + abs(cell[1] - pose.y) == 1:
                yield from face(body, cell)
                continue
            yield from _towards(body, cell)
    raise Failed(f"{person} was not found, or has no hand free")


def _hand_is_free(body: Body) -> bool:
    return not body.holding


def _towards(body: Body, cell: Cell) -> Skill:
    """One step towards a cell."""
    pose = body.pose
    path = body.world.map.path((pose.x, pose.y), cell, beside=True)
    if path is None or len(path) < 2:
        yield Move.WAIT
        return
    if _ahead(pose) != path[1]:
        wanted = AHEAD.index((path[1][0] - pose.x, path[1][1] - pose.y))
        yield Move.LEFT if (wanted - pose.heading) % 4 == 3 else Move.RIGHT
    elif state_at(body, path[1]) == CLOSED:
        yield Move.USE
    else:
        yield Move.FORWARD


def _search(body: Body, person: str) -> Skill:
    """Look into the rooms until a person is seen."""
    rooms = list(body.world.map.rooms)
    known = body.world.place_of(person).value
    rooms.sort(key=lambda room: room != known)
    for room in rooms:
        for action in _whatever(visit(body, room)):
            yield action
            if _person_cell(body, person) is not None:
                return


def _person_cell(body: Body, person: str) -> Cell | None:
    for sighting in body.scene.sightings if body.scene is not None else ():
        if sighting.name == person:
            return sighting.cell
    return None


def _seen_at(body: Body, thing: str) -> set[Cell]:
    name = thing.split("#")[0]
    sightings = body.scene.sightings if body.scene is not None else ()
    return {sighting.cell for sighting in sightings if sighting.name == name and sighting.on != ME}


def _distance(body: Body, cell: Cell) -> int:
    pose = body.pose
    path = body.world.map.path((pose.x, pose.y), cell, beside=True)
    return 10_000 if path is None else len(path)


def _ahead(pose: Pose) -> Cell:
    dx, dy = AHEAD[pose.heading]
    return pose.x + dx, pose.y + dy
