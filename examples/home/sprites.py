"""What things look like in one home: small procedural pictures, drawn anew from a seed.

Nothing outside this folder may import it: the robot learns looks from pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .plan import Plan

TILE = 24
ITEM = 14
Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Atlas:
    """All pictures of one home."""

    bases: Picture
    """[looks, TILE, TILE, 3] by look number of the plan; then persons by name order; last the robot's own gripper."""
    items: dict[str, tuple[Picture, NDArray[np.bool_]]]
    """By name: [ITEM, ITEM, 3] and the mask of what is not transparent."""
    persons: dict[str, int]
    """Index in ``bases``."""
    own: int
    """Index of the gripper in ``bases``."""


def _colour(rng: np.random.Generator) -> NDArray[np.float64]:
    return rng.uniform(40, 235, 3)


def _pattern(rng: np.random.Generator, cells: int, size: int, colours: int = 3) -> Picture:
    """A left-right symmetric pattern of cells."""
    half = rng.integers(0, colours, (cells, (cells + 1) // 2))
    index = np.concatenate([half, half[:, : cells // 2][:, ::-1]], axis=1)
    palette = np.stack([_colour(rng) for _ in range(colours)])
    picture = palette[index].repeat(size // cells, 0).repeat(size // cells, 1)
    return np.asarray(picture, np.uint8)


def draw_atlas(plan: Plan, items: list[str], people: list[str], seed: int) -> Atlas:
    """The pictures of one home."""
    rng = np.random.default_rng([seed, 77])
    bases: list[Picture] = []
    kinds: dict[str, Picture] = {}
    for kind, _ in plan.looks:
        if kind in ("wall", "floor"):
            picture = np.full((TILE, TILE, 3), rng.uniform(90, 200, 3), np.uint8)
            picture[:: 6 if kind == "wall" else 12] = picture[0] * 0.8
        elif kind in kinds:
            picture = kinds[kind].copy()
            picture[6:18, 6:18] = _pattern(rng, 6, 12, 2)
        else:
            picture = _pattern(rng, 6, TILE)
            kinds[kind] = picture
        bases.append(picture)
    persons = {}
    for person in sorted(people):
        persons[person] = len(bases)
        bases.append(_pattern(rng, 8, TILE, 4))
    bases.append(np.full((TILE, TILE, 3), 70, np.uint8))
    drawn = {}
    for name in sorted(set(items)):
        mask = np.zeros((ITEM, ITEM), bool)
        mask[1:-1, 1:-1] = True
        drawn[name] = (_pattern(rng, 7, ITEM), mask)
    return Atlas(np.stack(bases), drawn, persons, len(bases) - 1)
