"""What was seen unchanged since it was last told: the quiet part of watching, told in a few words now and then."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

from ..records import Cell


@dataclass(slots=True)
class _Span:
    cell: Cell
    value: str
    runs: list[list[int]] = field(default_factory=list)
    """Stretches ``[first, last]`` in which it was in view at every step."""
    times: int = 0


class Spans:
    """For each thing, its value and when it was seen so."""

    def __init__(self, step_s: int = 60) -> None:
        self._step_s = step_s
        self._open: dict[tuple[str, str, Hashable], _Span] = {}

    def __len__(self) -> int:
        return len(self._open)

    def see(self, what: str, name: str, cell: Cell, value: str, at: int, key: Hashable = None) -> None:
        """Something was seen as it is believed to be.

        Args:
            what: fixture, item or person.
            name: its name.
            cell: where it was seen.
            value: state, carrier or room.
            at: seconds.
            key: tells things of one name apart; the name by default.
        """
        span = self._open.setdefault((what, name, name if key is None else key), _Span(cell, value))
        if span.value != value:
            span.value, span.runs, span.times = value, [], 0
        span.cell, span.times = cell, span.times + 1
        if span.runs and at - span.runs[-1][1] <= self._step_s:
            span.runs[-1][1] = at
        else:
            span.runs.append([at, at])

    def last(self, what: str, name: str, key: Hashable = None) -> int | None:
        """When it was last seen so; None if it was not since the last telling."""
        span = self._open.get((what, name, name if key is None else key))
        return None if span is None else span.runs[-1][1]

    def end(self, told: list[list[Any]], what: str, name: str, key: Hashable = None) -> int | None:
        """Tell into ``told`` how long something was seen as before, because it is no longer.

        Without a key, all things of that name. Returns when it was last seen so, None if not since the last telling.
        """
        ended = [one for one in self._open if one[:2] == (what, name) and (key is None or one[2] == key)]
        last = None
        for one in sorted(ended, key=_order):
            told.append(_told(one, self._open.pop(one)))
            last = int(told[-1][5])
        return last

    def take(self) -> list[list[Any]]:
        """Everything, as ``[what, name, cell, value, first, last, times, runs]``; nothing is left."""
        told = [_told(one, span) for one, span in sorted(self._open.items(), key=lambda pair: _order(pair[0]))]
        self._open = {}
        return told


def _told(one: tuple[str, str, Hashable], span: _Span) -> list[Any]:
    first, last = span.runs[0][0], span.runs[-1][1]
    return [one[0], one[1], list(span.cell), span.value, first, last, span.times, span.runs]


def _order(one: tuple[str, str, Hashable]) -> tuple[str, str, str]:
    return one[0], one[1], str(one[2])
