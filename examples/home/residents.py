"""How residents do things: a body that walks, a queue of steps, an agenda of activities.

A step takes a minute or more; compound steps (`Fetch`, `Bring`, `Visit`) unfold when their turn comes, so that they see
the home as it is then. What a day is made of is in ``routines.py``.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace

from .catalogue import GONE, Kind
from .house import House, Person
from .plan import Cell, Fixture

USES = 1 / 50
"""How often, in a minute with nothing to do, one takes up something that lies there."""
_NOTHING = Fixture("", Kind(""), "", ())
SPEED = 3
"""Cells a minute."""


@dataclass(frozen=True, slots=True)
class Go:
    """Walk to the nearest of some cells."""

    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Room:
    """Walk to some free cell of a room."""

    room: str


@dataclass(frozen=True, slots=True)
class Use:
    """Put a fixture that is within reach into a state."""

    fixture: str
    state: str


@dataclass(frozen=True, slots=True)
class Visit:
    """Walk to a fixture and put it into a state."""

    fixture: str
    state: str


@dataclass(frozen=True, slots=True)
class Fetch:
    """Walk to an item and take it, out of a container if need be; gives up the activity if it cannot."""

    item: str


@dataclass(frozen=True, slots=True)
class Tidy:
    """Bring an item to a place, if it is not there."""

    item: str
    place: str


@dataclass(frozen=True, slots=True)
class Take:
    """Take an item that is within reach."""

    item: str


@dataclass(frozen=True, slots=True)
class Bring:
    """Walk to a place and put there what is carried; if it is full, somewhere else in that room."""

    place: str


@dataclass(frozen=True, slots=True)
class Put:
    """Put down what is carried onto a place within reach."""

    place: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Stay for some minutes, or until a minute."""

    minutes: int = 0
    until: int = 0


@dataclass(frozen=True, slots=True)
class Leave:
    """Out through the front door, which is within reach and open; then close it."""


@dataclass(frozen=True, slots=True)
class Return:
    """In through the front door, with a new item perhaps."""

    item: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class Consume:
    """What is carried is gone: eaten, or handed to somebody outside."""


@dataclass(frozen=True, slots=True)
class Receive:
    """A new item comes into the hands: the post."""

    item: str
    name: str


Step = Go | Room | Use | Visit | Fetch | Tidy | Take | Bring | Put | Wait | Leave | Return | Consume | Receive


@dataclass
class Activity:
    """Something to be done from a minute on."""

    minute: int
    steps: list[Step]
    must: bool = False
    """Done however late; other activities are dropped when an hour late."""


@dataclass
class Resident:
    """What a resident is about to do."""

    name: str
    agenda: list[Activity] = field(default_factory=list)
    queue: list[Step] = field(default_factory=list)
    wait_until: int = 0
    stuck: int = 0
    asleep: bool = False
    idle_since: int = 0
    avoided: set[Cell] = field(default_factory=set)


