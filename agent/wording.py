"""The language model's two small jobs around an answer: read what the rules could not, and word what was found.

It never adds a fact: what it reads is checked against the words that were said, what it words must contain the value,
and may contain no number or name that is not in the finding. Every call is journaled.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from ..memory import Memory
from ..memory.journal import canonical
from ..perception.statements import STATEMENT_SCHEMA, statement_prompt, statements_from_json
from ..records import Record
from .findings import Finding
from .questions import QUERY_SCHEMA, Query, parse_question, query_from_json, question_prompt

if TYPE_CHECKING:
    from ..runtime import Completion, Planner

_WORDING = (
    "You put findings into one short, friendly English sentence for the person who asked. Use only what the finding "
    "says. Do not add anything."
)
_EXAMPLES = (
    (
        "Where is my umbrella?",
        "The umbrella is in the hall. I was told yesterday at 18:02:11.",
        "Your umbrella is in the hall; you told me yesterday at 18:02:11.",
    ),
    ("Does Ben like soup?", "Yes: ben likes soup.", "Yes, Ben likes soup."),
)
_COMMON = frozenset("a an the is are was were it its i you he she they me my your in on at and to of for".split())


class Linguist:
    """Reads and words with one planner, and journals every call."""

    def __init__(self, memory: Memory, planner: Planner | None) -> None:
        self._memory = memory
        self._planner = planner

    def question(self, text: str, now: datetime, zone: ZoneInfo, about: int) -> Query:
        """The query in a question: by rule, else by the planner, else of kind ``unknown``."""
        query = parse_question(text, now, zone)
        if query.kind != "unknown" or self._planner is None:
            return query
        messages = question_prompt(text)
        done = self._planner.chat(messages, schema=QUERY_SCHEMA, max_tokens=96)
        parsed = _parsed(done)
        self._journal("question", about, messages, done, {})
        return query if parsed is None else query_from_json(parsed, text, now, zone)

    def statements(self, told: Record) -> int:
        """Read one told record that the rules did not understand; returns how many statements were found in it."""
        if self._planner is None:
            return 0
        text = str(told.payload["text"])
        messages = statement_prompt(text)
        done = self._planner.chat(messages, schema=STATEMENT_SCHEMA, max_tokens=128)
        parsed = _parsed(done)
        speaker = str(told.payload["speaker"])
        found = () if parsed is None else statements_from_json(parsed, text, told.start, ZoneInfo(told.zone), speaker)
        self._journal("statements", told.seq, messages, done, {"statements": parsed if found else []})
        return len(found)

    def word(self, question: str, finding: Finding, about: int) -> str:
        """The finding as a sentence: the planner's if it says just what the finding says, else the plain one."""
        if self._planner is None or finding.value is None or finding.quotes:
            return finding.said
        messages = _wording_prompt(question, finding.said)
        done = self._planner.chat(messages, max_tokens=80)
        text = " ".join(done.text.split())
        faithful = done.stopped == "end" and is_faithful(text, finding, question)
        self._journal("wording", about, messages, done, {"used": faithful})
        return text if faithful else finding.said

    def _journal(
        self, purpose: str, about: int, messages: Sequence[Mapping[str, str]], done: Completion, more: Mapping[str, Any]
    ) -> None:
        assert self._planner is not None
        prompt = canonical({"messages": list(messages)})
        with self._memory.step() as step:
            step.note(
                "model_call",
                {
                    "purpose": purpose,
                    "about": about,
                    "model": self._planner.model_hash,
                    "prompt_sha256": hashlib.sha256(prompt.encode()).hexdigest(),
                    "prompt_tokens": done.prompt_tokens,
                    "sampling": dict(done.sampling),
                    "output": done.text,
                    "stopped": done.stopped,
                    **more,
                },
            )


def is_faithful(text: str, finding: Finding, question: str) -> bool:
    """Whether a wording keeps the value, denies what the finding denies, and brings in no word that could be news."""
    if not text or _flat(finding.must_say) not in _flat(text):
        return False
    fresh = set(_words(text)) - set(_words(finding.said)) - set(_words(question))
    if fresh - _GLUE:
        return False
    return bool(_NEGATIVE & set(_words(text))) == bool(_NEGATIVE & set(_words(finding.said)))


_GLUE = frozenset(
    "yes no the a an your you my me i it its is are was were that this they he she and have has had been told said saw "
    "seen according to did do does s".split()
)
"""Words that a wording may add. No preposition of place is among them: "near" must not become "in"."""
_NEGATIVE = frozenset({"not", "no", "never", "t", "cannot"})


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _flat(text: str) -> str:
    return " ".join(word for word in _words(text) if word not in _COMMON)


def _wording_prompt(question: str, said: str) -> list[dict[str, str]]:
    messages = [{"role": "system", "content": _WORDING}]
    for example, finding, reply in _EXAMPLES:
        messages.append({"role": "user", "content": f"Question: {example}\nFinding: {finding}"})
        messages.append({"role": "assistant", "content": reply})
    messages.append({"role": "user", "content": f"Question: {question}\nFinding: {said}"})
    return messages


def _parsed(done: Completion) -> Any | None:
    if done.stopped != "end":
        return None
    try:
        return json.loads(done.text)
    except json.JSONDecodeError:
        return None
