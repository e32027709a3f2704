"""The first hour: the owner carries the robot about, shows one thing a minute and names it.

Every room, every fixture, every state of every kind of fixture, every name of an item and every person is shown in
full daylight in the cell just ahead; the robot stands where most of the home comes into view, so that in the end it has
seen every floor. A thing is put where it was when the next one is shown.
"""

from __future__ import annotations

from dataclasses import dataclass

from .catalogue import PLURAL, article
from .house import House
from .plan import HEADINGS, Cell, Fixture
from .truth import shadow


@dataclass(frozen=True, slots=True)
class Shot:
    """What is shown in one minute: a fixture in a state, an item (by id), or a person."""

    text: str
    room: str
    fixture: str = ""
    state: str = ""
    item: str = ""
    person: str = ""


def script(house: House, owner: str) -> list[Shot]:
    """All shots in order, at most 60."""
    shots: list[Shot] = []
    known: set[str] = set()
    rooms = ["hall", *sorted(set(house.plan.floors) - {"hall"})]
    names = sorted({i.name for i in house.items.values()})
    share = -(-len(names) // len(rooms))
    for number, room in enumerate(rooms):
        opening = f"This room is the {room}. "
        for fixture in house.plan.fixtures.values():
            if fixture.room == room:
                for shot in _fixture_shots(fixture, fixture.kind.name in known):
                    shots.append(Shot(opening + shot.text, room, shot.fixture, shot.state))
                    opening = ""
                known.add(fixture.kind.name)
        for name in names[number * share : (number + 1) * share]:
            verb = f"These are the {name}." if name in PLURAL else f"This is {_naming(house, name)}."
            shots.append(Shot(verb, room, item=house.ids_of(name)[0]))
    for person in sorted(house.people, key=lambda p: p == owner):
        room = house.room_of_person(person)
        shots.append(Shot(f"This is {person}.", room if person != owner else "hall", person=person))
    return shots


def _naming(house: House, name: str) -> str:
    several = len(house.ids_of(name)) > 1 or name in ("apple", "letter")
    return article(name) if several else f"the {name}"


def _fixture_shots(fixture: Fixture, known: bool) -> list[Shot]:
    states, name = fixture.kind.states, fixture.name
    if not states:
        return [Shot(f"This is the {name}.", fixture.room, name)]
    first = states[-1] if known and fixture.kind.name == "door" else states[0]
    shots = [Shot(f"This is the {name}. It is {first}.", fixture.room, name, first)]
    if not known:
        shots += [Shot(f"Now the {name} is {s}.", fixture.room, name, s) for s in states[1:]]
    return shots


class Lesson:
    """Shows the script, one shot a minute."""

    def __init__(self, house: House, owner: str) -> None:
        self.owner = owner
        self.shots = script(house, owner)
        self.rest = dict(house.state)
        self.seen: set[Cell] = set()
        """Cells that were in view so far: one stands where more of the home is seen."""
        self.homes = {i.id: (i.place, i.cell) for i in house.items.values()}

    def show(self, house: House, number: int) -> str | None:
        """Puts everything back, then sets up a shot; returns what is said, None when the script is over."""
        self.tidy(house)
        if number >= len(self.shots):
            return None
        shot = self.shots[number]
        if shot.state:
            house.set_fixture(shot.fixture, shot.state, by=self.owner)
        stand, ahead = self._stage(house, shot)
        self.seen |= self._view(house, stand, ahead)
        step = (ahead[0] - stand[0], ahead[1] - stand[1])
        house.robot.x, house.robot.y = stand
        house.robot.heading = HEADINGS.index(step)
        if shot.person != self.owner:
            self._owner_beside(house, stand, ahead)
        else:
            house.move_person(self.owner, ahead)
        if shot.fixture and ahead in house.item_at:  # taken off, so that what is shown is bare
            house.move_item(house.item_at[ahead], self.owner, None, self.owner)
        if shot.item:
            house.move_item(shot.item, house.place_at(ahead), ahead, self.owner)
        return shot.text

    def tidy(self, house: House) -> None:
        """Everything as it was before the lesson."""
        for name, state in self.rest.items():
            house.set_fixture(name, state, by=self.owner)
        for item, (place, cell) in self.homes.items():
            if house.items[item].place != place:
                house.move_item(item, place, cell, self.owner)

    def _stage(self, house: House, shot: Shot) -> tuple[Cell, Cell]:
        """Where the robot stands and the cell that it looks at."""
        plan = house.plan
        taken = {p.cell for p in house.people.values() if p.name != self.owner}

        def free(cell: Cell) -> bool:
            return cell in plan.floor and cell not in taken and cell not in house.item_at

        if shot.fixture:
            every = [(s, c) for c in plan.fixtures[shot.fixture].cells for s in _beside(c) if s in plan.floor]
            pairs = [p for p in every if free(p[0])] or every  # somebody may stand in the only place: they squeeze
            pairs = [p for p in pairs if p[1] not in house.item_at] or pairs
            inside = [p for p in pairs if plan.room_at[p[0]] == shot.room]
            return self._best(house, inside or pairs)
        cell = house.people[shot.person].cell if shot.person and shot.person != self.owner else None
        if cell is not None:
            return self._best(house, [(s, cell) for s in _beside(cell) if free(s)])
        cells = [c for c in plan.room_cells(shot.room) if free(c)]
        return self._best(house, [(s, c) for c in cells for s in _beside(c) if s in cells])

    def _best(self, house: House, pairs: list[tuple[Cell, Cell]]) -> tuple[Cell, Cell]:
        """The (stand, ahead) from which most is seen that was not seen before."""
        return max(pairs, key=lambda p: len(self._view(house, *p) - self.seen))

    def _view(self, house: House, stand: Cell, ahead: Cell) -> set[Cell]:
        heading = HEADINGS.index((ahead[0] - stand[0], ahead[1] - stand[1]))
        return {c for c in shadow(*stand, heading, house.opaque) if c in house.plan.room_at}

    def _owner_beside(self, house: House, stand: Cell, ahead: Cell) -> None:
        behind = (2 * stand[0] - ahead[0], 2 * stand[1] - ahead[1])
        others = {p.cell for p in house.people.values() if p.name != self.owner}
        for cell in (behind, *_beside(stand), *house.plan.room_cells(house.plan.room_at[stand])):
            if cell in house.plan.floor and cell not in others and cell not in (stand, ahead):
                house.move_person(self.owner, cell)
                return


def _beside(cell: Cell) -> list[Cell]:
    return [(cell[0] + dx, cell[1] + dy) for dx, dy in HEADINGS]
