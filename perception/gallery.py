"""The gallery: looks that were taught, with their names, and where the taught fixtures stand.

This module knows names, looks and cells as lessons gave them. It does not know how a lesson is said (`lessons`) nor
how a frame is read (`scenes`). It changes only when something is taught, so that reading never depends on what was read
before, and what it knows can be written down and restored to the bit.

Looks are of these roles: ``ground`` (floors and walls, learnt without names as what fills the picture), ``fixture`` (a
kind of furniture in one state: all tables may share one look), ``person`` and ``body`` (the gripper, where the body
itself stands). Items lie on one of them.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BadInput
from ..records import Cell
from .looks import Bools, Floats, alike

GROUND, FIXTURE, PERSON, BODY = "ground", "fixture", "person", "body"
FLOOR, WALL = "floor", "wall"
_FEW = 3  # unnamed cells of one look that make it a ground
_STEPS = 128.0  # fixed point: a stored colour is a multiple of 1/128 grey level


@dataclass(slots=True)
class Look:
    """How something fills a tile."""

    role: str
    name: str
    """Of a person; else empty: fixtures have a kind, grounds have no name."""
    kind: int
    """Fixtures that look alike are of one kind, numbered from 0; -1 for other roles."""
    state: str
    colours: Floats
    """[tile^2, C], mean of ``count`` tiles, 0 to 255."""
    count: int = 1

    @property
    def meaning(self) -> tuple[str, str, int, str]:
        """Looks of one meaning need not be told apart."""
        return self.role, self.name, self.kind, self.state


@dataclass(slots=True)
class ItemLook:
    """How a carried thing fills the centre of a tile."""

    name: str
    colours: Floats
    """[item^2, C], 0 to 255."""
    mask: Bools
    """[item^2]: true where the thing covers what is beneath."""


@dataclass(slots=True)
class Gallery:
    """All that was taught."""

    looks: list[Look] = field(default_factory=list)
    items: list[ItemLook] = field(default_factory=list)
    kinds: dict[str, int] = field(default_factory=dict)
    """Kind of each fixture by name."""
    cells: dict[Cell, str] = field(default_factory=dict)
    """Name of the fixture on a cell."""
    rooms: dict[Cell, str] = field(default_factory=dict)
    """Name of the room around a cell, where it was said."""
    walked: set[Cell] = field(default_factory=set)
    """Cells the body stood on or looked across: whatever looks like them is floor."""
    ground_cells: dict[Cell, Floats] = field(default_factory=dict)
    """While lessons last: a full look at cells that were named by nobody."""

    def add_fixture(self, name: str, state: str, cell: Cell, colours: Floats, twin: Look | None) -> None:
        """Learn a fixture in a state; ``twin`` is the look that it shares, if it looks like one already known."""
        kind = self.kinds.get(name)
        if twin is not None and twin.role == FIXTURE:
            if kind is None:
                kind = twin.kind
            elif kind != twin.kind:
                self._merge_kinds(twin.kind, kind)
        if kind is None:
            kind = 1 + max((look.kind for look in self.looks), default=-1)
        self.kinds[name] = kind
        self.cells[cell] = name
        self._add(Look(FIXTURE, "", kind, state, _fixed(colours)))

    def add_person(self, name: str, colours: Floats) -> None:
        """Learn how a person looks; several looks of one person are kept."""
        self._add(Look(PERSON, name, -1, "", _fixed(colours)))

    def add_body(self, colours: Floats) -> None:
        """Learn how the body itself looks when it holds nothing."""
        self._add(Look(BODY, "", -1, "", _fixed(colours)))

    def add_item(self, name: str, colours: Floats, mask: Bools) -> None:
        """Learn how a thing looks that can be carried; a name taught again replaces the old look."""
        self.items = [item for item in self.items if item.name != name]
        self.items.append(ItemLook(name, _fixed(colours), mask))

    def see_ground(self, seen: Mapping[Cell, Floats]) -> None:
        """Note how unnamed cells looked during a lesson, and learn again what fills the picture.

        What at least `_FEW` unnamed cells have in common is ground; it is floor if the body stood on one of them, else
        wall. A fixture that was seen before it was named is no ground any more once it is.
        """
        self.ground_cells.update(seen)
        self._extend_fixtures()
        self.ground_cells = {cell: look for cell, look in self.ground_cells.items() if cell not in self.cells}
        named = [look for look in self.looks if look.role != GROUND]
        taught = np.array([look.colours for look in named if look.role in (FIXTURE, PERSON)])
        grounds: list[Look] = []
        left = sorted(self.ground_cells)
        colours = np.array([self.ground_cells[cell] for cell in left])
        free = np.ones(len(left), bool)
        while free.any():
            first = int(np.flatnonzero(free)[0])
            same = free & alike(colours, colours[first])
            free &= ~same
            free[first] = False
            if same.sum() < _FEW:
                continue
            mean = colours[same].mean(0)
            if len(taught) and alike(taught, mean).any():
                continue
            floor = any(left[index] in self.walked for index in np.flatnonzero(same))
            grounds.append(Look(GROUND, "", -1, FLOOR if floor else WALL, _fixed(mean), int(same.sum())))
        self.looks = named + grounds

    def _extend_fixtures(self) -> None:
        """Name unnamed cells beside a fixture that look like it: a wide table is named once."""
        front = [cell for cell in sorted(self.cells) if cell not in self.ground_cells]
        while front:
            x, y = front.pop()
            name = self.cells[x, y]
            looks = [look.colours for look in self.looks if look.role == FIXTURE and look.kind == self.kinds[name]]
            for cell in ((x + 1, y), (x - 1, y), (x, y + 1), (x, y - 1)):
                seen = self.ground_cells.get(cell)
                if seen is not None and cell not in self.cells and alike(np.array(looks), seen, ring=True).any():
                    self.cells[cell] = name
                    front.append(cell)

    def states_of(self, name: str) -> tuple[str, ...]:
        """States in which a fixture's kind was shown, in order of teaching."""
        kind = self.kinds.get(name)
        return tuple(dict.fromkeys(look.state for look in self.looks if look.kind == kind and look.role == FIXTURE))

    def _add(self, new: Look) -> None:
        """Average with the look of the same meaning if it is the same picture, else keep both."""
        for old in self.looks:
            if old.meaning == new.meaning and bool(alike(old.colours[None], new.colours)[0]):
                total = old.count + 1
                old.colours = _fixed((old.colours * old.count + new.colours) / total)
                old.count = total
                return
        self.looks.append(new)

    def _merge_kinds(self, gone: int, kept: int) -> None:
        for look in self.looks:
            if look.kind == gone:
                look.kind = kept
        self.kinds = {name: kept if kind == gone else kind for name, kind in self.kinds.items()}

    # ------------------------------------------------------------------------ written down

    def to_state(self) -> dict[str, Any]:
        """As JSON-able values; `from_state` gives the same gallery to the bit."""
        return {
            "version": 1,
            "looks": [
                [look.role, look.name, look.kind, look.state, look.count, _packed(look.colours)] for look in self.looks
            ],
            "items": [
                [item.name, _packed(item.colours), "".join("01"[int(on)] for on in item.mask)] for item in self.items
            ],
            "kinds": dict(self.kinds),
            "cells": [[x, y, name] for (x, y), name in sorted(self.cells.items())],
            "rooms": [[x, y, name] for (x, y), name in sorted(self.rooms.items())],
            "walked": [list(cell) for cell in sorted(self.walked)],
            "ground_cells": [[x, y, _packed(look)] for (x, y), look in sorted(self.ground_cells.items())],
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Gallery:
        """The gallery that `to_state` wrote.

        Raises:
            BadInput: of another version, or damaged.
        """
        if state.get("version") != 1:
            raise BadInput(f"expected a gallery of version 1, got {state.get('version')!r}; teach the lessons again")
        try:
            return cls(
                looks=[
                    Look(str(role), str(name), int(kind), str(word), _unpacked(colours), int(count))
                    for role, name, kind, word, count, colours in state["looks"]
                ],
                items=[
                    ItemLook(str(name), _unpacked(colours), np.array([bit == "1" for bit in mask]))
                    for name, colours, mask in state["items"]
                ],
                kinds={str(name): int(kind) for name, kind in state["kinds"].items()},
                cells={(int(x), int(y)): str(name) for x, y, name in state["cells"]},
                rooms={(int(x), int(y)): str(name) for x, y, name in state["rooms"]},
                walked={(int(x), int(y)) for x, y in state["walked"]},
                ground_cells={(int(x), int(y)): _unpacked(look) for x, y, look in state["ground_cells"]},
            )
        except (KeyError, ValueError, TypeError) as err:
            raise BadInput(f"expected a gallery as to_state wrote it, got a damaged one ({err}); teach again") from err


def _fixed(colours: NDArray[np.floating[Any]]) -> Floats:
    """Rounded to what `_packed` can hold."""
    rounded: Floats = (np.round(np.clip(colours, 0, 511) * _STEPS) / _STEPS).astype(np.float32)
    return rounded


def _packed(colours: Floats) -> str:
    return base64.b64encode(np.round(colours * _STEPS).astype("<u2").tobytes()).decode("ascii")


def _unpacked(text: str) -> Floats:
    values: Floats = np.frombuffer(base64.b64decode(text), "<u2").astype(np.float32)
    colours: Floats = values.reshape(-1, 3) / np.float32(_STEPS)
    return colours
