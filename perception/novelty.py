"""How new a frame is: a cheap look at every frame, to decide what is worth encoding and remembering.

Knows thumbnails, a running background and a histogram. Does not know what is in a picture (encoders do) nor where
something moves (tracking does).

Each frame is shrunk to 64 x 36 pixels and compared three ways, each robust to sensor noise (differences count beyond
four standard deviations of the measured noise) and to gradual light change (brightness is fitted before comparing):

    change     share of the thumbnail that differs from the running background
    motion     share that differs from the frame before
    histogram  distance of brightness and colour histograms from those of the background, 0 to 1

    novelty = 1 - exp(-change/0.1) exp(-motion/0.1) (1 - histogram')      histogram' = histogram beyond its usual jitter

The background forgets with a time constant in world time, so the score does not depend on how fast frames are read.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import BadInput
from ..records import Image

THUMB = (64, 36)
"""Width and height of a thumbnail in pixels."""
SMALL_WIDTH = 320
"""Width of the working copy that novelty and tracking share, in pixels."""

Floats = NDArray[np.float32]


def shrink(image: Image, width: int = SMALL_WIDTH) -> Image:
    """A copy at most this wide, for cheap looks: halved by averaging while possible, then interpolated.

    Args:
        image: uint8 [height, width, 3].

    Raises:
        BadInput: the array is no picture.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise BadInput(f"expected a frame as uint8 [height, width, 3], got {image.dtype} {image.shape}")
    height = max(1, round(image.shape[0] * width / image.shape[1]))
    while image.shape[1] >= 2 * width and image.shape[0] >= 2:  # 2 x 2 means are three times as fast as INTER_AREA
        half = (image.shape[1] // 2, image.shape[0] // 2)
        image = cast(Image, cv2.resize(image, half, interpolation=cv2.INTER_AREA))
    if image.shape[1] <= width:
        return image
    return cast(Image, cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR))


@dataclass(frozen=True, slots=True)
class NoveltySettings:
    """What counts as new."""

    background_s: float = 20.0
    """Time constant with which the background follows the scene, in seconds."""
    least_difference: float = 10.0
    """Smallest difference of a thumbnail pixel that counts, in grey levels of 255."""
    scale: float = 0.1
    """Share of changed pixels at which that part of the score reaches 1 - 1/e."""
    cut_motion: float = 0.4
    """A cut changes at least this share of the thumbnail from one frame to the next ..."""
    cut_histogram: float = 0.1
    """... and moves the histogram at least this far. Five cuts of a film: 0.89, 0.14; its fastest pan: 0.58, 0.05."""
    cut_all: float = 0.75
    """Changing this share is a cut in any case, as between two pictures of the same colours."""

    def __post_init__(self) -> None:
        for name in ("background_s", "least_difference", "scale", "cut_motion", "cut_histogram", "cut_all"):
            if not getattr(self, name) > 0:
                raise BadInput(f"NoveltySettings.{name} must be above 0, got {getattr(self, name)}")


class Glance(NamedTuple):
    """What one cheap look found. All numbers from 0 to 1."""

    novelty: float
    change: float
    motion: float
    histogram: float
    cut: bool
    """The scene was replaced between the frame before and this one."""
    thumb: Floats
    """float32 [36, 64, 3], RGB from 0 to 255: what the frame looked like, for `difference`."""


