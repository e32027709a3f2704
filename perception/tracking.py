"""Following what moves: background subtraction, boxes, and boxes joined over time into tracklets.

Knows that something moved and where it was; identity holds for as long as a thing stays in view. Does not know what it
is (encoders do) nor whether it is the same thing an hour later (the world model does).

    small frame -> OpenCV's MOG2 mixture of Gaussians -> mask -> connected boxes -> joined to predicted tracks

The background is not learnt under tracks, so that somebody who stands still for a while stays a track and leaves no
ghost behind. Joining is greedy by overlap, then by distance, with positions predicted by an alpha-beta filter (the
steady state of a constant-velocity Kalman filter), as in SORT (Bewley et al. 2016, arXiv:1602.00763).

A camera that moves makes everything "foreground". The median optical flow of corner points tells (most of a picture is
scenery); then all tracks end and the background starts anew, rather than hundreds of tracks being born.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import BadInput
from ..records import Box, Image, Tracklet
from .novelty import THUMB, brightness_gain

MOST_SAMPLES = 32
"""Boxes kept of a tracklet; longer ones are thinned evenly."""
_WORK = 320  # background subtraction runs on frames of this width
_LOOK_BACK_S = (0.2, 1.0)  # camera motion is measured over at least and at most this time, so that a slow pan shows
_CELLS = (4, 8)  # rows and columns of the grid that spreads the points by which camera motion is measured
_YOUNG_S = 2.0  # so long the background is not learnt under what has not moved enough to count yet
_CHECK_S = 1.0  # what has not moved for this long is asked, and asked again, whether it is a ghost
_CLOSE = cv2.getStructuringElement(cv2.MORPH_RECT, (5, 9))  # joins head, body and legs of a distant walker


@dataclass(frozen=True, slots=True)
class TrackSettings:
    """What counts as a moving thing."""

    least_area: float = 0.0006
    """Smallest box, as a share of the picture."""
    least_life_s: float = 0.5
    """A thing must be followed this long before it counts."""
    least_move: float = 0.5
    """... and move by this share of the mean of its box's width and height, or it is a flickering leaf or a ghost."""
    lost_s: float = 0.8
    """A track that is not seen for this long has ended."""
    still_s: float = 60.0
    """What has not moved for this long becomes part of the background."""
    background_s: float = 20.0
    """Time constant of the background, in seconds."""
    most_boxes: int = 24
    """More boxes than this in one frame are no things but weather, noise or a moving camera."""
    most_share: float = 0.5
    """A larger share of foreground is no thing but a new scene."""
    camera_px: float = 1.0
    """A shift of the scenery within a second, in pixels of a 320 pixels wide picture, that means a moving camera."""

    def __post_init__(self) -> None:
        for name in ("least_area", "lost_s", "background_s", "most_boxes", "most_share", "camera_px"):
            if not getattr(self, name) > 0:
                raise BadInput(f"TrackSettings.{name} must be above 0, got {getattr(self, name)}")


class Sample(NamedTuple):
    """Where a thing was at one instant, in pixels of the full frame."""

    time: datetime
    box: Box


@dataclass(slots=True)
class Track:
    """A thing being followed. Positions are in pixels of the full frame."""

    number: int
    """From 1; 0 until it counts as a moving thing."""
    born: datetime
    seen: datetime
    moved: datetime
    """When it last left the place it was at."""
    box: Box
    origin: tuple[float, float]
    """Centre of the box when it was born."""
    anchor: tuple[float, float]
    """Centre of the box when it last moved."""
    checked: datetime
    """When it was last asked whether it is a ghost."""
    speed: tuple[float, float] = (0.0, 0.0)
    """Pixels per second."""
    samples: list[Sample] = field(default_factory=list)
    stride: int = 1
    """Every how many sightings one sample is kept."""
    sightings: int = 0

    def predicted(self, time: datetime) -> Box:
        """Where it should be now if it went on as before."""
        seconds = (time - self.seen).total_seconds()
        return Box(
            self.box.x + self.speed[0] * seconds, self.box.y + self.speed[1] * seconds, self.box.width, self.box.height
        )

    def add_sample(self, sample: Sample) -> None:
        """Keep the sighting if it is due; when there are too many samples, every other one goes."""
        if self.sightings % self.stride == 0:
            self.samples.append(sample)
        self.sightings += 1
        if len(self.samples) > 2 * MOST_SAMPLES:
            self.samples = self.samples[::2]
            self.stride *= 2


