"""Everything in the home that changes, and the physics of it: states, places, people, the robot's body.

Every change goes through a method of `House`, which also writes it to the truth log. It decides nothing.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from .catalogue import GONE, ME
from .plan import HEADINGS, Cell, Fixture, Plan, base_looks
from .truth import Truth, TruthEvent

FIRST_MINUTE = 420
"""The life begins at 07:00 of day 0, a Monday."""
LESSON_END = 480
WAIT, LEFT, RIGHT, FORWARD, PICK, PUT, USE, GIVE, DISCARD = range(9)


@dataclass(slots=True)
class Item:
    """A movable thing."""

    id: str
    name: str
    place: str = GONE
    cell: Cell | None = None
    """None if carried, held or gone."""


@dataclass(slots=True)
class Person:
    """The body of a resident."""

    name: str
    cell: Cell | None = None
    """None if not at home."""
    carried: str | None = None
    """Id of what is carried."""


@dataclass(slots=True)
class Utterance:
    """Something that was said to the robot, or that is waiting to be said."""

    minute: int
    """When it was heard; -1 as long as it was not."""
    speaker: str
    channel: str
    """``voice`` (heard in the room) or ``app`` (the owner's paired telephone)."""
    text: str
    kind: str
    """``lesson``, ``fact``, ``correction``, ``errand``, ``standing``, ``chat``."""
    about: tuple[str, str] = ("", "")
    """For facts: the thing and the place or value."""


@dataclass(slots=True)
class Robot:
    """The robot's body."""

    x: int
    y: int
    heading: int = 0
    held: str | None = None
    bumped: bool = False

    @property
    def cell(self) -> Cell:
        """Where it stands."""
        return (self.x, self.y)

    @property
    def ahead(self) -> Cell:
        """The cell in front of it."""
        dx, dy = HEADINGS[self.heading]
        return (self.x + dx, self.y + dy)


@dataclass
class House:
    """One home at one minute."""

    plan: Plan
    seed: int
    rng: random.Random
    minute: int = FIRST_MINUTE
    state: dict[str, str] = field(default_factory=dict)
    items: dict[str, Item] = field(default_factory=dict)
    item_at: dict[Cell, str] = field(default_factory=dict)
    people: dict[str, Person] = field(default_factory=dict)
    toggled: list[tuple[str, str]] = field(default_factory=list)
    """State changes of this minute that the mechanisms have not looked at yet."""
    discarded: list[str] = field(default_factory=list)
    """Items that the robot threw away in this minute."""

    def __post_init__(self) -> None:
        self.robot = Robot(*self.plan.start)
        self.looks = base_looks(self.plan)
        self.truth = Truth(self.plan, self.seed, FIRST_MINUTE, LESSON_END)
        for fixture in self.plan.fixtures.values():
            if fixture.kind.states:
                self.state[fixture.name] = fixture.kind.states[0]
                self.truth.set_state(self.minute, fixture.name, fixture.kind.states[0])
        self._opaque_changed()

    # --- fixtures

    def set_fixture(self, name: str, state: str, by: str | None = None, cause: str | None = None) -> bool:
        """Puts a fixture into a state; False if it was in it, or if somebody stands in the door."""
        fixture, old = self.plan.fixtures[name], self.state[name]
        if old == state or (state == "closed" and fixture.kind.name == "door" and self.occupied(fixture.cells[0])):
            return False
        self.state[name] = state
        for x, y in fixture.cells:
            self.looks[y, x] = self.plan.look_of[fixture.kind.name, state]
        self.truth.set_state(self.minute, name, state)
        self.truth.events.append(TruthEvent(self.minute, "state", name, old, state, by, cause))
        self.toggled.append((name, state))
        if fixture.kind.name == "door":
            self._opaque_changed()
        return True

    def _opaque_changed(self) -> None:
        plan, opaque = self.plan, set(self.plan.walls)
        for fixture in plan.fixtures.values():
            if fixture.kind.in_wall and not (fixture.kind.name == "door" and self.state[fixture.name] == "open"):
                opaque.update(fixture.cells)
        self.opaque = frozenset(opaque)
        self.truth.set_opaque(self.minute, self.opaque)

    def reachable(self, fixture: Fixture) -> bool:
        """Whether one can reach into it: not a container that is closed."""
        return fixture.kind.holds != "container" or self.state[fixture.name] == "open"

    def free_cell(self, place: str) -> Cell | None:
        """A cell of a surface or container with nothing on it, the first by position; None if full."""
        fixture = self.plan.fixtures.get(place)
        if fixture is None or fixture.kind.holds not in ("surface", "container"):
            return None
        return next((c for c in fixture.cells if c not in self.item_at), None)

    # --- items

    def add_item(self, item: str, name: str, place: str, cell: Cell | None, by: str | None = None) -> None:
        """Something new comes into the home."""
        self.items[item] = Item(item, name)
        self.truth.set_item(self.minute - 1, item, name, GONE, None)
        self.move_item(item, place, cell, by)

    def move_item(self, item: str, place: str, cell: Cell | None, by: str | None) -> None:
        """Moves an item; ``cell`` is None for persons, ``me`` and ``gone``."""
        thing = self.items[item]
        if thing.cell is not None:
            del self.item_at[thing.cell]
        for person in self.people.values():
            if person.carried == item:
                person.carried = None
        if self.robot.held == item:
            self.robot.held = None
        if place in self.people:
            self.people[place].carried = item
        elif place == ME:
            self.robot.held = item
        if cell is not None:
            self.item_at[cell] = item
        old, thing.place, thing.cell = thing.place, place, cell
        self.truth.set_item(self.minute, item, thing.name, place, cell)
        if old != place:
            self.truth.events.append(TruthEvent(self.minute, "moved", item, old, place, by))

    def place_at(self, cell: Cell) -> str:
        """Name of the place that a cell belongs to: its fixture, or the floor of its room."""
        fixture = self.plan.fixture_at.get(cell)
        return fixture.name if fixture else f"{self.plan.room_at[cell]} floor"

    def ids_of(self, name: str) -> list[str]:
        """Items at home that bear a name, in order of id."""
        return sorted(i.id for i in self.items.values() if i.name == name and i.place != GONE)

    # --- people

    def occupied(self, cell: Cell) -> bool:
        """Whether a person or the robot stands in a cell."""
        return cell == self.robot.cell or self.person_at(cell) is not None

    def person_at(self, cell: Cell) -> str | None:
        """Who stands in a cell."""
        return next((p.name for p in self.people.values() if p.cell == cell), None)

    def room_of_person(self, name: str) -> str:
        """Room in which a person is; ``gone`` if not at home."""
        cell = self.people[name].cell
        return GONE if cell is None else self.plan.room_at[cell]

    def move_person(self, name: str, cell: Cell | None) -> None:
        """Puts a person into a cell, or out of the home."""
        old = self.room_of_person(name)
        self.people[name].cell = cell
        new = self.room_of_person(name)
        self.truth.set_person(self.minute, name, new, cell)
        if old == new:
            return
        if old != GONE:
            self.truth.events.append(TruthEvent(self.minute, "left", name, old, new, name))
        if new != GONE:
            self.truth.events.append(TruthEvent(self.minute, "entered", name, old, new, name))

    def people_in(self, room: str) -> list[str]:
        """Who is in a room, in order of name."""
        return sorted(p for p in self.people if self.room_of_person(p) == room)

    # --- the robot

    def act(self, action: int) -> None:
        """Does what the robot wants, if it can be done; ``robot.bumped`` tells if it could not move forward."""
        robot = self.robot
        robot.bumped = False
        if action in (LEFT, RIGHT):
            robot.heading = (robot.heading + (1 if action == RIGHT else 3)) % 4
        elif action == FORWARD:
            self._forward()
        elif action == USE:
            fixture = self.plan.fixture_at.get(robot.ahead)
            if fixture and fixture.kind.states and fixture.kind.usable:
                states = fixture.kind.states
                now = states.index(self.state[fixture.name])
                self.set_fixture(fixture.name, states[(now + 1) % len(states)], by=ME)
        elif action == PICK and robot.held is None:
            self._pick()
        elif action in (PUT, GIVE, DISCARD) and robot.held is not None:
            self._release(action, robot.held)

    def _forward(self) -> None:
        robot, there = self.robot, self.robot.ahead
        door = self.plan.fixture_at.get(there)
        through = door is not None and door.kind.name == "door" and self.state[door.name] == "open"
        passable = there in self.plan.floor or (through and door is not None and door.name != "front door")
        if not passable or self.person_at(there):
            robot.bumped = True
            return
        robot.x, robot.y = there

    def _pick(self) -> None:
        ahead = self.robot.ahead
        item, fixture = self.item_at.get(ahead), self.plan.fixture_at.get(ahead)
        if item is None or self.person_at(ahead) or (fixture and not self.reachable(fixture)):
            return
        self.move_item(item, ME, None, ME)

    def _release(self, action: int, item: str) -> None:
        ahead = self.robot.ahead
        person, fixture = self.person_at(ahead), self.plan.fixture_at.get(ahead)
        if action == GIVE and person and self.people[person].carried is None:
            self.move_item(item, person, None, ME)
        elif action == DISCARD and fixture and fixture.kind.holds == "bin":
            self.move_item(item, GONE, None, ME)
            self.discarded.append(item)
        elif action == PUT and not person and ahead not in self.item_at:
            on_floor = fixture is None and ahead in self.plan.floor
            holds = fixture is not None and fixture.kind.holds in ("surface", "container") and self.reachable(fixture)
            if on_floor or holds:
                self.move_item(item, self.place_at(ahead), ahead, ME)
