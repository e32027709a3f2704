"""From records to what is known of the world: a pure function of the journal, one record at a time.

It knows what each kind of record means for the map, items, fixtures and people. It knows neither frames nor clocks:
the same records give the same state, whenever and wherever they are read.

Records that count
    event     with ``media["scene"]`` as `sight.SceneWatcher` writes it
    lesson    what was named: ``{"lessons": [{"role", "name", "state", "cell", "pose"}, ...]}``, in a record of its own
              or as ``media["lesson"]`` of an event
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from ..records import Cell, Record
from .geography import GONE, ME, Geography
from .objects import Objects, Seen
from .stays import Life, Stay

VERSION = 5
KEEP_S = 14 * 86400
"""Stays that ended longer ago are summed up in ``Fold.past``."""
PAST_SLICE_S = 3600
WEEK_S = 7 * 86400
WITNESS_STEPS = 2
"""A change between two looks this many steps apart was seen as it happened."""
SAME_VISIT_S = 15 * 60
"""A person seen again in the same room within this time is taken to have stayed."""
FIXTURE, ITEM, PERSON, ROOM = "fixture", "item", "person", "room"


class Fold:
    """Everything that the records up to ``seq`` say about the world."""

    def __init__(self) -> None:
        self.seq = 0
        self.time = 0
        """Seconds: the newest scene."""
        self.step_s = 60
        self.roles: dict[str, str] = {}
        """What a name stands for: fixture, item, person or room."""
        self.states: dict[str, list[str]] = {}
        """States that a fixture was seen in or taught with, in the order of learning."""
        self.several: set[str] = set()
        """Names that were taught with "a", not "the": there may be several."""
        self.map = Geography()
        self.objects = Objects()
        self.fixtures: dict[str, Life] = {}
        self.people: dict[str, Life] = {}
        self.views: dict[str, list[list[int]]] = {}
        """For each room, stretches ``[first, last]`` in which most of it was in view."""
        self.pose: list[int] | None = None
        self.acts: list[list[Any]] = []
        """Own acts: ``[time, act, thing, seq]``."""
        self.past: dict[str, dict[str, int]] = {}
        """Of stays older than KEEP_S: ``{thing: {"value|slice of the week": seconds}}``, slices of PAST_SLICE_S."""
        self.checked: list[int] = [0, 0]
        """Sightings checked against the forecast, and how many differed."""
        self._pruned = 0

    # ------------------------------------------------------------------ records

    def apply(self, record: Record) -> None:
        """Take in the next record; older ones are ignored."""
        if record.seq <= self.seq:
            return
        self.seq = record.seq
        if record.kind == "event":
            media = record.payload.get("media", {})
            if isinstance(media.get("scene"), Mapping):
                self._scene(media["scene"], record.seq)
            if isinstance(media.get("lesson"), Mapping):
                self._lessons(media["lesson"])
        elif record.kind == "lesson":
            self._lessons(record.payload)

    def _lessons(self, taught: Mapping[str, Any]) -> None:
        lessons = taught.get("lessons")
        for lesson in lessons if isinstance(lessons, Sequence) else [taught]:
            name, role = lesson.get("name"), lesson.get("role") or lesson.get("kind")
            if not name or role not in (FIXTURE, ITEM, PERSON, ROOM):
                continue
            cell = _cell(lesson.get("cell"))
            if role == ROOM:
                pose = lesson.get("pose")
                at = _cell(pose[:2]) if pose else cell
                if at is not None:
                    self.map.learn_room(name, at)
                continue
            self.roles[name] = role
            if role == FIXTURE and cell is not None:
                self.map.learn_fixture(name, cell, taught=True)
                self.fixtures.setdefault(name, Life(name, name))
                self._learn_state(name, lesson.get("state") or "")
            if role == ITEM and _is_one_of_several(name, str(taught.get("sentence", ""))):
                self.several.add(name)

    def _scene(self, scene: Mapping[str, Any], seq: int) -> None:
        self.time = max(self.time, int(scene["t"]))
        self.step_s = int(scene.get("step", self.step_s))
        self.pose = list(scene["pose"]) if scene.get("pose") else self.pose
        cells = scene.get("cells") or {}
        self.map.learn_cells(_cells(cells.get("free")), _cells(cells.get("wall")))
        for span in scene.get("spans", ()):
            self.checked[0] += span[6]
            self._span(span, seq)
        act = scene.get("act")
        for entry in scene.get("fixtures", ()):
            self._fixture_entry(entry, seq)
        for entry in scene.get("gone", ()):
            cell = _cell(entry["cell"])
            if cell is not None:
                self.objects.gone(
                    entry["name"], cell, entry["last"], entry["since"], seq, _only(entry.get("near")),
                    sure=entry.get("certainty", 1.0),
                )  # fmt: skip
        if act:
            self._act(act, int(scene["t"]), seq)
        for entry in scene.get("things", ()):
            self._thing(entry, seq)
        for entry in scene.get("people", ()):
            self._person(entry, seq)
        differed = sum(len(scene.get(key, ())) for key in ("things", "gone", "people"))
        differed += sum(entry.get("was") is not None for entry in scene.get("fixtures", ()))
        self.checked = [self.checked[0] + differed, self.checked[1] + differed]
        for room, first, last in scene.get("rooms", ()):
            self._view(room, first, last)
        if self.time - self._pruned > 86400:
            self._prune()

    # ------------------------------------------------------------------ entries

    def _fixture_entry(self, entry: Mapping[str, Any], seq: int) -> None:
        cell = _cell(entry["cell"])
        if cell is None:
            return
        if entry.get("lesson"):
            self.map.learn_fixture(entry["name"], cell)
            return
        life = self._fixture(entry["name"], cell, entry.get("state") or "", entry["first"], entry["last"], seq)
        now = life.now
        if now is None or now.seqs != [seq] or len(life.stays) < 2:
            return
        old = life.stays[-2]
        old.gone = now.first
        now.since = old.last
        now.witnessed = now.first - old.last <= WITNESS_STEPS * self.step_s
        now.by = entry.get("by") or (_only(entry.get("near")) if now.witnessed else None)

    def _fixture(self, name: str, cell: Cell, state: str, first: int, last: int, seq: int) -> Life:
        self.roles.setdefault(name, FIXTURE)
        self.map.learn_fixture(name, cell)
        life = self.fixtures.setdefault(name, Life(name, name))
        self._learn_state(name, state)
        if not state and self.states.get(name):
            return life
        if life.now is not None and life.now.value == state:
            life.now.see(max(first, life.now.first), last, seq)
        else:
            first = first if life.now is None else max(first, life.now.last)
            life.stays.append(Stay(state, first, max(first, last), cell, "", [seq]))
        return life

    def _learn_state(self, name: str, state: str) -> None:
        known = self.states.setdefault(name, [])
        if state and state not in known:
            known.append(state)

    def _act(self, act: Mapping[str, Any], at: int, seq: int) -> None:
        cell = _cell(act["cell"])
        what, thing = act["act"], act.get("thing") or ""
        self.acts.append([at, what, thing, seq])
        held = self.objects.held
        if what == "pick_up" and cell is not None:
            found = [item for item in self.objects.at_cell(cell) if not thing or item.name == thing]
            if not found and thing:
                seen = Seen(thing, cell, self.map.place_at(cell), at - self.step_s, at - self.step_s, seq)
                found = [self.objects.see(seen)]
            if found:
                self.objects.take(found[0], ME, at, seq, by=ME)
        elif held is not None and what == "put_down" and cell is not None:
            self.objects.take(held, act.get("place") or self.map.place_at(cell), at, seq, by=ME, cell=cell)
        elif held is not None and what == "give" and act.get("place"):
            self.objects.take(held, act["place"], at, seq, by=ME, cell=cell, carrier=act["place"])
        elif held is not None and what == "lost":
            assert held.now is not None
            held.now.gone = at
        elif held is not None and what == "discard":
            self.objects.take(held, GONE, at, seq, by=ME)

    def _thing(self, entry: Mapping[str, Any], seq: int) -> None:
        cell = _cell(entry["cell"])
        if cell is None:
            return
        carrier = entry.get("carrier") or ""
        clear, by = entry.get("clear"), carrier or None
        if by is None and clear is not None and entry["first"] - clear <= WITNESS_STEPS * self.step_s:
            by = _only(entry.get("near"))
        seen = Seen(
            entry["name"],
            cell,
            carrier or entry["place"],
            entry["first"],
            entry["last"],
            seq,
            carrier,
            by,
            entry.get("certainty", 1.0),
            self.step_s,
            clear,
            tuple(_cells(entry.get("missing"))),
        )
        self.roles.setdefault(entry["name"], ITEM)
        self.objects.see(seen, _cells(entry.get("others")), several=entry["name"] in self.several)

    def _person(self, entry: Mapping[str, Any], seq: int) -> None:
        name, room = entry["name"], entry.get("room") or ""
        self.roles.setdefault(name, PERSON)
        life = self.people.setdefault(name, Life(name, name))
        now = life.now
        first, last = entry["first"], entry["last"]
        if entry["kind"] == "left":
            if now is not None and now.gone is None:
                now.last, now.gone = max(now.last, min(last, first)), first
                now.note(seq)
                if entry.get("to"):
                    near_s = WITNESS_STEPS * self.step_s
                    seen = first - now.last <= near_s
                    life.stays.append(Stay(entry["to"], first, first, None, "", [seq], name, now.last, seen))
            return
        cell = _cell(entry.get("cell"))
        if entry.get("from") == GONE and (now is None or now.value != GONE):
            if now is not None and now.gone is None:
                now.gone = first
            outside = entry.get("since") or first
            outside = outside if now is None else max(now.last, outside)
            life.stays.append(Stay(GONE, outside, outside, None, "", [seq]))
            now = life.now
        if now is not None and now.gone is None and now.value == room and first - now.last <= SAME_VISIT_S:
            now.see(max(first, now.first), last, seq)
            now.cell = cell or now.cell
            return
        since = None if now is None else now.last
        if now is not None and now.gone is None:
            now.gone = first
        seen_before = entry.get("since")
        witnessed = seen_before is not None and first - seen_before <= WITNESS_STEPS * self.step_s
        since = max([t for t in (since, seen_before) if t is not None], default=None)
        life.stays.append(Stay(room, first, last, cell, "", [seq], name, since, witnessed))

    def _span(self, span: Sequence[Any], seq: int) -> None:
        what, name, where, value, _, _, times, runs = span
        cell = _cell(where)
        if what == ITEM and cell is not None:
            self.objects.confirm(name, cell, value, runs, seq, times)
        elif what == FIXTURE and name in self.fixtures:
            now = self.fixtures[name].now
            if now is not None and now.value == value:
                now.see_runs(runs, seq, times)
        elif what == PERSON and name in self.people:
            now = self.people[name].now
            if now is not None and now.value == value and now.gone is None:
                now.see_runs(runs, seq, times)
                now.cell = cell or now.cell

    def _view(self, room: str, first: int, last: int) -> None:
        runs = self.views.setdefault(room, [])
        if runs and first - runs[-1][1] <= self.step_s:
            runs[-1][1] = max(runs[-1][1], last)
        else:
            runs.append([first, last])

    def _prune(self) -> None:
        self._pruned = self.time
        limit = self.time - KEEP_S
        for life in (*self.objects.items.values(), *self.fixtures.values(), *self.people.values()):
            old = [stay for stay in life.stays[:-2] if stay.last < limit]
            for stay in old:
                counts = self.past.setdefault(life.name, {})
                for at in range(stay.first, stay.last + self.step_s, PAST_SLICE_S):
                    key = f"{stay.value}|{at % WEEK_S // PAST_SLICE_S}"
                    counts[key] = counts.get(key, 0) + min(PAST_SLICE_S, stay.last + self.step_s - at)
            del life.stays[: len(old)]
        for runs in self.views.values():
            runs[:] = [run for run in runs if run[1] >= limit]
        self.acts = [act for act in self.acts if act[0] >= limit]

    # -------------------------------------------------------------------- state

    def to_state(self) -> dict[str, Any]:
        """Everything as JSON values."""
        return {
            "version": VERSION,
            "seq": self.seq,
            "time": self.time,
            "step_s": self.step_s,
            "roles": self.roles,
            "states": self.states,
            "several": sorted(self.several),
            "map": self.map.to_state(),
            "objects": self.objects.to_state(),
            "fixtures": [life.to_state() for life in self.fixtures.values()],
            "people": [life.to_state() for life in self.people.values()],
            "views": self.views,
            "pose": self.pose,
            "acts": self.acts,
            "past": self.past,
            "checked": self.checked,
            "pruned": self._pruned,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Fold:
        """The fold that `to_state` described."""
        new = cls()
        new.seq, new.time, new.step_s = state["seq"], state["time"], state["step_s"]
        new.roles, new.states = dict(state["roles"]), {k: list(v) for k, v in state["states"].items()}
        new.several = set(state["several"])
        new.map = Geography.from_state(state["map"])
        new.objects = Objects.from_state(state["objects"])
        new.fixtures = {one[0]: Life.from_state(one) for one in state["fixtures"]}
        new.people = {one[0]: Life.from_state(one) for one in state["people"]}
        new.views = {room: [list(run) for run in runs] for room, runs in state["views"].items()}
        new.pose, new.acts = state["pose"], [list(act) for act in state["acts"]]
        new.past = {name: dict(counts) for name, counts in state["past"].items()}
        new.checked, new._pruned = list(state["checked"]), state["pruned"]
        return new

    def dump(self) -> bytes:
        """The whole state as canonical JSON."""
        return json.dumps(self.to_state(), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()

    def digest(self) -> str:
        """sha256 of the whole state."""
        return hashlib.sha256(self.dump()).hexdigest()


def seconds(moment: datetime) -> int:
    """Whole seconds since the epoch."""
    return int(moment.timestamp())


def _is_one_of_several(name: str, sentence: str) -> bool:
    """Whether a lesson named a thing as one of a kind: "This is a blue mug"."""
    return re.search(rf"\ban? {re.escape(name)}\b", sentence, re.IGNORECASE) is not None


def _cell(value: Any) -> Cell | None:
    return None if value is None else (int(value[0]), int(value[1]))


def _cells(values: Iterable[Any] | None) -> list[Cell]:
    return [(int(x), int(y)) for x, y in values or ()]


def _only(names: Sequence[str] | None) -> str | None:
    """The one name in a list; None if there is none, or more than one."""
    return names[0] if names and len(names) == 1 else None
