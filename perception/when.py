"""Time phrases in English text: where they stand and which span of time they mean.

This module knows clocks, days, parts of the day, ranges, and the calendar of one time zone (daylight saving included).
It does not know what the sentence is about. It is a small recursive-descent grammar of its own: `dateparser.search`,
which was tried first, answers with instants instead of spans and takes "may", "sun", "second" and "4711" for dates.

What a phrase means (documented choices where English is vague)
    at 9, at 9:30, at 21:05:10   the minute (with seconds: the second) that begins then; `When.grain` says how coarse it
                                 was said and `When.padded` widens it accordingly. Without am, pm, a part of the day or
                                 a leading zero, 1 to 5 mean the afternoon; everything else is read on the 24-hour clock
    morning 06-12, afternoon 12-18, evening 18-24, night 22-06 of the next day, tonight 18-06, noon, midnight: instants
    Tuesday                      the nearest one before today (``prefer="past"``) or after today, never today itself
    two hours ago, 3 days ago    one unit around that instant; from days on, the calendar day, week, month or year
    before, until, after, since  one side open; "until Tuesday" includes Tuesday, "after Tuesday" starts on Wednesday
    3/11/2026                    month first in the zones of America, else day first
Recurring times ("every Friday", "on Mondays") and positions in a video ("at 0:05", "second 5") are not spans of time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from ..errors import BadInput
from ..records import Interval
from .when_grammar import PARTS, Clock, Grain, Grammar, Moment, Phrase, Prefer

__all__ = ["Grain", "Prefer", "When", "find_when"]

_PADDING = {"second": timedelta(seconds=5), "minute": timedelta(minutes=5), "hour": timedelta(minutes=30)}


@dataclass(frozen=True, slots=True)
class When:
    """One time phrase: ``text[start_char:end_char] == phrase``, its preposition included."""

    interval: Interval
    """UTC, half-open."""
    start_char: int
    end_char: int
    phrase: str
    grain: Grain

    def padded(self) -> Interval:
        """The interval widened by what its grain leaves open (5 s, 5 min, 30 min), to find events near an instant."""
        pad = _PADDING.get(self.grain, timedelta(0))
        start, end = self.interval.start, self.interval.end
        return Interval(start - pad if start else None, end + pad if end else None)


def find_when(text: str, now: datetime, zone: ZoneInfo, prefer: Prefer = "past") -> tuple[When, ...]:
    """Every time phrase of an English text, in reading order, never overlapping.

    Args:
        text: anything; text in other languages simply has no phrases.
        now: aware; what "today" and "ago" are measured from.
        zone: where the speaker's clock hangs.
        prefer: whether "Tuesday" or "at 9" without a day is the nearest in the past or in the future.

    Returns:
        The phrases. A clock time without a day takes the day of the only other phrase that names one.

    Raises:
        BadInput: ``now`` is naive.
    """
    if now.tzinfo is None:
        raise BadInput(f"expected an aware datetime for now, got the naive {now!r}; add tzinfo")
    try:
        grammar = Grammar(text, now, zone, prefer)
    except OverflowError:  # the calendar of the zone ends where that of datetime does
        return ()
    found = grammar.phrases()
    days = {phrase.day for phrase in found if phrase.day}
    reader = _Reader(now.astimezone(UTC), grammar.today, zone, prefer, next(iter(days)) if len(days) == 1 else None)
    result = []
    for phrase in found:
        try:
            interval, grain = reader.span(phrase)
        except (OverflowError, ValueError):
            continue
        begin, stop = grammar.tokens[phrase.begin].start, grammar.tokens[phrase.stop - 1].end
        result.append(When(interval, begin, stop, text[begin:stop], grain))
    return tuple(result)


@dataclass(frozen=True, slots=True)
class _Reader:
    """Turns phrases into spans of UTC."""

    now: datetime
    today: date
    zone: ZoneInfo
    prefer: Prefer
    lent: tuple[date, date] | None
    """The day for phrases that name none."""

    def span(self, phrase: Phrase) -> tuple[Interval, Grain]:
        first, last = phrase.first, phrase.last
        if last is not None:
            return self.between(first, last), "span"
        start, end = self.spread(first, first.day or self.lent)
        # "yesterday after 9" ends with yesterday
        named = first.day if first.clock and first.grain == "day" else None
        opening, closing = (self.local(named[0], 0), self.local(named[1], 0)) if named else (None, None)
        instant = first.clock is not None or (first.fixed is not None and first.grain in ("second", "minute", "hour"))
        interval = {
            "at": Interval(start, end),
            "before": Interval(opening, start),
            "until": Interval(opening, start if instant else end),
            "after": Interval(start if instant else end, closing),
            "since": Interval(start, None),
        }[phrase.relation]
        if phrase.relation != "at":
            return interval, "span"
        return interval, first.clock.grain if first.clock else "part" if first.part else first.grain

    def between(self, first: Moment, last: Moment) -> Interval:
        if first.clock and last.clock and first.clock.loose and last.clock.noon and first.clock.hour < 12:
            first = replace(first, clock=replace(first.clock, hour=first.clock.hour + last.clock.noon, loose=False))
        day = first.day or last.day or self.lent
        start = self.spread(first, day)[0]
        if day is None and last.clock:
            today = start.astimezone(self.zone).date()
            day = (today, today + timedelta(days=1))
        end = self.spread(last, last.day or day)[0 if last.clock or last.fixed else 1]
        if end <= start and last.clock and last.clock.loose:
            end += timedelta(hours=12)
        if end <= start and last.clock and last.day is None and day:
            end = self.local(day[0] + timedelta(days=1), last.clock.hour, last.clock.minute)
        if end <= start:
            raise ValueError("ends before it begins")
        return Interval(start, end)

    def local(self, day: date, hour: int, minute: int = 0, second: int = 0) -> datetime:
        """A wall-clock time of the zone as UTC; hours from 24 on belong to the next day."""
        day += timedelta(days=hour // 24)
        return datetime.combine(day, time(hour % 24, minute, second), self.zone).astimezone(UTC)

    def spread(self, moment: Moment, day: tuple[date, date] | None) -> tuple[datetime, datetime]:
        if moment.fixed:
            return moment.fixed
        if moment.clock:
            start, end = self.clock_span(moment.clock, moment.part, day)
            pad = timedelta(minutes=30) if moment.around else timedelta(0)
            return start - pad, end + pad
        if moment.part:
            first, last = PARTS[moment.part]
            chosen = day[0] if day else self.recent(first, last)
            return self.local(chosen, first), self.local(chosen, last)
        assert day is not None, "a moment without clock and part has a day"
        return self.local(day[0], 0), self.local(day[1], 0)

    def recent(self, first: int, last: int) -> date:
        """The nearest day whose hours [first, last) have begun (past) or have not ended (future)."""
        if self.prefer == "past":
            return self.today if self.local(self.today, first) <= self.now else self.today - timedelta(days=1)
        return self.today if self.local(self.today, last) > self.now else self.today + timedelta(days=1)

    def clock_span(self, clock: Clock, part: str | None, day: tuple[date, date] | None) -> tuple[datetime, datetime]:
        hour = clock.hour
        if (
            clock.loose
            and hour < 12
            and (part in ("afternoon", "evening") or (part in ("night", "tonight") and hour >= 6))
        ):
            hour += 12
        elif part in ("night", "tonight") and (hour < 6 or (hour == 12 and clock.loose)):
            hour = hour % 12 + 24
        elif part is None and clock.loose and 1 <= hour <= 5:
            hour += 12
        if day:
            start = self.local(day[0], hour, clock.minute, clock.second)
        else:
            start = self.local(self.today, hour, clock.minute, clock.second)
            step = -1 if self.prefer == "past" else 1
            if (start - self.now) * step < timedelta(0):
                start = self.local(self.today + timedelta(days=step), hour, clock.minute, clock.second)
        return start, start + (timedelta(seconds=1) if clock.grain == "second" else timedelta(minutes=1))
