"""How the questions are worded: several ways for each family, with clauses and times put in.

It knows English and nothing of the truth. Times are always said so that they mean one span on the day of asking:
"today", "yesterday", a weekday within the last seven days, else a date.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from ..catalogue import PLURAL

DAY = 1440
PARTS: dict[str, tuple[int, int]] = {"morning": (360, 720), "afternoon": (720, 1080), "evening": (1080, 1440)}

WORDINGS: dict[str, tuple[str, ...]] = {
    "where_at": (
        "Where {was} {x} {at}?",
        "{At}, where {was} {x}?",
        "Tell me where {x} {was} {at}.",
        "In which place {was} {x} {at}?",
        "Do you remember where {x} {was} {at}?",
    ),
    "where_person": (
        "Where was {x} {at}?",
        "{At}, where was {x}?",
        "In which room was {x} {at}?",
        "Can you tell me where {x} was {at}?",
    ),
    "where_when": (
        "Where {was} {x} when {clause} {day}?",
        "When {clause} {day}, where {was} {x}?",
        "Where {was} {x} at the moment when {clause} {day}?",
        "{Day}, where {was} {x} when {clause}?",
    ),
    "where_before": (
        "Where {was} {x} before {it} {was} moved to the {place} {day}?",
        "Where {was} {x} moved from when {it} went to the {place} {day}?",
        "Before {x} {was} moved to the {place} {day}, where {was} {it}?",
        "Where {was} {x} just before {it} {was} put on the {place} {day}?",
    ),
    "where_taken": (
        "Where did {p} put {x} {part}?",
        "Where did {p} leave {x} {part}?",
        "{Part}, where did {p} take {x} to?",
        "Where was it that {p} put {x} {part}?",
    ),
    "when_did": (
        "When {passive} {day}?",
        "At what time {passive} {day}?",
        "{Day}, when {passive}?",
        "What time was it when {finite} {day}?",
    ),
    "who_moved": (
        "Who moved {x} {between}?",
        "{Between}, who moved {x}?",
        "By whom {was} {x} moved {between}?",
        "Do you know who took {x} away {between}?",
    ),
    "who_did": (
        "Who {past} {at}?",
        "{At}, who {past}?",
        "Who was it that {past} {at}?",
        "Can you tell me who {past} {at}?",
    ),
    "count_moved": (
        "How often {was} {x} moved {between}?",
        "How many times {was} {x} moved {between}?",
        "{Between}, how often did someone move {x}?",
        "On how many occasions {was} {x} moved {between}?",
    ),
    "count_flips": (
        "How often {passive} {between}?",
        "How many times {passive} {between}?",
        "{Between}, how often {passive}?",
        "On how many occasions {passive} {between}?",
    ),
    "count_seen": (
        "How often did you see {gerund} {day}?",
        "How many times did you see {gerund} {day}?",
        "{Day}, how often did you see {gerund}?",
        "On how many occasions did you notice {gerund} {day}?",
    ),
    "order_two": (
        "Which came first {day}: {gerund} or {other_gerund}?",
        "What happened first {day}, {gerund} or {other_gerund}?",
        "{Day}, which was earlier: {gerund} or {other_gerund}?",
        "Did {base} before or after {other_finite} {day}?",
    ),
    "order_three": (
        "In what order did these happen {day}: {gerund}, {other_gerund} and {third_gerund}?",
        "In which order did the following happen {day}: {gerund}, {other_gerund}, {third_gerund}?",
        "{Day}, in what sequence did these things happen: {gerund}, {other_gerund} and {third_gerund}?",
        "Put these in order of time {day}: {gerund}, {other_gerund}, {third_gerund}.",
    ),
    "changed": (
        "What was moved in the {room} {between}?",
        "{Between}, which things were moved in the {room}?",
        "Which objects in the {room} were moved {between}?",
        "What things changed place in the {room} {between}?",
    ),
    "why": (
        "Why did {base} {at}?",
        "What caused {x} to {verb} {at}?",
        "{At}, why did {base}?",
        "What made {x} {verb} {at}?",
        "What was the reason that {finite} {at}?",
    ),
    "usual_place": (
        "Where {is} {x} usually in the {part}?",
        "In the {part}, where {is} {x} mostly?",
        "Where do I normally find {x} in the {part}?",
        "What is the usual place of {x} in the {part}?",
    ),
    "usual_time": (
        "When does {base} usually?",
        "At what time does {base} normally?",
        "What is the usual time for {p} to {verb}?",
        "When can one typically expect {p} to {verb}?",
    ),
}
"""At least four each; `{Name}` is `{name}` with a capital letter."""

_PASSIVE = {"on": "switched on", "off": "switched off", "open": "opened", "closed": "closed"}
_PAST = _PASSIVE
_PHASE = {
    "on": ("go on", "went on", "going on"),
    "off": ("go off", "went off", "going off"),
    "open": ("open", "opened", "opening"),
    "closed": ("close", "closed", "closing"),
    "wet": ("get wet", "got wet", "getting wet"),
    "dry": ("dry", "dried", "drying"),
}


class Times:
    """Says minutes of the life as people do who speak at one of them.

    Args:
        start: aware; world time of minute 0, a midnight.
        asked: minute of the life at which is spoken.
    """

    def __init__(self, start: datetime, asked: int) -> None:
        self._start, self._asked = start, asked

    def day(self, minute: int) -> str:
        """``today``, ``yesterday``, ``on Tuesday`` or ``on 9 March``."""
        ago = self._asked // DAY - minute // DAY
        when = self._start + timedelta(minutes=minute)
        if ago <= 1:
            return "today" if ago == 0 else "yesterday"
        return f"on {when:%A}" if ago <= 7 else f"on {when.day} {when:%B}"

    def at(self, minute: int) -> str:
        """``on Tuesday at 10:15``."""
        return f"{self.day(minute)} at {clock(minute)}"

    def between(self, first: int, last: int) -> str:
        """``on Tuesday between 09:00 and 11:00``; both on one day."""
        return f"{self.day(first)} between {clock(first)} and {clock(last)}"

    def part(self, minute: int) -> str:
        """``on Tuesday morning``, ``yesterday afternoon``, ``this evening``; between 06:00 and 24:00."""
        name = next(part for part, (first, last) in PARTS.items() if first <= minute % DAY < last)
        day = self.day(minute)
        return f"this {name}" if day == "today" else f"{day} {name}"


def clock(minute: int) -> str:
    """``09:05``."""
    return f"{minute % DAY // 60:02d}:{minute % 60:02d}"


def the(name: str, *, person: bool = False) -> str:
    """A thing with its article, a person without."""
    return name if person else f"the {name}"


def was(name: str) -> str:
    """``were`` for ``keys``, else ``was``."""
    return "were" if name in PLURAL else "was"


def moved(name: str, place: str) -> dict[str, str]:
    """Forms of "the keys were moved to the sofa"."""
    tail = f"moved to the {place}"
    return {
        "passive": f"{was(name)} the {name} {tail}",
        "finite": f"the {name} {was(name)} {tail}",
        "gerund": f"the {name} being {tail}",
        "base": "",
    }


def flipped(name: str, state: str, *, by_itself: bool) -> dict[str, str]:
    """Forms of "the lamp went on", or "the lamp was switched on" if somebody did it."""
    base, past, ing = _PHASE[state]
    forms = {"base": f"the {name} {base}", "verb": base}
    if by_itself or state not in _PASSIVE:
        return forms | {
            "passive": f"did the {name} {base}",
            "finite": f"the {name} {past}",
            "gerund": f"the {name} {ing}",
        }
    done = _PASSIVE[state]
    verb, _, particle = done.partition(" ")
    return forms | {
        "passive": f"was the {name} {done}",
        "finite": f"the {name} was {done}",
        "gerund": f"the {name} being {done}",
        "past": f"{verb} {particle} the {name}".replace("  ", " "),
    }


def came(person: str, kind: str) -> dict[str, str]:
    """Forms of "Ben came home", "Ben left the house"."""
    base, past, ing = ("come home", "came home", "coming home")
    if kind == "left":
        base, past, ing = ("leave the house", "left the house", "leaving the house")
    return {
        "base": f"{person} {base}",
        "verb": base,
        "passive": f"did {person} {base}",
        "finite": f"{person} {past}",
        "gerund": f"{person} {ing}",
    }


def worded(family: str, number: int, slots: dict[str, str]) -> str:
    """One wording of a family, filled in."""
    forms = WORDINGS[family]
    upper = {name.capitalize(): text[:1].upper() + text[1:] for name, text in slots.items()}
    return forms[number % len(forms)].format(**slots, **upper)
