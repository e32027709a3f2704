"""What the days of the residents are made of: work, meals, habits of items, appliances, and exceptions.

Each resident has a role; each item has a user and usual places by part of the day; both are drawn from the seed and
kept by with a probability of about 0.8. The agenda of a day is drawn at midnight.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from .catalogue import COMING, GONE
from .house import House
from .residents import (
    Activity,
    Bring,
    Consume,
    Fetch,
    Go,
    Leave,
    Receive,
    Resident,
    Residents,
    Return,
    Room,
    Step,
    Tidy,
    Use,
    Visit,
    Wait,
)

PARTS = {"morning": (8 * 60, 11 * 60), "afternoon": (12 * 60, 17 * 60), "evening": (17 * 60 + 30, 21 * 60 + 30)}
KEEP = 0.85
"""How often a habit is kept."""
HIDDEN = ("spare key",)
HIDING_PLACES = ("desk drawer", "kitchen cupboard", "wardrobe")


@dataclass(frozen=True, slots=True)
class Absence:
    """When a resident is usually out, in minutes of the day."""

    leave: int
    back: int


@dataclass
class Role:
    """Habits of one resident: out on which weekdays, up and to bed when."""

    name: str
    wake: int
    bed: int
    work: dict[int, Absence]
    """By weekday, 0 is Monday."""


@dataclass
class Routines:
    """Habits of a home, and the agenda of each day drawn from them."""

    roles: dict[str, Role]
    usual: dict[str, dict[str, str]]
    """Place by item id and part of the day."""
    user: dict[str, str]
    """Who moves an item, by item id."""
    rng: random.Random
    at_home: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    """Absolute minutes in which each is at home and awake, of the days planned so far."""
    counts: dict[str, int] = field(default_factory=dict)

    def plan_day(self, house: House, residents: Residents, day: int) -> None:
        """Appends the activities of one day to the agendas."""
        for role in self.roles.values():
            resident = residents.people[role.name]
            self._frame_of_day(house, resident, role, day)
        for resident in residents.people.values():
            self._self_care(resident, day)
        self._item_moves(house, residents, day)
        self._appliances(house, residents, day)
        self._coming_and_going(house, residents, day)
        for resident in residents.people.values():
            resident.agenda.sort(key=lambda a: a.minute)

    def is_home(self, name: str, start: int, end: int) -> bool:
        """Whether somebody is meant to be at home and awake from one absolute minute to another."""
        return any(a <= start and end <= b for a, b in self.at_home.get(name, ()))

    def _around(self, minute: float, spread: float) -> int:
        return round(minute + max(-2.5, min(2.5, self.rng.gauss(0, 1))) * spread)

    # --- the frame of the day

    def _frame_of_day(self, house: House, resident: Resident, role: Role, day: int) -> None:
        start, rng = day * 1440, self.rng
        wake = max(start + self._around(role.wake + 60 * (day % 7 >= 5), 10), 482 if day == 0 else 0)
        bed = start + self._around(role.bed, 15)
        absence = role.work.get(day % 7)
        spans = [(wake, bed)]
        if absence and rng.random() < 0.92:
            leave = max(start + self._around(absence.leave, 8), wake + 25)
            back = start + self._around(absence.back, 12)
            if rng.random() < 0.15:
                back += rng.randint(40, 100)
            spans = [(wake, leave - 15), (back + 8, bed)]
            self._outing(house, resident, leave, back, work=True)
        elif rng.random() < 0.5:
            leave = start + rng.randint(10 * 60, 15 * 60)
            back = leave + rng.randint(50, 120)
            spans = [(wake, leave - 5), (back + 8, bed)]
            self._outing(house, resident, leave, back, work=False)
        self.at_home.setdefault(role.name, []).extend(spans)
        bedside: list[Step] = [Go(house.plan.access["bed"]), Visit("bedroom lamp", "off"), Go(house.plan.access["bed"])]
        if role.bed == max(r.bed for r in self.roles.values()):
            rooms = ("kitchen", "living room", "hall")
            bedside = [*(Visit(f"{room} lamp", "off") for room in rooms), *bedside]
        next_wake = start + 1440 + role.wake - 40
        resident.agenda.append(Activity(bed, [*bedside, Wait(until=next_wake)], must=True))

    def _outing(self, house: House, resident: Resident, leave: int, back: int, *, work: bool) -> None:
        """Out with what one takes along, and back, putting it down where it usually goes."""
        steps: list[Step] = []
        taken = [i for i, user in self.user.items() if user == resident.name and i in ("keys", "wallet", "umbrella")]
        if taken and (work or self.rng.random() < 0.5):
            steps.append(Fetch(taken[0]))
        steps += [Go(house.plan.access["front door"]), Use("front door", "open"), Leave()]
        resident.agenda.append(Activity(leave, steps, must=True))
        put = "hall shelf" if self.rng.random() < KEEP else self.rng.choice(["kitchen table", "desk", "coffee table"])
        resident.agenda.append(Activity(back, [Return(), Bring(put)], must=True))

    def _self_care(self, resident: Resident, day: int) -> None:
        for start, end in self.at_home[resident.name][-2:]:
            if start // 1440 == day and end - start > 60:
                for _ in range(1 + (end - start > 300)):
                    at = self.rng.randint(start, end - 30)
                    resident.agenda.append(Activity(at, self._wash()))

    def _wash(self) -> list[Step]:
        steps: list[Step] = [Visit("bathroom tap", "on"), Wait(self.rng.randint(2, 4))]
        if self.rng.random() < 0.45:
            steps.insert(0, Visit("bathroom door", "closed"))
            steps.insert(0, Room("bathroom"))
        if self.rng.random() < 0.75:
            steps.append(Visit("bathroom tap", "off"))
        return [*steps, Room(self.rng.choice(["living room", "bedroom", "study"]))]

    # --- items and appliances

    def _somebody(self, residents: Residents, minute: int, minutes: int = 15) -> Resident | None:
        names = sorted(n for n in residents.people if self.is_home(n, minute, minute + minutes))
        return residents.people[self.rng.choice(names)] if names else None

    def _item_moves(self, house: House, residents: Residents, day: int) -> None:
        for item, places in self.usual.items():
            for part, (start, end) in PARTS.items():
                if house.items[item].place == GONE or self.rng.random() < 0.1:
                    continue
                for _ in range(4):
                    at = day * 1440 + self.rng.randint(start, end)
                    user = self.user[item]
                    at_home = self.is_home(user, at, at + 10) and self.rng.random() < 0.9
                    resident = residents.people[user] if at_home else self._somebody(residents, at)
                    if resident is not None:
                        place = places[part] if self.rng.random() < KEEP else _some_surface(house, self.rng)
                        resident.agenda.append(Activity(at, [Tidy(item, place)]))
                        break
        for item in HIDDEN:
            if item in house.items and (day in (1, 3) or self.rng.random() < 0.25):
                at = day * 1440 + self.rng.randint(9 * 60, 20 * 60)
                resident = self._somebody(residents, at)
                if resident:
                    others = [p for p in HIDING_PLACES if p != house.items[item].place and house.free_cell(p)]
                    place = self.rng.choice(others or [house.items[item].place])
                    resident.agenda.append(Activity(at, [Fetch(item), Bring(place)]))

    def _appliances(self, house: House, residents: Residents, day: int) -> None:
        for name, times, low, high, forget in APPLIANCE_USES:
            if name not in house.plan.fixtures:
                continue
            for _ in range(self._count(times)):
                at = day * 1440 + self.rng.randint(8 * 60 + 10, 21 * 60 + 30)
                resident = self._somebody(residents, at)
                if resident is None:
                    continue
                rest, active = house.plan.fixtures[name].kind.states
                steps: list[Step] = [Visit(name, active)]
                if name == "radio" and "coffee machine" in house.plan.fixtures and self.rng.random() < 0.8:
                    steps += [Visit("coffee machine", "on"), Wait(2)]
                if name == "kettle" and "coffee machine" in house.plan.fixtures and self.rng.random() < 0.45:
                    steps.append(Visit("coffee machine", "on"))
                lasts = self.rng.randint(low, high)
                if lasts <= 8:
                    steps.append(Wait(lasts))
                    if self.rng.random() > forget:
                        steps.append(Visit(name, rest))
                resident.agenda.append(Activity(at, steps))
                later = at + lasts + (self.rng.randint(12, 35) if lasts <= 8 else 0)
                other = self._somebody(residents, later, 5)
                if other:
                    other.agenda.append(Activity(later, [Visit(name, rest)]))

    def _count(self, mean: float) -> int:
        return int(mean) + (self.rng.random() < mean % 1)

    def _coming_and_going(self, house: House, residents: Residents, day: int) -> None:
        """The post, shopping and eating."""
        if day % 7 != 6 and self.rng.random() < 0.6:
            at = day * 1440 + self.rng.randint(9 * 60 + 30, 12 * 60)
            resident = self._somebody(residents, at)
            if resident:
                old, item = house.ids_of("letter"), self._new("letter")
                steps: list[Step] = [step for i in old for step in (Fetch(i), Wait(2), Consume())]
                steps += [Go(house.plan.access["front door"]), Use("front door", "open")]
                steps += [Receive(item, "letter"), Use("front door", "closed"), Bring("hall shelf")]
                resident.agenda.append(Activity(at, steps))
        apples = house.ids_of("apple")
        at = day * 1440 + self.rng.randint(10 * 60, 20 * 60)
        resident = self._somebody(residents, at)
        if resident and apples and self.rng.random() < 0.6:
            resident.agenda.append(Activity(at, [Fetch(apples[0]), Wait(2), Consume()]))
        for other in residents.people.values():
            for activity in other.agenda:
                back = isinstance(activity.steps[0], Return) and activity.minute // 1440 == day
                if back and not apples and self.rng.random() < 0.6:
                    apples = [*apples, self._new("apple")]
                    activity.steps = [Return(), Receive(apples[-1], "apple"), Bring("kitchen table")]

    def _new(self, name: str) -> str:
        self.counts[name] = self.counts.get(name, 1) + 1
        return f"{name}#{self.counts[name]}"


APPLIANCE_USES: tuple[tuple[str, float, int, int, float], ...] = (
    ("kettle", 3.5, 3, 6, 0.4),
    ("coffee machine", 1.5, 3, 5, 0.4),
    ("fridge", 5.5, 1, 2, 0.3),
    ("kitchen cupboard", 1.5, 1, 2, 0.2),
    ("radio", 2.0, 30, 70, 0.0),
    ("television", 1.8, 40, 90, 0.0),
    ("bedroom window", 2.0, 20, 40, 0.0),
    ("kitchen window", 2.0, 20, 40, 0.0),
    ("washing machine", 1.6, 30, 40, 0.0),
    ("bathroom tap", 1.5, 10, 16, 0.0),
    ("hall lamp", 1.5, 10, 30, 0.0),
    ("fan", 0.5, 10, 20, 0.0),
)
"""Fixture, times a day, minutes it stays so (low, high), how often it is forgotten (short uses only)."""


def surfaces(house: House) -> list[str]:
    """Places where things are put."""
    return [f.name for f in house.plan.fixtures.values() if f.kind.holds == "surface"]


SPOTS = {
    "kitchen table": 2,
    "coffee table": 1,
    "sofa": 1,
    "hall shelf": 1,
    "desk": 1,
    "bed": 1,
    "bathroom shelf": 1,
    "kitchen cupboard": 1,
    "wardrobe": 1,
}
"""How many items have their usual place here: one cell of each stays free."""
COMMON = {"kitchen table": 4, "coffee table": 3, "sofa": 3, "hall shelf": 2}
"""How often a surface is chosen; 1 for all others."""


def _some_surface(house: House, rng: random.Random) -> str:
    names = surfaces(house)
    return rng.choices(names, [COMMON.get(n, 1) for n in names])[0]


def draw_routines(house: House, names: list[str], rng: random.Random) -> Routines:
    """Roles for the owner (first), a partner and a third, and usual places for all items."""
    office = {d: Absence(8 * 60 + 50, 17 * 60 + rng.randint(0, 40)) for d in rng.sample(range(5), 4)}
    partly = {d: Absence(9 * 60 + 30, 16 * 60 + rng.randint(0, 30)) for d in rng.sample(range(5), 1)}
    school = {d: Absence(8 * 60 + 5, 13 * 60 + 30) for d in range(5)}
    frames = [(7 * 60, 22 * 60 + 50, office), (7 * 60 + 20, 22 * 60 + 20, partly), (6 * 60 + 50, 21 * 60 + 30, school)]
    roles = {n: Role(n, wake, bed, work) for n, (wake, bed, work) in zip(names, frames, strict=True)}
    usual: dict[str, dict[str, str]] = {}
    user: dict[str, str] = {}
    items = sorted(i.id for i in house.items.values() if i.name not in (*HIDDEN, *COMING) and i.id != "keys")
    spots = [place for place, count in SPOTS.items() for _ in range(count) if place != "hall shelf"]
    homes, seconds = rng.sample([*spots, "hall shelf"], len(items) + 1), rng.sample(spots, len(spots))
    if "hall shelf" in homes:
        homes.remove("hall shelf")
    for item, home, second in zip(["keys", *items], ["hall shelf", *homes], [*seconds, "sofa"], strict=False):
        usual[item] = {"morning": home, "afternoon": rng.choice([home, second]), "evening": second}
        user[item] = names[0] if item == "keys" else rng.choice(names)
    return Routines(roles, usual, user, rng)
