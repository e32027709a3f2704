"""Which is which: exclusivity, continuity, and histories written to the wrong one that are handed over."""

from __future__ import annotations

from perdure.world_model.objects import Objects, Seen

TABLE, BED, SOFA = (2, 2), (12, 2), (12, 9)


def see(objects: Objects, name: str, cell: tuple[int, int], place: str, at: int, **more: object) -> str:
    several = bool(more.pop("several", False))
    return objects.see(Seen(name, cell, place, at, at, at, **more), several=several).id  # type: ignore[arg-type]


def places(objects: Objects, name: str) -> dict[str, list[str]]:
    return {life.id: [stay.value for stay in life.stays] for life in objects.named(name)}


def test_the_only_one_of_its_name_has_moved() -> None:
    objects = Objects()
    see(objects, "keys", TABLE, "table", 0)
    see(objects, "keys", BED, "bed", 6000)
    see(objects, "keys", TABLE, "table", 9000)
    assert places(objects, "keys") == {"keys#1": ["table", "bed", "table"]}


def test_one_of_several_that_nobody_saw_leave_is_another() -> None:
    objects = Objects()
    see(objects, "mug", TABLE, "table", 0, several=True)
    see(objects, "mug", BED, "bed", 6000, several=True)
    assert places(objects, "mug") == {"mug#1": ["table"], "mug#2": ["bed"]}


def test_one_of_several_that_was_seen_to_be_gone_is_the_same() -> None:
    objects = Objects()
    see(objects, "mug", TABLE, "table", 0, several=True)
    objects.gone("mug", TABLE, 60, 120, 2, "Ben")
    see(objects, "mug", BED, "bed", 600, several=True)
    assert places(objects, "mug") == {"mug#1": ["table", "bed"]}
    assert objects.named("mug")[0].stays[-1].by == "Ben"


def test_a_history_written_to_the_wrong_twin_is_handed_over() -> None:
    objects = Objects()
    see(objects, "mug", TABLE, "table", 0, several=True)
    see(objects, "mug", BED, "bed", 60, several=True)
    objects.confirm("mug", BED, "", [[60, 5000]], 60, 9)
    see(objects, "mug", SOFA, "sofa", 6000, several=True)  # taken for the one that was not seen for longer
    assert places(objects, "mug") == {"mug#1": ["table", "sofa"], "mug#2": ["bed"]}
    see(objects, "mug", TABLE, "table", 7000, several=True)  # which is still there
    assert places(objects, "mug") == {"mug#1": ["table"], "mug#2": ["bed", "sofa"]}


def test_who_was_seen_carrying_it_put_it_down() -> None:
    objects = Objects()
    see(objects, "keys", TABLE, "table", 0)
    see(objects, "keys", (3, 2), "Ben", 60, carrier="Ben", by="Ben")
    see(objects, "keys", BED, "bed", 600)
    stays = objects.named("keys")[0].stays
    assert [stay.by for stay in stays] == [None, "Ben", "Ben"]


def test_the_state_goes_round() -> None:
    objects = Objects()
    see(objects, "keys", TABLE, "table", 0)
    see(objects, "keys", BED, "bed", 6000)
    assert Objects.from_state(objects.to_state()).to_state() == objects.to_state()
