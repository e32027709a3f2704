"""Which requests are still to be met, by the journal alone: so a woken agent knows what it had been asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..memory import Memory
from ..records import Effect, OutcomeStatus, Record

MOST_TRIES = 3
_REACH = 4000
"""Records of requests and acts that are looked back at."""


@dataclass(slots=True)
class _Tries:
    count: int = 0
    closed: bool = False


def open_requests(memory: Memory, still_wanted: Callable[[Record], bool]) -> list[int]:
    """seq of the told records that asked for something and are still to be met, oldest first.

    A request is closed when an act that it caused was done, when it was declined, or after three tries. What may have
    been done and cannot be undone is never tried again.

    Args:
        memory: whose journal is read.
        still_wanted: asked about each request that has been tried before.
    """
    requests: list[int] = []
    tries: dict[int, _Tries] = {}
    outcomes: dict[str, str] = {}
    kinds = ["request", "intent", "outcome", "declined"]
    for record in memory.journal.read(kinds=kinds, newest_first=True, limit=_REACH):
        payload = record.payload
        if record.kind == "request":
            requests.append(record.seq - payload["told"])
        elif record.kind == "declined":
            tries.setdefault(payload["told"], _Tries()).closed = True
        elif record.kind == "outcome":
            outcomes[payload["intent"]] = payload["status"]
        elif payload["cause"] is not None:
            tried = tries.setdefault(payload["cause"], _Tries())
            tried.count += 1
            tried.closed |= not _may_repeat(payload["effect"], outcomes.get(payload["intent"]))
    fresh = [seq for seq in requests if seq not in tries]
    again = [seq for seq in requests if seq in tries and not tries[seq].closed and tries[seq].count < MOST_TRIES]
    found = memory.journal.get(again)
    return sorted(fresh + [seq for seq in again if still_wanted(found[seq])])


def _may_repeat(effect: str, status: str | None) -> bool:
    """Whether an act that ended like this may be done again; ``None``: it is still going on."""
    if status == OutcomeStatus.FAILED:
        return True
    return status == OutcomeStatus.UNKNOWN and effect != Effect.IRREVERSIBLE
