"""What is usual: where things mostly are by part of day and weekday, when people mostly come, go and do things.

Made of the stays and changes that are still known, and of the counts of those that were summed up. A habit is a share
of observed time or a middle of observed times, never a rule.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta, tzinfo
from statistics import median
from zoneinfo import ZoneInfo

from ..records import Change, Estimate, Statement
from .fold import PAST_SLICE_S
from .geography import GONE, ME
from .queries import Queries, moment
from .stays import Life

PARTS: dict[str, tuple[int, int]] = {"morning": (6, 12), "afternoon": (12, 18), "evening": (18, 24), "night": (22, 30)}
"""Hours of each part of the day, as questions mean them; a night ends in the next morning."""
WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
LEAST_DAYS = 2
"""On fewer days nothing is usual."""
LEAST_SHARE = 0.5
_SLICE_S = 1800


class Habits(Queries):
    """What is usual, of a model that knows the past."""

    zone: tzinfo = ZoneInfo("UTC")

    def usual_place(self, thing: str, part_of_day: str | None = None, weekday: str | None = None) -> Estimate:
        """Where a thing mostly is.

        Args:
            thing: an item or a person.
            part_of_day: ``morning``, ``afternoon``, ``evening`` or ``night``; None for all day.
            weekday: ``monday`` ..., ``weekday`` or ``weekend``; None for all.

        Returns:
            ``value`` is the place with the largest share of the time in which the thing's place was known, on two days
            or more; None if there is none. Confidence is that share, less where few days are known.
        """
        lives = self.lives(thing)
        if not lives:
            return Estimate(None, f"never seen: {thing}")
        spent: dict[str, float] = {}
        days: dict[str, set[int]] = {}
        seqs: dict[str, list[int]] = {}
        for life in lives:
            for place, at, length, evidence in self._slices(life):
                if not self._fits(at, part_of_day, weekday):
                    continue
                spent[place] = spent.get(place, 0.0) + length
                days.setdefault(place, set()).add(moment(at).astimezone(self.zone).toordinal())
                seqs.setdefault(place, []).extend(evidence)
        spent = {place: time for place, time in spent.items() if place not in (ME, GONE)}
        when = " ".join(filter(None, (weekday, part_of_day)))
        if not spent:
            return Estimate(None, f"the place of {thing} was never known {when}".rstrip())
        best = max(sorted(spent), key=lambda place: spent[place])
        share, count = spent[best] / sum(spent.values()), len(days[best])
        shown = tuple(sorted(set(seqs[best])))
        reason = f"{best} in {share:.0%} of the time its place was known, on {count} days"
        if count < LEAST_DAYS:
            return Estimate(None, f"only {reason}", shown[-6:])
        return Estimate(best, reason, (*shown[:3], *shown[3:][-5:]), round(share * count / (count + 1), 3))

    def usual_time(self, person: str | None, kind: str, place: str | None = None, **which: str) -> Estimate:
        """At which time of day something mostly happens.

        Args:
            person: who enters or leaves, or who does it; None for anybody.
            kind: ``entered``, ``left``, ``moved`` or ``state``.
            place: room, place or state that it leads to (for ``left``: from); None for the home itself if ``kind`` is
                ``entered`` or ``left``.
            which: ``thing`` of the change, or a ``weekday`` (see `usual_place`).

        Returns:
            ``value`` is minutes after midnight in the owner's zone: the middle of the times seen, one a day.
        """
        weekday = which.pop("weekday", None)
        times: dict[int, tuple[int, int]] = {}
        for change in self.changes(kind=kind, person=person, thing=which.get("thing")):
            if not _leads(change, kind, place) or change.latest - change.earliest > timedelta(minutes=30):
                continue
            local = change.latest.astimezone(self.zone)
            if self._fits(int(local.timestamp()), None, weekday):
                times.setdefault(local.toordinal(), (local.hour * 60 + local.minute, change.evidence[-1]))
        if len(times) < LEAST_DAYS:
            return Estimate(None, f"seen on {len(times)} days only", tuple(seq for _, seq in times.values()))
        minutes = [minute for minute, _ in times.values()]
        middle = int(median(minutes))
        spread = median(abs(minute - middle) for minute in minutes)
        reason = f"about {middle // 60:02}:{middle % 60:02}, on {len(minutes)} days, half within {spread:.0f} minutes"
        evidence = tuple(sorted(seq for _, seq in times.values()))
        return Estimate(middle, reason, evidence, round(max(0.2, 0.95 - spread / 120), 3))

    def facts(self) -> list[Statement]:
        """Habits worth telling: for each item, where it mostly is in each part of the day."""
        found = []
        for name in sorted(self.fold.objects.names):
            if len(self.fold.objects.named(name)) > 1:
                continue
            for part in PARTS:
                usual = self.usual_place(name, part)
                if usual.value is not None and usual.confidence >= LEAST_SHARE:
                    found.append(Statement(name, f"usual location in the {part}", str(usual.value), functional=True))
        return found

    # ------------------------------------------------------------------- inside

    def _slices(self, life: Life) -> Iterator[tuple[str, int, float, list[int]]]:
        """(place, time, seconds, evidence) of the time in which the place was known, in half hours at most."""
        step = self.fold.step_s
        for stay in life.stays:
            at = stay.first
            while at <= stay.last:
                length = min(_SLICE_S - at % _SLICE_S, stay.last + step - at)
                yield stay.value, at, float(length), stay.seqs
                at += length
        for key, times in sorted(self.fold.past.get(life.name, {}).items()):
            place, _, start = key.rpartition("|")
            yield place, int(start) * PAST_SLICE_S, float(times), []

    def _fits(self, at: int, part: str | None, weekday: str | None) -> bool:
        local = moment(at).astimezone(self.zone)
        if part is not None:
            first, end = PARTS[part]
            if not (first <= local.hour < end or first <= local.hour + 24 < end):
                return False
        if weekday is None:
            return True
        number = local.weekday()
        return {"weekday": number < 5, "weekend": number >= 5}.get(weekday, WEEKDAYS[number] == weekday)


def _leads(change: Change, kind: str, place: str | None) -> bool:
    """Whether a change leads to ``place`` (leaving: from it)."""
    if kind == "entered":
        return change.old == GONE if place is None else change.new == place
    if kind == "left":
        return change.new == GONE if place is None else change.old == place
    return place is None or change.new == place
