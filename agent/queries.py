"""What a question asks: the nouns between reading a question and finding its answer.

This module knows no wording and no memory. What the fields mean, by kind (``subject`` and ``predicate`` are those of
the `Statement` that would answer)
    location      subject; or object alone: "what is in the drawer?"
    owner         subject; or object alone: "what does Tom own?"
    attribute     subject, predicate ("code", "colour", "is", "allergic to", "live" ...)
    who_did       predicate is the verb; subject the thing it was done to, or None with the object of the verb
    likes         subject, object; one of them may be None
    yes_no        subject, predicate, object; for "did Anna move the keys?" (keys, move, anna)
    when_seen     subject
    when_told     subject; predicate and object if the claim was quoted, else predicate ``told``
    when_happened subject, predicate, object; "when did Anna move the keys?" is (keys, move, anna)
    count         subject; predicate ``seen`` or a verb; object a place if one is named
    what_seen     subject: a person, thing or place to look at, or None
    outage        object: ``any``, ``when``, ``how long`` or ``how often``
    what_told     subject, or None
and of a world that the agent watches (`world_questions`)
    state         subject: how was the lamp?
    order         events: which of them came first; the answer is their things in the order in which it happened
    changed       object: the place or room in which something changed, or None
    why           events: the one whose cause is asked
    usual_place   subject: where it mostly is; ``habit`` says at which times
    usual_time    events: the one that happens every day or so
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..records import Interval

Kind = Literal[
    "location", "owner", "attribute", "who_did", "likes", "yes_no", "when_seen", "when_told", "when_happened", "count",
    "what_seen", "outage", "what_told", "state", "order", "changed", "why", "usual_place", "usual_time", "unknown",
]  # fmt: skip
Order = Literal["first", "last"]
Relation = Literal["when", "before", "after"]
Side = Literal["origin", "place"]


@dataclass(frozen=True, slots=True)
class Happening:
    """A change of the world that a question speaks of, as far as it says; names are canonical (`name_entity`)."""

    kind: Literal["moved", "state", "entered", "left"]
    thing: str | None = None
    """What was moved or changed, or the person who entered or left; None for anything."""
    state: str | None = None
    """The state it took: ``on``, ``open`` ..."""
    origin: str | None = None
    """The place it came from."""
    place: str | None = None
    """The place it went to, or the room or home that was entered or left; None for the home."""
    by: str | None = None
    """Who did it; None for anybody."""


@dataclass(frozen=True, slots=True)
class Query:
    """A question in the words of memory; the table at the top of the module says what the fields mean for each kind."""

    kind: Kind
    subject: str | None = None
    predicate: str | None = None
    object: str | None = None
    when: Interval | None = None
    """The span asked about. For what was seen, counted or done, an instant is widened by what its wording leaves
    open."""
    order: Order | None = None
    text: str = ""
    """The question as it was asked."""
    events: tuple[Happening, ...] = ()
    """The changes of the world it asks about; empty if it was not read as such a question."""
    side: Side | None = None
    """For a location with an event: whether the place before or the place after it is asked."""
    relation: Relation | None = None
    """How what is asked lies to ``anchor`` in time."""
    anchor: Happening | None = None
    """Another change that dates the question: "... when Ben came home"."""
    habit: tuple[str, ...] = ()
    """Recurring times named by a question about what is usual: ``morning``, ``monday``, ``weekday`` ..."""
