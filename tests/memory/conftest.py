"""A memory in a temporary directory, with a clock that only moves when told and an encoder that needs no weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from perdure.memory import Encoders, Memory
from perdure.perception.text import HashingTextEncoder

START = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)
"""A Monday."""


class HandClock:
    """Time that moves by `wait` only."""

    def __init__(self, now: datetime = START) -> None:
        self.time = now

    def now(self) -> datetime:
        return self.time

    def monotonic_us(self) -> int:
        return (self.time - START) // timedelta(microseconds=1)

    def wait(self, **span: float) -> datetime:
        """Move on by ``timedelta(**span)``; returns the new time."""
        self.time += timedelta(**span)
        return self.time


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def open_memory(tmp_path: Path, clock: HandClock) -> Callable[..., Memory]:
    """Opens the memory in ``tmp_path / "agent"``, with words and hashed meaning unless other encoders are given."""

    def opener(encoders: Encoders | None = None, *, read_only: bool = False) -> Memory:
        encoders = encoders or Encoders(text=HashingTextEncoder())
        return Memory.open(tmp_path / "agent", encoders=encoders, clock=clock, read_only=read_only)

    return opener


@pytest.fixture
def memory(open_memory: Callable[..., Memory]) -> Iterator[Memory]:
    with open_memory() as opened:
        yield opened
