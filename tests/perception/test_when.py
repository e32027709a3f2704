from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from perdure.errors import BadInput
from perdure.perception.when import find_when

BERLIN = ZoneInfo("Europe/Berlin")
NOW = datetime(2026, 11, 23, 15, 0, tzinfo=BERLIN)  # a Monday


def at(day: int, hour: int = 0, minute: int = 0, second: int = 0, month: int = 11) -> datetime:
    return datetime(2026, month, day, hour, minute, second, tzinfo=BERLIN)


def span(text: str, now: datetime = NOW, zone: ZoneInfo = BERLIN, prefer: str = "past"):
    (when,) = find_when(text, now, zone, prefer)
    return when.interval.start, when.interval.end


PAST = [
    ("today", at(23), at(24)),
    ("yesterday", at(22), at(23)),
    ("tonight", at(23, 18), at(24, 6)),
    ("this morning", at(23, 6), at(23, 12)),
    ("this afternoon", at(23, 12), at(23, 18)),
    ("yesterday noon", at(22, 12), at(22, 12, 1)),
    ("yesterday evening", at(22, 18), at(23)),
    ("yesterday night", at(22, 22), at(23, 6)),
    ("last night", at(22, 22), at(23, 6)),
    ("last night at 2", at(23, 2), at(23, 2, 1)),
    ("last night at 11", at(22, 23), at(22, 23, 1)),
    ("in the morning", at(23, 6), at(23, 12)),
    ("in the evening", at(22, 18), at(23)),
    ("Tuesday", at(17), at(18)),
    ("Monday", at(16), at(17)),
    ("on Tuesday evening", at(17, 18), at(18)),
    ("last Tuesday", at(17), at(18)),
    ("the morning of 3 November", at(3, 6), at(3, 12)),
    ("the day before yesterday", at(21), at(22)),
    ("two hours ago", at(23, 12, 30), at(23, 13, 30)),
    ("5 minutes ago", at(23, 14, 54, 30), at(23, 14, 55, 30)),
    ("half an hour ago", at(23, 14, 25), at(23, 14, 35)),
    ("three days ago in the evening", at(20, 18), at(21)),
    ("in the last hour", at(23, 14), at(23, 15)),
    ("over the past two days", at(21, 15), at(23, 15)),
    ("just now", at(23, 14, 55), at(23, 15)),
    ("at 9", at(23, 9), at(23, 9, 1)),
    ("at 9:30", at(23, 9, 30), at(23, 9, 31)),
    ("at 21:05:10", at(22, 21, 5, 10), at(22, 21, 5, 11)),
    ("9 pm", at(22, 21), at(22, 21, 1)),
    ("9 p.m. yesterday", at(22, 21), at(22, 21, 1)),
    ("at 3", at(23, 15), at(23, 15, 1)),
    ("at 03:00", at(23, 3), at(23, 3, 1)),
    ("at nine o'clock", at(23, 9), at(23, 9, 1)),
    ("yesterday at half past nine", at(22, 9, 30), at(22, 9, 31)),
    ("at quarter to ten", at(23, 9, 45), at(23, 9, 46)),
    ("at noon", at(23, 12), at(23, 12, 1)),
    ("around 9", at(23, 8, 30), at(23, 9, 31)),
    ("between 9 and 10", at(23, 9), at(23, 10)),
    ("between 9 and 10 pm", at(22, 21), at(22, 22)),
    ("between 11 and 1", at(23, 11), at(23, 13)),
    ("yesterday between 5 and 7", at(22, 17), at(22, 19)),
    ("yesterday evening between 9 and 10", at(22, 21), at(22, 22)),
    ("on Tuesday between 9 and 10", at(17, 9), at(17, 10)),
    ("from 22:00 to 6", at(22, 22), at(23, 6)),
    ("from Monday to Wednesday", at(16), at(19)),
    ("before 9", None, at(23, 9)),
    ("after 9", at(23, 9), None),
    ("until Tuesday", None, at(18)),
    ("before Tuesday", None, at(17)),
    ("after Tuesday", at(18), None),
    ("since Monday", at(16), None),
    ("since this morning", at(23, 6), None),
    ("yesterday after 9", at(22, 9), at(23)),
    ("before 9 yesterday", at(22), at(22, 9)),
    ("on 3 November 2026", at(3), at(4)),
    ("November 3rd, 2026", at(3), at(4)),
    ("Tuesday, 3 November at 14:00", at(3, 14), at(3, 14, 1)),
    ("on the 3rd", at(3), at(4)),
    ("23.11.2026", at(23), at(24)),
    ("3/11/2026", at(3), at(4)),
    ("2026-11-03", at(3), at(4)),
    ("2026-11-23 14:00Z", at(23, 15), at(23, 15, 1)),
    ("2026-11-23T14:00:05+01:00", at(23, 14, 0, 5), at(23, 14, 0, 6)),
    ("last week", at(16), at(23)),
    ("this week", at(23), at(30)),
    ("last weekend", at(21), at(23)),
    ("in November", at(1), at(1, month=12)),
    ("in May", at(1, month=5), at(1, month=6)),
]
FUTURE = [
    ("Tuesday", at(24), at(25)),
    ("next Friday at 8", at(27, 8), at(27, 8, 1)),
    ("tomorrow morning", at(24, 6), at(24, 12)),
    ("at 9", at(24, 9), at(24, 9, 1)),
    ("in two days", at(25), at(26)),
    ("on 3 December", at(3, month=12), at(4, month=12)),
]


