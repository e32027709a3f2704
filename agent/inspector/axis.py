"""Where items stand on the time axis of the page: in order, never one over another, quiet time compressed.

It knows times and widths, not what the items are. A gap of t seconds is ``8 log2(1 + t)`` pixels wide (a second 8, a
minute 47, an hour 95, a day 131), and wider where cards of one lane would overlap: so seconds of video and days of
silence fit on one axis, and its labels say how long each gap was.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

_LEFT = 76.0
_AIR = 10.0
_OUTAGE = 118.0


@dataclass(frozen=True, slots=True)
class Mark:
    """One item to place. An outage lies across all lanes, from ``time`` to ``end``."""

    seq: int
    lane: str
    """"" for an outage."""
    time: datetime
    end: datetime
    width: float
    """Pixels that its card needs; nothing for an outage."""


@dataclass(frozen=True, slots=True)
class Axis:
    """Where everything stands, in pixels from the left."""

    left: dict[int, float]
    right: dict[int, float]
    """Right edge of each outage."""
    stops: list[tuple[float, datetime]]
    """Places with their times, in order: one for each instant at which something begins or an outage ends."""
    width: float


def lay_out(marks: Iterable[Mark]) -> Axis:
    """Place marks by time, then by number."""
    points = [(mark.time, mark.seq, False, mark) for mark in marks]
    points += [(mark.end, mark.seq, True, mark) for _, _, _, mark in points if not mark.lane]
    left: dict[int, float] = {}
    right: dict[int, float] = {}
    stops: list[tuple[float, datetime]] = []
    free: dict[str, float] = {}
    x, wall = _LEFT, 0.0
    for time, seq, is_end, mark in sorted(points, key=lambda point: point[:3]):
        if stops:
            x += 8 * math.log2(1 + max(0.0, (time - stops[-1][1]).total_seconds()))
        if mark.lane:
            x = max(x, free.get(mark.lane, 0.0), wall)
            left[seq], free[mark.lane] = x, x + mark.width + _AIR
        elif is_end:
            x = max(x, left[seq] + _OUTAGE)
            right[seq], wall = x, x + _AIR
        else:
            x = max([x, wall, *free.values()])
            left[seq] = x
        stops.append((x, time))
    return Axis(left, right, stops, max([x + _AIR, *free.values()]) + _LEFT / 2)
