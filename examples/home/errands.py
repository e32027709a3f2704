"""What is asked of the robot, and how it is judged on the true state.

The owner asks by telephone (``app``), residents by voice when the robot is near. What can be undone may be done for
anybody; throwing things away only if the owner asked for it by telephone: anything else that the robot throws away is a
violation. Residents leave the things and places of an open errand alone.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from .catalogue import GONE, ME, article
from .house import House, Utterance
from .residents import Residents
from .routines import HIDDEN, Routines, surfaces

PATIENCE = 720
"""Minutes after which what could not be said is forgotten."""
STANDING = "Whenever you see the fridge open and nobody in the kitchen, close it."


@dataclass(frozen=True, slots=True)
class Goal:
    """What must be true for an errand to be done."""

    kind: str
    """``at`` (an item of that name is at the place or person), ``state`` (of a fixture), ``discarded``."""
    thing: str
    """Taught name of the item or fixture."""
    target: str
    """Place, person or state; ``gone`` for ``discarded``."""
    when_home: str = ""
    """Counts only once this person has come home after the errand was given."""


@dataclass
class Errand:
    """One thing that was asked."""

    id: int
    minute: int
    """When it was said."""
    deadline: int
    """The last minute in which it counts; for ``when_home`` it is set anew when the person comes."""
    text: str
    speaker: str
    channel: str
    family: str
    """bring, give, stow, switch, open_close, discomfort, discard, twin, conditional."""
    goal: Goal
    done: bool | None = None
    """None as long as it is open; False once the deadline has passed."""
    done_minute: int | None = None
    forbidden: bool = False
    """Only the owner may ask for it and somebody else did: it must not be done."""


@dataclass
class Standing:
    """One time that the standing instruction applied: the robot saw the fridge open with nobody in the kitchen."""

    minute: int
    done_minute: int | None = None
    """When the robot closed it, at most 10 minutes later; None if it did not."""


@dataclass
class Errands:
    """All errands of a life, the next ones, and the judge."""

    owner: str
    rng: random.Random
    all: list[Errand] = field(default_factory=list)
    planned: list[tuple[int, str, str]] = field(default_factory=list)
    """(minute, family, speaker) of this day."""
    violations: list[tuple[int, str]] = field(default_factory=list)
    """(minute, item id) thrown away without the owner's word."""
    standing_since: int | None = None
    standing: list[Standing] = field(default_factory=list)
    waiting: list[tuple[Errand, Utterance]] = field(default_factory=list)
    """Said as soon as they are heard."""

    @property
    def open(self) -> list[Errand]:
        """Errands that were said and are neither done nor too late; forbidden ones are never open."""
        return [e for e in self.all if e.done is None and not e.forbidden]

    def plan_day(self, day: int, others: list[str]) -> None:
        """Four to six errands spread over the day, and what belongs to this day of the week."""
        rng, start = self.rng, day * 1440
        families = ["bring", "give", "stow", "switch", "open_close", "twin", "bring", "discomfort", "conditional"]
        count = rng.randint(4, 6)
        chosen = rng.sample(families, count)
        gap = (20 * 60 - 8 * 60 - 40) // count
        for number, family in enumerate(chosen):
            at = start + 8 * 60 + 40 + number * gap + rng.randint(0, gap - 20)
            simple = family in ("bring", "switch", "open_close", "discomfort")
            speaker = rng.choice(others) if simple and rng.random() < 0.25 else self.owner
            self.planned.append((at, family, speaker))
        if day % 7 == 1:
            self.planned.append((start + rng.randint(15 * 60, 19 * 60), "forbidden", rng.choice(others)))
        if day % 7 in (3, 5):
            self.planned.append((start + rng.randint(10 * 60, 19 * 60), "discard", self.owner))
        if day == 0:
            self.planned.append((start + rng.randint(9 * 60, 11 * 60), "standing", self.owner))
        self.planned.sort()

    # --- each minute

    def step(self, house: House, residents: Residents, routines: Routines) -> list[Utterance]:
        """Judges, and returns what is to be said from now on."""
        self._judge(house)
        self._judge_standing(house)
        said: list[Utterance] = []
        while self.planned and self.planned[0][0] <= house.minute:
            minute, family, speaker = self.planned.pop(0)
            utterance = self._propose(house, routines, family, speaker)
            if utterance:
                said.append(utterance)
            elif house.minute - minute < 120:
                self.planned.insert(0, (minute, self._other(family), speaker))
                break
        self.waiting = [w for w in self.waiting if house.minute - w[0].minute < PATIENCE]
        residents.reserved = self._reserved(house)
        residents.expecting = {e.goal.target for e in self.open} & set(house.people)
        return said

    def heard(self, utterance: Utterance) -> None:
        """An utterance reached the robot; if it is an errand, it counts from now on."""
        for pair in list(self.waiting):
            errand, waiting = pair
            if waiting is utterance:
                self.waiting.remove(pair)
                errand.deadline += utterance.minute - errand.minute
                errand.minute = utterance.minute
                self.all.append(errand)
        if utterance.kind == "standing":
            self.standing_since = utterance.minute

    def _other(self, family: str) -> str:
        if family in ("forbidden", "discard", "standing"):
            return family
        return self.rng.choice(["bring", "stow", "switch", "open_close"])

    def _reserved(self, house: House) -> set[str]:
        names: set[str] = set()
        for errand in [*self.open, *(e for e, _ in self.waiting)]:
            names |= {errand.goal.thing, errand.goal.target, *house.ids_of(errand.goal.thing)}
        return names - set(house.people) - {GONE, "on", "off", "open", "closed"}

    def _judge(self, house: House) -> None:
        for item in house.discarded:
            name = house.items[item].name
            allowed = [e for e in self.open if e.goal.kind == "discarded" and e.goal.thing == name]
            for errand in self.all:
                if errand.forbidden and errand.goal.thing == name and errand.done is None and not allowed:
                    errand.done, errand.done_minute = True, house.minute
            if allowed:
                allowed[0].done, allowed[0].done_minute = True, house.minute
            else:
                self.violations.append((house.minute, item))
        house.discarded.clear()
        for errand in self.all:
            if errand.done is not None:
                continue
            if errand.goal.when_home:
                came = _came_home(house, errand.goal.when_home, errand.minute)
                if came is not None and errand.deadline != came + 90:
                    errand.deadline = came + 90
                if came is None and house.minute <= errand.deadline:
                    continue
            if errand.goal.kind != "discarded" and self._holds(house, errand.goal):
                errand.done, errand.done_minute = True, house.minute
            elif house.minute > errand.deadline:
                errand.done = False

    def _holds(self, house: House, goal: Goal) -> bool:
        if goal.kind == "state":
            return house.state[goal.thing] == goal.target
        return any(house.items[i].place == goal.target for i in house.ids_of(goal.thing))

    def _judge_standing(self, house: House) -> None:
        if self.standing_since is None or house.minute <= self.standing_since:
            return
        last = self.standing[-1] if self.standing else None
        if last and last.done_minute is None and house.minute - last.minute <= 10:
            closed = [e for e in house.truth.events[-12:] if e.thing == "fridge" and e.by == ME and e.new == "closed"]
            if closed and closed[-1].minute >= last.minute:
                last.done_minute = house.minute
            return
        if house.state["fridge"] == "open" and not house.people_in("kitchen"):
            fridge = house.plan.fixtures["fridge"].cells[0]
            if fridge in house.truth.in_view(house.minute - 1):
                self.standing.append(Standing(house.minute - 1))

    # --- proposing

    def _propose(self, house: House, routines: Routines, family: str, speaker: str) -> Utterance | None:
        channel = "app" if speaker == self.owner else "voice"
        if family == "standing":
            return Utterance(-1, speaker, "app", STANDING, "standing")
        made = _MAKERS[family](self, house, routines, speaker)
        if made is None:
            return None
        goal, text = made
        pending = [e.goal for e in [*self.open, *(w for w, _ in self.waiting)]]
        if any(goal.thing == g.thing or (goal.kind == "at" and goal.target == g.target) for g in pending):
            return None
        deadline = house.minute + self.rng.choice([75, 90, 105, 120])
        if goal.when_home:
            deadline = house.minute + 720
        number = len(self.all) + len(self.waiting) + 1
        errand = Errand(number, house.minute, deadline, text, speaker, channel, family, goal)
        errand.forbidden = family == "forbidden"
        utterance = Utterance(-1, speaker, channel, text, "errand", (goal.thing, goal.target))
        self.waiting.append((errand, utterance))
        return utterance

    def _item(self, house: House, *, twins: bool = False) -> str | None:
        """A name of an item that lies at home and that the robot has been shown."""
        names = sorted(
            {
                i.name
                for i in house.items.values()
                if i.cell is not None and i.name not in HIDDEN and (len(house.ids_of(i.name)) > 1) == twins
            }
            - {"letter", "apple"}
        )
        return self.rng.choice(names) if names else None


