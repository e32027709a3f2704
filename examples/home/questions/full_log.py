"""The rival without a memory of its own: the language model reads the log itself, as much as fits into its context.

The newest lines are kept. Its answer is held by a grammar to names that are known, to a weekday and a time, to a
number, or to ``unknown``. The log comes first in the prompt, so that all questions share what was read of it; that is
why it is asked only what is asked at the end of a life.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, time, timedelta
from itertools import permutations
from typing import Any, Protocol

from perdure.agent.queries import Query
from perdure.records import Answer, Interval

from .log import FIXTURE, ITEM, PERSON, Log, clock
from .rivals import NOTHING, Put

UNKNOWN = "unknown"
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_SYSTEM = (
    "You know a home from this log of what was seen: time, thing, where it is or its state, who did it. Answer "
    f"questions about it as JSON with the shortest answer. If the log does not tell, answer {UNKNOWN}.\n"
)


class Reader(Protocol):
    """What is needed of a planner."""

    def chat(self, messages: Sequence[Mapping[str, str]], *, schema: Mapping[str, Any], max_tokens: int) -> Any: ...


def log_lines(log: Log, start: datetime) -> list[str]:
    """The changes of a log, one line each, oldest first."""
    rows = sorted((r for r in log.rows if r.changed and r.value), key=lambda r: (r.first, r.seq))
    found = []
    for row in rows:
        by = f" ({row.by})" if row.by and row.role != PERSON else ""
        found.append(f"{clock(row.first, start)} {row.thing}: {row.value}{by}")
    return list(dict.fromkeys(found))


class FullLog:
    """Answers by reading.

    Args:
        planner: the language model.
        log: all that was seen.
        start: world time of minute 0.
        tokens: how many the log may fill.
        count: tokens of a text; by default one for three characters.
    """

    name = "full_log"

    def __init__(
        self,
        planner: Reader,
        log: Log,
        start: datetime,
        *,
        tokens: int = 2000,
        count: Callable[[str], int] | None = None,
    ) -> None:
        count = count or (lambda text: len(text) // 3 + 1)
        kept: list[str] = []
        for line in reversed(log_lines(log, start)):
            tokens -= count(line + "\n")
            if tokens < 0:
                break
            kept.append(line)
        self._planner, self._log = planner, log
        self._prefix = _SYSTEM + "\n".join(reversed(kept))
        self.lines = len(kept)

    def answer(self, put: Put) -> Answer:
        """What the model says, None for ``unknown`` and for what is no answer."""
        schema, read = self._held(put)
        now = f"It is {put.now:%a %H:%M}. {put.text}"
        messages = [{"role": "system", "content": self._prefix}, {"role": "user", "content": now}]
        wanted = {
            "type": "object",
            "properties": {"answer": schema},
            "required": ["answer"],
            "additionalProperties": False,
        }
        done = self._planner.chat(messages, schema=wanted, max_tokens=48)
        try:
            said = json.loads(done.text)["answer"]
        except (json.JSONDecodeError, KeyError, TypeError):
            return NOTHING
        value = None if said in (UNKNOWN, [], [UNKNOWN]) else read(said)
        return NOTHING if value is None else Answer(str(said), value, (), 0.5)

    def _held(self, put: Put) -> tuple[dict[str, Any], Callable[[Any], Any]]:
        """(schema of the answer, from the answer to a value)."""
        query = put.query
        rows = [r for r in self._log.rows if r.value]
        people = sorted({r.thing for r in rows if r.role == PERSON})
        fixtures = sorted({r.thing for r in rows if r.role == FIXTURE})
        places = sorted({r.value for r in rows if r.role in (ITEM, PERSON)})
        if query.kind == "when_happened":
            pattern = f"^({UNKNOWN}|({'|'.join(_DAYS)}) [0-2][0-9]:[0-5][0-9])$"
            return {"type": "string", "pattern": pattern}, lambda said: _weekday_time(said, put.now)
        if query.kind == "usual_time":
            return {"type": "string", "pattern": f"^({UNKNOWN}|[0-2][0-9]:[0-5][0-9])$"}, _time
        if query.kind == "count":
            return {"enum": [*map(str, range(1, 21)), UNKNOWN]}, int
        if query.kind == "order":
            orders = [", ".join(order) for order in permutations(e.thing or "" for e in query.events)]
            return {"enum": [*orders, UNKNOWN]}, lambda said: said.split(", ")
        if query.kind == "changed":
            items = sorted({r.thing for r in rows if r.role == ITEM})
            return {"type": "array", "items": {"enum": items}, "maxItems": 4}, list
        names = {"who_did": [*people, "me"], "why": [*fixtures, *people]}.get(query.kind, places)
        return {"enum": [*names, UNKNOWN]}, str


def _time(said: str) -> time | None:
    hour, minute = map(int, said.split(":"))
    return time(hour, minute) if hour < 24 and minute < 60 else None


def _weekday_time(said: str, now: datetime) -> Interval | None:
    day, _, clocked = said.partition(" ")
    at = _time(clocked)
    if at is None:
        return None
    moment = datetime.combine(now.date(), at, now.tzinfo)
    moment -= timedelta(days=(moment.weekday() - _DAYS.index(day)) % 7)
    if moment > now:
        moment -= timedelta(days=7)
    return Interval(moment, moment)


def put_to_reader(reader: FullLog, puts: Sequence[tuple[str, Query, datetime]]) -> Iterator[Answer]:
    """Answers one after the other, so that a caller can show how far it is."""
    for text, query, now in puts:
        yield reader.answer(Put(text, query, now))
