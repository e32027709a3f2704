"""A little home for tests: two rooms, a door, things, people, and a camera that reads them (with misreads)."""

from __future__ import annotations

import random
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from perdure.records import Cell, Event, Pose, Record, Scene, Sighting, Trust
from perdure.world_model.model import WorldModel
from perdure.world_model.sight import SceneWatcher

MONDAY = datetime(2027, 3, 1, tzinfo=UTC)
PLAN = """
###########
#....#....#
#....#....#
#....d....#
#....#....#
#....#....#
###########
"""
"""Kitchen to the west, bedroom to the east; the door stands at (5, 3)."""
FIXTURES: dict[str, tuple[Cell, str]] = {
    "kitchen table": ((2, 2), ""),
    "fridge": ((1, 5), "closed"),
    "kitchen lamp": ((4, 5), "off"),
    "bed": ((8, 2), ""),
    "bedroom lamp": ((9, 5), "off"),
    "bedroom door": ((5, 3), "open"),
}
PEOPLE = ("Anna", "Ben")


def record(seq: int, kind: str, payload: Mapping[str, Any], time: datetime) -> Record:
    """A record as the journal would give it."""
    return Record(seq, kind, payload, time, time, time, 0, 0, "boot", "eyes", Trust.SEEN, "owner", "UTC")


def event_record(seq: int, event: Event) -> Record:
    """The record of an event, frames left out."""
    return record(seq, "event", {"text": event.text, "media": dict(event.media)}, event.end)


class Home:
    """The true state, and a robot that looks at the whole room it stands in."""

    KITCHEN = Pose(1, 1, 0)
    BEDROOM = Pose(9, 1, 2)

    def __init__(self, *, misread: float = 0.0, seed: int = 0) -> None:
        self.states = {name: state for name, (_, state) in FIXTURES.items()}
        self.items: dict[str, tuple[str, Cell]] = {}
        """By id: (name, cell)."""
        self.carried: dict[str, str] = {}
        """Person by id of the item."""
        self.people: dict[str, Cell] = {}
        self.pose = Pose(1, 1, 0)
        self.time = MONDAY
        self.model = WorldModel()
        self.watcher = SceneWatcher(self.model)
        self.records: list[Record] = []
        self.events: list[Event] = []
        self._random = random.Random(seed)
        self._misread = misread
        rows = PLAN.strip().splitlines()
        self.walls = {(x, y) for y, row in enumerate(rows) for x, mark in enumerate(row) if mark == "#"}
        self.teach()

    def teach(self) -> None:
        lessons = [
            {"role": "fixture", "name": name, "state": state, "cell": list(cell)}
            for name, (cell, state) in FIXTURES.items()
        ]
        lessons += [{"role": "person", "name": name} for name in PEOPLE]
        lessons += [{"role": "item", "name": name} for name in ("keys", "book")]
        lessons += [
            {"role": "room", "name": "kitchen", "pose": [1, 1, 0]},
            {"role": "room", "name": "bedroom", "pose": [9, 1, 0]},
        ]
        self.store("lesson", {"lessons": lessons})
        mug = {"role": "item", "name": "blue mug"}
        self.store("lesson", {"sentence": "This is a blue mug.", "lessons": [mug]})
        for pose in (Pose(1, 1, 0), Pose(9, 1, 0)):
            self.look(pose, lesson=True)

    def store(self, kind: str, payload: Mapping[str, Any]) -> None:
        self.records.append(record(len(self.records) + 1, kind, payload, self.time))
        self.model.apply(self.records[-1])

    def view(self) -> frozenset[Cell]:
        west = self.pose.x < 5
        return frozenset((x, y) for x in (range(6) if west else range(5, 11)) for y in range(7))

    def scene(self) -> Scene:
        seen = self.view()
        found = [Sighting("wall", cell) for cell in sorted(self.walls & seen)]
        people = {cell: name for name, cell in self.people.items()}
        for name, (cell, _) in FIXTURES.items():
            if cell in seen and cell not in people:
                found.append(Sighting(name, cell, self.states[name], certainty=0.95))
        for name, cell in self.people.items():
            if cell in seen:
                found.append(Sighting(name, cell, certainty=0.95))
        at = {cell: name for name, (cell, _) in FIXTURES.items()}
        for id_, (name, cell) in self.items.items():
            where = self.people[self.carried[id_]] if id_ in self.carried else cell
            if where in seen and self.states.get(at.get(where, "")) != "closed":
                on = self.carried.get(id_) or at.get(where, "")
                found.append(Sighting(name, where, on=on, certainty=0.9))
        read, unreadable = [], set()
        for sighting in found:
            if sighting.name != "wall" and self._random.random() < self._misread:
                if self._random.random() < 0.5 and not sighting.state:
                    unreadable.add(sighting.cell)
                elif sighting.on or sighting.name in ("keys", "blue mug", "book"):
                    other = self._random.choice(["keys", "blue mug", "book"])
                    read.append(Sighting(other, sighting.cell, on=sighting.on, certainty=0.6))
                continue
            read.append(sighting)
        return Scene(self.time, self.pose, tuple(read), seen - unreadable, frozenset(unreadable))

    def look(
        self, pose: Pose | None = None, acted: str | None = None, *, lesson: bool = False, **feed: Any
    ) -> list[Event]:
        """One minute passes; then the robot looks."""
        self.time += timedelta(minutes=1)
        self.pose = pose or self.pose
        events = self.watcher.feed(self.scene(), acted, lesson=lesson, **feed)
        return self.keep(events)

    def keep(self, events: list[Event]) -> list[Event]:
        for event in events:
            self.events.append(event)
            self.records.append(event_record(len(self.records) + 1, event))
            self.model.apply(self.records[-1])
        return events

    def watch(self, minutes: int, pose: Pose | None = None) -> None:
        for _ in range(minutes):
            self.look(pose)

    def away(self, minutes: int) -> None:
        """Nobody looks."""
        self.time += timedelta(minutes=minutes)

    def flush(self) -> None:
        self.keep(self.watcher.flush())


@pytest.fixture
def make_home() -> type[Home]:
    """The class, to make homes of one's own."""
    return Home


@pytest.fixture
def home() -> Home:
    """Keys on the kitchen table, a blue mug on the kitchen floor, seen for three minutes."""
    one = Home()
    one.items = {"k": ("keys", (2, 2)), "m": ("blue mug", (3, 4))}
    one.watch(3, Home.KITCHEN)
    return one
