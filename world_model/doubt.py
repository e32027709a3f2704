"""Whether a difference is believed: one glance may be a misread, two that agree hardly are.

Each look at a difference has a certainty from 0 to 1. Looks are taken as independent, so after several the chance that
all were misread is the product of their doubts. A look that shows things as they were before clears the difference.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any

MOST_FROM_ONE = 0.97
"""No single look counts for more: light and noise mislead whole frames. Of readings that perception itself gives 0.95
or more, 1 in 200 was wrong in the home (seed 3, a day of 5,000 readings)."""


@dataclass(frozen=True, slots=True)
class Caution:
    """How sure a difference must be before it is believed, from 0 to 1."""

    settled: float = 0.95
    """While one can look again."""
    parting: float = 0.75
    """When it goes out of view."""
    explained: float = 0.5
    """When something else in the same view explains it."""
    patience_s: int = 20 * 60
    """A doubt not looked at again for this long is dropped."""


@dataclass(slots=True)
class Doubt:
    """A difference that was seen, and how often."""

    reading: Hashable
    first: int
    last: int
    looks: int = 0
    missed: float = 1.0
    """Chance that every look was a misread."""
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def sure(self) -> float:
        """Chance that it is real."""
        return 1.0 - self.missed


class Doubts:
    """Differences that are not yet believed, by where they are."""

    def __init__(self, caution: Caution) -> None:
        self.caution = caution
        self._open: dict[Hashable, Doubt] = {}

    def look(self, where: Hashable, reading: Hashable, at: int, certainty: float, **details: Any) -> Doubt:
        """One more look at a difference; one that reads otherwise begins anew."""
        doubt = self._open.get(where)
        if doubt is None or doubt.reading != reading or at - doubt.last > self.caution.patience_s:
            doubt = self._open[where] = Doubt(reading, at, at)
        doubt.last = at
        doubt.looks += 1
        doubt.missed *= 1.0 - min(certainty, MOST_FROM_ONE)
        doubt.details.update(details)
        return doubt

    def settled(self, doubt: Doubt, *, explained: bool = False) -> bool:
        """Whether it is to be believed now."""
        return doubt.sure >= (self.caution.explained if explained else self.caution.settled)

    def clear(self, where: Hashable) -> None:
        """It was seen as it had been before."""
        self._open.pop(where, None)

    def parting(self, in_view: Callable[[Hashable], bool], at: int) -> Iterator[tuple[Hashable, Doubt]]:
        """Take out what has gone out of view and is sure enough; drop what was not looked at for too long."""
        for where, doubt in list(self._open.items()):
            if at - doubt.last > self.caution.patience_s:
                del self._open[where]
            elif doubt.last < at and not in_view(where) and doubt.sure >= self.caution.parting:
                del self._open[where]
                yield where, doubt
