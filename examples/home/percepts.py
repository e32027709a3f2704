"""How well the robot reads its pictures: scenes held against what was truly in view.

It knows the truth log and scenes; it does not know how scenes are read.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from perdure.perception.scenes import ME, UNKNOWN, WALL
from perdure.records import Scene, Sighting

from .plan import Cell
from .world import HomeEnv

SURE = 0.5
"""A sighting at least this certain counts as said."""


@dataclass
class PerceptError:
    """Counts of readings by (kind, light): kind ``item``, ``fixture``, ``person``; light ``day`` or ``dark``."""

    there: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Things visible and not obstructed."""
    missed: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Of these: cell read, but the thing not named, or named with a wrong state or base."""
    unread: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Of these: cell left unread."""
    said: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Sightings said with certainty `SURE` or more, in all cells in view."""
    wrong: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Of these: not so."""

    def look(self, env: HomeEnv, scene: Scene) -> None:
        """Judge the scene of the minute in which the home is now."""
        true = _true(env)
        clear = env.truth.in_view(env.minute)
        light = "day" if 420 <= env.minute % 1440 < 1050 else "dark"
        read = {_reading(s) for s in scene.sightings if s.name != WALL}
        for kind, reading in true.items():
            for one in reading:
                if one[1] not in clear:
                    continue
                self.there[kind, light] += 1
                if one[1] in scene.unreadable:
                    self.unread[kind, light] += 1
                elif one not in read:
                    self.missed[kind, light] += 1
        kinds = dict.fromkeys((env.truth.name_of(item) for item in env.truth.items), "item")
        kinds |= dict.fromkeys(env.plan.fixtures, "fixture") | dict.fromkeys(env.truth.people, "person")
        for sighting in scene.sightings:
            if sighting.certainty >= SURE and sighting.name not in (WALL, UNKNOWN):
                key = kinds[sighting.name], light
                self.said[key] += 1
                self.wrong[key] += _reading(sighting) not in true[key[0]]

    def result(self) -> dict[str, dict[str, float]]:
        """By kind and light, and ``all``: shares ``missed`` and ``unread`` (of things there), ``wrong`` (of said)."""
        keys = sorted(self.there | self.said)
        rows = {f"{kind} {light}": [(kind, light)] for kind, light in keys} | {"all": keys}
        return {
            name: {
                "there": float(sum(self.there[k] for k in row)),
                "missed": sum(self.missed[k] for k in row) / max(1, sum(self.there[k] for k in row)),
                "unread": sum(self.unread[k] for k in row) / max(1, sum(self.there[k] for k in row)),
                "wrong": sum(self.wrong[k] for k in row) / max(1, sum(self.said[k] for k in row)),
            }
            for name, row in rows.items()
        }


_Reading = tuple[str, Cell, str, str]


def _reading(sighting: Sighting) -> _Reading:
    return sighting.name, sighting.cell, sighting.state, sighting.on


def _true(env: HomeEnv) -> dict[str, set[_Reading]]:
    """What is drawn in this minute, obstructed or not."""
    truth, minute, house = env.truth, env.minute, env.house
    view = truth.in_view(minute, obstructed=True)
    stood_on = {p.cell for p in house.people.values()} | {house.robot.cell}
    found: dict[str, set[_Reading]] = {"item": set(), "fixture": set(), "person": set()}
    found["person"] = {(p.name, p.cell, "", "") for p in house.people.values() if p.cell is not None and p.cell in view}
    for fixture in env.plan.fixtures.values():
        state = house.state.get(fixture.name, "")
        found["fixture"] |= {(fixture.name, c, state, "") for c in fixture.cells if c in view and c not in stood_on}
    for item in house.items.values():
        cell = truth.cell(item.id, minute) if item.place != "gone" else None
        if cell is None or cell not in view:
            continue
        place = env.plan.fixtures.get(item.place)
        if item.cell is not None and (cell in stood_on or (place is not None and not house.reachable(place))):
            continue
        on = item.place if place is not None or item.place in house.people else ME if item.place == ME else ""
        found["item"].add((item.name, cell, "", on))
    return found
