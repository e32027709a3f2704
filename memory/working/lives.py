"""A made-up life without end, for benchmarks: lines of a household as a robot would note them, and told facts.

Knows words and a generator of random numbers. The same seed gives the same life. A fact is told once, its subject is
named nowhere else, and its answer cannot be guessed, so who answers must remember it.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["Fact", "Told", "life"]

_PEOPLE = ("Anna", "Ben", "Clara", "David", "Emma", "Felix", "Greta", "Henry", "Ida", "Jonas", "Laura", "Max")
_ROOMS = ("kitchen", "hall", "study", "bedroom", "bathroom", "living room", "cellar", "attic", "garage", "garden")
_THINGS = (
    "cup", "book", "umbrella", "scarf", "newspaper", "plate", "blanket", "radio", "lamp", "basket", "teddy", "wallet",
    "jacket", "bottle", "letter", "cushion", "tray", "broom", "bucket", "vase", "clock", "pen", "laptop", "ball",
)  # fmt: skip
_PLACES = ("table", "shelf", "sofa", "bed", "desk", "chair", "bench", "window sill", "cupboard", "floor", "counter")
_STATES = ("open", "closed", "on", "off", "wet", "warm", "dusty", "clean")
_FIXED = ("door", "window", "heater", "lamp", "tap", "fan", "radio", "oven", "curtain")
_MOODS = ("in a hurry", "quietly", "with a smile", "after a phone call", "humming a song", "as usual", "once more")
_WEATHER = ("It rains", "The sun is out", "A storm is coming", "It snows a little", "It is foggy", "The sky is clear")
_OWNERS = (
    "Marlow", "Petersen", "Okafor", "Lindqvist", "Tanaka", "Moreau", "Novak", "Castillo", "Haddad", "Brennan",
    "Kowalski", "Dubois", "Andersen", "Rossi", "Nakamura", "Silva", "Fischer", "Dvorak", "Eriksen", "Mbeki", "Laurent",
    "Petrov", "Yilmaz", "Santos", "Weber", "Ivanov", "Larsen", "Romano", "Schmidt", "Costa", "Meyer", "Nowak", "Jensen",
)  # fmt: skip
_LOCKED = ("locker", "safe", "bicycle", "suitcase", "mailbox", "workshop", "boat", "garage", "piano", "cabinet")
_HIDDEN = ("spare battery", "passport", "sewing kit", "first aid kit", "chess set", "old camera", "tool box", "diary")
_KEPT = ("drawer", "tin", "trunk", "crate", "chest", "jar", "barrel", "pouch", "suitcase", "case", "bag", "box")
_COLOURS = ("red", "blue", "green", "yellow", "black", "white", "brown", "grey", "orange", "purple", "silver", "pink")


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that was told once."""

    cue: str
    """The beginning of its sentence; whoever remembers it can go on."""
    answer: str
    """How it goes on, with the blank before it."""


@dataclass(frozen=True, slots=True)
class Told:
    """One line of the life; ``fact`` if it tells one."""

    text: str
    fact: Fact | None = None


def life(seed: int, *, fact_every: int = 8) -> Iterator[Told]:
    """Lines, one after another, without end; about every ``fact_every``-th tells a fact."""
    rng = random.Random(seed)
    facts = _facts(rng)
    for number in itertools.count():
        if number % 40 == 0:
            yield Told(f"Day {number // 240 + 1}, {7 + number // 40 % 6 * 2}:00. {rng.choice(_WEATHER)}.")
        if rng.random() < 1 / fact_every:
            fact = next(facts)
            yield Told(f"{rng.choice(_PEOPLE)} said: {fact.cue}{fact.answer}.", fact)
        else:
            yield Told(_line(rng))


def _line(rng: random.Random) -> str:
    person, other = rng.sample(_PEOPLE, 2)
    room, second = rng.sample(_ROOMS, 2)
    thing, place = rng.choice(_THINGS), rng.choice(_PLACES)
    return rng.choice(
        (
            f"{person} walked from the {room} to the {second} {rng.choice(_MOODS)}.",
            f"The {thing} is on the {place} in the {room}.",
            f"{person} put the {thing} on the {place}.",
            f"The {rng.choice(_FIXED)} in the {room} is now {rng.choice(_STATES)}.",
            f"I carried the {thing} from the {room} to {person}.",
            f"{person} asked {other} about the {thing}; {other} had not seen it.",
            f"{person} and {other} sat in the {room} for {rng.randrange(5, 90)} minutes.",
            f"I looked into the {place} in the {room} and found a {thing}.",
            f"{person} said: Please bring me the {thing} when you have time.",
            f"Somebody moved the {thing}; it was on the {place} before.",
            f"I cleaned the {room} and then waited near the {place}.",
            f"{person} came home {rng.choice(_MOODS)} and put a {thing} on the {place}.",
        )
    )


def _facts(rng: random.Random) -> Iterator[Fact]:
    subjects = [("code", owner, what) for owner in _OWNERS for what in _LOCKED]
    subjects += [("kept", owner, what) for owner in _OWNERS for what in _HIDDEN]
    rng.shuffle(subjects)
    for number in itertools.count():
        kind, owner, what = subjects[number % len(subjects)]
        name = owner if number < len(subjects) else f"{owner} {number // len(subjects) + 1}"
        if kind == "code":
            yield Fact(f"The {what} of {name} opens with the code", f" {rng.randrange(1000, 10000)}")
        else:
            yield Fact(f"The {what} of {name} is kept in the", f" {rng.choice(_COLOURS)} {rng.choice(_KEPT)}")
