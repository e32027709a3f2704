"""A home's diary made by rule, with facts in its prose and questions that a small model answers when it sees them.

Knows words and how often each fact is said (once). Does not know models. In the manner of RULER (Hsieh et al. 2024),
as prose, and asked in cloze form: the question is the fact's sentence again up to what is asked, so that the text is
the only place where the answer can come from.

| kind | the diary says | asked | answer |
| --- | --- | --- | --- |
| code | The locker of Marta opens with the code 4711. | the same, up to the code | 4711 |
| trade | The father of Anton works as a baker. | the same, up to the trade | baker |
| several | the first, of Vera and, elsewhere in the text, of Hugo | both sentences, up to each code | 2290, 8135 |
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from ...errors import BadInput

KINDS = ("code", "trade", "several")

NAMES = (
    "Marta Anton Felix Clara Hugo Nina Oscar Paula Simon Greta Victor Helen Martin Julia Arthur Rosa Edgar Irene Leon "
    "Vera Bruno Alice Conrad Emma Frank Grace Harold Ida Jonas Karen Louis Mona Norman Olga Peter Rita Stefan Tina "
    "Walter Yvonne Albert Bertha Carlos Diana Ernest Flora George Hannah Isaac Jane Kevin Laura Marcus Nora Oliver "
    "Petra Quentin Robert Sarah Thomas Ursula Vincent Wendy Adam Beth Charles Daniel Eva Fiona Gordon Harriet Ivan "
    "Judith Keith Linda Michael Naomi Otto Pamela Ralph Sylvia Tobias Valerie Wilson Amanda Boris Celia David Elena "
    "Francis Gloria Henry Isabel Jacob Katherine Lucas Miriam Nathan Olivia Patrick Rachel Samuel Theresa Ulrich "
    "Virginia William Agnes Benjamin Carmen Dennis Esther Frederick"
).split()
COLOURS = "red green blue yellow black white grey brown silver golden".split()
THINGS = (
    "lamp box cup chair clock book basket umbrella hat bottle rope towel blanket candle hammer brush mirror ladder "
    "bucket kettle violin camera bicycle wallet"
).split()
PLACES = (
    "cellar attic kitchen garden garage hall library office bedroom bathroom balcony shed stable tower chapel bakery "
    "school harbour museum market station hospital church forest"
).split()
TRADES = (
    "mason smith baker painter farmer lawyer clerk pilot sailor tailor butcher gardener singer writer cook driver "
    "miner fisherman plumber soldier waiter dentist carpenter hunter"
).split()
_DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
_WEATHER = (
    "it rained",
    "the sun was out",
    "a cold wind blew",
    "fog lay over the street",
    "it was mild and still",
    "snow fell for an hour",
    "clouds came up from the west",
    "it was too hot to work",
)
_WHEN = (
    "before breakfast",
    "after lunch",
    "around noon",
    "late in the day",
    "while the others slept",
    "when the bell had rung",
    "towards evening",
    "at first light",
)
_DEEDS = (
    "{a} helped {b} to carry the {thing} up the stairs",
    "{a} and {b} talked for a long time about the {thing} of a neighbour",
    "{a} looked for the {thing} and did not find it",
    "{a} asked {b} whether the {thing} could be mended",
    "somebody had moved the {thing}, and {a} put it back",
    "{a} swept the floor and {b} washed the windows",
    "{a} wrote a letter to {b}",
    "{b} came to visit and {a} made soup",
    "{a} read aloud from a newspaper, and {b} fell asleep",
    "{a} repaired the door, which had been stuck since spring",
    "{b} played cards with {a} and lost",
    "{a} walked to the {place} and back",
)
_AFTER = (
    "Nobody complained.",
    "It took longer than planned.",
    "They laughed about it afterwards.",
    "The dog watched from the doorway.",
    "It was quiet after that.",
    "Nothing was broken.",
    "The radio was on all the time.",
    "There was tea for everyone.",
)


@dataclass(frozen=True)
class Question:
    """A fact, what is read to ask for it, and which parts of that are the answer.

    Attributes:
        kind: one of ``KINDS``.
        sentences: of the diary, one per fact that the answer needs.
        pieces: (text, scored): what is read after the diary, in order; scored pieces are the answer.
    """

    kind: str
    sentences: tuple[str, ...]
    pieces: tuple[tuple[str, bool], ...]

    @property
    def text(self) -> str:
        """What is read, as one text."""
        return "".join(text for text, _ in self.pieces)

    @property
    def asked(self) -> str:
        """What is read before the first answer."""
        return self.pieces[0][0]


@dataclass(frozen=True)
class Diary:
    """A context of about the wanted length, the questions about it, and how it would have gone on.

    Attributes:
        text: what is read and then compacted.
        questions: in no order.
        sequel: prose of the same home that follows, for perplexity.
    """

    text: str
    questions: tuple[Question, ...]
    sequel: str


def make_diary(seed: int, tokens: int, questions: int, count: Callable[[str], int]) -> Diary:
    """A diary of ``tokens`` tokens at most, with its facts spread evenly over it.

    Args:
        seed: equal seeds give equal diaries.
        tokens: length wanted; the text is at most one sentence shorter.
        questions: of all kinds in turn, at most as many as there are names.
        count: tokens of a text.

    Raises:
        BadInput: more questions than there are names for, or more facts than there is room for.
    """
    if not 1 <= questions <= len(NAMES):
        raise BadInput(f"expected 1 to {len(NAMES)} questions (a name has one fact of each sort), got {questions}")
    rng = random.Random(seed)
    made = _questions(rng, questions)
    facts = [sentence for question in made for sentence in question.sentences]
    rng.shuffle(facts)
    head = "The diary of the house.\n"
    room = tokens - count(head) - sum(count(" " + fact) for fact in facts)
    if room < 0:
        raise BadInput(f"expected room for {len(facts)} facts, {tokens} tokens are too few; ask less or give more")
    filler: list[str] = []
    while True:
        sentence = _filler(rng)
        room -= count(" " + sentence)
        if room < 0:
            break
        filler.append(sentence)
    body: list[str] = []
    for i, fact in enumerate(facts):
        body += filler[len(filler) * i // len(facts) : len(filler) * (i + 1) // len(facts)]
        body.append(fact)
    sequel = " ".join(_filler(rng) for _ in range(8))
    return Diary(head + " ".join(body), tuple(made), " " + sequel)


def _questions(rng: random.Random, count: int) -> list[Question]:
    """Each name has one locker and one father at most."""
    lockers, children = iter(rng.sample(NAMES, len(NAMES))), iter(rng.sample(NAMES, len(NAMES)))
    made = []
    for i in range(count):
        kind = KINDS[i % len(KINDS)]
        if kind == "trade":
            facts = [(f"The father of {next(children)} works as a", f" {rng.choice(TRADES)}")]
        else:
            facts = [
                (f"The locker of {next(lockers)} opens with the code ", f"{rng.randrange(10_000):04}")
                for _ in range(2 if kind == "several" else 1)
            ]
        pieces: list[tuple[str, bool]] = []
        for lead, value in facts:
            pieces += [(f". {lead}" if pieces else lead, False), (value, True)]
        made.append(Question(kind, tuple(f"{lead}{value}." for lead, value in facts), tuple(pieces)))
    return made


def _filler(rng: random.Random) -> str:
    a, b = rng.sample(NAMES, 2)
    deed = rng.choice(_DEEDS).format(a=a, b=b, thing=rng.choice(THINGS), place=rng.choice(PLACES))
    said = f"On {rng.choice(_DAYS)} {rng.choice(_WEATHER)}; {rng.choice(_WHEN)} {deed}."
    return f"{said} {rng.choice(_AFTER)}" if rng.random() < 0.5 else said