@dataclass
class Residents:
    """All residents of a home and how they move."""

    people: dict[str, Resident]
    rng: random.Random
    reserved: set[str] = field(default_factory=set)
    """Items, fixtures and places of pending errands: residents leave them alone."""
    expecting: set[str] = field(default_factory=set)
    """Who waits for the robot to bring something: they stay where they are."""
    seeking: set[str] = field(default_factory=set)
    """Who has something to tell the robot for some time: they go and look for it when they have nothing to do."""
    maps: dict[tuple[Cell, ...], dict[Cell, int]] = field(default_factory=dict)

    def step(self, house: House) -> None:
        """One minute of everybody."""
        for resident in self.people.values():
            if house.robot.bumped and house.people[resident.name].cell == house.robot.ahead:
                self._step_aside(house, resident)
            else:
                self._step(house, resident)

    def _step_aside(self, house: House, resident: Resident) -> None:
        """Makes way for the robot that bumped into one: to the side if there is room, else away from it."""
        cell, (x, y) = house.robot.ahead, house.robot.cell
        near = house.plan.neighbours(cell)
        through = {c for d in near if d not in house.plan.floor for c in house.plan.neighbours(d)} - {cell}
        free = [c for c in {*near, *through} if c in house.plan.floor and not house.occupied(c)]
        if free:
            house.move_person(resident.name, min(free, key=lambda c: (c[0] - x == 0 or c[1] - y == 0, c)))

    def _step(self, house: House, resident: Resident) -> None:
        if house.minute < resident.wait_until:
            return
        for _ in range(12):
            if not resident.queue and not self._next_activity(house, resident):
                return
            step = resident.queue.pop(0)
            if self._do(house, resident, step):
                return

    def _next_activity(self, house: House, resident: Resident) -> bool:
        """Takes the next activity that is due; if there is none, perhaps a walk to another room."""
        while resident.agenda and resident.agenda[0].minute <= house.minute:
            activity = resident.agenda.pop(0)
            if resident.name in self.expecting and not activity.must:
                continue
            if activity.must or house.minute - activity.minute < 60:
                resident.asleep = False
                resident.queue = [*self._lights_out(house, resident), *activity.steps, Wait(1)]
                resident.idle_since = house.minute
                return True
        person = house.people[resident.name]
        if person.cell is None or resident.asleep:
            return False
        if person.carried and person.carried not in self.reserved:
            resident.queue = [Bring(self.rng.choice(["kitchen table", "hall shelf", "coffee table"]))]
            return True
        lamp = f"{house.room_of_person(resident.name)} lamp"
        if is_dark(house.minute) and house.state.get(lamp) == "off" and self.rng.random() < 0.5:
            resident.queue = [Visit(lamp, "on")]
            return True
        if resident.name in self.seeking:
            room = house.plan.room_at[house.robot.cell]
            if room != house.room_of_person(resident.name):
                resident.queue = [Room(room)]
                return True
        if resident.name in self.expecting:
            return False
        if self.rng.random() < USES:
            resident.queue = self._use_something(house, resident)
        if resident.queue:
            return True
        if house.minute - resident.idle_since > self.rng.randint(20, 90):
            resident.idle_since = house.minute
            resident.queue = [*self._lights_out(house, resident), Room(self._pleasant_room(house.minute))]
            return True
        return False

    def _use_something(self, house: House, resident: Resident) -> list[Step]:
        """Some minutes with a thing that lies in this room; then it goes back."""
        room = house.room_of_person(resident.name)
        lying = [i for c, i in sorted(house.item_at.items()) if house.plan.room_at[c] == room]
        lying = [i for i in lying if i not in self.reserved]
        lying = [i for i in lying if house.plan.fixtures.get(house.items[i].place, _NOTHING).kind.holds == "surface"]
        if not lying:
            return []
        item = self.rng.choice(lying)
        return [Fetch(item), Wait(self.rng.randint(2, 8)), Bring(house.items[item].place)]

    def _pleasant_room(self, minute: int) -> str:
        """Where one likes to be: the kitchen by day, the living room in the evening, somewhere else now and then."""
        usual = "kitchen" if minute % 1440 < 14 * 60 else "living room"
        return usual if self.rng.random() < 0.75 else self.rng.choice(["kitchen", "living room", "study", "bedroom"])

    def _lights_out(self, house: House, resident: Resident) -> list[Step]:
        room = house.room_of_person(resident.name)
        alone = room != GONE and house.people_in(room) == [resident.name]
        if alone and house.state.get(f"{room} lamp") == "on" and self.rng.random() < 0.35:
            return [Visit(f"{room} lamp", "off")]
        return []

    def give_up(self, house: House, resident: Resident) -> None:
        """Drops the rest of the activity, unless it leads out of the home or to bed."""
        rest = resident.queue
        keep = next((i for i, s in enumerate(rest) if isinstance(s, Use) and s.fixture == "front door"), None)
        resident.queue = rest[max(keep - 1, 0) :] if keep is not None else []

    # --- steps; each returns whether it took the minute

    def _do(self, house: House, resident: Resident, step: Step) -> bool:
        person = house.people[resident.name]
        match step:
            case Go(cells):
                return self._walk(house, resident, person, cells, step)
            case Room(room):
                cells = tuple(
                    c for c in house.plan.room_cells(room) if not house.occupied(c) and c not in house.item_at
                )
                quiet = [c for c in cells if not self._in_doorway(house, c)]
                resident.queue.insert(0, Go((self.rng.choice(quiet or list(cells)),)))
                return False
            case Visit(fixture, state):
                if fixture in self.reserved or fixture not in house.plan.fixtures:
                    return False
                resident.queue[:0] = [Go(house.plan.access[fixture]), Use(fixture, state)]
                return False
            case Use(fixture, state):
                return house.set_fixture(fixture, state, by=resident.name)
            case Wait(minutes, until):
                resident.wait_until = max(house.minute + minutes, until)
                resident.asleep = until - house.minute > 180
                return True
            case _:
                return self._handle(house, resident, person, step)

    def _handle(self, house: House, resident: Resident, person: Person, step: Step) -> bool:
        """Steps that have to do with items and with the front door."""
        match step:
            case Fetch(item):
                self._fetch(house, resident, person, item)
                return False
            case Tidy(item, place):
                if house.items[item].place != place:
                    resident.queue[:0] = [Fetch(item), Wait(1), Bring(place)]
                return False
            case Take(item):
                thing = house.items[item]
                fixture = house.plan.fixture_at.get(thing.cell) if thing.cell else None
                near = thing.cell is not None and _beside(person.cell, thing.cell)
                if not near or item in self.reserved or person.carried or (fixture and not house.reachable(fixture)):
                    self.give_up(house, resident)
                    return False
                house.move_item(item, resident.name, None, resident.name)
                return True
            case Bring(place):
                self._bring(house, resident, person, place)
                return False
            case Put(place):
                return self._put(house, resident, person, place)
            case Consume():
                if person.carried:
                    house.move_item(person.carried, GONE, None, resident.name)
                    return True
                return False
            case Receive(item, name):
                if person.carried:
                    return False
                house.add_item(item, name, resident.name, None, resident.name)
                return True
            case _:
                return self._through_front_door(house, resident, person, step)

    def _through_front_door(self, house: House, resident: Resident, person: Person, step: Step) -> bool:
        inside = house.plan.access["front door"][0]
        if isinstance(step, Leave):
            house.move_person(resident.name, None)
            resident.queue.insert(0, Use("front door", "closed"))
            return True
        near = [inside, *(c for n in house.plan.neighbours(inside) for c in (n, *house.plan.neighbours(n)))]
        free = [c for c in near if c in house.plan.floor and not house.occupied(c)]
        if house.set_fixture("front door", "open", by=resident.name) or not free:
            resident.queue.insert(0, step)
            return True
        house.move_person(resident.name, free[0])
        if isinstance(step, Return) and step.item and not person.carried:
            house.add_item(step.item, step.name, resident.name, None, resident.name)
        resident.queue.insert(0, Use("front door", "closed"))
        resident.asleep = False
        return True

    def _fetch(self, house: House, resident: Resident, person: Person, item: str) -> None:
        thing = house.items.get(item)
        if thing is not None and person.carried == item:
            return
        if thing is None or thing.cell is None or item in self.reserved or person.carried:
            self.give_up(house, resident)
            return
        fixture = house.plan.fixture_at.get(thing.cell)
        cells = tuple(c for c in house.plan.floor if _beside(c, thing.cell))
        steps: list[Step] = [Go(tuple(sorted(cells))), Take(item)]
        if fixture and not house.reachable(fixture):
            if fixture.name in self.reserved:
                self.give_up(house, resident)
                return
            steps = [steps[0], Use(fixture.name, "open"), Take(item), Use(fixture.name, "closed")]
        resident.queue[:0] = steps

    def _bring(self, house: House, resident: Resident, person: Person, place: str) -> None:
        if person.carried is None:
            return
        place = self._with_room(house, place)
        fixture = house.plan.fixtures.get(place)
        if fixture is None:
            cells = tuple(c for c in house.plan.room_cells(place.removesuffix(" floor")))
            resident.queue[:0] = [Go(cells), Put(place)]
            return
        cell = house.free_cell(place)
        near = tuple(c for c in house.plan.access[place] if cell is None or _beside(c, cell))
        steps: list[Step] = [Go(near or house.plan.access[place]), Put(place)]
        if not house.reachable(fixture):
            steps = [steps[0], Use(place, "open"), Put(place), Use(place, "closed")]
        resident.queue[:0] = steps

    def _with_room(self, house: House, place: str) -> str:
        """The place itself, or another in its room (then in the home) that has room and belongs to no errand."""
        fixtures = house.plan.fixtures
        room = house.plan.room_of(place)
        surfaces = [f.name for f in fixtures.values() if f.kind.holds == "surface"]
        self.rng.shuffle(surfaces)
        surfaces.sort(key=lambda n: fixtures[n].room != room)
        for name in (place, *surfaces):
            free = name in fixtures and sum(c not in house.item_at for c in fixtures[name].cells)
            if (
                free
                and free > (name in self.reserved)
                and (house.reachable(fixtures[name]) or name not in self.reserved)
            ):
                return name
        return f"{room} floor"

    def _put(self, house: House, resident: Resident, person: Person, place: str) -> bool:
        if person.carried is None or person.cell is None:
            return False
        fixture = house.plan.fixtures.get(place)
        if fixture is None:
            beside = [c for c in house.plan.neighbours(person.cell) if c in house.plan.floor]
            cell = next((c for c in beside if c not in house.item_at and not house.occupied(c)), None)
        else:
            cells = [c for c in fixture.cells if c not in house.item_at and house.reachable(fixture)]
            if place in self.reserved and len(cells) == 1:  # asked for in the meantime
                resident.queue.insert(0, Bring(place))
                return False
            cell = next((c for c in cells if _beside(person.cell, c)), next(iter(cells), None))
        if cell is None:
            resident.stuck += 1
            if resident.stuck < 4:
                resident.queue.insert(0, Bring(place))
            return True
        resident.stuck = 0
        house.move_item(person.carried, house.place_at(cell), cell, resident.name)
        return True

    # --- walking

    def _distances(self, house: House, cells: tuple[Cell, ...]) -> dict[Cell, int]:
        if cells not in self.maps:
            if len(self.maps) > 400:
                self.maps.clear()
            self.maps[cells] = house.plan.distances(cells)
        return self.maps[cells]

    def _walk(self, house: House, resident: Resident, person: Person, cells: tuple[Cell, ...], step: Go) -> bool:
        """Up to `SPEED` cells towards the nearest target; never stops in a doorway; True if the minute is used."""
        if person.cell is None or person.cell in cells:
            resident.stuck = 0
            return False
        free = tuple(c for c in cells if not house.occupied(c))
        if not free:
            resident.stuck += 1
            if resident.stuck > 5:
                resident.stuck = 0
                self.give_up(house, resident)
                return True
            resident.queue.insert(0, step)
            return True
        distance = self._distances(house, free)
        path: list[Cell] = []
        cell = person.cell
        while distance[cell] > 0 and len(path) < SPEED + 2:
            cell = min(house.plan.neighbours(cell), key=lambda c: distance.get(c, 999))
            door = house.plan.fixture_at.get(cell)
            if door is not None and house.state[door.name] == "closed":
                if not path:
                    house.set_fixture(door.name, "open", by=resident.name)
                break
            path.append(cell)
        for stop in range(min(SPEED, len(path)), 0, -1):
            if path[stop - 1] in house.plan.floor and not house.occupied(path[stop - 1]):
                house.move_person(resident.name, path[stop - 1])
                resident.queue.insert(0, replace(step))
                return True
        for stop in range(SPEED, len(path)):
            if path[stop] in house.plan.floor and not house.occupied(path[stop]):
                house.move_person(resident.name, path[stop])
                break
        resident.queue.insert(0, step)
        return True

    def _in_doorway(self, house: House, cell: Cell) -> bool:
        beside = [(cell[0] + dx, cell[1] + dy) for dx, dy in ((1, 0), (0, 1), (-1, 0), (0, -1))]
        return any(c in house.plan.fixture_at and house.plan.fixture_at[c].kind.name == "door" for c in beside)


def is_dark(minute: int) -> bool:
    """Whether one would want a lamp at this minute."""
    return not 7 * 60 <= minute % 1440 < 17 * 60 + 45


def _beside(one: Cell | None, other: Cell) -> bool:
    return one is not None and abs(one[0] - other[0]) + abs(one[1] - other[1]) == 1
