"""What one clause claims: from its verb, subject and complement to `Statement`s.

This module knows clauses. It does not know how a text falls into clauses, nor leads, questions and hedges
(`statements`), and it decides nothing about earlier facts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from ..records import Interval, Statement
from .verbs import find_verb, verb_at
from .when import Prefer, When, find_when
from .words import (
    ADVERBS,
    ARTICLES,
    ATTRIBUTES,
    DATE_ATTRIBUTES,
    FUNCTIONAL_KIN,
    KIN,
    NEGATIONS,
    PLACE_ADVERBS,
    PLACE_PREPOSITIONS,
    SCALES,
    SUBJECT_PRONOUNS,
    TWO_WORD_ATTRIBUTES,
    Mentions,
    Word,
    bag,
    is_person,
    name_entity,
    name_place,
    place_start,
    scale_of,
    split_attribute,
    verb_form,
    words_of,
)

_FUNCTIONAL = bag("location owner name happen live work weigh cost from") | frozenset(SCALES.values())


def functional(predicate: str) -> bool:
    """Whether a thing has one value of this predicate at a time, so that a new one closes the old."""
    last = predicate.rpartition(" ")[2]
    return (
        predicate in _FUNCTIONAL
        or predicate in FUNCTIONAL_KIN
        or predicate in ATTRIBUTES
        or predicate in TWO_WORD_ATTRIBUTES
        or predicate.startswith("favourite ")
        or last in {"number", "date", "plate", "type", "size"}
        or predicate == "date of birth"
    )


_PUT = bag(
    "put place leave set store lay hang hide park drop move bring carry return throw stick keep forget shift transfer "
    "tuck dump slip mount take locate"
)
_GO = bag("go move travel journey walk run return drive fly head ride")
_GIVE = bag("give lend hand pass loan")
_TAKE = bag("take borrow steal carry get pick grab lift")
_NOT_TAKEN = bag(
    "shower nap walk bath break bus train taxi photo picture pill pills medicine time look seat call tram ride"
)
_LIKE = {"like": False, "love": False, "enjoy": False, "adore": False, "prefer": False,
         "hate": True, "dislike": True, "despise": True, "detest": True}  # fmt: skip
_REPORT = bag("say tell think know believe hope guess ask mean hear feel understand let must maybe")
_AT_REST = bag("kept stored located parked hidden hanging lying sitting standing placed put left stuck")
_WITH_PREPOSITION = bag("allergic married engaged related afraid scared responsible interested made used")
_SITUATED = bag("asleep awake alone back busy sick ill stuck safe ready")
_TAILS = bag("because although though whereas when who whom which where while so")
_NOBODY = bag("everything nothing anything everyone everybody nobody none")
_PARTICLES = bag("back away down up over out off")


@dataclass
class Clause:
    """Reads one clause of a sentence."""

    sentence: str
    said: datetime
    zone: ZoneInfo
    mentions: Mentions

    def read(self, clause: list[Word]) -> list[Statement]:
        self.clause = self.cut_tail(clause)
        past = self.whens("past")
        bare = [word for word in self.clause if not any(_inside(word, when) for when in past)]
        while bare and bare[0].low in ADVERBS | {",", "and"}:
            bare = bare[1:]
        verb = find_verb(bare)
        if verb is None or verb.lemma in _REPORT:
            return []
        self.verb, self.rest = verb, _trim(bare[verb.end :])
        self.subject_words = bare[: verb.start]
        self.negated = verb.negated
        while self.subject_words and self.subject_words[-1].low in ADVERBS | NEGATIONS | {","}:
            self.negated ^= self.subject_words[-1].low in NEGATIONS
            self.subject_words = self.subject_words[:-1]
        relative = next(
            (k for k, word in enumerate(self.subject_words) if k and word.low in ("that", "which", "who")), None
        )
        self.subject_words = self.subject_words[:relative]
        self.times = past if verb.tense in ("past", "perfect") else self.future_whens(past)
        if not self.subject_words or self.subject_words[0].low in _NOBODY:
            return []
        if any(word.low in SUBJECT_PRONOUNS for word in self.subject_words[1:]):
            return []
        relation = self.apposition()
        found = self.dispatch()
        self.remember(found)
        return [*relation, *found] if found else []

    def apposition(self) -> list[Statement]:
        """The relation in "my wife Julia likes tea"; the subject becomes "Julia"."""
        words = self.subject_words
        for k in range(1, len(words) - 1):
            relation = split_attribute(words[: k + 1], self.mentions)
            if relation and relation[1] in KIN and all(word.text[:1].isupper() for word in words[k + 1 :]):
                self.subject_words = words[k + 1 :]
                name = name_entity(self.subject_words, self.mentions)
                return [Statement(*relation, name, functional(relation[1]), Interval(self.said, None))] if name else []
        return []

    def whens(self, prefer: Prefer) -> list[When]:
        found = find_when(self.sentence, self.said, self.zone, prefer)
        return [when for when in found if any(_inside(word, when) for word in self.clause)]

    def future_whens(self, past: list[When]) -> list[When]:
        """For the present tense: weekdays lie ahead, except after "since"."""
        since = [when for when in past if when.phrase.lower().startswith("since")]
        return since or self.whens("future")

    def cut_tail(self, clause: list[Word]) -> list[Word]:
        """The clause without a subordinate one behind it ("... when I left")."""
        verb = find_verb(clause)
        if verb is None:
            return clause
        for k in range(verb.end, len(clause)):
            if clause[k].low in _TAILS and k > verb.end and (clause[k].low != "so" or clause[k - 1].low == ","):
                return clause[:k] if clause[k].low != "when" or verb.tense in ("past", "perfect") else []
            if clause[k].low == "that" and k > verb.end and k + 1 < len(clause) and verb_at(clause, k + 1):
                return clause[:k]
        return clause

    def dispatch(self) -> list[Statement]:
        lemma, moved = self.verb.lemma, self.verb.tense in ("past", "perfect")
        if self.subject_words[0].low == "there" and lemma == "be":
            return self.there_is()
        if lemma == "be":
            return self.be()
        subjects = self.names(self.subject_words)
        if not subjects:
            return []
        if lemma in _LIKE:
            return self.likes(subjects, _LIKE[lemma])
        if lemma == "own":
            return [self.claim(thing, "owner", one) for one in subjects for thing in self.names(self.rest)]
        if lemma == "belong" and self.rest and self.rest[0].low == "to":
            return [self.claim(one, "owner", who) for one in subjects for who in self.names(self.rest[1:])]
        if lemma in _GIVE and moved:
            return self.give(subjects[0]) or self.generic(subjects)
        if (lemma in _PUT or lemma in _TAKE) and (moved or lemma in ("keep", "store", "hang", "park", "hide")):
            return self.put(subjects) or self.generic(subjects)
        if lemma == "can" and self.rest and self.rest[0].low == "find":
            lemma, self.rest = "find", self.rest[1:]
        if (lemma == "find" or (lemma == "see" and moved)) and place_start(self.rest, 1):
            return self.found_at()
        if lemma == "have":
            return self.have(subjects)
        if lemma in ("change", "set") and moved and (changed := self.changed_to()):
            return changed
        return self.generic(subjects)

    # being

    def there_is(self) -> list[Statement]:
        k = place_start(self.rest, 1)
        place = name_place(self.rest[k:], self.mentions) if k else None
        return [self.claim(name, "location", place) for name in self.names(self.rest[:k])] if place else []

    def be(self) -> list[Statement]:
        lows = [word.low for word in self.rest]
        if self.negated and "but" in lows:
            k = lows.index("but")
            return self.be_each(self.rest[:k], True) + self.be_each(self.rest[k + 1 :], False)
        for k in range(1, len(lows) - 1):
            if lows[k] == "not" and lows[k - 1] in (",", "but", "and"):
                return self.be_each(self.rest[: k - 1], self.negated) + self.be_each(self.rest[k + 1 :], True)
        return self.be_each(self.rest, self.negated)

    def be_each(self, complement: list[Word], negated: bool) -> list[Statement]:
        complement = _trim(complement)
        if (special := self.be_whole_subject(complement, negated)) is not None:
            return special
        subjects = self.names(self.subject_words)
        found = []
        for subject in subjects:
            claim = self.be_one(subject, complement, negated)
            if claim is None:
                return []
            found += claim
        return found

    def be_whole_subject(self, complement: list[Word], negated: bool) -> list[Statement] | None:
        """Readings that need the words of the subject, not only its name; None if there is none."""
        mentions, lows = self.mentions, [word.low for word in complement]
        attribute = split_attribute(self.subject_words, mentions)
        if attribute and attribute[1] in DATE_ATTRIBUTES and self.times:
            value = self.raw([word for word in self.clause if word.start > self.verb_end()])
            self.times = []  # the date is the value, not the time at which it holds
            return [self.claim(*attribute, _without_preposition(value), negated)]
        if not complement:
            return None
        if attribute and lows[0] not in PLACE_PREPOSITIONS and lows[0] not in ("called", "named", "a", "an"):
            if attribute[1] not in KIN:
                return [self.claim(*attribute, self.raw(complement), negated)]
            people = self.names(complement)
            if people and all(
                is_person(words_of(part.strip())) for part in self.raw(complement).replace(",", " and ").split(" and ")
            ):
                return [self.claim(*attribute, person, negated) for person in people]
        if lows[-1] == "one" and lows[0] == "the" and (owned := _possession(self.subject_words, mentions)):
            return [self.claim(" ".join([*lows[1:-1], owned[1]]), "owner", owned[0], negated)]
        owned = _possession(complement, mentions)
        if owned and split_attribute(complement, mentions) is None and len(self.subject_words) == 1:
            subject = name_entity(self.subject_words, mentions)
            pointing = self.subject_words[0].low in ("this", "that", "it", "these", "those", "they")
            claims = (
                [self.claim(subject if subject else owned[1], "owner", owned[0], negated)]
                if subject or pointing
                else []
            )
            return claims if pointing or subject is None else [*claims, self.claim(subject, "is", owned[1], negated)]
        return None

    def be_one(self, subject: str, complement: list[Word], negated: bool) -> list[Statement] | None:
        """Claims about one named subject; None if the complement cannot be read."""
        mentions, lows = self.mentions, [word.low for word in complement]
        if not complement:
            spans = self.times
            return (
                [self.claim(subject, "happen", " ".join(w.phrase.lower() for w in spans), negated)] if spans else None
            )
        scale = scale_of(lows)
        if scale:
            return [self.claim(subject, scale, " ".join(lows), negated)]
        if place_start(complement) == 1 and (scale := scale_of(lows[:1])):  # "the lights are off in the hall"
            where = name_place(complement[1:], mentions)
            return [self.claim(f"{subject} {where}", scale, lows[0], negated)] if where else None
        if lows[-2:] in (["years", "old"], ["year", "old"]) and len(lows) == 3:
            return [self.claim(subject, "age", lows[0], negated)]
        if lows[0] in PLACE_PREPOSITIONS or lows[0] in PLACE_ADVERBS:
            place = name_place(complement, mentions)
            return [self.claim(subject, "location", place, negated)] if place else None
        if lows[0] in ("called", "named") and len(lows) > 1:
            return [self.claim(subject, "name", self.raw(complement[1:]), negated)]
        if lows[-1] in ("mine", "yours", "hers", "theirs", "ours") or (lows[-1].endswith("'s") and len(lows) <= 3):
            who = mentions.pronoun(lows[-1]) if not lows[-1].endswith("'s") else name_entity(complement, mentions)
            return [self.claim(subject, "owner", who.removesuffix("'s"), negated)] if who else None
        if lows[-2:] == ["one"] or lows[0] in ("to", "of"):
            return None
        if lows[:3] == ["the", "owner", "of"] and len(lows) > 3:
            return [self.claim(thing, "owner", subject, negated) for thing in self.names(complement[3:])]
        relation = split_attribute(complement, mentions)
        if relation and relation[1] in KIN:
            return [self.claim(*relation, subject, negated)]
        if (
            len(lows) > 2
            and lows[0] in _WITH_PREPOSITION
            and lows[1] in ("to", "of", "for", "in", "with", "from", "by")
        ):
            return [self.claim(subject, " ".join(lows[:2]), name, negated) for name in self.names(complement[2:])]
        if lows[0] in ("from", "for") and (name := name_entity(complement[1:], mentions)):
            return [self.claim(subject, lows[0], name, negated)]
        if (passive := verb_form(lows[0], "part")) and lows[0] != "left":
            return self.passive(subject, passive, complement, negated)
        if lows[0] in _SITUATED and (k := place_start(complement, 1)):
            where = name_place(complement[k:], mentions)
            state = [] if lows[0] == "back" else [self.claim(subject, "is", lows[0], negated)]
            return [*state, self.claim(subject, "location", where, negated)] if where else None
        value = name_entity(complement, mentions)
        return [self.claim(subject, "is", value, negated, lasting=subject in ATTRIBUTES)] if value else None

    def passive(self, subject: str, lemma: str, complement: list[Word], negated: bool) -> list[Statement] | None:
        rest = complement[1:]
        by_at = next((k for k, word in enumerate(rest) if word.low == "by" and is_person(rest[k + 1 :] or rest)), None)
        by = name_entity(rest[by_at + 1 :], self.mentions) if by_at is not None else None
        if lemma == "own":
            return [self.claim(subject, "owner", by, negated)] if by else None
        before = rest[:by_at] if by_at is not None else rest
        goal = _goal(before, 0)
        if goal and goal[1] < len(before) and (lemma in _PUT or complement[0].low in _AT_REST):
            place = name_place(before[goal[1] :], self.mentions)
            changed = (
                self.verb.tense in ("past", "perfect") and lemma in _PUT - {"keep", "store"} and bool(self.moves(lemma))
            )
            return [self.claim(subject, "location", place, negated, by=by, changed=changed)] if place else None
        value = name_entity(rest, self.mentions) if rest else ""
        if rest and rest[0].low in PLACE_PREPOSITIONS:
            value = name_place(rest, self.mentions)
        return [self.claim(subject, lemma, value or "", negated, event=True)]

    @staticmethod
    def moves(lemma: str) -> bool:
        return lemma in ("put", "place", "move", "bring", "take", "carry", "return", "drop", "shift", "transfer")

    # doing

    def likes(self, subjects: list[str], hates: bool) -> list[Statement]:
        rest = self.rest
        lows = [word.low for word in rest]
        if self.verb.lemma == "prefer":
            rest = rest[: next((k for k, low in enumerate(lows) if low in ("to", "over", "than") and k), len(rest))]
        not_at = next((k for k in range(1, len(lows)) if lows[k] == "not" and lows[k - 1] in (",", "but", "and")), None)
        pairs = [(rest, False)] if not_at is None else [(rest[: not_at - 1], False), (rest[not_at + 1 :], True)]
        return [
            self.claim(subject, "likes", name, self.negated ^ hates ^ turned)
            for subject in subjects
            for words, turned in pairs
            for name in self.names(words)
        ]

    def give(self, giver: str) -> list[Statement]:
        rest = self.rest
        to_at = next((k for k, word in enumerate(rest) if word.low == "to" and k), None)
        if to_at is not None:
            things, who = rest[:to_at], rest[to_at + 1 :]
        else:
            cut = next(
                (k for k in range(1, len(rest)) if rest[k].low in ARTICLES | {"my", "his", "her", "their", "your"}), 0
            )
            who, things = rest[:cut], rest[cut:]
        purpose = next((k for k, word in enumerate(things) if word.low in ("for", "as") and k), len(things))
        things = things[:purpose]
        receiver = name_entity(who, self.mentions) if who else None
        if receiver is None:
            return []
        return [
            self.claim(thing, "location", f"with {receiver}", by=giver, changed=True) for thing in self.names(things)
        ]

    def put(self, subjects: list[str]) -> list[Statement]:
        by = " and ".join(subjects)
        found: list[Statement] = []
        for part in _gapped(self.rest):
            while part and part[0].low in _PARTICLES:
                part = part[1:]
            if self.verb.lemma in _TAKE and part and part[-1].low in ("here", "there"):
                part = part[:-1]
            end, begin = _goal(part, 1) or (len(part), len(part))
            things = self.names(part[:end])
            place = name_place(part[begin:], self.mentions)
            if begin == len(part) and self.verb.lemma in _TAKE and part and part[-1].low not in _NOT_TAKEN:
                place = f"with {by}"
            if not things or place is None:
                return []
            changed = self.verb.tense != "present"
            found += [self.claim(t, "location", place, by=by if changed else None, changed=changed) for t in things]
        return found

    def found_at(self) -> list[Statement]:
        k = place_start(self.rest, 1)
        place = name_place(self.rest[k:], self.mentions) if k else None
        return [self.claim(thing, "location", place) for thing in self.names(self.rest[:k])] if place else []

    def changed_to(self) -> list[Statement]:
        """ "The door code changed to 1234", "I changed the door code to 1234"."""
        lows = [word.low for word in self.rest]
        if "to" not in lows[:-1]:
            return []
        k = lows.index("to")
        attribute = split_attribute(self.rest[:k] if k else self.subject_words, self.mentions)
        return [self.claim(*attribute, self.raw(self.rest[k + 1 :]), changed=True)] if attribute else []

    def have(self, subjects: list[str]) -> list[Statement]:
        definite = bool(self.rest) and self.rest[0].low in ("the", "my", "your", "our", "his", "her")
        if definite and not self.negated:
            return [self.claim(t, "location", f"with {one}") for one in subjects for t in self.names(self.rest)]
        return [self.claim(one, "have", t) for one in subjects for t in self.names(self.rest, whole=True)]

    def generic(self, subjects: list[str]) -> list[Statement]:
        lemma, rest = self.verb.lemma, self.rest
        if lemma in _GO and rest and rest[0].low == "back":
            rest = rest[1:]
        value: str | None = ""
        if rest:
            place = rest[0].low in PLACE_PREPOSITIONS or rest[0].low in PLACE_ADVERBS
            value = name_place(rest, self.mentions) if place else name_entity(rest, self.mentions)
        if value is None:
            return []
        placed = bool(rest) and (rest[0].low in PLACE_PREPOSITIONS or rest[0].low in PLACE_ADVERBS)
        rests = lemma in ("live", "belong", "go", "sit", "hang", "stand") and self.verb.tense == "present"
        if rests and placed and value and not is_person(self.subject_words):
            return [self.claim(one, "location", value) for one in subjects]
        found = [self.claim(one, lemma, value, event=True) for one in subjects]
        if not rest or self.negated:
            return found
        arrived = rest[0].low in ("to", "into", "home", *PLACE_ADVERBS) and self.verb.tense in ("past", "perfect")
        stays = self.verb.tense == "progressive" and rest[0].low in PLACE_PREPOSITIONS and not self.times
        if (stays or (lemma in _GO and arrived)) and (where := name_place(rest, self.mentions)):
            found += [self.claim(one, "location", where, changed=arrived and not self.times) for one in subjects]
        return found

    # names, values, times

    def names(self, words: Sequence[Word], whole: bool = False) -> list[str]:
        """The entities of a coordination ("the keys, the hat and the wallet"); empty if one cannot be named."""
        parts: list[list[Word]] = [[]]
        for word in words:
            if word.low in ("and", "or", ",", "both") and not whole:
                parts.append([])
            else:
                parts[-1].append(word)
        found = [name_entity(_without_relative(part), self.mentions) for part in parts if part]
        return [name for name in found if name] if all(found) else []

    def raw(self, words: Sequence[Word]) -> str:
        """The words as they were written."""
        kept = [word for word in words if word.low not in (",", ":", "and") or word is not words[-1]]
        while len(kept) > 1 and kept[0].low in ("the", ",", ":", '"'):
            kept = kept[1:]
        return self.sentence[kept[0].start : kept[-1].end].strip("\"' ") if kept else ""

    def verb_end(self) -> int:
        """The character before which the clause has its subject and verb."""
        at = next(i for i, word in enumerate(self.clause) if verb_at(self.clause, i) is not None and i > 0)
        return self.clause[at].start

    def claim(
        self, subject: str, predicate: str, value: str, negated: bool | None = None, *, by: str | None = None,
        changed: bool = False, event: bool = False, lasting: bool = False,
    ) -> Statement:  # fmt: skip
        """One statement with its times. ``changed``: true from then on; ``event``: it happened within the time."""
        valid = validity(self.verb.tense, self.times, self.said, changed, event)
        if predicate == "happen" and self.times:
            valid = _common(self.times)
        turned = self.negated if negated is None else negated
        return Statement(subject, predicate, value, lasting or functional(predicate), valid, turned, by)

    def remember(self, found: Sequence[Statement]) -> None:
        """What later pronouns of the text refer to."""
        words, mentions = self.subject_words, self.mentions
        lows = [word.low for word in words]
        subject = name_entity(words, mentions) if "and" not in lows else None
        attribute = split_attribute(words, mentions)
        if attribute and found and attribute[0] not in (mentions.speaker, "agent"):
            mentions.person = attribute[0]  # "my daughter's name is Emma and she ..."
            if attribute[1] == "name":
                mentions.thing = attribute[0]
                return
        if words and lows[0] not in SUBJECT_PRONOUNS | {"there", "this", "that"} and subject:
            if is_person(words):
                mentions.person = subject
            if not is_person(words) or words[0].start == 0:
                mentions.thing = subject
            mentions.group = (
                subject if lows[-1].endswith("s") and not lows[-1].endswith(("ss", "'s")) else mentions.group
            )
        for statement in found:
            if statement.predicate in ("location", "owner") and statement.subject != subject:
                mentions.thing = mentions.group = statement.subject
            elif statement.predicate in ("have", "buy", "find", "see", "get", "order") and statement.object:
                mentions.thing = mentions.group = statement.object
        if "and" in lows and len(found) > 1:
            mentions.group = " and ".join(dict.fromkeys(statement.subject for statement in found))


def _inside(word: Word, when: When) -> bool:
    return when.start_char <= word.start < when.end_char


def _trim(words: list[Word]) -> list[Word]:
    """Without leading adverbs and trailing fillers."""
    while words and words[0].low in ADVERBS | {",", ":"}:
        words = words[1:]
    while words and words[-1].low in {
        "too",
        "anymore",
        "either",
        "please",
        ",",
        "now",
        "again",
        "currently",
        "instead",
    }:
        words = words[:-1]
    return words


def _without_preposition(value: str) -> str:
    first, _, rest = value.partition(" ")
    return rest if first.lower() in ("is", "on", "in", "was", "at") and rest and first.lower() != rest else value


def _without_relative(words: list[Word]) -> list[Word]:
    """ "the book" of "the book you recommended"."""
    for k in range(1, len(words) - 1):
        if words[k].low in SUBJECT_PRONOUNS and verb_at(words, k + 1):
            return words[:k]
    return words


def _possession(words: Sequence[Word], mentions: Mentions) -> tuple[str, str] | None:
    """(owner, thing) of "Tom's bike" or "my bike"."""
    for k in range(len(words) - 1 if words[0].low not in PLACE_PREPOSITIONS else 0):
        low = words[k].low
        if low.endswith("'s") or low in ("my", "your", "his", "her", "their"):
            owner = name_entity(words[: k + 1], mentions) if low.endswith("'s") else mentions.pronoun(low)
            thing = name_entity(words[k + 1 :], mentions)
            return (owner.removesuffix("'s"), thing) if owner and thing else None
    return None


def _goal(words: Sequence[Word], start: int) -> tuple[int, int] | None:
    """(end of the thing, begin of the place) of what was put somewhere; the place of "from X to Y" begins at "to Y"."""
    for k in range(start, len(words)):
        low = words[k].low
        if low in ("to", "into", "onto") and k + 1 < len(words):
            return k, k
        if low == "from":
            goals = [m for m in range(k + 1, len(words) - 1) if words[m].low in ("to", "into", "onto")]
            return (k, goals[0]) if goals else (k, len(words))
        if place_start(words[k : k + 2]) == 0 and (k + 1 < len(words) or low in PLACE_ADVERBS):
            return k, k
    return None


def _gapped(words: list[Word]) -> list[list[Word]]:
    """ "the keys on the hook and the wallet in the drawer": one list for each thing and its place."""
    parts: list[list[Word]] = [[]]
    for k, word in enumerate(words):
        following = words[k + 1 :]
        if word.low in ("and", ",") and _goal(parts[-1], 1) and _goal(following, 1):
            parts.append([])
        else:
            parts[-1].append(word)
    return [part for part in parts if part]


def _common(times: Sequence[When]) -> Interval:
    """What all spans have in common; the first if they have nothing."""
    starts = [when.interval.start for when in times if when.interval.start]
    ends = [when.interval.end for when in times if when.interval.end]
    start, end = max(starts, default=None), min(ends, default=None)
    return times[0].interval if start and end and start >= end else Interval(start, end)


def validity(tense: str, times: Sequence[When], said: datetime, changed: bool, event: bool) -> Interval:
    """When a claim holds; see the table at the top of the module."""
    span = _common(times) if times else None
    if changed:
        start = (span.start or span.end) if span else said
        return Interval(start or said, None)
    if tense in ("past", "perfect") and (tense == "past" or event):
        if span is None:
            return Interval(None, said)
        open_end = span.end is None and span.start is not None and span.start < said
        return Interval(span.start, said) if open_end and tense == "past" else span
    if span is None:
        return Interval(said, None)
    if span.start is None and span.end and span.end > said:
        return Interval(said, span.end)
    return span
