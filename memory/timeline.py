"""From what was said to what held when: the rules by which claims about one thing end one another.

It knows claims and time; it does not know SQL, records or sentences. `timeline` is a pure function of the set of
claims, so what is believed never depends on how it came to be computed; the order of telling counts only where the
rules below say so.

The rules
    contradiction  A claim ends every earlier one that it contradicts, where it begins itself. A functional value
                   contradicts every other value and every denial before it; a denial contradicts its own value; of
                   other predicates only a value and its denial contradict each other. Nothing revives afterwards.
    late news      Told late, a claim about the past ends where the next known one begins.
    same instant   Two that begin together and contradict each other: the one told later is right.
    reinforcement  The same value again, with no gap and nobody else's doing, prolongs what is known and adds to its
                   lineage. The same value by another doer is a new act.
    end mark       "until Friday" ends there what was told before of the same value, and nothing told later.
    trust          Each trust has its own timeline; the owner's claims also end everybody else's, never the reverse.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

from ..records import Trust

BEGINNING = -(2**62)
"""Microseconds: before all time."""
FOREVER = 2**62
"""Microseconds: after all time."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What one statement says about one predicate of one thing. ``start_us == end_us`` for an end mark."""

    seq: int
    """Record that made it ..."""
    item: int
    """... and its place in that record."""
    about: int | None
    """The told record, if ``seq`` is a language model's reading of it."""
    object: str
    object_key: str
    functional: bool
    negated: bool
    by: str | None
    trust: Trust
    start_us: int
    end_us: int

    @property
    def told(self) -> tuple[int, int]:
        """Its place in the order of telling."""
        return self.seq, self.item

    @property
    def sources(self) -> tuple[int, ...]:
        """The records it comes from."""
        return (self.seq,) if self.about is None else (self.about, self.seq)

    @property
    def ends(self) -> bool:
        """Whether it is an end mark."""
        return self.start_us == self.end_us


@dataclass(slots=True)
class Belief:
    """A stretch of time in which one value held, for all that is known now."""

    object: str
    object_key: str
    functional: bool
    negated: bool
    by: str | None
    trust: Trust
    start_us: int
    end_us: int
    sources: set[int] = field(default_factory=set)
    ended_by: set[int] = field(default_factory=set)
    newest: tuple[int, int] = (0, 0)
    """Its last claim in the order of telling."""

    @property
    def content(self) -> tuple[Any, ...]:
        """What makes two beliefs the same, lineage aside."""
        return self.object_key, self.functional, self.negated, self.by, self.trust, self.start_us, self.end_us

    def end(self, at_us: int, sources: Iterable[int]) -> None:
        """Let it end at ``at_us`` if it lasts longer."""
        if self.end_us > at_us:
            self.end_us = at_us
            self.ended_by.update(sources)

    def take(self, claim: Claim) -> None:
        """Take in a claim of the same value, or an end mark for it."""
        if not claim.ends:
            self.end_us = max(self.end_us, claim.end_us)
            self.by = self.by or claim.by
        elif claim.told > self.newest:
            self.end(claim.end_us, ())
        self.newest = max(self.newest, claim.told)
        self.sources.update(claim.sources)


def contradicts(later: Claim, earlier: Claim | Belief) -> bool:
    """Whether ``later`` cannot hold together with ``earlier``, trust aside."""
    if later.object_key == earlier.object_key:
        return later.negated != earlier.negated
    return later.functional and earlier.functional and not later.negated


def timeline(claims: Iterable[Claim]) -> list[Belief]:
    """What held when, by claims about one predicate of one thing.

    Args:
        claims: in any order; those taken back left out.

    Returns:
        Beliefs by their start, each with ``start_us < end_us``. Of one trust and a functional predicate, no two that
        are not negated overlap.
    """
    ordered = sorted(claims, key=lambda c: (c.start_us, not c.ends, c.trust is not Trust.OWNER, c.told))
    found: list[Belief] = []
    for trust in sorted({claim.trust for claim in ordered}):
        found += _lane([claim for claim in ordered if claim.trust in (trust, Trust.OWNER)], trust)
    return sorted((b for b in found if b.start_us < b.end_us), key=attrgetter("start_us"))


def _lane(claims: Sequence[Claim], trust: Trust) -> list[Belief]:
    """The timeline of one trust. Its own claims make beliefs; the owner's, if it is another trust, only end them."""
    done: list[Belief] = []
    running: list[Belief] = []
    for claim in claims:
        own = claim.trust is trust
        for belief in [b for b in running if b.end_us < claim.start_us or _replaces(claim, b, own)]:
            belief.end(claim.start_us, claim.sources)
            running.remove(belief)
            done.append(belief)
        same = [b for b in running if (b.object_key, b.negated) == (claim.object_key, claim.negated)]
        if not own:
            continue
        if same:
            same[0].take(claim)
        elif not claim.ends:
            running.append(_begin(claim))
    return done + running


def _replaces(claim: Claim, belief: Belief, own: bool) -> bool:
    if claim.ends:
        return False
    other_act = claim.object_key == belief.object_key and None not in (claim.by, belief.by) and claim.by != belief.by
    return contradicts(claim, belief) or (own and other_act)


def _begin(claim: Claim) -> Belief:
    return Belief(
        claim.object,
        claim.object_key,
        claim.functional,
        claim.negated,
        claim.by,
        claim.trust,
        claim.start_us,
        claim.end_us,
        set(claim.sources),
        newest=claim.told,
    )