@pytest.mark.parametrize(("text", "start", "end"), PAST)
def test_a_phrase_means_its_span_before_now(text, start, end):
    assert span(f"so, {text}, I think") == (start, end)


@pytest.mark.parametrize(("text", "start", "end"), FUTURE)
def test_a_phrase_means_its_span_ahead_when_asked_so(text, start, end):
    assert span(text, prefer="future") == (start, end)


@pytest.mark.parametrize(
    "text",
    [
        "may I see the sun on the second march",
        "the door code is 4711",
        "at 0:05",
        "second 5 of the video",
        "at 1:05 of the video",
        "at 5 seconds",
        "at 9 Elm Street",
        "on the 3rd floor",
        "every Friday at 9",
        "at 9 every Friday",
        "on Mondays",
        "each morning",
        "31 April",
        "99999 years ago",
        "at 25:00",
        "the last time",
        "my second mat",
        "0171 555 1234",
    ],
)
def test_what_only_looks_like_a_time_is_none(text):
    assert find_when(text, NOW, BERLIN) == ()


def test_a_phrase_knows_where_it_stands_and_how_coarse_it_was_said():
    text = "where were the keys on Tuesday evening, and who moved them?"
    (when,) = find_when(text, NOW, BERLIN)
    assert text[when.start_char : when.end_char] == when.phrase == "on Tuesday evening"
    assert when.grain == "part"


def test_an_instant_is_padded_by_its_grain():
    hour, minute = (find_when(text, NOW, BERLIN)[0] for text in ("at 9", "at 9:30"))
    assert hour.padded().start == at(23, 8, 30)
    assert minute.padded().start == at(23, 9, 25)
    assert find_when("yesterday", NOW, BERLIN)[0].padded().start == at(22)


def test_a_clock_time_takes_the_day_that_the_text_names_elsewhere():
    day, clock = find_when("yesterday did anyone come at 9?", NOW, BERLIN)
    assert day.interval.start == at(22)
    assert clock.interval.start == at(22, 9)


def test_the_asker_zone_decides_what_day_it_is():
    tokyo = ZoneInfo("Asia/Tokyo")
    now = datetime(2026, 11, 23, 20, 0, tzinfo=UTC)  # already Tuesday in Tokyo
    assert span("today", now, tokyo)[0] == datetime(2026, 11, 24, tzinfo=tokyo)


@pytest.mark.parametrize(("day", "hours"), [("2026-10-25", 25), ("2026-03-29", 23), ("2026-11-03", 24)])
def test_a_day_has_the_hours_that_summer_time_leaves_it(day, hours):
    start, end = span(f"on {day}")
    assert end - start == timedelta(hours=hours)


def test_a_night_in_which_the_clock_changes_has_its_true_length():
    monday = datetime(2026, 10, 26, 12, 0, tzinfo=BERLIN)
    start, end = span("Saturday night", monday)
    assert end - start == timedelta(hours=9)


def test_america_writes_the_month_first():
    assert span("3/11/2026", zone=ZoneInfo("America/New_York"))[0].month == 3


def test_a_naive_now_is_refused():
    with pytest.raises(BadInput, match="aware"):
        find_when("today", datetime(2026, 1, 1), BERLIN)


WORDS = [*" ".join(text for text, *_ in PAST + FUTURE).split(), "and", "of", "ago", "30", "february", "a", "9999-12-31"]


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(st.text(max_size=100), st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join)),
    st.datetimes(timezones=st.sampled_from([BERLIN, UTC, ZoneInfo("Pacific/Kiritimati")])),
    st.sampled_from(["past", "future"]),
)
def test_no_text_raises_and_every_span_runs_forward(text, now, prefer):
    before = 0
    for when in find_when(text, now, BERLIN, prefer):
        assert text[when.start_char : when.end_char] == when.phrase
        assert when.start_char >= before
        before = when.end_char
        start, end = when.interval.start, when.interval.end
        assert start is None or end is None or start < end
