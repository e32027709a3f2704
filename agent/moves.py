"""Changes as people speak of them: who carries a thing from one place to another has moved it once.

It joins what a world model lists step by step (taken, carried, put down), and matches changes with what a question
speaks of. It asks no model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from ..records import Change, Interval
from .queries import Happening

GONE = "gone"
ME = "me"


@dataclass(frozen=True, slots=True)
class Happened:
    """A change as people speak of it; ``change`` spans all of it."""

    change: Change
    came: Change
    """Its last step: when the new place or state was there."""

    @property
    def width(self) -> timedelta:
        """How far apart the looks are between which the new place or state came."""
        return self.came.latest - self.came.earliest

    @property
    def moment(self) -> Interval:
        """When it was, as exactly as is known."""
        if self.came.witnessed:
            return Interval(self.came.latest, self.came.latest)
        return Interval(self.came.earliest, self.came.latest)

    def inside(self, within: Interval | None, slack: timedelta = timedelta(minutes=2)) -> bool:
        """Whether all of it lies in a span."""
        if within is None:
            return True
        return (within.start is None or self.change.earliest >= within.start - slack) and (
            within.end is None or self.change.latest <= within.end + slack
        )


def joined(changes: Iterable[Change], is_person: Callable[[str], bool]) -> list[Happened]:
    """Changes with the steps of each move joined, oldest first.

    Args:
        changes: of any kind and thing, oldest first.
        is_person: whether a place is somebody (or ``me``) who carries.
    """
    found: list[Happened] = []
    carried: dict[str, Change] = {}
    for change in changes:
        if change.kind != "moved":
            found.append(Happened(change, change))
            continue
        first = carried.pop(change.thing, None)
        if change.new is None or is_person(change.new):
            carried[change.thing] = _and(first, change) if first else change
            continue
        whole = _and(first, change) if first else change
        if whole.old != whole.new:
            found.append(Happened(whole, change))
    # what is still carried, or was taken by somebody unseen, has been moved too
    found += [Happened(change, change) for change in carried.values()]
    return sorted(found, key=lambda h: (h.change.latest, h.change.earliest))


def _and(first: Change, then: Change) -> Change:
    carrier = first.new if first.new not in (None, GONE) else None
    by = first.by or carrier or then.by
    return replace(
        then,
        old=first.old,
        earliest=first.earliest,
        by=by or then.by,
        witnessed=first.witnessed or then.witnessed,
        evidence=tuple(dict.fromkeys((*first.evidence, *then.evidence))),
    )


def fits(happened: Happened, asked: Happening, same: Callable[[str, str], bool]) -> bool:
    """Whether a change is what a question speaks of, as far as it says.

    Args:
        happened: what is known.
        asked: what is spoken of, in names of the world.
        same: whether a place of the world is what was named (a room names all that is in it).
    """
    change = happened.change
    if change.kind != asked.kind:
        return False
    if asked.thing is not None and asked.thing not in (change.thing, change.thing.partition("#")[0]):
        return False
    if asked.state is not None and asked.state != change.new:
        return False
    if asked.by is not None and asked.by != change.by:
        return False
    if asked.kind == "entered":
        return change.old in (GONE, None) if asked.place is None else change.new == asked.place
    if asked.kind == "left":
        return change.new in (GONE, None) if asked.place is None else change.old == asked.place
    if asked.place is not None and (change.new is None or not same(asked.place, change.new)):
        return False
    return asked.origin is None or (change.old is not None and same(asked.origin, change.old))


def nearest(found: Sequence[Happened], at: datetime) -> Happened:
    """The change nearest to a moment; of equals the one that is known best."""

    def away(happened: Happened) -> tuple[timedelta, timedelta]:
        early, late = happened.came.earliest, happened.came.latest
        far = early - at if at < early else at - late if at > late else timedelta(0)
        return far, late - early

    return min(found, key=away)
