"""Tracking: one tracklet per moving thing, none for ghosts, flicker, light or a moving camera."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import numpy as np
import pytest
from perdure.errors import BadInput
from perdure.perception.tracking import MOST_SAMPLES, MotionTracker, TrackSettings
from perdure.records import Tracklet

START = datetime(2026, 3, 1, tzinfo=UTC)


def follow(frames: Sequence[np.ndarray], tracker: MotionTracker | None = None, scale: int = 1) -> tuple[Tracklet, ...]:
    tracker = tracker or MotionTracker()
    for i, frame in enumerate(frames):
        tracker.look(frame, START + timedelta(seconds=i / 20), (frame.shape[1] * scale, frame.shape[0] * scale))
    return tracker.harvest()


def test_a_walker_is_one_tracklet_from_side_to_side(make: SimpleNamespace) -> None:
    (walker,) = follow(make.walking())
    assert (walker.track, walker.label) == (1, None)
    assert abs((walker.start - START).total_seconds() - 2) < 0.3
    assert abs((walker.end - START).total_seconds() - 4.5) < 0.3
    assert walker.boxes[0][1].x < 20
    assert walker.boxes[-1][1].x > 190


def test_boxes_fit_the_thing_in_pixels_of_the_full_frame(make: SimpleNamespace) -> None:
    (walker,) = follow(make.walking(), scale=3)
    middle = [box for _, box in walker.boxes if 300 < box.x < 500]
    assert middle
    for box in middle:
        assert abs(box.y - 150) < 15
        assert abs(box.height - 168) < 25
        assert abs(box.width - 72) < 25


def test_samples_are_few_in_order_and_cover_the_whole_life(make: SimpleNamespace) -> None:
    (walker,) = follow(make.walking(240, 20, 220))
    times = [time for time, _ in walker.boxes]
    assert 16 < len(times) <= MOST_SAMPLES
    assert times == sorted(times)
    assert (walker.end - times[-1]).total_seconds() < 0.5


def test_two_things_that_never_meet_are_two_tracklets(make: SimpleNamespace) -> None:
    frames = make.walking(120, 20, 100)
    for i, frame in enumerate(frames[20:100]):
        left = 200 - 2 * i
        frame[4:28, max(0, left) : left + 20] = (220, 230, 90)
    walkers = follow(frames)
    assert len(walkers) == 2
    ways = sorted(t.boxes[-1][1].x - t.boxes[0][1].x for t in walkers)
    assert ways[0] < -100
    assert ways[1] > 100


def test_somebody_who_stands_still_for_a_while_stays_one_track(make: SimpleNamespace) -> None:
    frames = make.walking(60, 10, 60)[:40]
    frames += [frames[-1]] * 400  # 20 s
    frames += make.walking(60, 10, 60)[40:] + [make.room()] * 30
    (walker,) = follow(frames)
    assert (walker.end - walker.start).total_seconds() > 20


def test_who_was_there_from_the_start_and_leaves_is_no_ghost(make: SimpleNamespace) -> None:
    frames = make.walking(50, 0, 50)[25:] + [make.room()] * 120
    tracker = MotionTracker()
    walkers = follow(frames, tracker)
    assert len(walkers) <= 1
    assert tracker.live == ()


def test_flicker_in_place_and_noise_are_no_things(make: SimpleNamespace) -> None:
    rng = np.random.default_rng(0)
    frames = []
    for i in range(120):
        frame = np.clip(make.room() + rng.normal(0, 8, (136, 240, 3)), 0, 255).astype(np.uint8)
        frame[20:50, 40:70] = 250 if i % 20 < 10 else 20
        frames.append(frame)
    assert follow(frames) == ()


def test_a_lamp_that_is_dimmed_is_no_thing(make: SimpleNamespace) -> None:
    frames = [(make.room() * (1 - 0.4 * min(1, i / 40))).astype(np.uint8) for i in range(80)]
    assert follow(frames) == ()


def test_a_moving_camera_makes_no_tracklets(make: SimpleNamespace) -> None:
    wide = np.concatenate([make.room(seed) for seed in range(4)], axis=1)
    tracker, moved = MotionTracker(), 0
    for i in range(160):
        tracker.look(wide[:, 4 * i : 4 * i + 240], START + timedelta(seconds=i / 20), (240, 136))
        moved += tracker.camera_moves
    assert len(tracker.harvest()) <= 2
    assert moved > 20


def test_a_reset_ends_all_tracks_and_numbers_go_on(make: SimpleNamespace) -> None:
    tracker = MotionTracker(first_number=7)
    frames = make.walking()
    for i, frame in enumerate(frames[:70]):
        tracker.look(frame, START + timedelta(seconds=i / 20), (240, 136))
    tracker.reset()
    assert tracker.live == ()
    assert [t.track for t in tracker.harvest()] == [7]
    assert tracker.next_number == 8


def test_a_harvest_cuts_a_track_in_two_parts_with_one_number(make: SimpleNamespace) -> None:
    tracker, frames, parts = MotionTracker(), make.walking(), []
    for i, frame in enumerate(frames):
        tracker.look(frame, START + timedelta(seconds=i / 20), (240, 136))
        if i == 65:
            parts += tracker.harvest()
    parts += tracker.harvest()
    assert [p.track for p in parts] == [1, 1]
    assert parts[0].end == parts[1].start


def test_a_frame_that_was_not_shrunk_is_refused() -> None:
    with pytest.raises(BadInput, match="shrink"):
        MotionTracker().look(np.zeros((720, 1280, 3), np.uint8), START, (1280, 720))


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(BadInput, match="most_boxes"):
        TrackSettings(most_boxes=0)
