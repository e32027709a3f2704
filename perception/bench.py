"""How fast perception is, and how much memory it takes, on one video.

Knows rows of the common benchmark language (docs/design.md, section 8). Does not know a table or a file of results.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .capture import open_source
from .protocols import ImageEncoder
from .stream import Watcher, WatchStats


def bench_perception(video: str | Path, encoder: ImageEncoder | None = None) -> list[dict[str, Any]]:
    """Watch a video to its end without an encoder and, if one is given, with it.

    Args:
        video: path of a video file.
        encoder: an image encoder, or None.

    Returns:
        rows ``{"bench", "case", "metric", "value", "unit", "spread", "peer", "peer_value", "ratio"}``. Rates are per
        second of wall time from the first frame to the last event; memory is that of the whole process, the encoder's
        weights included. There is no peer: ``ratio`` is None, and ``spread`` too, as each case runs once.

    Raises:
        BadInput: the video cannot be watched.
    """
    cases: list[tuple[str, ImageEncoder | None]] = [("no encoder", None)]
    if encoder is not None:
        cases.append((encoder.space.name or "encoder", encoder))
    rows = []
    for name, eyes in cases:
        watcher = Watcher(open_source(video), eyes)
        for _ in watcher:
            pass
        case = f"{Path(video).name} {_size(watcher)}, {name}"
        rows += [_row(case, *measured) for measured in _measured(watcher.stats)]
    return rows


def _size(watcher: Watcher) -> str:
    width, height = watcher.source.size or (0, 0)
    return f"{width}x{height}"


def _measured(stats: WatchStats) -> list[tuple[str, float, str]]:
    return [
        ("sustained", stats.frames_per_s, "frames/s"),
        ("encoded", stats.encoded / stats.seconds, "images/s"),
        ("encoded share", stats.encoded / stats.looked_at, "images/frame"),
        ("peak memory", stats.peak_rss_mb, "MB"),
        ("queue high water", float(stats.queue_high_water), "frames"),
        ("dropped", float(stats.dropped), "frames"),
        ("events", float(stats.events), "events"),
    ]


def _row(case: str, metric: str, value: float, unit: str) -> dict[str, Any]:
    return {
        "bench": "perception",
        "case": case,
        "metric": metric,
        "value": value,
        "unit": unit,
        "spread": None,
        "peer": None,
        "peer_value": None,
        "ratio": None,
    }
