"""Fading: the oldest pictures go, all that was known of them stays, and a crash loses nothing more."""

from datetime import timedelta

import numpy as np
import pytest
from perdure.errors import BadInput, DamagedError, FadedError
from perdure.memory.fading import stored_bytes
from perdure.records import Event, KeyFrame


@pytest.fixture
def filled(memory, clock):
    """Six events with a noisy picture each, an hour apart."""
    random = np.random.default_rng(0)
    for number in range(6):
        now = clock.wait(hours=1)
        frame = KeyFrame(now, random.integers(0, 255, (120, 160, 3), np.uint8), 1.0)
        with memory.step() as step:
            step.event(Event(now, now + timedelta(minutes=1), "camera", text=f"event {number}", key_frames=(frame,)))
    return memory


def _events(memory):
    return list(memory.journal.read(kinds=["event"]))


def test_the_oldest_pictures_go_until_the_budget_is_kept(filled):
    budget = stored_bytes(filled.root) // 2
    faded = filled.fade(budget)
    assert 0 < faded.pictures < 6
    assert stored_bytes(filled.root) <= budget + 8 * 4096
    for number, event in enumerate(_events(filled)):
        if number < faded.pictures:
            with pytest.raises(FadedError, match="has faded"):
                filled.frame(event.blobs[0])
        else:
            assert filled.frame(event.blobs[0]).shape == (120, 160, 3)


def test_what_they_showed_is_still_remembered_and_all_is_well(filled):
    filled.fade(0)
    filled.catch_up()
    assert filled.check() == []
    assert {hit.text for hit in filled.recall("event", k=10).hits} >= {"event 0", "event 5"}


def test_a_budget_that_is_kept_fades_nothing(filled):
    assert filled.fade(10**9).pictures == 0
    assert filled.journal.newest("faded") is None


def test_pictures_that_must_stay_stay(filled):
    filled.fade(0, keep=lambda record: record.payload["text"] == "event 0")
    first, second = _events(filled)[:2]
    assert filled.frame(first.blobs[0]).shape == (120, 160, 3)
    with pytest.raises(FadedError):
        filled.frame(second.blobs[0])


def test_fading_again_gives_up_nothing_twice(filled):
    assert filled.fade(0).pictures == 6
    assert filled.fade(0).pictures == 0


def test_damage_is_not_taken_for_fading(filled):
    blob = _events(filled)[5].blobs[0]
    path = filled.root / blob.pack
    data = bytearray(path.read_bytes())
    data[blob.offset : blob.offset + blob.length] = bytes(blob.length)
    path.write_bytes(data)
    with pytest.raises(DamagedError):
        filled.frame(blob)
    assert filled.check()


def test_a_negative_budget_is_refused(filled):
    with pytest.raises(BadInput, match="at least 0"):
        filled.fade(-1)
