"""Scenes: reading a home of cells from pixels, with the names that somebody taught.

This module knows an egocentric picture cut into tiles, and the gallery of looks that lessons filled. It does not know
how the picture is made, what lay there a minute ago, or why anybody looks: the same frame, pose and lessons give the
same scene. Nothing is known before it was taught.

    reader = SceneReader()
    reader.teach(frame, pose, "This is the hall lamp. It is on.", time)      what is ahead is named
    scene = reader.read(frame, pose, time)                                   Sighting("hall lamp", (4, 2), "on"), ...

A tile is a base (floor, wall, fixture, person) with at most one item in its centre. Bases are ranked by the ring of
the tile around the item, compared block by block with light fitted, and weighed with where fixtures were taught to
stand; then the centre is explained by the bare base or by an item upon it. The certainty of a sighting is how much
worse the next best explanation is. What no look explains is `UNKNOWN`; what is half hidden is left unread rather than
guessed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from ..errors import BadInput
from ..records import Cell, Image, Pose, Scene, Sighting
from .gallery import BODY, FIXTURE, FLOOR, GROUND, PERSON, WALL, Gallery, Look
from .lessons import Lesson, Naming, read_lesson
from .looks import CAP, Bank, Bools, Floats, Ints, Layout, Masks, Tiles, block_costs, covered, cut, pooled

UNKNOWN = "something"
"""Name of what is unlike everything that was taught."""
ME = "me"
"""What an item lies on that is held by the body itself."""

_CLEAR = 4.5  # mean cost of a ring's blocks, at most, if a tile is plain; 3 is expected
_HALF_HIDDEN = 0.9  # share of a ring that fits, below which what is not known to stand there is doubted
_DOUBT = 0.45  # certainty of what is half hidden, at most
_NEVER = 1e5  # cost of what cannot be
_OTHER_LIGHT = 20.0  # cost of supposing another light than what a tile itself shows
_EXCESS = 20.0  # cost of a centre beyond the expected one from which on items are tried
_STEPS = ((1, 0), (0, 1), (-1, 0), (0, -1))  # of headings 0 east, 1 south, 2 west, 3 north


@dataclass(frozen=True, slots=True)
class SceneSettings:
    """Sizes of the picture and how sure a reading must be."""

    layout: Layout = field(default_factory=Layout)
    candidates: int = 6
    """Bases that are looked at closely for each tile."""
    item_prior: float = 12.0
    """Cost of supposing an item where none is needed; costs are squared deviations, as of a log-likelihood times -2."""
    person_prior: float = 8.0
    """Cost of supposing a person."""
    moved_prior: float = 60.0
    """Cost of supposing that a fixture is not where it was taught to stand, or is where none was."""
    margin: float = 12.0
    """A reading that is better than the next by this much has certainty 1 - 1/e."""

    def __post_init__(self) -> None:
        if self.candidates < 1 or self.margin <= 0 or min(self.item_prior, self.person_prior, self.moved_prior) < 0:
            raise BadInput("SceneSettings wants candidates of 1 or more, margin above 0 and priors of 0 or more")


class _Reading(NamedTuple):
    """What one tile was read as."""

    base: int
    """Number of the look, -1 if none fits."""
    base_certainty: float
    item: str
    """Empty if the base is bare."""
    item_certainty: float
    readable: bool
    """False if an item could be there unseen."""


def cells_in_view(pose: Pose, view: int) -> list[Cell]:
    """Cell of each tile of an egocentric picture, row by row from the top left.

    Args:
        pose: of the body, which stands in the middle of the last row and looks up.
        view: tiles across and deep.
    """
    fx, fy = _STEPS[pose.heading % 4]
    rx, ry = _STEPS[(pose.heading + 1) % 4]
    return [
        (pose.x + ahead * fx + aside * rx, pose.y + ahead * fy + aside * ry)
        for ahead in range(view - 1, -1, -1)
        for aside in range(-(view // 2), view // 2 + 1)
    ]


class SceneReader:
    """Reads scenes from frames by what it was taught."""

    def __init__(self, settings: SceneSettings | None = None, gallery: Gallery | None = None) -> None:
        """Args: gallery: what was taught before; nothing by default."""
        self.settings = settings or SceneSettings()
        self.gallery = gallery or Gallery()
        self._layout = self.settings.layout
        self._masks = Masks(self._layout)
        view = self._layout.view
        self._ahead = (view - 2) * view + view // 2
        self._own = (view - 1) * view + view // 2
        self._before: dict[Cell, tuple[object, ...]] = {}
        self._index()

    # --------------------------------------------------------------------------- lessons

    def teach(self, frame: Image, pose: Pose, sentence: str, time: datetime) -> Lesson | None:
        """Learn names for what is ahead, or for the room around, from a sentence.

        Args:
            frame: uint8 [view * tile, view * tile, 3], RGB.
            pose: of the body while the sentence was said.
            sentence: ``This is the hall lamp. It is on.``; `lessons` lists the forms.
            time: when it was said.

        Returns:
            what was learnt, or None if the sentence names nothing or nothing can be seen ahead.

        Raises:
            BadInput: the frame has another size.
        """
        namings = read_lesson(sentence)
        if not namings:
            return None
        tiles = cut(frame, self._layout)
        cells = cells_in_view(pose, self._layout.view)
        self.gallery.walked.add((pose.x, pose.y))
        self.gallery.walked.update(self._looked_across(tiles, cells))
        if any(naming.kind != "room" for naming in namings) and tiles.hidden[self._ahead]:
            return None
        skip = {self._own, self._ahead}
        unnamed = {
            cell: tiles.pixels[index]
            for index, cell in enumerate(cells)
            if not tiles.hidden[index] and index not in skip and cell not in self.gallery.cells
        }
        self.gallery.see_ground(unnamed)
        self.gallery.add_body(tiles.pixels[self._own])
        self._index()
        taught = tuple(self._learn(naming, tiles, cells[self._ahead], pose) for naming in namings)
        self.gallery.see_ground({})
        self._index()
        return Lesson(time, pose, sentence, taught)

    def _looked_across(self, tiles: Tiles, cells: list[Cell]) -> list[Cell]:
        """Cells straight ahead beyond which something can be seen: no wall stands there."""
        view = self._layout.view
        column = [row * view + view // 2 for row in range(view - 2, -1, -1)]
        return [cells[near] for near, far in pairwise(column) if not (tiles.hidden[near] or tiles.hidden[far])]

    def _learn(self, naming: Naming, tiles: Tiles, cell: Cell, pose: Pose) -> Naming:
        name, kind, state = naming.name, naming.kind, naming.state
        if kind == "room":
            self.gallery.rooms[pose.x, pose.y] = name
            return naming
        tile = tiles.pixels[self._ahead]
        if kind == "person":
            self.gallery.add_person(name, tile)
        elif kind == "fixture":
            self.gallery.add_fixture(name, state, cell, tile, self._same_look(tiles, state))
        else:
            mask = self._item_mask(tiles)
            if kind == "thing" and mask is None:
                self.gallery.add_fixture(name, "", cell, tile, self._same_look(tiles, ""))
                kind = "fixture"
            else:
                centre = self._masks.centre_pixels
                self.gallery.add_item(name, tile[centre], np.ones(len(centre), bool) if mask is None else mask)
                kind = "item"
        self._index()
        return Naming(name, kind, state)

    def _same_look(self, tiles: Tiles, state: str) -> Look | None:
        """The fixture look that the tile ahead shares, if any."""
        best, least = None, 5.0
        costs = self._lesson_costs(tiles, self._bank.looks).mean(1)
        for look, cost in zip(self.gallery.looks, costs, strict=True):
            if look.role == FIXTURE and look.state == state and cost < least:
                best, least = look, float(cost)
        return best

    def _lesson_costs(self, tiles: Tiles, looks: Floats) -> Floats:
        """Cost of each block of the tile ahead against looks [N, D, C] in the same light: [N, D]."""
        tile = tiles.colours[self._ahead]
        return block_costs(tile, looks, np.ones((len(looks), 3), np.float32), tiles.noise, self._layout.block, 1.0)

    def _item_mask(self, tiles: Tiles) -> Bools | None:
        """The pixels of the centre, bool [item^2], that an item ahead covers.

        None if it lies on no ground or person that is known, or if nothing lies there: then it is no item.
        """
        known = [i for i, look in enumerate(self.gallery.looks) if look.role in (GROUND, PERSON)]
        if not known:
            return None
        ring = self._lesson_costs(tiles, self._bank.looks[known])[:, self._masks.ring].mean(1)
        best = int(ring.argmin())
        if ring[best] > 5:
            return None
        centre = self._masks.centre_pixels
        base = self.gallery.looks[known[best]].colours[centre]
        tile = tiles.pixels[self._ahead][centre]
        costs = block_costs(tile, base, np.ones(3, np.float32), tiles.noise, 1, 0.1)
        mask = covered(costs, self._layout.item)
        return mask if mask.sum() >= 8 else None

    # ---------------------------------------------------------------------------- reading

    def read(self, frame: Image, pose: Pose, time: datetime) -> Scene:
        """Read one frame.

        Args:
            frame: uint8 [view * tile, view * tile, 3], RGB.
            pose: of the body.
            time: when the frame was taken.

        Returns:
            fixtures, people and items in view, and ``wall`` for what is neither floor nor named; cells that are seen
            and have no sighting are free floor. Nothing is read before something was taught.

        Raises:
            BadInput: the frame has another size.
        """
        tiles = cut(frame, self._layout)
        cells = cells_in_view(pose, self._layout.view)
        shown = np.flatnonzero(~tiles.hidden)
        if not len(self._bank) or not len(shown):
            visible = frozenset(cells[i] for i in shown)
            return Scene(time, pose, (), frozenset(), visible, 1.0)
        readings = self._read_tiles(tiles, [cells[i] for i in shown], shown)
        return self._scene(readings, [cells[i] for i in shown], pose, time)

    def _read_tiles(self, tiles: Tiles, cells: list[Cell], shown: Ints) -> list[_Reading]:
        """Read the tiles that are not hidden: most are plain at first glance, the others are looked at closely."""
        tiles_TDC, noise, ring = tiles.colours[shown], tiles.noise, self._masks.ring
        quick, gains = self._bank.rank(tiles_TDC, noise)
        prior, own = self._place_priors(cells, int(np.flatnonzero(shown == self._own)[0]) if self._own in shown else -1)
        order = quick * (3 * ring.sum()) + prior
        rows = np.arange(len(cells))
        first = order.argmin(1)
        margin = self._margins(order, first)
        fit = self._bank.fit(tiles_TDC, first[:, None], gains[rows, first][:, None], noise, refine=False)
        blocks, gain, looks = fit.blocks[:, 0], fit.gain[:, 0], first
        clear = (blocks[:, ring].mean(1) < _CLEAR) & (margin > 3 * self.settings.margin) & ~self._stateful[first]
        hard = np.flatnonzero(~clear)
        if len(hard):
            count = min(self.settings.candidates, len(self._bank))
            picks = np.argpartition(order[hard] - 1e6 * own[hard], count - 1, axis=1)[:, :count]
            near = gains[hard[:, None], picks]
            close = self._bank.fit(tiles_TDC[hard], picks, near, noise)
            light = self._light_costs(close.gain, hard, gain, clear, shown)
            centre = np.minimum(close.blocks[:, :, ~ring].sum(2), 6.0 * (~ring).sum())
            cost = close.blocks[:, :, ring].sum(2) + centre + prior[hard[:, None], picks] + light
            best = cost.argmin(1)
            at = np.arange(len(hard))
            looks[hard], blocks[hard], gain[hard] = picks[at, best], close.blocks[at, best], close.gain[at, best]
            margin[hard] = self._margins(cost, best, picks)
        fits = (blocks[:, ring] < CAP / 2).mean(1)
        found = self._items(tiles.pixels[shown], looks, gain, noise)
        helped = self._items(tiles.pixels[shown], looks, self._shared_light(gain, looks, clear, shown), noise)
        found = [_better(one, other) for one, other in zip(found, helped, strict=True)]
        out = [self._decide(int(looks[t]), float(margin[t]), float(fits[t]), found[t]) for t in rows]
        for t in np.flatnonzero(fits < _HALF_HIDDEN):
            out[t] = self._doubted(out[t], bool(own[t, looks[t]]))
        return out

    def _margins(self, cost: Floats, best: Ints, picks: Ints | None = None) -> Floats:
        """How much worse the best look of another meaning is, [T]."""
        rows = np.arange(len(best))
        meaning = np.broadcast_to(self._meanings, cost.shape) if picks is None else self._meanings[picks]
        other = np.where(meaning == meaning[rows, best][:, None], 1e3 + cost[rows, best][:, None], cost)
        return np.asarray(other.min(1) - cost[rows, best], np.float32)

    def _place_priors(self, cells: list[Cell], body: int) -> tuple[Floats, Bools]:
        """Cost of each look on each cell by where fixtures were taught, and which looks are the cell's own: [T, N].

        ``body`` is the number of the tile that shows the body itself, -1 if none does.
        """
        kinds = self._kinds
        prior = np.broadcast_to(self._role_prior, (len(cells), len(kinds))).copy()
        own = np.zeros(prior.shape, bool)
        for t, cell in enumerate(cells):
            if t == body:
                own[t] = self._role_prior == _NEVER
                prior[t] = np.where(own[t], 0.0, _NEVER)
                continue
            kind = self._kind_of.get(cell)
            if kind is not None:
                own[t] = kinds == kind
                prior[t] = np.where(own[t], 0.0, prior[t] + self.settings.moved_prior)
            elif near := self._kinds_beside.get(cell):
                for beside in near:
                    prior[t][kinds == beside] = 4.0
        return prior, own

    def _light_costs(self, gain_HKC: Floats, hard: Ints, gain_TC: Floats, clear: Bools, shown: Ints) -> Floats:
        """Cost of a light that no clear neighbour has, [H, K]: a dark lamp is not a bright one in the dark."""
        view = self._layout.view
        where = np.stack([shown // view, shown % view], 1)
        plain = np.flatnonzero(clear)
        if not len(plain):
            return np.zeros(gain_HKC.shape[:2], np.float32)
        near = np.abs(where[hard][:, None] - where[plain][None]).max(2) <= 2
        apart = np.log(gain_HKC)[:, :, None] - np.log(gain_TC[plain])[None, None]
        apart = ((apart / 0.15) ** 2).sum(3)
        apart = np.where(near[:, None], apart, np.inf).min(2)
        return np.minimum(np.where(np.isfinite(apart), apart, 0.0), 30.0).astype(np.float32)

    def _shared_light(self, gain_TC: Floats, looks: Ints, clear: Bools, shown: Ints) -> Floats:
        """The light of each tile, helped by its clear neighbours where its own look says little of a colour: [T, C].

        A red shelf does not tell how bright blue would be. Neighbours in another light, beyond a door, do not count.
        """
        view = self._layout.view
        where = np.stack([shown // view, shown % view], 1)
        energy = self._bank.energy[looks]
        rows = np.arange(len(looks))
        strongest = (energy * gain_TC**2).argmax(1)
        ratio = gain_TC[:, strongest].T / gain_TC[rows, strongest][:, None]  # [T, T]: of each other to the own
        near = (np.abs(where[:, None] - where[None]).max(2) <= 2) & clear[None] & (np.abs(np.log(ratio)) < 0.25)
        weight = np.where(near, 0.15, 0.0) + np.eye(len(looks))
        total = weight @ energy
        return np.asarray((weight @ (energy * gain_TC)) / np.maximum(total, 1e-6), np.float32)

    def _items(self, pixels: Floats, bases: Ints, gain_TC: Floats, noise: float) -> list[Floats | None]:
        """Costs [1 + I] of the bare base and of each item on it, for tiles whose centre is not bare; else None."""
        found: list[Floats | None] = [None] * len(bases)
        seen = pixels[:, self._masks.centre_pixels]
        bare = block_costs(seen, self._centres[bases], gain_TC, noise, 1, 0.3)
        tests = np.flatnonzero(bare.sum(1) - 3 * bare.shape[1] > _EXCESS)
        if not len(tests) or not len(self._item_colours):
            return found
        on = block_costs(seen[tests][:, None], self._item_colours[None], gain_TC[tests][:, None], noise, 1, 1.0)
        total = np.where(self._item_masks[None], on, bare[tests][:, None]).sum(2) + self.settings.item_prior
        for t, costs in zip(tests, total, strict=True):
            found[int(t)] = np.concatenate([bare[t].sum(keepdims=True), costs])
        return found

    def _decide(self, base: int, margin: float, ring_share: float, items: Floats | None) -> _Reading:
        """Weigh the explanations of one tile."""
        if ring_share < 0.4:
            return _Reading(-1, 0.0, "", 0.0, ring_share < 0.15)  # nothing fits: something new; some does: hidden
        certainty = self._certainty(margin) * min(1.0, ring_share / 0.6)
        if items is None:
            return _Reading(base, certainty, "", 1.0, True)
        ranked = np.argsort(items)
        first, second = int(ranked[0]), int(ranked[1])
        prior = self.settings.item_prior if first else 0.0
        explained = self._explained(float(items[first]) - prior)
        if explained < 0.5:
            known = ring_share > 0.9
            return _Reading(base, certainty, UNKNOWN if known else "", 0.3, known)
        sure = self._certainty(float(items[second] - items[first])) * min(1.0, explained / 0.7)
        if first == 0:
            return _Reading(base, certainty, "", sure, explained > 0.7)
        return _Reading(base, certainty, self.gallery.items[first - 1].name, sure, True)

    def _doubted(self, reading: _Reading, own: bool) -> _Reading:
        """A reading of a half hidden tile: only what is known to stand there is still believed."""
        if reading.base < 0 or own:
            return reading._replace(item_certainty=min(reading.item_certainty, _DOUBT))
        if self.gallery.looks[reading.base].role == FIXTURE:
            return _Reading(-1, 0.0, "", 0.0, False)
        return reading._replace(
            base_certainty=min(reading.base_certainty, _DOUBT), item_certainty=min(reading.item_certainty, _DOUBT)
        )

    def _explained(self, cost: float) -> float:
        """Share of the centre's pixels that fit, by their summed cost."""
        count = len(self._masks.centre_pixels)
        return float(np.clip(1 - (cost / count - 3) / (CAP - 3), 0, 1))

    def _certainty(self, margin: float) -> float:
        return float(1 - np.exp(-max(0.0, margin) / self.settings.margin))

    # --------------------------------------------------------------------------- the scene

    def _scene(self, readings: list[_Reading], cells: list[Cell], pose: Pose, time: datetime) -> Scene:
        sightings: list[Sighting] = []
        seen: set[Cell] = set()
        unreadable: set[Cell] = set()
        for reading, cell in zip(readings, cells, strict=True):
            (seen if reading.readable else unreadable).add(cell)
            sightings += self._sightings(reading, cell, pose)
        now: dict[Cell, tuple[object, ...]] = dict.fromkeys(seen, ())
        for sighting in sightings:
            if sighting.cell in now:
                now[sighting.cell] += (sighting.name, sighting.state)
        both = [cell for cell in now if cell in self._before]
        changed = sum(now[cell] != self._before[cell] for cell in both) + 0.5 * (len(now) - len(both))
        novelty = 1.0 if not self._before else min(1.0, changed / max(1, len(now)))
        self._before = now
        return Scene(time, pose, tuple(sightings), frozenset(seen), frozenset(unreadable), novelty)

    def _sightings(self, reading: _Reading, cell: Cell, pose: Pose) -> list[Sighting]:
        own = cell == (pose.x, pose.y)
        if reading.base < 0:
            known = cell in self.gallery.cells or own
            return [] if known or not reading.readable else [Sighting(UNKNOWN, cell, certainty=0.2)]
        look = self.gallery.looks[reading.base]
        on, found = "", []
        if look.role == FIXTURE:
            on = self._fixture_name(cell, look.kind)
            found.append(Sighting(on, cell, look.state, certainty=reading.base_certainty))
        elif look.role == PERSON:
            on = look.name
            found.append(Sighting(on, cell, certainty=reading.base_certainty))
        elif look.state == WALL and not own:
            found.append(Sighting(WALL, cell, certainty=reading.base_certainty))
        if reading.item:
            found.append(Sighting(reading.item, cell, on=ME if own else on, certainty=reading.item_certainty))
        return found

    def _fixture_name(self, cell: Cell, kind: int) -> str:
        """The name of the fixture on a cell: as taught there, else the nearest taught one of that kind."""
        name = self.gallery.cells.get(cell)
        if name is not None and self.gallery.kinds[name] == kind:
            return name
        alike = [
            (abs(x - cell[0]) + abs(y - cell[1]), other)
            for (x, y), other in self.gallery.cells.items()
            if self.gallery.kinds[other] == kind
        ]
        return min(alike)[1] if alike else UNKNOWN

    # ------------------------------------------------------------------------------- state

    def to_state(self) -> dict[str, Any]:
        """What was taught, as JSON-able values."""
        return self.gallery.to_state()

    @classmethod
    def from_state(cls, state: Mapping[str, Any], settings: SceneSettings | None = None) -> SceneReader:
        """A reader that reads as the one whose `to_state` this is.

        Raises:
            BadInput: of another version, damaged, or taught with tiles of another size.
        """
        return cls(settings, Gallery.from_state(state))

    def _index(self) -> None:
        """Arrays of all looks, after the gallery changed."""
        gallery, layout, centre = self.gallery, self._layout, self._masks.centre_pixels
        pixels, small = layout.tile**2, layout.item**2
        shapes = [(look.colours.shape, pixels) for look in gallery.looks]
        shapes += [(item.colours.shape, small) for item in gallery.items]
        for shape, count in shapes:
            if shape != (count, 3):
                raise BadInput(f"expected looks of {count} pixels, got {shape[0]}; they were taught with other sizes")
        looks = np.array([look.colours for look in gallery.looks], np.float32).reshape(-1, pixels, 3)
        counts = [look.count for look in gallery.looks]
        self._bank = Bank(pooled(looks, layout), counts, layout, self._masks)
        self._centres = looks[:, centre]
        self._kinds = np.array([look.kind for look in gallery.looks], np.int64)
        meanings = [look.meaning for look in gallery.looks]
        self._meanings = np.array([meanings.index(meaning) for meaning in meanings], np.int64)
        kinds = [(look.role, look.kind) for look in gallery.looks]
        self._stateful = np.array(
            [look.role == FIXTURE and kinds.count(k) > 1 for look, k in zip(gallery.looks, kinds, strict=True)], bool
        )
        priors = {GROUND: 0.0, PERSON: self.settings.person_prior, FIXTURE: self.settings.moved_prior, BODY: _NEVER}
        self._role_prior = np.array([priors[look.role] for look in gallery.looks], np.float32)
        self._item_colours = np.array([item.colours for item in gallery.items], np.float32).reshape(-1, small, 3)
        self._item_masks = np.array([item.mask for item in gallery.items], bool).reshape(-1, small)
        self._kind_of = {cell: gallery.kinds[name] for cell, name in gallery.cells.items()}
        self._kinds_beside: dict[Cell, set[int]] = {}
        for (x, y), kind in self._kind_of.items():
            for dx, dy in _STEPS:
                self._kinds_beside.setdefault((x + dx, y + dy), set()).add(kind)


def _better(own: Floats | None, helped: Floats | None) -> Floats | None:
    """The costs in whichever light explains a tile better; that of its neighbours only if it does so clearly."""
    if own is None or helped is None:
        return None
    return helped if helped.min() + _OTHER_LIGHT < own.min() else own


__all__ = ["FLOOR", "ME", "UNKNOWN", "WALL", "SceneReader", "SceneSettings", "cells_in_view"]
