"""English words for the language layer: contractions, verbs and their forms, prepositions, canonical entity names.

This module knows words and short phrases. It does not know sentences (`statements`, `agent.questions`) nor time
(`when`).
Statements and questions name things through `name_entity` and `name_place` alone, so both always agree on a name.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import snowballstemmer


def bag(words: str) -> frozenset[str]:
    """The words of a string as a set."""
    return frozenset(words.split())


ARTICLES = bag("the a an this that these those some our")
_DETERMINERS = ARTICLES | {"all", "both", "any", "another"}
PRONOUNS = bag("i you he she it we they me him her us them this that these those mine yours hers theirs ours")
SUBJECT_PRONOUNS = bag("i you he she it we they")
_POSSESSIVE = bag("my your his her its their")
ADVERBS = bag(
    "still now currently always usually just already also really actually again only even finally recently soon often "
    "sometimes normally generally probably definitely certainly ever very absolutely all both simply then"
)
NEGATIONS = frozenset({"not", "never"})
PLACE_PREPOSITIONS = bag(
    "in on under at by behind beside above below near inside outside between over underneath beneath against around "
    "within next close opposite among upon atop with beyond across along"
)
PLACE_ADVERBS = bag("upstairs downstairs outside inside here there nearby abroad home indoors outdoors away elsewhere")
_SURFACES = bag(
    "table desk shelf counter floor hook wall sofa couch bed chair bench workbench nightstand stove windowsill sill "
    "sideboard mat rug carpet tray roof balcony terrace stool worktop dresser mantelpiece rack"
)
KIN = bag(
    "brother sister mother father mum mom dad parent son daughter child wife husband partner girlfriend boyfriend "
    "cousin uncle aunt nephew niece grandmother grandfather grandma grandpa granny grandson granddaughter friend "
    "neighbour neighbor colleague boss doctor dentist nurse teacher landlord tenant plumber electrician lawyer "
    "gardener cleaner therapist carer caregiver roommate flatmate guest fiance fiancee stepmother stepfather"
)
FUNCTIONAL_KIN = bag("mother father mum mom dad wife husband partner boss landlord girlfriend boyfriend")
ATTRIBUTES = bag(
    "code pin password passcode passphrase number combination name nickname surname birthday anniversary address email "
    "age height weight size price cost model brand colour color job profession occupation nationality extension "
    "temperature deadline capacity iban username login plate ssid hometown profession"
)
DATE_ATTRIBUTES = frozenset({"birthday", "anniversary", "deadline", "due date", "date of birth", "expiry date"})
TWO_WORD_ATTRIBUTES = frozenset(
    {"phone number", "email address", "due date", "serial number", "licence plate", "license plate", "blood type",
     "shoe size", "expiry date", "account number", "house number", "room number", "mobile number", "last name",
     "first name", "telephone number", "insurance number", "customer number", "blood group", "zip code", "pin code"}
)  # fmt: skip
_SCALE_WORDS = {
    "colour": "red green blue yellow black white brown grey gray orange purple pink violet turquoise beige golden "
    "silver cyan magenta navy teal maroon olive transparent",
    "opening": "open closed shut ajar",
    "lock": "locked unlocked",
    "power": "on off",
    "condition": "broken repaired fixed working damaged defective",
    "cleanliness": "clean dirty",
    "filling": "full empty",
}
SCALES = {word: scale for scale, words in _SCALE_WORDS.items() for word in words.split()}
_SHADES = bag("light dark bright pale deep")

_IRREGULAR = """
be was been|have had had|do did done|go went gone|come came come|take took taken|put put put|leave left left|
bring brought brought|give gave given|lend lent lent|keep kept kept|lay laid laid|lie lay lain|hang hung hung|
hide hid hidden|set set set|stick stuck stuck|throw threw thrown|get got got|forget forgot forgotten|buy bought bought|
sell sold sold|see saw seen|say said said|tell told told|make made made|find found found|lose lost lost|eat ate eaten|
drink drank drunk|sleep slept slept|sit sat sat|stand stood stood|run ran run|swim swam swum|drive drove driven|
fly flew flown|break broke broken|write wrote written|read read read|speak spoke spoken|meet met met|pay paid paid|
send sent sent|wear wore worn|win won won|build built built|catch caught caught|teach taught taught|hold held held|
fall fell fallen|feel felt felt|feed fed fed|steal stole stolen|know knew known|think thought thought|ring rang rung|
shut shut shut|cut cut cut|hurt hurt hurt|let let let|begin began begun|sing sang sung|ride rode ridden|wake woke woken|
spend spent spent|hear heard heard|grow grew grown|hit hit hit|cost cost cost|mean meant meant|understand understood
understood|become became become|bear bore born|switch switched switched|pick picked picked
"""
_REGULAR = (
    "move place store park drop carry return lock unlock open close clean wash water repair fix replace "
    "paint order deliver collect empty fill arrive visit call phone work live play walk cook bake watch "
    "like love hate enjoy dislike adore prefer need want use own borrow hand pass loan donate belong rain "
    "snow start stop end finish happen turn install remove change clear check book cancel invite marry "
    "die paint plant study travel stay wait look help ask answer talk shout cry laugh smoke snore jump "
    "climb knock appear disappear enter exit crash spill drip leak ring charge vacuum mow pack unpack "
    "cover connect plug attach mount locate transfer shift slip tuck dump rent hire train exercise attend "
    "celebrate last weigh miss allow expect speak practise practice despise detest serve post mail "
    "receive sign touch push pull kick iron fold journey head recommend grab discard lift"
)
_DOUBLED = bag("cancel travel grab stop drop plug slip pack shop mop trip dip snap grab") - {"pack"}


@dataclass(frozen=True, slots=True)
class Form:
    """One reading of a verb form."""

    lemma: str
    kind: str
    """``base``, ``s``, ``past``, ``part`` or ``ing``."""


def _verb_forms() -> dict[str, tuple[Form, ...]]:
    forms: dict[str, list[Form]] = {}

    def add(word: str, lemma: str, kind: str) -> None:
        forms.setdefault(word, []).append(Form(lemma, kind))

    irregular = {line.split()[0]: line.split() for line in _IRREGULAR.replace("\n", " ").split("|")}
    for base in dict.fromkeys([*irregular, *_REGULAR.split()]):
        soft = base.endswith("y") and base[-2] not in "aeiou"
        stem = (
            base + base[-1]
            if base in _DOUBLED or base in ("put", "get", "set", "sit", "run", "swim", "cut", "win")
            else base
        )
        past = base + "d" if base.endswith("e") else base[:-1] + "ied" if soft else stem + "ed"
        _, second, third = irregular.get(base, [base, past, past])
        hissing = base.endswith(("s", "sh", "ch", "x", "z", "o"))
        third_person = base[:-1] + "ies" if soft else base + "es" if hissing else base + "s"
        if base not in ("be",):
            add(base, base, "base")
            add({"have": "has"}.get(base, third_person), base, "s")
        add(second, base, "past")
        add(third, base, "part")
        dying = base in ("lie", "die")
        dropped = base.endswith("e") and base not in ("be", "see")
        if base.endswith("l") and base in _DOUBLED:  # American spelling
            add(base + "ed", base, "past")
            add(base + "ed", base, "part")
        add(base[:-2] + "ying" if dying else base[:-1] + "ing" if dropped else stem + "ing", base, "ing")
    return {word: tuple(kinds) for word, kinds in forms.items()}


VERB_FORMS = _verb_forms()


def verb_form(word: str, *kinds: str) -> str | None:
    """The base form of a verb form of one of these kinds (``base``, ``s``, ``past``, ``part``, ``ing``), else None."""
    return next((f.lemma for f in VERB_FORMS.get(word, ()) if f.kind in kinds), None)


# --- text -------------------------------------------------------------------------------------------------------------

_CONTRACTIONS = [
    (re.compile(pattern, re.IGNORECASE), replacement)
    for pattern, replacement in (
        (r"\bcan't\b|\bcannot\b", "can not"),
        (r"\bwon't\b", "will not"),
        (r"\b(is|are|was|were|do|does|did|have|has|had|could|would|should|must|need)n't\b", r"\1 not"),
        (r"\bi'm\b", "I am"),
        (r"\b(you|we|they)'re\b", r"\1 are"),
        (r"\b(i|you|we|they)'ve\b", r"\1 have"),
        (r"\b(i|you|he|she|it|we|they)'ll\b", r"\1 will"),
        (r"\b(it|that|there|here|what|where|who|when|how|he|she|this)'s\b(?= been| got| gone)", r"\1 has"),
        (r"\b(it|that|there|here|what|where|who|when|how|he|she|this)'s\b", r"\1 is"),
        # "the key's on the table", but "Anna's birthday"
        (
            r"(?<=\w)'s(?= (?:in|on|under|at|behind|next|not|a|an|the|still|always|gone|here|there|going|allergic)\b)",
            " is",
        ),
    )
]  # fmt: skip
_TYPOGRAPHY = str.maketrans({"\u2019": "'", "\u2018": "'", "\u201c": '"', "\u201d": '"', "\u2013": "-", "\u00a0": " "})
_ABBREVIATION = re.compile(r"\b(mr|mrs|ms|dr|prof|st|no|e\.g|i\.e|a\.m|p\.m|etc)$", re.IGNORECASE)
_WORD = re.compile(r"\d{1,2}:\d{2}(?::\d{2})?|[^\s,;:()\"]+|[,;:()\"]")


@dataclass(frozen=True, slots=True)
class Word:
    """One word or comma of a text: ``text[start:end]``, final dots and marks stripped."""

    text: str
    low: str
    start: int
    end: int


def normalise(text: str) -> str:
    """The text with plain quotes, single spaces within lines and contractions written out."""
    plain = re.sub(r"[^\S\n]+", " ", text.translate(_TYPOGRAPHY)).strip()
    for pattern, replacement in _CONTRACTIONS:
        plain = pattern.sub(replacement, plain)
    return plain


def sentences(text: str) -> list[tuple[str, bool]]:
    """(sentence, whether it ends with a question mark) of a normalised text."""
    found, begin = [], 0
    for mark in re.finditer(r"[.!?]+(?=[\s\"')]|$)|[;\n]+", text):
        if mark[0] == "." and _ABBREVIATION.search(text, begin, mark.start()):
            continue
        found.append((text[begin : mark.start()].strip(" \"')("), "?" in mark[0]))
        begin = mark.end()
    found.append((text[begin:].strip(" \"')("), False))
    return [(sentence, question) for sentence, question in found if sentence]


def words_of(sentence: str) -> list[Word]:
    """The words and commas of one sentence."""
    found = []
    for match in _WORD.finditer(sentence):
        bare = match[0].rstrip(".!?") if len(match[0]) > 1 else match[0]
        if bare and bare not in '()"':
            found.append(Word(bare, bare.lower(), match.start(), match.start() + len(bare)))
    return found


# --- names ------------------------------------------------------------------------------------------------------------

_stemmer = snowballstemmer.stemmer("english")
_IRREGULAR_PLURALS = {
    "people": "person", "men": "man", "women": "woman", "children": "child", "kids": "kid", "mice": "mouse",
    "feet": "foot", "teeth": "tooth", "knives": "knife", "shelves": "shelf", "wives": "wife", "scarves": "scarf",
    "loaves": "loaf", "halves": "half", "keys": "key", "color": "colour", "favorite": "favourite", "gray": "grey",
}  # fmt: skip


@lru_cache(maxsize=16384)
def _stem(word: str) -> str:
    return str(_stemmer.stemWord(_IRREGULAR_PLURALS.get(word, word)))


@lru_cache(maxsize=16384)
def entity_key(name: str) -> str:
    """What two names of one entity (or two wordings of one place) have in common: stems, without articles.

    ``entity_key("the Blue tins") == entity_key("blue tin")``. Empty if the name has no word.
    """
    parts = re.findall(r"[^\W_]+(?:'[^\W\d_]+)?", name.lower().translate(_TYPOGRAPHY))
    return " ".join(_stem(part.removesuffix("'s")) + ("'s" if part.endswith("'s") else "") for part in parts
                    if part not in ARTICLES)  # fmt: skip


def entity_match(asked: str, known: str) -> int:
    """How well a known name answers to an asked one: 3 same, 2 same but for a possessor that one side leaves out
    ("my keys", "the keys"), 1 the known one is more specific ("key", "spare key"), 0 not at all.
    """
    one, other = entity_key(asked), entity_key(known)
    if one == other:
        return 3 if one else 0
    bare_one, bare_other = one.rpartition("'s ")[2], other.rpartition("'s ")[2]
    if bare_one == bare_other and (bare_one == one or bare_other == other):
        return 2
    return 1 if other.endswith(" " + one) and "'s" not in other else 0


@dataclass
class Mentions:
    """Who and what the pronouns of a text stand for. ``speaker`` is a canonical name."""

    speaker: str = "owner"
    person: str | None = None
    thing: str | None = None
    group: str | None = None

    def pronoun(self, word: str) -> str | None:
        """The entity behind a pronoun, None if the text has not named it."""
        if word in ("i", "me", "mine", "my", "myself"):
            return self.speaker
        if word in ("you", "your", "yours", "yourself"):
            return "agent"
        if word in ("we", "us", "ours"):
            return "we"
        if word in ("he", "she", "him", "her", "his", "hers"):
            return self.person
        if word in ("they", "them", "their", "theirs", "these", "those"):
            return self.group or self.person
        return self.thing


def name_entity(words: Sequence[Word], mentions: Mentions) -> str | None:
    """The canonical name of a noun phrase: lower case, no article, possessives resolved ("my key": "owner's key").

    "our" counts as an article (the household's things). None if there is no noun, or a pronoun without antecedent.
    """
    kept = [word for word in words if word.low not in ',:"()']
    while len(kept) > 1 and kept[0].low in _DETERMINERS | {"of"}:
        kept = kept[1:]
    while kept and kept[-1].low in ADVERBS | {"too", "please", "either", "anymore", "longer"}:
        kept = kept[:-1]
    if not kept or len(kept) > 12:
        return None
    if len(kept) == 1 and kept[0].low in PRONOUNS | {"myself", "yourself"}:
        return mentions.pronoun(kept[0].low)
    if kept[0].low in _DETERMINERS or kept[0].low in PLACE_PREPOSITIONS:
        return None
    return _resolve(kept, mentions, keep_articles=True)


def _resolve(words: Sequence[Word], mentions: Mentions, keep_articles: bool) -> str | None:
    """Lower case with possessive pronouns replaced; None if one of them has no antecedent."""
    parts = []
    for i, word in enumerate(words):
        if word.low in _POSSESSIVE and i + 1 < len(words):
            owner = mentions.pronoun(word.low)
            if owner is None:
                return None
            parts.append(owner + "'s")
        elif word.low == "our":
            parts += ["the"] if i else []
        elif word.low in PRONOUNS - {"mine", "this", "that", "these", "those"}:
            named = mentions.pronoun(word.low)
            if named is None:
                return None
            parts.append(named)
        elif keep_articles or word.low not in ARTICLES:
            parts.append(word.low)
    return " ".join(parts) or None


def place_start(words: Sequence[Word], start: int = 0) -> int | None:
    """Where the first phrase of place begins ("on the table", "next to", "upstairs"), None if there is none."""
    for i in range(start, len(words)):
        low = words[i].low
        if low in ("next", "close") and not (i + 1 < len(words) and words[i + 1].low == "to"):
            continue
        if low in PLACE_PREPOSITIONS and i + 1 < len(words):
            return i
        if low in PLACE_ADVERBS and (i + 1 == len(words) or low not in PLACE_PREPOSITIONS):
            return i
    return None


def name_place(words: Sequence[Word], mentions: Mentions) -> str | None:
    """The canonical phrase of place, its preposition and articles kept: "in the blue tin", "at home", "with anna"."""
    kept = [word for word in words if word.low not in ',:"()']
    while (
        kept
        and kept[0].low in {"back", "away", "down", "up", "over", "right", "somewhere", "straight"} | ADVERBS
        and len(kept) > 1
    ):
        kept = kept[1:]
    while len(kept) > 1 and kept[-1].low in ADVERBS | {"too", "please", "anymore", "either", "again"}:
        kept = kept[:-1]
    if not kept or len(kept) > 16:
        return None
    first = kept[0].low
    if first == "home":
        return "at home"
    if len(kept) == 1:
        return first if first in PLACE_ADVERBS else None
    phrase = _resolve(kept[1:], mentions, keep_articles=True)
    if phrase is None:
        return None
    goal = {"into": "in", "onto": "on", "upon": "on"}.get(first)
    if first == "to":
        goal = "with" if is_person(kept[1:]) else "on" if kept[-1].low in _SURFACES else "in"
        phrase = "at home" if phrase == "home" else phrase
    return phrase if phrase == "at home" else f"{goal or first} {phrase}"


def is_person(words: Sequence[Word]) -> bool:
    """Whether a noun phrase looks like a person: a pronoun, a relative, or a capitalised name without article."""
    if len(words) == 1 and words[0].low in ("me", "him", "her", "us", "them", "you"):
        return True
    if any(word.low in KIN for word in words):
        return True
    return words[0].low not in ARTICLES and all(word.text[:1].isupper() and word.text.isalpha() for word in words)


def split_attribute(words: Sequence[Word], mentions: Mentions) -> tuple[str, str] | None:
    """(thing, attribute) of "the door code", "the code for the door", "Anna's birthday", "my brother"; else None."""
    kept = [word for word in words if word.low not in ',:"()']
    while kept and kept[0].low in _DETERMINERS | {"new", "current", "correct"}:
        kept = kept[1:]
    lows = [word.low for word in kept]
    for i, low in enumerate(lows[:-1]):
        if low in ("of", "for", "to") and i and (noun := _attribute(lows[:i], 1)):
            thing = name_entity(kept[i + 1 :], mentions)
            return (thing, noun) if thing else None
    for i in range(1, len(lows)):
        noun = _attribute(lows[i:], i)
        if noun is None or (noun in KIN and not (lows[i - 1].endswith(("'s", "s'")) or lows[i - 1] in _POSSESSIVE)):
            continue
        thing = _possessor(kept[:i], mentions)
        return (thing, noun) if thing else None
    return None


def _attribute(lows: Sequence[str], before: int) -> str | None:
    """The attribute that these words name from end to end."""
    noun = " ".join(lows)
    if before > 0 and noun.endswith("s") and noun[:-1] in KIN:
        return noun[:-1]
    spelled = noun.replace("color", "colour").replace("favorite", "favourite")
    whole = noun in ATTRIBUTES or noun in TWO_WORD_ATTRIBUTES or (before > 0 and noun in KIN) or noun == "date of birth"
    return spelled if whole or (lows[0] in ("favourite", "favorite") and 1 < len(lows) < 4) else None


def _possessor(words: Sequence[Word], mentions: Mentions) -> str | None:
    if len(words) == 1 and words[0].low in _POSSESSIVE:
        return mentions.pronoun(words[0].low)
    if words[-1].low in _POSSESSIVE:
        return None
    name = name_entity(words, mentions)
    return name.removesuffix("'s").removesuffix("'") if name else None


def scale_of(lows: Sequence[str]) -> str | None:
    """The scale ("colour", "opening", "power" ...) on which these words are a value, else None."""
    bare = [low for low in lows if low not in _SHADES] if len(lows) > 1 else list(lows)
    if len(bare) == 3 and bare[1] == "and" and SCALES.get(bare[0]) == SCALES.get(bare[2]):
        bare = bare[:1]
    return SCALES.get(bare[0]) if len(bare) == 1 else None
