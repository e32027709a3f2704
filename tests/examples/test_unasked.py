"""What the robot tries out of its own accord, and how it takes words."""

import pytest
from perdure.agent import Call
from perdure.examples.home.curiosity import Trials, wish
from perdure.examples.home.requests import grounded, is_request, spoken_of, states_spoken_of
from perdure.world_model.causes import CausalModel

HOUR = 3600.0
STATES = {"lamp": "off"}
POSSIBLE = {"lamp": ("off", "on")}


def _wish(trials, now_s, *, round_s=0.0, kept=(), states=STATES):
    return wish(trials, CausalModel(), states, POSSIBLE, kept, now_s, round_s)


def test_a_trial_is_brought_back_once_every_room_was_seen_since() -> None:
    trials = Trials()
    begun = _wish(trials, HOUR)
    assert (begun.fixture, begun.state) == ("lamp", "on")
    on = {"lamp": "on"}
    assert _wish(trials, 1.5 * HOUR, states=on) is None, "not every room was seen since"
    back = _wish(trials, 1.5 * HOUR, round_s=1.2 * HOUR, states=on)
    assert (back.fixture, back.state) == ("lamp", "off")
    assert trials.open == []


def test_a_trial_does_not_last_for_ever() -> None:
    trials = Trials()
    _wish(trials, HOUR)
    assert _wish(trials, 4.1 * HOUR, states={"lamp": "on"}).state == "off"


def test_what_the_owner_wants_otherwise_is_tried_out_for_minutes_only() -> None:
    trials = Trials()
    assert _wish(trials, HOUR, kept={"lamp"}).minutes > 0
    assert trials.open == []


def test_trials_do_not_follow_one_another_at_once_and_spare_what_cannot_be_set() -> None:
    assert _wish(Trials(last_s=HOUR), HOUR + 60) is None
    assert _wish(Trials(not_usable=["lamp"]), HOUR) is None


@pytest.mark.parametrize(
    ("text", "asks"),
    [
        ("Please bring the keys to the desk.", True),
        ("The letter should go into the wardrobe, please.", True),
        ("Whenever you see the fridge open, close it.", True),
        ("I find the study so stuffy.", True),
        ("The spare key is in the desk drawer.", False),
        ("Anna's dentist is on Thursday at ten.", False),
    ],
)
def test_requests_are_told_from_facts(text, asks) -> None:
    assert is_request(text) is asks


def test_only_what_is_spoken_of_is_meant() -> None:
    names = ["desk", "Anna", "Ben", "blue mug"]
    assert spoken_of(names, "Put one of the blue mugs on the desk.", "Anna") == ["desk", "blue mug"]
    assert spoken_of(names, "Bring me the book.", "Ben") == ["Ben"]
    assert spoken_of(names, "I would like the book.", "Ben") == ["Ben"]
    assert spoken_of(names, "Hm.", "Ben") == names
    assert spoken_of(["hall lamp", "study lamp"], "It is too dark in the study.", "Ben") == ["study lamp"]


def test_to_carry_something_into_a_drawer_is_not_to_open_it() -> None:
    text = "Could you store the torch in the desk drawer?"
    opened = Call("set", {"fixture": "desk drawer", "state": "open"})
    assert grounded(text, "Anna", opened) < grounded(
        text, "Anna", Call("bring", {"thing": "torch", "to": "desk drawer"})
    )
    assert grounded("Open the desk drawer.", "Anna", opened) == 1.0


def test_a_thing_is_thrown_away_only_if_the_words_say_so() -> None:
    call = Call("throw_away", {"thing": "tablet"})
    assert grounded("Take the tablet to Leo.", "Anna", call) == 0.0
    assert grounded("Please get rid of the tablet.", "Anna", call) == 1.0


def test_a_standing_order_needs_words_of_standing() -> None:
    once, always = (Call(tool, {"fixture": "fridge", "state": "closed"}) for tool in ("set", "always"))
    for text, better, worse in (
        ("Please close the fridge.", once, always),
        ("Whenever you see the fridge open, close it.", always, once),
    ):
        assert grounded(text, "Anna", better) > grounded(text, "Anna", worse)


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("Whenever you see the fridge open and nobody in the kitchen, close it.", "closed"),
        ("Close the fridge whenever it is open.", "closed"),
        ("If the tap is on, turn it off.", "off"),
        ("Open the window.", "open"),
    ],
)
def test_what_is_wanted_is_the_state_of_the_command_not_of_its_condition(text, state) -> None:
    assert states_spoken_of(["closed", "off", "on", "open"], text) == [state]
