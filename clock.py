"""Time: aware UTC datetimes in the API, int64 microseconds in storage, and the clock that an agent reads."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

from .errors import BadInput

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Clock(Protocol):
    """What an agent asks for the time. Order never comes from it, only from sequence numbers."""

    def now(self) -> datetime:
        """Wall time, aware, UTC."""

    def monotonic_us(self) -> int:
        """Microseconds since an arbitrary start; never goes back while the machine is up."""


class SystemClock:
    """The clock of this machine."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic_us(self) -> int:
        return time.monotonic_ns() // 1000


def to_us(moment: datetime) -> int:
    """Microseconds since 1970-01-01 UTC of an aware datetime; exact.

    Raises:
        BadInput: the datetime is naive.
    """
    if moment.tzinfo is None:
        raise BadInput(f"expected an aware datetime, got the naive {moment!r}; add tzinfo, for example datetime.UTC")
    return (moment - EPOCH) // _MICROSECOND


def from_us(microseconds: int) -> datetime:
    """The aware UTC datetime of microseconds since 1970-01-01 UTC; the inverse of `to_us`."""
    return EPOCH + timedelta(microseconds=microseconds)


class WorldClock:
    """The clock of an agent that lives in a simulated world: it shows world time, and moves only when it is set.

    So records of a simulated week carry the times of that week, and the same life is the same journal.
    """

    def __init__(self, start: datetime) -> None:
        self._now_us = to_us(start)

    def now(self) -> datetime:
        return from_us(self._now_us)

    def monotonic_us(self) -> int:
        return self._now_us

    def set(self, moment: datetime) -> None:
        """Move on to ``moment``; a time before the present one is ignored, because a clock does not go back."""
        self._now_us = max(self._now_us, to_us(moment))
