"""What the robot is told by the way during its week, and asked for at the end with recall switched off.

Knows words, times and what the right answers are. Nothing that happens in the home depends on a note, and no note can
be guessed: who answers has it from the story of its life, whose words were compacted long before.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

_HOURS = (9, 13, 18)
_CODES = ("garden gate", "bicycle lock", "cellar", "mailbox", "alarm", "garage", "suitcase", "piano lid", "boat house")
_HIDDEN = ("passport", "sewing kit", "spare bulb", "chess set", "old camera", "tool box", "diary", "torch", "stapler")
_KEPT = ("drawer", "tin", "trunk", "crate", "chest", "jar", "barrel", "pouch", "case", "bag")
_COLOURS = ("red", "blue", "green", "yellow", "black", "white", "brown", "grey", "orange", "purple")


@dataclass(frozen=True, slots=True)
class Note:
    """Something to remember: ``cue`` and ``answer`` are its sentence, told in that minute of the life."""

    minute: int
    cue: str
    answer: str

    @property
    def text(self) -> str:
        """The sentence."""
        return f"{self.cue}{self.answer}."


@dataclass(frozen=True, slots=True)
class Remembered:
    """How a week was remembered without recall.

    Attributes:
        asked: notes that were asked for; none of their words were in the cache as they had been read.
        right: answered rightly from working memory.
        right_whole: the same with the whole story in a cache that was never compacted; None: it does not fit the model.
        story_tokens: tokens of the story.
        slots: keys that a head held at the end, on the average.
        compactions, merges, rebases: of the week.
        seconds: that reading and compacting took.
    """

    asked: int
    right: int
    right_whole: int | None
    story_tokens: int
    slots: float
    compactions: int
    merges: int
    rebases: int
    seconds: float


def notes(seed: int, days: int) -> list[Note]:
    """Three notes a day, at nine, at one and at six; none on the last of several days."""
    rng = random.Random(seed)
    subjects = [("code", name) for name in _CODES] + [("kept", name) for name in _HIDDEN]
    rng.shuffle(subjects)
    minutes = [day * 1440 + hour * 60 for day in range(max(1, days - 1)) for hour in _HOURS]
    found = []
    for minute, (kind, name) in zip(minutes, subjects, strict=False):
        if kind == "code":
            found.append(Note(minute, f"The code of the {name} is", f" {rng.randrange(1000, 10000)}"))
        else:
            found.append(Note(minute, f"The {name} is kept in the", f" {rng.choice(_COLOURS)} {rng.choice(_KEPT)}"))
    return found
