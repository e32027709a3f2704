"""Questions, grades, and how answers are graded: on values, by rules that are written here, by no judge model.

What a right value is, by kind
    where, why      the name of the place, thing or person
    who             the name of the person; ``me`` for the agent
    when            a minute of the life; right within ``tolerance`` minutes. An interval is right if its middle is
    how_often       a number; right within ``tolerance``
    order           names, earliest first
    changed         a set of names; right if the F1 score of the answered set is at least `SET_F1`
    usual           a place, or a minute of the day; right within ``tolerance`` minutes
An answer whose value is None (or an empty list) abstains. To a question that nobody could know the answer to,
abstaining alone is right.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, time, timedelta
from typing import Any, Literal, Protocol, runtime_checkable

from perdure.errors import BadInput
from perdure.records import Answer, Interval

Kind = Literal["where", "when", "who", "how_often", "order", "changed", "why", "usual"]
KINDS: tuple[Kind, ...] = ("where", "when", "who", "how_often", "order", "changed", "why", "usual")
SET_F1 = 0.8
_DAY = 1440


@dataclass(frozen=True, slots=True)
class Question:
    """One question with what it is graded on."""

    id: str
    text: str
    asked: int
    """Minute of the life at which it is asked."""
    kind: Kind
    family: str
    """Which wordings it was drawn from; a question and its twin share it."""
    answerable: bool
    """Whether what the camera saw decides it."""
    value: Any
    """The right value, also of a question that nobody can answer; the table at the top says of what type."""
    tolerance: int = 0
    needs_events: int = 1
    """How many events have to be put together for the answer."""
    twin: str | None = None
    """Id of the answerable question that this unanswerable one is paired with, and the other way round."""
    proof: tuple[tuple[int, int], ...] = ()
    """Minutes [first, last] in which what proves the answer was in view."""
    spec: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Grade:
    """How one answer was."""

    question: Question
    verdict: Literal["right", "wrong", "abstained"]
    """``right`` also for abstaining where nobody could know."""
    evidence_hit: bool | None = None
    """For right answers: whether a record given as evidence is of the time that proves it; None if not asked."""


@runtime_checkable
class QuestionSource(Protocol):
    """Where questions come from: an examination that is taken during a life and at its end."""

    def due(self, minute: int) -> Sequence[Question]:
        """Questions to be asked in this minute of the life; called once a minute, rising."""
        ...

    def final(self) -> Sequence[Question]:
        """Questions to be asked when the life has ended."""
        ...


@runtime_checkable
class Scorer(Protocol):
    """Grades answers."""

    def grade(self, question: Question, answer: Answer) -> Grade:
        """Right, wrong or abstained."""
        ...


class ValueScorer:
    """Grades on values, by the table at the top of the module.

    Args:
        start: aware; world time of minute 0.
    """

    def __init__(self, start: datetime) -> None:
        if start.tzinfo is None:
            raise BadInput(f"expected an aware start, got the naive {start!r}; add tzinfo")
        self._start = start

    def grade(self, question: Question, answer: Answer) -> Grade:
        """How an answer was; never raises for an odd value, which is wrong."""
        if answer.value is None or (isinstance(answer.value, Sequence | frozenset | set) and not answer.value):
            return Grade(question, "abstained" if question.answerable else "right")
        if not question.answerable or not self._same(question, answer.value):
            return Grade(question, "wrong")
        return Grade(question, "right", self._hit(question, answer))

    def _same(self, question: Question, value: Any) -> bool:
        want, kind = question.value, question.kind
        if kind == "when" or (kind == "usual" and isinstance(want, int)):
            got = self._minute(value)
            if got is None:
                return False
            away = abs(got - want)
            if kind == "usual":
                away = min(away % _DAY, _DAY - away % _DAY)
            return bool(away <= question.tolerance)
        if kind == "how_often":
            return type(value) is int and bool(abs(value - want) <= question.tolerance)
        if kind in ("order", "changed"):
            if isinstance(value, str) or not isinstance(value, Sequence | frozenset | set | tuple):
                return False
            names = [plain(str(name)) for name in value]
            if kind == "order":
                return names == [plain(name) for name in want]
            return _f1(set(names), {plain(name) for name in want}) >= SET_F1
        return isinstance(value, str) and plain(value) == plain(str(want))

    def _minute(self, value: Any) -> float | None:
        """A minute of the life (or of the day, for a time of day) in any of the shapes an answer may have."""
        if isinstance(value, Interval):
            ends = [end for end in (value.start, value.end) if end is not None]
            if not ends:
                return None
            return sum((end - self._start).total_seconds() for end in ends) / len(ends) / 60
        if isinstance(value, datetime):
            return (value - self._start).total_seconds() / 60
        if isinstance(value, time):
            return value.hour * 60 + value.minute
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        return None

    def _hit(self, question: Question, answer: Answer) -> bool | None:
        if not question.proof:
            return None
        slack = timedelta(minutes=35)
        for first, last in question.proof:
            begin, end = (self._start + timedelta(minutes=m) for m in (first, last))
            if any(e.time <= end + slack and e.end >= begin - slack for e in answer.evidence):
                return True
        return False


def plain(name: str) -> str:
    """A name without article, case and number of the twin: ``The blue mug#2`` is ``blue mug``."""
    low = re.sub(r"#\d+$", "", " ".join(name.lower().split()))
    return re.sub(r"^(?:the|a|an|in the|on the|at the|in|on|at) ", "", low)


def _f1(got: set[str], want: set[str]) -> float:
    both = len(got & want)
    return 2 * both / (len(got) + len(want)) if both else 0.0


@dataclass(frozen=True, slots=True)
class Tally:
    """Grades counted. Shares are from 0 to 1."""

    asked: int
    right: int
    wrong: int
    unanswerable: int
    false_answers: int
    """Of the unanswerable, how many were answered."""
    hits: int
    proved: int
    """Right answers whose evidence was checked, and how many of them hit."""

    @property
    def accuracy(self) -> float:
        """Share of all questions answered rightly; abstaining is right where nobody could know."""
        return self.right / self.asked if self.asked else 0.0

    @property
    def wrong_share(self) -> float:
        """Share of all questions answered wrongly."""
        return self.wrong / self.asked if self.asked else 0.0

    @property
    def false_share(self) -> float:
        """Share of the unanswerable that were answered."""
        return self.false_answers / self.unanswerable if self.unanswerable else 0.0

    @property
    def hit_share(self) -> float:
        """Share of the right answers whose evidence is of the time that proves them."""
        return self.hits / self.proved if self.proved else 0.0


def tally(grades: Iterable[Grade]) -> Tally:
    """Counts grades."""
    found = list(grades)
    unanswerable = [g for g in found if not g.question.answerable]
    proved = [g for g in found if g.evidence_hit is not None]
    return Tally(
        len(found),
        sum(g.verdict == "right" for g in found),
        sum(g.verdict == "wrong" for g in found),
        len(unanswerable),
        sum(g.verdict == "wrong" for g in unanswerable),
        sum(bool(g.evidence_hit) for g in proved),
        len(proved),
    )


def wilson(hits: int, number: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's 95 % interval of a share (Wilson 1927); (0, 1) if there is nothing to go by."""
    if number == 0:
        return 0.0, 1.0
    share, square = hits / number, z * z / number
    middle = (share + square / 2) / (1 + square)
    half = z * math.sqrt(share * (1 - share) / number + square / (4 * number)) / (1 + square)
    return max(0.0, middle - half), min(1.0, middle + half)