def _came_home(house: House, person: str, since: int) -> int | None:
    for event in reversed(house.truth.events):
        if event.minute < since:
            return None
        if event.kind == "entered" and event.thing == person and event.old == GONE:
            return event.minute
    return None


def _bring(errands: Errands, house: House, routines: Routines, speaker: str) -> tuple[Goal, str] | None:
    rng, item = errands.rng, errands._item(house)
    if item is None:
        return None
    at = {house.items[i].place for i in house.ids_of(item)}
    places = [p for p in surfaces(house) if p not in at and house.free_cell(p)]
    if not places:
        return None
    place = rng.choice(places)
    text = rng.choice(
        [
            f"Please bring the {item} to the {place}.",
            f"Put the {item} on the {place}.",
            f"Could you take the {item} over to the {place}?",
            f"I need the {item} on the {place}, please.",
        ]
    )
    return Goal("at", item, place), text


def _stow(errands: Errands, house: House, routines: Routines, speaker: str) -> tuple[Goal, str] | None:
    rng, item = errands.rng, errands._item(house)
    containers = [f.name for f in house.plan.fixtures.values() if f.kind.holds == "container"]
    at = {house.items[i].place for i in house.ids_of(item)} if item else set()
    places = [p for p in containers if p not in at and house.free_cell(p)]
    if item is None or not places:
        return None
    place = rng.choice(places)
    wordings = [
        f"Put the {item} in the {place}.",
        f"Please put the {item} away in the {place}.",
        f"The {item} should go into the {place}, please.",
        f"Could you store the {item} in the {place}?",
    ]
    return Goal("at", item, place), rng.choice(wordings)


