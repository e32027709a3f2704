"""What the world model says after watching: where things are and were, who moved them, and what nobody can know."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from perdure.records import Interval, Pose
from perdure.world_model import WorldModel

MINUTE = timedelta(minutes=1)
Home = Any
"""The fixture class in ``conftest.py``."""


def test_rooms_grow_from_the_place_where_they_were_named(home: Home) -> None:
    assert home.model.map.room_at((4, 4)) == "kitchen"
    assert home.model.room_of("bed") == "bedroom"
    assert home.model.room_of("kitchen floor") == "kitchen"


def test_a_way_leads_through_the_door(home: Home) -> None:
    way = home.model.path((1, 1), (8, 2), beside=True)
    assert way is not None
    assert (5, 3) in way
    assert way[-1] in {(8, 1), (7, 2), (9, 2), (8, 3)}


def test_a_thing_is_where_it_was_seen(home: Home) -> None:
    assert home.model.place_of("keys").value == "kitchen table"
    assert home.model.place_of("the mug").value == "kitchen floor"


def test_a_move_that_was_seen_has_a_doer_and_a_time(home: Home) -> None:
    home.people["Ben"] = (2, 3)
    home.watch(2)
    home.carried["k"] = "Ben"
    home.watch(2)
    taken = home.time
    home.people["Ben"] = (3, 3)
    home.carried.pop("k")
    home.items["k"] = ("keys", (3, 3 + 2))
    home.watch(3)
    moves = home.model.changes(thing="keys", kind="moved")
    assert [(c.old, c.new, c.by) for c in moves] == [("kitchen table", "Ben", "Ben"), ("Ben", "kitchen floor", "Ben")]
    assert all(c.witnessed for c in moves)
    assert abs(moves[0].latest - taken) <= 2 * MINUTE
    assert home.model.who_moved("keys").value == "Ben"


def test_between_two_places_nobody_knows(home: Home) -> None:
    home.flush()
    before = home.time
    home.away(60)
    home.items["k"] = ("keys", (8, 2))
    home.watch(3, home.BEDROOM)
    assert home.model.place_of("keys").value == "bed"
    assert home.model.place_of("keys", before).value == "kitchen table"
    between = home.model.place_of("keys", before + 30 * MINUTE)
    assert between.value is None
    assert "nobody looked" in between.reason
    assert home.model.who_moved("keys").value is None


def test_between_two_looks_at_the_same_place_it_was_there(home: Home) -> None:
    home.flush()
    middle = home.time + 30 * MINUTE
    home.away(60)
    home.watch(2, home.KITCHEN)
    home.flush()
    assert home.model.place_of("keys", middle).value == "kitchen table"
    assert home.model.place_of("keys", middle).confidence < 0.97


def test_what_a_closed_container_hides_is_not_gone(home: Home) -> None:
    home.states["fridge"] = "open"
    home.items["b"] = ("book", (1, 5))
    home.watch(3)
    assert home.model.place_of("book").value == "fridge"
    home.states["fridge"] = "closed"
    home.watch(5)
    assert home.model.place_of("book").value == "fridge"
    assert home.model.state_of("fridge").value == "closed"


def test_an_own_act_is_mine(home: Home) -> None:
    home.pose = Pose(2, 3, 3)
    del home.items["k"]
    home.look(acted="pick_up", holding=True)
    assert home.model.place_of("keys").value == "me"
    home.items["k"] = ("keys", (8, 2))
    home.look(Pose(8, 3, 3), acted="put_down", holding=False)
    home.watch(2)
    assert home.model.place_of("keys").value == "bed"
    assert home.model.who_moved("keys").value == "me"
    assert [c.new for c in home.model.changes(thing="keys")] == ["me", "bed"]


def test_using_a_switch_is_an_act_and_its_effect_is_mine(home: Home) -> None:
    home.states["kitchen lamp"] = "on"
    home.look(Pose(3, 5, 0), acted="use")
    assert home.model.state_of("kitchen lamp").value == "on"
    assert [(c.new, c.by) for c in home.model.changes(kind="state")] == [("on", "me")]


def test_one_misread_changes_nothing(home: Home) -> None:
    home.items["k"] = ("book", (2, 2))
    home.look()
    home.items["k"] = ("keys", (2, 2))
    home.watch(3)
    assert home.model.changes(kind="moved") == []
    assert home.model.place_of("book").value is None


def test_people_enter_and_leave(home: Home) -> None:
    home.people["Anna"] = (4, 2)
    home.watch(5)
    entered = home.time
    del home.people["Anna"]
    home.watch(3)
    seen = [(c.kind, c.thing, c.old if c.kind == "left" else c.new) for c in home.model.changes(person="Anna")]
    assert ("left", "Anna", "kitchen") in seen
    assert home.model.people_in("kitchen", entered).value == ("Anna",)
    assert home.model.people_in("bedroom", entered).value is None


def test_two_at_once_are_two(home: Home) -> None:
    home.items["m2"] = ("blue mug", (4, 1))
    home.watch(4)
    assert [life.id for life in home.model.lives("blue mug")] == ["blue mug#1", "blue mug#2"]
    home.items["m2"] = ("blue mug", (8, 2))
    home.watch(3, home.KITCHEN)
    home.watch(3, home.BEDROOM)
    assert home.model.place_of("blue mug#2").value == "bed"
    assert home.model.place_of("blue mug#1").value == "kitchen floor"


def test_what_was_named_as_one_of_several_may_be_two(home: Home) -> None:
    home.items["m2"] = ("blue mug", (8, 2))
    home.watch(3, home.BEDROOM)
    home.watch(3, home.KITCHEN)
    assert home.model.place_of("blue mug#1").value == "kitchen floor"
    assert home.model.place_of("blue mug#2").value == "bed"


def test_watched_is_the_share_of_time_in_view(home: Home) -> None:
    start = home.time
    home.watch(10, home.KITCHEN)
    home.watch(10, home.BEDROOM)
    home.flush()
    assert home.model.watched("kitchen", Interval(start, home.time)) == pytest.approx(0.5, abs=0.1)


def test_replay_gives_the_same_world(home: Home) -> None:
    home.people["Ben"] = (2, 3)
    home.watch(40)
    home.flush()
    again = WorldModel()
    for one in home.records:
        again.apply(one)
    assert again.digest() == home.model.digest()


def test_order_and_count(home: Home) -> None:
    home.states["kitchen lamp"] = "on"
    home.watch(3)
    home.items["k"] = ("keys", (4, 1))
    home.watch(3)
    home.states["kitchen lamp"] = "off"
    home.watch(3)
    assert home.model.count(thing="kitchen lamp", new="on").value == 1
    assert home.model.count(kind="state").value == 2
    assert home.model.order("kitchen lamp", "keys", None).value == 1
