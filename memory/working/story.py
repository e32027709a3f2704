"""Records as the lines of a story, in plain words: what a working memory reads. A pure function of the record.

Knows the kinds of records. Does not know tokens, nor who reads. A line is short: of what happens again and again
(a look around that finds everything as before) there is none.
"""

from __future__ import annotations

from collections.abc import Callable
from zoneinfo import ZoneInfo

from ...records import Record

__all__ = ["KINDS", "Lines", "heading", "line"]

KINDS = ("event", "outcome", "told")
"""Kinds of records that have a line."""
Lines = Callable[[Record], str | None]
"""The line of a record without its end, or None."""
_MOST = 2000


def line(record: Record) -> str | None:
    """What happened in one line; None for what is not worth one.

    Told words come with their speaker, acts with their result; an event with its text, unless it says that nothing has
    changed. A line of more than 2,000 characters is cut.
    """
    payload = record.payload
    if record.kind == "told":
        return _flat(f"{payload.get('speaker', 'somebody')} said: {payload['text']}")
    if record.kind == "outcome" and payload.get("status") == "done" and isinstance(payload.get("result"), str):
        return _flat(f"I did it: {payload['result']}")
    if record.kind == "event":
        media = payload.get("media") or {}
        scene = media.get("scene") or {}
        if media.get("quiet") or "lesson" in media or scene.get("kind") == "look" or not payload.get("text"):
            return None
        return _flat(str(payload["text"]))
    return None


def heading(record: Record) -> str:
    """Day and hour of a record in its own zone: ``Monday 16:00``. It stands before the first line of each hour."""
    return f"{record.start.astimezone(ZoneInfo(record.zone)):%A %H}:00"


def _flat(text: str) -> str:
    return " ".join(text.split())[:_MOST]
