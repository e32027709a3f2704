"""From what is seen now to what has changed: compares each scene with what the world model believes.

A `SceneWatcher` knows the newest scenes and the model's expectations. It yields events whose ``media["scene"]`` holds
all that `fold.Fold` needs; it never writes to the model, so that what is believed comes from the journal alone. What it
holds itself (doubts, and how long things were seen unchanged since the last look) is lost at a crash, and costs no more
than the sightings of the last half hour.

``media["scene"]`` (times are seconds since the epoch, cells ``[x, y]``)
    v, kind    1; ``change`` or ``look``
    t, step    time of the scene, seconds between scenes
    pose, room ``[x, y, heading]``; room in which the agent stands, or null
    act        what the agent did just before: ``{"act", "cell", "thing", "place"}``, or null
    things     items that appeared or moved: ``name, cell, place, carrier, first, last, certainty, near, clear, others,
               missing``
    gone       items no longer where they were: ``name, cell, place, last, since, near``
    fixtures   new or changed ones: ``name, cell, state, was, first, last, near, by``
    people     ``name, kind`` (``entered`` or ``left``), ``room, cell, first, last, since``
    spans      seen as before since the last look, in a change until it was: ``[what, name, cell, value, first, last,
               times, runs]``, runs ``[[first, last], ...]`` of unbroken view
    rooms      ``[room, first, last]``: most of the room was in view
    cells      ``{"free": [...], "wall": [...]}``: cells of the map seen for the first time, or corrected
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Any, Protocol

from ..records import Cell, Event, Image, KeyFrame, Scene, Sighting, Trust
from .doubt import Caution, Doubt, Doubts
from .fold import FIXTURE, ITEM, PERSON, Fold, seconds
from .geography import FREE, ME, WALL, near
from .glance import UNKNOWN, Found, View, is_item, sentences
from .people import PeopleWatch
from .spans import Spans
from .stays import Life, Stay

LOOK_EVERY_S = 30 * 60
LOOK_AT_LEAST_S = 8 * 60
"""Leaving a room is no reason for another look event within this time."""
IN_VIEW = 0.5
"""Share of a room's cells that must be readable for the room to count as watched."""
_EMPTY_CERTAINTY = 0.8
"""Of one look that shows no item: 1 in 60 misses one that is there."""
_LOOKS_AT_NEW = 3
"""Looks at a fixture that was not shown in a lesson, or one more of a kind of item than there were."""
_JUST_SEEN_STEPS = 10
_LOOKS_AT_VANISHED = 5
_CELLS_AT_ONCE = 12
_CELLS_WAIT_S = 5 * 60
_ACTS = {"pick": "pick_up", "put": "put_down", "use": "use", "give": "give", "discard": "discard"}


class Believer(Protocol):
    """What the watcher asks: the model, level with the journal."""

    @property
    def fold(self) -> Fold:
        """What the records say."""


