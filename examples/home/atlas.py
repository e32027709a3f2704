"""All pictures of one home: items, persons, floors, and the fixtures of ``sprites.py`` in the colours of the home.

Nothing outside this folder may import it: the robot learns looks from pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .plan import Plan
from .sprites import DARK, FIXTURES, LIGHT, METAL, Canvas, Colour, Palette, Picture

TILE = 24
ITEM = 14
SHADES = {"blue": 0.61, "red": 0.99, "green": 0.36, "yellow": 0.14}
"""Hues of colours that are part of a name."""


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


def draw_atlas(plan: Plan, items: list[str], people: list[str], seed: int) -> Atlas:
    """The pictures of one home."""
    rng = np.random.default_rng([seed, 77])
    palette = Palette(rng)
    bases = _floors(rng)
    grounds: dict[str, tuple[Colour, Colour, Colour, int]] = {}
    for kind, state in plan.looks[4:]:
        if kind not in grounds:
            ground = palette.next() * 0.45 + 60
            grounds[kind] = (ground, palette.next(), palette.next(), int(rng.integers(6)))
        ground, own, other, pattern = grounds[kind]
        canvas = Canvas(TILE, ground)
        canvas.pattern(pattern, ground * 0.8)
        FIXTURES[kind](canvas, own, other, state in ("on", "open", "wet"))
        bases.append(canvas.picture())
    persons = {}
    for number, person in enumerate(sorted(people)):
        persons[person] = len(bases)
        bases.append(_person(rng, palette, number))
    bases.append(_gripper())
    drawn = {name: _item(name, palette, rng) for name in sorted(set(items))}
    return Atlas(np.stack(bases), drawn, persons, len(bases) - 1)


def _floors(rng: np.random.Generator) -> list[Picture]:
    """The wall, then three floors."""
    hue = rng.uniform()
    wall = Canvas(TILE, Palette.of(hue, 0.25, 0.42))
    for y in range(0, TILE, 6):
        wall.box(0, y, 23, y, Palette.of(hue, 0.3, 0.28))
        for x in range(3 * (y // 6 % 2), TILE, 8):
            wall.box(x, y, x, y + 5, Palette.of(hue, 0.3, 0.28))
    pictures = [wall.picture()]
    start = rng.uniform()
    kinds = rng.permutation(6)[:3]
    for number in range(3):
        tone = Palette.of(start + number / 3 + rng.uniform(-0.08, 0.08), 0.18, 0.68 + 0.1 * number)
        floor = Canvas(TILE, tone)
        floor.pattern(int(kinds[number]), tone * 0.88)
        pictures.append(floor.picture())
    return pictures


def _person(rng: np.random.Generator, palette: Palette, number: int) -> Picture:
    """Hair, face and shirt; the shirt is seen on the sides too, so that what is carried hides little of it."""
    skin = Palette.of(0.07, rng.uniform(0.25, 0.55), rng.uniform(0.55, 0.95))
    hair = Palette.of(rng.uniform(0.02, 0.13), rng.uniform(0.3, 0.9), 0.12 + 0.33 * number)
    shirt, trousers = palette.next(), palette.next() * 0.6
    canvas = Canvas(TILE, shirt * 0.35 + 120)
    canvas.box(0, 12, 23, 19, shirt)
    canvas.box(3, 19, 20, 23, trousers)
    canvas.disc(11.5, 7, 6.5, hair)
    canvas.box(5, 7, 18, 11 if number % 2 else 8, hair)
    canvas.disc(11.5, 8.5, 4.6, skin)
    canvas.box(9, 8, 10, 8, DARK)
    canvas.box(13, 8, 14, 8, DARK)
    return canvas.picture()


def _gripper() -> Picture:
    canvas = Canvas(TILE, METAL * 0.55)
    canvas.box(0, 0, 3, 23, DARK)
    canvas.box(20, 0, 23, 23, DARK)
    canvas.box(4, 20, 19, 23, METAL)
    return canvas.picture()


def _item(name: str, palette: Palette, rng: np.random.Generator) -> tuple[Picture, NDArray[np.bool_]]:
    """One item; a colour in its name is its colour."""
    word, _, noun = name.partition(" ")
    own = palette.next()
    if word in SHADES:
        own = Palette.of(SHADES[word] + rng.uniform(-0.02, 0.02), rng.uniform(0.7, 0.9), rng.uniform(0.75, 0.95))
    else:
        noun = name
    canvas = Canvas(ITEM)
    _SHAPES[noun](canvas, own, palette.next())
    return canvas.picture(), canvas.drawn


def _mug(c: Canvas, own: Colour, other: Colour) -> None:
    c.disc(10, 7, 3.6, own * 0.7, 1.8)
    c.box(1, 2, 9, 12, own)
    c.box(1, 2, 9, 3, own * 0.55)
    c.box(3, 6, 7, 8, other)


def _cup(c: Canvas, own: Colour, other: Colour) -> None:
    for y in range(3, 11):
        half = 6 - (y - 3) // 3
        c.box(7 - half, y, 6 + half, y, own)
    c.box(1, 11, 12, 12, other)


def _bottle(c: Canvas, own: Colour, other: Colour) -> None:
    c.box(5, 0, 8, 4, own * 0.7)
    c.box(3, 4, 10, 13, own)
    c.box(3, 7, 10, 10, other)


def _book(c: Canvas, own: Colour, other: Colour) -> None:
    c.box(1, 1, 12, 12, own)
    c.box(1, 1, 3, 12, own * 0.5)
    c.box(6, 3, 10, 5, other)
    c.box(2, 12, 12, 13, LIGHT)


def _cushion(c: Canvas, own: Colour, other: Colour) -> None:
    c.box(0, 0, 13, 13, own)
    c.box(2, 2, 11, 11, own * 0.8)
    c.disc(6.5, 6.5, 2.5, other)


def _keys(c: Canvas, own: Colour, other: Colour) -> None:
    c.disc(4, 4, 4, METAL, 2)
    c.slope(6, 6, 13, 13, 2.2, METAL)
    c.slope(6, 6, 4, 13, 2.2, METAL * 0.7)
    c.slope(12, 9, 10, 11, 2, METAL)
    c.disc(4, 4, 1.5, own)


def _spare_key(c: Canvas, own: Colour, other: Colour) -> None:
    gold = np.array([225.0, 180.0, 60.0])
    c.disc(3.5, 6.5, 3.5, gold, 1.5)
    c.box(6, 6, 13, 7, gold)
    c.box(10, 7, 10, 10, gold)
    c.box(13, 7, 13, 10, gold)


def _umbrella(c: Canvas, own: Colour, other: Colour) -> None:
    c.disc(6.5, 7, 6.8, own)
    c.box(0, 8, 13, 13, np.zeros(3))
    c.drawn[8:, :] = False
    c.box(6, 8, 7, 12, DARK * 2)
    c.box(4, 12, 6, 13, DARK * 2)


def _wallet(c: Canvas, own: Colour, other: Colour) -> None:
    c.box(0, 3, 13, 12, own * 0.6)
    c.box(0, 6, 13, 7, own * 0.35)
    c.disc(11, 8, 1.6, other)


def _glasses(c: Canvas, own: Colour, other: Colour) -> None:
    c.disc(3.5, 7, 3.5, own, 2)
    c.disc(10, 7, 3.5, own, 2)
    c.box(6, 6, 7, 7, own)


def _scissors(c: Canvas, own: Colour, other: Colour) -> None:
    c.slope(2, 0, 9, 9, 2, METAL)
    c.slope(11, 0, 4, 9, 2, METAL)
    c.disc(3, 11, 2.7, own, 1)
    c.disc(10, 11, 2.7, own, 1)


def _tablet(c: Canvas, own: Colour, other: Colour) -> None:
    c.box(1, 0, 12, 13, DARK)
    c.box(3, 2, 10, 10, own)
    c.box(3, 2, 10, 4, other)


def _basket(c: Canvas, own: Colour, other: Colour) -> None:
    c.disc(6.5, 6, 6, own * 0.6, 4.5)
    c.box(0, 6, 13, 13, own)
    for x in range(1, 13, 3):
        c.box(x, 7, x, 12, own * 0.6)


def _torch(c: Canvas, own: Colour, other: Colour) -> None:
    c.box(4, 5, 9, 13, own)
    c.box(2, 0, 11, 4, other)
    c.box(6, 7, 7, 9, LIGHT)


def _teddy(c: Canvas, own: Colour, other: Colour) -> None:
    c.disc(3, 3, 2.6, own * 0.8)
    c.disc(10, 3, 2.6, own * 0.8)
    c.disc(6.5, 5, 4.5, own)
    c.disc(6.5, 10, 4, own * 0.9)
    c.disc(6.5, 6, 1.8, LIGHT)


def _letter(c: Canvas, own: Colour, other: Colour) -> None:
    c.box(0, 2, 13, 11, LIGHT)
    c.slope(0, 2, 6, 7, 1.5, METAL * 0.6)
    c.slope(13, 2, 7, 7, 1.5, METAL * 0.6)
    c.box(10, 9, 12, 10, own)


def _apple(c: Canvas, own: Colour, other: Colour) -> None:
    c.disc(6.5, 8, 5.5, np.array([205.0, 45.0, 50.0]))
    c.box(6, 0, 7, 4, np.array([90.0, 60.0, 30.0]))
    c.disc(9.5, 2.5, 2, np.array([80.0, 170.0, 60.0]))


_SHAPES = {
    "mug": _mug,
    "cup": _cup,
    "bottle": _bottle,
    "book": _book,
    "cushion": _cushion,
    "keys": _keys,
    "spare key": _spare_key,
    "umbrella": _umbrella,
    "wallet": _wallet,
    "glasses": _glasses,
    "scissors": _scissors,
    "tablet": _tablet,
    "basket": _basket,
    "torch": _torch,
    "teddy": _teddy,
    "letter": _letter,
    "apple": _apple,
}
