"""Eyes: what makes events of the observations of a life. One kind for video, one for worlds of cells.

They know perception and, for worlds of cells, what the world model expects; they store nothing.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable
from typing import Protocol

from .. import __version__
from ..errors import BadInput
from ..memory import Memory
from ..memory.directory import write_atomically
from ..perception import EventSegmenter, ImageEncoder
from ..perception.lessons import Lesson
from ..perception.scenes import SceneReader, SceneSettings
from ..records import Event, Image, KeyFrame, Observation, Pose, Record, Scene
from ..world_model.geography import ahead
from ..world_model.sight import SceneWatcher

log = logging.getLogger("perdure")


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


class SceneEyes:
    """Reads scenes in a world of cells by what it was shown, and tells what is not as the world model believes.

    Every lesson is an event whose key frame is kept exact, so that `taught_reader` teaches a woken agent the same.

    Args:
        reader: what was learned so far.
        watcher: compares scenes with beliefs.
    """

    def __init__(self, reader: SceneReader, watcher: SceneWatcher) -> None:
        self._reader = reader
        self._watcher = watcher
        self.scene: Scene | None = None
        """What was made of the last frame."""

    def look(self, observation: Observation, acted: str | None) -> list[Event]:
        """See `Eyes.look`.

        Raises:
            BadInput: the body does not say where it stands.
        """
        frame = observation.frame
        if frame is None:
            return []
        pose, events = pose_of(observation), []
        lesson = None
        if observation.text:
            lesson = self._reader.teach(frame, pose, observation.text, observation.time)
        if lesson is not None:
            events.append(_shown(lesson, frame, observation))
        self.scene = self._reader.read(frame, pose, observation.time)
        holding = (observation.state or {}).get("holding")
        events += self._watcher.feed(self.scene, acted, frame=frame, holding=holding, lesson=lesson is not None)
        return events

    def flush(self) -> list[Event]:
        return list(self._watcher.flush())


def taught_reader(memory: Memory, settings: SceneSettings | None = None) -> SceneReader:
    """A reader that was taught everything that was ever shown.

    Lessons are in the journal; what they taught lies in ``DIR/world/looks.json`` as well, with the number of the newest
    lesson and a checksum. One that does not fit is made anew from the lessons.
    """
    newest = memory.journal.newest("lesson")
    if newest is None:
        return SceneReader(settings)
    path = memory.root / "world" / "looks.json"
    head = {"version": __version__, "lesson": newest.seq}
    if path.exists():
        try:
            kept_head, _, body = path.read_bytes().partition(b"\n")
            if json.loads(kept_head) == {**head, "sha256": hashlib.sha256(body).hexdigest()}:
                return SceneReader.from_state(json.loads(body), settings)
        except (ValueError, BadInput) as error:
            log.warning("%s is refused (%s); what it knew is taught again", path, error)
    reader = SceneReader(settings)
    for record in memory.journal.read(kinds=["lesson"]):
        shown = memory.journal.get([record.seq - record.payload["event"]])[record.seq - record.payload["event"]]
        frame = memory.frame(shown.blobs[shown.payload["key_frames"][0]["frame"]])
        reader.teach(frame, Pose(*record.payload["pose"]), record.payload["sentence"], record.start)
    if not memory.read_only:
        path.parent.mkdir(exist_ok=True)
        body = json.dumps(reader.to_state()).encode()
        head["sha256"] = hashlib.sha256(body).hexdigest()
        write_atomically(path, json.dumps(head).encode() + b"\n" + body)
    return reader


def is_lesson(event: Record) -> bool:
    """Whether something was shown in an event: its picture must not fade."""
    return "lesson" in event.payload["media"]


def pose_of(observation: Observation) -> Pose:
    """Where the body stands, by its own sense of it.

    Raises:
        BadInput: it does not say so.
    """
    state = observation.state or {}
    try:
        return Pose(int(state["x"]), int(state["y"]), int(state["heading"]))
    except KeyError as error:
        raise BadInput(
            f"expected a body that says where it stands ('x', 'y', 'heading' in info), got {_listed(state)}"
        ) from error


def _shown(lesson: Lesson, frame: Image, observation: Observation) -> Event:
    names = [naming.name + (f" ({naming.state})" if naming.state else "") for naming in lesson.taught]
    x, y = ahead(*_pose(lesson))
    taught = [
        {"name": naming.name, "role": naming.kind, "state": naming.state, "cell": [x, y], "pose": _pose(lesson)}
        for naming in lesson.taught
    ]
    return Event(
        observation.time,
        observation.time,
        observation.source,
        text=f"I was shown {_listed(names)}",
        key_frames=(KeyFrame(observation.time, frame, 1.0, observation.index, exact=True),),
        media={"lesson": {"sentence": lesson.sentence, "pose": _pose(lesson), "lessons": taught}},
    )


def _pose(lesson: Lesson) -> list[int]:
    return [lesson.pose.x, lesson.pose.y, lesson.pose.heading]


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "nothing"
