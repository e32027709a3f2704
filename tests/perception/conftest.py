"""Small videos made on the spot: textured rooms, a square that walks, cuts."""

import functools
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

FPS = 20.0
START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
SIZE = (240, 136)


def room(seed: int = 0) -> np.ndarray:
    """A static scene with texture everywhere, uint8 [136, 240, 3]."""
    return _room(seed).copy()


@functools.cache
def _room(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(40, 200, (9, 15, 3), dtype=np.uint8)
    fine = rng.integers(0, 30, (SIZE[1], SIZE[0], 3), dtype=np.uint8)
    return cv2.resize(coarse, SIZE, interpolation=cv2.INTER_CUBIC) // 2 + cv2.GaussianBlur(fine, (5, 5), 0) + 40


def walking(frames: int = 160, first: int = 40, last: int = 90, seed: int = 0) -> list[np.ndarray]:
    """A dark thing walks through a room from the left to the right between two frames."""
    out = []
    for index in range(frames):
        image = room(seed)
        if first <= index < last:
            left = round((index - first) / (last - first) * (SIZE[0] + 24)) - 24
            image[50:106, max(0, left) : max(0, left + 24)] = (10, 20, 60)
        out.append(image)
    return out


def write(path: Path, frames: list[np.ndarray], codec: str = "MJPG") -> Path:
    """Write RGB frames as a video."""
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*codec), FPS, SIZE)
    for frame in frames:
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    writer.release()
    return path


@pytest.fixture(scope="session")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """8 s: still for 2 s, a thing walks through for 2.5 s, still again."""
    return write(tmp_path_factory.mktemp("video") / "walk.avi", walking())


@pytest.fixture(scope="session")
def long_walk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MPEG-4 with predicted frames, 330 of them; three walks in 16.5 s."""
    frames = [image for turn in range(3) for image in walking(110, 20 + 5 * turn, 60)]
    return write(tmp_path_factory.mktemp("video") / "long.mp4", frames, "mp4v")


@pytest.fixture(scope="session")
def make() -> SimpleNamespace:
    """The makers above, for tests that need frames of their own (test modules cannot import a conftest)."""
    return SimpleNamespace(room=room, walking=walking, write=write)
