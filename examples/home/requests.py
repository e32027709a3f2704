"""How requests are worded: what is one, what they look like, and whether a call is what a request speaks of.

It knows English words and calls; it decides nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from perdure.agent import Call
from perdure.records import Record

from .skills import CLOSED, OPEN

_ME = frozenset({"me", "i"})
_THROW = frozenset("throw bin rid trash discard dispose garbage rubbish".split())
_CARRY = frozenset("put bring take give fetch hand carry store".split())
_WHENEVER = frozenset({"whenever", "always", "never", "ever", "every"})
_ALWAYS = _WHENEVER | {"if", "keep", "times", "when"}
_WHEN_HOME = frozenset("when once soon after back home returns arrives".split())
_STATE_WORDS = {
    "on": {"on"},
    "off": {"off"},
    OPEN: {"open", "opened"},
    CLOSED: {"close", "closed", "shut"},
}
_REQUEST = re.compile(
    r"^(?:please|could you|can you|would you|will you|turn|switch|put|bring|take|give|fetch|open|close|shut|throw|hand|"
    r"get|carry|store|whenever|always|when|once|if|as soon as|make sure|i need|i would like|i'd like|get rid)\b"
    r"|\bplease\b|\b(?:should|can) (?:be|go)\b|\b(?:so|too) (?:dark|bright|stuffy|draughty|cold|warm|loud)\b",
    re.IGNORECASE,
)


def is_request(text: str) -> bool:
    """Whether words ask for something to be done."""
    return _REQUEST.search(text) is not None


def put(told: Record) -> str:
    """A request with who asks, as the planner reads it: ``Bring me the book. (Anna)``."""
    text, speaker = str(told.payload["text"]), str(told.payload["speaker"])
    return f"{text} ({speaker})" if speaker else text


EXAMPLES: tuple[tuple[str, Call], ...] = (
    (
        "Once Clara is back, hand her the glasses. (Anna)",
        Call("bring_when_home", {"thing": "glasses", "person": "Clara"}),
    ),
    ("Please get rid of the newspaper. (Anna)", Call("throw_away", {"thing": "newspaper"})),
    (
        "Whenever the bedroom window is open, close it. (Anna)",
        Call("always", {"fixture": "bedroom window", "state": "closed"}),
    ),
    ("Could you turn the radio off? (Anna)", Call("set", {"fixture": "radio", "state": "off"})),
    ("I find the bedroom too draughty. (Anna)", Call("set", {"fixture": "bedroom window", "state": "closed"})),
    ("The bedroom is so stuffy. (Anna)", Call("set", {"fixture": "bedroom window", "state": "open"})),
    ("It is too bright in the bedroom. (Anna)", Call("set", {"fixture": "bedroom lamp", "state": "off"})),
    ("The bedroom is too dark for me. (Anna)", Call("set", {"fixture": "bedroom lamp", "state": "on"})),
    ("Open the fridge. (Anna)", Call("set", {"fixture": "fridge", "state": "open"})),
    ("Shut the study door. (Anna)", Call("set", {"fixture": "study door", "state": "closed"})),
    ("Please carry the umbrella to the bed. (Anna)", Call("bring", {"thing": "umbrella", "to": "bed"})),
    ("Bring me the book. (Anna)", Call("bring", {"thing": "book", "to": "Anna"})),
    ("Could you put the phone on the hall hook? (Anna)", Call("bring", {"thing": "phone", "to": "hall hook"})),
    ("Hand the bag to Clara, please. (Anna)", Call("bring", {"thing": "bag", "to": "Clara"})),
    ("Throw away the ticket. (Anna)", Call("throw_away", {"thing": "ticket"})),
    ("The leaflet can go in the bin. (Anna)", Call("throw_away", {"thing": "leaflet"})),
    ("Give Ben the scarf. (Anna)", Call("bring", {"thing": "scarf", "to": "Ben"})),
)


def spoken_of(names: Sequence[str], text: str, speaker: str) -> list[str]:
    """The names that a request speaks of, else those that share a word with it, else all.

    ``me`` is who speaks; so is ``I`` if nothing else is named.
    """
    said = _words(text)
    found = [name for name in names if set(name.lower().split()) <= said or (name == speaker and "me" in said)]
    if not found and "i" in said:
        found = [name for name in names if name == speaker]
    return found or [name for name in names if set(name.lower().split()) & said] or list(names)


def states_spoken_of(states: Sequence[str], text: str) -> list[str]:
    """The states that a request names: those of its command, not of the condition under which it holds."""
    said = _words(_CONDITION.sub(" ", text))
    return [state for state in states if _STATE_WORDS.get(state, {state}) & said]


_CONDITION = re.compile(r"\b(?:whenever|if|when|as soon as|once)\b[^,.]*(?:,|$|(?=\.))", re.IGNORECASE)


def _words(text: str) -> set[str]:
    said = set(re.findall(r"[a-z]+", text.lower()))
    return said | {word[:-1] for word in said if word.endswith("s")}


def grounded(text: str, speaker: str, call: Call) -> float:
    """Share of a call's arguments that the request speaks of, from 0 to 1: what nobody mentioned is not meant."""
    said = _words(text)
    score = 1.0
    for name, value in call.arguments.items():
        if name in ("state", "cause"):
            continue
        if value == speaker and said & _ME:
            continue
        words = str(value).lower().split()
        share = sum(word in said for word in words) / len(words)
        score *= share**2
    if call.tool == "bring_when_home" and not said & _WHEN_HOME:
        score *= 0.1
    if call.tool == "throw_away" and not said & _THROW:
        return 0.0  # it cannot be had back: the words must say so
    if call.tool == "always" and not said & _ALWAYS:
        score *= 0.1
    if call.tool != "always" and said & _WHENEVER:
        score *= 0.3
    if call.tool in ("set", "always"):
        named = states_spoken_of([*_STATE_WORDS], text)
        score *= 0.5 if named and call.arguments["state"] not in named else 1.0
        score *= 0.3 if not named and said & _CARRY else 1.0  # to put into a drawer is not to open it
    return score
