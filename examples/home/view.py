"""Which cells the camera sees: geometry, shadows and passing obstructions. It knows no pixels.

The view is 7 cells wide and 7 deep; the robot stands in row 6, column 3 and looks up. View cells are numbered row by
row from 0 (far left) to 48 (near right).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .plan import HEADINGS, Cell

VIEW = 7
CELLS = VIEW * VIEW
OWN = (VIEW - 1) * VIEW + VIEW // 2
AHEAD = OWN - VIEW


def _offsets() -> NDArray[np.int64]:
    """[4, 49, 2]: (dx, dy) of each view cell from the robot, for each heading."""
    table = np.zeros((4, CELLS, 2), np.int64)
    for heading in range(4):
        forward, right = HEADINGS[heading], HEADINGS[(heading + 1) % 4]
        for row in range(VIEW):
            for column in range(VIEW):
                ahead, side = VIEW - 1 - row, column - VIEW // 2
                table[heading, row * VIEW + column] = (
                    ahead * forward[0] + side * right[0],
                    ahead * forward[1] + side * right[1],
                )
    return table


OFFSETS = _offsets()


def _rays() -> NDArray[np.float32]:
    """[5 * 49, 49]: 1 where the ray to a point of a cell (its centre and four more) crosses a cell on its way."""
    rays = np.zeros((5, CELLS, CELLS), np.float32)
    points = ((0.0, 0.0), (-0.35, -0.35), (0.35, -0.35), (-0.35, 0.35), (0.35, 0.35))
    for k, (px, py) in enumerate(points):
        for target in range(CELLS):
            x, y = target % VIEW + px, target // VIEW + py
            for t in np.linspace(0, 1, 120):
                at = round(VIEW // 2 + t * (x - VIEW // 2)) + VIEW * round(VIEW - 1 + t * (y - VIEW + 1))
                if at not in (OWN, target):
                    rays[k, target, at] = 1
    return rays.reshape(5 * CELLS, CELLS)


_RAYS = _rays()


def lit_up(opaque: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which of the 49 view cells can be seen when the cells in ``opaque`` [49] hide what is behind them."""
    blocked = _RAYS @ opaque.astype(np.float32)
    return np.asarray((blocked.reshape(5, CELLS) == 0).any(axis=0))


def view_cells(x: int, y: int, heading: int) -> list[Cell]:
    """Cells of the map in the order of the view."""
    return [(x + int(dx), y + int(dy)) for dx, dy in OFFSETS[heading]]


@dataclass(frozen=True, slots=True)
class Obstruction:
    """Something that hides part of one view cell for a minute."""

    cell: int
    """View cell, 0 to 48."""
    kind: int
    """0 shade, 1 glare, 2 a block of one colour."""
    part: int
    """0 to 3: a quarter (corner by number); 4 to 7: a half (left, right, top, bottom)."""
    tone: int
    """0 to 255."""


def _mix(value: int) -> int:
    """splitmix64: a well mixed 64-bit number from another."""
    value = (value + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return value ^ (value >> 31)


def scramble(seed: int, minute: int) -> int:
    """A 64-bit number that depends on seed and minute only."""
    return _mix(_mix(seed & 0xFFFFFFFF) ^ (minute * 2 + 1))


def obstructions(seed: int, minute: int) -> list[Obstruction]:
    """What hides parts of the view in a minute: none in five of eight minutes, else one to three."""
    value = scramble(seed, minute)
    count = (0, 0, 0, 0, 0, 1, 2, 3)[value & 7]
    found = []
    for _ in range(count):
        value = _mix(value)
        found.append(Obstruction((value >> 8) % CELLS, (value >> 16) % 3, (value >> 24) & 7, (value >> 32) & 255))
    return found
