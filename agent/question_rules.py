"""The wordings of questions: one rule for each family, from text to `Query`.

This module knows what a query is and how people ask. It does not know where the answers are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ..perception.verbs import find_verb
from ..perception.words import (
    DATE_ATTRIBUTES,
    PLACE_ADVERBS,
    PLACE_PREPOSITIONS,
    Word,
    bag,
    name_entity,
    name_place,
    place_start,
    scale_of,
    split_attribute,
    verb_form,
    words_of,
)
from ..records import Statement
from .asking import ARTICLE_LEAD, Asked
from .queries import Kind, Query

_MOVES = bag(
    "move put take place bring leave carry drop return hide park steal borrow lend give clean open close lock unlock "
    "wash water repair fix paint empty break eat drink use feed turn switch remove throw store buy order deliver pack "
    "change fill collect plug cut read write make cook bake build find lose send"
)
_OFF = (
    r"(?:off\b|off-?line|asleep|sleeping|sleep\b|switched|turned|shut|powered|down\b|unconscious|not running|"
    r"running|dead|"
    r"crash|killed?\b|restart|reboot|stopped|unplugged|awake|wake|woken|inactive|out of power|not working|hibernat)"
)
_SEE = r"(?:see|seen|saw|notice|noticed|spot|spotted|observe|observed|record|recorded|film|filmed|detect|detected)"
_ANYTHING = re.compile(r"^(?:anything|something|it all|everything)\b", re.IGNORECASE)
# --- turning questions into statements --------------------------------------------------------------------------------


def _be_statement(asked: Asked, verb: str, rest: str) -> str | None:
    """ "is" and "the key in the tin" become "the key is in the tin"; None if there is no complement."""
    words = words_of(rest)
    for k in range(1, len(words)):
        subject, complement = words[:k], words[k:]
        if name_entity(subject, asked.mentions) is None:
            continue
        low = complement[0].low
        lows = [word.low for word in complement]
        begins = (
            low in PLACE_PREPOSITIONS
            or low in PLACE_ADVERBS
            or low
            in ("still", "not", "a", "an", "the", "mine", "yours", "called", "already", "allergic", "married", "going")
            or low.endswith("'s")
            or low in ("my", "your", "his", "her")
            or scale_of(lows) is not None
            or (len(words) > k and low[0].isdigit())
            or verb_form(low, "part", "ing") is not None
        )
        if begins and subject[-1].low not in ("and", "of", "my", "the"):
            return f"{_source(rest, subject)} {verb} {_source(rest, complement)}"
    if len(words) > 1 and name_entity(words[:-1], asked.mentions):
        return f"{_source(rest, words[:-1])} {verb} {words[-1].text}"
    return None


def _do_statement(verb: str, rest: str) -> str | None:
    """ "did" and "Anna take the mug" become "Anna did take the mug"."""
    words = words_of(rest)
    for k in range(1, len(words)):
        kinds = ("part",) if verb.lower() in ("has", "have", "had") else ("base",)
        noun = find_verb([*words[:k], words[k]]) is None and words[k - 1].low in ("the", "a", "my", "your", "our")
        if (verb_form(words[k].low, *kinds) and not noun) or words[k].low in ("been", "be"):
            return f"{_source(rest, words[:k])} {verb} {_source(rest, words[k:])}"
    return None


def _source(text: str, words: Sequence[Word]) -> str:
    return text[words[0].start : words[-1].end]


def _claim_of(asked: Asked, verb: str, rest: str) -> tuple[Statement, str] | None:
    """The claim that an inverted question asks about, and its verb in base form."""
    be = verb.lower() in ("is", "are", "was", "were", "am")
    sentence = _be_statement(asked, verb, rest) if be else _do_statement(verb, rest)
    statement = asked.claim(sentence) if sentence else None
    if sentence is None or statement is None:
        return None
    words = words_of(sentence)
    found = find_verb(words)
    if found and found.lemma == "be" and found.end < len(words):  # "was moved"
        passive = verb_form(words[found.end].low, "part")
        if (
            passive
            and statement.predicate != scale_of([words[found.end].low])
            and (statement.predicate == passive or statement.predicate == "location")
        ):
            return statement, passive
    return statement, found.lemma if found else ""


def _done(asked: Asked, statement: Statement, lemma: str) -> tuple[str | None, str, str | None]:
    """(subject, predicate, object) of a claim; what was done to a thing is told as (thing, verb, doer)."""
    if statement.subject in ("anyone", "anybody", "someone"):
        statement = replace(statement, subject="person")
    if statement.by is not None and lemma != "be":
        return statement.subject, lemma, statement.by
    if statement.predicate in _MOVES and statement.predicate == lemma and statement.object:
        thing = asked.bare(statement.object)
        return (thing or statement.object), lemma, statement.subject
    return statement.subject, statement.predicate, statement.object or None


# --- rules ------------------------------------------------------------------------------------------------------------

_Make = Callable[[Asked, "re.Match[str]"], Query | None]


@dataclass(frozen=True, slots=True)
class _Rule:
    pattern: re.Pattern[str]
    make: _Make
    ordered: bool


_RULES: list[_Rule] = []


def _rule(*patterns: str, ordered: bool = False) -> Callable[[_Make], _Make]:
    """Registers a reading for questions that match one of the patterns from beginning to end.

    ``ordered``: "first" and "last" are taken out before and become `Query.order`.
    """

    def register(make: _Make) -> _Make:
        for pattern in patterns:
            _RULES.append(_Rule(re.compile(rf"(?:{pattern})$", re.IGNORECASE), make, ordered))
        return make

    return register


def read_told(asked: Asked) -> Query:
    """The query of the first rule that can read the question."""
    for rule in _RULES:
        match = rule.pattern.match(asked.unordered if rule.ordered else asked.text)
        query = rule.make(asked, match) if match else None
        if query is not None:
            when = asked.span(query)
            return replace(query, when=when, order=asked.order if rule.ordered else None)
    return Query("unknown")


_BE = r"(?:is|are|was|were|am)"
_DO = r"(?:do|does|did)"


@_rule(
    rf"(?P<how>when|how long|how often|how many times|since when|why|for how long)? ?(?:{_BE}|{_DO}|have|has|had) you "
    rf"(?:been |ever |go |fall |get |not )*{_OFF}.*",
    r"(?P<how>when|how long|how often|how many times)?.*\b(?:power (?:cut|failure|outage|loss)|black-?out|"
    r"outages?)\b.*",
    r"(?P<how>when) (?:was|did) (?:the |your )?(?:time )?(?:you )?(?:crash(?:ed)?|restart(?:ed)?|reboot(?:ed)?|outage)",
    r"(?P<how>how long|how often|when) (?:did|were) you (?:sleep|miss|out|away|gone).*",
    r"(?:were|are) you (?:always |the whole time )?(?:on|there|gone|away|running)(?: the whole time|"
    r" all (?:the time|night|day))?",
    r"did you (?:sleep|crash|miss anything).*",
    r"(?P<how>when) (?:did|were) you (?:start|started|switched on|turned on|wake up|woken up).*",
    ordered=True,
)
def _outage(asked: Asked, match: re.Match[str]) -> Query | None:
    how = (match.groupdict().get("how") or "any").lower().removeprefix("for ")
    how = {"how many times": "how often", "since when": "when", "why": "any"}.get(how, how)
    return Query("outage", None, "outage", how)


@_rule(
    r"when (?:did|have) (?:i|we) (?:tell|told|say|said|mention|mentioned|teach|"
    r"taught)(?: to)?(?: you)? (?:about|of) (?P<x>.+)",
    r"when (?:did|have) (?:i|we) (?:tell|told|say|said|mention|mentioned)(?: to)?(?: you)?(?: that)? (?P<s>.+)",
    r"when (?:were|was) (?:you|i) (?:told|informed)(?: about| of) (?P<x>.+)",
    r"when (?:were|was) you (?:told|informed)(?: that)? (?P<s>.+)",
    r"(?:when|how) did you (?:learn|hear|find out|get to know)(?: about| of) (?P<x>.+)",
    r"(?:when|how) did you (?:learn|hear|find out)(?: that)? (?P<s>.+)",
    r"since when do you know (?:about )?(?P<x>.+)",
    r"when was the time (?:that )?(?:i|we) (?:told|mentioned)(?: you)?(?: about)? (?P<x>.+)",
    ordered=True,
)
def _when_told(asked: Asked, match: re.Match[str]) -> Query | None:
    parts = match.groupdict()
    statement = asked.claim(parts["s"]) if parts.get("s") else None
    if statement:
        return Query("when_told", statement.subject, statement.predicate, statement.object or None)
    phrase = re.sub(
        r"^(?:where|what|who|how|when) (.+?) (?:is|are|was|were)$", r"\1", parts.get("x") or parts.get("s") or ""
    )
    subject = asked.name(phrase)
    return Query("when_told", subject, "told") if subject else None


@_rule(
    rf"(?:when|(?:at |on )?what (?:time|day)|how long ago) (?:did|have|had|do|could) you {_SEE} (?P<x>.+)",
    rf"when was the (?:time )?(?:that |when )?(?:you {_SEE} )(?P<x>.+)",
    r"when was the (?:time )?(?:that |when )?(?P<x>.+) (?:was|were|appeared|came by|showed up|passed)"
    r"(?: here| there| seen| visible| around| by| past| in view)?",
    rf"(?:when|(?:at |on )?what (?:time|day)) (?:was|were|is|are) (?P<x>.+?) (?:{_SEE}|visible|in view|"
    rf"on camera|in sight|"
    r"here|there|around|on the video|in the video|in the picture|in frame)",
    r"(?:when|(?:at |on )?what (?:time|day)) (?:did|does|do) (?P<x>.+?) "
    r"(?:appear|show up|pass|pass by|come into view|come by|come into the picture|enter the (?:picture|frame|scene)|"
    r"walk by|drive by|ride by|walk past|drive past|become visible|turn up)(?P<p> .+)?",
    rf"when (?:can|could) (?:i|you|we) {_SEE} (?P<x>.+)",
    rf"(?P<x>(?:a|an|the) .+?), when did you {_SEE} (?:it|one|him|her|them)",
    ordered=True,
)
def _when_seen(asked: Asked, match: re.Match[str]) -> Query | None:
    subject = asked.bare(match["x"])
    return Query("when_seen", subject, "seen") if subject else None


@_rule(
    rf"how (?:many times|often) (?:did|have|had|do) you {_SEE} (?P<x>.+)",
    rf"how (?:many|much) (?P<x>.+?) (?:did|have|had|do|can|could) you {_SEE}(?P<p> .+)?",
    r"how (?:many|much) (?P<x>.+?) (?:were|was|are|is|have been|had been) (?:there|visible|seen|in view|around|"
    r"on camera)(?P<p> .+)?",
    r"(?:what (?:is|was) the )?(?:total )?number of (?P<x>.+?)(?: (?:you )?(?:saw|seen|have seen))?(?P<p> (?:in|"
    r"on|at) .+)?",
    r"(?:did you )?count (?:the |all )?(?P<x>.+?)(?: (?:that )?you (?:saw|have seen))?(?P<p> (?:in|on|at) .+)?",
    ordered=True,
)
def _count_seen(asked: Asked, match: re.Match[str]) -> Query | None:
    subject = asked.bare(match["x"])
    place = asked.place(match.groupdict().get("p") or match["x"])
    return Query("count", subject, "seen", place) if subject else None


@_rule(
    rf"how (?:many times|often) (?P<v>{_BE}|{_DO}|has|have|had) (?P<r>.+)",
    r"how many (?P<n>[\w' -]+?) (?P<s>(?:came|come|went|visited|called|arrived|passed|left|entered|rang|knocked|"
    r"are|were|is|"
    r"was|have been|do|does|did)\b.*)",
    ordered=True,
)
def _count_done(asked: Asked, match: re.Match[str]) -> Query | None:
    parts = match.groupdict()
    if parts.get("v"):
        claim = _claim_of(asked, parts["v"], parts["r"])
        if claim is None:
            return None
        return Query("count", *_done(asked, *claim))
    subject = asked.name(parts["n"])
    statement = asked.claim(f"the {parts['n']} {parts['s']}")
    if subject is None or statement is None:
        return None
    return Query("count", subject, statement.predicate, statement.object or None)


@_rule(
    r"(?:what|anything|everything|all)(?: (?:did|have|had|do))? (?:(?:that )?(?:i|we)) (?:tell|told|say|said|"
    r"teach|taught|mention|mentioned)"
    r"(?: to)?(?: you)?(?: (?:about|of|on|regarding) (?P<x>.+))?",
    r"what (?:were|have) you (?:been )?told(?: about (?P<x>.+))?",
    r"what (?:do|did) you (?:know|remember|learn|hear)(?: (?:about|of) (?P<x>.+))?",
    r"what have you (?:learned|learnt|heard)(?: (?:about|of) (?P<x>.+))?",
    r"(?:something |everything |anything |all |what |more |you know |that )*about (?P<x>.+)",
    r"what (?:is|was|are) (?P<z>.+) like",
    r"what (?:information|facts|notes) (?:do|did) you have (?:about|on) (?P<x>.+)",
    r"did (?:i|we) (?:ever )?(?:tell|say|mention)(?: you)?(?: anything| something)?(?: about (?P<x>.+))?",
    r"do you know anything about (?P<x>.+)|anything about (?P<y>.+)",
)
def _what_told(asked: Asked, match: re.Match[str]) -> Query | None:
    phrase = next((value for value in match.groupdict().values() if value), None)
    subject = asked.name(phrase)
    return Query("what_told", subject, "told") if subject or not phrase else None


@_rule(
    rf"(?:what|who|whom|which .+?) (?:did|have|had|do|can|could) you (?:just )?{_SEE}(?P<p> .+)?",
    r"what (?:has |have |did )?(?:happened|happens?|happen|occurred)(?P<p> .+)?",
    r"what (?:was|is|has been) (?:going on|happening|up|new|to be seen|visible)(?P<p> .+)?",
    r"anything (?:new|interesting|unusual|happening|happen|happened|going on)(?P<p> .+)?",
    r"(?:did|has|was|is) (?:there )?(?:anything|something)(?: \w+)? ?(?:happen|happened|happening|going on|"
    r"new)(?P<p> .+)?",
    rf"(?:did|have) you {_SEE} (?:anything|something)(?: \w+ing| else| new| unusual| interesting)?(?P<p> .+)?",
    rf"(?:what|everything|all|that)(?: that)? you (?:saw|have seen|{_SEE})(?P<p> .+)?",
    r"what did (?P<x>.+) (?:do|get up to)(?P<p> .+)?",
    r"what (?:was|were|is|are) (?P<x>[^,]+?) (?:doing|up to)(?P<p> .+)?",
    r"(?:a )?(?:summary|summarise|summarize|recap|describe|report|overview)(?: of)?(?: the| my| your|"
    r" what happened)?(?: day)?(?P<p> .+)?",
    r"what did (?:i|we) miss(?P<p> .+)?",
    r"how was (?:the|your|my) (?:day|night|morning|evening)",
)
def _what_seen(asked: Asked, match: re.Match[str]) -> Query | None:
    parts = match.groupdict()
    subject = asked.name(parts["x"]) if parts.get("x") else None
    if subject is None and parts.get("p"):
        place = words_of(parts["p"])
        k = place_start(place)
        subject = asked.name(" ".join(w.text for w in place[k + 1 :])) if k == 0 and len(place) > 1 else None
    if subject is None and re.match(r"who|whom", match[0], re.IGNORECASE):
        subject = "person"
    return Query("what_seen", subject, "seen")


@_rule(
    rf"(?:did|have|had|can|could) you (?:ever |just )?{_SEE} (?P<x>.+)",
    r"(?:was|were|has|have) (?:there )?(?P<x>.+?) (?:been )?(?:seen|visible|in view|on camera|around)",
    r"(?:was|were|is|are) there (?P<x>(?:a|an|any|some|someone|somebody|anyone|anybody)\b.*?)(?P<p> (?:in|on|at|"
    r"by|near) .+)?",
)
def _seen(asked: Asked, match: re.Match[str]) -> Query | None:
    subject = asked.bare(match["x"])
    place = asked.place(match.groupdict().get("p") or match["x"])
    return Query("yes_no", subject, "seen", place) if subject else None


@_rule(
    rf"(?:where|in which \w+|on which \w+) (?:exactly )?{_BE} (?P<x>.+?)(?: (?:kept|stored|located|parked|"
    rf"hidden|hiding|lying|put|"
    r"placed|now|currently|right now|at the moment|at|again|gone|left|seen))*",
    rf"(?:in|on|under|at|behind) (?:which|what) (?!day|time|date|month|year|occasion)(?:[\w ]+?) {_BE} (?P<x>.+)",
    rf"(?:which|what) (?:\w+) {_BE} (?P<x>.+?) (?:kept |stored |parked |hidden )?(?:in|on|at|under|behind)",
    rf"where (?P<x>.+?) {_BE}(?: kept| stored| hidden| parked| now| right now)*",
    r"where (?:can|could|should|would|do|might|will) (?:i|we|you|one) (?:find|look for|get|search for|see) (?P<x>.+)",
    rf"where (?:did|have|had) you (?:ever )?{_SEE} (?P<x>.+)",
    r"where (?:the (?:hell|heck) )?(?:has|have|had) (?P<x>.+?) (?:gone|been|ended up|got to|disappeared(?: to)?)",
    r"where (?:did|does|do) (?P<x>.+?) (?:go|end up|get to|disappear(?: to)?|belong|hide)",
    r"(?:which|what) (?:place|room|drawer|shelf|box|cupboard) (?:holds|contains|has) (?P<x>.+)",
    r"i (?:can not|could not|do not) find (?P<x>.+)",
    r"(?:i am |we are )?looking for (?P<x>.+)",
    r"(?:what is|tell me) the (?:location|place|position|whereabouts) of (?P<x>.+)",
    r"who (?:has|had|has got|is holding) (?P<x>(?:the|my|our|his|her|your) .+)",
    ordered=True,
)
def _where(asked: Asked, match: re.Match[str]) -> Query | None:
    subject = asked.name(match["x"])
    verb = re.match(r"where was (.+) born$", asked.text, re.IGNORECASE)
    if verb:
        return Query("attribute", asked.name(verb[1]), "bear")
    return Query("location", subject, "location") if subject else None


@_rule(
    r"where (?P<v>did|do|does|have|has|had|would|should) (?P<r>.+)",
    r"where (?P<s>(?:i|we|he|she|they|[\w' ]+?) (?:put|left|placed|hid|parked|stored|keep|keeps|kept|have put|"
    r"have left|laid|dropped) .+)",
    ordered=True,
)
def _where_put(asked: Asked, match: re.Match[str]) -> Query | None:
    parts = match.groupdict()
    sentence = parts.get("s") or _do_statement(
        "did" if parts["v"].lower() in ("would", "should") else parts["v"], parts["r"] or ""
    )
    words = words_of(sentence or "")
    verb = find_verb(words)
    if verb is None or sentence is None:
        return None
    thing = words[verb.end :]
    if thing:
        subject = asked.bare(_source(sentence, thing))
        return Query("location", subject, "location") if subject else None
    subject = asked.name(_source(sentence, words[: verb.start]))
    return Query("attribute", subject, verb.lemma) if subject else None


@_rule(
    rf"(?:to )?whose (?P<x>.+) {_BE} (?P<y>this|that|it|these|those|the .+ ones?|they)",
    r"whose (?:is|are|was|were) (?P<x>.+)",
    r"(?:who|whom) (?:does|do|did) (?P<x>.+) belong to|to (?:who|whom) (?:does|do|did) (?P<z>.+) belong",
    r"who (?:owns|owned|own|is the owner of|are the owners of|was the owner of|possesses) (?P<x>.+)",
    rf"whose (?P<x>.+?) {_BE} (?P<p>(?:hanging |lying |standing |parked )?"
    r"(?:in|on|under|at|by|next|behind|here|there)\b.*)",
    rf"whose (?P<x>[\w ]+?) (?P<y>the [\w ]+ ones?) {_BE}",
    r"who is (?P<x>.+?)(?:'s|s') owner",
    r"who (?P<x>.+) belongs? to",
    rf"whose (?P<x>.+) {_BE}",
)
def _owner(asked: Asked, match: re.Match[str]) -> Query | None:
    parts = match.groupdict()
    phrase = parts["x"] or parts.get("z") or ""
    chosen = re.match(r"the (.+) ones?$", parts.get("y") or "", re.IGNORECASE)
    if chosen:
        phrase = f"{chosen[1]} {ARTICLE_LEAD.sub('', phrase)}"
    subject = asked.name(phrase)
    return Query("owner", subject, "owner") if subject else None


@_rule(
    r"(?:what|which (?:things?|objects?|[\w ]+?)) (?:does|do|did) (?P<x>.+) (?:own|possess)",
    r"(?:what|which (?:things?|[\w ]+?)) (?:belongs?|belong|belonged) to (?P<x>.+)",
    r"(?:what|which (?:things?|[\w ]+?)) (?:is|are) (?P<x>mine|[\w ]+'s)",
)
def _owned(asked: Asked, match: re.Match[str]) -> Query | None:
    name = asked.name(match["x"].removesuffix("'s"))
    return Query("owner", None, "owner", name) if name else None


_LIKE_VERB = r"(?:like|love|enjoy|hate|dislike|prefer|adore|not like|not stand)"


@_rule(
    rf"(?:what|which|who|whom)(?: (?P<what>[\w ]+?))? (?:does|do|did|can) (?P<x>.+?) {_LIKE_VERB}(?: to (?:eat|"
    rf"drink|do|read|watch|listen to|have|play))?"
    r"(?: (?:best|most|least|the most|the least|at all|for \w+))?",
    rf"(?:does|do|did|can) (?P<x>.+?) {_LIKE_VERB} (?P<o>.+)",
    r"who (?:likes|loves|enjoys|hates|dislikes|prefers|liked|loved|does not like|do not like) (?P<o>.+)",
    r"(?:what (?:are|is) )(?P<x>.+?)(?:'s|s') (?:preferences?|likes|tastes?|likes and dislikes)",
    r"(?:is|are) (?P<x>.+?) (?:a )?(?:fond of|fan of|into|keen on) (?P<o>.+)",
    r"what (?P<x>(?!is\b|was\b|are\b)[\w' ]+?) (?:likes|like|loves|love|hates|hate)",
)
def _likes(asked: Asked, match: re.Match[str]) -> Query | None:
    parts = match.groupdict()
    subject, value = asked.name(parts.get("x")), asked.name(parts.get("o"))
    if subject is None and (parts.get("x") or value is None):
        return None
    return Query("likes", subject, "likes", value)


@_rule(
    r"(?:what|which) colou?r (?:is|are|was|were|does|do) (?P<colour>.+?)(?: have)?",
    r"how (?P<how>old|tall|high|heavy|big|large|expensive|hot|warm|cold|long|wide) (?:is|are|was|were|am) (?P<x>.+)",
    r"how much (?:does|do|did) (?P<cost>.+) cost|how much (?:is|was) (?P<price>.+)|how much (?:does|do|"
    r"did) (?P<weight>.+) weigh",
    r"(?:what|how) (?:is|are|was|were|do you call) (?P<name>.+?) (?:called|named)|what do (?:i|you|"
    r"we) call (?P<call>.+)",
    r"(?:who|what) (?:is|am|was) (?P<me>i)|(?:who|what) (?P<me2>i) am",
    r"(?:what|which) (?P<noun>size|brand|model|make|shape|material|type|kind|height|weight|age|temperature|year) "
    r"(?:is|are|was|does) (?P<thing>.+?)(?: have)?",
)
def _measure(asked: Asked, match: re.Match[str]) -> Query | None:
    parts = {key: value for key, value in match.groupdict().items() if value}
    if "me" in parts or "me2" in parts:
        return Query("attribute", asked.mentions.speaker, "name")
    noun = {"old": "age", "tall": "height", "high": "height", "heavy": "weight", "big": "size", "large": "size",
            "expensive": "price", "hot": "temperature", "warm": "temperature", "cold": "temperature", "long": "length",
            "wide": "width"}.get(parts.pop("how", "").lower())  # fmt: skip
    noun = noun or parts.pop("noun", "").lower()
    key, phrase = next(iter(parts.items()))
    predicate = noun or {"call": "name", "colour": "colour", "cost": "cost", "price": "price", "weight": "weigh"}.get(
        key, key
    )
    subject = asked.name(phrase)
    return Query("attribute", subject, predicate) if subject else None


@_rule(
    r"(?:what|who) (?:is|are|was|were) (?P<l>(?:in|on|under|at|behind|inside|near|next to|beside|above|below|by|"
    r"with) .+)",
    r"(?P<w>who) (?:is|are|was|were) (?P<h>here|there|home|upstairs|downstairs|outside|inside)",
    r"what (?:do|does|did) (?P<b>.+?) (?:contain|hold)",
)
def _located(asked: Asked, match: re.Match[str]) -> Query | None:
    parts = match.groupdict()
    phrase = parts.get("l") or parts.get("h")
    place = name_place(words_of(phrase), asked.mentions) if phrase else "in " + (asked.name(parts.get("b")) or "")
    if not place:
        return None
    person = match[0][:3].lower() == "who"
    return Query("who_did" if person else "location", None, "location", place)


@_rule(
    r"(?:what|who|whom) (?:is|are|was|were|am) (?P<x>.+?) (?P<a>allergic|married|engaged|related|afraid|scared|"
    r"responsible|"
    r"interested|made|used) (?P<p>to|of|for|in|with|from|by)",
    r"(?:to )?(?:what|who|whom) (?:is|are|was|were) (?P<x>.+?) (?P<a>allergic|married|engaged|related|afraid)(?P<p>)",
    r"(?:what|who) (?P<x>(?!is\b|are\b|was\b|were\b).+) (?P<late>is|are|was|were)",
    rf"(?:what|who|which) (?:exactly )?{_BE} (?P<x>.+)",
    r"when (?:is|are|was) (?P<date>.+)",
    r"when (?P<dated>.+) (?:is|are|was)",
    r"(?P<n>(?:the |my |our |your )?(?:[\w' ]+'s |[\w ]+ )?(?:code|pin|password|passcode|phone number|number|"
    r"address|email|birthday|name|"
    r"combination))(?: of (?P<of>.+)| for (?P<for>.+))?",
)
def _attribute(asked: Asked, match: re.Match[str]) -> Query | None:
    parts = match.groupdict()
    if parts.get("a"):
        subject = asked.name(parts["x"])
        prefix = {"allergic": "to", "married": "to", "engaged": "to", "related": "to", "afraid": "of"}
        return (
            Query("attribute", subject, f"{parts['a']} {parts['p'] or prefix[parts['a'].lower()]}".lower())
            if subject
            else None
        )
    date = parts.get("date") or parts.get("dated")
    phrase = match[0] if parts.get("n") else parts.get("x") or date or ""
    words = words_of(phrase)
    found = split_attribute(words, asked.mentions)
    if date:
        dated = found and (found[1] in DATE_ATTRIBUTES or found[1].endswith("date"))
        return Query("attribute", *found) if found and dated else None
    if parts.get("n") and found is None:
        return None
    if found:
        return Query("attribute", *found)
    subject = asked.name(phrase)
    return Query("attribute", subject, "is") if subject and re.search(r"[^\W\d_]", subject) else None


@_rule(rf"who (?P<s>(?:{_BE}|has|have|had|did|does|will|can|\w+) .+|\w+)", r"(?P<by>by whom) (?P<v>was|were) (?P<r>.+)")
def _who_did(asked: Asked, match: re.Match[str]) -> Query | None:
    parts = match.groupdict()
    if parts.get("by"):
        claim = _claim_of(asked, parts["v"], parts["r"])
        return Query("who_did", claim[0].subject, claim[1]) if claim else None
    sentence = f"Somebody {parts['s']}"
    verb = find_verb(words_of(sentence))
    statement = asked.claim(sentence)
    if verb is None or statement is None:
        return None
    subject, predicate, value = _done(asked, statement, verb.lemma)
    if value == "somebody":
        return Query("who_did", subject, verb.lemma)
    if subject == "somebody" and predicate == verb.lemma and value and place_start(words_of(value)) != 0:
        return Query("who_did", value, predicate)
    kind: Kind = "likes" if predicate == "likes" else "who_did"
    return Query(kind, None if subject == "somebody" else subject, predicate, value)


@_rule(
    rf"(?:when|(?:at |on )?what (?:time|day)|how long ago|since when|until when) (?P<v>{_BE}|{_DO}|has|have|had|"
    rf"will|can) (?P<r>.+)",
    r"when (?P<s>.+)",
    ordered=True,
)
def _when_happened(asked: Asked, match: re.Match[str]) -> Query | None:
    parts = match.groupdict()
    if parts.get("v"):
        claim = _claim_of(asked, parts["v"], parts["r"])
        if claim and not (claim[1] == "be" and claim[0].predicate == "is" and parts["v"].lower() != "will"):
            return Query("when_happened", *_done(asked, *claim))
        if parts["v"].lower() in ("is", "are", "was", "were"):
            subject = asked.name(parts["r"])
            return Query("when_happened", subject, "happen") if subject else None
        return None
    statement = asked.claim(parts["s"])
    if statement is None:
        return None
    verb = find_verb(words_of(parts["s"]))
    return Query("when_happened", *_done(asked, statement, verb.lemma if verb else ""))


@_rule(
    rf"(?P<v>{_BE}|{_DO}|has|have|had|will|can) (?P<r>.+)",
    r"(?:whether|if|is it true that|is it correct that) (?P<s>.+)",
)
def _yes_no(asked: Asked, match: re.Match[str]) -> Query | None:
    parts = match.groupdict()
    if parts.get("s"):
        statement = asked.claim(parts["s"])
        return Query("yes_no", statement.subject, statement.predicate, statement.object or None) if statement else None
    claim = _claim_of(asked, parts["v"], parts["r"])
    return Query("yes_no", *_done(asked, *claim)) if claim else None
