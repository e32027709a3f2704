"""Cutting a stream of frames into events: novelty and motion open one, quiet, a cut or length closes it.

Knows when something began and ended, which frames show it best, what moved and where to. Does not know who reads the
events, nor how fast: the same frames with the same times give the same events.

Events are a partition: every frame belongs to exactly one, so nothing is lost between them. A stretch in which nothing
happens is an event too (``media["quiet"]`` is True), with one key frame that proves it.

    quiet  -> active  novelty >= open_novelty, or a moving thing is being followed
    active -> quiet   neither motion nor a followed thing for quiet_s
    any    -> new     a cut; most_s (quiet: most_quiet_s) have passed

All times are world time, never the time of the machine that watches.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from ..errors import BadInput
from ..records import Event, Image, KeyFrame, Label, Observation, Percept, Tracklet, Vector
from .novelty import Floats, Glance, NoveltyMeter, NoveltySettings, difference, shrink
from .protocols import ImageEncoder
from .tracking import MotionTracker, Track, TrackSettings

_CROP_S = 0.3  # so often a better picture of each moving thing is looked for
_CROP_PX = 256  # widest picture kept of a moving thing


@dataclass(frozen=True, slots=True)
class EventSettings:
    """When an event begins and ends, and what is kept of it."""

    open_novelty: float = 0.35
    """Novelty from 0 to 1 that opens an event."""
    hold_motion: float = 0.004
    """Share of the thumbnail in motion that keeps it open."""
    quiet_s: float = 1.5
    """It closes after so long without motion."""
    least_s: float = 0.5
    """No event is shorter, but the last of a source."""
    most_s: float = 30.0
    """Nor longer; a stretch of motion without end becomes several."""
    most_quiet_s: float = 300.0
    """The same for a stretch in which nothing happens."""
    encodes_per_s: float = 2.0
    """Frames encoded in a second of world time at most, besides the first of each event."""
    encode_change: float = 0.04
    """Share of the thumbnail that must have changed since the last encoded frame."""
    quiet_encode_s: float = 60.0
    """One frame is encoded at least this often, however quiet it is."""
    most_key_frames: int = 4
    most_candidates: int = 8
    """Frames held in memory while an event is open, from which the key frames are chosen."""
    most_named: int = 4
    """Moving things whose picture is encoded to name them, per event."""
    label_probability: float = 0.1
    """A label belongs to an event only if the encoder was at least this sure in one frame: on bikes.mp4 that keeps
    suit, rickshaw and mountain bike, and drops llama, washing machine and turnstile."""
    name_probability: float = 0.3
    """A moving thing is named only if the encoder is at least this sure; a wrong name is worse than none."""

    def __post_init__(self) -> None:
        if not 0 < self.open_novelty < 1:
            raise BadInput(f"EventSettings.open_novelty must lie between 0 and 1, got {self.open_novelty}")
        if not 0 < self.least_s <= min(self.most_s, self.most_quiet_s):
            raise BadInput(f"EventSettings.least_s must lie between 0 and most_s, got {self.least_s}")
        if not self.encodes_per_s > 0:
            raise BadInput(f"EventSettings.encodes_per_s must be above 0, got {self.encodes_per_s}")
        if not 1 <= self.most_key_frames <= self.most_candidates - 2:
            raise BadInput(
                "EventSettings.most_key_frames must lie between 1 and most_candidates - 2, got "
                f"{self.most_key_frames} and {self.most_candidates}"
            )


@dataclass(slots=True)
class _Candidate:
    """A frame that may become a key frame."""

    observation: Observation
    novelty: float
    thumb: Floats
    vector: Vector | None = None
    labels: tuple[Label, ...] = ()


@dataclass(slots=True)
class _Open:
    """The event being watched."""

    quiet: bool
    start: datetime
    first_frame: int
    end: datetime
    last_frame: int
    last_active: datetime
    size: tuple[int, int]
    candidates: list[_Candidate] = field(default_factory=list)
    labels: dict[str, float] = field(default_factory=dict)
    frames: int = 0
    frames_camera_moved: int = 0


class EventSegmenter:
    """Turns observations into events. Feed frames in order; take the last event with `flush`.

    Args:
        encoder: looks at the frames that are worth it; None: key frames have no vectors and no labels.
        settings, novelty, tracks: when events begin, what counts as new, what counts as a moving thing.
        media: what each event's ``media`` says besides its frames: ``sha256`` and ``fps`` of the file.
        first_frame: frames before this one are looked at but neither encoded nor part of an event: they warm up the
            background when a source is resumed.
        first_track: number of the first track.
    """

    def __init__(
        self,
        encoder: ImageEncoder | None = None,
        settings: EventSettings | None = None,
        novelty: NoveltySettings | None = None,
        tracks: TrackSettings | None = None,
        media: Mapping[str, Any] | None = None,
        first_frame: int = 0,
        first_track: int = 1,
    ) -> None:
        self.settings = settings or EventSettings()
        self.encoder = encoder
        self.looked_at = 0
        """Frames looked at so far ..."""
        self.encoded = 0
        """... and pictures encoded, key frames and moving things together."""
        self.percept: Percept | None = None
        """What was made of the last frame."""
        self._meter = NoveltyMeter(novelty)
        self._tracker = MotionTracker(tracks, first_track)
        self._media = dict(media or {})
        self._first_frame = first_frame
        self._open: _Open | None = None
        self._index = -1
        self._last_encode: tuple[datetime, Floats] | None = None
        self._seen_tracks = 0
        self._crops: dict[int, tuple[datetime, float, Image]] = {}
        self._names: dict[int, str | None] = {}

    def feed(self, observation: Observation) -> tuple[Event, ...]:
        """Look at the next frame.

        Args:
            observation: with a frame; frame numbers count up if they are given, times do not go back.

        Returns:
            the event that this frame closed by not belonging to it, if any.

        Raises:
            BadInput: no frame, or a time or number that goes back.
        """
        frame, index, size = self._check(observation)
        self._index = index
        self.looked_at += 1
        small = shrink(frame)
        glance = self._meter.look(small, observation.time)
        if glance.cut:
            self._tracker.reset()
        live = self._tracker.look(small, observation.time, size)
        self.percept = Percept(observation, glance.novelty)
        active = bool(live) or glance.motion > self.settings.hold_motion
        closed = self._turn(observation, glance, active, bool(live), size)
        assert self._open is not None
        self._open.end, self._open.last_frame = observation.time, index
        self._open.frames += 1
        self._open.frames_camera_moved += self._tracker.camera_moves
        if active:
            self._open.last_active = observation.time
        if index >= self._first_frame:
            self._keep_crops(frame, live, observation.time)
            self._consider(observation, glance, live)
        return closed

    def flush(self) -> tuple[Event, ...]:
        """Close the open event, because the source has ended."""
        return self._close()

    def _check(self, observation: Observation) -> tuple[Image, int, tuple[int, int]]:
        frame = observation.frame
        if frame is None:
            raise BadInput(f"expected an observation with a frame, got one without from {observation.source}")
        index = self._index + 1 if observation.index is None else observation.index
        if self._open is not None and (index <= self._index or observation.time < self._open.end):
            raise BadInput(
                f"expected frames in order, got frame {index} at {observation.time} after frame {self._index} at "
                f"{self._open.end}; use one segmenter per source"
            )
        return frame, index, (frame.shape[1], frame.shape[0])

    def _turn(
        self, observation: Observation, glance: Glance, active: bool, followed: bool, size: tuple[int, int]
    ) -> tuple[Event, ...]:
        """Decide whether this frame begins a new event; if so, close the old one."""
        settings, time, now = self.settings, observation.time, self._open
        if now is None:
            self._begin(observation, True, size)
            return ()
        age = (time - now.start).total_seconds()
        quiet = now.quiet
        if glance.cut:
            turn = age >= settings.least_s
            quiet = turn
        elif now.quiet:
            quiet = not (followed or (glance.novelty >= settings.open_novelty and active))
            turn = (not quiet and age >= settings.least_s) or age >= settings.most_quiet_s
        else:
            still = (time - now.last_active).total_seconds()
            quiet = not active and still > settings.quiet_s and age >= settings.least_s
            turn = quiet or age >= settings.most_s
        if self._index == self._first_frame:
            turn = True
        if not turn:
            now.quiet = quiet
            return ()
        closed = self._close()
        self._begin(observation, quiet, size)
        if not glance.cut:
            self._meter.settle()
        return closed

    def _begin(self, observation: Observation, quiet: bool, size: tuple[int, int]) -> None:
        time = observation.time
        self._open = _Open(quiet, time, self._index, time, self._index, time, size)

    def _close(self) -> tuple[Event, ...]:
        now, self._open = self._open, None
        tracklets = self._tracker.harvest()
        if now is None or now.first_frame < self._first_frame:
            return ()
        tracklets = self._name(tracklets)
        sure = [(name, p) for name, p in now.labels.items() if p >= self.settings.label_probability]
        labels = tuple(Label(name, p) for name, p in sorted(sure, key=lambda item: (-item[1], item[0])))
        camera = now.frames_camera_moved > 0.3 * now.frames
        return (
            Event(
                start=now.start,
                end=now.end,
                source=now.candidates[0].observation.source,
                text=describe(labels, tracklets, now.size, now.quiet, camera),
                key_frames=tuple(_key_frame(c) for c in _choose(now.candidates, self.settings.most_key_frames)),
                tracklets=tracklets,
                labels=labels[:5],
                space=None if self.encoder is None else self.encoder.space,
                media={
                    **self._media,
                    "first_frame": now.first_frame,
                    "last_frame": now.last_frame,
                    "next_track": self._tracker.next_number,
                    "quiet": now.quiet,
                },
            ),
        )

    def _consider(self, observation: Observation, glance: Glance, live: Sequence[Track]) -> None:
        """Encode this frame if it is the first of its event, or new enough and not too soon."""
        assert self._open is not None
        settings, candidates = self.settings, self._open.candidates
        newest = max((track.number for track in live), default=0)
        if candidates and self._last_encode is not None:
            then, thumb = self._last_encode
            seconds = (observation.time - then).total_seconds()
            if seconds < 1 / settings.encodes_per_s:
                return
            changed = newest > self._seen_tracks or difference(glance.thumb, thumb) > settings.encode_change
            if not changed and seconds < settings.quiet_encode_s:
                return
        self._seen_tracks = max(self._seen_tracks, newest)
        candidate = _Candidate(observation, glance.novelty, glance.thumb)
        if self.encoder is not None:
            assert observation.frame is not None
            candidate.vector, candidate.labels = self.encoder.look(observation.frame)
            self.encoded += 1
            for label in candidate.labels:
                self._open.labels[label.name] = max(label.probability, self._open.labels.get(label.name, 0.0))
            self.percept = Percept(observation, glance.novelty, (), candidate.vector, candidate.labels)
        candidates.append(candidate)
        self._last_encode = (observation.time, glance.thumb)
        if len(candidates) > settings.most_candidates:
            _drop_dullest(candidates)

    def _keep_crops(self, frame: Image, live: Sequence[Track], time: datetime) -> None:
        """Keep the largest picture of each thing that has no name yet."""
        if self.encoder is None:
            return
        for track in live:
            then, area, _ = self._crops.get(track.number, (None, 0.0, None))
            box = track.box
            soon = then is not None and (time - then).total_seconds() < _CROP_S
            if track.number in self._names or track.seen != time or soon or box.width * box.height <= 1.1 * area:
                continue
            margin = 0.1 * max(box.width, box.height)
            left, top = max(0, int(box.x - margin)), max(0, int(box.y - margin))
            right, bottom = int(box.x + box.width + margin), int(box.y + box.height + margin)
            crop = shrink(frame[top:bottom, left:right], _CROP_PX).copy()
            self._crops[track.number] = (time, box.width * box.height, crop)

    def _name(self, tracklets: tuple[Tracklet, ...]) -> tuple[Tracklet, ...]:
        """Ask the encoder what the largest moving things are."""
        if self.encoder is not None:
            unnamed = [t for t in tracklets if t.track not in self._names and t.track in self._crops]
            unnamed.sort(key=lambda t: (-self._crops[t.track][1], t.track))
            for tracklet in unnamed[: self.settings.most_named]:
                labels = self.encoder.look(self._crops.pop(tracklet.track)[2]).labels
                self.encoded += 1
                sure = bool(labels) and labels[0].probability >= self.settings.name_probability
                self._names[tracklet.track] = labels[0].name if sure else None
        named = tuple(replace(t, label=self._names.get(t.track)) for t in tracklets)
        alive = {track.number for track in self._tracker.live}
        self._names = {number: name for number, name in self._names.items() if number in alive}
        self._crops = {number: crop for number, crop in self._crops.items() if number in alive}
        return named


def describe(
    labels: Sequence[Label],
    tracklets: Sequence[Tracklet],
    size: tuple[int, int],
    quiet: bool = False,
    camera_moved: bool = False,
) -> str:
    """Say in words what happened, without a language model.

    Args:
        labels: most probable first; the first five are named.
        tracklets: what moved, boxes in pixels.
        size: (width, height) of the frame in pixels.
        quiet: nothing happened.
        camera_moved: the camera moved for a good part of the event.

    Returns:
        such as ``mountain bike, moped; 2 moving things: moped from the left to the right, one in the middle``.
    """
    parts = [", ".join(label.name for label in labels[:5])] if labels else []
    if tracklets:
        paths = Counter((tracklet.label or "", _path(tracklet, size)) for tracklet in tracklets)
        groups = sorted(paths.items(), key=lambda item: (-item[1], item[0]))[:5]
        told = ", ".join(f"{_amount(number, label)} {path}" for (label, path), number in groups)
        parts.append(f"{len(tracklets)} moving thing{'s' if len(tracklets) > 1 else ''}: {told}")
    elif quiet:
        parts.append("nothing moves")
    if camera_moved:
        parts.append("the camera moves")
    return "; ".join(parts) or "something changes"


def _amount(number: int, label: str) -> str:
    if number == 1:
        return label or "one"
    return f"{number} {label}".strip()


def _path(tracklet: Tracklet, size: tuple[int, int]) -> str:
    """Where a thing went, in words."""
    (_, first), (_, last) = tracklet.boxes[0], tracklet.boxes[-1]
    x0, x1 = (first.x + first.width / 2) / size[0], (last.x + last.width / 2) / size[0]
    y0, y1 = (first.y + first.height / 2) / size[1], (last.y + last.height / 2) / size[1]
    if max(abs(x1 - x0), abs(y1 - y0)) < 0.15:
        place = _place(x1, ("left", "middle", "right"))
        return "in the middle" if place == "middle" else f"at the {place}"
    if abs(x1 - x0) >= abs(y1 - y0):
        names, start, end = ("left", "middle", "right"), x0, x1
    else:
        names, start, end = ("top", "middle", "bottom"), y0, y1
    origin, target = _place(start, names), _place(end, names)
    if origin == target:  # a move within one third is named by its direction
        return f"to the {names[2] if end > start else names[0]}"
    return f"from the {origin} to the {target}"


def _place(share: float, names: tuple[str, str, str]) -> str:
    return names[0] if share < 1 / 3 else names[1] if share < 2 / 3 else names[2]


def _key_frame(candidate: _Candidate) -> KeyFrame:
    seen = candidate.observation
    assert seen.frame is not None
    return KeyFrame(seen.time, seen.frame, candidate.novelty, seen.index, candidate.vector, candidate.labels)


def _choose(candidates: Sequence[_Candidate], most: int) -> list[_Candidate]:
    """The first frame, the most novel one, then those that differ most from what is chosen; in order of time."""
    chosen = [0]
    rest = list(range(1, len(candidates)))
    while rest and len(chosen) < most:
        gaps = {i: min(difference(candidates[i].thumb, candidates[j].thumb) for j in chosen) for i in rest}
        distinct = [i for i in rest if gaps[i] >= 0.02]  # the same picture once more proves nothing
        if not distinct:
            break
        best = max(distinct, key=lambda i: (candidates[i].novelty if len(chosen) == 1 else gaps[i], -i))
        chosen.append(best)
        rest.remove(best)
    return [candidates[i] for i in sorted(chosen)]


def _drop_dullest(candidates: list[_Candidate]) -> None:
    """Forget the frame that resembles a neighbour most, but not the first, the last or the most novel one."""
    middle = range(1, len(candidates) - 1)
    novel = max(range(len(candidates)), key=lambda i: (candidates[i].novelty, -i))

    def gap(i: int) -> float:
        thumb = candidates[i].thumb
        return min(difference(thumb, candidates[i - 1].thumb), difference(thumb, candidates[i + 1].thumb))

    del candidates[min((i for i in middle if i != novel), key=lambda i: (gap(i), i))]
