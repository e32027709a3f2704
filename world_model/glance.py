"""One scene, sorted by what stands, lies and walks where; and what was found changed in it, in words.

It knows how a scene is laid out and what names stand for; it decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..records import Cell, Scene, Sighting
from .fold import FIXTURE, ITEM, PERSON, Fold, seconds
from .geography import ME, WALL, ahead

CLOSED, OPEN = "closed", "open"
UNKNOWN = "something"
"""Name of what perception did not know."""


class Found:
    """Changes of one scene."""

    def __init__(self) -> None:
        self.act: dict[str, Any] | None = None
        self.things: list[dict[str, Any]] = []
        self.gone: list[dict[str, Any]] = []
        self.fixtures: list[dict[str, Any]] = []
        self.people: list[dict[str, Any]] = []
        self.spans: list[list[Any]] = []

    @property
    def any(self) -> bool:
        return bool(self.act or self.things or self.gone or self.fixtures or self.people)


class View:
    """One scene, sorted by what stands, lies and walks where."""

    def __init__(self, scene: Scene, fold: Fold) -> None:
        self.scene, self.fold, self.t = scene, fold, seconds(scene.time)
        self.ahead = ahead(scene.pose.x, scene.pose.y, scene.pose.heading)
        self.bases: dict[Cell, Sighting] = {}
        self.items: dict[Cell, Sighting] = {}
        self.people: dict[str, Sighting] = {}
        self.walls: set[Cell] = set()
        self.covered: set[Cell] = set()
        self.own: dict[str, Any] | None = None
        for sighting in scene.sightings:
            if sighting.name == WALL:
                self.walls.add(sighting.cell)
                self.bases[sighting.cell] = sighting
            elif is_item(sighting, fold):
                self.items[sighting.cell] = sighting
            else:
                self.bases[sighting.cell] = sighting
                if self.role(sighting) == PERSON:
                    other = self.people.get(sighting.name)
                    if other is None or other.certainty < sighting.certainty:
                        self.people[sighting.name] = sighting
        self.coverage = self._coverage()

    def role(self, sighting: Sighting) -> str:
        """What a sighting's name stands for: as taught, else by how it looks."""
        known = self.fold.roles.get(sighting.name)
        return known or (PERSON if sighting.name[:1].isupper() else FIXTURE)

    def is_clear(self, cell: Cell) -> bool:
        """Whether an item on a cell would be seen: it is read, nobody stands on it, and it is no closed container."""
        if cell not in self.scene.seen or cell in self.scene.unreadable or cell in self.covered:
            return False
        base = self.bases.get(cell)
        return base is None or not (base.state == CLOSED or base.name == UNKNOWN or self.role(base) == PERSON)

    def carrier(self, sighting: Sighting) -> str:
        """The person who carries an item, ``me`` for the body itself; empty if nobody does."""
        if sighting.on == ME or sighting.cell == (self.scene.pose.x, self.scene.pose.y):
            return ME
        base = self.bases.get(sighting.cell)
        name = sighting.on or (base.name if base is not None else "")
        is_person = name in self.people or self.fold.roles.get(name) == PERSON
        return name if name and is_person else ""

    def _coverage(self) -> dict[str, float]:
        rooms = self.fold.map
        counts: dict[str, int] = {}
        for cell in self.scene.seen:
            room = rooms.room_at(cell)
            if room:
                counts[room] = counts.get(room, 0) + 1
        return {room: counts[room] / max(1, len(rooms.room_cells(room))) for room in sorted(counts)}


def is_item(sighting: Sighting, fold: Fold) -> bool:
    known = fold.roles.get(sighting.name)
    if known is not None:
        return known == ITEM
    if sighting.name == UNKNOWN:
        return bool(sighting.on)
    return bool(sighting.on) or not (sighting.state or sighting.name[:1].isupper())


def sentences(found: Found, fold: Fold) -> Iterable[str]:
    """The changes in words."""
    if found.act:
        yield f"I did {found.act['act'].replace('_', ' ')} {found.act['thing']}".rstrip()
    for entry in found.fixtures:
        yield _fixture_text(entry)
    for entry in found.gone:
        if not any(e["name"] == entry["name"] for e in found.things):
            if entry["place"][:1].isupper():
                yield f"{entry['place']} no longer has the {entry['name']}"
            else:
                yield f"the {entry['name']} {_is(entry['name'])} no longer at the {entry['place']}"
    for entry in found.things:
        where = (
            f"{entry['carrier']} carries the {entry['name']}"
            if entry["carrier"]
            else (f"the {entry['name']} {_is(entry['name'])} at the {entry['place']}")
        )
        lives = fold.objects.named(entry["name"])
        before = lives[0].now.value if len(lives) == 1 and lives[0].now is not None else None
        yield where + (f" (before: {before})" if before else "")
    for entry in found.people:
        yield f"{entry['name']} {entry['kind']} the {entry['room'] or 'home'}"


def _fixture_text(entry: Mapping[str, Any]) -> str:
    name, state, was = entry["name"], entry["state"], entry["was"]
    if was is None:
        return f"there is the {name}" + (f", {state}" if state else "")
    return f"the {name} {_is(name)} now {state} (before: {was})"


def _is(name: str) -> str:
    return "are" if name.endswith("s") and not name.endswith("ss") else "is"
