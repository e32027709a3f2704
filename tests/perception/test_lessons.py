"""Sentences that name what is shown."""

from datetime import UTC, datetime

import pytest
from perdure.perception.lessons import Lesson, Naming, read_lesson
from perdure.records import Pose


@pytest.mark.parametrize(
    ("sentence", "taught"),
    [
        ("This is the kitchen table.", [("kitchen table", "thing", "")]),
        ("This is the hall lamp. It is on.", [("hall lamp", "fixture", "on")]),
        ("Now the hall lamp is off.", [("hall lamp", "fixture", "off")]),
        ("The fridge is now open.", [("fridge", "fixture", "open")]),
        ("This is Ben.", [("Ben", "person", "")]),
        ("I am Anna.", [("Anna", "person", "")]),
        ("This is a blue mug.", [("blue mug", "item", "")]),
        ("This is an umbrella.", [("umbrella", "item", "")]),
        ("These are the keys.", [("keys", "item", "")]),
        ("This room is the living room.", [("living room", "room", "")]),
        (
            "This room is the kitchen. This is the fridge. It is closed.",
            [("kitchen", "room", ""), ("fridge", "fixture", "closed")],
        ),
    ],
)
def test_names_are_read(sentence: str, taught: list[tuple[str, str, str]]) -> None:
    assert [(n.name, n.kind, n.state) for n in read_lesson(sentence)] == taught


@pytest.mark.parametrize(
    "sentence",
    [
        "Bring me the keys.",
        "The spare key is in the desk drawer.",
        "This is the plan. Bring the mug.",
        "",
        "It is on.",
        "Hello, Ben!",
    ],
)
def test_other_sentences_teach_nothing(sentence: str) -> None:
    assert read_lesson(sentence) == ()


def test_a_lesson_is_written_as_plain_values() -> None:
    lesson = Lesson(datetime(2027, 3, 1, 7, tzinfo=UTC), Pose(1, 2, 3), "This is Ben.", (Naming("Ben", "person"),))
    assert lesson.to_json() == {
        "time": "2027-03-01T07:00:00+00:00",
        "pose": [1, 2, 3],
        "sentence": "This is Ben.",
        "taught": [["Ben", "person", ""]],
    }
