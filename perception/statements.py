"""Told sentences become `Statement`s: who or what, which property, which value, and when it holds.

This module knows the sentences with which people tell a robot about their home: places, owners, attributes, likes,
relations, roles, habits and events, with negations, corrections and times. It does not know what was said before
(pronouns resolve within one text only) and decides nothing about earlier facts. Pure and deterministic, because facts
are rebuilt from the journal. What it cannot read, it leaves: no statement, and the words stay recallable.

Predicates
    location           "in the blue tin", "with anna": preposition and articles kept                     functional
    owner, name        the owner's name, the name as written                                             functional
    code, birthday ... any attribute noun; the subject is the thing ("the door code": door, code)        functional
    colour, opening, lock, power, condition, cleanliness, filling   scales of adjectives                 functional
    brother, wife ...  relation of the possessor: "Tom is Anna's brother" = (anna, brother, tom)         some
    likes              with ``negated`` for dislikes                                                     no
    is                 classes and other states; "allergic to", "married to" ... keep their preposition  no
    happen             when something takes place: "the appointment is on Friday"                        functional
    have, come, go ... verbs in their base form: events (past) and habits (present)                      no

Times
    present    from ``said`` on, or since/until what is named          past state   until ``said``, or the named span
    moved      from ``said`` (or the named time) on, without end       past event   until ``said``, or the named span
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from ..errors import BadInput
from ..records import Statement
from .clauses import Clause, functional, validity
from .verbs import find_verb, verb_at
from .when import find_when
from .words import (
    ADVERBS,
    PLACE_PREPOSITIONS,
    Mentions,
    Word,
    bag,
    entity_key,
    entity_match,
    name_entity,
    name_place,
    normalise,
    sentences,
    verb_form,
    words_of,
)

__all__ = [
    "STATEMENT_SCHEMA",
    "entity_key",
    "entity_match",
    "functional",
    "parse_statements",
    "statement_prompt",
    "statements_from_json",
]

MAX_CHARS = 4000
"""Longer texts are read up to here; they are documents, not something told in one breath."""
MAX_WORDS = 60
"""Longer sentences are left alone."""


def parse_statements(text: str, said: datetime, zone: ZoneInfo, speaker: str = "owner") -> tuple[Statement, ...]:
    """What a told text claims, in reading order.

    Args:
        text: what was said; questions, commands, other languages and gibberish claim nothing.
        said: aware; when it was said.
        zone: zone of the speaker's clock, for "yesterday evening".
        speaker: who "I" is: ``owner`` or a name. "you" is always ``agent``.

    Returns:
        The statements, without duplicates; empty if nothing could be read with certainty.

    Raises:
        BadInput: ``said`` is naive.
    """
    if said.tzinfo is None:
        raise BadInput(f"expected an aware datetime for said, got the naive {said!r}; add tzinfo")
    return read_statements(text, said, zone, Mentions(speaker.strip().lower() or "owner"))


def read_statements(text: str, said: datetime, zone: ZoneInfo, mentions: Mentions) -> tuple[Statement, ...]:
    """`parse_statements` with what pronouns may refer to; ``mentions`` learns what the text names."""
    found: list[Statement] = []
    for sentence, is_question in sentences(normalise(text[:MAX_CHARS])):
        words = _without_lead(words_of(sentence))
        if is_question and len(words) < 6 and find_verb(words) is None:  # "My glasses? They are on the piano."
            mentions.thing = mentions.group = name_entity(words, mentions)
        if is_question or len(words) > MAX_WORDS or not _tells(words):
            continue
        for clause in _clauses(words):
            found += Clause(sentence, said, zone, mentions).read(clause)
    return tuple(dict.fromkeys(found))


# --- sentences to clauses ---------------------------------------------------------------------------------------------

_LEAD_PHRASES = (
    "no|nope|yes|yeah|ok|okay|hey|hi|hello|well|so|oh|ah|actually|sorry|wait|correction|listen|fyi|btw|"
    "just|please|and|but|also|then|remember|remember that|please remember|please remember that|note|"
    "note that|please note|please note that|do not forget|do not forget that|by the way|"
    "for your information|i mean|i meant|i think|i think that|i believe|i believe that|you should know|"
    "you should know that|i want you to know that|robot|perdure|agent|in fact|to be precise|remember this|"
    "just so you know|good news|update|keep in mind|keep in mind that|today i learned that|"
    "it turns out that|it turns out|my mistake|not true|that is wrong|that is not true|wrong|of course|"
    "anyway|now|one more thing|also note that|let me tell you that|save this|write down|write down that|"
    "make a note|make a note that|thanks|thank you|good morning|good evening|as i said"
)
_LEADS = sorted((lead.split() for lead in _LEAD_PHRASES.split("|")), key=len, reverse=True)
_ASKS = bag(
    "what where who whom whose when why how which is are am was were do does did can could would will shall should may "
    "might must have has had if unless maybe perhaps let whether lest"
)
_HEDGES = bag("if unless maybe perhaps might probably possibly whether supposedly wonder")
_JOINTS = frozenset({"and", "but", ",", ":", "while", "whereas", "so", "then"})


def _without_lead(words: list[Word]) -> list[Word]:
    """The words after "no,", "hey robot,", "remember that" ..."""
    while words:
        lows = [word.low for word in words]
        lead = next((lead for lead in _LEADS if lows[: len(lead)] == lead), None)
        if lead is not None and len(lows) > len(lead):
            words = words[len(lead) :]
        elif lows[0] in (",", ":", "-"):
            words = words[1:]
        else:
            break
    return words


def _tells(words: Sequence[Word]) -> bool:
    """Whether the sentence can be a claim: no question, no command, nothing conditional."""
    if len(words) < 2 or words[0].low in _ASKS:
        return False
    if any(word.low in _HEDGES for word in words):
        return False
    return verb_form(words[0].low, "base") is None or find_verb(words[:3]) is not None


def _clauses(words: list[Word]) -> list[list[Word]]:
    """The clauses of a sentence; a clause without a subject of its own gets the subject of the one before."""
    parts: list[list[Word]] = []
    start, i = 0, 1
    carried: list[Word] = []
    while i < len(words):
        left = carried + words[start:i]
        joint = words[i].low in _JOINTS and (words[i].low != "so" or words[i - 1].low == ",")
        verb = find_verb(left) if joint else None
        if verb is None:
            i += 1
            continue
        j = i
        while j < len(words) and words[j].low in _JOINTS | {"also", "now"}:
            j += 1
        shares = _shares_subject(words[j:], left[0].low not in ("i", "you", "we", "they"))
        if not shares and not _starts_clause(words[j:]):
            i += 1
            continue
        parts.append(left)
        carried = left[: verb.start] if shares else []
        start, i = j, j + 1
    last = carried + words[start:]
    return [*parts, last] if last else parts


def _starts_clause(words: list[Word]) -> bool:
    verb = find_verb(words)
    if verb is None or not 0 < verb.start <= 7:
        return False
    return words[0].low not in PLACE_PREPOSITIONS | {"to", "from", "into", "not"}


def _shares_subject(words: list[Word], third_person: bool) -> bool:
    """Whether the words go on with a verb for the same subject: "(I took the key) and put it on the hook"."""
    k = 0
    while k < len(words) and words[k].low in ADVERBS:
        k += 1
    verb = verb_at(words, k) if k < len(words) else None
    if verb is None:
        return False
    agrees = verb_form(words[k].low, "s") is not None and third_person and verb.end < len(words)
    return verb.tense != "present" or verb.auxiliary or agrees


# --- a language model as second opinion -------------------------------------------------------------------------------

STATEMENT_SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "statements": {
            "type": "array",
            "maxItems": 4,
            "items": {
                "type": "object",
                "properties": {
                    "subject": {"type": "string", "maxLength": 60},
                    "predicate": {"type": "string", "maxLength": 30},
                    "object": {"type": "string", "maxLength": 80},
                    "negated": {"type": "boolean"},
                    "tense": {"enum": ["present", "past"]},
                },
                "required": ["subject", "predicate", "object", "negated", "tense"],
                "additionalProperties": False,
            },
        }
    },
    "required": ["statements"],
    "additionalProperties": False,
}
"""For grammar-constrained decoding of what `statement_prompt` asks."""

_INSTRUCTION = (
    "Extract the facts that the sentence states, as JSON. Use only words of the sentence. The predicate is location, "
    "owner, name, is, likes, an attribute such as colour, code or birthday, or a verb in its base form. "
    "A question, a command or chatter states no fact."
)
_SHOTS = (
    (
        "the spare key you asked about is somewhere in the blue tin",
        '{"statements": [{"subject": "spare key", "predicate": "location", "object": "in the blue tin", '
        '"negated": false, "tense": "present"}]}',
    ),
    (
        "coffee is nothing that Anna likes",
        '{"statements": [{"subject": "Anna", "predicate": "likes", "object": "coffee", "negated": true, '
        '"tense": "present"}]}',
    ),
    ("could you turn the lamp off", '{"statements": []}'),
)


def statement_prompt(text: str) -> list[dict[str, str]]:
    """Chat messages that ask a language model for the facts of a text; all but the last are the same for every text."""
    messages = [{"role": "system", "content": _INSTRUCTION}]
    for told, answer in _SHOTS:
        messages += [{"role": "user", "content": told}, {"role": "assistant", "content": answer}]
    return [*messages, {"role": "user", "content": " ".join(text[:MAX_CHARS].split())}]


def statements_from_json(
    obj: Any, text: str, said: datetime, zone: ZoneInfo, speaker: str = "owner"
) -> tuple[Statement, ...]:
    """The statements of a model's answer, each kept only if its subject and object use words of the text.

    Args:
        obj: what `json.loads` made of the answer; anything else than `STATEMENT_SCHEMA` asks for gives nothing.
        text, said, zone, speaker: as for `parse_statements`. Times come from the text, never from the model.

    Raises:
        BadInput: ``said`` is naive.
    """
    if said.tzinfo is None:
        raise BadInput(f"expected an aware datetime for said, got the naive {said!r}; add tzinfo")
    items = obj.get("statements") if isinstance(obj, Mapping) else None
    if not isinstance(items, list):
        return ()
    plain = normalise(text[:MAX_CHARS])
    mentions = Mentions(speaker.strip().lower() or "owner")
    found = []
    for item in items[:4]:
        fields = [item.get(name) for name in ("subject", "predicate", "object")] if isinstance(item, Mapping) else []
        if len(fields) != 3 or not all(isinstance(field, str) and field.strip() for field in fields):
            continue
        subject_text, predicate_text, value_text = (str(field) for field in fields)
        if not (said_in(subject_text, plain) and said_in(value_text, plain)):
            continue
        predicate = predicate_text.strip().lower().replace("_", " ")
        subject = name_entity(words_of(normalise(subject_text)), mentions)
        value_words = words_of(normalise(value_text))
        named = name_place(value_words, mentions) if predicate == "location" else name_entity(value_words, mentions)
        if functional(predicate) and predicate not in ("location", "owner"):
            named = value_text.strip()
        if subject is None or named is None:
            continue
        tense = "past" if item.get("tense") == "past" else "present"
        times = find_when(plain, said, zone, "past" if tense == "past" else "future")
        valid = validity(tense, times, said, False, False)
        found.append(Statement(subject, predicate, named, functional(predicate), valid, item.get("negated") is True))
    return tuple(dict.fromkeys(found))


def said_in(phrase: str, text: str) -> bool:
    """Whether every word of a phrase occurs in the text, up to its ending; articles do not count."""
    spoken = set(entity_key(text).replace("'s", "").split())
    asked = entity_key(normalise(phrase)).replace("'s", "").split()
    return bool(asked) and all(word in spoken for word in asked)
