"""A life is cut off, starved or robbed of power at every call to the file system: nothing acknowledged is ever lost.

The whole matrix and 300 random kills: ``python tests/reliability/faults.py``; its table is in docs/reliability.md.
"""

import errno

import pytest

KILL_BEFORE, TORN, FAIL_FROM, FAIL_ONCE = 1, 3, 4, 5
WRITE = 2

pytestmark = pytest.mark.slow


def wrong_in(results):
    return [(result["at"], result["wrong"]) for result in results if result["wrong"]]


def test_the_life_does_everything_that_can_be_cut_off(kinds):
    assert {1, 2, 3, 4, 5, 6, 7} <= set(kinds)  # create, write, sync, rename, truncate, unlink, mkdir
    assert len(kinds) > 300


@pytest.mark.parametrize("first", [1, 2, 3, 4])  # four quarters: on a slow machine one test would take too long
def test_nothing_is_lost_when_it_is_killed_before_any_call(lab, kinds, first):
    results = lab("cuts", mode=KILL_BEFORE, ats=list(range(first, len(kinds) + 1, 4)))
    assert wrong_in(results) == []
    assert all(result["status"] == -9 for result in results)


def test_nothing_is_lost_when_it_is_killed_in_the_middle_of_a_write(lab, kinds):
    writes = [number for number, kind in enumerate(kinds, 1) if kind == WRITE]
    results = lab("cuts", mode=TORN, ats=writes[::3])
    assert wrong_in(results) == []
    assert all(result["status"] == -9 for result in results)


def test_a_full_disk_is_said_clearly_and_the_same_memory_goes_on_when_there_is_space(lab, kinds):
    results = lab("cuts", mode=FAIL_FROM, ats=list(range(1, len(kinds), 3)), code=errno.ENOSPC)
    assert wrong_in(results) == []
    said = [line for result in results for line in result["refusals"]]
    assert len(said) > 0.8 * len(results)  # the last calls are those of catching up while closing: only logged
    assert all("nothing acknowledged was lost" in line and "space" in line.split("lost:")[1] for line in said)


def test_an_io_error_loses_nothing(lab, kinds):
    results = lab("cuts", mode=FAIL_ONCE, ats=list(range(1, len(kinds), 7)), code=errno.EIO)
    assert wrong_in(results) == []
    assert any(result["refusals"] for result in results)


def test_a_disk_that_turns_read_only_is_said_clearly_and_loses_nothing(lab, kinds):
    results = lab("cuts", mode=FAIL_FROM, ats=list(range(1, len(kinds), 7)), code=errno.EROFS)
    assert wrong_in(results) == []
    assert any("read-only" in line for result in results for line in result["refusals"])


def test_nothing_is_lost_in_lives_that_are_killed_again_and_again_at_random(lab):
    results = lab("kills", lives=2, each=10, seed=7, longest_s=0.25)
    assert wrong_in(results) == []
    assert sum(result["status"] == -9 for result in results) >= 10


def test_the_laboratory_sees_every_byte_that_is_written(lab):
    assert lab("power", every=10_000, variants=[])["unexplained"] == []


def test_nothing_acknowledged_is_lost_with_the_power(lab):
    results = lab("power", every=13, variants=[0, 1, 2, 3])["cases"]
    assert wrong_in(results) == []
    assert max(result["acknowledged"] for result in results) > 8


@pytest.mark.parametrize("promise", ["packs are synced", "the journal is synced"])
def test_the_laboratory_notices_a_missing_sync(lab, promise):
    assert wrong_in(lab("power", every=40, variants=[0, 1], sabotage=promise)["cases"])


def test_the_laboratory_notices_an_act_before_its_intent(lab, kinds):
    results = lab("cuts", mode=KILL_BEFORE, ats=list(range(200, len(kinds), 15)), sabotage="intents come before acts")
    assert any("without a durable intent" in str(result["wrong"]) for result in results)


def test_an_agent_that_dies_anywhere_does_each_irreversible_thing_exactly_once(lab):
    results = lab("acts", mode=KILL_BEFORE, every=25, kills=20, seed=3)
    assert wrong_in(results) == []


def test_an_agent_on_a_read_only_disk_can_be_read_and_writing_is_refused(lab):
    found, verified, refused = lab("read_only_disk")
    assert found == "found ['told']"
    assert verified == "verify []"
    assert "read-only, make it writable" in refused
