"""The examination of one life: some questions on every day, as many at the end, a quarter of them without an answer.

Each unanswerable question is asked together with an answerable twin of the same family and wording. Kinds are asked
about equally often, as far as the life offers them.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from perdure.errors import BadInput

from ..plan import Plan
from ..truth import Truth
from .candidates import DRAWS, Candidate, Ground
from .observed import Observed
from .question import KINDS, Kind, Question
from .wordings import DAY, WORDINGS, Times, worded

_FIRST_HOUR, _LAST_HOUR = 11, 22


class World(Protocol):
    """What is needed of a home."""

    @property
    def truth(self) -> Truth: ...

    @property
    def plan(self) -> Plan: ...


class Examination:
    """Questions about a life, drawn from its truth log as it goes on; a `QuestionSource`.

    Args:
        world: the home whose truth log grows while the life goes on: a `HomeEnv`.
        start: aware; world time of minute 0.
        seed: for what is asked, when and in which words.
        sittings: times a day at which two questions are asked.
        final: questions at the end.
    """

    def __init__(self, world: World, start: datetime, seed: int, *, sittings: int = 3, final: int = 42) -> None:
        if start.tzinfo is None or sittings < 0 or final < 0:
            raise BadInput(f"expected an aware start and counts of 0 or more, got {start!r}, {sittings}, {final}")
        self._world, self._start = world, start
        self._rng = random.Random(f"questions {seed}")
        self._sittings, self._final = sittings, final
        self._observed = Observed(world.truth)
        self._planned: dict[int, list[int]] = {}
        self._asked: Counter[Kind] = Counter()
        self._paired: Counter[Kind] = Counter()
        self._wordings: Counter[str] = Counter()
        self._keys: set[tuple[object, ...]] = set()
        self._number = 0
        self._hard = 0
        self.questions: list[Question] = []
        """All that were asked so far."""

    def due(self, minute: int) -> Sequence[Question]:
        """The two questions of a sitting, if one falls on this minute; else none."""
        day = minute // DAY
        if day not in self._planned:
            first = _FIRST_HOUR * 60 if day else (_FIRST_HOUR + 4) * 60
            at = self._rng.sample(range(first, _LAST_HOUR * 60), self._sittings)
            self._planned = {day: sorted(day * DAY + m for m in at)}
        return self.ask(2, minute) if minute in self._planned[day] else ()

    def final(self) -> Sequence[Question]:
        """The questions at the end of the life."""
        return self.ask(self._final, self._world.truth.last_minute)

    def ask(self, number: int, minute: int) -> list[Question]:
        """``number`` questions as of a minute that has been lived; fewer if the life does not offer them."""
        self._observed.truth = self._world.truth  # another object after a `set_state`
        self._observed.catch_up()
        times = Times(self._start, minute)
        ground = Ground(self._observed, self._world.plan, times, minute, self._rng)
        found: list[Question] = []
        while len(found) < number:
            want_pair = self._hard < 0.25 * (self._number + number / 4) and number - len(found) >= 2
            more = self._pair(ground, minute) if want_pair else []
            more = more or self._single(ground, minute)
            if not more:
                break
            found += more
        self.questions += found
        return found

    def _single(self, ground: Ground, minute: int) -> list[Question]:
        for kind in sorted(KINDS, key=lambda k: (self._asked[k], self._rng.random())):
            draws = DRAWS[kind]
            for draw in self._rng.sample(draws, len(draws)):
                candidate = self._fresh(draw(ground, True))
                if candidate is not None:
                    return [self._worded(candidate, minute, self._wordings[candidate.family])]
        return []

    def _pair(self, ground: Ground, minute: int) -> list[Question]:
        for kind in sorted(KINDS, key=lambda k: (self._paired[k], self._rng.random())):
            draws = DRAWS[kind]
            for draw in self._rng.sample(draws, len(draws)):
                hard = self._fresh(draw(ground, False))
                if hard is None:
                    continue
                easy = next(
                    (c for c in (self._fresh(draw(ground, True)) for _ in range(5)) if c and c.family == hard.family),
                    None,
                )
                if easy is None:
                    continue
                wording = self._wordings[hard.family]
                self._paired[kind] += 1
                self._hard += 1
                ids = (f"q{self._number + 1:03d}", f"q{self._number + 2:03d}")
                pair = [self._worded(hard, minute, wording, ids[1]), self._worded(easy, minute, wording, ids[0])]
                self._rng.shuffle(pair)
                return pair
        return []

    def _fresh(self, candidate: Candidate | None) -> Candidate | None:
        return None if candidate is None or candidate.key in self._keys else candidate

    def _worded(self, candidate: Candidate, minute: int, wording: int, twin: str | None = None) -> Question:
        self._keys.add(candidate.key)
        self._asked[candidate.kind] += 1
        self._wordings[candidate.family] = wording + 1
        self._number += 1
        text = worded(candidate.family, wording + self._offset(candidate.family), candidate.slots)
        value = candidate.value
        return Question(
            f"q{self._number:03d}", text, minute, candidate.kind, candidate.family, candidate.answerable, value,
            candidate.tolerance, candidate.needs_events, twin, candidate.proof, candidate.spec,
        )  # fmt: skip

    def _offset(self, family: str) -> int:
        """Where in its wordings a family begins, so that lives differ."""
        return sum(map(ord, family)) % len(WORDINGS[family])
