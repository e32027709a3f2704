"""What a gappy stream of observations says for and against one state bringing about another.

It knows changes of fixtures with the bracket in which each happened, own acts, and when each fixture was in view. It
knows no graph: `causes` decides which edges to believe.

When a fixture A enters state a, that is an *exposure*: if A=a brings about B=b after m to M minutes, then B should take
b within that window, provided it was not in b already and A stayed in a until then. B was looked at now and then only,
so each exposure ends as one of

    event      B was seen to have become b, in a bracket of lags [low, high] after the exposure
    no event   B was still not b at lag ``low``, and nothing is known after that (out of view, A changed, somebody or
               the agent changed B by hand)

and is worth log P(outcome | edge) - log P(outcome | chance), summed over all exposures. Chance is the rate at which B
takes b in any minute. All times are minutes since the epoch; a discrete minute counts as one.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..records import Change

ME = "me"
Key = tuple[str, str]
"""A fixture and a state that it enters."""
Floats = NDArray[np.float64]

LONGEST_LAG = 36
"""Minutes after which an effect is no longer looked for."""
_LEFT_ALONE = 8.0
_GONE_BY = 0.5  # weight of "nothing happened" if that was only seen when the cause had left again
_STILL = LONGEST_LAG + 24
"""Minutes after a cause in which an effect that is still not there is taken never to have been."""
WIDEST = 20.0
"""Minutes: a cause whose time is known less well than this tells nothing."""
_WINDOWS = [(m, m + width) for width in (1, 2, 3, 5) for m in range(0, LONGEST_LAG - width)]
WINDOWS = np.array(_WINDOWS, np.float64)
"""[W, 2]: shortest and longest lag of every window that is tried, in minutes."""
_QS = np.array([0.97, 0.85])  # chances that a mechanism works, as far as is supposed
_PRECISE = 12.0


class Turn(NamedTuple):
    """One change of one fixture."""

    low: float
    """Last minute in which it was seen in its old state ..."""
    high: float
    """... and first in which it was seen in the new one: it happened after low, by high."""
    old: str
    new: str
    by: str | None
    """A person that stood beside, ``me``, None."""
    seqs: tuple[int, ...]


class Outcome(NamedTuple):
    """How one exposure ended."""

    event: bool
    low: float
    """Lags in minutes: of an event its bracket; else ``low`` is up to when nothing had happened."""
    high: float
    own: bool
    """The cause was the agent's own act: an intervention."""
    seqs: tuple[int, ...]
    at: float
    """When the exposure was."""
    effect: Turn | None
    """The change that followed."""
    chance: float
    """Probability that it came by itself in that bracket."""
    weight: float
    """How much it counts, from 0 to 1."""


@dataclass
class Timeline:
    """All that was seen of one fixture."""

    turns: list[Turn] = field(default_factory=list)
    seen: list[tuple[float, float]] = field(default_factory=list)
    """Stretches in which it was in view, oldest first."""

    def __post_init__(self) -> None:
        self.turns.sort(key=lambda turn: (turn.high, turn.low))
        self._highs = [turn.high for turn in self.turns]
        self._starts = [start for start, _ in self.seen]

    def next_turn(self, after: float) -> Turn | None:
        """The first change that was complete after a time."""
        index = bisect_right(self._highs, after)
        return self.turns[index] if index < len(self.turns) else None

    def last_seen_within(self, start: float, end: float) -> float | None:
        """The newest minute in [start, end] in which it was in view."""
        index = bisect_right(self._starts, end) - 1
        if index < 0:
            return None
        newest = min(self.seen[index][1], end)
        return newest if newest >= start else None

    def minutes_seen(self) -> float:
        """How long it was in view."""
        return sum(end - start + 1 for start, end in self.seen)


def timelines(
    changes: Iterable[Change],
    acts: Iterable[tuple[datetime, str, int]],
    coverage: Mapping[str, Sequence[tuple[datetime, datetime]]],
) -> dict[str, Timeline]:
    """Timelines of all fixtures.

    Args:
        changes: of kind ``state``; others are passed over.
        acts: the agent's own uses of fixtures: time, fixture, seq of the record.
        coverage: when each fixture's state was in view; changes alone say little about what did not happen.
    """
    uses: dict[str, list[float]] = {}
    for at, thing, _ in acts:
        uses.setdefault(thing, []).append(_minute(at))
    turns: dict[str, list[Turn]] = {}
    for change in changes:
        if change.kind != "state" or not change.old or not change.new or change.old == change.new:
            continue
        low, high, by = _minute(change.earliest), _minute(change.latest), change.by
        own = sorted(at for at in uses.get(change.thing, ()) if low < at <= high)
        if own and by in (None, ME):
            low, high, by = own[-1] - 1, own[-1], ME
        turns.setdefault(change.thing, []).append(
            Turn(low, max(low, high), change.old, change.new, by, change.evidence)
        )
    found = {}
    for name in sorted(set(turns) | set(coverage)):
        seen = [(_minute(start), _minute(end)) for start, end in coverage.get(name, ())]
        seen += [(minute, minute) for turn in turns.get(name, ()) for minute in (turn.low, turn.high)]
        found[name] = Timeline(turns.get(name, []), _merged(seen))
    return found


