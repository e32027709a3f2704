"""What the watcher makes of scenes: differences that last are told once, misreads are not told at all."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from perdure.records import Pose, Scene, Sighting
from perdure.world_model import Caution, SceneWatcher, WorldModel
from perdure.world_model.doubt import Doubts

MINUTE = timedelta(minutes=1)
Home = Any
"""The fixture class in ``conftest.py``."""


def test_nothing_new_is_told_in_looks_only(home: Home) -> None:
    home.events.clear()
    home.watch(90)
    kinds = [event.media["scene"]["kind"] for event in home.events]
    assert kinds.count("change") == 0
    assert 2 <= kinds.count("look") <= 3


def test_a_change_is_told_once_with_its_frame(home: Home) -> None:
    home.events.clear()
    home.states["kitchen lamp"] = "on"
    frame = np.zeros((8, 8, 3), np.uint8)
    for _ in range(5):
        home.look(frame=frame)
    changes = [event for event in home.events if event.media["scene"]["kind"] == "change"]
    assert len(changes) == 1
    assert len(changes[0].key_frames) == 1
    assert "kitchen lamp is now on" in changes[0].text


def test_a_change_says_how_long_it_was_as_before(home: Home) -> None:
    home.watch(5)
    before = home.time
    home.states["kitchen lamp"] = "on"
    home.watch(1)
    change = home.model.changes(thing="kitchen lamp")[0]
    assert change.earliest == before
    assert change.latest == home.time
    assert change.witnessed


def test_what_vanishes_with_nobody_near_is_looked_for_longer(home: Home) -> None:
    keys = home.items.pop("k")
    home.watch(3)
    assert home.model.place_of("keys").value == "kitchen table"
    home.items["k"] = keys
    home.watch(2)
    home.items.pop("k")
    home.watch(8)
    assert home.model.place_of("keys").value is None


def test_what_is_found_missing_and_is_back_was_misread(home: Home) -> None:
    keys = home.items.pop("k")
    home.watch(8)
    home.items["k"] = keys
    home.watch(2)
    assert home.model.changes(thing="keys") == []
    assert home.model.place_of("keys").value == "kitchen table"


def test_what_appears_with_nobody_near_is_looked_at_again(home: Home) -> None:
    home.items["b"] = ("book", (3, 2))
    home.look()
    assert home.model.place_of("book").value is None
    home.watch(3)
    assert home.model.place_of("book").value == "kitchen floor"


def test_an_unsure_reading_needs_a_second_look() -> None:
    doubts = Doubts(Caution())
    first = doubts.look("table", "keys", 0, 0.8)
    assert not doubts.settled(first)
    assert doubts.settled(doubts.look("table", "keys", 60, 0.8))


def test_another_reading_begins_anew() -> None:
    doubts = Doubts(Caution())
    doubts.look("table", "keys", 0, 0.8)
    assert doubts.look("table", "book", 60, 0.8).looks == 1


def test_a_good_look_is_believed_when_there_is_no_second(home: Home) -> None:
    home.watch(15, home.KITCHEN)
    home.items["b"] = ("book", (8, 2))
    home.look(home.BEDROOM)
    home.watch(1, home.KITCHEN)
    assert home.model.place_of("book").value == "bed"


def test_the_map_is_corrected_by_walking() -> None:
    model = WorldModel()
    watcher = SceneWatcher(model)
    model.fold.map.learn_fixture("bed", (2, 2))
    scene = Scene(home_time(), Pose(2, 2, 0), (), frozenset({(2, 2), (3, 2)}))
    watcher.feed(scene)
    for event in watcher.flush():
        cells = event.media["scene"]["cells"]["free"]
        model.fold.map.learn_cells([(x, y) for x, y in cells])
    assert model.fold.map.kind((2, 2)) == "free"


def test_what_was_taught_to_stand_somewhere_stays_there() -> None:
    model = WorldModel()
    model.fold.map.learn_fixture("bed", (2, 2), taught=True)
    model.fold.map.learn_cells(free=[(2, 2)])
    assert model.fold.map.kind((2, 2)) == "bed"


@pytest.mark.parametrize("seed", range(3))
def test_misreads_hardly_change_what_is_believed(make_home: type[Home], seed: int) -> None:
    """Two of a hundred readings are wrong or missing for a day; nothing moves."""
    home = make_home(misread=0.02, seed=seed)
    home.items = {"k": ("keys", (2, 2)), "m": ("blue mug", (3, 4)), "b": ("book", (8, 2))}
    rng = random.Random(seed)
    for _ in range(120):
        home.watch(6, rng.choice([home.KITCHEN, home.BEDROOM]))
    assert [home.model.place_of(name).value for name in ("keys", "blue mug", "book")] == [
        "kitchen table", "kitchen floor", "bed"
    ]  # fmt: skip
    assert len([c for c in home.model.changes(kind="moved") if c.old != c.new]) <= 2


def test_a_new_watcher_goes_on_where_the_journal_ends(home: Home) -> None:
    """What was not yet told is lost with the old one: no more than the sightings since the last look."""
    home.watcher = SceneWatcher(home.model)
    home.events.clear()
    home.watch(5)
    assert [event for event in home.events if event.media["scene"]["kind"] == "change"] == []
    home.flush()
    assert home.model.place_of("keys", home.time).confidence > 0.9


def test_a_thing_that_was_dropped_is_no_longer_held(home: Home) -> None:
    home.pose = Pose(2, 3, 3)
    del home.items["k"]
    home.look(acted="pick up", holding=True)
    assert home.model.place_of("keys").value == "me"
    home.look(holding=False)
    home.look(holding=False)
    assert home.model.place_of("keys").value is None


def test_unknown_things_are_no_evidence(home: Home) -> None:
    scene = home.scene()
    keys = next(s for s in scene.sightings if s.name == "keys")
    others = tuple(s for s in scene.sightings if s.name != "keys")
    odd = Sighting("something", keys.cell, on=keys.on, certainty=0.3)
    for _ in range(6):
        home.time += MINUTE
        home.keep(home.watcher.feed(Scene(home.time, home.pose, (*others, odd), scene.seen)))
    assert home.model.place_of("keys").value == "kitchen table"


def home_time() -> Any:
    """Any time will do."""
    from datetime import UTC, datetime

    return datetime(2027, 3, 1, tzinfo=UTC)
