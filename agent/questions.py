"""Questions become typed queries: what is asked, about whom, over which time.

This module knows how people ask a robot about their home, about what it saw and what it was told. It does not know
where the answers are. Names are made by the same functions as those of told statements (`perception.words`), so that
"my keys" means one thing in both. Pure and deterministic; a question that no rule reads is ``unknown``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, get_args
from zoneinfo import ZoneInfo

from ..errors import BadInput
from ..perception.statements import said_in
from ..perception.words import PLACE_PREPOSITIONS, Mentions, name_entity, name_place, normalise, sentences, words_of
from .asking import ARTICLE_LEAD, Asked
from .queries import Happening, Kind, Order, Query
from .question_rules import read_told
from .world_questions import fronted, read_world_question

__all__ = [
    "QUERY_SCHEMA",
    "Happening",
    "Kind",
    "Order",
    "Query",
    "parse_question",
    "parse_questions",
    "query_from_json",
    "question_prompt",
]

MAX_CHARS = 1000
"""Longer questions are read up to here."""


def parse_question(text: str, now: datetime, zone: ZoneInfo, asker: str = "owner") -> Query:
    """The (first) query that a question asks; kind ``unknown`` if no rule reads it.

    Args:
        text: what was asked; any text is allowed.
        now: aware; when it was asked.
        zone: zone of the asker's clock, for "on Tuesday evening".
        asker: who "I" is: ``owner`` or a name. "you" is always ``agent``.

    Raises:
        BadInput: ``now`` is naive.
    """
    return parse_questions(text, now, zone, asker)[0]


def parse_questions(text: str, now: datetime, zone: ZoneInfo, asker: str = "owner") -> tuple[Query, ...]:
    """The queries of a compound question: "Where were the keys on Tuesday, and who moved them?"; at least one.

    Arguments and errors as for `parse_question`.
    """
    if now.tzinfo is None:
        raise BadInput(f"expected an aware datetime for now, got the naive {now!r}; add tzinfo")
    spoken = sentences(normalise(text[:MAX_CHARS]))
    asked = [sentence for sentence, is_question in spoken if is_question] or [s for s, _ in spoken[-1:]]
    mentions = Mentions(asker.strip().lower() or "owner")
    found = []
    for sentence in asked:
        before = ""
        for part in _JOINT.split(fronted(sentence)):
            query = _read(Asked(before + part, now, zone, mentions))
            if query.kind == "unknown":  # "Yesterday, what did you see?"
                before += part + ", "
                continue
            before = ""
            for subject in (query.subject or "").split(" and "):
                found.append(replace(query, subject=ARTICLE_LEAD.sub("", subject) or None, text=text))
            mentions.thing = mentions.group = query.subject or mentions.thing
            mentions.person = query.subject or mentions.person
    return tuple(dict.fromkeys(found)) or (Query("unknown", text=text),)


def _read(asked: Asked) -> Query:
    """What the rules for told things read, completed or replaced by what those for a watched world do."""
    told, watched = read_told(asked), read_world_question(asked)
    if watched is None or told.kind in _TOLD or (told.kind, watched.kind) == ("when_seen", "usual_time"):
        return told
    if told.kind == watched.kind == "location" and (told.subject or "").endswith(f" the {watched.subject}"):
        return watched  # "where would I have found the torch"
    if told.kind == watched.kind and not watched.anchor and not watched.side:
        more = {"events": watched.events, "side": watched.side, "relation": watched.relation, "anchor": watched.anchor}
        return replace(told, **more)  # type: ignore[arg-type]
    return watched


_TOLD = frozenset({"when_told", "what_told", "outage", "owner", "likes"})
_JOINT = re.compile(r"(?:,?\s+and\s+|,\s+)(?=(?:who|where|when|what|whose|how|why|which)\b)", re.IGNORECASE)
# --- a language model as second opinion -------------------------------------------------------------------------------

_MODEL_KINDS = tuple(
    kind
    for kind in get_args(Kind)
    if kind not in ("state", "order", "changed", "why", "usual_place", "usual_time")  # these need more than names
)

QUERY_SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "kind": {"enum": list(_MODEL_KINDS)},
        "subject": {"anyOf": [{"type": "string", "maxLength": 60}, {"type": "null"}]},
        "predicate": {"anyOf": [{"type": "string", "maxLength": 30}, {"type": "null"}]},
        "object": {"anyOf": [{"type": "string", "maxLength": 60}, {"type": "null"}]},
        "order": {"enum": ["first", "last", None]},
    },
    "required": ["kind", "subject", "predicate", "object", "order"],
    "additionalProperties": False,
}
"""For grammar-constrained decoding of what `question_prompt` asks."""

_INSTRUCTION = (
    "Classify the question and copy its words, as JSON. Kinds: location, owner, attribute, who_did, likes, yes_no, "
    "when_seen, when_told, when_happened, count, what_seen, outage, what_told, unknown. Anything that is no question "
    "about this home or about you is unknown."
)
_SHOTS = (
    (
        "any clue as to the whereabouts of the spare key",
        '{"kind": "location", "subject": "spare key", "predicate": "location", "object": null, "order": null}',
    ),
    (
        "the colour of Tom's bike, which one is it",
        '{"kind": "attribute", "subject": "Tom\'s bike", "predicate": "colour", "object": null, "order": null}',
    ),
    (
        "a dog, did one come by, the last time I mean",
        '{"kind": "when_seen", "subject": "dog", "predicate": "seen", "object": null, "order": "last"}',
    ),
    ("sing me a song", '{"kind": "unknown", "subject": null, "predicate": null, "object": null, "order": null}'),
)
_FIXED_PREDICATE = {
    **{kind: kind for kind in ("location", "owner", "likes", "outage")},
    **{"when_seen": "seen", "what_seen": "seen", "when_told": "told", "what_told": "told"},
}
_NEEDS_SUBJECT = frozenset(
    {"location", "owner", "attribute", "when_seen", "when_told", "when_happened", "count", "yes_no"}
)


def question_prompt(text: str) -> list[dict[str, str]]:
    """Chat messages that ask a language model for the query of a question; all but the last are always the same."""
    messages = [{"role": "system", "content": _INSTRUCTION}]
    for asked, answer in _SHOTS:
        messages += [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
    return [*messages, {"role": "user", "content": " ".join(text[:MAX_CHARS].split())}]


def query_from_json(obj: Any, text: str, now: datetime, zone: ZoneInfo, asker: str = "owner") -> Query:
    """The query of a model's answer; ``unknown`` unless it has the shape of `QUERY_SCHEMA` and speaks of the question.

    Args:
        obj: what `json.loads` made of the answer.
        text, now, zone, asker: as for `parse_question`. The time comes from the text, never from the model; subject and
            object must use words of the text.

    Raises:
        BadInput: ``now`` is naive.
    """
    if now.tzinfo is None:
        raise BadInput(f"expected an aware datetime for now, got the naive {now!r}; add tzinfo")
    unknown = Query("unknown", text=text)
    if not isinstance(obj, Mapping) or obj.get("kind") not in _MODEL_KINDS or obj["kind"] == "unknown":
        return unknown
    kind: Kind = obj["kind"]
    plain = normalise(text[:MAX_CHARS])
    asked = Asked(plain, now, zone, Mentions(asker.strip().lower() or "owner"))
    names: dict[str, str | None] = {}
    for field in ("subject", "object"):
        value = obj.get(field)
        if value is None or (isinstance(value, str) and not value.strip()):
            names[field] = None
            continue
        if not isinstance(value, str) or not said_in(value, plain):
            return unknown
        words = words_of(normalise(value))
        placed = bool(words) and words[0].low in PLACE_PREPOSITIONS
        names[field] = name_place(words, asked.mentions) if placed else name_entity(words, asked.mentions)
    predicate = _FIXED_PREDICATE.get(kind) or (str(obj["predicate"]).strip().lower() if obj.get("predicate") else None)
    if kind == "outage":
        names = {"subject": None, "object": "any"}
    if kind in _NEEDS_SUBJECT and names["subject"] is None:
        return unknown
    if kind in ("attribute", "who_did") and not predicate:
        return unknown
    order: Order | None = obj["order"] if obj.get("order") in get_args(Order) else None
    query = Query(kind, names["subject"], predicate, names["object"], None, order, text)
    return replace(query, when=asked.span(query))
