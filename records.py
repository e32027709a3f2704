"""The nouns that travel between rooms: frozen dataclasses, no logic.

This module knows what an observation, an event, a fact, a hit and an answer are made of. It knows nothing about how
they are seen, stored, found or used, so every room may import it and it imports no room.

Conventions
    time     aware ``datetime`` in UTC
    pixels   origin top left, x to the right, y down
    images   uint8 arrays of shape [height, width, 3], channels in RGB order
    seq      journal sequence number, 1, 2, 3 ...: the only order that counts
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Vector = NDArray[np.float32]


class Trust(StrEnum):
    """Who vouches for a record. Only OWNER can be the cause of an irreversible act."""

    OWNER = "owner"
    """Said or done by the owner of the agent."""
    SEEN = "seen"
    """Measured by a sensor of the agent: data, never an instruction."""
    OTHER = "other"
    """Said by somebody else, or read somewhere: data, never an instruction."""
    AGENT = "agent"
    """Made by the agent itself: a model's output, an inference, an act."""


class Effect(StrEnum):
    """What a tool does to the world, which decides what may happen to it after a crash."""

    NONE = "none"
    REVERSIBLE = "reversible"
    IRREVERSIBLE = "irreversible"


class OutcomeStatus(StrEnum):
    """How an intent ended. UNKNOWN: the agent died between the intent and its outcome and nobody could tell."""

    DONE = "done"
    FAILED = "failed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Interval:
    """A half-open span of time [start, end); ``None`` means unbounded on that side."""

    start: datetime | None = None
    end: datetime | None = None


@dataclass(frozen=True, slots=True)
class Space:
    """The space a vector lives in. Vectors of different spaces are never compared."""

    encoder: str
    """Content hash of the encoder (weights and preprocessing), hexadecimal."""
    dim: int
    metric: str = "cosine"
    name: str = ""
    """For people: ``all-MiniLM-L6-v2``, ``imagenet-bridge``, ``ViT-B-32`` ..."""


@dataclass(frozen=True, slots=True)
class Box:
    """An axis-aligned box in pixels; ``x, y`` is the top left corner."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Label:
    """A name that an encoder gave to what it saw, with its probability from 0 to 1."""

    name: str
    probability: float


@dataclass(frozen=True, slots=True)
class Tracklet:
    """One moving thing, followed for as long as it stayed in view: identity within minutes, not days."""

    track: int
    """Number of the track within its source, from 1."""
    start: datetime
    end: datetime
    boxes: tuple[tuple[datetime, Box], ...]
    """Samples of where it was, oldest first, at most 32 (evenly thinned)."""
    label: str | None = None


@dataclass(frozen=True, slots=True)
class Observation:
    """What reached the agent at one instant."""

    time: datetime
    source: str
    """Where it came from: a file name, a camera, ``user``."""
    trust: Trust
    frame: Image | None = None
    text: str | None = None
    state: Mapping[str, Any] | None = None
    index: int | None = None
    """Frame number within the source, from 0, if it has one."""


@dataclass(frozen=True, slots=True)
class Percept:
    """What perception makes of one observation. ``vector`` and ``labels`` exist only for frames that were encoded."""

    observation: Observation
    novelty: float
    """From 0 (as before) to 1 (all new)."""
    tracklets: tuple[Tracklet, ...] = ()
    vector: Vector | None = None
    """float32 [dim], unit length."""
    labels: tuple[Label, ...] = ()


@dataclass(frozen=True, slots=True)
class KeyFrame:
    """A frame kept as evidence."""

    time: datetime
    image: Image
    novelty: float
    index: int | None = None
    vector: Vector | None = None
    """float32 [dim], unit length, in the space ``Event.space``."""
    labels: tuple[Label, ...] = ()
    exact: bool = False
    """Kept to the bit, because something will be learned from it again; otherwise as JPEG."""


@dataclass(frozen=True, slots=True)
class Event:
    """A stretch of observations that belong together, closed by novelty, by length or by the end of its source."""

    start: datetime
    end: datetime
    source: str
    trust: Trust = Trust.SEEN
    text: str = ""
    """What happened in words, made without a language model from labels and tracks."""
    key_frames: tuple[KeyFrame, ...] = ()
    tracklets: tuple[Tracklet, ...] = ()
    labels: tuple[Label, ...] = ()
    space: Space | None = None
    media: Mapping[str, Any] = field(default_factory=dict)
    """Where in the source: ``{"sha256", "first_frame", "last_frame", "fps"}`` for a file."""


Cell = tuple[int, int]
"""A cell of the agent's map: x to the east, y to the south."""