class SceneWatcher:
    """Feeds on scenes, yields what changed.

    Args:
        model: what is believed; must have taken in all events yielded so far before the next scene is fed.
        caution: how sure a difference must be.
        step_s: seconds between scenes.
    """

    def __init__(self, model: Believer, caution: Caution | None = None, *, step_s: int = 60) -> None:
        self._model = model
        self._step_s = step_s
        self._doubts = Doubts(caution or Caution())
        self._spans = Spans(step_s)
        self._views: dict[str, list[list[int]]] = {}
        self._cells: dict[Cell, str] = {}
        self._odd_cells: dict[Cell, int] = {}
        self._cells_since: int | None = None
        self._clear: dict[Hashable, int] = {}
        self._people = PeopleWatch(self._doubts, self._spans, step_s)
        self._empty = 0
        self._looked: int | None = None
        self._room: str | None = None
        self._last: Scene | None = None

    # ------------------------------------------------------------------- feeding

    def feed(
        self,
        scene: Scene,
        acted: str | None = None,
        *,
        frame: Image | None = None,
        holding: bool | None = None,
        lesson: bool = False,
    ) -> list[Event]:
        """Take in the next scene.

        Args:
            scene: what was read from the newest frame.
            acted: what the body did since the scene before: ``pick_up``, ``put_down``, ``use``, ``give``, ``discard``;
                any other word for what moves nothing.
            frame: the frame, uint8 [height, width, 3]; kept as evidence of a change.
            holding: whether the gripper now feels something; None if it cannot tell.
            lesson: things are being shown: learn the map and the fixtures, not where items and people are.

        Returns:
            At most one event of changes and one look.
        """
        view = View(scene, self._model.fold)
        found = Found()
        acted = _ACTS.get(re.split(r"[ _]", acted or "")[0].lower())
        self._people.see(view)
        self._map(view)
        self._fixtures(view, found, acted, lesson)
        if not lesson:
            self._own_act(view, found, acted, holding)
            self._items(view, found)
            self._people.compare(view, found)
            self._parting(view, found)
        found.things.sort(key=lambda entry: entry["first"])
        self._watch_rooms(view)
        events = []
        if found.any or self._cells_due(view.t):
            events.append(self._change(view, found, frame))
        room = view.fold.map.room_at((scene.pose.x, scene.pose.y))
        since = view.t if self._looked is None else self._looked
        leaving = room != self._room and self._room is not None
        if view.t - since >= LOOK_EVERY_S or (leaving and view.t - since >= LOOK_AT_LEAST_S):
            events += self.flush()
        self._looked = since if self._looked is None else self._looked
        self._room, self._last = room, scene
        for cell in scene.seen:
            if view.is_clear(cell) and cell not in view.items:
                self._clear[cell] = view.t
        for name, sighting in view.people.items():
            if sighting.cell not in view.items:
                self._clear[name] = view.t
        return events

    def flush(self) -> list[Event]:
        """What was seen unchanged since the last look, as one event; nothing if nothing was."""
        scene = self._last
        if scene is None or not (self._spans or self._views or self._cells):
            return []
        t = seconds(scene.time)
        spans = self._spans.take()
        rooms: list[list[Any]] = [[room, *run] for room, runs in sorted(self._views.items()) for run in runs]
        media = self._media("look", t, scene, spans=spans, rooms=rooms, cells=self._take_cells())
        self._views, self._looked = {}, t
        names = sorted({str(room) for room, _, _ in rooms})
        text = f"looked at {', '.join(names)}: as before" if names else "looked around: as before"
        return [Event(scene.time, scene.time, "eyes", Trust.SEEN, text, media={"scene": media})]

    # ----------------------------------------------------------------- the parts

    def _map(self, view: View) -> None:
        """Cells seen for the first time; corrections after readings that agree. Where the body stands, it is free."""
        known, own = view.fold.map, (view.scene.pose.x, view.scene.pose.y)
        for cell in view.scene.seen | {own}:
            base = view.bases.get(cell)
            before = self._cells.get(cell) or known.kind(cell)
            if base is not None and cell not in view.walls and cell != own:
                if before == base.name:
                    self._odd_cells.pop(cell, None)
                continue
            kind = WALL if cell in view.walls and cell != own else FREE
            self._doubts.clear((FIXTURE, cell))
            if before == kind or (cell == own and cell in known.graph):
                self._odd_cells.pop(cell, None)
                continue
            odd = self._odd_cells[cell] = self._odd_cells.get(cell, 0) + 1
            if before is None or odd >= _LOOKS_AT_NEW or cell == own:
                self._cells[cell] = kind
                self._odd_cells.pop(cell, None)
                self._cells_since = view.t if self._cells_since is None else self._cells_since

    def _fixtures(self, view: View, found: Found, acted: str | None, lesson: bool) -> None:
        fold = view.fold
        for cell, sighting in view.bases.items():
            if view.role(sighting) != FIXTURE or sighting.name == UNKNOWN:
                continue
            name, state = sighting.name, sighting.state
            where = (FIXTURE, name)
            life = fold.fixtures.get(name)
            if fold.map.fixtures.get(cell) != name:
                if life is not None and not any(near(cell, other) for other in fold.map.cells_of(name)):
                    continue  # looks like one that stands elsewhere
                doubt = self._doubts.look((FIXTURE, cell), name, view.t, sighting.certainty)
                if self._doubts.settled(doubt) and doubt.looks >= _LOOKS_AT_NEW:
                    self._doubts.clear((FIXTURE, cell))
                    entry = self._fixture_entry(view, found, sighting, doubt, None)
                    found.fixtures.append(entry | ({"lesson": True} if lesson else {}))
                continue
            now = None if life is None else life.now
            if any(entry["name"] == name for entry in found.fixtures):
                continue
            if lesson or not state or (now is not None and now.value == state):
                self._doubts.clear(where)
                if not lesson:
                    self._spans.see(FIXTURE, name, cell, state, view.t)
                continue
            own = acted == "use" and view.ahead in fold.map.cells_of(name)
            doubt = self._doubts.look(where, state, view.t, sighting.certainty, sighting=sighting)
            own = doubt.details["own"] = doubt.details.get("own", False) or own
            if self._doubts.settled(doubt, explained=own):
                self._doubts.clear(where)
                was = None if now is None else now.value
                found.fixtures.append(self._fixture_entry(view, found, sighting, doubt, was, own=own))

    def _own_act(self, view: View, found: Found, acted: str | None, holding: bool | None) -> None:
        cell, fold = view.ahead, view.fold
        if acted is None or self._last is None:
            self._empty_hand(view, found, holding)
            return
        self._empty = 0
        act: dict[str, Any] = {"act": acted, "cell": list(cell), "thing": "", "place": ""}
        held, seen = fold.objects.held, view.items.get(cell)
        if acted == "pick_up":
            lying = [item.name for item in fold.objects.at_cell(cell)]
            lying = lying or [s.name for s in self._last.sightings if s.cell == cell and is_item(s, fold)]
            if held is not None or holding is False or (holding is None and seen is not None) or not lying:
                return
            act["thing"] = lying[0]
            self._spans.end(found.spans, ITEM, lying[0])
        elif acted == "use":
            base = view.bases.get(cell)
            act["thing"] = fold.map.fixtures.get(cell) or (base.name if base else "")
        else:
            if held is None or holding is True or (holding is None and acted == "put_down" and seen is None):
                return
            act["thing"] = held.name
            person = self._people.at(cell)
            base = view.bases.get(cell)
            if base is not None and view.role(base) == PERSON:
                person = base.name
            act["place"] = (person or "") if acted == "give" else fold.map.place_at(cell)
            if acted == "give" and not person:
                return
        view.own = act
        found.act = act

    def _empty_hand(self, view: View, found: Found, holding: bool | None) -> None:
        """The gripper feels nothing though something is believed to be in it: it was lost."""
        self._empty = self._empty + 1 if holding is False and view.fold.objects.held is not None else 0
        if self._empty >= 2:
            found.act = {"act": "lost", "cell": list(view.ahead), "thing": "", "place": ""}
            self._empty = 0

    def _items(self, view: View, found: Found) -> None:
        fold, t = view.fold, view.t
        believed: dict[Hashable, list[tuple[Life, Stay]]] = {}
        for item, stay in fold.objects.believed():
            if stay.carrier or stay.cell is not None:
                believed.setdefault(stay.carrier or stay.cell, []).append((item, stay))
        own_cell = tuple(view.own["cell"]) if view.own and view.own["act"] != "use" else None
        for cell, sighting in view.items.items():
            carrier = view.carrier(sighting)
            here = believed.get(carrier or cell, [])
            if sighting.name == UNKNOWN:
                view.covered.add(cell)
                continue
            if any(item.name == sighting.name for item, _ in here):
                self._doubts.clear((ITEM, carrier or cell))
                self._spans.see(ITEM, sighting.name, cell, carrier, t, key=carrier or cell)
            elif cell == own_cell:
                continue
            else:
                self._appeared(view, found, sighting, carrier)
        for cell in view.scene.seen:
            if cell not in view.items and view.is_clear(cell):
                self._doubts.clear((ITEM, cell))
        for item, stay in [*fold.objects.believed(), *fold.objects.unverified()]:
            if stay.value != ME and stay.cell is not None and stay.cell != own_cell:
                self._maybe_gone(view, found, item.name, stay)

    def _appeared(self, view: View, found: Found, sighting: Sighting, carrier: str) -> None:
        """An item where none of its name was believed to be."""
        others = [cell for cell, s in view.items.items() if s.name == sighting.name and cell != sighting.cell]
        missing = [
            item.now.cell
            for item in view.fold.objects.named(sighting.name)
            if item.now and item.now.cell and not item.now.carrier and item.now.gone is None
            if view.is_clear(item.now.cell) and item.now.cell not in view.items
        ]
        where = (ITEM, carrier or sighting.cell)
        same = view.fold.objects.named(sighting.name)
        seen_now = [i for i in same if i.now is not None and i.now.gone is None and i.now.cell in others]
        doubt = self._doubts.look(
            where,
            sighting.name,
            view.t,
            sighting.certainty,
            sighting=sighting,
            others=others,
            missing=missing,
            carrier=carrier,
        )
        extra = bool(same) and len(seen_now) == len(same)  # one more than there are: a twin, or a misread
        enough = doubt.looks >= _LOOKS_AT_NEW or not (extra or self._is_sudden(doubt))
        if self._doubts.settled(doubt, explained=bool(carrier) and not extra) and enough:
            self._doubts.clear(where)
            found.things.append(self._thing_entry(view, found, doubt))

    def _is_sudden(self, doubt: Doubt) -> bool:
        """Things do not appear by themselves: where a moment ago nothing was, somebody must stand beside."""
        cell = doubt.details["sighting"].cell
        clear = self._clear.get(cell)
        just_clear = clear is not None and doubt.first - clear <= _JUST_SEEN_STEPS * self._step_s
        known = [item.now for item in self._model.fold.objects.named(str(doubt.reading)) if item.now is not None]
        if any(stay.cell == cell and stay.gone is not None and not stay.carrier for stay in known):
            return False  # back where it was missed
        return just_clear and not doubt.details["carrier"] and not self._people.near((cell,), doubt.first)

    def _maybe_gone(self, view: View, found: Found, name: str, stay: Stay) -> None:
        """An item not seen on the cell on which it was believed to be: gone if the cell was read as empty."""
        cell, t = stay.cell, view.t
        assert cell is not None
        where: tuple[str, Hashable, str] = ("gone", stay.carrier or cell, name)
        if stay.carrier:
            person = view.people.get(stay.carrier)
            if person is None or person.cell in view.scene.unreadable:
                return
            seen = view.items.get(person.cell)
            certainty = min(person.certainty, _EMPTY_CERTAINTY)
        else:
            if not view.is_clear(cell):
                return
            base = view.bases.get(cell)
            seen = view.items.get(cell)
            certainty = min(base.certainty, _EMPTY_CERTAINTY) if base is not None else _EMPTY_CERTAINTY
        if seen is not None and (seen.name == name or seen.name == UNKNOWN):
            self._doubts.clear(where)
            return
        if seen is not None:
            certainty = min(certainty, seen.certainty)
        doubt = self._doubts.look(where, name, t, certainty, cell=cell, place=stay.value)
        moved = any(e["name"] == name and e["carrier"] for e in found.things)
        if self._doubts.settled(doubt, explained=moved) and (moved or self._is_plausible(doubt, name, stay)):
            self._doubts.clear(where)
            found.gone.append(self._gone_entry(view, found, name, doubt, stay))

    def _is_plausible(self, doubt: Doubt, name: str, stay: Stay) -> bool:
        """Things do not vanish by themselves: with nobody beside it, one that was just seen is looked for longer."""
        assert stay.cell is not None
        last = self._spans.last(ITEM, name, stay.carrier or stay.cell) or stay.last
        unwatched = doubt.first - last > _JUST_SEEN_STEPS * self._step_s
        return unwatched or doubt.looks >= _LOOKS_AT_VANISHED or bool(self._people.near((stay.cell,), doubt.first))

    def _parting(self, view: View, found: Found) -> None:
        """Differences that went out of view after one good look."""
        seen = view.scene.seen

        def in_view(where: Hashable) -> bool:
            assert isinstance(where, tuple)
            what, spot = where[0], where[1]
            if what == FIXTURE and not isinstance(spot, tuple):
                return any(cell in seen for cell in view.fold.map.cells_of(spot))
            if what in (FIXTURE, PERSON, "left"):
                return True
            return spot in seen if isinstance(spot, tuple) else spot in view.people

        for where, doubt in self._doubts.parting(in_view, view.t):
            assert isinstance(where, tuple)
            if where[0] == ITEM and not self._is_extra(view.fold, doubt):
                if self._is_sudden(doubt) and doubt.looks < _LOOKS_AT_NEW:
                    continue
                found.things.append(self._thing_entry(view, found, doubt))
            elif where[0] == FIXTURE:
                life = view.fold.fixtures[where[1]]
                was = None if life.now is None else life.now.value
                own = doubt.details.get("own", False)
                found.fixtures.append(self._fixture_entry(view, found, doubt.details["sighting"], doubt, was, own=own))
            elif where[0] == "gone":
                name = where[2]
                for item in view.fold.objects.named(name):
                    for stay in item.stays[-2:]:
                        same = stay.cell == doubt.details["cell"] and stay.gone is None
                        if same and self._is_plausible(doubt, name, stay):
                            found.gone.append(self._gone_entry(view, found, name, doubt, stay))

    def _is_extra(self, fold: Fold, doubt: Doubt) -> bool:
        same = fold.objects.named(str(doubt.reading))
        others = doubt.details["others"]
        return bool(same) and all(i.now is not None and i.now.cell in others for i in same)

    def _watch_rooms(self, view: View) -> None:
        t = view.t
        for room, share in view.coverage.items():
            if share >= IN_VIEW:
                runs = self._views.setdefault(room, [])
                if runs and t - runs[-1][1] <= self._step_s:
                    runs[-1][1] = t
                else:
                    runs.append([t, t])

    # ------------------------------------------------------------------- entries

    def _fixture_entry(
        self, view: View, found: Found, sighting: Sighting, doubt: Doubt, was: str | None, *, own: bool = False
    ) -> dict[str, Any]:
        cells = view.fold.map.cells_of(sighting.name) or (sighting.cell,)
        self._spans.end(found.spans, FIXTURE, sighting.name)
        return {
            "name": sighting.name, "cell": list(sighting.cell), "state": sighting.state, "was": was,
            "first": doubt.first, "last": doubt.last, "near": self._people.near(cells, doubt.first),
            "by": ME if own else None, "certainty": round(doubt.sure, 3),
        }  # fmt: skip

    def _thing_entry(self, view: View, found: Found, doubt: Doubt) -> dict[str, Any]:
        sighting: Sighting = doubt.details["sighting"]
        carrier: str = doubt.details["carrier"]
        cell = sighting.cell
        clear = self._clear.get(carrier or cell)
        self._spans.end(found.spans, ITEM, sighting.name)
        return {
            "name": sighting.name, "cell": list(cell), "on": sighting.on, "carrier": carrier,
            "place": carrier or view.fold.map.place_at(cell, sighting.on), "first": doubt.first, "last": doubt.last,
            "certainty": round(doubt.sure, 3), "near": self._people.near((cell,), doubt.first), "clear": clear,
            "others": [list(c) for c in sorted(doubt.details["others"])],
            "missing": [list(c) for c in sorted(doubt.details["missing"])],
        }  # fmt: skip

    def _gone_entry(self, view: View, found: Found, name: str, doubt: Doubt, stay: Stay) -> dict[str, Any]:
        assert stay.cell is not None
        last = self._spans.end(found.spans, ITEM, name, stay.carrier or stay.cell)
        last = stay.last if last is None else max(last, stay.last)
        return {
            "name": name, "cell": list(stay.cell), "place": stay.value, "last": last, "since": doubt.first,
            "certainty": round(doubt.sure, 3),
            "near": self._people.near((stay.cell,), doubt.first) if doubt.first - last <= 2 * self._step_s else [],
        }  # fmt: skip

    def _change(self, view: View, found: Found, frame: Image | None) -> Event:
        scene = view.scene
        parts = {"act": found.act, "things": found.things, "gone": found.gone, "fixtures": found.fixtures,
                 "people": found.people, "spans": found.spans, "cells": self._take_cells()}  # fmt: skip
        media = self._media("change", view.t, scene, **parts)
        text = "; ".join(sentences(found, view.fold)) or "saw more of the home"
        frames = () if frame is None or not found.any else (KeyFrame(scene.time, frame, scene.novelty),)
        return Event(scene.time, scene.time, "eyes", Trust.SEEN, text, frames, media={"scene": media})

    def _media(self, kind: str, t: int, scene: Scene, **parts: Any) -> dict[str, Any]:
        pose = scene.pose
        room = self._model.fold.map.room_at((pose.x, pose.y))
        base = {
            "v": 1,
            "kind": kind,
            "t": t,
            "step": self._step_s,
            "pose": [pose.x, pose.y, pose.heading],
            "room": room,
        }
        return base | {key: value for key, value in parts.items() if value}

    def _cells_due(self, t: int) -> bool:
        if self._cells_since is None:
            return False
        return len(self._cells) >= _CELLS_AT_ONCE or t - self._cells_since >= _CELLS_WAIT_S

    def _take_cells(self) -> dict[str, list[list[int]]]:
        cells = {k: [list(c) for c, kind in sorted(self._cells.items()) if kind == k] for k in (FREE, WALL)}
        self._cells, self._cells_since = {}, None
        return {kind: found for kind, found in cells.items() if found}
