"""Opening sources: what they yield, how they resume, and what they say about what cannot be watched."""

import hashlib
import itertools
import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from perdure.errors import BadInput
from perdure.perception.capture import Camera, Pictures, VideoFile, limit_threads, open_source

FPS, SIZE, START = 20.0, (240, 136), datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def test_a_video_yields_every_frame_in_rgb_with_its_world_time(walk: Path, make: SimpleNamespace) -> None:
    with open_source(walk, start=START) as source:
        seen = list(source)
    assert (source.fps, source.size, source.frame_count, source.truncated) == (FPS, SIZE, 160, False)
    assert [o.index for o in seen] == list(range(160))
    assert seen[50].time == START + timedelta(seconds=50 / FPS)
    assert seen[0].source == "walk.avi"
    error = np.abs(seen[65].frame.astype(int) - make.walking()[65].astype(int)).mean()
    assert error < 6


def test_the_hash_of_a_video_is_the_hash_of_its_bytes(walk: Path) -> None:
    assert open_source(str(walk)).sha256 == hashlib.sha256(walk.read_bytes()).hexdigest()


@pytest.mark.parametrize("index", [0, 1, 97, 329, 330])
@pytest.mark.parametrize("with_anchor", [False, True])
def test_seeking_is_exact_to_the_frame(long_walk: Path, index: int, with_anchor: bool) -> None:
    everything = list(open_source(long_walk, start=START))
    source = open_source(long_walk, start=START)
    near = everything[min(index + 3, 329)]
    source.seek(index, (near.index, near.time) if with_anchor else None)
    rest = list(source)
    assert [(o.index, o.time) for o in rest] == [(o.index, o.time) for o in everything[index:]]
    assert all(np.array_equal(a.frame, b.frame) for a, b in zip(rest, everything[index:], strict=True))


def test_a_wrong_anchor_costs_time_but_not_exactness(long_walk: Path) -> None:
    everything = list(open_source(long_walk, start=START))
    source = open_source(long_walk, start=START)
    source.seek(200, (210, everything[213].time))
    assert np.array_equal(next(iter(source)).frame, everything[200].frame)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("nothing.mp4", None, "no such video"),
        ("empty.mp4", b"", "is empty"),
        ("notes.mp4", b"dear diary\n" * 500, "it holds text"),
        ("noise.mp4", bytes(range(128, 256)) * 40, "no video that OpenCV can decode"),
    ],
)
def test_what_is_no_video_is_refused_with_a_reason(
    tmp_path: Path, name: str, content: bytes | None, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadInput, match=message):
        open_source(path)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("extension", [".jpg", ".png", ".webp", ".bmp"])
def test_a_picture_is_no_video_whatever_its_name(tmp_path: Path, extension: str, make: SimpleNamespace) -> None:
    cv2.imwrite(str(tmp_path / f"picture{extension}"), make.room())
    path = (tmp_path / f"picture{extension}").rename(tmp_path / "holiday.mp4")
    with pytest.raises(BadInput, match="is a picture"):
        open_source(path)


def test_a_video_without_frames_is_refused(tmp_path: Path, make: SimpleNamespace) -> None:
    with pytest.raises(BadInput, match="not one frame"):
        open_source(make.write(tmp_path / "none.avi", []))


def test_a_directory_without_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="directory without pictures"):
        open_source(tmp_path)


def test_a_truncated_video_gives_what_it_can_and_says_so(
    walk: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = walk.read_bytes()
    half = tmp_path / "half.avi"
    half.write_bytes(whole[: len(whole) // 2])
    source = open_source(half, start=START)
    with caplog.at_level(logging.WARNING, "perdure"):
        seen = list(source)
    assert 60 < len(seen) < 100
    assert source.truncated
    assert f"{len(seen)} of 160 frames" in caplog.text


def test_a_truncated_mp4_without_its_index_is_refused(long_walk: Path, tmp_path: Path) -> None:
    path = tmp_path / "half.mp4"
    path.write_bytes(long_walk.read_bytes()[:-20_000])
    with pytest.raises(BadInput, match="end is missing"):
        open_source(path)


def test_a_folder_of_pictures_is_watched_in_the_order_of_names(tmp_path: Path, make: SimpleNamespace) -> None:
    for index in (2, 0, 1):
        cv2.imwrite(str(tmp_path / f"{index}.png"), cv2.cvtColor(make.room(index), cv2.COLOR_RGB2BGR))
    seen = list(open_source(tmp_path, start=START, fps=2))
    assert all(np.array_equal(o.frame, make.room(i)) for i, o in enumerate(seen))
    assert [o.time for o in seen] == [START + timedelta(seconds=i / 2) for i in range(3)]


def test_arrays_may_bring_their_own_times(make: SimpleNamespace) -> None:
    pairs = [(START + timedelta(hours=i), make.room(i)) for i in range(3)]
    assert [o.time for o in open_source(pairs)] == [time for time, _ in pairs]


def test_pictures_that_can_be_read_once_cannot_go_back(make: SimpleNamespace) -> None:
    source = Pictures(iter([make.room(0), make.room(1)]), START)
    list(source)
    with pytest.raises(BadInput, match="read once only"):
        source.seek(0)


@pytest.mark.parametrize("bad", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), "text"])
def test_pictures_of_the_wrong_kind_are_refused(bad: object) -> None:
    with pytest.raises(BadInput, match="expected a uint8 array"):
        list(Pictures([bad], START))


def test_a_naive_start_is_refused(walk: Path) -> None:
    with pytest.raises(BadInput, match="aware"):
        open_source(walk, start=datetime(2026, 1, 1))


def test_a_camera_that_is_not_there_is_refused(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BadInput, match="got nothing from camera:97"):
        open_source("camera:97")
    assert capfd.readouterr().err == ""


def test_a_stream_is_stamped_by_the_clock_and_cannot_go_back(walk: Path) -> None:
    source = Camera(str(walk), name="door")
    seen = list(source)
    assert len(seen) == 160
    assert source.live
    assert source.truncated
    assert all(a.time <= b.time for a, b in itertools.pairwise(seen))
    with pytest.raises(BadInput, match="is live"):
        source.seek(0)


def test_a_closed_video_says_so(walk: Path) -> None:
    source = VideoFile(walk)
    list(source)
    source.close()
    with pytest.raises(BadInput, match="was closed"):
        next(iter(source))


def test_threads_are_counted_from_one() -> None:
    with pytest.raises(BadInput, match="at least 1"):
        limit_threads(0)
