"""What the robot's camera sees: 7 x 7 cells of 24 pixels, ahead is up, hidden cells are black.

A frame depends on the seed and on the state of the home at its minute only, so it can be drawn twice.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .atlas import ITEM, TILE, Atlas, draw_atlas
from .catalogue import ME
from .house import LESSON_END, House
from .plan import HEIGHT, WIDTH
from .view import CELLS, OFFSETS, OWN, VIEW, lit_up, obstructions, scramble

Image = NDArray[np.uint8]
_EDGE = (TILE - ITEM) // 2
_POOL = 1 << 20


def daylight(minute: int) -> float:
    """Light through the windows from 0 (night) to 1, by the minute of the day: dawn at six, dusk at six."""
    hour = minute % 1440 / 60
    return float(np.clip(min(hour - 5.75, 18.75 - hour) / 1.25, 0.0, 1.0))


class Renderer:
    """Draws one home."""

    def __init__(self, house: House) -> None:
        self.seed = house.seed
        names = [i.name for i in house.items.values()]
        self.atlas: Atlas = draw_atlas(house.plan, names, list(house.people), house.seed)
        rng = np.random.default_rng([house.seed, 78])
        self.noise = np.clip(rng.normal(0, 32, _POOL), -127, 127).astype(np.int8)
        self.sigma = rng.uniform(6, 10)
        self.night = np.array([0.23, 0.25, 0.30]) * rng.uniform(0.9, 1.25)
        self.day = np.array([1.0, 1.0, 1.0]) * rng.uniform(0.9, 1.0)
        self.lamp = np.array([0.92, 0.86, 0.72]) * rng.uniform(0.9, 1.0)
        rooms = sorted(house.plan.floors)
        self._rooms = rooms
        self._room_index = np.zeros((HEIGHT, WIDTH), np.int64)
        for (x, y), room in house.plan.room_at.items():
            self._room_index[y, x] = rooms.index(room)
        for x, y in house.plan.walls:
            beside = [house.plan.room_at.get((x + dx, y + dy)) for dx in (-1, 0, 1) for dy in (-1, 0, 1)]
            self._room_index[y, x] = rooms.index(next((r for r in beside if r), rooms[0]))

    def light(self, house: House) -> NDArray[np.float64]:
        """Brightness of each room [rooms, 3], 0 to 1."""
        if house.minute < LESSON_END:
            return np.ones((len(self._rooms), 3)) * self.day
        bright = daylight(house.minute)
        outside = self.night + bright * (self.day - self.night)
        lit = np.array([house.state.get(f"{room} lamp") == "on" for room in self._rooms])
        return np.where(lit[:, None], np.maximum(outside, self.lamp), outside)

    def frame(self, house: House) -> Image:
        """uint8 [168, 168, 3]."""
        robot = house.robot
        xs = robot.x + OFFSETS[robot.heading, :, 0]
        ys = robot.y + OFFSETS[robot.heading, :, 1]
        inside = (xs >= 0) & (xs < WIDTH) & (ys >= 0) & (ys < HEIGHT)
        cx, cy = np.clip(xs, 0, WIDTH - 1), np.clip(ys, 0, HEIGHT - 1)
        cells = list(zip(cx.tolist(), cy.tolist(), strict=True))
        opaque = np.array([c in house.opaque for c in cells]) | ~inside
        seen = lit_up(opaque) & inside
        index = house.looks[cy, cx].astype(np.int64)
        overlays = self._overlays(house, cells, seen, index)
        tiles = self.atlas.bases[index]
        for cell, name in overlays:
            picture, mask = self.atlas.items[name]
            tiles[cell, _EDGE : _EDGE + ITEM, _EDGE : _EDGE + ITEM][mask] = picture[mask]
        light = self.light(house)[self._room_index[cy, cx]]
        shaded: NDArray[np.float32] = tiles.astype(np.float32) * light[:, None, None, :].astype(np.float32)
        self._obstruct(house, shaded)
        shaded += self._noise(house, light)
        shaded[~seen] = 0
        np.clip(shaded, 0, 255, out=shaded)
        picture = shaded.astype(np.uint8).reshape(VIEW, VIEW, TILE, TILE, 3).transpose(0, 2, 1, 3, 4)
        return np.ascontiguousarray(picture.reshape(VIEW * TILE, VIEW * TILE, 3))

    def _overlays(
        self, house: House, cells: list[tuple[int, int]], seen: NDArray[np.bool_], index: NDArray[np.int64]
    ) -> list[tuple[int, str]]:
        """Items to draw by view cell; puts persons and the gripper into ``index``."""
        found: dict[int, str] = {}
        place_in_view = {c: i for i, c in enumerate(cells) if seen[i]}
        for cell, item in house.item_at.items():
            at, fixture = place_in_view.get(cell), house.plan.fixture_at.get(cell)
            if at is not None and (fixture is None or house.reachable(fixture)):
                found[at] = house.items[item].name
        for person in house.people.values():
            at = place_in_view.get(person.cell) if person.cell is not None else None
            if at is not None:
                index[at] = self.atlas.persons[person.name]
                found.pop(at, None)
                if person.carried:
                    found[at] = house.items[person.carried].name
        index[OWN] = self.atlas.own
        found.pop(OWN, None)
        held = next((i.name for i in house.items.values() if i.place == ME), None)
        if held:
            found[OWN] = held
        return list(found.items())

    def _obstruct(self, house: House, tiles: NDArray[np.float32]) -> None:
        if house.minute < LESSON_END:
            return
        half, quarter = TILE // 2, [(0, 0), (0, 1), (1, 0), (1, 1)]
        for thing in obstructions(self.seed, house.minute):
            if thing.part < 4:
                row, column = quarter[thing.part]
                area = tiles[thing.cell, row * half : (row + 1) * half, column * half : (column + 1) * half]
            else:
                first = slice(0, half) if thing.part in (4, 6) else slice(half, TILE)
                area = tiles[thing.cell, :, first] if thing.part < 6 else tiles[thing.cell, first]
            if thing.kind == 0:
                area *= 0.35
            elif thing.kind == 1:
                area += (255 - area) * 0.75
            else:
                area[:] = thing.tone

    def _noise(self, house: House, light: NDArray[np.float64]) -> NDArray[np.float32]:
        """[49, TILE, TILE, 3]: a little stronger where it is dark."""
        count = CELLS * TILE * TILE * 3
        start = scramble(self.seed + 1, house.minute) % (_POOL - count)
        sigma = self.sigma * (2.2 - 1.2 * light.max(axis=1)) / 32
        noise = self.noise[start : start + count].reshape(CELLS, TILE, TILE, 3)
        return np.asarray(noise * sigma[:, None, None, None].astype(np.float32))
