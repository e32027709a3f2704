"""Looks: how a tile of a picture is compared with the tiles that were learnt, whatever the light and the noise.

This module knows small pictures, light and noise. It knows no names and no places: `scenes` does.

A frame of ``view`` x ``view`` tiles is averaged over blocks of ``block`` pixels; a tile is then [D, 3] block colours,
D = (tile / block)^2. Items are small and are compared pixel by pixel. Light is one gain for each channel of a tile,
fitted by least squares on the tile's ring (the blocks that an item in the centre leaves free), so an item does not
change the light that its base is seen in. A tile fits a learnt look as far as its blocks do; a block that is far off
counts no more than `CAP`, so a glare or a shadow that hides half a tile leaves the other half to decide.

    N looks, T tiles, D blocks of a tile (or its pixels), C = 3 channels
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import BadInput
from ..records import Image

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

CAP = 20.0
"""Largest cost of one block; a fitting block costs 3 on average (a squared deviation for each channel)."""
MODEL = 0.04
"""Share by which a block of a learnt look may be off beside noise: light is not quite even over a tile."""
_SPECK = 5  # pixels that are noise if they stand alone
_STRONG = 13.0  # cost of a pixel that chance alone gives to one in 200
_BARE = 4.5  # mean cost of a patch through which one sees what lies beneath; 3 is expected
_FAR = 16.0  # grey levels that blocks of one picture never differ by; noise over 3 x 3 pixels: 4
LEAST_GAIN, MOST_GAIN = 0.03, 1.8


@dataclass(frozen=True, slots=True)
class Layout:
    """Sizes of the picture, in pixels and tiles."""

    view: int = 7
    """Tiles across and deep; odd, with the body in the middle of the last row."""
    tile: int = 24
    """Pixels across a tile."""
    item: int = 14
    """Pixels across the part in the centre of a tile where an item is seen."""
    block: int = 2
    """Pixels across a block."""

    def __post_init__(self) -> None:
        if self.view < 3 or self.view % 2 == 0:
            raise BadInput(f"view must be an odd number of tiles, 3 or more, got {self.view}")
        if self.block < 1 or self.tile % self.block or not 0 < self.item < self.tile:
            raise BadInput(
                f"tile must be a multiple of block and above item, got tile {self.tile}, block {self.block}, "
                f"item {self.item}; pass sizes in pixels"
            )

    @property
    def side(self) -> int:
        """Blocks across a tile."""
        return self.tile // self.block

    @property
    def pixels(self) -> int:
        return self.view * self.tile


class Masks:
    """Which blocks of a tile belong to which part: bool [D] each."""

    def __init__(self, layout: Layout) -> None:
        side, margin = layout.side, (layout.tile - layout.item) / 2 / layout.block
        index = np.arange(side)
        inside = (index >= np.floor(margin)) & (index < np.ceil(side - margin))
        self.centre: Bools = (inside[:, None] & inside[None, :]).ravel()
        self.ring: Bools = ~self.centre
        pixel = np.arange(layout.tile)
        margin_px = (layout.tile - layout.item) // 2
        within = (pixel >= margin_px) & (pixel < margin_px + layout.item)
        self.centre_pixels: Ints = np.flatnonzero((within[:, None] & within[None, :]).ravel())
        """Numbers of the pixels where an item may be."""
        low = index < side / 2
        rows, columns = np.meshgrid(low, low, indexing="ij")
        quarters = [(rows == a) & (columns == b) for a in (True, False) for b in (True, False)]
        self.ring_quarters: list[Ints] = [np.flatnonzero(q.ravel() & self.ring) for q in quarters]


class Tiles(NamedTuple):
    """A frame cut into tiles, row by row from the top left."""

    pixels: Floats
    """[T, tile^2, C], 0 to 255."""
    colours: Floats
    """[T, D, C], 0 to 255."""
    hidden: Bools
    """[T]: black, behind a wall or a closed door."""
    noise: float
    """Standard deviation of one pixel, in grey levels."""


def cut(frame: Image, layout: Layout) -> Tiles:
    """Cut a frame into tiles of averaged blocks, and measure its noise.

    Args:
        frame: uint8 [view * tile, view * tile, 3], RGB.

    Raises:
        BadInput: another shape or dtype.
    """
    size = layout.pixels
    if frame.dtype != np.uint8 or frame.shape != (size, size, 3):
        raise BadInput(f"expected a frame as uint8 [{size}, {size}, 3], got {frame.dtype} {list(frame.shape)}")
    view, tile = layout.view, layout.tile
    grid = frame.reshape(view, tile, view, tile, 3).transpose(0, 2, 1, 3, 4).reshape(view * view, tile * tile, 3)
    pixels = grid.astype(np.float32)
    tiles = pooled(pixels, layout)
    hidden = tiles.max(axis=(1, 2)) < 6
    step = np.abs(frame[:, 1::2, 1].astype(np.int16) - frame[:, 0:-1:2, 1])
    shown = np.repeat(np.repeat(~hidden.reshape(view, view), layout.tile, 0), layout.tile // 2, 1)
    values = step[:, : shown.shape[1]][shown[:, : step.shape[1]]]
    noise = 1.4826 * float(np.median(values)) / 2**0.5 if values.size else 0.0
    return Tiles(pixels, tiles, hidden, max(1.0, noise))


def pooled(pixels: Floats, layout: Layout) -> Floats:
    """Tiles of pixels, [T, tile^2, C], as tiles of blocks, [T, D, C]."""
    side, block = layout.side, layout.block
    grid = pixels.reshape(-1, side, block, side, block, 3)
    total = sum(grid[:, :, y, :, x] for y in range(block) for x in range(block))  # quicker than a mean over two axes
    return cast(Floats, total / np.float32(block**2)).reshape(-1, side * side, 3)


class Fit(NamedTuple):
    """How tiles fit looks."""

    gain: Floats
    """[T, K, C]: light of the tile relative to that of the look."""
    blocks: Floats
    """[T, K, D]: cost of each block, 0 to CAP."""


class Bank:
    """Looks in one array, with the sums that fitting needs."""

    def __init__(self, looks_NDC: Floats, counts: Sequence[int], layout: Layout, masks: Masks) -> None:
        """Args: counts: how many tiles each look is the mean of: what its own noise is."""
        self.looks = looks_NDC
        self.spreads: Floats = np.array([1 / count for count in counts], np.float32).reshape(-1, 1, 1)
        self.layout = layout
        self.masks = masks

    def __len__(self) -> int:
        return len(self.looks)

    @cached_property
    def energy(self) -> Floats:
        """How much each look's ring says of the light in each channel, [N, C]."""
        ring = self.looks[:, self.masks.ring]
        return cast(Floats, (ring**2).sum(1))

    @cached_property
    def _quarters(self) -> list[tuple[Floats, Floats]]:
        """For each quarter of the ring: looks as [C, D', N], and their squares summed, [C, N]."""
        parts = []
        for blocks in self.masks.ring_quarters:
            part = np.ascontiguousarray(self.looks[:, blocks].transpose(2, 1, 0))
            parts.append((part, (part**2).sum(1)))
        return parts

    def rank(self, tiles_TDC: Floats, noise: float) -> tuple[Floats, Floats]:
        """A quick cost of each look for each tile by the better half of the ring, and the gain: [T, N], [T, N, C]."""
        sums = []
        for blocks, (part, square) in zip(self.masks.ring_quarters, self._quarters, strict=True):
            tile = tiles_TDC[:, blocks].transpose(2, 0, 1)
            sums.append((tile @ part, square[:, None], (tile**2).sum(2)[:, :, None]))
        gains = np.stack([np.clip(dot / (square + 1e-3), LEAST_GAIN, MOST_GAIN) for dot, square, _ in sums])
        gain = np.sort(gains, axis=0)[1:3].mean(0)  # the middle two of four: one spoilt quarter does not matter
        costs = np.stack([(tt - 2 * gain * dot + gain**2 * square).sum(0) for dot, square, tt in sums])
        costs.sort(axis=0)
        variance = noise**2 / self.layout.block**2 + 4.0
        count = len(self.masks.ring_quarters[0]) * 3
        return (costs[0] + costs[1]) / (2 * count * variance), gain.transpose(1, 2, 0)

    def fit(self, tiles_TDC: Floats, picks_TK: Ints, gain_TKC: Floats, noise: float, refine: bool = True) -> Fit:
        """Cost of each block of each tile against the picked looks; the gain is refined once on what fits."""
        looks, spreads = self.looks[picks_TK], self.spreads[picks_TK]
        gain = gain_TKC
        cost = block_costs(tiles_TDC[:, None], looks, gain, noise, self.layout.block, spreads)
        if refine:
            fits = (cost < CAP / 2) & self.masks.ring
            weight = fits[..., None].astype(np.float32)
            top = (tiles_TDC[:, None] * looks * weight).sum(2)
            bottom = (looks**2 * weight).sum(2)
            enough = (fits.sum(-1) >= self.masks.ring.sum() / 4)[..., None]
            gain = np.where(enough, np.clip(top / (bottom + 1e-3), LEAST_GAIN, MOST_GAIN), gain)
            cost = block_costs(tiles_TDC[:, None], looks, gain, noise, self.layout.block, spreads)
        return Fit(gain.astype(np.float32), cost)


