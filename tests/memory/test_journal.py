"""The journal: append-only, contiguous, checksummed."""

from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from perdure.errors import BadInput, DamagedError, PerdureError
from perdure.memory.journal import canonical
from perdure.records import Trust

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text("aß€😀\n\0"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


def tell(memory, *texts):
    with memory.step() as step:
        for text in texts:
            step.told(text)
    return step.records


def spoil(memory, statement, **values):
    with memory._engine.begin() as tx:
        tx.execute(sa.text(statement), values)


def test_what_a_step_stored_is_read_back_the_same(memory):
    stored = tell(memory, "one", "two", "three")
    assert [record.seq for record in stored] == [2, 3, 4]
    assert tuple(memory.journal.read(after=1)) == stored


def test_a_step_that_raises_stores_nothing(memory):
    def fail():
        with memory.step() as step:
            step.told("never")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert memory.journal.last_seq() == 1


def test_a_step_is_stored_whole_or_not_at_all(memory):
    def step_with(value):
        with memory.step() as step:
            step.told("fine")
            step.note("bad", {"value": value})

    with pytest.raises(BadInput, match="JSON"):
        step_with(float("nan"))
    assert memory.journal.last_seq() == 1


@pytest.mark.parametrize("text", ["", "   ", "x" * 100_001])
def test_words_to_remember_are_bounded(memory, text):
    with pytest.raises(BadInput), memory.step() as step:
        step.told(text)


def test_text_without_a_utf8_form_is_refused(memory):
    with pytest.raises(BadInput, match="JSON"), memory.step() as step:
        step.told("caf\udce9")
    assert tell(memory, "café 😀 \0 end")[0].payload["text"] == "café 😀 \0 end"


def test_a_thing_cannot_end_before_it_starts(memory, clock):
    naive = datetime(2026, 1, 1)
    with pytest.raises(BadInput, match="aware"), memory.step() as step:
        step.told("hello", time=naive)


@given(st.dictionaries(st.text(max_size=5), JSON, max_size=4))
def test_canonical_json_depends_on_content_not_on_order(payload):
    assert canonical(payload) == canonical(dict(reversed(payload.items())))


def test_reading_is_bounded_by_number_kind_and_count_from_either_end(memory):
    tell(memory, *(f"thing {number}" for number in range(1100)))  # more than two pages
    journal = memory.journal
    assert [r.seq for r in journal.read(after=498, until=503)] == [499, 500, 501, 502, 503]
    assert [r.seq for r in journal.read(newest_first=True, limit=3)] == [1101, 1100, 1099]
    assert [r.seq for r in journal.read(newest_first=True, until=600, after=598)] == [600, 599]
    assert len(list(journal.read(kinds=["told"]))) == 1100
    assert list(journal.read(kinds=["boot"], after=1)) == []
    assert len(list(journal.read(limit=777))) == 777
    assert journal.newest("told").seq == 1101
    assert sorted(journal.get([1101, 5, 5, 9999])) == [5, 1101]


def test_trust_source_zone_and_times_are_kept(memory, clock):
    when = datetime(2025, 12, 24, 18, 30, 0, 123456, UTC)
    with memory.step() as step:
        step.told("secret", time=when, source="radio", trust=Trust.OTHER, speaker="anna")
    (record,) = memory.journal.read(kinds=["told"])
    assert (record.start, record.end, record.source, record.trust) == (when, when, "radio", Trust.OTHER)
    assert (record.zone, record.owner, record.boot) == ("UTC", "owner", memory.boot)
    assert record.recorded == clock.now()


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE records SET payload = replace(payload, 'two', 'new') WHERE seq = 3",
        "UPDATE records SET wall_us = wall_us + 1 WHERE seq = 3",
        "UPDATE records SET trust = 'seen' WHERE seq = 3",
        "UPDATE records SET payload = x'ff00' WHERE seq = 3",
        "UPDATE records SET checksum = x'00' WHERE seq = 3",
        "INSERT INTO blobs VALUES (3, 0, 'ab', 'frame', 'frames/x', 0, 1)",
    ],
)
def test_a_changed_record_is_found_and_never_read(memory, damage):
    tell(memory, "one", "two", "three")
    spoil(memory, damage)
    with pytest.raises(DamagedError, match=r"record 3 does not have its checksum|could not decode|damaged"):
        list(memory.journal.read())
    problems = memory.journal.check()
    assert any("3" in problem.message for problem in problems)
    assert all("copy" in problem.repair for problem in problems)


@pytest.mark.parametrize(("gone", "said"), [(3, "records 3 to 3"), (4, "records 4 to 4"), (1, "records 1 to 1")])
def test_a_missing_record_is_found_at_the_end_too(memory, gone, said):
    tell(memory, "one", "two", "three")
    spoil(memory, "DELETE FROM records WHERE seq = :gone", gone=gone)
    assert any(said in problem.message for problem in memory.journal.check())


def test_a_closed_memory_says_so(open_memory):
    memory = open_memory()
    memory.close()
    with pytest.raises(PerdureError, match="closed"):
        tell(memory, "too late")


def test_two_threads_writing_give_one_order(memory):
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(4) as pool:
        stored = list(pool.map(lambda number: tell(memory, f"a {number}", f"b {number}"), range(40)))
    assert sorted(record.seq for pair in stored for record in pair) == list(range(2, 82))
    assert all(second.seq == first.seq + 1 for first, second in stored)
    recorded = [record.recorded for record in memory.journal.read()]
    assert recorded == sorted(recorded)
    assert memory.check() == []


def test_a_record_lasts_as_long_as_its_event(memory, clock):
    from perdure.records import Event

    start = clock.now()
    with memory.step() as step:
        step.event(Event(start, start + timedelta(seconds=5), "camera", text="a cat"))
    assert step.records[0].end - step.records[0].start == timedelta(seconds=5)
