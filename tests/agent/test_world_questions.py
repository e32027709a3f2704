"""Questions about a watched world are read in wordings that no list in the package holds."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from perdure.agent.happenings import read_happening
from perdure.agent.queries import Happening
from perdure.agent.questions import parse_questions
from perdure.perception.words import Mentions
from perdure.records import Interval

ZONE = ZoneInfo("UTC")
NOW = datetime(2027, 3, 7, 20, 0, tzinfo=UTC)
TUESDAY = datetime(2027, 3, 2, tzinfo=UTC)


def ask(text):
    (query,) = parse_questions(text, NOW, ZONE)
    return query


def on_tuesday(hour, minute=0):
    return TUESDAY + timedelta(hours=hour, minutes=minute)


CLAUSES = [
    ("Ben put the keys on the kitchen table", Happening("moved", "keys", place="kitchen table", by="ben")),
    ("Ben took the book from the shelf", Happening("moved", "book", origin="shelf", by="ben")),
    ("Anna giving Ben the letter", Happening("moved", "letter", place="ben", by="anna")),
    ("the wallet was carried into the study by Anna", Happening("moved", "wallet", place="study", by="anna")),
    ("the teddy being moved from the bed to the sofa", Happening("moved", "teddy", origin="bed", place="sofa")),
    ("Ben turned the hall lamp off", Happening("state", "hall lamp", "off", by="ben")),
    ("somebody switched on the kettle", Happening("state", "kettle", "on")),
    ("the window being shut", Happening("state", "window", "closed")),
    ("the light switch was turned on", Happening("state", "light switch", "on")),
    ("the washing machine stopped", Happening("state", "washing machine", "off")),
    ("the bathroom mat got wet", Happening("state", "bathroom mat", "wet")),
    ("Anna coming home", Happening("entered", "anna")),
    ("Ben's return", Happening("entered", "ben")),
    ("Anna walked into the kitchen", Happening("entered", "anna", place="kitchen")),
    ("Ben left for work", Happening("left", "ben")),
    ("Ben going out", Happening("left", "ben")),
    ("Ben left the study", Happening("left", "ben", place="study")),
    ("Ben left the keys on the desk", Happening("moved", "keys", place="desk", by="ben")),
    ("the blue mug", None),
    ("Ben is happy", None),
]


@pytest.mark.parametrize(("text", "expected"), CLAUSES, ids=[text for text, _ in CLAUSES])
def test_a_clause_says_what_changed(text, expected):
    assert read_happening(text, Mentions()) == expected


HELD_OUT = [
    ("Where could one find the scissors on Tuesday at 10:15?", "location", "scissors"),
    ("I need to know where my umbrella was on Tuesday at 10:15", "location", "owner's umbrella"),
    ("Where had Ben put the keys on Tuesday?", "location", "keys"),
    ("From which place did Anna take the book on Tuesday?", "location", "book"),
    ("Where did the wallet end up on Tuesday evening?", "location", "wallet"),
    ("At the time Anna came back on Tuesday, where was the wallet?", "location", "wallet"),
    ("Where was the teddy after Ben left the house on Tuesday?", "location", "teddy"),
    ("When exactly was the tablet carried to the bed on Tuesday?", "when_happened", "tablet"),
    ("At which hour did the fan start on Tuesday?", "when_happened", "fan"),
    ("How long ago did Anna get home?", "when_happened", "anna"),
    ("When was it last that someone opened the wardrobe?", "when_happened", "wardrobe"),
    ("When did you notice Ben leaving?", "when_happened", "ben"),
    ("Which person carried the teddy to the sofa on Tuesday?", "who_did", "teddy"),
    ("Who has been opening the fridge on Tuesday at 10:20?", "who_did", "fridge"),
    ("Through whom was the kettle turned on on Tuesday at 10:20?", "who_did", "kettle"),
    ("Whose doing was it that the window was opened on Tuesday at 10:20?", "who_did", "window"),
    ("How frequently did Ben open the fridge on Tuesday?", "count", "fridge"),
    ("How many times in total was the torch relocated on Tuesday?", "count", "torch"),
    ("Count how often the kettle was turned on on Tuesday", "count", "kettle"),
    ("What number of times did you witness the fridge being opened on Tuesday?", "count", "fridge"),
    ("Why had the study lamp gone out on Tuesday at 10:20?", "why", "study lamp"),
    ("How come the heater started on Tuesday at 10:20?", "why", "heater"),
    ("What triggered the fridge alarm to go off on Tuesday at 10:20?", "why", "fridge alarm"),
    ("What turned the fan on on Tuesday at 10:20?", "why", "fan"),
    ("What is the reason that the mat got wet on Tuesday at 10:20?", "why", "mat"),
    ("In which place do the glasses normally lie in the evening?", "usual_place", "glasses"),
    ("Generally speaking, where are the keys in the morning?", "usual_place", "keys"),
    ("Where does Anna tend to keep the wallet?", "usual_place", "wallet"),
    ("What's the typical spot for the umbrella in the afternoon?", "usual_place", "umbrella"),
    ("As a rule, when does Ben get home on weekdays?", "usual_time", "ben"),
    ("How late does Anna usually leave the house?", "usual_time", "anna"),
    ("What time does Ben typically come back?", "usual_time", "ben"),
    ("In what condition was the kitchen window on Tuesday at 10:20?", "state", "kitchen window"),
    ("Was the hall lamp on or off on Tuesday at 10:20?", "state", "hall lamp"),
]


@pytest.mark.parametrize(("text", "kind", "subject"), HELD_OUT, ids=[text for text, _, _ in HELD_OUT])
def test_other_wordings_than_those_asked_with_are_read(text, kind, subject):
    query = ask(text)
    spoken_of = query.events[0].thing if query.events else query.subject
    assert (query.kind, spoken_of) == (kind, subject)


ORDERS = [
    "What took place earlier on Tuesday: Ben coming home or the kettle being switched on?",
    "On Tuesday, did Ben come home before the kettle was turned on or after that?",
    "Which of these happened first on Tuesday, Ben's return or the kettle being turned on?",
    "Ben came home, the kettle was switched on: which came first on Tuesday?",
    "In which sequence did these events happen on Tuesday: Ben came home, the kettle was switched on?",
]


@pytest.mark.parametrize("text", ORDERS)
def test_what_came_first_is_asked_about_both(text):
    query = ask(text)
    assert query.kind == "order"
    assert query.events == (Happening("entered", "ben"), Happening("state", "kettle", "on"))
    assert query.when == Interval(TUESDAY, TUESDAY + timedelta(days=1))


CHANGES = [
    "What had been moved in the study on Tuesday between 9:00 and 11:00?",
    "Tell me which items changed place in the study between 9:00 and 11:00 on Tuesday",
    "What did somebody move in the study on Tuesday between 9:00 and 11:00?",
    "Which things in the study were rearranged between 9:00 and 11:00 on Tuesday?",
    "List the changes in the study on Tuesday between 9:00 and 11:00",
    "Has anything been moved in the study on Tuesday between 9:00 and 11:00?",
]


@pytest.mark.parametrize("text", CHANGES)
def test_what_changed_is_asked_of_a_room_and_a_span(text):
    query = ask(text)
    assert (query.kind, query.object) == ("changed", "study")
    assert query.when == Interval(on_tuesday(9), on_tuesday(11))


def test_a_change_can_date_a_question():
    query = ask("Who opened the fridge on Tuesday after Ben came home?")
    assert (query.kind, query.relation, query.anchor) == ("who_did", "after", Happening("entered", "ben"))
    assert query.when == Interval(TUESDAY, TUESDAY + timedelta(days=1))


def test_a_clause_in_front_is_the_same_as_behind():
    front = ask("Before the keys were moved to the sofa on Tuesday, where were they?")
    behind = ask("Where were the keys before they were moved to the sofa on Tuesday?")
    assert (front.subject, front.relation, front.anchor) == (behind.subject, behind.relation, behind.anchor)
    assert front.anchor == Happening("moved", "keys", place="sofa")


def test_the_side_of_a_move_is_kept():
    assert ask("Where did Ben take the keys from on Tuesday?").side == "origin"
    assert ask("Where did Ben take the keys to on Tuesday?").side == "place"


def test_a_habit_names_its_recurring_times():
    assert ask("Where are the keys usually on Monday mornings?").habit == ("monday", "morning")
    assert ask("When does Ben usually come home on weekdays?").habit == ("weekday",)


def test_the_on_of_a_verb_is_not_that_of_a_day():
    query = ask("When was it that the kettle went on today?")
    assert query.events == (Happening("state", "kettle", "on"),)
    assert query.when == Interval(NOW.replace(hour=0), NOW.replace(hour=0) + timedelta(days=1))


WORDS = sorted({word for text, *_ in HELD_OUT + CLAUSES for word in text.split()})


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(WORDS), max_size=14).map(" ".join))
def test_no_jumble_of_its_words_raises(text):
    assert parse_questions(text, NOW, ZONE)
