"""Where the verb of an English clause stands, with its tense and negation.

This module knows verb groups ("has not been", "did not take", "is coming", "used to keep"). It does not know what a
sentence means.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .words import ADVERBS, ARTICLES, NEGATIONS, PLACE_PREPOSITIONS, PRONOUNS, SCALES, SUBJECT_PRONOUNS, Word, verb_form

_BE_PRESENT = frozenset({"is", "are", "am"})
_BE_PAST = frozenset({"was", "were"})
_MODALS = frozenset({"could", "would", "should", "might", "may", "must"})
_RESTING = frozenset({"lying", "sitting", "standing", "hanging"})
_RELATIVE = frozenset({"that", "which", "who"})
_PLURALS = frozenset({"people", "children", "men", "women", "mice", "all", "both"})
_NOT_PROGRESSIVE = frozenset({"missing", "interesting", "boring", "meeting"})


@dataclass(frozen=True, slots=True)
class Verb:
    """A finite verb group: words [start, end)."""

    start: int
    end: int
    lemma: str
    """Base form; ``must`` and ``maybe`` for obligations and possibilities, which claim nothing."""
    tense: str
    """``present``, ``past``, ``perfect``, ``future`` or ``progressive``."""
    negated: bool = False
    auxiliary: bool = False
    """Begins with a form of be, have, do or will, which is never a noun."""


def _low(words: Sequence[Word], i: int) -> str:
    return words[i].low if i < len(words) else ""


def _past_adverbs(words: Sequence[Word], i: int) -> tuple[int, bool]:
    """The next position that is no adverb, and whether a negation was passed."""
    negated = False
    while True:
        if _low(words, i) in NEGATIONS:
            negated, i = not negated, i + 1
        elif _low(words, i) == "no" and _low(words, i + 1) == "longer":
            negated, i = not negated, i + 2
        elif _low(words, i) in ADVERBS:
            i += 1
        else:
            return i, negated


def verb_at(words: Sequence[Word], i: int) -> Verb | None:
    """The finite verb group that begins at ``i``, or None."""
    low = words[i].low
    after, negated = _past_adverbs(words, i + 1)
    following = _low(words, after)
    if low in _BE_PRESENT or low in _BE_PAST:
        return _be_group(words, i, after, "past" if low in _BE_PAST else "present", negated)
    if low in ("have", "has", "had"):
        return _have_group(words, i, after, negated)
    if low in ("do", "does", "did"):
        tense = "past" if low == "did" else "present"
        base = verb_form(following, "base")
        return Verb(i, after + 1, base, tense, negated, True) if base else Verb(i, i + 1, "do", tense)
    if low in ("will", "shall"):
        if following == "be":
            return _be_group(words, i, after + 1, "future", negated)
        base = verb_form(following, "base")
        return Verb(i, after + 1, base, "future", negated, True) if base else None
    if low == "can":
        if negated and following in ("stand", "bear"):
            return Verb(i, after + 1, "like", "present", True, True)
        return Verb(i, after, "can", "present", negated, True)
    if low in _MODALS:
        return Verb(i, after, "maybe", "present", negated, True) if _is_infinitive(following) else None
    if low == "used" and following == "to" and _is_infinitive(_low(words, after + 1)):
        base = verb_form(_low(words, after + 1), "base") or "be"
        return Verb(i, after + 2, base, "past", negated, True)
    return _lexical(words, i)


def _is_infinitive(low: str) -> bool:
    return low in ("be", "have", "not") or verb_form(low, "base") is not None


def _be_group(words: Sequence[Word], i: int, after: int, tense: str, negated: bool) -> Verb:
    low = _low(words, after)
    if low == "going" and _low(words, after + 1) == "to" and _is_infinitive(_low(words, after + 2)):
        lemma = verb_form(_low(words, after + 2), "base") or "be"
        return Verb(i, after + 3, lemma, "future", negated, True)
    if low in _RESTING:
        return Verb(i, after + 1, "be", tense, negated, True)
    doing = verb_form(low, "ing") if low not in _NOT_PROGRESSIVE else None
    if doing:
        return Verb(i, after + 1, doing, "progressive" if tense == "present" else tense, negated, True)
    return Verb(i, after, "be", tense, negated, True)


def _have_group(words: Sequence[Word], i: int, after: int, negated: bool) -> Verb:
    low = _low(words, after)
    if low == "to" and after == i + 1:
        return Verb(i, after + 1, "must", "present", negated, True)
    if low == "been":
        after, again = _past_adverbs(words, after + 1)
        return _be_group(words, i, after, "perfect", negated ^ again)
    if low == "got":
        return Verb(i, after + 1, "have", "present", negated, True)
    done = verb_form(low, "part")
    # "has left the key" is a perfect; "has set hours" is not told apart, and rare.
    if done:
        return Verb(i, after + 1, done, "perfect", negated, True)
    return Verb(i, after, "have", "past" if words[i].low == "had" else "present", negated, True)


def _lexical(words: Sequence[Word], i: int) -> Verb | None:
    low = words[i].low
    past = verb_form(low, "past")
    if past:
        return Verb(i, i + 1, past, "past")
    present = verb_form(low, "s")
    if present is None and _is_plural(words, i):
        present = verb_form(low, "base")
    return Verb(i, i + 1, present, "present") if present else None


def _is_plural(words: Sequence[Word], i: int) -> bool:
    """Whether what stands before takes the plain form: "I like", "the kids like", "Anna and Tom like"."""
    low = _before(words, i)
    if low in ("he", "she", "it"):
        return False
    return i == 0 or low in PRONOUNS or low.endswith("s") or low in _PLURALS or any(w.low == "and" for w in words[:i])


def find_verb(words: Sequence[Word]) -> Verb | None:
    """The main verb of a clause that begins with its subject; None if there is no verb or no subject.

    A word that can also be a noun ("left", "water", "work") counts as the verb only after a pronoun, or when no form of
    be, have or do follows; verbs of relative clauses ("the book that I bought") are passed over.
    """
    candidate: Verb | None = None
    relatives, i = 0, 1
    while i < len(words):
        low = words[i].low
        if low in _RELATIVE and i > 0 and words[i - 1].low not in (",", "and"):
            relatives += 1
            i += 1
            continue
        verb = verb_at(words, i)
        if verb is None or (not verb.auxiliary and _is_noun_there(words, i)):
            i += 1
        elif relatives:
            relatives -= 1
            i = verb.end
        elif verb.auxiliary:
            return candidate if candidate is not None and _joint_between(words, candidate.end, i) else verb
        elif _before(words, i) in SUBJECT_PRONOUNS:
            return candidate or verb
        else:
            candidate = candidate or verb
            i = verb.end
    return candidate


def _before(words: Sequence[Word], i: int) -> str:
    k = i - 1
    while k >= 0 and words[k].low in ADVERBS | NEGATIONS:
        k -= 1
    return words[k].low if k >= 0 else ""


def _is_noun_there(words: Sequence[Word], i: int) -> bool:
    """Whether a verb form stands where only a noun or adjective can: after an article, a possessive, a preposition."""
    low = _before(words, i)
    return (
        low in ARTICLES
        or low in PLACE_PREPOSITIONS
        or low in SCALES
        or low.endswith("'s")
        or low in ("my", "your", "his", "her", "its", "their", "to", "of", "for", "from", "into", "and", "or", ",", "")
    )


def _joint_between(words: Sequence[Word], start: int, end: int) -> bool:
    joints = ("and", "but", "because", "when", "while", ",", "so", "where", "that", "if")
    return any(word.low in joints for word in words[start:end])
