"""Events: a partition of the frames, opened and closed by what happens, told in words."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from perdure.errors import BadInput
from perdure.perception.events import EventSegmenter, EventSettings, describe
from perdure.perception.protocols import Look
from perdure.records import Box, Event, Image, Label, Observation, Space, Tracklet, Trust

START = datetime(2026, 3, 1, tzinfo=UTC)
ROOM, WALKER = (110, 110, 110), (10, 20, 60)


class MeanColour:
    """An encoder whose vector is the mean colour, and whose label says how dark the picture is."""

    space = Space("00", 3, name="mean-colour")

    def __init__(self) -> None:
        self.looked = 0

    def encode_images(self, images: Sequence[Image]) -> np.ndarray:
        return np.stack([self.look(image).vector for image in images])

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        raise NotImplementedError

    def look(self, image: Image, k: int = 5) -> Look:
        self.looked += 1
        mean = image.mean(axis=(0, 1)).astype(np.float32)
        darkness = float(1 - mean.mean() / 255)
        return Look(mean / np.linalg.norm(mean), (Label("dark" if darkness > 0.65 else "room", darkness),))


def observe(frames: Sequence[np.ndarray], fps: float = 20.0) -> list[Observation]:
    return [
        Observation(START + timedelta(seconds=i / fps), "test", Trust.SEEN, frame=frame, index=i)
        for i, frame in enumerate(frames)
    ]


def segment(frames: Sequence[np.ndarray], segmenter: EventSegmenter | None = None, fps: float = 20.0) -> list[Event]:
    segmenter = segmenter or EventSegmenter()
    events = [event for seen in observe(frames, fps) for event in segmenter.feed(seen)]
    return events + list(segmenter.flush())


def spans(events: Sequence[Event]) -> list[tuple[int, int]]:
    return [(event.media["first_frame"], event.media["last_frame"]) for event in events]


def test_a_walk_through_a_quiet_room_is_one_event_between_two_quiet_ones(make: SimpleNamespace) -> None:
    before, walk, after = segment(make.walking())
    assert [e.media["quiet"] for e in (before, walk, after)] == [True, False, True]
    assert abs(walk.media["first_frame"] - 40) <= 4
    assert 90 <= walk.media["last_frame"] <= 90 + 20 * 2.5
    assert len(walk.tracklets) == 1
    assert walk.text == "1 moving thing: one from the left to the right"
    assert before.text == "nothing moves"


def test_events_are_a_partition_of_the_frames(make: SimpleNamespace) -> None:
    frames = make.walking() + [make.room(5)] * 30 + make.walking(seed=5)
    events = segment(frames)
    assert events[0].media["first_frame"] == 0
    assert events[-1].media["last_frame"] == len(frames) - 1
    assert all(b.media["first_frame"] == a.media["last_frame"] + 1 for a, b in pairwise(events))
    assert all(e.start <= e.key_frames[0].time <= e.key_frames[-1].time <= e.end for e in events)


def test_each_shot_of_a_film_is_an_event(make: SimpleNamespace) -> None:
    events = segment([make.room(seed) for seed in (1, 2, 3) for _ in range(40)])
    assert spans(events) == [(0, 39), (40, 79), (80, 119)]


def test_flashes_make_no_events_shorter_than_the_least(make: SimpleNamespace) -> None:
    events = segment([make.room(i % 2) for i in range(60)])
    lengths = [last - first + 1 for first, last in spans(events)]
    assert all(length >= 10 for length in lengths[:-1])


def test_motion_without_end_is_cut_by_length(make: SimpleNamespace) -> None:
    frames = [frame for _ in range(4) for frame in make.walking(50, 0, 50)]
    events = segment(frames, EventSegmenter(settings=EventSettings(most_s=3.0)))
    assert len(events) >= 3
    assert all((e.end - e.start).total_seconds() <= 3.0 for e in events)


def test_quiet_without_end_is_cut_by_length_and_keeps_one_key_frame_each(make: SimpleNamespace) -> None:
    events = segment([make.room()] * 60, EventSegmenter(settings=EventSettings(most_quiet_s=100)), fps=0.2)
    assert [len(e.key_frames) for e in events] == [1, 1, 1]
    assert all(e.media["quiet"] for e in events)


def test_the_same_frames_give_the_same_events(make: SimpleNamespace) -> None:
    first, second = (segment(make.walking(), EventSegmenter(MeanColour())) for _ in range(2))
    assert [(e.start, e.end, e.text, e.labels, e.tracklets, dict(e.media)) for e in first] == [
        (e.start, e.end, e.text, e.labels, e.tracklets, dict(e.media)) for e in second
    ]
    assert all(
        np.array_equal(a.vector, b.vector)
        for one, two in zip(first, second, strict=True)
        for a, b in zip(one.key_frames, two.key_frames, strict=True)
    )


def test_key_frames_are_few_distinct_encoded_and_show_the_walker(make: SimpleNamespace) -> None:
    walk = segment(make.walking(), EventSegmenter(MeanColour()))[1]
    assert 2 <= len(walk.key_frames) <= 4
    assert len({k.index for k in walk.key_frames}) == len(walk.key_frames)
    assert all(np.linalg.norm(k.vector) == pytest.approx(1) for k in walk.key_frames)
    assert any(np.array_equal(k.image, make.walking()[k.index]) and 50 < k.index < 85 for k in walk.key_frames)
    assert walk.space == MeanColour.space


def test_encoding_is_limited_by_rate_and_happens_in_the_longest_quiet(make: SimpleNamespace) -> None:
    busy = EventSegmenter(MeanColour(), EventSettings(encodes_per_s=1.0, most_named=0))
    events = segment([f for _ in range(4) for f in make.walking(50, 0, 50)], busy)
    assert busy.encoded <= 10 + len(events)
    quiet = EventSegmenter(MeanColour(), EventSettings(most_quiet_s=1000))
    segment([make.room()] * 50, quiet, fps=0.1)  # 490 s
    assert quiet.encoded == 1 + 490 // 60


def test_a_moving_thing_is_named_by_its_own_picture_if_the_encoder_is_sure(make: SimpleNamespace) -> None:
    walk = segment(make.walking(), EventSegmenter(MeanColour()))[1]
    assert [t.label for t in walk.tracklets] == ["dark"]
    assert "dark from the left to the right" in walk.text
    unsure = EventSegmenter(MeanColour(), EventSettings(name_probability=0.99))
    assert [t.label for t in segment(make.walking(), unsure)[1].tracklets] == [None]


def test_candidates_in_memory_are_bounded(make: SimpleNamespace) -> None:
    segmenter = EventSegmenter(settings=EventSettings(encodes_per_s=20.0, encode_change=0.001))
    held = 0
    for seen in observe(make.walking(220, 10, 210)):
        segmenter.feed(seen)
        held = max(held, len(segmenter._open.candidates))
    assert held == segmenter.settings.most_candidates


@pytest.mark.parametrize("begin", [1, 60, 130])
def test_a_resumed_segmenter_returns_no_frame_twice_and_encodes_none_of_the_warm_up(
    make: SimpleNamespace, begin: int
) -> None:
    encoder = MeanColour()
    segmenter = EventSegmenter(encoder, first_frame=begin)
    events = []
    for seen in observe(make.walking()):
        events += segmenter.feed(seen)
        assert encoder.looked == 0 or seen.index >= begin
    events += segmenter.flush()
    assert events[0].media["first_frame"] == begin
    assert events[0].key_frames[0].index >= begin


def test_resuming_at_a_boundary_gives_the_events_of_an_uninterrupted_run(make: SimpleNamespace) -> None:
    whole = segment(make.walking())
    for done in (1, 2):
        begin = whole[done - 1].media["last_frame"] + 1
        rest = segment(make.walking(), EventSegmenter(first_frame=begin))
        assert [(e.start, e.end, e.text, dict(e.media)) for e in rest] == [
            (e.start, e.end, e.text, dict(e.media)) for e in whole[done:]
        ]


def test_frames_out_of_order_are_refused(make: SimpleNamespace) -> None:
    segmenter = EventSegmenter()
    first, second = observe([make.room()] * 2)
    segmenter.feed(second)
    with pytest.raises(BadInput, match="in order"):
        segmenter.feed(first)


def test_an_observation_without_a_frame_is_refused() -> None:
    with pytest.raises(BadInput, match="with a frame"):
        EventSegmenter().feed(Observation(START, "user", Trust.OWNER, text="hello"))


def thing(track: int, start: tuple[float, float], end: tuple[float, float], label: str | None = None) -> Tracklet:
    boxes = tuple((START, Box(x - 5, y - 5, 10, 10)) for x, y in (start, end))
    return Tracklet(track, START, START, boxes, label)


@pytest.mark.parametrize(
    ("start", "end", "words"),
    [
        ((5, 50), (95, 50), "from the left to the right"),
        ((95, 50), (50, 50), "from the right to the middle"),
        ((50, 95), (55, 5), "from the bottom to the top"),
        ((2, 50), (25, 50), "to the right"),
        ((50, 50), (52, 50), "in the middle"),
        ((90, 50), (92, 50), "at the right"),
    ],
)
def test_paths_are_told_in_words(start: tuple[float, float], end: tuple[float, float], words: str) -> None:
    assert describe((), [thing(1, start, end)], (100, 100)) == f"1 moving thing: one {words}"


def test_labels_and_equal_paths_are_told_together() -> None:
    things = [thing(1, (5, 50), (95, 50), "moped"), thing(2, (5, 50), (95, 50), "moped"), thing(3, (50, 50), (50, 50))]
    text = describe([Label("street", 0.6)], things, (100, 100), camera_moved=True)
    assert text == "street; 3 moving things: 2 moped from the left to the right, one in the middle; the camera moves"


@pytest.mark.parametrize("bad", [{"open_novelty": 1.0}, {"least_s": 0}, {"encodes_per_s": 0}, {"most_candidates": 4}])
def test_settings_out_of_range_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(BadInput, match=next(iter(bad))):
        EventSettings(**bad)
