"""What finding an answer is made of: the question with its circumstances, the finding, the records that prove it.

`answering` finds in what was told and recorded, `world_answering` in the world model; both speak in these nouns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from ..records import Blob, Evidence, Record
from .queries import Query


@dataclass(frozen=True, slots=True)
class Finding:
    """What the records say. ``said`` is a plain sentence; ``must_say`` are the words that any wording has to keep."""

    value: object | None
    said: str
    must_say: str
    evidence: tuple[Evidence, ...]
    confidence: float
    reason: str
    quotes: bool = False
    """True if ``said`` holds words of a record that must be left as they are."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A question with everything that decides its answer."""

    query: Query
    zone: ZoneInfo
    now: datetime
    as_of: datetime | None


def unknown(reason: str, evidence: tuple[Evidence, ...] = ()) -> Finding:
    """The finding that there is no answer, and why."""
    return Finding(None, "I don't know.", "I don't know", evidence, 0.0, reason)


def describe_time(moment: datetime, zone: ZoneInfo, now: datetime) -> str:
    """A time as people say it: ``today at 09:30:05``, ``on Tuesday 3 November 2026 at 21:00:00``."""
    local, today = moment.astimezone(zone), now.astimezone(zone).date()
    day = {0: "today", 1: "yesterday"}.get((today - local.date()).days, f"on {local:%A} {local.day} {local:%B %Y}")
    return f"{day} at {local:%H:%M:%S}"


def evidence_of(memory: Any, seqs: Sequence[int], why: str) -> tuple[Evidence, ...]:
    """The records of these numbers as evidence, by number; numbers that no record has are left out."""
    records = memory.journal.get(seqs)
    return tuple(as_evidence(records[seq], why, 1.0) for seq in sorted(records))


def as_evidence(record: Record, why: str, score: float) -> Evidence:
    """One record as evidence, with its most novel key frame."""
    text = str(record.payload.get("text") or record.kind)
    return Evidence(record.seq, record.start, record.end, text, score, why, _frame(record))


def _frame(record: Record) -> Blob | None:
    frames = record.payload.get("key_frames") or []
    if not frames:
        return None
    best: int = max(frames, key=lambda frame: frame["novelty"])["frame"]
    return record.blobs[best] if best < len(record.blobs) else None