def _minute(moment: datetime) -> float:
    return moment.timestamp() / 60


def _merged(stretches: list[tuple[float, float]]) -> list[tuple[float, float]]:
    merged: list[tuple[float, float]] = []
    for start, end in sorted(stretches):
        if merged and start <= merged[-1][1] + 1.01:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return merged


class Evidence:
    """Exposures and their outcomes, for any pair of states."""

    def __init__(self, lines: Mapping[str, Timeline]) -> None:
        self.lines = lines
        self.exposures: dict[Key, list[Turn]] = {}
        for name, line in lines.items():
            for turn in line.turns:
                if turn.high - turn.low <= WIDEST:
                    self.exposures.setdefault((name, turn.new), []).append(turn)
        self.entered: list[Key] = sorted({(name, turn.new) for name, line in lines.items() for turn in line.turns})
        """Every state that a fixture was seen to enter."""
        self._busy = self._profile()
        self.rates = {key: self._rate(*key) for key in self.entered}
        """How often each state is entered by chance (by people, unseen), per minute of an average hour."""

    def _profile(self) -> Floats:
        """How busy each hour of the day is, [24], mean 1: at night nobody turns anything on."""
        count = np.full(24, 0.5)
        for line in self.lines.values():
            for turn in line.turns:
                if turn.by != ME and turn.high - turn.low <= 180:
                    for minute in np.linspace(turn.low, turn.high, 5):
                        count[int(minute // 60) % 24] += 0.2
        smooth = (np.roll(count, 1) + 2 * count + np.roll(count, -1)) / 4
        return np.asarray(smooth / smooth.mean())

    def _chance(self, effect: Key, low: float, high: float) -> float:
        """Probability that a state is entered by itself in (low, high]."""
        hours = np.arange(np.floor(low / 60), np.floor(high / 60) + 1)
        shares = np.minimum((hours + 1) * 60, high) - np.maximum(hours * 60, low)
        busy = float((self._busy[hours.astype(int) % 24] * shares).sum())
        return float(np.clip(1 - np.exp(-self.rates[effect] * max(1.0, busy)), 1e-5, 0.95))

    def _rate(self, name: str, state: str) -> float:
        line = self.lines[name]
        turns = [turn for turn in line.turns if turn.new == state and turn.by != ME]
        first = min((turn.low for turn in line.turns), default=0.0)
        last = max((turn.high for turn in line.turns), default=0.0)
        for start, end in line.seen:
            first, last = min(first, start), max(last, end)
        inside = sum(
            ((after.low + after.high) / 2 if after else last) - (turn.low + turn.high) / 2
            for turn, after in zip(line.turns, [*line.turns[1:], None], strict=True)
            if turn.new == state
        )
        return (len(turns) + 0.5) / max(30.0, last - first - inside)

    def trials(self, cause: Key) -> int:
        """How often the agent itself brought a state about and left it long enough to see what follows."""
        line, count = self.lines[cause[0]], 0
        for turn in self.exposures.get(cause, ()):
            after = line.next_turn(turn.high)
            count += turn.by == ME and (after is None or after.low - turn.high >= _LEFT_ALONE)
        return count

    def outcomes(self, cause: Key, effect: Key) -> list[Outcome]:
        """How every exposure of ``effect`` to ``cause`` ended; those that tell nothing are left out."""
        found: list[Outcome] = []
        counted: set[Turn] = set()
        line, itself = self.lines[effect[0]], cause[0] == effect[0]
        for turn in self.exposures.get(cause, ()):
            outcome = self._outcome(turn, cause, effect, line, itself)
            if outcome is None or outcome.effect in counted:
                continue  # one change speaks for an edge once, however often the cause came while nobody looked
            if outcome.effect is not None:
                counted.add(outcome.effect)
            found.append(outcome)
        return found

    def _outcome(self, turn: Turn, cause: Key, effect: Key, line: Timeline, itself: bool) -> Outcome | None:
        after = line.next_turn(turn.high if itself else turn.low + 0.5)
        if not itself:
            state = after.old if after is not None else line.turns[-1].new
            if state == effect[1]:
                return None
        left = None if itself else self.lines[cause[0]].next_turn(turn.high)
        own = turn.by == ME
        if after is not None and after.new == effect[1] and after.by is None:
            low, high = max(0.0, after.low + 1 - turn.high), after.high - turn.low - 1
            if left is not None:
                high = min(high, left.high - turn.low - 1)  # the cause must still have been there
            if low <= min(LONGEST_LAG, high):
                chance = self._chance(effect, after.low, after.high)
                seqs = (*turn.seqs, *after.seqs)
                return Outcome(True, low, high, own, seqs, turn.high, after, chance, 1.0)
        seen = line.last_seen_within(turn.high, min(after.low if after is not None else np.inf, turn.high + _STILL))
        if seen is None:
            return None
        until, weight = seen, 1.0
        if left is not None and seen > left.low:  # the effect may have come and gone with its cause
            until, weight = max(left.low, turn.high), _GONE_BY
        return Outcome(False, until - turn.high, np.inf, own, turn.seqs, turn.high, None, 0.0, weight)


class Score(NamedTuple):
    """How strongly outcomes speak for an edge."""

    total: float
    """Log likelihood ratio in nats, at the best window and strength."""
    own: float
    """The part of it that comes from the agent's own acts."""
    lag: tuple[float, float]
    strength: float
    yes: int
    no: int
    own_yes: int
    own_no: int
    precise: int
    """Successes whose lag is known within `_PRECISE` minutes."""


def score(outcomes: Sequence[Outcome], observed_weight: float = 1.0, turns: int = 0) -> Score | None:
    """The best edge that outcomes allow; None if no event is among them.

    Args:
        outcomes: of one pair.
        turns: how often the effect came in all; if the edge explains most of that, little is left to chance.
        observed_weight: how much an exposure counts that was not the agent's own act, from 0 to 1.
    """
    if not any(outcome.event for outcome in outcomes):
        return None
    low = np.array([o.low for o in outcomes])[:, None]
    high = np.array([o.high for o in outcomes])[:, None]
    event = np.array([o.event for o in outcomes])
    own = np.array([o.own for o in outcomes])
    start, end = WINDOWS[None, :, 0], WINDOWS[None, :, 1]
    width = end - start + 1
    passed = np.clip((np.where(event[:, None], low - 1, low) - start + 1) / width, 0, 1)
    inside = np.clip((np.minimum(end, high) - np.maximum(start, low) + 1) / width, 0, 1)
    inside = np.where(event[:, None], inside, 0.0)
    chance = np.array([max(o.chance, 1e-5) for o in outcomes])[:, None]
    q = _QS[:, None, None]
    ratio = np.where(event[:, None], (q * inside + (1 - q * passed) * chance) / chance, 1 - q * passed)
    weight = np.where(own, 1.0, observed_weight) * np.array([o.weight for o in outcomes])
    logs = np.log(np.maximum(ratio, 1e-6)) * weight[None, :, None]
    explained = (q * inside / np.maximum(q * inside + (1 - q * passed) * chance, 1e-9) * weight[None, :, None]).sum(1)
    left = np.maximum(turns - explained, 0.0)
    rarer = explained + np.where(left > 0, left * np.log(np.maximum(left, 1e-9) / max(turns, 1)), 0.0)
    totals = (
        logs.sum(1) + np.where(explained <= turns, rarer, 0.0) - 0.15 * (width[0] - 2)
    )  # a narrow window that fits as well says more
    best = np.unravel_index(int(totals.argmax()), totals.shape)
    strength, window = float(_QS[best[0]]), int(best[1])
    each, fits = logs[best[0], :, window], inside[:, window] > 0
    counts = passed[:, window] > 0.9
    yes, no = event & fits, ~(event & fits) & counts
    lag = (float(WINDOWS[window, 0]), float(WINDOWS[window, 1]))
    precise = yes & ((high - low)[:, 0] <= _PRECISE)
    surely = np.array([o.weight == 1.0 for o in outcomes])
    tallies = [int(x.sum()) for x in (yes, no, yes & own, no & own & surely, precise)]
    return Score(float(totals[best]), float(each[own].sum()), lag, strength, *tallies)
