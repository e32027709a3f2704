"""Which item is which over days, and where each was.

Perception reads names; two things may have the same name. What tells them apart is exclusivity (one thing is in one
place at a time, so two seen at once are two) and continuity (a thing stays where it is until its place is seen empty).
A thing that turns up elsewhere is taken for the one of that name that could have come there; should the old place turn
out to be still occupied, it was another one, and the history that was written to the wrong one is handed over.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..records import Cell
from .geography import GONE, ME, near
from .stays import Life, Stay

LOOK_BACK = 4
"""Stays back in which an item may turn out never to have left."""
AT_ONCE_STEPS = 3
CELLS_A_STEP = 3
"""People walk so fast: a thing seen so near within AT_ONCE_STEPS is the same one."""
TAKEN_WITHIN_S = 2 * 3600
"""Who was seen to take a thing is taken to have put it where it turns up within this time."""


@dataclass(frozen=True, slots=True)
class Seen:
    """An item as a record says it was seen."""

    name: str
    cell: Cell
    place: str
    first: int
    last: int
    seq: int
    carrier: str = ""
    by: str | None = None
    sure: float = 1.0
    step_s: int = 60
    clear: int | None = None
    """When the cell was last seen without it."""
    missing: tuple[Cell, ...] = ()
    """Cells on which one of its name was believed to be, and was not, at the same time."""


class Objects:
    """All items, by id and by name."""

    def __init__(self) -> None:
        self._items: dict[str, Life] = {}
        self._by_name: dict[str, list[str]] = {}

    # ---------------------------------------------------------------- reading

    @property
    def items(self) -> dict[str, Life]:
        """Every item by its id, in the order of discovery."""
        return self._items

    def named(self, name: str) -> list[Life]:
        """The items of one name (or the one of this id), in the order of discovery."""
        if name in self._items:
            return [self._items[name]]
        return [self._items[id_] for id_ in self._by_name.get(name, ())]

    @property
    def names(self) -> tuple[str, ...]:
        """Names that items have, in the order of discovery."""
        return tuple(self._by_name)

    def at_cell(self, cell: Cell) -> list[Life]:
        """Items that are believed to lie on a cell (not carried)."""
        return [
            item
            for item in self._items.values()
            if (s := item.now) and s.cell == cell and s.gone is None and not s.carrier
        ]

    def believed(self) -> Iterator[tuple[Life, Stay]]:
        """Items with the stay that still holds, as far as is known."""
        for item in self._items.values():
            if item.now is not None and item.now.gone is None:
                yield item, item.now

    def unverified(self) -> Iterator[tuple[Life, Stay]]:
        """Items with the last earlier stay on a cell that they seem to have left, though nobody saw the cell empty."""
        for item in self._items.values():
            at = _left_unseen(item)
            if at is not None:
                yield item, item.stays[at]

    @property
    def held(self) -> Life | None:
        """What the agent holds."""
        return next((item for item, stay in self.believed() if stay.value == ME), None)

    # ---------------------------------------------------------------- writing

    def see(self, seen: Seen, at_once: Iterable[Cell] = (), *, several: bool = False) -> Life:
        """An item was seen.

        Args:
            seen: where, when, and by whom it was brought.
            at_once: cells on which an item of the same name was seen at the same time.
            several: whether there may well be another one of this name.
        """
        others = set(at_once) - {seen.cell}
        here = self._staying(seen)
        if here is not None:
            assert here.now is not None
            here.now.gone = here.now.taken_by = None
            here.now.see(max(seen.first, here.now.first), seen.last, seen.seq)
            here.now.cell = seen.cell
            return here
        returned = self._never_left(seen, others, several)
        if returned is not None:
            return returned
        item, known = self._mover(seen, others), self.named(seen.name)
        if item is None and len(known) == 1 and not several and not others:
            return known[0]  # old news of the only one
        if item is None or (several and self._is_another(item, seen)):
            item = self._new(seen.name)
        self._move(item, seen)
        return item

    def gone(
        self, name: str, cell: Cell, last: int, since: int, seq: int, near: str | None, *, sure: float = 1.0
    ) -> None:
        """A cell on which ``name`` was believed (or had been) was seen without it.

        Args:
            name: the name.
            cell: the cell.
            last: when it was last seen there.
            since: when it was first seen not to be.
            seq: the record that says so.
            near: the one person who stood beside it then.
            sure: how sure that is, from 0 to 1.
        """
        for item in self.named(name):
            for stay in item.stays[-LOOK_BACK:]:
                if stay.cell == cell and stay.gone is None and stay.value != ME:
                    stay.last = max(stay.last, min(last, since))
                    stay.gone, stay.gone_sure = since, sure
                    stay.taken_by = near
                    stay.note(seq)

    def take(
        self, item: Life, place: str, at: int, seq: int, *, by: str, cell: Cell | None = None, carrier: str = ""
    ) -> None:
        """The agent itself put an item somewhere: into its own gripper (``me``), away (``gone``), to a person."""
        now = item.now
        if now is not None and now.gone is None:
            if now.carrier == ME:
                now.see(now.last, at, seq)
            now.gone, now.taken_by = max(at, now.last), by
        carrier = ME if place == ME else carrier
        item.stays.append(Stay(place, at, at, cell, carrier, [seq], by, at, True))

    def confirm(self, name: str, cell: Cell, carrier: str, runs: Sequence[Sequence[int]], seq: int, times: int) -> None:
        """An item was seen where it was believed to be, in stretches ``[first, last]``."""
        for item in self.named(name):
            now = item.now
            if now is None or now.gone is not None or now.carrier != carrier:
                continue
            if carrier or now.cell == cell:
                now.see_runs(runs, seq, times)
                now.cell = cell

    # ---------------------------------------------------------------- inside

    def _staying(self, seen: Seen) -> Life | None:
        """The item that is there already."""
        for item in self.named(seen.name):
            now = item.now
            if now is None or (now.gone is not None and not _was_misread(now, seen)):
                continue
            if now.carrier == seen.carrier and (seen.carrier or now.cell == seen.cell):
                return item
        return None

    def _never_left(self, seen: Seen, others: set[Cell], several: bool) -> Life | None:
        """An item believed to have moved on is still here: what was seen elsewhere was another one of its name."""
        for item in self.named(seen.name):
            at = _left_unseen(item)
            if at is None or item.stays[at].cell != seen.cell or item.stays[at].value != seen.place:
                continue
            old, tail = item.stays[at], item.stays[at + 1 :]
            known_twins = several or len(self.named(seen.name)) > 1 or tail[-1].cell in others
            if not known_twins or ME in (stay.by for stay in tail) or _carried_off(old, tail, seen):
                continue
            owner = self._owner_of(item, tail)
            if owner is None:
                continue  # three would be needed: rather it was away and came back
            del item.stays[at + 1 :]
            place = sum(stay.first < tail[0].first for stay in owner.stays)
            owner.stays[place:place] = tail
            old.see(seen.last, seen.last, seen.seq)
            return item
        return None

    def _owner_of(self, item: Life, tail: list[Stay]) -> Life | None:
        """Whose history ``tail`` is if not that of ``item``: of one of its name that was nowhere else at the time.

        If ``item`` is the only one known, of a new one.
        """
        first, last = tail[0].first, max(stay.last for stay in tail)
        same = self.named(item.name)
        for other in same:
            if other is not item and all(stay.last < first or stay.first > last for stay in other.stays):
                return other
        return self._new(item.name) if len(same) == 1 else None

    def _mover(self, seen: Seen, others: set[Cell]) -> Life | None:
        """The item of that name that can have come here: not one that was seen elsewhere at the time."""
        free: list[tuple[tuple[Any, ...], Life]] = []
        for order, item in enumerate(self.named(seen.name)):
            now = item.now
            if now is None:
                continue
            if now.value == GONE and now.by is not None:
                continue
            if now.gone is None and (now.cell in others or now.last >= seen.first):
                continue
            carried = bool(seen.by) and (now.value == seen.by or now.taken_by == seen.by)
            shifted = now.value == seen.place and not now.carrier
            resting = now.gone is None and not now.carrier
            rank = (not carried, now.cell not in seen.missing, not shifted, resting)
            free.append(((*rank, now.last if now.gone is None else -now.last, order), item))
        return min(free, key=lambda pair: pair[0])[1] if free else None

    def _is_another(self, only: Life, seen: Seen) -> bool:
        """Whether this is rather the second of its name than the first, which nobody saw leave its place."""
        now = only.now
        if len(self.named(seen.name)) > 1 or now is None or now.gone is not None or now.carrier or now.cell is None:
            return False
        steps = (seen.first - now.last) // max(1, seen.step_s)
        came = steps <= AT_ONCE_STEPS and near(seen.cell, now.cell, CELLS_A_STEP * (steps + 1))
        return not came

    def _move(self, item: Life, seen: Seen) -> None:
        now = item.now
        by, since = seen.by, seen.clear
        if now is not None:
            since = now.last if since is None else max(now.last, min(since, seen.first))
            if by is None and now.carrier:
                by = now.carrier
            if by is None and now.taken_by and seen.first - now.last <= TAKEN_WITHIN_S:
                by = now.taken_by
        witnessed = now is not None and since is not None and seen.first - since <= 2 * seen.step_s
        item.stays.append(
            Stay(
                seen.place,
                seen.first,
                seen.last,
                seen.cell,
                seen.carrier,
                [seen.seq],
                by,
                since,
                witnessed,
                sure=seen.sure,
            )
        )

    def _new(self, name: str) -> Life:
        ids = self._by_name.setdefault(name, [])
        item = Life(f"{name}#{len(ids) + 1}", name)
        ids.append(item.id)
        self._items[item.id] = item
        return item

    # ------------------------------------------------------------------ state

    def to_state(self) -> list[Any]:
        """Everything as JSON values, items in the order of discovery."""
        return [item.to_state() for item in self._items.values()]

    @classmethod
    def from_state(cls, state: list[Any]) -> Objects:
        """The items that `to_state` described."""
        new = cls()
        for one in state:
            item = Life.from_state(one)
            new._items[item.id] = item
            new._by_name.setdefault(item.name, []).append(item.id)
        return new


def _left_unseen(item: Life) -> int | None:
    """Number of the newest earlier stay whose cell was never seen without the item; None if there is none."""
    for at in range(len(item.stays) - 2, max(-1, len(item.stays) - 1 - LOOK_BACK), -1):
        stay = item.stays[at]
        if stay.gone is None and stay.cell is not None and not stay.carrier:
            return at
    return None


def _carried_off(old: Stay, tail: Sequence[Stay], seen: Seen) -> bool:
    """Whether somebody may have carried an item away and back so fast that nobody saw its place empty."""
    carried, cell = tail[0], old.cell
    if not carried.carrier or carried.cell is None or cell is None:
        return False
    away = (carried.first - old.last) // max(1, seen.step_s)
    back = (seen.first - tail[-1].last) // max(1, seen.step_s)
    steps = min(away, back)
    return steps <= AT_ONCE_STEPS and near(carried.cell, cell, CELLS_A_STEP * (steps + 1))


def _was_misread(stay: Stay, seen: Seen) -> bool:
    """Whether a thing that was found missing and is back was never away: nobody took it, or had the time."""
    assert stay.gone is not None
    return stay.taken_by in (None, stay.carrier) or seen.first - stay.gone <= AT_ONCE_STEPS * seen.step_s