class NoveltyMeter:
    """Compares each frame with what was seen before. Feed frames in order of time."""

    def __init__(self, settings: NoveltySettings | None = None) -> None:
        self.settings = settings or NoveltySettings()
        self._background: Floats | None = None
        self._before: Floats | None = None
        self._hist = self._hist_before = np.zeros(0, np.float32)
        self._time: datetime | None = None
        self._looks = 0
        self._noise = 0.0  # standard deviation of a thumbnail pixel from frame to frame, in grey levels
        self._usual_motion = 0.0
        self._usual_histogram = 0.0

    def look(self, image: Image, time: datetime) -> Glance:
        """Look at the next frame.

        Args:
            image: uint8 [height, width, 3] in RGB; the working copy of `shrink` is enough and quicker.
            time: world time, not before the last one.

        Returns:
            what was found; the first frame of all is fully new, and no cut.
        """
        thumb = cast(Floats, cv2.resize(image, THUMB, interpolation=cv2.INTER_AREA).astype(np.float32))
        hist = _histogram(thumb)
        if self._background is None or self._before is None or self._time is None:
            self._background, self._before, self._hist, self._hist_before = thumb.copy(), thumb, hist, hist
            self._time = time
            return Glance(1.0, 1.0, 0.0, 1.0, False, thumb)
        step = _residual(thumb, self._before)
        # Most pixels are quiet, so the median tells the noise: times 1.4826 it is the deviation of a normal one.
        self._looks += 1
        noise = min(1.4826 * float(np.median(step)), 10.0)
        self._noise += max(0.05, 1 / self._looks) * (noise - self._noise)
        limit = max(self.settings.least_difference, 4 * self._noise)
        motion = float(np.mean(step > limit))
        histogram_step = _distance(hist, self._hist_before)
        cut = self._is_cut(motion, histogram_step)
        changed = _residual(thumb, self._background) > limit
        change = float(np.mean(changed))
        histogram = _distance(hist, self._hist)
        novelty = self._score(change, motion, histogram)
        self._learn(thumb, hist, changed, time)
        self._usual_motion += 0.2 * (motion - self._usual_motion)
        self._usual_histogram += 0.02 * (histogram - self._usual_histogram)
        if cut:
            self.settle()
        return Glance(1.0 if cut else novelty, change, motion, histogram, cut, thumb)

    def settle(self) -> None:
        """Take the scene as it is now for the background: what is here is no longer new."""
        if self._before is not None:
            self._background, self._hist = self._before.copy(), self._hist_before
            self._usual_motion = self._usual_histogram = 0.0

    def _is_cut(self, motion: float, histogram_step: float) -> bool:
        settings = self.settings
        if motion <= 1.3 * self._usual_motion:
            return False
        return motion > settings.cut_all or (motion > settings.cut_motion and histogram_step > settings.cut_histogram)

    def _score(self, change: float, motion: float, histogram: float) -> float:
        jitter = 2 * self._usual_histogram + 0.1
        moved = min(1.0, max(0.0, histogram - jitter) / (1 - min(jitter, 0.9)))
        scale = self.settings.scale
        return 1 - math.exp(-(change + motion) / scale) * (1 - moved)

    def _learn(self, thumb: Floats, hist: Floats, changed: NDArray[np.bool_], time: datetime) -> None:
        """Move the background towards the frame; what stands before it is learnt ten times more slowly."""
        assert self._background is not None
        assert self._time is not None
        seconds = max(0.0, (time - self._time).total_seconds())
        rate = 1 - math.exp(-seconds / self.settings.background_s)
        rates = np.where(changed, rate / 10, rate)[..., None].astype(np.float32)
        self._background += rates * (thumb - self._background)
        self._hist = self._hist + rate * (hist - self._hist)
        self._before, self._hist_before, self._time = thumb, hist, time


def difference(left: Floats, right: Floats, least: float = 20.0) -> float:
    """Share of two thumbnails that differs by more than ``least`` grey levels once brightness is fitted, 0 to 1."""
    return float(np.mean(_residual(left, right) > least))


def brightness_gain(now: Floats, before: Floats) -> Floats:
    """Factor of each channel that turns ``before`` into ``now`` at most places: the median of the pixels' ratios.

    A lamp being dimmed, or a camera that adapts its exposure, changes it; somebody who walks through does not.

    Args:
        now, before: float32 [height, width, 3], 0 to 255, of equal shape.

    Returns:
        float32 [3].
    """
    ratios = (now[::2, ::2] + 8) / (before[::2, ::2] + 8)
    return cast(Floats, np.median(ratios.reshape(-1, 3), axis=0).astype(np.float32))


def _residual(now: Floats, before: Floats) -> Floats:
    """Largest absolute difference of the channels at each pixel, after fitting the brightness of ``before``."""
    return cast(Floats, np.abs(now + 8 - brightness_gain(now, before) * (before + 8)).max(axis=2))


def _histogram(thumb: Floats) -> Floats:
    """Two histograms in one array, each of sum 1/2: brightness (16 bins, relative to its mean) and colour (8 x 8)."""
    ycc = cv2.cvtColor(thumb / 255, cv2.COLOR_RGB2YCrCb)
    bright = cv2.calcHist([ycc[..., 0] / (float(ycc[..., 0].mean()) + 0.03)], [0], None, [16], [0, 3])
    colour = cv2.calcHist([ycc], [1, 2], None, [8, 8], [0.25, 0.75, 0.25, 0.75])
    both = np.concatenate([_smooth(bright), _smooth(colour)])
    return cast(Floats, (both / max(float(both.sum()), 1e-9)).astype(np.float32))


def _smooth(hist: Floats) -> Floats:
    """Spread each bin over its neighbours, so that a value at the edge of a bin does not flicker; sum becomes 1."""
    size = (3, 3) if hist.size > 16 else (1, 3)
    blurred = cv2.blur(hist, size, borderType=cv2.BORDER_CONSTANT)
    return cast(Floats, blurred.ravel() / max(float(blurred.sum()), 1e-9))


def _distance(left: Floats, right: Floats) -> float:
    """Total variation distance of two histograms, 0 to 1."""
    return 0.5 * float(np.abs(left - right).sum())
