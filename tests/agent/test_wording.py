import pytest
from perdure.agent.answering import Finding
from perdure.agent.wording import is_faithful

KEY = Finding(
    "in the blue tin", "The spare key is in the blue tin. I was told today at 09:00:00.", "in the blue tin", (), 0.9, ""
)
NO = Finding(False, "No: Anna does not like coffee.", "No", (), 0.9, "")
ASKED = "Where is my spare key?"


@pytest.mark.parametrize(
    "text",
    [
        "The spare key is in the blue tin.",
        "Your spare key is in the blue tin; you told me today at 09:00:00.",
    ],
)
def test_a_wording_that_says_just_what_was_found_is_used(text: str) -> None:
    assert is_faithful(text, KEY, ASKED)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "The spare key is in the tin.",
        "The spare key is near the blue tin.",
        "The spare key is in the blue tin in the kitchen.",
        "The spare key is in the blue tin; I was told today at 10:00:00.",
        "The spare key is not in the blue tin.",
        "Tom put the spare key in the blue tin.",
    ],
)
def test_a_wording_with_news_of_its_own_is_not_used(text: str) -> None:
    assert not is_faithful(text, KEY, ASKED)


def test_a_denial_stays_a_denial() -> None:
    assert is_faithful("No, Anna does not like coffee.", NO, "Does Anna like coffee?")
    assert not is_faithful("Yes, Anna does like coffee.", NO, "Does Anna like coffee?")