class MotionTracker:
    """Follows moving things. Feed frames in order of time.

    Args:
        settings: what counts as a moving thing.
        first_number: number of the first track, for a source that was watched up to here before.
    """

    def __init__(self, settings: TrackSettings | None = None, first_number: int = 1) -> None:
        self.settings = settings or TrackSettings()
        self.next_number = first_number
        self.camera_moves = False
        self._tracks: list[Track] = []
        self._finished: list[Track] = []
        self._model: Any = None
        self._learnt: datetime | None = None
        self._looks = 0
        self._reference: tuple[datetime, NDArray[np.uint8]] | None = None
        self._scene: NDArray[np.float32] = np.zeros((*THUMB[::-1], 3), np.float32)

    @property
    def live(self) -> tuple[Track, ...]:
        """The things in view now that count: followed long enough, and moved."""
        return tuple(track for track in self._tracks if track.number)

    def look(self, small: Image, time: datetime, size: tuple[int, int]) -> tuple[Track, ...]:
        """Look at the next frame.

        Args:
            small: uint8 [height, width, 3], the frame shrunk to about 320 pixels wide.
            time: world time, later than the last one.
            size: (width, height) of the full frame in pixels.

        Returns:
            the things in view that count.
        """
        if small.shape[1] > 2 * _WORK:
            raise BadInput(f"expected a frame shrunk to about {_WORK} pixels wide, got {small.shape[1]}; use shrink()")
        scale = size[0] / small.shape[1]
        small = cv2.blur(small, (3, 3))  # a third of the sensor noise
        if self._model is None:
            self._restart(small, time)
            return ()
        small = self._fit_brightness(small)
        mask = self._model.apply(small, None, 0.0)
        share = float(np.count_nonzero(mask == 255)) / mask.size
        moved, self.camera_moves = self.camera_moves, self._camera_moved(small, time, mask)
        if not self.camera_moves and share > self.settings.most_share * (0.5 if moved else 1.0):
            self._end_all()  # the view is another one: the camera was turned, or the light was switched on
            self._restart(small, time)
            return ()
        if self.camera_moves:
            self._end_lost(time)
            return self.live
        boxes = self._boxes(mask)
        if len(boxes) > self.settings.most_boxes:
            boxes = []
        self._heal(small, mask, time, scale)
        self._join([Box(b.x * scale, b.y * scale, b.width * scale, b.height * scale) for b in boxes], time)
        self._learn(small, time, scale)
        return self.live

    def reset(self) -> None:
        """End all tracks and forget the background: the scene is another one now."""
        self._end_all()
        self._model = self._reference = None

    def harvest(self) -> tuple[Tracklet, ...]:
        """The tracklets since the last harvest. Things still in view go on, with samples from now on."""
        parts = self._finished + list(self.live)
        self._finished = []
        out = tuple(_tracklet(track) for track in parts if len(track.samples) > 1)
        for track in self._tracks:
            if track.number:
                track.samples, track.stride, track.sightings = track.samples[-1:], 1, 0
        return tuple(sorted(out, key=lambda tracklet: tracklet.track))

    def _fit_brightness(self, small: Image) -> Image:
        """The frame as it would look under the light and exposure of the background."""
        thumb = cv2.resize(small, THUMB, interpolation=cv2.INTER_AREA).astype(np.float32)
        gain = brightness_gain(self._scene, thumb)
        if float(np.abs(gain - 1).max()) < 0.02:
            return small
        table = np.clip((np.arange(256)[:, None] + 8) * gain - 8, 0, 255).round().astype(np.uint8)
        return cast(Image, cv2.LUT(small, table[:, None]))

    def _end_all(self) -> None:
        self._finished += [track for track in self._tracks if track.number]
        self._tracks.clear()

    def _restart(self, small: Image, time: datetime) -> None:
        self._scene = cv2.resize(small, THUMB, interpolation=cv2.INTER_AREA).astype(np.float32)
        self._model = cv2.createBackgroundSubtractorMOG2(detectShadows=True)
        self._model.setVarMin(16.0)  # 4 grey levels: an exposure that adapts moves quiet walls by more than noise does
        self._model.setVarThreshold(25.0)  # 5 standard deviations
        self._model.setShadowThreshold(0.7)  # darker than this is no shadow: a grey shirt before a white wall
        self._model.setBackgroundRatio(0.6)  # what stands still is background after about half of background_s
        self._model.apply(small, None, 1.0)
        self._learnt, self._looks = time, 1
        if self._reference is None:
            self._reference = (time, cv2.cvtColor(small, cv2.COLOR_RGB2GRAY))

    def _learn(self, small: Image, time: datetime, scale: float) -> None:
        """Update the background, but not under things that are being followed."""
        assert self._learnt is not None
        seconds = (time - self._learnt).total_seconds()
        if seconds < 0.1:
            return
        self._looks += 1
        rate = max(1 - math.exp(-seconds / self.settings.background_s), 1 / self._looks)
        held = np.zeros(small.shape[:2], np.uint8)
        for track in self._tracks:
            if (time - track.moved).total_seconds() < (self.settings.still_s if track.number else _YOUNG_S):
                held[_slices(track.box, scale, held.shape)] = 255
        self._model.apply(small, held, None, rate)
        self._learnt = time

    def _heal(self, small: Image, mask: NDArray[np.uint8], time: datetime, scale: float) -> None:
        """Learn ghosts at once: places where something stood when the background was learnt, and has left since."""
        due = [track for track in self._tracks if (time - max(track.moved, track.checked)).total_seconds() > _CHECK_S]
        if not due:
            return
        before, now = (cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (self._model.getBackgroundImage(), small))
        hidden = np.full(mask.shape, 255, np.uint8)
        ghosts = []
        for track in due:
            track.checked = time
            place = _slices(track.box, scale, mask.shape)
            if _is_ghost(mask[place], before[place], now[place]):
                hidden[place] = 0
                ghosts.append(track)
        if ghosts:
            self._model.apply(small, hidden, None, 0.9)
            self._finished += [track for track in ghosts if track.number]
            self._tracks = [track for track in self._tracks if track not in ghosts]

    def _boxes(self, mask: NDArray[np.uint8]) -> list[Box]:
        """Boxes of connected foreground, without shadows (MOG2 marks them 127), in pixels of the mask."""
        solid = cv2.medianBlur(cv2.threshold(mask, 200, 255, cv2.THRESH_BINARY)[1], 3)
        joined = cv2.morphologyEx(solid, cv2.MORPH_CLOSE, _CLOSE)
        _, _, stats, _ = cv2.connectedComponentsWithStats(joined)
        least = self.settings.least_area * mask.size
        return [Box(*map(float, row[:4])) for row in stats[1:] if row[4] >= least]

    def _camera_moved(self, small: Image, time: datetime, mask: NDArray[np.uint8]) -> bool:
        """Whether the scenery has shifted since the reference frame, which is up to a second old."""
        assert self._reference is not None
        then, before = self._reference
        age = (time - then).total_seconds()
        if age < _LOOK_BACK_S[0]:
            return self.camera_moves
        now = cast(NDArray[np.uint8], cv2.cvtColor(small, cv2.COLOR_RGB2GRAY))
        if before.shape != now.shape:
            return True
        # Where almost nothing differs from the background, the camera stands still.
        moved = np.count_nonzero(mask) > 0.02 * mask.size and _scenery_shift(before, now) > self.settings.camera_px
        if moved or age > _LOOK_BACK_S[1]:
            self._reference = (time, now)
        return bool(moved)

    def _join(self, boxes: list[Box], time: datetime) -> None:
        """Give each box to the track that expected it; the rest are new tracks."""
        predicted = [track.predicted(time) for track in self._tracks]
        pairs = sorted(
            (
                (score, i, j)
                for i, p in enumerate(predicted)
                for j, b in enumerate(boxes)
                if (score := _match(p, b)) > 0
            ),
            key=lambda pair: (-pair[0], pair[1], pair[2]),
        )
        taken_tracks: set[int] = set()
        taken_boxes: set[int] = set()
        for _, i, j in pairs:
            if i not in taken_tracks and j not in taken_boxes:
                taken_tracks.add(i)
                taken_boxes.add(j)
                self._sight(self._tracks[i], boxes[j], time)
        for j, box in enumerate(boxes):
            if j not in taken_boxes:
                centre = _centre(box)
                track = Track(0, time, time, time, box, centre, centre, time)
                track.add_sample(Sample(time, box))
                self._tracks.append(track)
        self._end_lost(time)

    def _sight(self, track: Track, box: Box, time: datetime) -> None:
        seconds = (time - track.seen).total_seconds()
        if seconds > 0:
            expected, (x, y) = _centre(track.predicted(time)), _centre(box)
            gain = 0.3 / max(seconds, 1e-3)  # beta of the filter; alpha is 1, as boxes are measured well
            track.speed = (track.speed[0] + gain * (x - expected[0]), track.speed[1] + gain * (y - expected[1]))
        track.box, track.seen = box, time
        reach = 0.5 * (box.width + box.height)
        if math.dist(_centre(box), track.anchor) > 0.2 * reach:
            track.anchor, track.moved = _centre(box), time
        track.add_sample(Sample(time, box))
        settings = self.settings
        old = (time - track.born).total_seconds() >= settings.least_life_s
        if not track.number and old and math.dist(_centre(box), track.origin) > settings.least_move * reach:
            track.number, self.next_number = self.next_number, self.next_number + 1

    def _end_lost(self, time: datetime) -> None:
        lost = [track for track in self._tracks if (time - track.seen).total_seconds() > self.settings.lost_s]
        self._finished += [track for track in lost if track.number]
        self._tracks = [track for track in self._tracks if track not in lost]


