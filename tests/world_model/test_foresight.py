"""Expectations and plans: what stays, what a plan leads to, and how often the world surprised."""

from __future__ import annotations

from typing import Any

import pytest
from perdure.errors import BadInput
from perdure.records import Change, Estimate
from perdure.world_model.foresight import Act

Home = Any


class KettleCausesLamp:
    """A cause that was learned."""

    def learn(self, *_: Any, **__: Any) -> None: ...

    def explain(self, change: Change) -> Estimate:
        return Estimate("fridge" if change.thing == "kitchen lamp" else None, "learned", (), 0.9)

    def effects(self, fixture: str, state: str) -> list[tuple[str, str, float, float]]:
        return [("kitchen lamp", "on", 0.9, 4.0)] if (fixture, state) == ("fridge", "open") else []


def test_things_are_expected_to_stay_less_surely_later(home: Home) -> None:
    soon, late = home.model.predict(10)["keys#1"], home.model.predict(600)["keys#1"]
    assert soon.value == late.value == "kitchen table"
    assert soon.confidence > late.confidence > 0


def test_what_is_under_way_is_expected(home: Home) -> None:
    home.model.causes = KettleCausesLamp()
    home.states["fridge"] = "open"
    home.watch(1)
    assert home.model.predict(2)["kitchen lamp"].value == "off"
    assert home.model.predict(10)["kitchen lamp"].value == "on"


def test_a_learned_cause_explains_better_than_a_bystander(home: Home) -> None:
    home.people["Ben"] = (4, 4)
    home.states["kitchen lamp"] = "on"
    home.watch(2)
    assert home.model.why("kitchen lamp", "on").value == "Ben"
    home.model.causes = KettleCausesLamp()
    assert home.model.why("kitchen lamp", "on").value == "fridge"


def test_surprise_is_the_share_of_sightings_that_differed(home: Home) -> None:
    home.watch(60)
    home.flush()
    calm = home.model.surprise.value
    home.states["kitchen lamp"] = "on"
    home.watch(2)
    assert 0 < calm < 0.2
    assert home.model.fold.checked[1] > 0


def test_a_plan_is_played_to_its_end(home: Home) -> None:
    plan = home.model.simulate([Act("pick_up", thing="keys"), Act("put_down", place="bed")])
    assert plan.places == {"keys#1": "bed"}
    assert plan.problem == ""
    assert 0.5 < plan.probability < 1
    assert plan.minutes > 8


def test_a_plan_tells_its_side_effects(home: Home) -> None:
    home.model.causes = KettleCausesLamp()
    plan = home.model.simulate([Act("use", thing="fridge", state="open")])
    assert plan.states == {"fridge": "open", "kitchen lamp": "on"}
    assert any("kitchen lamp" in effect for effect in plan.effects)


@pytest.mark.parametrize(
    ("acts", "problem"),
    [
        ([Act("put_down", place="bed")], "gripper is empty"),
        ([Act("pick_up", thing="book")], "not known"),
        ([Act("use", thing="oven")], "no fixture"),
        ([Act("give", place="Anna")], "gripper is empty"),
        ([Act("pick_up", thing="keys"), Act("pick_up", thing="blue mug")], "holds"),
    ],
)
def test_a_plan_that_cannot_work_says_why(home: Home, acts: list[Act], problem: str) -> None:
    plan = home.model.simulate(acts)
    assert problem in plan.problem
    assert plan.probability == 0


def test_an_unknown_verb_is_bad_input() -> None:
    with pytest.raises(BadInput, match="expected an act out of go"):
        Act("fly")


def test_coverage_is_when_a_fixture_was_in_view(home: Home) -> None:
    home.watch(5, home.BEDROOM)
    home.watch(5, home.KITCHEN)
    home.flush()
    stretches = home.model.coverage("fridge")
    assert len(stretches) == 2
    assert stretches[-1][1] == home.time
