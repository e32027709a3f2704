"""The grammar of English time phrases: from text to days, parts of the day and clock times, not yet spans of time.

`perdure.perception.when` says what each phrase means; this module only knows how one is written. The grammar is a
recursive descent over tokens: each rule takes a position and returns (value, next position) or None.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

Grain = Literal["second", "minute", "hour", "part", "day", "week", "month", "year", "span"]
Prefer = Literal["past", "future"]

# --- tokens -----------------------------------------------------------------------------------------------------------

_TOKEN = re.compile(
    r"(?P<iso>\d{4}-\d{2}-\d{2}(?:(?:T|\s)\d{1,2}:\d{2}(?::\d{2}(?:\.\d{1,6})?)?(?:\s?(?:Z|UTC)\b|[+-]\d{2}:?\d{2})?)?)"
    r"|(?P<date>\d{1,2}(?:\.\d{1,2}\.|/\d{1,2}/)\d{4})"
    r"|(?P<clock>\d{1,2}:\d{2}(?::\d{2})?)(?![\d:])"
    r"|(?P<num>\d+)(?P<suffix>st\b|nd\b|rd\b|th\b)?(?![\d.]*\.\d)"
    r"|(?P<meridiem>[ap]\.m\.)"
    r"|(?P<word>[^\W\d_]+(?:['][^\W\d_]+)*)"
    r"|(?P<other>\S)",
    re.IGNORECASE,
)
_TYPOGRAPHY = str.maketrans({"\u2019": "'", "\u2013": "-"})
_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_MONTH_NAMES = "january february march april may june july august september october november december"
_MONTHS = _MONTH_NAMES.split()
_MONTH = {name: i for i, name in enumerate(_MONTHS, 1)} | {name[:3]: i for i, name in enumerate(_MONTHS, 1)}
_MONTH["sept"] = 9
_WEEKDAY = {name: i for i, name in enumerate(_WEEKDAYS)}
_SHORT_WEEKDAY = {"mon": 0, "tue": 1, "tues": 1, "wed": 2, "thu": 3, "thurs": 3, "fri": 4, "sat": 5, "sun": 6}
_NUMBER_WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen twenty"
)
_NUMBER = {word: i for i, word in enumerate(_NUMBER_WORDS.split())} | {
    "thirty": 30,
    "forty": 40,
    "fifty": 50,
    "sixty": 60,
    "a": 1,
    "an": 1,
}
_UNIT = {
    "second": timedelta(seconds=1), "sec": timedelta(seconds=1), "minute": timedelta(minutes=1),
    "min": timedelta(minutes=1), "hour": timedelta(hours=1), "day": timedelta(days=1), "week": timedelta(weeks=1),
    "fortnight": timedelta(days=14), "month": timedelta(days=30), "year": timedelta(days=365),
}  # fmt: skip
_UNITS = {name + s: name for name in _UNIT for s in ("", "s")}
PARTS = {"morning": (6, 12), "afternoon": (12, 18), "evening": (18, 24), "night": (22, 30), "tonight": (18, 30)}
_OPEN = {"before": "before", "until": "until", "till": "until", "til": "until", "by": "before", "after": "after",
         "since": "since"}  # fmt: skip
RECURRING = {"every", "each", "most", "any", "no"}
RECURRENT_PLURAL = {*_WEEKDAYS, "weekday", "weekend", "morning", "afternoon", "evening", "night"}
RECURRENT = {*RECURRENT_PLURAL, *_MONTHS, "day", "week", "month", "year", "hour", "minute"}
_AFTER_BARE_HOUR = {
    "on", "in", "this", "last", "yesterday", "today", "tomorrow", "tonight", "and", "or", "but", "every", "sharp",
    "then", "when", "while", "o'clock", "the", "to", "until", "till", "for", "with", "by", "because", "so",
    "as", "again", "already", "exactly", "from", "after", "before", "i", "he", "she", "they", "we", "at",
}  # fmt: skip
_FILM = {"video", "clip", "film", "recording", "footage", "movie", "tape"}


@dataclass(frozen=True, slots=True)
class Token:
    kind: str
    low: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Clock:
    hour: int
    minute: int
    second: int
    grain: Grain
    loose: bool
    """True if nothing says whether it is before or after noon."""
    noon: int | None = None
    """Hours that a spoken am (0) or pm (12) added."""


@dataclass(frozen=True, slots=True)
class Moment:
    """A day (or week, month ...), a part of the day, a clock time, in any combination; or a span fixed in UTC."""

    day: tuple[date, date] | None = None
    grain: Grain = "day"
    part: str | None = None
    clock: Clock | None = None
    fixed: tuple[datetime, datetime] | None = None
    around: bool = False


@dataclass(frozen=True, slots=True)
class Phrase:
    relation: str
    """``at``, ``before``, ``until``, ``after``, ``since`` or ``between``."""
    first: Moment
    last: Moment | None
    begin: int
    stop: int
    """Tokens [begin, stop)."""

    @property
    def day(self) -> tuple[date, date] | None:
        one_day = self.first.day if self.first.day and self.first.grain == "day" else None
        return one_day or (self.last.day if self.last and self.last.grain == "day" else None)

    def refined_by(self, other: Phrase) -> Phrase | None:
        """One phrase for "on Tuesday evening" and a following "between 9 and 10", None if they do not fit."""
        mine, its = self.first, other.first
        if self.relation != "at" or self.day is None or mine.clock or its.day or its.part or its.clock is None:
            return None
        last = other.last and replace(other.last, part=other.last.part or mine.part)
        return Phrase(other.relation, replace(its, day=mine.day, part=mine.part), last, self.begin, other.stop)


# --- grammar ----------------------------------------------------------------------------------------------------------


class Grammar:
    """Recursive descent over the tokens of one text; each rule takes a position and returns (value, next) or None."""

    def __init__(self, text: str, now: datetime, zone: ZoneInfo, prefer: Prefer) -> None:
        self.text, self.now, self.zone, self.prefer = text, now.astimezone(UTC), zone, prefer
        self.today = now.astimezone(zone).date()
        self.tokens = [
            Token(m.lastgroup if m.lastgroup != "suffix" else "ordinal", m[0].lower(), m.start(), m.end())  # type: ignore[arg-type]
            for m in _TOKEN.finditer(text.translate(_TYPOGRAPHY))
        ]

    def phrases(self) -> list[Phrase]:
        """All phrases, left to right, the longest reading at each place; recurring times are passed over."""
        found: list[Phrase] = []
        i = 0
        while i < len(self.tokens):
            if (after := self.recurring(i)) > i:
                if found and found[-1].stop == i and found[-1].day is None and found[-1].first.fixed is None:
                    found.pop()  # "at 9 every Friday"
                while (phrase := self.try_phrase(after)) is not None:
                    after = phrase.stop
                i = after
                continue
            phrase = self.try_phrase(i)
            if phrase is None:
                i += 1
                continue
            i = phrase.stop
            if found and all(t.low == "," for t in self.tokens[found[-1].stop : phrase.begin]):
                whole = found[-1].refined_by(phrase)
                if whole is not None:
                    found[-1] = whole
                    continue
            found.append(phrase)
        return found

    def recurring(self, i: int) -> int:
        """The position after "every Friday", "each morning", "on Mondays", "daily"; ``i`` if there is none."""
        j = self.skip(i, "on", "in")
        if self.low(j) in RECURRING:
            named = self.low(j + 1).rstrip("s") in RECURRENT or self.low(j + 1) in ("other", "second", "single")
            return j + 2 + (self.low(j + 2) in RECURRENT) if named else i
        word = self.low(j)
        return j + 1 if word in ("daily", "weekly") or (word.endswith("s") and word[:-1] in RECURRENT_PLURAL) else i

    def try_phrase(self, i: int) -> Phrase | None:
        """The phrase that begins here; None also if it names a time that does not exist (31 April, year 99999)."""
        try:
            return self.phrase(i)
        except (OverflowError, ValueError):
            return None

    def low(self, i: int) -> str:
        return self.tokens[i].low if 0 <= i < len(self.tokens) else ""

    def kind(self, i: int) -> str:
        return self.tokens[i].kind if 0 <= i < len(self.tokens) else ""

    def skip(self, i: int, *words: str) -> int:
        """The position after one of these words, or ``i``."""
        return i + 1 if self.low(i) in words else i

    def phrase(self, i: int) -> Phrase | None:
        word = self.low(i)
        if word in ("between", "from"):
            return self.between(i)
        if word in _OPEN:
            hit = self.moment(self.skip(i + 1, "about", "around"), True)
            return Phrase(_OPEN[word], hit[0], None, i, hit[1]) if hit else None
        hit = self.moment(i, False)
        return Phrase("at", hit[0], None, i, hit[1]) if hit else None

    def between(self, i: int) -> Phrase | None:
        first = self.moment(i + 1, True)
        if first is None:
            return None
        joint = ("and",) if self.low(i) == "between" else ("to", "until", "till", "-")
        if self.low(first[1]) in joint:
            last = self.moment(first[1] + 1, True)
            return Phrase("between", first[0], last[0], i, last[1]) if last else None
        if self.low(i) == "from" and self.low(first[1]) in ("on", "onward", "onwards"):
            return Phrase("since", first[0], None, i, first[1] + 1)
        return None

    def moment(self, i: int, led: bool) -> tuple[Moment, int] | None:
        """Days, parts and clock times that follow each other. ``led``: a preposition that takes a time came before."""
        whole = Moment()
        place, found = i, False
        while True:
            hit = self.piece(place, whole, led and not found)
            if hit is None:
                return (whole, place) if found else None
            whole, place = hit
            found = True
            if whole.fixed:
                return whole, place

    def piece(self, i: int, so_far: Moment, led: bool) -> tuple[Moment, int] | None:
        empty = so_far == Moment()
        if empty and (span := self.span(i)):
            return span
        j = self.skip(i, ",") if not empty else i
        if so_far.clock is None and (clock := self.clock(j, led)):
            around = self.low(j) in ("around", "about")
            return replace(so_far, clock=clock[0], around=around), clock[1]
        if so_far.part is None and (part := self.part(j, so_far.day is not None)):
            return replace(so_far, part=part[0]), part[1]
        if so_far.day is None and (day := self.day(j, led or not empty)):
            moment, after = day
            return replace(moment, part=moment.part or so_far.part, clock=so_far.clock, around=so_far.around), after
        return None

    # clock times

    def clock(self, i: int, led: bool) -> tuple[Clock, int] | None:
        j = self.skip(i, "at", "around", "about")
        j = self.skip(j, "exactly", "around", "about") if j > i else j
        led = led or j > i
        hit = self.spoken_clock(j, led) if self.kind(j) == "word" else self.written_clock(j, led)
        if hit is None or any(self.low(hit[1] + k) in _FILM for k in range(4)):
            return None
        return hit

    def written_clock(self, i: int, led: bool) -> tuple[Clock, int] | None:
        if self.kind(i) not in ("clock", "num"):
            return None
        pieces = [int(p) for p in self.low(i).split(":")]
        if len(self.low(i)) > 8 or self.low(i).startswith("0:"):
            return None
        zero = self.low(i).startswith("0")
        hour, minute, second = ([*pieces, 0, 0])[:3]
        grain: Grain = ("hour", "minute", "second")[len(pieces) - 1]
        after, noon = self.meridiem(i + 1)
        if noon is None and len(pieces) == 1 and not (led and self.ends_bare_hour(i + 1)):
            return None
        if hour > 24 or minute > 59 or second > 59 or (noon is not None and not 1 <= hour <= 12):
            return None
        if noon is not None:
            hour = hour % 12 + noon
        return Clock(hour, minute, second, grain, noon is None and not zero and 1 <= hour <= 12, noon), after

    def meridiem(self, i: int) -> tuple[int, int | None]:
        """The position after am, pm or o'clock, and the hours that am (0) or pm (12) adds."""
        if self.low(i) in ("am", "a.m.", "pm", "p.m."):
            return i + 1, 12 if self.low(i)[0] == "p" else 0
        if self.low(i) == "o'clock":
            after, noon = self.meridiem(i + 1)
            return (after, noon) if noon is not None else (i + 1, None)
        return i, None

    def ends_bare_hour(self, i: int) -> bool:
        """Whether a number before this place can be an hour: "at 9 on Monday", but not "at 9 Elm Street"."""
        word = self.low(i)
        if self.kind(i) in ("", "other"):
            return word not in ("%", "°", "/", "€", "$", "£")
        return word in _AFTER_BARE_HOUR or word in _WEEKDAY or word in _MONTH or word in PARTS

    def spoken_clock(self, i: int, led: bool) -> tuple[Clock, int] | None:
        word = self.low(i)
        if word in ("noon", "midday", "midnight") and self.low(i - 1) not in RECURRING:
            return Clock(0 if word == "midnight" else 12, 0, 0, "hour", False), i + 1
        shift, j = 0, i
        if word == "half" and self.low(i + 1) == "past":
            shift, j = 30, i + 2
        elif word in ("quarter", "a") or word in _NUMBER:
            k = self.skip(i, "a") if word == "a" else i
            count = 15 if self.low(k) == "quarter" else _NUMBER.get(self.low(k), 0)
            if count and self.low(k + 1) in ("past", "to") and k + 2 < len(self.tokens):
                shift, j = (count if self.low(k + 1) == "past" else -count), k + 2
        hour = _NUMBER.get(self.low(j), int(self.low(j)) if self.kind(j) == "num" and len(self.low(j)) < 3 else 0)
        if self.low(j) in ("a", "an") or not 1 <= hour <= 12:
            return None
        after, noon = self.meridiem(j + 1)
        clear = shift != 0 or noon is not None or after > j + 1
        if not clear and not (led and self.ends_bare_hour(after)):
            return None
        minutes = ((hour % 12 + noon if noon is not None else hour) * 60 + shift) % 1440
        return Clock(minutes // 60, minutes % 60, 0, "minute" if shift else "hour", noon is None, noon), after

    # parts of the day

    def part(self, i: int, has_day: bool) -> tuple[str, int] | None:
        j = i
        if self.low(i) in ("in", "during", "at", "on"):
            j = self.skip(i + 1, "the")
        elif self.low(i) == "the" and self.low(i + 2) == "of":
            j = i + 1
        j = self.skip(j, "early", "late")
        word = self.low(j)
        if word not in ("morning", "afternoon", "evening", "night"):
            return None
        if has_day or j > i:
            return word, self.skip(j + 1, "of") if self.low(j + 1) == "of" and self.day(j + 2, True) else j + 1
        return None

    # days and longer

    def day(self, i: int, led: bool) -> tuple[Moment, int] | None:
        """A day, week, month or year of the calendar."""
        j = self.skip(i, "on", "in", "during", "of", "over", "at")
        led = led or j > i
        k = self.skip(j, "early", "late", "earlier", "later")
        if self.kind(k) == "date":
            return self.numeric_date(k)
        return self.relative_day(k) or self.weekday(k, led) or self.calendar_date(k, led) or self.days_ago(k)

    def relative_day(self, i: int) -> tuple[Moment, int] | None:
        word, after = self.low(i), self.low(i + 1)
        fixed = {"today": 0, "yesterday": -1, "tomorrow": 1}
        if word in fixed:
            return self.one_day(fixed[word]), i + 1
        k = self.skip(i, "the")
        if self.low(k) == "day" and self.low(k + 1) in ("before", "after"):
            wanted = {"before": ("yesterday", -2), "after": ("tomorrow", 2)}[self.low(k + 1)]
            return (self.one_day(wanted[1]), k + 3) if self.low(k + 2) == wanted[0] else None
        if word == "tonight":
            # Before six in the morning the night that is going on began yesterday.
            before_six = self.now.astimezone(self.zone).hour < 6
            return replace(self.one_day(-1 if before_six else 0), part="tonight"), i + 1
        if word in ("this", "last", "next") and after in ("morning", "afternoon", "evening", "night"):
            return replace(self.one_day({"this": 0, "last": -1, "next": 1}[word]), part=after), i + 2
        return self.relative_span(k)

    def relative_span(self, i: int) -> tuple[Moment, int] | None:
        """This, last or next week, weekend, month, year, weekday, month name."""
        step = {"this": 0, "last": -1, "past": -1, "previous": -1, "next": 1, "coming": 1}.get(self.low(i))
        name = self.low(i + 1)
        if name in ("weekend",) or (self.low(i) == "weekend" and self.low(i - 1) in ("the", "at")):
            return self.weekend(step), i + (2 if name == "weekend" else 1)
        if step is None:
            return None
        monday = self.today - timedelta(days=self.today.weekday())
        if name == "week":
            first = monday + timedelta(weeks=step)
            return Moment(day=(first, first + timedelta(weeks=1)), grain="week"), i + 2
        if name == "month":
            return self.month(self.today.year, self.today.month + step), i + 2
        if name == "year":
            return self.year(self.today.year + step), i + 2
        if name in _WEEKDAY or name in _SHORT_WEEKDAY:
            number = _WEEKDAY.get(name, _SHORT_WEEKDAY.get(name, 0))
            this = monday + timedelta(days=number)
            return (self.span_of_day(this) if step == 0 else self.nearest_weekday(number, step)), i + 2
        if name in _MONTH and self.low(i) in ("this", "last", "next"):
            return self.nearest_month(_MONTH[name], step), i + 2
        return None

    def weekend(self, step: int | None) -> Moment:
        saturday = self.today - timedelta(days=self.today.weekday() - 5)
        if step is None:
            step = -1 if self.prefer == "past" and saturday > self.today else 0
        first = saturday + timedelta(weeks=step)
        return Moment(day=(first, first + timedelta(days=2)), grain="span")

    def weekday(self, i: int, led: bool) -> tuple[Moment, int] | None:
        name = self.low(i)
        if name not in _WEEKDAY and not (led and name in _SHORT_WEEKDAY):
            return None
        number = _WEEKDAY.get(name, _SHORT_WEEKDAY.get(name, 0))
        dated = self.calendar_date(self.skip(i + 1, ","), True)  # "Tuesday, 3 November": the date decides
        if dated and self.low(i + 1) not in _OPEN and dated[0].grain == "day":
            return dated
        return self.nearest_weekday(number, -1 if self.prefer == "past" else 1), i + 1

    def calendar_date(self, i: int, led: bool) -> tuple[Moment, int] | None:
        """3 November 2026, 3rd of November, November 3rd, November 2026, November, the 3rd, 2026."""
        k = self.skip(i, "the")
        if self.kind(k) in ("num", "ordinal") and self.low(self.skip(k + 1, "of")) in _MONTH:
            j = self.skip(k + 1, "of")
            return self.dated(int(re.sub(r"\D", "", self.low(k))), _MONTH[self.low(j)], j + 1)
        name = self.low(i)
        if name in _MONTH:
            j = self.skip(i + 1, "the", ".")
            if self.kind(j) in ("num", "ordinal") and len(self.low(j)) <= 4 and not self.is_year(j):
                return self.dated(int(re.sub(r"\D", "", self.low(j))), _MONTH[name], j + 1)
            if self.is_year(j):
                return self.month(int(self.low(j)), _MONTH[name]), j + 1
            if led and len(name) > 2 and self.low(i - 1) != "on":
                return self.nearest_month(_MONTH[name], -1 if self.prefer == "past" else 0), i + 1
        if k > i and led and self.kind(k) == "ordinal" and self.kind(k + 1) in ("", "other"):
            return self.day_of_month(int(re.sub(r"\D", "", self.low(k)))), k + 1
        if led and self.is_year(i) and self.low(i - 1) in ("in", "since", "until", "till", "before", "after", "during"):
            return self.year(int(name)), i + 1
        return None

    def is_year(self, i: int) -> bool:
        return self.kind(i) == "num" and re.fullmatch(r"(19|20|21)\d\d", self.low(i)) is not None

    def dated(self, number: int, month: int, i: int) -> tuple[Moment, int] | None:
        j = self.skip(i, ",", ".")
        if self.is_year(j):
            return self.checked_day(int(self.low(j)), month, number, j + 1)
        step = -1 if self.prefer == "past" else 1
        for year in range(self.today.year, self.today.year + 9 * step, step):  # 29 February comes every 4 to 8 years
            hit = self.checked_day(year, month, number, i)
            if hit and hit[0].day and (hit[0].day[0] - self.today).days * step >= 0:
                return hit
        return None

    def checked_day(self, year: int, month: int, number: int, after: int) -> tuple[Moment, int] | None:
        try:
            return self.span_of_day(date(year, month, number)), after
        except (ValueError, OverflowError):
            return None

    def numeric_date(self, i: int) -> tuple[Moment, int] | None:
        one, two, year = (int(p) for p in re.split(r"[./]", self.low(i)))
        month_first = "/" in self.low(i) and (
            two > 12 or (one <= 12 and str(self.zone).startswith(("America/", "US/")))
        )
        day, month = (two, one) if month_first else (one, two)
        return self.checked_day(year, month, day, i + 1)

    def days_ago(self, i: int) -> tuple[Moment, int] | None:
        """3 days ago, a week ago: a day, week, month or year of the calendar."""
        hit = self.duration(i)
        if hit is None or self.low(hit[2]) != "ago" or hit[1] not in ("day", "week", "fortnight", "month", "year"):
            return None
        count, unit, after = hit
        if unit == "month":
            return self.month(self.today.year, self.today.month - int(count)), after + 1
        if unit == "year":
            return self.year(self.today.year - int(count)), after + 1
        then = self.today - _UNIT[unit] * count
        if unit == "day":
            return self.span_of_day(then), after + 1
        return Moment(day=(then - timedelta(days=3), then + timedelta(days=4)), grain="week"), after + 1

    # spans measured from now

    def span(self, i: int) -> tuple[Moment, int] | None:
        """A time stamp; two hours ago; in the last hour; in 5 minutes; just now."""
        if self.kind(self.skip(i, "on", "at")) == "iso":
            return self.iso(self.skip(i, "on", "at"))
        if self.low(i) == "just" and self.low(i + 1) == "now":
            return self.fixed(self.now - timedelta(minutes=5), self.now, "span"), i + 2
        return self.ago(i) or self.last_units(i) or self.in_units(i)

    def ago(self, i: int) -> tuple[Moment, int] | None:
        hit = self.duration(self.skip(i, "about", "around"))
        if hit is None or self.low(hit[2]) != "ago" or hit[1] not in ("second", "sec", "minute", "min", "hour"):
            return None
        count, unit, after = hit
        centre = self.now - _UNIT[unit] * count
        half = _UNIT[unit] / 2 if count != 0.5 else _UNIT["minute"] * 5
        grain: Grain = {"sec": "second", "min": "minute"}.get(unit, unit)  # type: ignore[assignment]
        return self.fixed(centre - half, min(centre + half, self.now), grain), after + 1

    def last_units(self, i: int) -> tuple[Moment, int] | None:
        j = self.skip(i, "in", "within", "during", "over", "for")
        k = self.skip(j, "the")
        if self.low(k) not in ("last", "past") or (k == i and self.low(i) == "past"):
            return None
        hit = self.duration(k + 1)
        if hit is None:
            unit = _UNITS.get(self.low(k + 1))
            # "last week" is a week of the calendar, "in the last week" the seven days before now.
            if (
                unit is None
                or (k == i and unit in ("week", "month", "year"))
                or self.low(k + 1) in ("second", "min", "sec")
            ):
                return None
            hit = (1.0, unit, k + 2)
        return self.fixed(self.now - _UNIT[hit[1]] * hit[0], self.now, "span"), hit[2]

    def in_units(self, i: int) -> tuple[Moment, int] | None:
        hit = self.duration(i + 1) if self.low(i) == "in" else None
        if hit is None or hit[1] in ("second", "sec") or (self.kind(hit[2]) == "word" and self.low(hit[2]) not in (
            "and", "at", "i", "the", "from"
        )):  # fmt: skip
            return None
        centre, half = self.now + _UNIT[hit[1]] * hit[0], _UNIT[hit[1]] / 2
        if hit[1] in ("day", "week", "fortnight", "month", "year"):
            return self.span_of_day(centre.astimezone(self.zone).date()), hit[2]
        return self.fixed(max(centre - half, self.now), centre + half, "span"), hit[2]

    def duration(self, i: int) -> tuple[float, str, int] | None:
        """(count, unit, next): two hours, an hour, half an hour, a few minutes, a couple of days."""
        count: float
        if self.low(i) == "half" and self.low(i + 1) in ("a", "an"):
            count, j = 0.5, i + 2
        elif self.low(self.skip(i, "a")) in ("few", "couple"):
            k = self.skip(i, "a")
            count, j = (3, k + 1) if self.low(k) == "few" else (2, self.skip(k + 1, "of"))
        elif self.kind(i) == "num" and len(self.low(i)) <= 6:
            count, j = int(self.low(i)), i + 1
        elif self.low(i) in _NUMBER:
            count, j = _NUMBER[self.low(i)], i + 1
        else:
            return None
        unit = _UNITS.get(self.low(j))
        return (count, unit, j + 1) if unit else None

    def iso(self, i: int) -> tuple[Moment, int] | None:
        stamp = self.low(i).upper().replace("UTC", "Z").replace(" ", "")
        stamp = re.sub(r"(\d{4}-\d\d-\d\d)T?(\d)", r"\1T\2", stamp)
        stamp = re.sub(r"T(\d):", r"T0\1:", stamp)
        try:
            then = datetime.fromisoformat(stamp)
        except ValueError:
            return None
        if "T" not in stamp:
            return self.span_of_day(then.date()), i + 1
        then = then if then.tzinfo else then.replace(tzinfo=self.zone)
        seconds = stamp.count(":", 0, 20) > 1
        length = timedelta(seconds=1) if seconds else timedelta(minutes=1)
        return self.fixed(then, then.astimezone(UTC) + length, "second" if seconds else "minute"), i + 1

    # values

    def fixed(self, start: datetime, end: datetime, grain: Grain) -> Moment:
        return Moment(fixed=(start.astimezone(UTC), end.astimezone(UTC)), grain=grain)

    def span_of_day(self, first: date) -> Moment:
        return Moment(day=(first, first + timedelta(days=1)))

    def one_day(self, offset: int) -> Moment:
        return self.span_of_day(self.today + timedelta(days=offset))

    def nearest_weekday(self, number: int, step: int) -> Moment:
        distance = (self.today.weekday() - number) % 7 if step < 0 else (number - self.today.weekday()) % 7
        return self.one_day(step * (distance or 7))

    def day_of_month(self, number: int) -> Moment:
        step = -1 if self.prefer == "past" else 1
        for offset in range(0, 63):
            day = self.today + timedelta(days=offset * step)
            if day.day == number:
                return self.span_of_day(day)
        raise ValueError(f"no month has a day {number}")

    def month(self, year: int, number: int) -> Moment:
        first = date(year + (number - 1) // 12, (number - 1) % 12 + 1, 1)
        following = date(first.year + first.month // 12, first.month % 12 + 1, 1)
        return Moment(day=(first, following), grain="month")

    def nearest_month(self, number: int, step: int) -> Moment:
        """The running or last (step < 0), this year's (0 and prefer past) or running or next such month."""
        year = self.today.year
        if step < 0 and number > self.today.month:
            year -= 1
        elif step >= 0 and self.prefer == "future" and number < self.today.month:
            year += 1
        elif step > 0:
            year += number <= self.today.month
        return self.month(year, number)

    def year(self, number: int) -> Moment:
        return Moment(day=(date(number, 1, 1), date(number + 1, 1, 1)), grain="year")
