"""Watching: a thread reads frames, the caller gets events, and the queue between them never grows without bound.

Knows how fast frames come and are used. A file waits for a slow caller, so nothing is dropped; a camera does not wait,
so the oldest frames are dropped, and counted. Does not know what an event is made of (events.py) nor keeps it (memory).
"""

from __future__ import annotations

import math
import threading
import time as machine_time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Self

import psutil

from ..errors import BadInput
from ..records import Event, Observation
from .capture import Source
from .events import EventSegmenter, EventSettings
from .novelty import NoveltySettings
from .protocols import ImageEncoder
from .tracking import TrackSettings

_RSS_EVERY = 32  # frames between two looks at the memory of the process
_JOIN_S = 5.0  # a reader that hangs in a dead camera is left behind after this time


@dataclass(frozen=True, slots=True)
class WatchStats:
    """How watching went so far."""

    frames_read: int
    looked_at: int
    encoded: int
    """Pictures encoded: frames and moving things."""
    dropped: int
    """Frames of a live source that nobody had time for."""
    events: int
    queue_high_water: int
    """Most frames that waited at one time."""
    seconds: float
    """Wall time since the first frame was asked for."""
    peak_rss_mb: float
    """Largest resident memory of the process seen while watching, in 10^6 bytes."""

    @property
    def frames_per_s(self) -> float:
        """Frames looked at per second of wall time."""
        return self.looked_at / self.seconds if self.seconds > 0 else 0.0


class Watcher:
    """Iterate over it to get the events of a source. It takes the source over and closes it.

    Args:
        source: what is watched.
        encoder: looks at the frames that are worth it; None: events have neither vectors nor labels.
        settings, novelty, tracks: when events begin, what counts as new, what counts as a moving thing.
        queue_frames: frames that may wait between reader and caller, at least 1.
        resume_from: number of the first frame that is not yet part of an event: the last durable event's
            ``media["last_frame"] + 1``. Events begin at this frame exactly: nothing is lost, nothing is there twice.
        warm_up_s: so many seconds before that frame are looked at again to learn the background. If they reach back
            to the start of the source (``math.inf`` always does), the events are those of a run without interruption;
            else the next boundaries may differ a little from it.
        resume_time: that event's ``end``, which lets a file jump there instead of decoding its way.
        next_track: that event's ``media["next_track"]``, so that track numbers stay unique within the source.

    Raises:
        BadInput: a number out of range. While iterating: whatever the source raises, after the events before it.
    """

    def __init__(
        self,
        source: Source,
        encoder: ImageEncoder | None = None,
        *,
        settings: EventSettings | None = None,
        novelty: NoveltySettings | None = None,
        tracks: TrackSettings | None = None,
        queue_frames: int = 8,
        resume_from: int = 0,
        resume_time: datetime | None = None,
        next_track: int = 1,
        warm_up_s: float = 30.0,
    ) -> None:
        if queue_frames < 1 or resume_from < 0 or next_track < 1 or not warm_up_s >= 0:
            raise BadInput(
                "expected queue_frames >= 1, resume_from >= 0, next_track >= 1 and warm_up_s >= 0, got "
                f"{queue_frames}, {resume_from}, {next_track} and {warm_up_s}"
            )
        self.source = source
        self._seek = max(0, resume_from - math.ceil(min(warm_up_s, 1e9) * source.fps)) if source.fps else 0
        self._resume_from = resume_from
        self._anchor = (resume_from - 1, resume_time) if resume_from and resume_time else None
        media = {"fps": source.fps} if source.sha256 is None else {"sha256": source.sha256, "fps": source.fps}
        self._segmenter = EventSegmenter(
            encoder, settings, novelty, tracks, media, resume_from, next_track if self._seek else 1
        )
        self._channel = _Channel(queue_frames, drop_oldest=source.live)
        self._reader = threading.Thread(target=self._read, name=f"perdure-watch-{source.name}", daemon=True)
        self._process = psutil.Process()
        self._peak_rss = 0
        self._events = 0
        self._began: float | None = None
        self._ended: float | None = None

    @property
    def stats(self) -> WatchStats:
        """How it went so far; may be asked at any time."""
        ended = self._ended or machine_time.perf_counter()
        return WatchStats(
            frames_read=self._channel.put_count,
            looked_at=self._segmenter.looked_at,
            encoded=self._segmenter.encoded,
            dropped=self._channel.dropped,
            events=self._events,
            queue_high_water=self._channel.high_water,
            seconds=0.0 if self._began is None else ended - self._began,
            peak_rss_mb=self._peak_rss / 1e6,
        )

    def __iter__(self) -> Iterator[Event]:
        if self._began is not None:
            raise BadInput("a watcher can be iterated once; open the source again and resume from the last event")
        self._began = machine_time.perf_counter()
        self._reader.start()
        try:
            while (observation := self._channel.get()) is not None:
                yield from self._count(self._segmenter.feed(observation))
            yield from self._count(self._segmenter.flush())
            if self._channel.error is not None:
                raise self._channel.error
        finally:
            self.close()

    def close(self) -> None:
        """Stop reading. The event that is open is not returned: resume from its first frame."""
        self._channel.close()
        if self._reader.is_alive():
            self._reader.join(_JOIN_S)
        elif self._began is None:
            self.source.close()
        if self._ended is None:
            self._ended = machine_time.perf_counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _count(self, events: tuple[Event, ...]) -> tuple[Event, ...]:
        self._events += len(events)
        if events or self._segmenter.looked_at % _RSS_EVERY == 1:
            self._peak_rss = max(self._peak_rss, self._process.memory_info().rss)
        return events

    def _read(self) -> None:
        """The reader thread: owns the source while it runs, and hands its errors to the caller."""
        try:
            if self._resume_from:
                self.source.seek(self._seek, self._anchor)
            for observation in self.source:
                if not self._channel.put(observation):
                    break
        except Exception as error:  # noqa: BLE001 - raised again in the caller's thread
            self._channel.close(error)
        finally:
            self.source.close()
            self._channel.finish()


class _Channel:
    """A queue of bounded length between two threads."""

    def __init__(self, limit: int, drop_oldest: bool) -> None:
        self.put_count = self.dropped = self.high_water = 0
        self.error: Exception | None = None
        self._limit, self._drop_oldest = limit, drop_oldest
        self._items: deque[Observation] = deque()
        self._finished = self._closed = False
        self._changed = threading.Condition()

    def put(self, item: Observation) -> bool:
        """Add an item, waiting for room or dropping the oldest; False if nobody wants any more."""
        with self._changed:
            while len(self._items) >= self._limit and not self._closed:
                if self._drop_oldest:
                    self._items.popleft()
                    self.dropped += 1
                else:
                    self._changed.wait()
            if self._closed:
                return False
            self._items.append(item)
            self.put_count += 1
            self.high_water = max(self.high_water, len(self._items))
            self._changed.notify_all()
            return True

    def get(self) -> Observation | None:
        """The oldest item, waiting for one; None once there will be no more."""
        with self._changed:
            while not self._items and not self._finished and not self._closed:
                self._changed.wait()
            item = self._items.popleft() if self._items and not self._closed else None
            self._changed.notify_all()
            return item

    def finish(self) -> None:
        """Nothing more will be put."""
        with self._changed:
            self._finished = True
            self._changed.notify_all()

    def close(self, error: Exception | None = None) -> None:
        """With an error: the reader failed, what waits can still be got. Without: nobody wants any more."""
        with self._changed:
            if error is not None:
                self.error, self._finished = error, True
            else:
                self._closed = True
                self._items.clear()
            self._changed.notify_all()
