"""The smallest grain of what is known over time: a stretch in which one thing was seen in one condition.

A `Stay` is a place of an item, a state of a fixture, or a room of a person. It runs from the first to the last time
that it was *seen*; what happened between two stays, nobody looked at. Times are whole seconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

MOST_EVIDENCE = 6
MOST_RUNS = 256
RUN_GAP_S = 130
"""Looks no further apart than this are one run: nothing is assumed to have come and gone between them."""


@dataclass(slots=True)
class Stay:
    """One condition of one thing."""

    value: str
    """A place, a state or a room."""
    first: int
    """Seconds: first seen so ..."""
    last: int
    """... and last seen so."""
    cell: tuple[int, int] | None = None
    carrier: str = ""
    """The person who carries it, if ``value`` is one."""
    seqs: list[int] = field(default_factory=list)
    """Records that show it: the first ones and the newest."""
    by: str | None = None
    """Who brought it about: a person, ``me``, None if nobody was seen to."""
    since: int | None = None
    """Seconds: when the old condition was last seen, if that was the step before (``witnessed``)."""
    witnessed: bool = False
    """Its beginning was seen as it happened."""
    gone: int | None = None
    """Seconds: when it was first seen to hold no more ..."""
    gone_sure: float = 1.0
    """... and how sure that is, from 0 to 1."""
    taken_by: str | None = None
    """Who stood beside when it ended."""
    looks: int = 1
    """How often it was seen."""
    sure: float = 1.0
    """Certainty of the sighting that began it, from 0 to 1."""
    runs: list[list[int]] = field(default_factory=list)
    """Stretches ``[first, last]`` in which somebody looked, oldest first."""

    def __post_init__(self) -> None:
        if not self.runs:
            self.runs = [[self.first, self.last]]

    def see(self, first: int, last: int, seq: int, *, times: int = 1) -> None:
        """It was seen so again, from ``first`` until ``last``."""
        self.first = min(self.first, first)
        self.last = max(self.last, last)
        self._run(first, last)
        self.looks += times
        self.note(seq)

    def see_runs(self, runs: Sequence[Sequence[int]], seq: int, times: int) -> None:
        """It was seen so again in several stretches ``[first, last]``, oldest first; none before it began counts."""
        for first, last in runs:
            if last >= self.first:
                self.see(max(first, self.first), last, seq, times=0)
        self.looks += times

    def unseen(self, time: int) -> tuple[int, int] | None:
        """The looks before and after ``time`` if nobody looked then; None if somebody did."""
        before = self.first
        for first, last in self.runs:
            if first <= time <= last:
                return None
            if first > time:
                return before, first
            before = last
        return before, max(before, self.last)

    def _run(self, first: int, last: int) -> None:
        newest = self.runs[-1]
        if first - newest[1] <= RUN_GAP_S:
            newest[0], newest[1] = min(newest[0], first), max(newest[1], last)
            return
        self.runs.append([first, last])
        if len(self.runs) > MOST_RUNS:
            gaps = [b[0] - a[1] for a, b in zip(self.runs, self.runs[1:], strict=False)]
            at = gaps.index(min(gaps))
            self.runs[at : at + 2] = [[self.runs[at][0], self.runs[at + 1][1]]]

    def note(self, seq: int) -> None:
        """Another record shows it."""
        if not self.seqs or self.seqs[-1] != seq:
            self.seqs.append(seq)
            if len(self.seqs) > MOST_EVIDENCE:
                del self.seqs[MOST_EVIDENCE // 2]

    def to_state(self) -> list[Any]:
        """As JSON values."""
        cell = None if self.cell is None else list(self.cell)
        runs = [list(run) for run in self.runs]
        return [
            self.value, self.first, self.last, cell, self.carrier, list(self.seqs), self.by, self.since,
            self.witnessed, self.gone, round(self.gone_sure, 3), self.taken_by, self.looks, round(self.sure, 3), runs,
        ]  # fmt: skip

    @classmethod
    def from_state(cls, state: list[Any]) -> Stay:
        """The stay that `to_state` described."""
        value, first, last, cell, carrier, seqs, by, since, witnessed, *rest = state
        gone, gone_sure, taken_by, looks, sure, runs = rest
        new = cls(value, first, last, None if cell is None else (int(cell[0]), int(cell[1])), carrier, list(seqs), by)
        new.since, new.witnessed, new.gone, new.gone_sure = since, witnessed, gone, gone_sure
        new.taken_by, new.looks, new.sure, new.runs = taken_by, looks, sure, [list(run) for run in runs]
        return new


@dataclass(slots=True)
class Life:
    """The stays of one thing, oldest first."""

    id: str
    """``blue mug#1`` for an item, the name for a fixture or a person."""
    name: str
    stays: list[Stay] = field(default_factory=list)

    @property
    def now(self) -> Stay | None:
        """The newest stay."""
        return self.stays[-1] if self.stays else None

    def at(self, time: int) -> tuple[Stay | None, Stay | None]:
        """The last stay that began by ``time`` and the first that began after it."""
        before: Stay | None = None
        for stay in self.stays:
            if stay.first > time:
                return before, stay
            before = stay
        return before, None

    def to_state(self) -> list[Any]:
        """As JSON values."""
        return [self.id, self.name, [stay.to_state() for stay in self.stays]]

    @classmethod
    def from_state(cls, state: list[Any]) -> Life:
        """The life that `to_state` described."""
        return cls(state[0], state[1], [Stay.from_state(stay) for stay in state[2]])
