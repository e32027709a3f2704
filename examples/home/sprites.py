"""How fixtures are drawn: a canvas, a palette, and one small drawing for each kind.

Shapes tell kinds apart for people; colours and patterns differ from home to home. Nothing outside this
folder may import it: the robot learns looks from pixels.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
Colour = NDArray[np.float64]


class Canvas:
    """A square of pixels to draw on; coordinates are in pixels, ends included, origin top left."""

    def __init__(self, size: int, ground: Colour | None = None) -> None:
        self.pixels = np.zeros((size, size, 3))
        self.drawn = np.zeros((size, size), bool)
        self._y, self._x = np.mgrid[0:size, 0:size]
        if ground is not None:
            self.pixels[:] = ground
            self.drawn[:] = True

    def _fill(self, mask: NDArray[np.bool_], colour: Colour) -> None:
        self.pixels[mask] = colour
        self.drawn |= mask

    def box(self, x0: int, y0: int, x1: int, y1: int, colour: Colour) -> None:
        """A filled rectangle."""
        self._fill((self._x >= x0) & (self._x <= x1) & (self._y >= y0) & (self._y <= y1), colour)

    def disc(self, x: float, y: float, radius: float, colour: Colour, inner: float = 0.0) -> None:
        """A filled circle, or a ring."""
        far = np.hypot(self._x - x, self._y - y)
        self._fill((far <= radius) & (far >= inner), colour)

    def slope(self, x0: int, y0: int, x1: int, y1: int, width: float, colour: Colour) -> None:
        """A line of some width."""
        dx, dy = x1 - x0, y1 - y0
        t = np.clip(((self._x - x0) * dx + (self._y - y0) * dy) / max(dx * dx + dy * dy, 1), 0, 1)
        self._fill(np.hypot(self._x - x0 - t * dx, self._y - y0 - t * dy) <= width / 2, colour)

    def pattern(self, kind: int, colour: Colour) -> None:
        """Stripes, dots or a grid all over: 0 to 5."""
        x, y = self._x, self._y
        stripes = (x % 6 == 0, y % 6 == 0, (x + y) % 6 == 0, (x - y) % 8 == 0)
        masks = (*stripes, (x % 6 < 2) & (y % 6 < 2), (x % 8) * (y % 8) == 0)
        self._fill(masks[kind], colour)

    def picture(self) -> Picture:
        """uint8 [size, size, 3]."""
        return np.asarray(np.clip(self.pixels, 0, 255), np.uint8)


class Palette:
    """Colours of one home: well apart, drawn one after another."""

    def __init__(self, rng: np.random.Generator) -> None:
        hues = (np.arange(12) + rng.uniform(0, 1)) / 12
        levels = [(0.75, 0.85), (0.5, 0.6), (0.35, 0.95), (0.85, 0.45)]
        self.colours = [self.of(h, s, v) for s, v in levels for h in hues]
        rng.shuffle(self.colours)
        self._next = 0

    @staticmethod
    def of(hue: float, saturation: float, value: float) -> Colour:
        """RGB, 0 to 255."""
        return np.array(colorsys.hsv_to_rgb(hue % 1, saturation, value)) * 255

    def next(self) -> Colour:
        """A colour that was not used lately."""
        self._next += 1
        return np.array(self.colours[self._next % len(self.colours)])


Draw = Callable[[Canvas, Colour, Colour, bool], None]
"""Draws a kind with its own colour and a contrast, at rest or active."""

DARK = np.array([28.0, 26.0, 32.0])
LIGHT = np.array([244.0, 240.0, 228.0])
GLOW = np.array([255.0, 236.0, 110.0])
WATER = np.array([90.0, 170.0, 240.0])
METAL = np.array([165.0, 170.0, 178.0])


def _table(c: Canvas, own: Colour, other: Colour, active: bool) -> None:
    c.box(1, 1, 22, 22, own)
    c.box(3, 3, 20, 20, own * 0.85)


def _coffee_table(c: Canvas, own: Colour, other: Colour, active: bool) -> None:
    c.disc(11.5, 11.5, 11.5, own)
    c.disc(11.5, 11.5, 9, own * 0.8)


def _sofa(c: Canvas, own: Colour, other: Colour, active: bool) -> None:
    c.box(0, 0, 23, 6, own * 0.7)
    c.box(0, 6, 3, 23, own * 0.7)
    c.box(20, 6, 23, 23, own * 0.7)
    c.box(4, 7, 19, 21, own)


def _bed(c: Canvas, own: Colour, other: Colour, active: bool) -> None:
    c.box(1, 1, 22, 22, LIGHT)
    c.box(1, 9, 22, 22, own)
    c.box(4, 2, 19, 7, LIGHT * 0.85)


def _desk(c: Canvas, own: Colour, other: Colour, active: bool) -> None:
    c.box(0, 2, 23, 15, own)
    c.box(0, 16, 4, 23, own * 0.65)
    c.box(19, 16, 23, 23, own * 0.65)


def _shelf(c: Canvas, own: Colour, other: Colour, active: bool) -> None:
    c.box(0, 0, 23, 23, own * 0.6)
    for y in (2, 9, 16):
        c.box(2, y, 21, y + 5, own)


def _fridge(c: Canvas, own: Colour, other: Colour, active: bool) -> None:
    c.box(2, 0, 21, 23, LIGHT)
    c.box(2, 8, 21, 9, METAL * 0.6)
    c.box(4, 2, 5, 6, METAL * 0.5)
    c.box(4, 11, 5, 18, METAL * 0.5)
    if active:
        c.box(2, 0, 21, 23, WATER * 0.55)
        c.box(5, 2, 21, 21, LIGHT)
        c.box(0, 0, 3, 23, METAL * 0.7)


def _cupboard(c: Canvas, own: Colour, other: Colour, active: bool) -> None:
    c.box(0, 0, 23, 23, own)
    c.box(11, 0, 12, 23, own * 0.5)
    c.disc(9, 12, 1.3, other)
    c.disc(14, 12, 1.3, other)
    if active:
        c.box(3, 2, 20, 21, DARK * 1.4)
        c.box(3, 11, 20, 12, own * 0.7)
        c.box(0, 0, 1, 23, other)
        c.box(22, 0, 23, 23, other)


def _drawer(c: Canvas, own: Colour, other: Colour, active: bool) -> None:
    c.box(0, 3, 23, 20, own)
    c.box(0, 11, 23, 12, own * 0.55)
    c.box(8, 6, 15, 7, other)
    c.box(8, 15, 15, 16, other)
    if active:
        c.box(1, 5, 22, 19, DARK * 1.3)
        c.box(0, 20, 23, 23, own * 1.1)
        c.box(8, 21, 15, 22, other)


def _door(c: Canvas, own: Colour, other: Colour, active: bool) -> None:
    if active:
        c.box(0, 0, 3, 23, own)
        c.box(20, 0, 23, 23, own)
        return
    c.box(0, 0, 23, 23, own)
    c.box(4, 2, 19, 10, own * 0.75)
    c.box(4, 13, 19, 21, own * 0.75)
    c.disc(19.5, 12, 1.8, other)


def _window(c: Canvas, own: Colour, other: Colour, active: bool) -> None:
    c.box(0, 0, 23, 23, own)
    c.box(3, 3, 20, 20, WATER)
    c.box(11, 3, 12, 20, own)
    c.box(3, 11, 20, 12, own)
    if active:
        c.box(3, 3, 20, 20, LIGHT)
        c.slope(3, 20, 9, 3, 3, own)
        c.slope(20, 20, 14, 3, 3, own)


def _lamp(c: Canvas, own: Colour, other: Colour, active: bool) -> None:
    if active:
        c.disc(11.5, 9, 11, GLOW * 0.75)
    c.box(11, 10, 12, 21, METAL * 0.6)
    c.box(7, 21, 16, 22, METAL * 0.6)
    for y in range(3, 12):
        half = 3 + (y - 3) // 2
        c.box(12 - half, y, 11 + half, y, GLOW if active else own)


def _kettle(c: Canvas, own: Colour, other: Colour, active: bool) -> None:
    c.disc(11, 14, 7.5, own)
    c.slope(17, 12, 22, 8, 3, own)
    c.disc(11, 7, 4.5, other, 3)
    if active:
        for x in (4, 10, 16):
            c.slope(x, 5, x + 2, 0, 2.2, LIGHT)
        c.disc(11, 15, 3, np.array([235.0, 70.0, 40.0]))


def _coffee_machine(c: Canvas, own: Colour, other: Colour, active: bool) -> None:
    c.box(3, 1, 20, 22, own)
    c.box(6, 8, 17, 19, DARK)
    c.box(9, 12, 14, 18, LIGHT)
    if active:
        c.box(10, 8, 13, 14, np.array([120.0, 66.0, 30.0]))
        c.box(4, 3, 19, 5, np.array([250.0, 60.0, 50.0]))


def _radio(c: Canvas, own: Colour, other: Colour, active: bool) -> None:
    c.box(1, 6, 22, 21, own)
    c.disc(7, 14, 4.5, DARK)
    c.box(13, 10, 20, 13, LIGHT * 0.6)
    c.slope(4, 6, 14, 0, 1.5, METAL)
    if active:
        c.box(13, 10, 20, 13, np.array([90.0, 250.0, 120.0]))
        c.disc(7, 14, 4.5, other, 2)
        c.box(13, 16, 20, 18, GLOW)


def _television(c: Canvas, own: Colour, other: Colour, active: bool) -> None:
    c.box(0, 2, 23, 18, DARK)
    c.box(8, 19, 15, 22, METAL * 0.6)
    c.box(2, 4, 21, 16, DARK * 1.6)
    if active:
        c.box(2, 4, 21, 16, WATER)
        c.box(2, 12, 21, 16, own)
        c.disc(15, 8, 3, GLOW)


def _tap(c: Canvas, own: Colour, other: Colour, active: bool) -> None:
    c.box(1, 13, 22, 22, LIGHT)
    c.box(4, 15, 19, 20, LIGHT * 0.75)
    c.box(10, 3, 13, 13, METAL)
    c.box(10, 3, 18, 5, METAL)
    c.disc(7, 5, 2.2, own)
    if active:
        c.box(16, 6, 18, 16, WATER)
        c.box(4, 15, 19, 20, WATER)


def _washing_machine(c: Canvas, own: Colour, other: Colour, active: bool) -> None:
    c.box(1, 0, 22, 23, LIGHT)
    c.box(3, 2, 10, 4, own)
    c.disc(11.5, 13.5, 8, METAL * 0.7)
    c.disc(11.5, 13.5, 5.5, DARK * 1.5)
    if active:
        c.disc(11.5, 13.5, 5.5, WATER)
        c.slope(8, 16, 15, 11, 3, LIGHT)
        c.box(14, 2, 20, 4, np.array([60.0, 230.0, 90.0]))


def _heater(c: Canvas, own: Colour, other: Colour, active: bool) -> None:
    hot = np.array([250.0, 110.0, 50.0])
    for x in range(1, 22, 4):
        c.box(x, 3, x + 2, 20, hot if active else LIGHT * 0.85)
    c.box(0, 5, 23, 6, METAL * 0.6)
    c.box(0, 17, 23, 18, METAL * 0.6)


def _fan(c: Canvas, own: Colour, other: Colour, active: bool) -> None:
    c.disc(11.5, 11.5, 11.4, METAL * 0.55, 9.5)
    if active:
        c.disc(11.5, 11.5, 9.4, own * 0.5 + 110)
        c.disc(11.5, 11.5, 6.4, own * 0.5 + 60, 5)
    else:
        for x, y in ((4, 4), (19, 4), (11, 20)):
            c.slope(11, 11, x, y, 5, own)
    c.disc(11.5, 11.5, 2.4, DARK)


def _alarm(c: Canvas, own: Colour, other: Colour, active: bool) -> None:
    c.box(3, 15, 20, 22, METAL * 0.6)
    c.disc(11.5, 12, 7.5, np.array([255.0, 40.0, 40.0]) if active else np.array([105.0, 40.0, 45.0]))
    if active:
        c.disc(11.5, 12, 11.5, np.array([255.0, 170.0, 150.0]), 9)


def _mat(c: Canvas, own: Colour, other: Colour, active: bool) -> None:
    c.box(1, 1, 22, 22, own)
    for y in range(3, 22, 4):
        c.box(3, y, 20, y + 1, other)
    if active:
        c.disc(9, 13, 8, WATER)
        c.disc(17, 7, 4.5, WATER * 0.9)


def _bin(c: Canvas, own: Colour, other: Colour, active: bool) -> None:
    for y in range(6, 23):
        half = 9 - (y - 6) // 6
        c.box(12 - half, y, 11 + half, y, own * 0.7)
    c.box(2, 3, 21, 6, own)
    c.box(9, 1, 14, 3, own)


FIXTURES: dict[str, Draw] = {
    "table": _table,
    "coffee table": _coffee_table,
    "sofa": _sofa,
    "bed": _bed,
    "desk": _desk,
    "shelf": _shelf,
    "fridge": _fridge,
    "cupboard": _cupboard,
    "drawer": _drawer,
    "door": _door,
    "window": _window,
    "lamp": _lamp,
    "kettle": _kettle,
    "coffee machine": _coffee_machine,
    "radio": _radio,
    "television": _television,
    "tap": _tap,
    "washing machine": _washing_machine,
    "heater": _heater,
    "fan": _fan,
    "fridge alarm": _alarm,
    "mat": _mat,
    "bin": _bin,
}
