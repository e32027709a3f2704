"""The wordings of questions about a world that the agent watches: where, when, who, how often, in what order, what
changed, why, and what is usual.

This module knows how people ask about changes; `happenings` reads the clauses inside, `question_rules` everything that
is told. A reading here has `Query.events`, or one of the kinds that only a watched world can answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from ..perception.words import name_entity, place_start, words_of
from ..records import Interval
from .asking import Asked
from .happenings import read_happening, state_word
from .queries import Happening, Query, Relation, Side
from .question_rules import read_told

_USUAL = re.compile(
    r"\b(?:(?:generally|broadly|usually) speaking,?|usually|normally|mostly|typically|generally|commonly|"
    r"ordinarily|habitually|customarily|regularly|as "
    r"a rule|"
    r"most often|most of the time|most of the times|most days|on most days|in general|on average|by habit|as usual|"
    r"usual|normal|typical|customary|favou?rite|tends? to)\b",
    re.IGNORECASE,
)
_HABIT = re.compile(
    r"\b(?:(?:in|on|at|during|of|by|every|each|most|the)\s+)*(?P<time>(?:(?:mon|tues|wednes|thurs|fri|satur|sun)day"
    r"|weekday|work day|workday|working day|weekend|morning|afternoon|evening|night|noon|daytime)s?)\b",
    re.IGNORECASE,
)
_ANCHOR = re.compile(
    r"^(?P<main>.+?),? (?:just |right |shortly |immediately |directly )?(?P<rel>when|while|as|once|before|after|"
    r"until|"
    r"by the time|at the (?:time|moment|point|instant)(?: when| that)?|the moment(?: that| when)?) (?P<c>.+)$",
    re.IGNORECASE,
)
_FRONTED = re.compile(
    r"^(?P<rel>(?:just |right |shortly )?(?:when|before|after|while|once|at the (?:time|moment)(?: when| "
    r"that)?)) (?P<c>[^,]+), "
    r"(?:and )?(?P<q>(?:where|who|what|which|how|in|was|were|is|did|at)\b.+)$",
    re.IGNORECASE,
)
_ROUGHLY = re.compile(r"^(?:roughly|approximately|about|around|precisely|could you say|say|tell us) ", re.IGNORECASE)
_RELATIONS: dict[str, Relation] = {"before": "before", "until": "before", "after": "after", "once": "after"}
_SEE = r"(?:see|seen|saw|notice|noticed|witness|witnessed|observe|observed|watch|watched)"
_PASSIVE = frozenset({"was", "were", "is", "are", "got", "get", "been"})
_SPLIT = re.compile(r",\s*(?:and|or)\s+|\s+(?:and|or)\s+|\s*,\s*|\s+versus\s+", re.IGNORECASE)
_LONGEST_LIST = 6

_Make = Callable[[Asked, "re.Match[str]"], Query | None]


@dataclass(frozen=True, slots=True)
class _Form:
    pattern: re.Pattern[str]
    make: _Make


_FORMS: list[_Form] = []


def _form(*patterns: str) -> Callable[[_Make], _Make]:
    def register(make: _Make) -> _Make:
        for pattern in patterns:
            _FORMS.append(_Form(re.compile(rf"(?:{pattern})$", re.IGNORECASE), make))
        return make

    return register


def fronted(question: str) -> str:
    """The question with a clause in front moved to its end: "When Ben came home, where were the keys?"."""
    match = _FRONTED.match(question.strip())
    return f"{match['q'].rstrip('?')} {match['rel'].lower()} {match['c']}" if match else question


def read_world_question(asked: Asked) -> Query | None:
    """The query of a question about a watched world, None if it is worded like none.

    Args:
        asked: the question, without lead-in and times.
    """
    if (usual := _usual(asked)) is not None:
        return usual
    text = _ROUGHLY.sub("", _undated(asked.text))
    for form in _FORMS:
        match = form.pattern.match(text)
        query = form.make(asked, match) if match else None
        if query is not None:
            when = query.when or asked.span(query)
            return replace(query, when=when, order=query.order or asked.order)
    return _anchored(asked, text)


def _undated(text: str) -> str:
    """Without the shards that a time phrase leaves behind."""
    text = re.sub(r"\s+(?:at|during|between|around|about)(?= (?:when|before|after)\b|$)", "", text, flags=re.IGNORECASE)
    return re.sub(r"\s+([,:])", r"\1", text).strip(" ,:")


def _anchored(asked: Asked, text: str) -> Query | None:
    """A question whose time is another change: "who opened the fridge after Ben came home"."""
    match = _ANCHOR.match(text)
    if match is None:
        return None
    first = read_happening(match["c"], asked.mentions)
    spoken_of = first.thing if first else None  # "before the keys were moved, where were they?"
    mentions = replace(asked.mentions, thing=asked.mentions.thing or spoken_of, group=asked.mentions.group or spoken_of)
    main = Asked(match["main"], asked.now, asked.zone, mentions)
    query = read_world_question(main) or read_told(main)
    if query.kind not in ("location", "who_did", "count", "when_happened", "state", "yes_no", "changed", "when_seen"):
        return None
    known = replace(asked.mentions, thing=query.subject or asked.mentions.thing, group=query.subject)
    anchor = read_happening(match["c"], known)
    if anchor is None:
        return None
    rel = match["rel"].lower()
    when = asked.span(query) if asked.times else None
    return replace(query, relation=_RELATIONS.get(rel, "when"), anchor=anchor, when=when or query.when)


# --- what is usual ----------------------------------------------------------------------------------------------------


def _usual(asked: Asked) -> Query | None:
    """ "Where are the keys usually in the morning?", "when does Ben normally come home?"."""
    text, marked = _USUAL.subn(" ", asked.text)
    habit = tuple(dict.fromkeys(filter(None, (_habit_word(m["time"]) for m in _HABIT.finditer(asked.plain)))))
    present = re.match(r"(?:when|(?:at )?what time|how late) (?:does|do) ", text, re.IGNORECASE) and not asked.times
    if not marked and not (present and habit) and not (present and not habit):
        return None
    text = re.sub(r"\s+", " ", _HABIT.sub(" ", text))
    text = re.sub(r"\s+(?:on|in|at|during|for|of|the|around|about)$", "", re.sub(r"\s+", " ", text.strip(" ,")))
    for pattern in _USUAL_PLACE:
        match = pattern.match(text)
        if match:
            subject = asked.name(match["x"])
            return Query("usual_place", subject, "location", habit=habit) if subject else None
    for pattern in _USUAL_TIME:
        match = pattern.match(text)
        if match:
            parts = match.groupdict()
            event = read_happening(parts["c"], asked.mentions, passive=(parts.get("v") or "").lower() in _PASSIVE)
            if event is None:
                return None
            return Query("usual_time", event.thing, event.kind, events=(event,), habit=habit)
    return None


_USUAL_PLACE = [
    re.compile(rf"(?:{pattern})$", re.IGNORECASE)
    for pattern in (
        r"(?:where|in (?:what|which) (?:place|room|spot)|on what|in what) (?:is|are|was|were) (?P<x>.+?)"
        r"(?: (?:kept|stored|located|lying|put|placed|found|to be found|left|standing|sitting))?",
        r"where (?:does|do|did) (?:one|you|we|i|people|somebody|someone) (?:find|see|look for|spot) (?P<x>.+)",
        r"where (?:does|do|did) .+? (?:put|keep|leave|place|store|lay) (?P<x>.+)",
        r"(?:where|(?:in|on|at) (?:what|which)(?: place| room| spot| shelf| piece of furniture)?) (?:does|do|did) "
        r"(?P<x>.+?) (?:lie|live|belong|stay|sit|hang|stand|be|reside|end up|go|rest)",
        r"where (?:can|could|would|should|will|might) (?:i|we|you|one|somebody) (?:expect to |expect )?"
        r"(?:find|see|look for|expect) (?P<x>.+)",
        r"where (?:can|could|would|will) (?P<x>.+?) be(?: found)?",
        r"where (?P<x>.+?) (?:is|are)",
        r"(?:what|which|where)(?: is| was|'s)? the (?:place|spot|location|position|whereabouts|home|resting place)"
        r"(?: of| for| where) (?P<x>.+?)(?: (?:is|are|lies|lie|stands))?",
        r"(?:what|which) (?:place|spot|piece of furniture|room) (?:is|are|does|do) (?P<x>.+?)(?: (?:lie|on|in|"
        r"at|found|kept))*",
        r"(?:what|where) is (?P<x>.+?)(?:'s|s') (?:place|spot|location|position)",
        r"on what (?:is|are|does|do) (?P<x>.+?)(?: lie| stand)?",
    )
]
_USUAL_TIME = [
    re.compile(rf"(?:{pattern})$", re.IGNORECASE)
    for pattern in (
        r"(?:when|(?:at |around |by |about )?(?:what|which) (?:time|hour)(?: of (?:the )?day)?|how (?:late|early)) "
        r"(?P<v>does|do|did|is|are|was|were|will) (?P<c>.+)",
        r"(?:what|when)(?: is| was|'s)? the (?:time|hour)(?: of day)? (?:for|at which|when|that|of) (?P<c>.+)",
        r"(?:when|around when|at what time) (?P<c>.+)",
    )
]


def _habit_word(word: str) -> str | None:
    low = word.lower().removesuffix("s").replace(" ", "")
    return {"workday": "weekday", "workingday": "weekday", "daytime": None, "noon": "afternoon"}.get(low, low)


# --- which came first -------------------------------------------------------------------------------------------------


def _listed(asked: Asked, body: str, verb: str = "") -> tuple[Happening, ...] | None:
    """The changes of a list; a ``verb`` that all share follows each. None if one of them cannot be read."""
    found = []
    for item in _SPLIT.split(body.strip(" ,:?")):
        clause = re.sub(r"^(?:either|that|the fact that|did|when|was it|or)\s+", "", item.strip(), flags=re.IGNORECASE)
        clause = re.sub(r"^was (?=the |\w+ (?:moved|opened|closed))", "", clause, flags=re.IGNORECASE)
        event = read_happening(f"{clause} {verb}".strip(), asked.mentions, passive=verb.split(" ")[0] in _PASSIVE)
        event = event or read_happening(clause, asked.mentions, passive=True)
        if event is None:
            return None
        found.append(event)
    return tuple(found) if 2 <= len(found) <= _LONGEST_LIST else None


def _ordered(events: tuple[Happening, ...] | None) -> Query | None:
    return Query("order", None, "order", events=events) if events else None


@_form(
    r"(?:which|what|who)(?: (?:one |thing |event )?of (?:these|those|the two|the three|them|the following))?"
    r"(?: event| thing| one)? (?:happened|came|was|occurred|took place|did you see|is|were|went|has happened) ?"
    r"(?:the )?(?:first|earlier|earliest|sooner|before the others?)(?: of all)?(?: event| thing| "
    r"one)?[,:;]?(?: did| that| was it)? "
    r"(?P<list>.+)",
    r"(?:in )?(?:what|which) (?:order|sequence|succession) (?:did|have|had) (?:these|this|the following|those|"
    r"all this|they|it)?"
    r"(?: things| events)? ?(?:happen|occur|take place|happened)[,:]? (?P<list>.+)",
    r"(?:sort|order|arrange|put)(?: these| the following| this)?(?: things| events)?"
    r"(?: (?:by|in)(?: the)?(?: right)?(?: order)?(?: of)?(?: time)?)?[,:]? (?P<list>.+)",
    r"(?:what (?:is|was) |give me |tell me )?the (?:order|sequence) (?:of|in which)(?: these| the "
    r"following)?(?: things| events)?(?: "
    r"happened)?[,:]? (?P<list>.+)",
    r"(?P<list>.+)[,:;] (?:which|what)(?: of (?:these|them|the two|those))?(?: event| one)? (?:happened|came|"
    r"was|occurred)(?: the)? "
    r"(?:first|earlier)",
    r"(?P<list>.+)[,:;] in (?:which|what) (?:order|sequence)",
)
def _first_of(asked: Asked, match: re.Match[str]) -> Query | None:
    return _ordered(_listed(asked, match["list"]))


@_form(
    r"(?:which|what|who)(?: one)?(?: of (?:these|those|the two|them))? (?P<v>(?:was|were|got|came|left|went|arrived|"
    r"returned) ?.*?) ?(?:first|earlier|sooner)[,:;]? (?P<list>.+)",
    r"(?:which|what|who)(?: of (?:these|those|the two|them))? (?:first )(?P<v>(?:was|were|came|left|went) "
    r".*?)[,:] (?P<list>.+)",
    r"(?:was|did) (?:it )?(?P<list>.+ or .+) (?:that |who |which )?(?P<v>(?:was|were|came|left|went|arrived|"
    r"come|leave|go|get)\b.*?) "
    r"(?:first|earlier|sooner)",
)
def _first_to(asked: Asked, match: re.Match[str]) -> Query | None:
    return _ordered(_listed(asked, match["list"], match["v"].strip().lower()))


@_form(r"(?:in )?(?:what|which) (?:order|sequence) (?P<v>was|were|did|have|had)(?: been)? (?P<list>.+)")
def _order_of(asked: Asked, match: re.Match[str]) -> Query | None:
    items = _SPLIT.split(match["list"].strip())
    last = read_happening(items[-1], asked.mentions, passive=match["v"].lower() in ("was", "were"))
    if last is None or last.thing is None:
        return _ordered(_listed(asked, match["list"]))
    whole = _listed(asked, match["list"])
    if whole is not None:
        return _ordered(whole)
    names = [name_entity(words_of(item), asked.mentions) for item in items[:-1]]
    if any(name is None for name in names):
        return None
    return _ordered((*(replace(last, thing=name) for name in names), last))


@_form(
    r"did (?P<a>.+?) (?:happen )?before or after(?: that)? (?P<b>.+)",
    r"was (?P<a>.+?) before or after (?P<b>.+)",
    r"did (?P<a>.+?) first,?(?: or| or did| or was)? (?P<b>.+)",
    r"did (?P<a>.+?) before (?P<b>.+?),? or (?:after(?: that)?|the other way (?:a?round)|later|vice versa|"
    r"afterwards)",
    r"what came first,? (?P<a>.+?) or (?P<b>.+)",
)
def _before_or_after(asked: Asked, match: re.Match[str]) -> Query | None:
    passive = match[0].lower().startswith("was")
    first = read_happening(match["a"], asked.mentions, passive=passive)
    known = replace(asked.mentions, thing=first.thing if first else None, person=first.thing if first else None)
    other = re.sub(r"^(?:did|was|or)\s+", "", match["b"].strip(), flags=re.IGNORECASE)
    second = read_happening(other, known) or read_happening(other, known, passive=True)
    return _ordered((first, second) if first and second else None)


# --- why --------------------------------------------------------------------------------------------------------------


@_form(
    r"why (?:exactly )?(?P<v>did|was|were|is|are|has|had|does|do) (?P<c>.+)",
    r"(?:how come|why is it that|why was it that|for what reason|on what account|how did it come that|how is it that)"
    r"(?: that)?(?: (?P<v>did|was|were|had|has))? (?P<c>.+)",
    r"what (?:has |had )?(?:caused|made|led|brought|triggered|got|let|set off|prompted)(?: about)?(?: it that| "
    r"to)? (?P<c>.+)",
    r"what (?:was|is) the (?:reason|cause|trigger|explanation)(?: (?:for|that|of|why|behind))? (?P<c>.+)",
    r"what (?:was|is)(?: it)?(?: that)? (?:behind|responsible for|the cause of) (?P<c>.+)",
    r"(?:can you )?explain (?:to me )?(?:why|how) (?P<c>.+)|explain (?P<c2>.+)",
    r"why (?P<c>.+)",
    r"(?:because|as a result|as a consequence) of what (?P<v>did|was|were) (?P<c>.+)",
)
def _why(asked: Asked, match: re.Match[str]) -> Query | None:
    parts = match.groupdict()
    passive = (parts.get("v") or "").lower() in _PASSIVE
    clause = parts.get("c") or parts.get("c2") or ""
    event = read_happening(clause, asked.mentions, passive=passive)
    if event is None and not parts.get("v"):
        event = read_happening(clause, asked.mentions, passive=True)
    if event is not None and event.kind == "left" and event.place is None and clause.lower().startswith("the "):
        event = Happening("state", event.thing, "off")  # "the lamp went out"
    if event is None or event.kind != "state" or event.thing is None:
        return None
    return Query("why", event.thing, "cause", event.state, events=(event,))


@_form(r"what (?P<c>(?:turned|switched|opened|closed|shut|started|stopped|set|put|flipped|powered|triggered)\b.+)")
def _what_did(asked: Asked, match: re.Match[str]) -> Query | None:
    event = read_happening(match["c"], asked.mentions, bare=True)
    if event is None or event.kind != "state":
        return None
    return Query("why", event.thing, "cause", event.state, events=(event,))


# --- what changed -----------------------------------------------------------------------------------------------------

_CHANGED = r"(?:changed?|different|altered|moved|shifted|rearranged|displaced|relocated|out of place|new)"
_THINGS = r"(?:(?: other)? (?:things?|objects?|items?)| all| else| everything)?"


@_form(
    rf"(?:what|which){_THINGS}(?: (?:has|have|had|was|were|got|is|are|did|does))?(?: been| anyone| someone| "
    rf"anybody| somebody| people)? "
    rf"{_CHANGED}(?: (?:place|places|position|hands))?(?P<p> .+)?",
    rf"(?:what|which){_THINGS} (?P<p>(?:in|inside|of|at) .+?) (?:has|have|had|was|were|got|is|are)?(?: been)? "
    rf"?{_CHANGED}"
    r"(?: (?:place|position))?",
    rf"what {_CHANGED}?(?:changes|differences|movements?)(?: (?:were|was|are) there| did you {_SEE}| happened| "
    rf"took place|"
    r" occurred| have happened)?(?P<p> .+)?",
    r"(?:(?:list|name|tell me|give me|show me|report) )?(?:all )?(?:the )?(?:changes|differences|"
    rf"(?:things|objects|items)(?: that| which)? (?:were |was |have been |had been |have |had "
    rf")?{_CHANGED})(?P<p> .+)?",
    rf"what did you (?:find|notice|see)(?: to be)? {_CHANGED}(?P<p> .+)?",
    rf"how (?:had|has|did|was|is) (?P<r>.+?) (?:changed?|{_CHANGED})",
    rf"(?:what|which){_THINGS} (?:did|has|have|had|do) (?:someone|somebody|anyone|anybody|people|they|we|the "
    rf"residents) "
    r"(?:change|changed|move|moved|rearrange|rearranged)(?P<p> .+)?",
    rf"(?:what|which){_THINGS} (?:was|were|is|are) (?:no longer|not) (?:where|as|in) .*?(?P<p> in .+)?",
    rf"(?:did|has|have|had|was|is) anything (?:been )?{_CHANGED}(?P<p> .+)?",
    rf"(?:what|which){_THINGS} (?:was|were|has been|have been|got) (?:taken|carried|brought|removed|put|moved|placed)"
    r"(?: away)?(?P<p> (?:from|out of|off|into|to|onto|in|on) .+)",
)
def _what_changed(asked: Asked, match: re.Match[str]) -> Query | None:
    parts = match.groupdict()
    phrase = parts.get("p") or parts.get("r") or ""
    words = [word for word in words_of(phrase) if word.low not in (",", "there", "here", "from", "off", "out", "to")]
    start = place_start(words)
    place = name_entity(words[start + 1 :] if start is not None else words, asked.mentions) if words else None
    if words and place is None:
        return None
    if place is not None and re.search(r"\b(?:when|while|before|after|since|by)\b", phrase):
        return None  # a clause that dates it
    return Query("changed", None, "changed", place)


# --- which state ------------------------------------------------------------------------------------------------------


@_form(
    r"(?:was|is|were|are) (?P<x>.+?),? (?P<a>\w+) or (?P<b>\w+)",
    r"(?:in )?(?:what|which) (?:state|position|condition|setting)(?: exactly)? (?:was|is|were|are) "
    r"(?P<x>.+?)(?: in)?",
    r"(?:what|which) (?:was|is) the (?:state|position|condition) of (?P<x>.+)",
    r"how (?:was|is|were|are) (?P<x>.+?)[,:] (?P<a>\w+) or (?P<b>\w+)",
    r"what (?:was|were) (?P<x>.+?) (?:set to|like)",
)
def _state(asked: Asked, match: re.Match[str]) -> Query | None:
    parts = match.groupdict()
    if parts.get("a") and not (state_word(parts["a"].lower()) or state_word((parts.get("b") or "").lower())):
        return None
    subject = asked.name(parts["x"])
    return Query("state", subject, "state") if subject else None


# --- where, when, who, how often --------------------------------------------------------------------------------------


@_form(
    r"(?P<from>from where|out of where) (?P<v>did|was|were|has|had) (?P<c>.+)",
    r"where (?P<v>did|has|had|have) (?P<c>.+?)(?P<tail> from| to)?",
    r"where (?P<v>was|were|got|has|have|had)(?: been)? (?P<c>.+? (?:moved|put|placed|taken|brought|carried|laid|"
    r"set|shifted|"
    r"dropped|fetched|relocated|returned|left|given|stored|transferred)(?: back| away| down| over)?)(?P<tail> "
    r"from| to)?",
    r"(?:to|onto|into|on|in) (?:which|what)(?: place| room| spot| piece of furniture)? (?P<v>did|was|were) "
    r"(?P<c>.+?)",
    r"(?P<from>from) (?:which|what)(?: place| room| spot)? (?P<v>did|was|were) (?P<c>.+?)",
    r"where (?P<c>(?!is|are|was|were|did|does|do|has|have|can)[\w' ]+? (?:put|moved|took|brought|carried|placed|"
    r"dropped|left) .+?)"
    r"(?P<tail> from| to)?",
)
def _where_to(asked: Asked, match: re.Match[str]) -> Query | None:
    parts = match.groupdict()
    clause = re.sub(r" (?:end up|disappear|vanish|get|go)$", " move", parts["c"], flags=re.IGNORECASE)
    clause = re.sub(r" (?:come|stem)$", " move", clause, flags=re.IGNORECASE)
    event = read_happening(clause, asked.mentions, passive=_is_passive(match))
    if event is not None and event.kind == "left" and event.place and event.thing:  # "where did Ben leave the keys"
        event = Happening("moved", event.place, by=event.thing)
    if event is None or event.kind != "moved" or event.thing is None:
        return None
    came = (parts.get("tail") or "").strip().lower() == "from" or bool(parts.get("from"))
    side: Side = "origin" if came else "place"
    return Query("location", event.thing, "location", events=(event,), side=side)


@_form(
    r"where (?P<x>.+?) (?:is|are|was|were) (?:lying|sitting|standing|hanging|kept|to be found|placed)",
    r"where (?:would|could|can|might) (?:i|we|you|one|somebody) have (?:found|seen|met) (?P<x>.+)",
)
def _where(asked: Asked, match: re.Match[str]) -> Query | None:
    subject = asked.name(match["x"])
    return replace(Query("location", subject, "location"), when=_exact(asked)) if subject else None


def _exact(asked: Asked) -> Interval | None:
    return asked.span(Query("location"))


_WHEN = (
    r"(?:when|(?:at |on |around |about )?(?:what|which) (?:time|day|hour|moment|minute)(?: of (?:the )?day)?|"
    r"how long ago|at (?:which|what) moment|around when)(?: exactly| precisely)?"
)


@_form(
    rf"{_WHEN} (?:did|have) you {_SEE}(?: that)? (?P<c>.+)",
    rf"(?:{_WHEN} was|what was) the (?:first |last )?(?:time|moment|minute)(?: that| when| at which)? (?P<c>.+)",
    rf"{_WHEN} (?P<v>did|was|were|has|had|have|is|got) (?P<c>.+)",
    r"(?:what time|when) was it(?: last| first)?(?: when| that)? (?P<c>.+)",
    rf"{_WHEN} (?P<c>.+)",
    r"(?:at|on) which occasion (?P<v>did|was|were) (?P<c>.+)",
    r"the time (?:when|at which|that) (?P<c>.+)",
)
def _when(asked: Asked, match: re.Match[str]) -> Query | None:
    parts = match.groupdict()
    bare = re.match(r"what time was it|when was it|what was the|the time|when was the", match[0], re.IGNORECASE)
    if not bare and _ANCHOR.match(match[0]) and _anchored_clause(asked, match[0]):
        return None
    event = read_happening(parts["c"], asked.mentions, passive=_is_passive(match))
    return Query("when_happened", event.thing, event.kind, events=(event,)) if event else None


@_form(
    r"who(?: was it(?: that| who)?| all| else| in the (?:house|home))?(?: has| had| have)? (?P<c>.+)",
    r"(?:which|what) (?:person|resident|human|member of the (?:household|family)|one of (?:us|them))(?: was it that)?"
    r"(?: has| had)? (?P<c>.+)",
    r"(?:by|through) (?:whom|who|which person) (?P<v>was|were|has|had)(?: been)? (?P<c>.+)",
    r"(?P<c>.+?) by (?:whom|who)(?P<v>)",
    r"(?:whose (?:doing|work|fault)(?: was it)?(?: that)?|who (?:is|was) (?:responsible for|to blame for|the "
    r"one who)) (?P<c>.+)",
    r"name (?:the )?(?:person|resident|one)(?: who| that)? (?P<c>.+)",
    r"(?:what|which) (?:was|is) the name of (?:the )?(?:person|one)(?: who| that)? (?P<c>.+)",
)
def _who(asked: Asked, match: re.Match[str]) -> Query | None:
    if _ANCHOR.match(match[0]) and _anchored_clause(asked, match[0]):
        return None
    parts = match.groupdict()
    clause = re.sub(r"^(?:was|were) (?=.* by$)", "", parts["c"], flags=re.IGNORECASE)
    bare = parts.get("v") is None and not re.match(r"whose", match[0], re.IGNORECASE)
    event = read_happening(clause, asked.mentions, passive=not bare, bare=bare)
    event = event or read_happening(clause, asked.mentions)
    if event is None or event.by is not None:
        return None
    if event.kind in ("entered", "left"):
        return Query("who_did", event.place, event.kind, events=(event,))
    return Query("who_did", event.thing, event.kind, events=(event,)) if event.thing else None


@_form(
    rf"(?:how (?:often|many times|frequently)|on how many occasions|what number of times)(?: in (?:all|total)| "
    rf"exactly)? "
    rf"(?:did|have|had) you {_SEE}(?: that)? (?P<c>.+)",
    r"(?:how (?:often|many times|frequently)|on how many occasions|what number of times)(?: in (?:all|total)| "
    r"exactly)? "
    r"(?P<v>did|was|were|has|have|had|is|got|do|does)(?: been)? (?P<c>.+)",
    r"(?:count|give me|tell me|what (?:is|was)) (?:the number of times|how often|how many times|the times)(?: that)?"
    r"(?: (?P<v>was|were))? (?P<c>.+)",
    r"how (?:often|many times) (?P<c>.+)",
)
def _how_often(asked: Asked, match: re.Match[str]) -> Query | None:
    if _ANCHOR.match(match[0]) and _anchored_clause(asked, match[0]):
        return None
    parts = match.groupdict()
    event = read_happening(parts["c"], asked.mentions, passive=_is_passive(match))
    event = event or read_happening(parts["c"], asked.mentions)
    if event is None:
        return None
    seen = re.search(rf"\byou {_SEE}\b", match[0], re.IGNORECASE)
    return Query("count", event.thing, "seen" if seen else event.kind, event.state or event.place, events=(event,))


def _is_passive(match: re.Match[str]) -> bool:
    """Whether the auxiliary in front of a clause makes it passive: "was", "has been"."""
    verb = (match.groupdict().get("v") or "").lower()
    return verb in _PASSIVE or (verb in ("has", "have", "had") and " been " in match[0].lower())


def _anchored_clause(asked: Asked, text: str) -> bool:
    """Whether what follows "when" or "after" is a change of its own."""
    match = _ANCHOR.match(text)
    known = replace(asked.mentions, thing="it", group="they", person="he")
    return match is not None and read_happening(match["c"], known) is not None