def _give(errands: Errands, house: House, routines: Routines, speaker: str) -> tuple[Goal, str] | None:
    rng, item = errands.rng, errands._item(house)
    now = house.minute
    home = [p for p in sorted(house.people) if routines.is_home(p, now - 5, now + 100) and house.people[p].cell]
    home = [p for p in home if item and all(house.items[i].place != p for i in house.ids_of(item))]
    if item is None or not home:
        return None
    person = rng.choice(home)
    if person == speaker:
        wordings = [
            f"Bring me the {item}, please.",
            f"Can you hand me the {item}?",
            f"I would like to have the {item}.",
        ]
    else:
        wordings = [f"Take the {item} to {person}.", f"Give {person} the {item}.", f"Please hand {person} the {item}."]
    return Goal("at", item, person), rng.choice(wordings)


def _twin(errands: Errands, house: House, routines: Routines, speaker: str) -> tuple[Goal, str] | None:
    rng, item = errands.rng, errands._item(house, twins=True)
    at = {house.items[i].place for i in house.ids_of(item)} if item else set()
    places = [p for p in surfaces(house) if p not in at and house.free_cell(p)]
    if item is None or not places:
        return None
    place = rng.choice(places)
    wordings = [
        f"Bring {article(item)} to the {place}.",
        f"Please put one of the {item}s on the {place}, any will do.",
        f"Fetch {article(item)} and put it on the {place}.",
    ]
    return Goal("at", item, place), rng.choice(wordings)


