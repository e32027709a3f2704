"""What residents say: facts, corrections, greetings; and when it reaches the robot.

A voice reaches the robot when the speaker is in its room, awake and at most five cells away; the owner's telephone
reaches it at once. One sentence a minute; the others wait for their turn, the voice for half a day at most.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from .errands import PATIENCE
from .house import House, Utterance
from .residents import Residents
from .routines import HIDDEN, HIDING_PLACES

NEAR = 5
SEEK = 20
"""Minutes after which one goes and looks for the robot."""
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
HOURS = ("eight", "nine", "ten", "eleven", "two", "three", "four", "five")
MATTERS = ("dentist", "piano lesson", "haircut", "book club", "swimming", "doctor")


@dataclass
class Speech:
    """What was said and what is waiting to be said."""

    owner: str
    rng: random.Random
    said: list[Utterance] = field(default_factory=list)
    waiting: list[tuple[int, Utterance]] = field(default_factory=list)
    """(since which minute, what)."""
    planned: list[tuple[int, str]] = field(default_factory=list)
    """(minute, ``hidden`` or ``matter`` or ``matter changed``) of this day."""
    told: dict[str, str] = field(default_factory=dict)
    """What was last said about each hidden thing and matter."""

    def plan_day(self, day: int) -> None:
        """A few things to say each day."""
        start = day * 1440
        for _ in range(2):
            self.planned.append((start + self.rng.randint(9 * 60, 21 * 60), "hidden"))
        self.planned.append((start + self.rng.randint(9 * 60, 20 * 60), self.rng.choice(["matter", "matter changed"])))
        self.planned.sort()

    def add(self, house: House, utterance: Utterance) -> None:
        """Something to be said as soon as it can be heard."""
        self.waiting.append((house.minute, utterance))

    def step(self, house: House, residents: Residents) -> Utterance | None:
        """What reaches the robot in this minute."""
        while self.planned and self.planned[0][0] <= house.minute:
            _, what = self.planned.pop(0)
            utterance = self._hidden(house) if what == "hidden" else self._matter(house, what == "matter changed")
            if utterance:
                self.add(house, utterance)
        self.waiting = [w for w in self.waiting if house.minute - w[0] < PATIENCE]
        residents.seeking = {u.speaker for since, u in self.waiting if house.minute - since > SEEK}
        for entry in self.waiting:
            utterance = entry[1]
            if utterance.channel == "app" or self._near(house, residents, utterance.speaker):
                self.waiting.remove(entry)
                utterance.minute = house.minute
                self.said.append(utterance)
                return utterance
        return None

    def _near(self, house: House, residents: Residents, name: str) -> bool:
        cell, robot = house.people[name].cell, house.robot.cell
        if cell is None or residents.people[name].asleep:
            return False
        same = house.plan.room_at[cell] == house.plan.room_at[robot]
        return same and abs(cell[0] - robot[0]) + abs(cell[1] - robot[1]) <= NEAR

    def _speaker(self, house: House) -> tuple[str, str]:
        names = [p.name for p in house.people.values() if p.cell is not None]
        name = self.rng.choice([*names, self.owner])
        return name, "app" if name == self.owner and self.rng.random() < 0.5 else "voice"

    def _hidden(self, house: House) -> Utterance | None:
        """Where a hidden thing is: told once, and corrected when it is somewhere else by now."""
        items = [i for i in house.items.values() if i.id in HIDDEN and i.place in HIDING_PLACES]
        if not items:
            return None
        item = self.rng.choice(items)
        last = self.told.get(item.id)
        if last == item.place:
            return None
        self.told[item.id] = item.place
        name, channel = self._speaker(house)
        start = "The" if last is None else "No, the"
        text = f"{start} {item.name} is in the {item.place}."
        return Utterance(-1, name, channel, text, "fact" if last is None else "correction", (item.id, item.place))

    def _matter(self, house: House, changed: bool) -> Utterance | None:
        """When somebody's appointment is, later perhaps another day."""
        people = sorted(house.people)
        known = [k for k in self.told if "'s " in k]
        subject = (
            self.rng.choice(known) if changed and known else f"{self.rng.choice(people)}'s {self.rng.choice(MATTERS)}"
        )
        when = f"on {self.rng.choice(WEEKDAYS)} at {self.rng.choice(HOURS)}"
        again = subject in self.told
        self.told[subject] = when
        name, channel = self._speaker(house)
        text = f"No, {subject} is {when}." if again else f"{subject} is {when}."
        return Utterance(-1, name, channel, text, "correction" if again else "fact", (subject, when))