def _scenery_shift(before: NDArray[np.uint8], now: NDArray[np.uint8]) -> float:
    """Median optical flow of the best corner of each cell of a grid, in pixels; 0 if they are few or disagree.

    The grid matters: the strongest corners of a bare room all sit on the person who walks through it. So does following
    each point back: where a person hides the corner, its flow leads anywhere.
    """
    rows, columns = _CELLS
    height, width = before.shape[0] // rows, before.shape[1] // columns
    if height < 8 or width < 8:
        return 0.0
    strength = cv2.cornerMinEigenVal(before, 5)[: height * rows, : width * columns]
    cells = strength.reshape(rows, height, columns, width).swapaxes(1, 2).reshape(rows * columns, -1)
    best = cells.argmax(axis=1)
    row, column = np.divmod(np.arange(rows * columns), columns)
    points = np.stack([column * width + best % width, row * height + best // width], axis=1).astype(np.float32)
    points = points[cells.max(axis=1) > 1e-4][:, None]
    if len(points) < 8:
        return 0.0
    there, found, _ = cv2.calcOpticalFlowPyrLK(before, now, points, None, winSize=(15, 15), maxLevel=3)
    back, found_back, _ = cv2.calcOpticalFlowPyrLK(now, before, there, None, winSize=(15, 15), maxLevel=3)
    good = (found.ravel() == 1) & (found_back.ravel() == 1) & (np.linalg.norm(back - points, axis=2).ravel() < 0.5)
    flow = (there - points).reshape(-1, 2)[good]
    if len(flow) < 8:
        return 0.0
    shift = np.median(flow, axis=0)
    length = float(np.linalg.norm(shift))
    agree = np.linalg.norm(flow - shift, axis=1) < max(1.0, 0.3 * length)
    return length if float(np.mean(agree)) > 0.5 else 0.0


def _slices(box: Box, scale: float, shape: tuple[int, ...]) -> tuple[slice, slice]:
    """Rows and columns of a box of the full frame in the small one, with a rim of three pixels."""
    top, bottom = int(box.y / scale) - 3, int((box.y + box.height) / scale) + 4
    left, right = int(box.x / scale) - 3, int((box.x + box.width) / scale) + 4
    return slice(max(0, top), min(shape[0], max(0, bottom))), slice(max(0, left), min(shape[1], max(0, right)))


def _is_ghost(mask: NDArray[np.uint8], before: NDArray[np.uint8], now: NDArray[np.uint8]) -> bool:
    """Whether the outline of the foreground is hardly more of an edge in the frame than it was in the background.

    Things that stand there now score 1.6 and more (a grey shirt before a white wall), mostly 4; shadows and slipped
    edges about 1; a place that somebody has left 0.2 to 0.4.
    """
    solid = cv2.morphologyEx(cv2.threshold(mask, 200, 255, cv2.THRESH_BINARY)[1], cv2.MORPH_CLOSE, _CLOSE)
    outline = cv2.morphologyEx(solid, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
    if np.count_nonzero(outline) < 12:
        return False
    steps = [cv2.magnitude(cv2.Sobel(g, cv2.CV_32F, 1, 0), cv2.Sobel(g, cv2.CV_32F, 0, 1)) for g in (before, now)]
    return float(steps[1][outline].mean()) < 1.3 * float(steps[0][outline].mean())


def _centre(box: Box) -> tuple[float, float]:
    return box.x + box.width / 2, box.y + box.height / 2


def _match(expected: Box, box: Box) -> float:
    """How well a box fits an expectation: 1 + overlap over union, or below 1 if they are only near; 0 for no fit."""
    width = min(expected.x + expected.width, box.x + box.width) - max(expected.x, box.x)
    height = min(expected.y + expected.height, box.y + box.height) - max(expected.y, box.y)
    if width > 0 and height > 0:
        shared = width * height
        union = expected.width * expected.height + box.width * box.height - shared
        if shared > 0.1 * union:
            return 1 + shared / union
    reach = 0.75 * max(expected.width, expected.height, box.width, box.height)
    near = 1 - math.dist(_centre(expected), _centre(box)) / reach
    areas = sorted((expected.width * expected.height, box.width * box.height))
    return near if areas[0] > 0.25 * areas[1] else 0.0


def _tracklet(track: Track) -> Tracklet:
    samples = track.samples
    if len(samples) > MOST_SAMPLES:
        picks = np.linspace(0, len(samples) - 1, MOST_SAMPLES).round().astype(int)
        samples = [samples[int(i)] for i in picks]
    return Tracklet(track.number, samples[0].time, track.seen, tuple((s.time, s.box) for s in samples))
