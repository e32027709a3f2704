"""One step: what happened, collected in memory, then stored as one transaction. Knows how each kind is written down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import cv2
import numpy as np

from ..clock import to_us
from ..errors import BadInput
from ..records import Effect, Event, Image, KeyFrame, OutcomeStatus, Record, Statement, Tracklet, Trust, Vector
from .journal import Draft

JPEG_QUALITY = 90
_MOST_TEXT = 100_000


class Step:
    """Collects records; `memory.Memory.step` makes them durable on leaving its block."""

    def __init__(self, now: datetime) -> None:
        self.now = now
        self.drafts: list[Draft] = []
        self.records: tuple[Record, ...] = ()
        """The stored records in the order in which they were added; filled when the block has been left."""

    def event(self, event: Event) -> None:
        """Something was perceived. Its key frames are kept as JPEG (PNG if exact), their vectors as float32.

        If it was a lesson (``media["lesson"]``), a ``lesson`` record follows, so that lessons are found among many
        events.
        """
        items: list[tuple[str, bytes]] = []
        frames = [_key_frame(frame, items) for frame in event.key_frames]
        payload = {
            "text": event.text,
            "labels": [[label.name, round(label.probability, 4)] for label in event.labels],
            "tracklets": [_tracklet(tracklet) for tracklet in event.tracklets],
            "key_frames": frames,
            "media": dict(event.media),
            "space": None
            if event.space is None
            else {
                "encoder": event.space.encoder,
                "dim": event.space.dim,
                "metric": event.space.metric,
                "name": event.space.name,
            },
        }
        self.drafts.append(Draft("event", payload, event.start, event.end, event.source, event.trust, tuple(items)))
        if "lesson" in event.media:
            lesson = {"event": 1, **event.media["lesson"]}
            self.note("lesson", lesson, time=event.start, source=event.source, trust=event.trust)

    def told(
        self,
        text: str,
        *,
        time: datetime | None = None,
        source: str = "user",
        trust: Trust = Trust.OWNER,
        speaker: str = "owner",
    ) -> None:
        """Somebody said or wrote something.

        Raises:
            BadInput: the text is empty, or longer than 100,000 characters.
        """
        if not text.strip():
            raise BadInput("expected some words to remember, got none")
        if len(text) > _MOST_TEXT:
            raise BadInput(f"expected at most {_MOST_TEXT:,} characters, got {len(text):,}; tell it in parts")
        self.note("told", {"text": text, "speaker": speaker}, time=time, source=source, trust=trust)

    def inferred(self, statements: Sequence[Statement], why: str) -> None:
        """What the agent concluded by itself becomes facts of trust AGENT; a later conclusion takes its place.

        Args:
            statements: without times: they hold from now on.
            why: what they were concluded from, for people: ``habits``.
        """
        said = [[s.subject, s.predicate, s.object, s.functional] for s in statements]
        self.note("inferred", {"statements": said, "why": why})

    def intent(self, intent: str, tool: str, arguments: Mapping[str, Any], effect: Effect, cause: int | None) -> None:
        """The agent is about to act; durable before it does. ``intent`` is a unique id, ``cause`` who asked (seq)."""
        self.note(
            "intent",
            {"intent": intent, "tool": tool, "arguments": dict(arguments), "effect": effect.value, "cause": cause},
            source="agent",
            trust=Trust.AGENT,
        )

    def outcome(
        self, intent: str, status: OutcomeStatus, *, result: Any = None, error: str | None = None, how: str = "act"
    ) -> None:
        """An act has ended. ``how`` is ``act``, or ``recover`` if it was found out after a crash."""
        payload = {"intent": intent, "status": status.value, "result": result, "error": error, "how": how}
        self.note("outcome", payload, source="agent", trust=Trust.AGENT)

    def note(
        self,
        kind: str,
        payload: Mapping[str, Any],
        *,
        time: datetime | None = None,
        source: str = "agent",
        trust: Trust = Trust.AGENT,
    ) -> None:
        """Any other record: ``asked``, ``answered``, ``model_call``, ``state``, ``watched`` ..."""
        moment = time or self.now
        self.drafts.append(Draft(kind, payload, moment, moment, source, trust))


def encode_frame(image: Image, *, exact: bool = False) -> bytes:
    """JPEG bytes (PNG if ``exact``) of an RGB picture, uint8 [height, width, 3].

    Raises:
        BadInput: it is not such an array.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise BadInput(f"expected a picture as uint8 [height, width, 3], got {image.dtype} {list(image.shape)}")
    format, options = (".png", []) if exact else (".jpg", [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    ok, data = cv2.imencode(format, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
    assert ok, "OpenCV encodes every uint8 picture"
    return bytes(data)


def decode_vector(data: bytes) -> Vector:
    """The float32 vector in little-endian bytes."""
    return np.frombuffer(data, "<f4").astype(np.float32)


def _key_frame(frame: KeyFrame, items: list[tuple[str, bytes]]) -> dict[str, Any]:
    items.append(("frame", encode_frame(frame.image, exact=frame.exact)))
    described: dict[str, Any] = {
        "time_us": to_us(frame.time),
        "novelty": round(frame.novelty, 4),
        "index": frame.index,
        "labels": [[label.name, round(label.probability, 4)] for label in frame.labels],
        "frame": len(items) - 1,
        "vector": None,
    }
    if frame.vector is not None:
        items.append(("vector", np.asarray(frame.vector, "<f4").tobytes()))
        described["vector"] = len(items) - 1
    return described


def _tracklet(tracklet: Tracklet) -> dict[str, Any]:
    boxes: Sequence[Any] = [
        [to_us(time), round(box.x, 1), round(box.y, 1), round(box.width, 1), round(box.height, 1)]
        for time, box in tracklet.boxes
    ]
    return {
        "track": tracklet.track,
        "start_us": to_us(tracklet.start),
        "end_us": to_us(tracklet.end),
        "label": tracklet.label,
        "boxes": boxes,
    }
