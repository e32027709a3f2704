"""Coming and going: from room to room, and out of the home by a door that stands open."""

from __future__ import annotations

from typing import Any

import pytest
from perdure.records import Pose

Home = Any


@pytest.fixture
def hall(make_home: type[Home]) -> Home:
    """The bedroom door leads out: nobody was ever behind it."""

    class Flat(make_home):  # type: ignore[valid-type,misc]
        def teach(self) -> None:
            self.walls = {cell for cell in self.walls if cell[0] <= 5}
            super().teach()

        def view(self) -> frozenset[tuple[int, int]]:
            return frozenset((x, y) for x in range(6) for y in range(7))

        def look(self, pose: Pose | None = None, *rest: Any, **more: Any) -> Any:
            return super().look(Pose(1, 1, 0), *rest, **more)

    home: Home = Flat()
    home.watch(2)
    return home


def test_a_door_behind_which_nothing_was_seen_is_a_way_out(hall: Home, home: Home) -> None:
    assert hall.model.map.exits == ((5, 3),)
    assert home.model.map.exits == ()


def test_who_vanishes_beside_an_open_way_out_has_left(hall: Home) -> None:
    hall.people["Anna"] = (4, 3)
    hall.watch(3)
    del hall.people["Anna"]
    hall.watch(2)
    assert hall.model.place_of("Anna").value == "gone"
    assert [(c.kind, c.new) for c in hall.model.changes(person="Anna")][-1] == ("left", "gone")


def test_who_appears_beside_an_open_way_out_has_come_home(hall: Home) -> None:
    hall.people["Anna"] = (4, 3)
    hall.watch(2)
    came = [c for c in hall.model.changes(person="Anna", kind="entered") if c.old == "gone"]
    assert len(came) == 1
    assert came[0].witnessed


def test_who_walks_through_a_room_that_is_in_view_has_come_and_gone(home: Home) -> None:
    home.people["Ben"] = (4, 3)
    home.watch(2, home.KITCHEN)
    home.people["Ben"] = (6, 3)
    home.watch(2, home.BEDROOM)
    seen = [(c.kind, c.old, c.new) for c in home.model.changes(person="Ben")]
    assert ("entered", "kitchen", "bedroom") in seen
    assert ("left", "kitchen", "bedroom") in seen
