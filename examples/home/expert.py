"""A scripted robot that knows the true state: how many errands can be done at all.

It looks at `HomeEnv.house` and the goals of errands, which no honest robot may. Between errands it goes from room to
room and looks about.
"""

from __future__ import annotations

import random
from collections import deque

from .catalogue import GONE
from .errands import Errand
from .house import DISCARD, FORWARD, GIVE, LEFT, PICK, PUT, RIGHT, USE, WAIT, House
from .plan import HEADINGS, Cell
from .world import HomeEnv


class Expert:
    """Does errands in the order of their deadlines."""

    def __init__(self, env: HomeEnv, seed: int = 0) -> None:
        self.env = env
        self.rng = random.Random(seed)
        self.errand: Errand | None = None
        self.target: Cell | None = None
        self.looks = 0

    def act(self) -> int:
        """The action for the next minute."""
        house = self.env.house
        errands = [e for e in self.env.errands if e.done is None and not e.forbidden]
        if self.errand not in errands or self.errand is None or not self._ready(house, self.errand):
            ready = sorted((e for e in errands if self._ready(house, e)), key=lambda e: e.deadline)
            self.errand = ready[0] if ready else None
        if self.errand is not None:
            return self._work(house, self.errand)
        if house.robot.held is not None:
            return self._put_away(house, house.robot.held)
        if self._fridge_left_open(house):
            return self._use(house, "fridge")
        return self._patrol(house)

    # --- errands

    def _ready(self, house: House, errand: Errand) -> bool:
        """Whether something can be done for it now."""
        goal = errand.goal
        if goal.when_home and not self._came(house, errand):
            return False
        if goal.kind == "state":
            return True
        held = house.robot.held
        if held is not None and house.items[held].name == goal.thing:
            return goal.target not in house.people or house.people[goal.target].cell is not None
        return any(house.items[i].cell is not None for i in house.ids_of(goal.thing))

    def _came(self, house: House, errand: Errand) -> bool:
        who = errand.goal.when_home
        found = (e for e in reversed(house.truth.events) if e.thing == who and e.kind == "entered" and e.old == GONE)
        last = next(found, None)
        return last is not None and last.minute >= errand.minute

    def _work(self, house: House, errand: Errand) -> int:
        goal, held = errand.goal, house.robot.held
        if goal.kind == "state":
            return self._use(house, goal.thing)
        if held is None:
            items = [i for i in house.ids_of(goal.thing) if house.items[i].cell is not None]
            return self._take(house, min(items, key=lambda i: self._far(house, house.items[i].cell)))
        if house.items[held].name != goal.thing:
            return self._put_away(house, held)
        if goal.kind == "discarded":
            return self._at(house, house.plan.fixtures["bin"].cells[0], DISCARD)
        if goal.target in house.people:
            cell = house.people[goal.target].cell
            return self._at(house, cell, GIVE) if cell else WAIT
        return self._put_on(house, goal.target)

    def _take(self, house: House, item: str) -> int:
        cell = house.items[item].cell
        assert cell is not None
        fixture = house.plan.fixture_at.get(cell)
        shut = fixture is not None and not house.reachable(fixture)
        return self._at(house, cell, USE if shut else PICK)

    def _put_on(self, house: House, place: str) -> int:
        fixture = house.plan.fixtures[place]
        if not house.reachable(fixture):
            return self._at(house, fixture.cells[0], USE)
        free = [c for c in fixture.cells if c not in house.item_at]
        return self._at(house, min(free, key=lambda c: self._far(house, c)), PUT) if free else WAIT

    def _put_away(self, house: House, held: str) -> int:
        places = [f for f in house.plan.fixtures.values() if f.kind.holds == "surface" and house.free_cell(f.name)]
        asked = {e.goal.target for e in self.env.errands if e.done is None}
        places = [f for f in places if f.name not in asked] or places
        return self._put_on(house, min(places, key=lambda f: self._far(house, f.cells[0])).name)

    def _use(self, house: House, fixture: str) -> int:
        return self._at(house, house.plan.fixtures[fixture].cells[0], USE)

    # --- rounds

    def _fridge_left_open(self, house: House) -> bool:
        open_case = [s for s in self.env.standing if s.done_minute is None and house.minute - s.minute <= 8]
        return bool(open_case) and house.state["fridge"] == "open" and not house.people_in("kitchen")

    def _patrol(self, house: House) -> int:
        robot = house.robot
        if self.target is None or (robot.cell == self.target and self.looks >= 3) or self.rng.random() < 0.02:
            room = self.rng.choice([*sorted(house.plan.floors), "kitchen", "living room"])
            self.target, self.looks = self.rng.choice(house.plan.room_cells(room)), 0
        if robot.cell == self.target:
            self.looks += 1
            return RIGHT
        return self._towards(house, {self.target})

    # --- moving

    def _at(self, house: House, cell: Cell, action: int) -> int:
        """Stands beside a cell, faces it, and acts on it."""
        robot = house.robot
        if robot.ahead == cell:
            return action
        beside = {(cell[0] - dx, cell[1] - dy) for dx, dy in HEADINGS} & house.plan.floor
        if robot.cell in beside:
            return self._turn(robot.heading, HEADINGS.index((cell[0] - robot.x, cell[1] - robot.y)))
        return self._towards(house, {c for c in beside if not house.person_at(c)})

    def _turn(self, heading: int, wanted: int) -> int:
        return LEFT if (wanted - heading) % 4 == 3 else RIGHT

    def _towards(self, house: House, targets: set[Cell]) -> int:
        """The next action on a shortest way around people; through them if there is no other (they step aside)."""
        action = self._search(house, targets, around=True)
        return action if action != WAIT else self._search(house, targets, around=False)

    def _search(self, house: House, targets: set[Cell], *, around: bool) -> int:
        """Breadth first over cells and headings: turns cost a minute, closed doors are opened."""
        robot = house.robot
        people = {p.cell for p in house.people.values()} if around else set()
        start = (robot.cell, robot.heading)
        first: dict[tuple[Cell, int], int] = {start: WAIT}
        queue = deque([start])
        while queue:
            state = queue.popleft()
            cell, heading = state
            if cell in targets:
                return first[state]
            ahead = (cell[0] + HEADINGS[heading][0], cell[1] + HEADINGS[heading][1])
            moves = [((cell, (heading + 3) % 4), LEFT), ((cell, (heading + 1) % 4), RIGHT)]
            if ahead in house.plan.neighbours(cell) and ahead not in people:
                door = house.plan.fixture_at.get(ahead)
                shut = door is not None and house.state[door.name] == "closed"
                moves.insert(0, ((ahead, heading), USE if shut else FORWARD))
            for there, action in moves:
                if there not in first:
                    first[there] = first[state] if state != start else action
                    queue.append(there)
        return WAIT

    def _far(self, house: House, cell: Cell | None) -> int:
        if cell is None:
            return 999
        x, y = house.robot.cell
        if house.plan.room_at.get(house.robot.cell) == house.plan.room_at[cell]:
            return abs(cell[0] - x) + abs(cell[1] - y)
        return 20 + abs(cell[0] - x) + abs(cell[1] - y)
