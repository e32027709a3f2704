"""Eyes: what makes events of the observations of a life. One kind for video, one for worlds of cells.

They know perception and, for worlds of cells, what the world model expects; they store nothing.
"""

from __future__ import annotations

from typing import Protocol

from ..perception import EventSegmenter, ImageEncoder
from ..records import Event, Observation


class Eyes(Protocol):
    """Looks at every observation of one stretch of life."""

    def look(self, observation: Observation, acted: str | None) -> list[Event]:
        """What has happened, as far as it is complete.

        Args:
            observation: in order of time.
            acted: what the body did just before it, in words; None for nothing.
        """

    def flush(self) -> list[Event]:
        """The rest, because the stretch of life has ended."""


class VideoEyes:
    """Events of a stream of pictures, by novelty and motion."""

    def __init__(self, encoder: ImageEncoder | None) -> None:
        self._segmenter = EventSegmenter(encoder)

    def look(self, observation: Observation, acted: str | None) -> list[Event]:
        return [] if observation.frame is None else list(self._segmenter.feed(observation))

    def flush(self) -> list[Event]:
        return list(self._segmenter.flush())
