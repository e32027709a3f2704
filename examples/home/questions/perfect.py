"""Perception without error, for diagnosis: the scenes that a robot would have read that misread nothing.

They are made of the truth log, minute by minute, so what a robot loses by its eyes can be told from what it loses by
its memory. No robot looks here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from perdure.records import Event, Fact, Pose, Record, Scene, Sighting, Trust
from perdure.world_model import SceneWatcher, WorldModel

from ..catalogue import ME
from ..plan import Plan
from ..truth import Truth


def perfect_scene(truth: Truth, plan: Plan, minute: int, time: datetime) -> Scene:
    """What was in view in a minute, read without error; obstructed cells are unreadable."""
    x, y, heading = truth.pose(minute)
    view, whole = truth.in_view(minute), truth.in_view(minute, obstructed=True)
    visible, sightings = truth.visible(minute), [Sighting("wall", c) for c in sorted(view & plan.walls)]
    carriers = {truth.cell(p, minute): p for p in truth.people}
    for name, (_, state) in visible.items():
        if name in plan.fixtures:
            cells = [c for c in plan.fixtures[name].cells if c in view and c not in carriers and c != (x, y)]
            sightings += [Sighting(name, c, state) for c in cells]
            continue
        cell = truth.cell(name, minute)
        if cell is None:
            continue
        if name in truth.people:
            sightings.append(Sighting(name, cell))
            continue
        held = cell == (x, y)
        fixture = plan.fixture_at.get(cell)
        on = ME if held else carriers.get(cell) or (fixture.name if fixture else "")
        sightings.append(Sighting(truth.name_of(name), cell, on=on))
    return Scene(time, Pose(x, y, heading), tuple(sightings), view, whole - view)


def acts_by_minute(truth: Truth) -> dict[int, str]:
    """What the robot did to the world, by the minute in which it shows."""
    found: dict[int, str] = {}
    for event in truth.events:
        if event.by != ME:
            continue
        if event.kind == "state":
            found[event.minute] = "use"
        elif event.new == ME:
            found[event.minute] = "pick_up"
        else:
            found[event.minute] = (
                "give" if event.new in truth.people else "discard" if event.new == "gone" else "put_down"
            )
    return found


@dataclass
class _Journal:
    """Records kept in a list; as much of a journal as answers need."""

    records: list[Record] = field(default_factory=list)

    def get(self, seqs: Sequence[int]) -> Mapping[int, Record]:
        return {seq: self.records[seq - 1] for seq in seqs if 0 < seq <= len(self.records)}


@dataclass
class LooseMemory:
    """A memory without a directory: records in a list, and no facts."""

    journal: _Journal = field(default_factory=_Journal)

    def facts(self, *_: Any, **__: Any) -> list[Fact]:
        """None: nothing was told."""
        return []

    def add(self, kind: str, start: datetime, end: datetime, payload: Mapping[str, Any]) -> Record:
        """Stores one record."""
        seq = len(self.journal.records) + 1
        record = Record(seq, kind, payload, start, end, end, 0, 0, "", "eyes", Trust.SEEN, "owner", "UTC")
        self.journal.records.append(record)
        return record


class PerfectEyes:
    """A world model fed with scenes that are never misread, up to any minute of a life that has been lived.

    Args:
        truth, plan: of the home.
        start: world time of minute 0.
    """

    def __init__(self, truth: Truth, plan: Plan, start: datetime) -> None:
        self._truth, self._plan, self._start = truth, plan, start
        self.memory = LooseMemory()
        self.model = WorldModel()
        self._watcher = SceneWatcher(self.model)
        self._next = truth.first_minute
        self._teach()

    def advance(self, minute: int) -> None:
        """Looks on, up to and including a minute."""
        truth = self._truth
        acts = acts_by_minute(truth)
        for now in range(self._next, min(minute, truth.last_minute) + 1):
            time = self._start + timedelta(minutes=now)
            scene = perfect_scene(truth, self._plan, now, time)
            is_lesson = now < truth.lesson_end
            holding = any(s.on == ME for s in scene.sightings)
            for event in self._watcher.feed(scene, acts.get(now), holding=holding, lesson=is_lesson):
                self._keep(event)
        self._next = max(self._next, minute + 1)

    def flush(self) -> None:
        """Notes what has been seen unchanged up to now."""
        for event in self._watcher.flush():
            self._keep(event)

    def _keep(self, event: Event) -> None:
        record = self.memory.add("event", event.start, event.end, {"text": event.text, "media": event.media})
        self.model.apply(record)

    def _teach(self) -> None:
        """Names of everything, as after a lesson in which nothing was misunderstood."""
        plan, lessons = self._plan, []
        for room in sorted(plan.floors):
            lessons.append({"name": room, "role": "room", "cell": list(plan.room_cells(room)[0])})
        for name, fixture in plan.fixtures.items():
            lessons += [{"name": name, "role": "fixture", "cell": list(cell)} for cell in fixture.cells]
        for name in sorted({self._truth.name_of(item) for item in self._truth.items}):
            sentence = f"This is a {name}." if len(self._truth.ids_of(name)) > 1 else f"This is the {name}."
            self._taught(sentence, [{"name": name, "role": "item"}])
        self._taught("", [*lessons, *({"name": person, "role": "person"} for person in self._truth.people)])

    def _taught(self, sentence: str, lessons: Sequence[Mapping[str, Any]]) -> None:
        time = self._start + timedelta(minutes=self._truth.first_minute)
        media = {"lesson": {"sentence": sentence, "lessons": list(lessons)}}
        self.model.apply(self.memory.add("event", time, time, {"text": sentence, "media": media}))
