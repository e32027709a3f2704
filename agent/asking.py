"""One question on its way to a query: without lead-in, times and "first" or "last", with the names in it resolved.

This module knows what is common to all questions; it knows no kind of question (`question_rules`, `world_questions`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from zoneinfo import ZoneInfo

from ..perception.statements import functional, read_statements
from ..perception.when import When, find_when
from ..perception.words import PLACE_PREPOSITIONS, Mentions, name_entity, name_place, place_start, words_of
from ..records import Interval, Statement
from .queries import Order, Query

_LEAD = re.compile(
    r"(?:(?:and|so|ok|okay|hey|hi|hello|well|but|please|robot|perdure|agent|now|sorry|thanks|um|oh|excuse me|tell me|"
    r"remind me|just|by the way|quick question|i wonder|i want to know|i would like to know|i need to know|"
    r"(?:i )?(?:do not|can not|could not) (?:know|remember|recall|find out)|i forgot|i have forgotten|"
    r"(?:can|could|would|will) you (?:please |maybe )?(?:tell me|remember|recall|remind me|say|check|find out|look up)|"
    r"do you (?:still |happen to |by any chance )?(?:know|remember|recall)|any idea|have you any idea|let me know|"
    r"do we know|show me|give me|tell us|i am looking for(?= wh))(?:[,:]| |$)\s*)+",
    re.IGNORECASE,
)
_OATH = re.compile(
    r"(?<=\w) (?:the (?:heck|hell)|on earth|exactly|in the world|so far|(?:is|was) it (?:that|who)(?= \w))\b",
    re.IGNORECASE,
)
_ORDER = re.compile(
    r"\b(?:for the )?(?:(first|earliest)|(last|latest|most recently|most recent|lately))\b(?: time\b)?"
    r"(?! (?:aid|name|floor|names))",
    re.IGNORECASE,
)
_SOMEONE = re.compile(r"^(?:anyone|anybody|someone|somebody|any people|a person)(?: else)?$", re.IGNORECASE)
_EXACT = frozenset({"location", "owner", "attribute", "likes"})
ARTICLE_LEAD = re.compile(r"^(?:the|a|an|any|some)\s+", re.IGNORECASE)


class Asked:
    """Reads one question. ``self.text`` is the question without lead-in, times and "first" or "last"."""

    def __init__(self, text: str, now: datetime, zone: ZoneInfo, mentions: Mentions) -> None:
        self.now, self.zone, self.mentions = now, zone, mentions
        plain = text.strip().rstrip("?!. ").strip()
        lead = _LEAD.match(plain)
        plain = plain[lead.end() :] if lead and lead.end() < len(plain) else plain
        plain = _OATH.sub("", plain)
        self.plain = plain
        ahead = re.search(r"\b(will|tomorrow|next|upcoming)\b", plain, re.IGNORECASE)
        self.times: Sequence[When] = [
            _without_particle(w) for w in find_when(plain, now, zone, "future" if ahead else "past")
        ]
        self.text = _without(plain, self.times)
        order = _ORDER.search(self.text)
        self.order: Order | None = ("first" if order[1] else "last") if order else None
        self.unordered = re.sub(r"\s+", " ", _ORDER.sub("", self.text)).strip() if order else self.text

    def span(self, query: Query) -> Interval | None:
        if not self.times:
            return None
        lasting = query.predicate in ("is", "likes") or functional(query.predicate or "")
        exact = query.kind in _EXACT or (query.kind == "yes_no" and lasting)
        spans = [when.interval if exact else when.padded() for when in self.times]
        start = max((s.start for s in spans if s.start), default=None)
        end = min((s.end for s in spans if s.end), default=None)
        return spans[0] if start and end and start >= end else Interval(start, end)

    # names

    def name(self, phrase: str | None) -> str | None:
        words = words_of(phrase or "")
        if not words or words[0].low in PLACE_PREPOSITIONS:
            return None
        if _SOMEONE.match(phrase or ""):
            return "person"
        if any(word.low in ("before", "after", "because", "than") for word in words):
            return None
        return name_entity(words, self.mentions)

    def bare(self, phrase: str | None) -> str | None:
        """The name without what follows it about place or state ("the key now", "a person in the hall")."""
        words = words_of(phrase or "")
        if len(words) > 1 and words[-1].low in ("open", "closed", "unlocked", "on", "off"):  # "left the door open"
            return self.bare(" ".join(word.text for word in words[:-1]))
        k = place_start(words, 1)
        return self.name(" ".join(word.text for word in words[:k])) if k else self.name(phrase)

    def place(self, phrase: str | None) -> str | None:
        words = words_of(phrase or "")
        k = place_start(words)
        return name_place(words[k:], self.mentions) if k is not None else None

    def claim(self, sentence: str) -> Statement | None:
        """What a sentence in the order of a statement would claim."""
        found = read_statements(sentence, self.now, self.zone, replace(self.mentions))
        return found[0] if found else None


def _without_particle(when: When) -> When:
    """A phrase without an "on" that belongs to the verb before it: "the lamp went on today"."""
    stray = re.match(r"on (?=(?:today|yesterday|tonight|this|last|at|between)\b)", when.phrase, re.IGNORECASE)
    if stray is None:
        return when
    return replace(when, start_char=when.start_char + stray.end(), phrase=when.phrase[stray.end() :])


def _without(text: str, times: Sequence[When]) -> str:
    for when in reversed(times):
        text = text[: when.start_char] + " " + text[when.end_char :]
    return re.sub(r"\s+", " ", text).strip(" ,")
