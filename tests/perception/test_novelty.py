"""Novelty: high for what is new, low for noise and slow light, blind to neither small things nor cuts."""

import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import numpy as np
import pytest
from perdure.errors import BadInput
from perdure.perception.novelty import Glance, NoveltyMeter, NoveltySettings, brightness_gain, difference, shrink

START = datetime(2026, 3, 1, tzinfo=UTC)


def glances(frames: Iterable[np.ndarray], fps: float = 20.0, meter: NoveltyMeter | None = None) -> list[Glance]:
    meter = meter or NoveltyMeter()
    return [meter.look(frame, START + timedelta(seconds=i / fps)) for i, frame in enumerate(frames)]


def noisy(image: np.ndarray, rng: np.random.Generator, sigma: float) -> np.ndarray:
    return np.clip(image + rng.normal(0, sigma, image.shape), 0, 255).astype(np.uint8)


def test_the_first_frame_is_all_new_and_the_same_again_is_not(make: SimpleNamespace) -> None:
    first, second = glances([make.room()] * 2)
    assert (first.novelty, second.novelty) == (1.0, 0.0)


def test_sensor_noise_is_not_news(make: SimpleNamespace) -> None:
    rng = np.random.default_rng(0)
    seen = glances(noisy(make.room(), rng, 12) for _ in range(60))
    assert max(g.novelty for g in seen[1:]) < 0.1


@pytest.mark.parametrize("change", [lambda i: 1 - i / 200, lambda i: 0.5 + i / 200])
def test_slow_light_is_not_news(make: SimpleNamespace, change: Callable[[int], float]) -> None:
    seen = glances((make.room() * change(i)).astype(np.uint8) for i in range(100))
    assert max(g.novelty for g in seen[1:]) < 0.1


def test_a_walker_is_news_and_a_larger_one_more_so(make: SimpleNamespace) -> None:
    small, large = make.room(), make.room()
    small[60:90, 100:112] = (10, 20, 60)
    large[20:120, 80:140] = (10, 20, 60)
    news = [glances([make.room(), make.room(), image])[2].novelty for image in (small, large)]
    assert 0.15 < news[0] < news[1] <= 1


def test_a_cut_is_found_and_becomes_the_new_normal(make: SimpleNamespace) -> None:
    seen = glances([make.room(1)] * 10 + [make.room(2)] * 10)
    assert [i for i, g in enumerate(seen) if g.cut] == [10]
    assert seen[11].novelty < 0.05


def test_a_pan_is_no_cut(make: SimpleNamespace) -> None:
    wide = np.concatenate([make.room(1), make.room(1)[:, ::-1]], axis=1)
    seen = glances(wide[:, 8 * i : 8 * i + 240] for i in range(30))
    assert not any(g.cut for g in seen)
    assert seen[20].novelty > 0.5


def test_what_is_settled_is_no_longer_new(make: SimpleNamespace) -> None:
    frames, meter = make.walking(60, 20, 60), NoveltyMeter()
    before = glances(frames[:41], meter=meter)[-1].change
    meter.settle()
    after = meter.look(frames[40], START + timedelta(seconds=3)).change
    assert before > 0.02
    assert after == 0


def test_the_score_depends_on_world_time_only(make: SimpleNamespace) -> None:
    quick = glances(make.walking())
    slow = []
    meter = NoveltyMeter()
    for i, frame in enumerate(make.walking()):
        time.sleep(0.001 if i % 50 == 0 else 0)
        slow.append(meter.look(frame, START + timedelta(seconds=i / 20)))
    assert [g[:5] for g in quick] == [g[:5] for g in slow]


def test_a_look_takes_about_a_millisecond(make: SimpleNamespace) -> None:
    frames, meter = make.walking(60), NoveltyMeter()
    spent = []
    for i, frame in enumerate(frames):
        began = time.perf_counter()
        meter.look(frame, START + timedelta(seconds=i / 20))
        spent.append(time.perf_counter() - began)
    assert np.median(spent) < 0.004  # 0.6 ms on a quiet core; others may share it


def test_shrinking_keeps_the_shape_and_the_mean() -> None:
    image = np.random.default_rng(0).integers(0, 255, (720, 1280, 3), dtype=np.uint8)
    small = shrink(image)
    assert small.shape == (180, 320, 3)
    assert abs(float(small.mean()) - float(image.mean())) < 1
    assert shrink(small) is small


@pytest.mark.parametrize("bad", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)])
def test_what_is_no_picture_is_refused(bad: np.ndarray) -> None:
    with pytest.raises(BadInput, match="expected a frame"):
        shrink(bad)


def test_gain_is_the_light_and_not_the_walker(make: SimpleNamespace) -> None:
    image = make.room().astype(np.float32)
    dimmed = (image + 8) * 0.8 - 8
    dimmed[30:100, 50:120] = 255
    assert brightness_gain(dimmed, image) == pytest.approx([0.8, 0.8, 0.8], abs=0.01)
    assert difference(dimmed, image) == pytest.approx(70 * 70 / (136 * 240), abs=0.01)


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(BadInput, match="background_s"):
        NoveltySettings(background_s=0)
