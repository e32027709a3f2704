"""Lessons: sentences that name what is shown, as somebody would teach a newcomer in a home.

This module knows the words of a lesson ("This is the hall lamp. It is on."). It does not know pixels: `scenes` learns
how the named thing looks. A sentence that names nothing is no lesson, whoever says it.

    This is the kitchen table.          This room is the kitchen.       This is Ben.
    This is the hall lamp. It is on.    Now the hall lamp is off.       I am Anna.
    This is a blue mug.                 These are the keys.             The fridge is now open.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from ..records import Pose

_NAME = r"[\w'-]+(?: [\w'-]+){0,5}"
_ROOM = re.compile(
    rf"^(?:and )?(?:this room|this place|the room we are in) is (?:called )?(?:the |an? )?({_NAME})$", re.I
)
_PLURAL = re.compile(rf"^(?:and )?(?:these|those) are (?:called )?(?:the |some |your |our |my )?({_NAME})$", re.I)
_SINGLE = re.compile(rf"^(?:and )?(?:this|that|here) is (?:called )?(?:(the|an?|your|our|my) )?({_NAME})$", re.I)
_SELF = re.compile(r"^(?:i am|i'm|my name is) ([A-Z][\w'-]*)$", re.I)
_IT = re.compile(r"^(?:now )?(?:it|they) (?:is|are) (?:now )?(\w+)(?: now)?$", re.I)
_NOW = re.compile(rf"^(?:now )?the ({_NAME}?) (?:is|are) (?:now )?(\w+)(?: now)?$", re.I)


@dataclass(frozen=True, slots=True)
class Naming:
    """One name that was given to what is ahead, or to the room around."""

    name: str
    """Without its article: ``kitchen table``, ``Ben``."""
    kind: str
    """``room``, ``person``, ``item`` (can be carried), ``fixture`` (stays), or ``thing`` if the words do not say."""
    state: str = ""
    """``on``, ``open`` ...; empty if none was said."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """What a sentence taught."""

    time: datetime
    pose: Pose
    sentence: str
    taught: tuple[Naming, ...]
    """With kinds settled by what was seen: never ``thing``."""

    def to_json(self) -> Mapping[str, Any]:
        """As plain values, for a journal."""
        return {
            "time": self.time.isoformat(),
            "pose": [self.pose.x, self.pose.y, self.pose.heading],
            "sentence": self.sentence,
            "taught": [[naming.name, naming.kind, naming.state] for naming in self.taught],
        }


def read_lesson(sentence: str) -> tuple[Naming, ...]:
    """The names that a sentence (or several) gives, in order; empty if it is no lesson.

    A text counts only if every one of its sentences is part of a lesson, so that "This is the plan. Bring the mug."
    teaches nothing.
    """
    found: list[Naming] = []
    for part in (part.strip() for part in re.split(r"[.!;]+", sentence)):
        if not part:
            continue
        if state := _IT.match(part):
            if not found or found[-1].kind in ("room", "person"):
                return ()
            found[-1] = replace(found[-1], kind="fixture", state=state[1].lower())
            continue
        naming = _read_part(part)
        if naming is None:
            return ()
        found.append(naming)
    return tuple(found)


def _read_part(part: str) -> Naming | None:
    if match := _ROOM.match(part):
        return Naming(match[1].lower(), "room")
    if match := _SELF.match(part):
        return Naming(match[1], "person")
    if match := _PLURAL.match(part):
        return Naming(match[1].lower(), "item")
    if match := _SINGLE.match(part):
        article = (match[1] or "").lower()
        if not article:
            return Naming(match[2], "person") if match[2][0].isupper() and " " not in match[2] else None
        return Naming(match[2].lower(), "item" if article in ("a", "an") else "thing")
    if match := _NOW.match(part):
        return Naming(match[1].lower(), "fixture", match[2].lower())
    return None
