"""Key frames as small JPEG data URIs, within a budget of bytes. It knows pictures, not why they are shown."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import cv2
import numpy as np

from ...errors import DamagedError, FadedError
from ...memory import Memory
from ...records import Image, Record

_WIDTHS = (640, 480, 360, 240, 160, 112)
_SMALL = 240
_QUALITY = 72
_LEAST = 4096
"""Bytes below which a picture shows too little: rather fewer pictures than smaller ones."""
_MOST_EXTRA = 3


class Picture(NamedTuple):
    """A frame ready for the page."""

    uri: str
    """"" if the stored frame is damaged or has faded."""
    width: int
    """Of the stored frame, in pixels ..."""
    height: int
    """... in which boxes are given."""
    frame: int
    """Place in ``payload["key_frames"]``."""


def embed_frames(memory: Memory, events: Sequence[Record], budget: int) -> Mapping[int, list[Picture]]:
    """Pictures by seq: of each event the most novel frame, and up to three more if there is room.

    Args:
        memory: whose packs hold them.
        events: records of kind ``event``; evenly thinned if the budget cannot give each a picture worth seeing.
        budget: most characters of all data URIs together.
    """
    shown = [event for event in events if event.payload["key_frames"]]
    most = budget // _LEAST
    if len(shown) > most:
        shown = [shown[i * len(shown) // most] for i in range(most)]
    found: dict[int, list[Picture]] = {}
    left = budget
    for number, event in enumerate(shown):
        picture = _embed(memory, event, _by_novelty(event)[0], _WIDTHS, left // (len(shown) - number))
        if picture is not None:
            found[event.seq] = [picture]
            left -= len(picture.uri)
    for event in shown:
        for frame in _by_novelty(event)[1 : 1 + _MOST_EXTRA]:
            picture = _embed(memory, event, frame, (_SMALL,), left)
            if picture is not None and picture.uri:
                found.setdefault(event.seq, []).append(picture)
                left -= len(picture.uri)
    return found


def _by_novelty(event: Record) -> list[int]:
    frames = event.payload["key_frames"]
    return sorted(range(len(frames)), key=lambda place: (-frames[place]["novelty"], place))


def _embed(memory: Memory, event: Record, frame: int, widths: Sequence[int], most: int) -> Picture | None:
    """The widest picture of at most ``most`` characters; None if even the narrowest is larger."""
    try:
        image = memory.frame(event.blobs[event.payload["key_frames"][frame]["frame"]])
    except (DamagedError, FadedError):  # the page shows a gap where the picture should be; `perdure verify` explains it
        return Picture("", 0, 0, frame)
    height, width = image.shape[:2]
    for wanted in widths:
        uri = _data_uri(image, min(wanted, width))
        if len(uri) <= most:
            return Picture(uri, width, height, frame)
    return None


def _data_uri(image: Image, width: int) -> str:
    height = max(1, round(image.shape[0] * width / image.shape[1]))
    small = image if width == image.shape[1] else cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    ok, data = cv2.imencode(
        ".jpg", cv2.cvtColor(np.asarray(small), cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
    )
    assert ok, "OpenCV encodes every uint8 picture"
    return "data:image/jpeg;base64," + base64.b64encode(bytes(data)).decode()