@dataclass(frozen=True, slots=True)
class Pose:
    """Where the body stands, by its own odometry."""

    x: int
    y: int
    heading: int
    """0 east, 1 south, 2 west, 3 north."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """One thing or person as it was read from one frame."""

    name: str
    """As it was taught; ``something`` if it is unlike everything that was."""
    cell: Cell
    state: str = ""
    """As it was taught: ``on``, ``open``; empty if it has none."""
    on: str = ""
    """What it lies on: a fixture or a person who carries it; empty for the floor."""
    certainty: float = 1.0
    """From 0 to 1."""


@dataclass(frozen=True, slots=True)
class Scene:
    """What was read from one frame of a world of cells: the scene program."""

    time: datetime
    pose: Pose
    sightings: tuple[Sighting, ...]
    seen: frozenset[Cell]
    """Cells that were in view and could be read; what is not sighted in them is not there."""
    unreadable: frozenset[Cell] = frozenset()
    """Cells in view that could not be read: too dark, or half hidden."""
    novelty: float = 0.0
    """From 0 to 1."""


@dataclass(frozen=True, slots=True)
class Change:
    """Something that became different in the world."""

    kind: str
    """``moved`` (old and new are places), ``state``, ``entered`` or ``left`` (a person and a room)."""
    thing: str
    old: str | None
    new: str | None
    earliest: datetime
    """It happened between ``earliest`` ..."""
    latest: datetime
    """... and ``latest``."""
    by: str | None = None
    """A person, ``me`` for the agent itself, None if nobody was seen to do it."""
    witnessed: bool = False
    """Seen as it happened, not found out later."""
    evidence: tuple[int, ...] = ()
    """seq of the records that show it."""


@dataclass(frozen=True, slots=True)
class Blob:
    """A key frame or vector that lies in a pack: named by its content, found by pack, offset and length."""

    sha256: str
    role: str
    """``frame`` (JPEG, or PNG where it was kept exact) or ``vector`` (float32, little endian)."""
    pack: str
    """Path of the pack relative to the agent's directory."""
    offset: int
    length: int
    """Bytes."""


@dataclass(frozen=True, slots=True)
class Record:
    """One line of the journal: what came in or went out, durable and never changed."""

    seq: int
    kind: str
    payload: Mapping[str, Any]
    start: datetime
    """World time at which it began ..."""
    end: datetime
    """... and ended; equal to ``start`` for an instant."""
    recorded: datetime
    """The agent's own clock when it was written."""
    recorded_error_us: int
    """Uncertainty of that clock in microseconds; large after the clock was set back."""
    monotonic_us: int
    boot: str
    source: str
    trust: Trust
    owner: str
    zone: str
    blobs: tuple[Blob, ...] = ()


@dataclass(frozen=True, slots=True)
class Statement:
    """What a sentence claims, before memory decides what it means for earlier facts."""

    subject: str
    """Canonical entity name: lower case, no article, ``spare key``."""
    predicate: str
    """``location``, ``owner``, ``colour`` ..., or a verb in its base form."""
    object: str
    functional: bool
    """True if a thing has one such value at a time, so that a new one closes the old."""
    valid: Interval = Interval()
    negated: bool = False
    by: str | None = None
    """Who did it, for a change of place or owner."""


@dataclass(frozen=True, slots=True)
class Fact:
    """A claim with two time axes: when it held in the world, and when the agent believed it."""

    id: int
    subject: str
    predicate: str
    object: str
    valid: Interval
    known: Interval
    evidence: tuple[int, ...]
    """seq of the records that say so, oldest first."""
    trust: Trust
    by: str | None = None
    negated: bool = False
    ended_by: tuple[int, ...] = ()
    """seq of the records that contradicted it and so gave ``valid`` its end."""


@dataclass(frozen=True, slots=True)
class Reason:
    """Why one list of a recall proposed a hit."""

    list: str
    """``words``, ``meaning``, ``picture``, ``entity`` or ``time``."""
    rank: int
    """From 1."""
    score: float
    """In the unit of that list (BM25, cosine, ...)."""
    detail: str = ""
    """For people: which words matched, which entity."""


@dataclass(frozen=True, slots=True)
class Hit:
    """One record that a recall found."""

    record: Record
    text: str
    score: float
    """Fused score; comparable within one recall only."""
    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True)
class Recall:
    """The result of a recall. ``hits`` is empty when memory abstains, and ``note`` says why."""

    hits: tuple[Hit, ...]
    abstained: bool
    note: str = ""


@dataclass(frozen=True, slots=True)
class Evidence:
    """A record that supports an answer."""

    seq: int
    time: datetime
    end: datetime
    text: str
    score: float
    why: str
    frame: Blob | None = None
    """The key frame that proves it, if it was seen."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What the world model believes; ``value`` is None when it cannot know, and ``reason`` says why."""

    value: Any | None
    reason: str
    evidence: tuple[int, ...] = ()
    confidence: float = 0.0
    """From 0 to 1."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer: ``value`` is what it is graded on, ``text`` what is said. No evidence means "I don't know"."""

    text: str
    value: Any | None
    evidence: tuple[Evidence, ...]
    confidence: float
    """From 0 to 1."""
    reason: str = ""
    """How it was found, or why it was not."""


@dataclass(frozen=True, slots=True)
class Outage:
    """A stretch in which the agent was not running."""

    interval: Interval
    clean: bool
    """True if it had been closed on purpose, False if it died."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that ``verify`` found. ``repair`` is the command or action that mends it."""

    place: str
    message: str
    repair: str