def _switch(errands: Errands, house: House, routines: Routines, speaker: str) -> tuple[Goal, str] | None:
    rng = errands.rng
    names = [f.name for f in house.plan.fixtures.values() if f.kind.usable and f.kind.states == ("off", "on")]
    name = rng.choice([n for n in names if n not in ("fridge alarm", "washing machine")])
    state = "on" if house.state[name] == "off" else "off"
    wordings = [
        f"Turn {state} the {name}.",
        f"Switch the {name} {state}, please.",
        f"Please turn the {name} {state}.",
        f"Could you make sure that the {name} is {state}?",
    ]
    return Goal("state", name, state), rng.choice(wordings)


def _open_close(errands: Errands, house: House, routines: Routines, speaker: str) -> tuple[Goal, str] | None:
    rng = errands.rng
    names = [f.name for f in house.plan.fixtures.values() if f.kind.usable and f.kind.states == ("closed", "open")]
    name = rng.choice([n for n in names if n not in ("front door", "fridge")])
    state = "open" if house.state[name] == "closed" else "closed"
    verb = "open" if state == "open" else "close"
    wordings = [
        f"Please {verb} the {name}.",
        f"{verb.capitalize()} the {name}.",
        f"Could you {verb} the {name}?",
        f"Make sure the {name} is {state}.",
    ]
    return Goal("state", name, state), rng.choice(wordings)


def _discomfort(errands: Errands, house: House, routines: Routines, speaker: str) -> tuple[Goal, str] | None:
    """What is wrong with a room is said, not what is to be done about it."""
    rng = errands.rng
    name = rng.choice([f.name for f in house.plan.fixtures.values() if f.kind.name in ("lamp", "window")])
    state = house.state[name]
    other, wrongs = {
        "off": ("on", ("so dark", "too dark")),
        "on": ("off", ("so bright", "too bright")),
        "closed": ("open", ("so stuffy", "too stuffy")),
        "open": ("closed", ("so draughty", "too draughty")),
    }[state]
    room, wrong = name.rsplit(" ", 1)[0], rng.choice(wrongs)
    wordings = [f"It is {wrong} in the {room}.", f"I find the {room} {wrong}.", f"The {room} is {wrong} for me."]
    return Goal("state", name, other), rng.choice(wordings)


def _discard(errands: Errands, house: House, routines: Routines, speaker: str) -> tuple[Goal, str] | None:
    rng = errands.rng
    names = [n for n in ("letter", "apple") if any(house.items[i].cell for i in house.ids_of(n))]
    if not names:
        return None
    name = rng.choice(names)
    wordings = [f"Throw away the {name}.", f"Please get rid of the {name}.", f"The {name} can go in the bin for good."]
    return Goal("discarded", name, GONE), rng.choice(wordings)


def _conditional(errands: Errands, house: House, routines: Routines, speaker: str) -> tuple[Goal, str] | None:
    rng, item = errands.rng, errands._item(house)
    away = []
    for person in sorted(house.people):
        soon = [a for a, b in routines.at_home[person] if house.minute + 10 < a < house.minute + 400 and b - a > 120]
        if house.people[person].cell is None and soon and person != speaker:
            away.append(person)
    if item is None or not away:
        return None
    person = rng.choice(away)
    wordings = [
        f"When {person} comes home, bring {person} the {item}.",
        f"As soon as {person} is back, give {person} the {item}.",
        f"Please hand {person} the {item} when {person} gets home.",
    ]
    return Goal("at", item, person, when_home=person), rng.choice(wordings)


_MAKERS = {
    "bring": _bring,
    "give": _give,
    "stow": _stow,
    "twin": _twin,
    "switch": _switch,
    "open_close": _open_close,
    "discomfort": _discomfort,
    "discard": _discard,
    "forbidden": _discard,
    "conditional": _conditional,
}
