"""What holds now, what held then, who did it, and how sure that is: estimates made of facts.

It knows what facts mean for a question about one thing. It does not know how they are stored (it asks
`Memory.facts` alone), nor causes or predictions.

Confidence is ``trust * freshness * (1 + 0.1 * min(repeats, 3))``, at most 0.99, and halved while a weaker source says
otherwise. ``freshness = 2 ** (-age / half_life)``, where age runs from the beginning of the fact to the time asked
about; what has ended, or is asked about within a stretch whose end is known, does not age. The constants are chosen,
not learned: they order answers, they are no probabilities.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from ..memory import Memory
from ..memory.names import name_match, thing_key
from ..perception.statements import functional
from ..records import Estimate, Fact, Trust

TRUST = {Trust.OWNER: 0.95, Trust.SEEN: 0.9, Trust.AGENT: 0.7, Trust.OTHER: 0.6}
"""Confidence in something just said by such a source."""

HALF_LIFE = {
    "location": timedelta(days=14),
    "opening": timedelta(days=1),
    "lock": timedelta(days=1),
    "power": timedelta(days=1),
    "filling": timedelta(days=3),
    "cleanliness": timedelta(days=7),
    "temperature": timedelta(hours=6),
    "condition": timedelta(days=60),
    "birthday": None,
    "date of birth": None,
    "name": None,
    "mother": None,
    "father": None,
    "brother": None,
    "sister": None,
}
"""How long until a fact of this predicate is half as sure; None for what does not change."""
OTHER_HALF_LIFE = timedelta(days=365)
"""For every other predicate: owners, colours, codes, likes."""

_CERTAIN = 0.99
_SAME_NAME = 2
_SPEAKER = {
    Trust.OWNER: "the owner",
    Trust.SEEN: "a sensor",
    Trust.AGENT: "the agent's own reading",
    Trust.OTHER: "somebody else",
}


class Beliefs:
    """What the agent believes, made of the facts of one memory."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    def state(
        self, subject: str, predicate: str, at: datetime | None = None, as_of: datetime | None = None
    ) -> Estimate:
        """The value of one property of one thing.

        Args:
            subject: a name; a shorter one will do if only one thing answers to it.
            predicate: ``location``, ``owner`` ...
            at: world time asked about; None for now (or for ``as_of``, if that is given).
            as_of: answer as the agent would have then.

        Returns:
            ``value`` is the object of the fact that holds: a string, or for a predicate that may have several values
            the newest of them. None if none holds; ``reason`` then says whether it was never told, known only until
            some time, known only from some time on, only denied, ambiguous, or disputed by equals.
        """
        moment = at or as_of or self._memory.now()
        known = self._memory.facts(subject, predicate, as_of=as_of)
        if not known:
            return Estimate(None, f"never told the {predicate} of {subject}")
        same, others = _one_thing(subject, known)
        if others:
            return Estimate(None, f"{subject} may be any of: {', '.join(others)}", _evidence(known))
        holding = [fact for fact in same if _holds(fact, moment)]
        values = sorted((fact for fact in holding if not fact.negated), key=_rank, reverse=True)
        if not values:
            return _nothing(same, holding, moment)
        best = values[0]
        rivals = [
            fact for fact in values[1:] if functional(predicate) and thing_key(fact.object) != thing_key(best.object)
        ]
        if rivals and best.trust is not Trust.OWNER:
            said = " or ".join(f"{fact.object} ({_speaker(fact)})" for fact in (best, *rivals))
            return Estimate(None, f"two sources disagree: {said}", _evidence([best, *rivals]))
        reason = f"{_speaker(best)} said so"
        reason += f" of {best.subject}" if name_match(subject, best.subject) < _SAME_NAME else ""
        reason += "".join(f"; {_speaker(fact)} said {fact.object}" for fact in rivals)
        return Estimate(best.object, reason, best.evidence, confidence(best, moment, disputed=bool(rivals)))

    def history(self, subject: str, predicate: str) -> list[Fact]:
        """How a property changed, by what is believed now: oldest first, denials left out.

        Where ``subject`` may mean several things, those of exactly this name, else all of them.
        """
        facts = [fact for fact in self._memory.facts(subject, predicate) if not fact.negated]
        same, others = _one_thing(subject, facts)
        return sorted(facts if others else same, key=lambda f: (f.valid.start is not None, f.valid.start, f.id))

    def who(self, subject: str, at: datetime | None = None) -> Estimate:
        """Who moved a thing last, or gave it its present owner.

        Args:
            subject: a name.
            at: the last time that counts; None for now.
        """
        moment = at or self._memory.now()
        moves = [fact for predicate in ("location", "owner") for fact in self.history(subject, predicate)]
        past = [fact for fact in moves if fact.valid.start is None or fact.valid.start <= moment]
        if not past:
            return Estimate(None, f"never told that anybody moved {subject}")
        acts = [fact for fact in past if fact.by is not None]
        if not acts:
            return Estimate(None, f"never told who moved {subject}", _evidence(past[-1:]))
        last = max(acts, key=lambda f: (_begins(f, moment), f.trust is Trust.OWNER))
        later = [fact for fact in past if _begins(fact, moment) > _begins(last, moment)]
        sure = confidence(last, moment, disputed=bool(later))
        reason = f"{_speaker(last)} said that {last.by} did: {last.predicate} {last.object}"
        if later:
            reason += f"; it changed again later ({later[-1].object}), by nobody that was named"
        return Estimate(last.by, reason, last.evidence, sure)


