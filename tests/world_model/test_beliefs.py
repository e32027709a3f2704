"""Beliefs say what holds, or why they cannot; on a real memory and real sentences."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from perdure.memory import Memory
from perdure.records import Fact, Interval, Trust
from perdure.world_model import Beliefs
from perdure.world_model.beliefs import confidence

START = datetime(2026, 11, 16, 9, tzinfo=UTC)
HOUR = timedelta(hours=1)


class HourClock:
    """One hour later at every sentence."""

    hours = 0

    def now(self) -> datetime:
        return START + self.hours * HOUR

    def monotonic_us(self) -> int:
        return self.hours


class Home:
    def __init__(self, root: Path) -> None:
        self.clock = HourClock()
        self.memory = Memory.open(root, clock=self.clock)
        self.beliefs = Beliefs(self.memory)

    def tell(self, text: str, trust: Trust = Trust.OWNER) -> int:
        self.clock.hours += 1
        with self.memory.step() as step:
            step.told(text, trust=trust, speaker="owner" if trust is Trust.OWNER else "otto")
        return step.records[0].seq


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    one = Home(tmp_path / "home")
    yield one
    one.memory.close()


def test_what_was_never_told_is_not_known(home: Home) -> None:
    found = home.beliefs.state("bike", "location")
    assert (found.value, found.evidence, found.confidence) == (None, (), 0.0)
    assert "never told" in found.reason


def test_the_newest_place_holds_and_names_its_evidence(home: Home) -> None:
    home.tell("The keys are on the hook.")
    seq = home.tell("Anna put the keys in the bowl.")
    found = home.beliefs.state("my keys", "location")
    assert (found.value, found.evidence) == ("in the bowl", (seq,))
    assert found.confidence > 0.9


def test_the_past_is_asked_by_world_time_and_by_what_was_known(home: Home) -> None:
    home.tell("The keys are on the hook.")
    home.tell("The keys are in the bowl.")
    home.tell("No, the keys are in the car.")
    assert home.beliefs.state("keys", "location", at=START + HOUR).value == "on the hook"
    assert home.beliefs.state("keys", "location", as_of=START + 2 * HOUR).value == "in the bowl"
    assert home.beliefs.state("keys", "location", at=START + 2 * HOUR).value == "in the car"


def test_after_its_end_a_fact_is_known_only_until_then(home: Home) -> None:
    home.tell("The keys are on the hook until Friday.")
    found = home.beliefs.state("keys", "location", at=START + timedelta(days=20))
    assert found.value is None
    assert found.reason == "known only until 2026-11-21 00:00:00 UTC: it was on the hook"


def test_before_it_was_told_a_fact_is_known_only_from_then(home: Home) -> None:
    home.tell("The keys are on the hook.")
    found = home.beliefs.state("keys", "location", at=START)
    assert (found.value, found.reason) == (None, "known only from 2026-11-16 10:00:00 UTC on: on the hook")


def test_a_denied_place_is_no_place(home: Home) -> None:
    home.tell("The keys are not in the drawer.")
    found = home.beliefs.state("keys", "location")
    assert (found.value, found.reason) == (None, "known only that it is not in the drawer")


def test_the_owner_wins_over_others_but_doubt_stays(home: Home) -> None:
    home.tell("The keys are on the hook.")
    sure = home.beliefs.state("keys", "location").confidence
    home.tell("The keys are in the fridge.", Trust.OTHER)
    found = home.beliefs.state("keys", "location")
    assert found.value == "on the hook"
    assert "somebody else said in the fridge" in found.reason
    assert found.confidence < sure


def test_equals_that_disagree_give_no_value(home: Home) -> None:
    home.tell("The keys are on the hook.", Trust.OTHER)
    home.tell("The keys are in the fridge.", Trust.AGENT)
    found = home.beliefs.state("keys", "location")
    assert found.value is None
    assert found.reason.startswith("two sources disagree")


def test_a_name_for_several_things_is_not_guessed(home: Home) -> None:
    home.tell("The spare key is in the blue tin.")
    assert home.beliefs.state("key", "location").value == "in the blue tin"
    home.tell("The cellar key is on the hook.")
    found = home.beliefs.state("key", "location")
    assert (found.value, found.reason) == (None, "key may be any of: cellar key, spare key")


def test_history_is_every_change_oldest_first(home: Home) -> None:
    for place in ("on the hook", "in the bowl", "in the bowl", "on the hook"):
        home.tell(f"The keys are {place}.")
    assert [fact.object for fact in home.beliefs.history("keys", "location")] == [
        "on the hook",
        "in the bowl",
        "on the hook",
    ]
    assert home.beliefs.history("bike", "location") == []


def test_who_moved_it_last_is_known_with_its_time(home: Home) -> None:
    home.tell("Anna put the keys in the bowl.")
    home.tell("Otto put the keys in the car.")
    assert home.beliefs.who("keys").value == "otto"
    assert home.beliefs.who("keys", at=START + HOUR).value == "anna"
    assert home.beliefs.who("bike").value is None


def test_a_change_by_nobody_that_was_named_makes_the_last_doer_doubtful(home: Home) -> None:
    home.tell("Anna put the keys in the bowl.")
    sure = home.beliefs.who("keys").confidence
    home.tell("The keys are in the car.")
    found = home.beliefs.who("keys")
    assert found.value == "anna"
    assert found.confidence < sure
    assert "changed again later (in the car)" in found.reason


def test_a_thing_that_nobody_was_seen_to_move_has_no_mover(home: Home) -> None:
    home.tell("The keys are in the bowl.")
    assert home.beliefs.who("keys").value is None


def fact(
    predicate: str, evidence: tuple[int, ...] = (1,), trust: Trust = Trust.OWNER, end: datetime | None = None
) -> Fact:
    return Fact(1, "anna", predicate, "x", Interval(START, end), Interval(START), evidence, trust)


def test_places_age_and_birthdays_do_not() -> None:
    later = START + timedelta(days=14)
    assert confidence(fact("location"), later) == pytest.approx(confidence(fact("location"), START) / 2, abs=1e-3)
    assert confidence(fact("birthday"), later) == confidence(fact("birthday"), START)


def test_what_is_known_to_have_ended_does_not_age() -> None:
    assert confidence(fact("location", end=START + HOUR), START + HOUR / 2) == confidence(fact("location"), START)


def test_repetition_adds_and_weaker_sources_take_away() -> None:
    weak = fact("location", trust=Trust.OTHER)
    repeated = fact("location", (1, 2, 3), Trust.OTHER)
    assert confidence(weak, START) < confidence(repeated, START) < confidence(fact("location"), START)
    assert confidence(weak, START, disputed=True) == pytest.approx(confidence(weak, START) / 2)
