"""English clauses about changes of a home: "Ben put the keys on the kitchen table", "the fridge being opened".

This module knows the verbs of moving, switching, opening, coming and going, in any form and voice. It knows neither
whole questions (`world_questions`) nor which things there are, so a name is any noun phrase.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..perception.words import Mentions, Word, bag, name_entity, verb_form, words_of
from .queries import Happening

_MOVE = bag(
    "move put place take bring carry lay set shift relocate drop fetch transfer give hand return deliver pick "
    "grab get "
    "displace reposition remove leave stow store pass clear stash park hang hide collect"
)
_OPEN = {"open": "open", "close": "closed", "shut": "closed", "lock": "locked", "unlock": "unlocked"}
_SWITCH = bag("turn switch flip power click put toggle shut")
_BECOME = bag("go come turn become get be switch click light power spring stay")
_RUN = {
    "start": "on",
    "run": "on",
    "activate": "on",
    "stop": "off",
    "deactivate": "off",
    "extinguish": "off",
    "dry": "dry",
}
_ENTER = bag("come arrive return get go walk enter head")
_LEAVE = bag("leave depart exit go walk")
_STATES = {"shut": "closed", "lit": "on", "ajar": "open", "running": "on", "alight": "on", "dark": "off"}
_PLAIN_STATES = bag("on off open closed wet dry full empty dirty clean broken warm cold hot locked unlocked damp up")
_HOME = bag("home house flat apartment building")
_BE = bag("is are was were be been being am")
_GET = bag("get gets got getting")
_AUXILIARY = _BE | bag("has have had having did do does will to it that")
_SKIP = bag(
    "ever just actually again really already finally first last then there only also suddenly once please please"
)
_TO = bag("to into onto in on at inside under behind beside near upon within beneath over underneath towards toward")
_FROM = bag("from off")
_NOBODY = bag("someone somebody anyone anybody something anything")
_NOUNS = (
    (
        re.compile(r"(?:the )?(?P<x>.+?)'s (?:arrival|return|homecoming|coming home|coming back)$", re.IGNORECASE),
        "entered",
    ),
    (re.compile(r"the (?:arrival|return|homecoming) of (?P<x>.+)$", re.IGNORECASE), "entered"),
    (re.compile(r"(?:the )?(?P<x>.+?)'s (?:departure|leaving)$", re.IGNORECASE), "left"),
    (re.compile(r"the departure of (?P<x>.+)$", re.IGNORECASE), "left"),
    (re.compile(r"the (?:move|moving|relocation|displacement) of (?P<x>.+)$", re.IGNORECASE), "moved"),
    (re.compile(r"the opening of (?P<x>.+)$", re.IGNORECASE), "open"),
    (re.compile(r"the (?:closing|shutting) of (?P<x>.+)$", re.IGNORECASE), "closed"),
)


def _inflections() -> dict[str, tuple[str, str]]:
    """Forms of verbs that the common dictionary lacks: word to (lemma, kind)."""
    found = {}
    for lemma in sorted(_MOVE | set(_OPEN) | _SWITCH | _BECOME | set(_RUN) | _ENTER | _LEAVE):
        if verb_form(lemma, "base"):
            continue
        stem = lemma[:-1] if lemma.endswith("e") else lemma[:-1] + "pp" if lemma.endswith("ip") else lemma
        for word, kind in ((lemma, "base"), (lemma + "s", "s"), (stem + "ed", "part"), (stem + "ing", "ing")):
            found[word] = (lemma, kind)
    return found | {"lit": ("light", "part"), "dried": ("dry", "part"), "dries": ("dry", "s")}


_MORE = _inflections()


def _lemma(low: str) -> tuple[str, str] | None:
    """(base form, kind) of a verb that this module knows."""
    for kind in ("part", "past", "ing", "s", "base"):
        lemma = verb_form(low, kind)
        if lemma is not None and (lemma in _MOVE or lemma in _OPEN or lemma in _SWITCH or lemma in _BECOME
                                  or lemma in _RUN or lemma in _ENTER or lemma in _LEAVE):  # fmt: skip
            return lemma, kind
    return _MORE.get(low)


def state_word(low: str) -> str | None:
    """The state that a word names ("shut": closed), None if it names none that is known."""
    return _STATES.get(low) or (low if low in _PLAIN_STATES else None)


def read_happening(text: str, mentions: Mentions, *, passive: bool = False, bare: bool = False) -> Happening | None:
    """The change that a clause speaks of, None if it speaks of none.

    Args:
        text: a clause without times, in the order of a statement: "Ben moved the keys", "the lamp going on". After an
            auxiliary that stood in front ("did", "was") the rest of a question is one too: "Ben move the keys".
        mentions: what pronouns stand for.
        passive: the auxiliary in front was a form of "be".
        bare: the text begins with the verb, as after "who".
    """
    for pattern, kind in _NOUNS:
        noun = pattern.match(text.strip())
        name = name_entity(words_of(noun["x"]), mentions) if noun else None
        if name:
            state = kind if kind in ("open", "closed") else None
            return Happening("state" if state else kind, name, state)  # type: ignore[arg-type]
    words = [word for word in words_of(text) if word.low not in _SKIP and word.low != ","]
    if words and words[0].low == "that":
        words = words[1:]
    clause = _Clause(words, mentions, passive)
    for i in range(0 if bare else 1, len(words)):
        found = clause.at(i)
        if found is not None:
            return found
    return clause.state(words) if passive else None


@dataclass(frozen=True, slots=True)
class _Clause:
    words: Sequence[Word]
    mentions: Mentions
    passive: bool

    def at(self, i: int) -> Happening | None:
        """The reading with the main verb at ``i``."""
        verb = _lemma(self.words[i].low)
        if verb is None:
            return None
        lemma, kind = verb
        before, after = list(self.words[:i]), list(self.words[i + 1 :])
        if after and after[0].low in _BE | {"did", "has", "had"}:  # "the light switch was turned on"
            return None
        if lemma == "get" and after and verb_form(after[0].low, "part"):  # "get moved"
            return None
        if kind == "base" and len(after) > 1 and after[0].low in _SWITCH and after[1].low in ("on", "off"):
            return None
        passive = self.passive and kind == "part"
        while before and before[-1].low in _AUXILIARY | _GET and len(before) > 1:
            low = before.pop().low
            passive = passive or (kind == "part" and (low in _BE or low in _GET))
        if any(word.low in _BE or (_lemma(word.low) or ("", ""))[1] in ("past", "ing") for word in before):
            return None
        if passive and kind != "part":
            return None
        if before and before[-1].low in ("the", "a", "an", "my", "and"):
            return None
        subject = None if not before or before[-1].low in _NOBODY else name_entity(before, self.mentions)
        if subject is None and before and before[-1].low not in _NOBODY:
            return None
        return self._read(lemma, subject, after, passive, kind)

    def _read(self, lemma: str, subject: str | None, after: list[Word], passive: bool, kind: str) -> Happening | None:
        lows = [word.low for word in after]
        state = self._switched(lemma, lows, passive)
        if state is not None:
            rest = [word for word in after if word.low not in ("on", "off")] if lemma not in _OPEN else after
            return self._done_to(subject, rest, passive, Happening("state", state=state))
        if lemma in _RUN and not (lemma == "start" and lows[:1] == ["to"]):
            rest = after if lows[:1] != ["up"] else after[1:]
            rest = [word for word in rest if word.low not in ("running", "working")]
            return self._done_to(subject, rest, passive, Happening("state", state=_RUN[lemma]))
        if not passive and (found := self._came_or_went(lemma, subject, after)):
            return found
        if not passive and lemma in _BECOME and lows:
            became = state_word(lows[-1]) if len(lows) == 1 or lows[:-1] == ["to"] else None
            if lemma == "light" and lows == ["up"]:
                became = "on"
            if became and became != "up":
                return Happening("state", subject, became)
        if lemma in _MOVE or (lemma in ("go", "come") and not passive):
            return self._moved(lemma, subject, after, passive, kind)
        return None

    def _switched(self, lemma: str, lows: list[str], passive: bool) -> str | None:
        """The state that a verb of switching gives."""
        if lemma == "shut" and lows and "off" in (lows[0], lows[-1]):
            return "off"
        if lemma in _OPEN:
            return _OPEN[lemma]
        if lemma not in _SWITCH or not lows:
            return None
        head = lows[0] if lows[0] in ("on", "off") else None
        tail = lows[-1] if lows[-1] in ("on", "off") else None
        if "by" in lows and passive:
            head = head or (lows[lows.index("by") - 1] if lows[lows.index("by") - 1] in ("on", "off") else None)
        if lemma == "put" and tail is None:  # "put on the table" is a place
            return None
        return head or tail

    def _done_to(self, subject: str | None, rest: list[Word], passive: bool, change: Happening) -> Happening | None:
        """Fills in who changed what: "the fridge opened", "was opened by Ben", "Ben opened the fridge"."""
        agents = [k for k, word in enumerate(rest) if word.low == "by"]
        by = name_entity(rest[agents[-1] + 1 :], self.mentions) if agents else None
        objects = rest[: agents[-1]] if agents else rest
        objects = [word for word in objects if word.low not in ("up", "down", "itself", "alone")]
        if objects and not passive:
            thing = name_entity(objects, self.mentions)
            return replace(change, thing=thing, by=_actor(subject)) if thing else None
        if objects:
            return None
        return replace(change, thing=subject, by=_actor(by)) if subject else None

    def _came_or_went(self, lemma: str, subject: str | None, after: list[Word]) -> Happening | None:
        lows = [word.low for word in after if word.low != "back"]
        kept = [word for word in after if word.low != "back"]
        if "for" in lows or "from" in lows:  # "left for work", "came home from work"
            cut = min(lows.index(low) for low in ("for", "from") if low in lows)
            if (lemma in _LEAVE and "for" in lows) or lows[:1] == ["home"]:
                kept, lows = kept[:cut], lows[:cut]
        back = len(kept) < len(after)
        if lemma in ("leave", "depart", "exit"):
            if any(low in _TO for low in lows):  # "left the keys on the table"
                return None
            place = name_entity(kept, self.mentions) if kept else None
            return Happening("left", subject, place=None if place in _HOME else place)
        if lemma in ("go", "walk", "get", "come") and lows[:1] in (["out"], ["away"]):
            rest = kept[2:] if lows[1:2] == ["of"] else kept[1:]
            place = name_entity(rest, self.mentions) if rest else None
            return Happening("left", subject, place=None if place in _HOME else place)
        if lemma == "enter" or (lemma in _ENTER and lows[:1] and lows[0] in ("into", "to", "in", "inside")):
            rest = kept if lemma == "enter" else kept[1:]
            place = name_entity(rest, self.mentions) if rest else None
            return Happening("entered", subject, place=None if place in _HOME else place)
        if lemma in _ENTER and lows == ["home"]:
            return Happening("entered", subject)
        if not lows and (
            lemma == "arrive" or (lemma in ("return", "come", "get", "go") and (back or lemma == "return"))
        ):
            return Happening("entered", subject)
        if lemma == "arrive" and lows[0] == "at":
            return Happening("entered", subject)
        return None

    def _moved(self, lemma: str, subject: str | None, after: list[Word], passive: bool, kind: str) -> Happening | None:
        after = [word for word in after if word.low not in ("back", "away", "up", "over", "down", "somewhere", "else")]
        after = [
            w for k, w in enumerate(after) if not (w.low == "out" and after[k + 1 : k + 2] and after[k + 1].low == "of")
        ]
        first = next((k for k, word in enumerate(after) if word.low in _TO | _FROM | {"by", "of", "out"}), len(after))
        objects, phrases = after[:first], after[first:]
        happening, by = Happening("moved"), None
        while phrases:
            low = phrases[0].low
            end = next((k for k in range(1, len(phrases)) if phrases[k].low in _TO | _FROM | {"by"}), len(phrases))
            name = name_entity(phrases[1:end], self.mentions)
            if low in _FROM or low in ("of", "out"):
                happening = replace(happening, origin=name)
            elif low == "by" and passive:
                by = name
            else:
                happening = replace(happening, place=name)
            phrases = phrases[end:]
        if passive or not objects:
            if lemma in ("give", "hand") and passive and objects:
                happening = replace(happening, place=name_entity(objects, self.mentions))
            if subject is None or (
                not passive and lemma in ("get", "set", "pass", "go", "come") and happening == Happening("moved")
            ):
                return None
            if not passive and lemma not in ("move", "go", "come", "shift", "get", "return"):
                return None
            return replace(happening, thing=subject, by=_actor(by))
        if lemma in ("go", "come", "get") and lemma != "get":
            return None
        articles = [k for k, word in enumerate(objects) if word.low in ("the", "a", "an") and k]
        if lemma in ("give", "hand", "bring") and articles:  # "gave Anna the book"
            happening = replace(happening, place=name_entity(objects[: articles[0]], self.mentions))
            objects = objects[articles[0] :]
        if objects[-1].low in ("place", "position") and lemma in ("change", "take"):
            return replace(happening, thing=subject)
        thing = None if objects[-1].low in _NOBODY else name_entity(objects, self.mentions)
        if thing is None and objects[-1].low not in _NOBODY:
            return None
        return replace(happening, thing=thing, by=_actor(subject))

    def state(self, words: Sequence[Word]) -> Happening | None:
        """ "the lamp on", after a form of "be": the change that made it so."""
        if len(words) < 2:
            return None
        state = state_word(words[-1].low)
        name = name_entity([word for word in words[:-1] if word.low not in ("still", "left")], self.mentions)
        return Happening("state", name, state) if state and name else None


def _actor(name: str | None) -> str | None:
    return None if name in _NOBODY else name