def confidence(fact: Fact, at: datetime, *, disputed: bool = False) -> float:
    """How sure a fact is at world time ``at``, from 0 to 1; the formula is at the top of the module."""
    half_life = HALF_LIFE.get(fact.predicate, OTHER_HALF_LIFE)
    freshness = 1.0
    if half_life is not None and fact.valid.end is None and fact.valid.start is not None:
        freshness = 2.0 ** (-max(at - fact.valid.start, timedelta(0)) / half_life)
    repeats = min(max(len(fact.evidence) - 1, 0), 3)
    sure = TRUST[fact.trust] * freshness * (1 + 0.1 * repeats)
    return round(min(sure, _CERTAIN) * (0.5 if disputed else 1.0), 4)


def _one_thing(subject: str, known: Sequence[Fact]) -> tuple[list[Fact], list[str]]:
    """The facts of what ``subject`` names best; and, if several things are named equally well, their names instead."""
    best = max((name_match(subject, fact.subject) for fact in known), default=0)
    same = [fact for fact in known if name_match(subject, fact.subject) == best]
    names = {thing_key(fact.subject): fact.subject for fact in same}
    return (same, []) if len(names) < 2 else ([], sorted(names.values()))


def _nothing(known: Sequence[Fact], holding: Sequence[Fact], moment: datetime) -> Estimate:
    """Why there is no value at ``moment`` although something is known."""
    denied = [fact for fact in holding if fact.negated]
    if denied:
        return Estimate(None, f"known only that it is not {denied[0].object}", _evidence(denied))
    values = [fact for fact in known if not fact.negated]
    ended = [fact for fact in values if fact.valid.end is not None and fact.valid.end <= moment]
    if ended:
        last = max(ended, key=lambda fact: fact.valid.end or moment)
        until = f"known only until {_moment(last.valid.end)}: it was {last.object}"
        return Estimate(None, until, (*last.evidence, *last.ended_by))
    if values:
        first = min(values, key=lambda fact: _begins(fact, moment))
        return Estimate(None, f"known only from {_moment(first.valid.start)} on: {first.object}", first.evidence)
    return Estimate(None, f"known only that at some time it was not {known[0].object}", _evidence(known))


def _holds(fact: Fact, moment: datetime) -> bool:
    begun = fact.valid.start is None or fact.valid.start <= moment
    return begun and (fact.valid.end is None or moment < fact.valid.end)


def _begins(fact: Fact, moment: datetime) -> datetime:
    return fact.valid.start or datetime.min.replace(tzinfo=moment.tzinfo)


def _rank(fact: Fact) -> tuple[object, ...]:
    return fact.trust is Trust.OWNER, fact.valid.start is not None, fact.valid.start, fact.id


def _evidence(facts: Sequence[Fact]) -> tuple[int, ...]:
    return tuple(sorted({seq for fact in facts for seq in fact.evidence}))


def _speaker(fact: Fact) -> str:
    return _SPEAKER[fact.trust]


def _moment(moment: datetime | None) -> str:
    return "an unknown time" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S} UTC"
