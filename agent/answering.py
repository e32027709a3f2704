"""From a parsed question to a finding: a value, the records that prove it, or the reason why there is none.

It asks beliefs for facts and memory for events; it never asks a language model, so a finding cannot contain anything
that no record says. `wording.py` makes a sentence of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from ..memory import Memory
from ..perception.statements import entity_key, functional
from ..records import Evidence, Fact, Hit, Interval, Reason, Record
from ..world_model import Beliefs
from .findings import Asked, Finding, as_evidence, describe_time, evidence_of, unknown
from .world_answering import World, find_in_world

_MOST_EVIDENCE = 5
PICTURE_EVIDENCE = {"imagenet-bridge": 0.60}
"""Least cosine at which a key frame proves a name. On bikes.mp4, of twenty names, 0.60 keeps bike, bicycle, car, van,
bus, suit, and refuses cat, dog, person, boat, train and pizza (0.41 to 0.54). An encoder that nobody calibrated proves
nothing by its vectors alone."""
_NEVER = 2.0
_FRAME_CONFIDENCE = 0.6
"""A label by an ImageNet classifier on real video: right more often than not, no more is claimed."""


def find(memory: Memory, asked: Asked, world: World | None = None) -> Finding:
    """Answer from what is stored. Without evidence the value is None and ``reason`` says what was missing.

    Args:
        memory: facts and records.
        asked: the question.
        world: what was seen of a world, if the agent watches one; asked first.
    """
    found = find_in_world(memory, world, asked) if world is not None else None
    return found if found is not None else _FINDERS.get(asked.query.kind, _quoted)(memory, asked)


# ------------------------------------------------------------------------- facts


def _fact(memory: Memory, asked: Asked) -> Finding:
    query = asked.query
    predicate = query.predicate if query.kind == "attribute" else query.kind
    if query.subject is None and query.object is not None and predicate is not None:
        return _things_with(memory, asked, predicate, query.object)
    if query.subject is None or predicate is None:
        return _quoted(memory, asked)
    belief = Beliefs(memory).state(query.subject, predicate, at=_at(asked), as_of=asked.as_of)
    if belief.value is None:
        if query.kind == "location":
            return _seen_or_quoted(memory, asked, belief.reason)
        return unknown(belief.reason)
    evidence = evidence_of(memory, belief.evidence, belief.reason)
    value = _as_told(str(belief.value), evidence)
    tense = "was" if query.when is not None else "is"
    if query.kind == "location":
        said = f"The {query.subject} {tense} {value}."
    elif query.kind == "owner":
        said = f"The {query.subject} belongs to {value}."
    else:
        said = f"The {predicate} of {query.subject} {tense} {value}."
    when = describe_time(evidence[-1].time, asked.zone, asked.now) if evidence else ""
    return Finding(value, f"{said} I was told {when}.", value, evidence, belief.confidence, belief.reason)


def _things_with(memory: Memory, asked: Asked, predicate: str, value: str) -> Finding:
    """The question the other way round: what is in the tin, what does Tom own, who likes tea."""
    facts = [f for f in memory.facts(None, predicate, value, at=_at(asked), as_of=asked.as_of) if not f.negated]
    if not facts:
        return unknown(f"I was never told of anything with {predicate} {value}")
    evidence = evidence_of(memory, _sources(facts), "told")
    things = [_as_told(f.subject, evidence) for f in facts]
    said = f"{_listed(things)} ({predicate}: {_as_told(facts[0].object, evidence)})."
    return Finding(things, said, _listed(things), evidence, 0.9, "told")


def _likes(memory: Memory, asked: Asked) -> Finding:
    query = asked.query
    if query.subject is None:
        return _fact(memory, asked)
    facts = memory.facts(query.subject, "likes", query.object, at=_at(asked), as_of=asked.as_of)
    if not facts:
        return unknown(f"I was never told whether {query.subject} likes {query.object or 'anything'}")
    evidence = evidence_of(memory, _sources(facts), "told")
    is_asker = query.subject == "owner"
    likes = "you like" if is_asker else f"{_as_told(query.subject, evidence)} likes"
    dislikes = "you do not like" if is_asker else f"{_as_told(query.subject, evidence)} does not like"
    liked = [_as_told(f.object, evidence) for f in facts if not f.negated]
    disliked = [_as_told(f.object, evidence) for f in facts if f.negated]
    if query.object is not None:
        yes = bool(liked)
        said = f"{'Yes' if yes else 'No'}: {likes if yes else dislikes} {(liked or disliked)[0]}."
        return Finding(yes, said, "Yes" if yes else "No", evidence, 0.9, "told")
    if not liked:
        said = f"{_capital(dislikes)} {_listed(disliked)}; I was told of no likes."
        return Finding([], said, _listed(disliked), evidence, 0.5, "only dislikes were told")
    return Finding(liked, f"{_capital(likes)} {_listed(liked)}.", _listed(liked), evidence, 0.9, "told")


def _who(memory: Memory, asked: Asked) -> Finding:
    query = asked.query
    thing = query.subject or query.object
    if thing is None or query.predicate is None:
        return _quoted(memory, asked)
    facts = memory.facts(None, query.predicate, thing, at=query.when, as_of=asked.as_of)
    doers = [f.subject for f in facts if not f.negated]
    if doers:
        evidence = evidence_of(memory, _sources(facts), "told")
        doers = [_as_told(name, evidence) for name in dict.fromkeys(doers)]
        return Finding(doers[0], f"{_listed(doers)} did.", doers[0], evidence, 0.9, "told")
    at = query.when.end if query.when is not None else None
    belief = Beliefs(memory).who(thing, at or asked.as_of)
    if belief.value is None:
        return unknown(belief.reason)
    evidence = evidence_of(memory, belief.evidence, belief.reason)
    name = _as_told(str(belief.value), evidence)
    return Finding(name, f"{name} did.", name, evidence, belief.confidence, belief.reason)


def _yes_no(memory: Memory, asked: Asked) -> Finding:
    """Yes or no only from a fact that says so: a claim that nobody made is unknown, not false."""
    query = asked.query
    if query.subject is None or query.predicate is None:
        return _quoted(memory, asked)
    facts = memory.facts(query.subject, query.predicate, at=_at(asked), as_of=asked.as_of)
    same = [f for f in facts if query.object is None or _same_value(f.object, query.object)]
    if not same and query.object is not None:  # "did Anna move the keys?" asks (keys, move, anna)
        moved = memory.facts(query.subject, "location", at=query.when, as_of=asked.as_of)
        did = memory.facts(query.object, query.predicate, query.subject, at=query.when, as_of=asked.as_of)
        same = [f for f in moved if f.by is not None and _same_value(f.by, query.object)] + did
    if same:
        fact, yes = same[0], not same[0].negated
    else:
        other = [f for f in facts if not f.negated and functional(f.predicate)]
        if not other:
            wanted = " ".join(filter(None, (query.subject, query.predicate, query.object)))
            return unknown(f"nothing that I was told says whether {wanted}")
        fact, yes = other[0], False
    evidence = evidence_of(memory, fact.evidence, "told")
    value, subject = _as_told(fact.object, evidence), _as_told(fact.subject, evidence)
    said = f"{'Yes' if yes else 'No'}: {subject}, {fact.predicate}: {'not ' if fact.negated else ''}{value}."
    return Finding(yes, said, "Yes" if yes else "No", evidence, 0.9, "told")


def _when_happened(memory: Memory, asked: Asked) -> Finding:
    query = asked.query
    facts = memory.facts(query.subject, query.predicate, as_of=asked.as_of) if query.subject and query.predicate else []
    dated = [f for f in facts if f.valid.start is not None and not f.negated]
    if not dated:
        return _when_seen(memory, asked)
    dated.sort(key=lambda f: f.valid.start or asked.now, reverse=query.order != "first")
    fact = dated[0]
    when = describe_time(fact.valid.start or asked.now, asked.zone, asked.now)
    evidence = evidence_of(memory, fact.evidence, "told")
    return Finding(fact.valid, f"{fact.subject} {fact.predicate} {when}.", when, evidence, 0.8, "told")


def _when_told(memory: Memory, asked: Asked) -> Finding:
    hits = _told_about(memory, asked)
    if not hits:
        return unknown(f"I was told nothing about {asked.query.subject or 'that'}")
    hits.sort(key=lambda h: h.record.seq, reverse=asked.query.order != "first")
    moment = hits[0].record.start
    when = describe_time(moment, asked.zone, asked.now)
    said = f'You told me {when}: "{hits[0].text}"'
    return Finding(Interval(moment, moment), said, when, _of_hits(hits[:1]), 0.9, "told", quotes=True)


def _what_told(memory: Memory, asked: Asked) -> Finding:
    hits = _told_about(memory, asked)
    if not hits:
        return unknown(f"I was told nothing about {asked.query.subject or 'that'}")
    hits = sorted(hits, key=lambda h: h.record.seq)[-_MOST_EVIDENCE:]
    texts = [hit.text for hit in hits]
    said = "I was told: " + " / ".join(f'"{text}"' for text in texts)
    return Finding(texts, said, texts[-1], _of_hits(hits), 0.9, "told", quotes=True)


# ------------------------------------------------------------------------ events


def _when_seen(memory: Memory, asked: Asked) -> Finding:
    if asked.query.subject is None:
        return _quoted(memory, asked)
    hits = _seen(memory, asked, asked.query.subject)
    if not hits:
        return unknown(f"no event that I saw shows {asked.query.subject}")
    if asked.query.order is not None:
        hits.sort(key=lambda h: h.record.seq, reverse=asked.query.order == "last")
    hit = hits[0]
    record = hit.record
    when = describe_time(record.start, asked.zone, asked.now)
    said = f"I saw it {when} in {record.source}{_position(record)}: {record.payload['text']}."
    evidence = _of_hits(hits[:_MOST_EVIDENCE])
    value = Interval(record.start, record.end)
    return Finding(value, said, when, evidence, _FRAME_CONFIDENCE, _why(hit))


def _count(memory: Memory, asked: Asked) -> Finding:
    subject = asked.query.subject
    if subject is not None and entity_key(subject) in _ANYTHING_MOVING:
        events = list(
            memory.recall(None, asked.query.when or Interval(), 1000, kinds=["event"], until=asked.as_of).hits
        )
        number = sum(len(hit.record.payload["tracklets"]) for hit in events)
        moving = [hit for hit in events if hit.record.payload["tracklets"]]
        if not events:
            return unknown("I saw nothing in that time")
        evidence = _of_hits(moving[:_MOST_EVIDENCE] or events[:1])
        return Finding(number, f"I followed {number} moving things.", str(number), evidence, 0.6, "tracks counted")
    hits = _seen(memory, asked, subject) if subject is not None else []
    if not hits:
        return unknown(f"no event that I saw shows {subject or 'that'}")
    said = f"I saw {subject} in {len(hits)} events."
    return Finding(len(hits), said, str(len(hits)), _of_hits(hits[:_MOST_EVIDENCE]), 0.5, "events counted")


def _what_seen(memory: Memory, asked: Asked) -> Finding:
    when = asked.query.when or Interval()
    found = memory.recall(None, when, 1000, kinds=["event"], until=asked.as_of)
    if not found.hits:
        return unknown("I saw nothing in that time")
    hits = sorted(found.hits, key=lambda h: h.record.seq)
    texts = list(dict.fromkeys(hit.record.payload["text"] for hit in hits))
    shown = hits if len(hits) <= _MOST_EVIDENCE else hits[:: max(1, len(hits) // _MOST_EVIDENCE)][:_MOST_EVIDENCE]
    said = f"I saw {len(hits)} events: " + "; ".join(texts[:_MOST_EVIDENCE]) + "."
    return Finding(texts, said, texts[0], _of_hits(shown), _FRAME_CONFIDENCE, "events in that time")


def _outage(memory: Memory, asked: Asked) -> Finding:
    when = asked.query.when
    gaps = [gap for gap in memory.outages() if when is None or _overlap(gap.interval, when)]
    boots = [r for r in memory.journal.read(kinds=["boot"]) if r.payload["previous_us"] is not None]
    if not gaps:
        boot = next(memory.journal.read(kinds=["boot"], limit=1))
        proof = as_evidence(boot, "the journal shows no gap", 1.0)
        return Finding([], "No, I was awake all the time.", "No", (proof,), 0.95, "no gap in the journal")
    parts = []
    for gap in gaps[-_MOST_EVIDENCE:]:
        assert gap.interval.start is not None
        assert gap.interval.end is not None
        length = gap.interval.end - gap.interval.start
        how = "closed" if gap.clean else "cut off"
        parts.append(f"{how} {describe_time(gap.interval.start, asked.zone, asked.now)} for {_length(length)}")
    woken = [b for b in boots if any(g.interval.end == b.recorded for g in gaps)][-_MOST_EVIDENCE:]
    evidence = tuple(as_evidence(b, "first record after the gap", 1.0) for b in woken)
    said = f"Yes: I was {_listed(parts)}."
    return Finding([g.interval for g in gaps], said, parts[-1], evidence, 0.95, "gaps between boots")


# ---------------------------------------------------------------------- any text


def _seen_or_quoted(memory: Memory, asked: Asked, reason: str) -> Finding:
    """No fact says where it is: the last event that shows it, else what was said about it and not understood."""
    subject = asked.query.subject or ""
    seen = _seen(memory, asked, subject)
    if seen:
        seen.sort(key=lambda h: h.record.seq)
        record = seen[-1].record
        when = describe_time(record.start, asked.zone, asked.now)
        said = f"I last saw it {when} in {record.source}{_position(record)}."
        return Finding(record.source, said, when, _of_hits(seen[-1:]), _FRAME_CONFIDENCE, _why(seen[-1]))
    unparsed = [h for h in _told_about(memory, asked) if not memory.facts_of(h.record.seq)]
    if unparsed:
        last = max(unparsed, key=lambda h: h.record.seq)
        said = f'I was told: "{last.text}"'
        return Finding(
            last.text, said, last.text, _of_hits([last]), 0.4, "quoted: not understood as a fact", quotes=True
        )
    return unknown(reason)


def _quoted(memory: Memory, asked: Asked) -> Finding:
    """A question of no known kind: quote a record only if it holds every content word of the question."""
    found = memory.recall(asked.query.text, asked.query.when, 5, until=asked.as_of)
    wanted = {entity_key(word) for word in _content_words(asked.query.text)} - {""}
    for hit in found.hits:
        have = {entity_key(word) for word in _content_words(hit.text)}
        if wanted and wanted <= have:
            verb = "I was told" if hit.record.kind == "told" else "I saw"
            said = f'{verb} {describe_time(hit.record.start, asked.zone, asked.now)}: "{hit.text}"'
            return Finding(hit.text, said, hit.text, _of_hits([hit]), 0.4, _why(hit), quotes=True)
    return unknown(found.note or "nothing that I remember answers that")


_FINDERS: dict[str, Callable[[Memory, Asked], Finding]] = {
    "location": _fact,
    "owner": _fact,
    "attribute": _fact,
    "likes": _likes,
    "who_did": _who,
    "yes_no": _yes_no,
    "when_happened": _when_happened,
    "when_told": _when_told,
    "what_told": _what_told,
    "when_seen": _when_seen,
    "count": _count,
    "what_seen": _what_seen,
    "outage": _outage,
}

_ANYTHING_MOVING = {entity_key(name) for name in ("thing", "moving thing", "object", "moving object")}
_EMPTY = frozenset(
    "a an the is are was were be been do does did done have has had i you me my your we our it its he she they them "
    "his her their this that these those what when where who whom whose which why how many much of in on at to from "
    "for by with about and or not no any some there here can could will would tell say said know see saw seen".split()
)


def _content_words(text: str) -> list[str]:
    words = "".join(c if c.isalnum() else " " for c in text.lower()).split()
    return [word for word in words if word not in _EMPTY]


def _seen(memory: Memory, asked: Asked, subject: str) -> list[Hit]:
    """Events whose words name the subject, or else whose pictures are close to it; best first."""
    found = memory.recall(subject, asked.query.when, 50, kinds=["event"], until=asked.as_of)
    wanted = {entity_key(word) for word in _content_words(subject)} - {""}
    named = [h for h in found.hits if wanted <= {entity_key(word) for word in _content_words(h.text)}]
    return named or [h for h in found.hits if any(_proves(reason) for reason in h.reasons)]


def _proves(reason: Reason) -> bool:
    """Whether a picture is close enough to a name to be evidence, not only worth showing."""
    return reason.list == "picture" and reason.score >= PICTURE_EVIDENCE.get(reason.detail, _NEVER)


def _told_about(memory: Memory, asked: Asked) -> list[Hit]:
    if asked.query.subject is None:
        return list(memory.recall(None, asked.query.when or Interval(), 50, kinds=["told"], until=asked.as_of).hits)
    name = asked.query.subject.removeprefix("owner's ")
    found = memory.recall(name, asked.query.when, 50, kinds=["told"], until=asked.as_of)
    wanted = {entity_key(word) for word in _content_words(name)} - {""}
    return [h for h in found.hits if wanted <= {entity_key(word) for word in _content_words(h.text)}]


def _sources(facts: Sequence[Fact]) -> list[int]:
    return [seq for fact in facts for seq in fact.evidence]


def _of_hits(hits: Sequence[Hit]) -> tuple[Evidence, ...]:
    return tuple(as_evidence(hit.record, _why(hit), hit.score) for hit in hits)


def _position(record: Record) -> str:
    """Where in a video file: `` (0:05 to 0:09)``."""
    media = record.payload.get("media") or {}
    if not media.get("fps"):
        return ""
    first, last = media["first_frame"] / media["fps"], media["last_frame"] / media["fps"]
    return f" ({int(first) // 60}:{int(first) % 60:02d} to {int(last) // 60}:{int(last) % 60:02d})"


def _why(hit: Hit) -> str:
    return ", ".join(f"{r.list} #{r.rank}{f' ({r.detail})' if r.detail else ''}" for r in hit.reasons)


def _same_value(stored: str, asked: str) -> bool:
    have, want = ({entity_key(word) for word in _content_words(text)} - {""} for text in (stored, asked))
    return bool(want) and (want <= have or have <= want)


def _as_told(value: str, evidence: Sequence[Evidence]) -> str:
    """A canonical (lower-case) name as it was written where it was told: ``anna`` becomes ``Anna``."""
    for item in evidence:
        found = re.search(rf"(?<!\w){re.escape(value)}(?!\w)", item.text, re.IGNORECASE)
        if found:
            return found[0]
    return value


def _at(asked: Asked) -> datetime:
    """The instant of the world that a question about a state is about."""
    return (asked.query.when.start if asked.query.when is not None else None) or asked.as_of or asked.now


def _overlap(one: Interval, other: Interval) -> bool:
    return not (
        (one.end is not None and other.start is not None and one.end <= other.start)
        or (other.end is not None and one.start is not None and other.end <= one.start)
    )


def _length(span: timedelta) -> str:
    seconds = span.total_seconds()
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.1f} seconds"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _listed(items: Sequence[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"
