"""Watching: bounded, complete for files, never behind for cameras, resumable, and loud when something breaks."""

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from perdure.errors import BadInput
from perdure.perception.bench import bench_perception
from perdure.perception.capture import Pictures, open_source
from perdure.perception.events import EventSettings
from perdure.perception.stream import Watcher
from perdure.records import Event, Observation

START = datetime(2026, 3, 1, tzinfo=UTC)


def told(events: list[Event]) -> list[tuple[object, ...]]:
    return [(e.start, e.end, e.text, e.tracklets, [k.index for k in e.key_frames], dict(e.media)) for e in events]


@pytest.fixture(scope="module")
def whole(long_walk: Path) -> list[Event]:
    """The events of a run without interruption."""
    return list(Watcher(open_source(long_walk, start=START)))


class Live(Pictures):
    """Pictures that come whether or not anybody reads them."""

    live = True

    def __iter__(self) -> Iterator[Observation]:
        for seen in super().__iter__():
            time.sleep(0.001)
            yield seen


class Broken(Pictures):
    """Pictures that break off with an error."""

    def __iter__(self) -> Iterator[Observation]:
        yield from super().__iter__()
        raise RuntimeError("the cable came loose")


def test_watching_a_video_gives_its_events_with_the_place_in_the_file(walk: Path) -> None:
    watcher = Watcher(open_source(walk, start=START))
    events = list(watcher)
    assert len(events) == 3
    assert events[1].media["sha256"] == open_source(walk).sha256
    assert events[1].media["fps"] == 20.0
    assert events[1].start == START + timedelta(seconds=events[1].media["first_frame"] / 20)
    stats = watcher.stats
    assert (stats.frames_read, stats.looked_at, stats.dropped, stats.events) == (160, 160, 0, 3)
    assert stats.frames_per_s > 0
    assert stats.peak_rss_mb > 10


def test_a_slow_caller_blocks_the_reader_and_changes_nothing(walk: Path) -> None:
    quick = list(Watcher(open_source(walk, start=START)))
    watcher, slow = Watcher(open_source(walk, start=START), queue_frames=3), []
    for event in watcher:
        time.sleep(0.1)
        assert watcher.stats.frames_read <= event.media["last_frame"] + 1 + 3 + 1
        slow.append(event)
    assert told(slow) == told(quick)
    assert watcher.stats.queue_high_water <= 3
    assert watcher.stats.dropped == 0


def test_a_live_source_drops_the_oldest_frames_and_counts_them(make: SimpleNamespace) -> None:
    watcher = Watcher(Live(make.walking(), START, 20.0), settings=EventSettings(most_s=0.6, most_quiet_s=0.6))
    for _ in watcher:
        time.sleep(0.05)
    stats = watcher.stats
    assert stats.dropped > 0
    assert stats.frames_read == 160
    assert stats.looked_at + stats.dropped == stats.frames_read
    assert stats.queue_high_water <= 8


def test_an_error_of_the_reader_reaches_the_caller_after_all_events(make: SimpleNamespace) -> None:
    watcher, events = Watcher(Broken(make.walking(), START, 20.0)), []
    with pytest.raises(RuntimeError, match="cable came loose"):
        events.extend(iter(watcher))
    assert watcher.stats.looked_at == 160
    assert watcher.stats.events == 3


def test_leaving_early_stops_the_thread_and_closes_the_source(walk: Path) -> None:
    source = open_source(walk)
    with Watcher(source, settings=EventSettings(most_quiet_s=0.6)) as watcher:
        next(iter(watcher))
    assert not any(t.name.startswith("perdure-watch") for t in threading.enumerate())
    with pytest.raises(BadInput, match="was closed"):
        list(source)


def test_a_watcher_that_was_never_iterated_closes_its_source(walk: Path) -> None:
    source = open_source(walk)
    Watcher(source).close()
    with pytest.raises(BadInput, match="was closed"):
        list(source)


def test_a_watcher_is_iterated_once(walk: Path) -> None:
    watcher = Watcher(open_source(walk))
    list(watcher)
    with pytest.raises(BadInput, match="once"):
        list(watcher)


@pytest.mark.parametrize("done", [1, 3, 4])
def test_a_life_that_was_killed_after_any_event_goes_on_as_if_it_had_not_been(
    long_walk: Path, whole: list[Event], done: int
) -> None:
    assert len(whole) >= 6
    last = whole[done - 1]
    resumed = Watcher(
        open_source(long_walk, start=START),
        resume_from=last.media["last_frame"] + 1,
        resume_time=last.end,
        next_track=last.media["next_track"],
    )
    assert told(list(resumed)) == told(whole[done:])


def test_resuming_at_the_end_gives_nothing(walk: Path) -> None:
    assert list(Watcher(open_source(walk), resume_from=160)) == []


def test_after_a_long_life_resuming_loses_no_frame_and_repeats_none(long_walk: Path, whole: list[Event]) -> None:
    last = whole[3]
    rest = list(
        Watcher(
            open_source(long_walk, start=START),
            resume_from=last.media["last_frame"] + 1,
            resume_time=last.end,
            next_track=last.media["next_track"],
            warm_up_s=2.0,
        )
    )
    frames = [i for e in rest for i in range(e.media["first_frame"], e.media["last_frame"] + 1)]
    assert frames == list(range(last.media["last_frame"] + 1, 330))
    assert rest[0].start == whole[4].start
    used = {t.track for e in whole[:4] for t in e.tracklets}
    assert all(t.track not in used for e in rest for t in e.tracklets)


def test_a_camera_cannot_be_resumed_from_its_past(walk: Path) -> None:
    from perdure.perception.capture import Camera

    with pytest.raises(BadInput, match="is live"):
        list(Watcher(Camera(str(walk), name="door"), resume_from=10))


@pytest.mark.parametrize("bad", [{"queue_frames": 0}, {"resume_from": -1}, {"next_track": 0}, {"warm_up_s": -1}])
def test_numbers_out_of_range_are_refused(walk: Path, bad: dict[str, float]) -> None:
    with pytest.raises(BadInput, match=next(iter(bad))):
        Watcher(open_source(walk), **bad)


def test_the_benchmark_says_what_it_measured(walk: Path) -> None:
    rows = {row["metric"]: row for row in bench_perception(walk)}
    assert rows["sustained"]["unit"] == "frames/s"
    assert rows["sustained"]["value"] > 10
    assert rows["encoded"]["value"] == 0
    assert rows["events"]["value"] == 3
    assert set(rows["events"]) == {
        "bench", "case", "metric", "value", "unit", "spread", "peer", "peer_value", "ratio",
    }  # fmt: skip


def test_pictures_in_memory_are_watched_without_a_hash(make: SimpleNamespace) -> None:
    events = list(Watcher(open_source([make.room()] * 30, start=START, fps=10)))
    assert "sha256" not in events[0].media
    assert events[0].end == START + timedelta(seconds=2.9)
    assert isinstance(events[0].key_frames[0].image, np.ndarray)
