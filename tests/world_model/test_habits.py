"""What is usual is what mostly was, on two days or more."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

Home = Any


@pytest.fixture
def week(make_home: type[Home]) -> Home:
    """Keys on the table in the morning, on the bed in the evening; Anna comes into the kitchen at about eight."""
    home = make_home()
    for day in range(3):
        for hour, cell in ((7, (2, 2)), (19, (8, 2))):
            home.time = home.time.replace(hour=hour, minute=0) + timedelta(days=day and hour == 7)
            home.items = {"k": ("keys", cell)}
            for pose in (home.KITCHEN, home.BEDROOM) * 2:
                home.watch(20, pose)
            home.flush()
            if hour == 7:
                home.watch(2, home.KITCHEN)
                home.people = {"Anna": (2, 3)}
                home.watch(2)
                home.people = {}
                home.watch(3)
    return home


def test_the_usual_place_depends_on_the_time_of_day(week: Home) -> None:
    assert week.model.usual_place("keys", "morning").value == "kitchen table"
    assert week.model.usual_place("keys", "evening").value == "bed"
    assert week.model.usual_place("keys", "night").value is None


def test_one_day_makes_no_habit(week: Home) -> None:
    found = week.model.usual_place("keys", "morning", "tuesday")
    assert found.value is None
    assert "on 1 days" in found.reason


def test_the_usual_time_is_the_middle_of_the_days(week: Home) -> None:
    found = week.model.usual_time("Anna", "entered", "kitchen")
    assert found.value == pytest.approx(8 * 60 + 23, abs=5)
    assert len(found.evidence) == 3


def test_what_never_happened_has_no_usual_time(week: Home) -> None:
    assert week.model.usual_time("Ben", "entered", "kitchen").value is None


def test_habits_are_told_as_facts(week: Home) -> None:
    told = {(fact.subject, fact.predicate): fact.object for fact in week.model.facts()}
    assert told["keys", "usual location in the morning"] == "kitchen table"


def test_what_is_summed_up_still_counts(week: Home) -> None:
    home = week
    home.time += timedelta(days=20)
    home.items = {"k": ("keys", (2, 2))}
    home.watch(3, home.KITCHEN)
    home.flush()
    assert home.model.fold.past["keys"]
    assert len(home.model.fold.objects.named("keys")[0].stays) <= 3
    assert home.model.usual_place("keys", "evening").value == "bed"
