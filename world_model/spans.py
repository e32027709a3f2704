"""What was seen unchanged since it was last told: the quiet part of watching, told in a few words now and then."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from ..records import Cell


class Spans:
    """For each thing, its value and the first and last time that it was seen so."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, str, Hashable], list[Any]] = {}

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
        span = self._open.setdefault((what, name, name if key is None else key), [cell, value, at, at, 0])
        if span[1] != value:
            span[:] = [cell, value, at, at, 0]
        span[0], span[3], span[4] = cell, at, span[4] + 1

    def last(self, what: str, name: str, key: Hashable = None) -> int | None:
        """When it was last seen so; None if it was not since the last telling."""
        span = self._open.get((what, name, name if key is None else key))
        return None if span is None else int(span[3])

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
        """Everything, as ``[what, name, cell, value, first, last, times]``; nothing is left to be told."""
        told = [_told(one, span) for one, span in sorted(self._open.items(), key=lambda pair: _order(pair[0]))]
        self._open = {}
        return told


def _told(one: tuple[str, str, Hashable], span: list[Any]) -> list[Any]:
    cell, value, first, last, times = span
    return [one[0], one[1], list(cell), value, first, last, times]


def _order(one: tuple[str, str, Hashable]) -> tuple[str, str, str]:
    return one[0], one[1], str(one[2])
