"""Watching a video: events become durable one by one, and a watch that was cut off goes on where it stopped.

It connects perception to memory. It knows neither how events are found nor how they are stored.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from ..clock import from_us, to_us
from ..memory import Memory
from ..perception import ImageEncoder, Source, Watcher, WatchStats, open_source
from ..records import Event, Record


@dataclass(frozen=True, slots=True)
class WatchReport:
    """What one watch did. ``resumed_from`` is a frame number, 0 for a watch from the start."""

    source: str
    events: int
    resumed_from: int
    complete: bool
    """True if the whole file had been watched before, or is now."""
    truncated: bool
    """True if the file ends before its own header says."""
    stats: WatchStats | None
    """None if there was nothing left to watch."""


def watch(
    memory: Memory,
    encoder: ImageEncoder | None,
    spec: str,
    *,
    start: datetime | None,
    again: bool,
    on_event: Callable[[Event, int], None] | None,
) -> WatchReport:
    """Watch ``spec`` to its end; see `Agent.watch`."""
    source = open_source(spec, start=start)
    seen = None if again or source.sha256 is None else _progress(memory, source.sha256)
    if seen is not None and seen.complete:
        source.close()
        return WatchReport(source.name, 0, seen.next_frame, True, False, None)
    if seen is None:
        seen = _Progress(start or _start_of(source, memory.now()), 0, None, 1, complete=False)
        with memory.step() as step:
            step.note("watching", {"sha256": source.sha256, "name": source.name, "start_us": to_us(seen.start)})
    if not source.live:
        source.close()
        source = open_source(spec, start=seen.start)
    last = seen.next_frame - 1
    with Watcher(
        source, encoder, resume_from=seen.next_frame, resume_time=seen.resume_time, next_track=seen.next_track
    ) as watcher:
        for event in watcher:
            with memory.step() as step:
                step.event(event)
            last = int(event.media.get("last_frame", last))
            if on_event is not None:
                on_event(event, last)
            memory.catch_up(budget_s=0.05)
    with memory.step() as step:
        step.note("watched", _watched(source, last, watcher.stats))
    return WatchReport(source.name, watcher.stats.events, seen.next_frame, True, source.truncated, watcher.stats)


def _start_of(source: Source, now: datetime) -> datetime:
    """When a recording began that nobody dated: so that it ends now, for nothing was seen in the future."""
    if source.live or not source.frame_count or not source.fps:
        return now
    return now - timedelta(seconds=source.frame_count / source.fps)


@dataclass(frozen=True, slots=True)
class _Progress:
    """How far a file has been watched, by durable records alone."""

    start: datetime
    next_frame: int
    resume_time: datetime | None
    next_track: int
    complete: bool


def _progress(memory: Memory, sha256: str) -> _Progress | None:
    """The newest watch of the file with this content; None if it has never been watched."""
    newest: Record | None = None
    complete = False
    for record in memory.journal.read(kinds=["watching", "watched", "event"], newest_first=True):
        if _media(record).get("sha256") != sha256:
            continue
        if record.kind == "watched":
            complete = True
        elif record.kind == "event":
            newest = newest or record
        else:
            start = from_us(record.payload["start_us"])
            if newest is None:
                return _Progress(start, 0, None, 1, complete)
            media = newest.payload["media"]
            return _Progress(start, media["last_frame"] + 1, newest.end, media.get("next_track", 1), complete)
    return None


def _media(record: Record) -> dict[str, Any]:
    media: dict[str, Any] = record.payload.get("media") or {} if record.kind == "event" else dict(record.payload)
    return media


def _watched(source: Source, last_frame: int, stats: WatchStats) -> dict[str, Any]:
    return {
        "sha256": source.sha256,
        "name": source.name,
        "last_frame": last_frame,
        "frames": stats.frames_read,
        "truncated": source.truncated,
    }