def block_costs(
    tiles: Floats, looks: Floats, gain: Floats, noise: float, block: int, spread: float | Floats = 0.5
) -> Floats:
    """Squared deviation of each block in units of its expected variance, summed over channels, at most CAP.

    Args:
        tiles, looks: [..., D, C]; gain: [..., C]; shapes broadcast.
        noise: standard deviation of a pixel, grey levels.
        spread: variance of the look itself at gain 1, as a share of the tile's: 1 over the tiles it was learnt from.
    """
    expected = looks * gain[..., None, :]
    light = 1 + spread * gain[..., None, :] ** 2
    variance = (MODEL * expected) ** 2 + light * np.float32(noise**2 / block**2) + np.float32(2.0)
    cost = (tiles - expected) ** 2 / variance
    return cast(Floats, np.minimum(cost[..., 0] + cost[..., 1] + cost[..., 2], np.float32(CAP)))


def alike(many: Floats, one: Floats, *, ring: bool = False) -> Bools:
    """Which of many tiles [N, tile^2, C] show the same as one [tile^2, C], up to noise and a little light: [N].

    With ``ring``, whatever lies in the centre does not count.
    """
    side = round(one.shape[0] ** 0.5)
    step = next(step for step in (3, 4, 2, 1) if side % step == 0)
    layout = Layout(tile=side, item=side - 1, block=step)
    left, right = pooled(many, layout), pooled(one[None], layout)
    if ring:
        index = np.arange(layout.side)
        inside = (index >= layout.side // 5) & (index < layout.side - layout.side // 5)
        around = ~(inside[:, None] & inside[None, :]).ravel()
        left, right = left[:, around], right[:, around]
    gain = (left * right).sum((1, 2), keepdims=True) / ((left**2).sum((1, 2), keepdims=True) + 1e-3)
    far = np.abs(left * np.clip(gain, 0.9, 1.1) - right).max(2) > _FAR
    return cast(Bools, far.mean(1) < 0.02)


def covered(costs_D: Floats, side: int) -> Bools:
    """Which pixels something covers, by how badly each fits what lies beneath: bool [D], without specks and pinholes.

    Enclosed pixels count as covered unless a patch of them fits what lies beneath: through the lenses of glasses one
    sees the table.
    """
    strong = (costs_D > _STRONG).reshape(side, side)
    closed = cv2.morphologyEx(np.pad(strong.astype(np.uint8), 2), cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
    image = np.ascontiguousarray(closed[2:-2, 2:-2], np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(image, connectivity=8)
    for label in range(1, count):
        if stats[label, cv2.CC_STAT_AREA] < _SPECK:
            image[labels == label] = 0
    _, regions = cv2.connectedComponents(np.pad(1 - image, 1, constant_values=1).astype(np.uint8), connectivity=4)
    image[(regions[1:-1, 1:-1] != regions[0, 0]) & (image == 0)] = 1
    doubtful = ((image > 0) & ~strong).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(doubtful, connectivity=4)
    for label in range(1, count):
        patch = labels == label
        if stats[label, cv2.CC_STAT_AREA] > _SPECK and costs_D.reshape(side, side)[patch].mean() < _BARE:
            image[patch] = 0
    found: Bools = image.ravel() > 0
    return found
