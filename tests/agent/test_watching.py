"""Watching real files: made here with OpenCV, a new scene every two seconds."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from perdure import Agent
from perdure.errors import BadInput
from perdure.records import Event

FPS, SCENES, FRAMES = 10, 4, 25


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("video") / "scenes.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), FPS, (160, 90))
    dice = np.random.default_rng(1)
    for _ in range(SCENES):
        scene = cv2.resize(dice.integers(0, 255, (6, 8, 3), np.uint8), (160, 90), interpolation=cv2.INTER_NEAREST)
        for _ in range(FRAMES):
            writer.write(scene)
    writer.release()
    return str(path)


def _frames(agent: Agent) -> list[tuple[int, int]]:
    media = [r.payload["media"] for r in agent.memory.journal.read(kinds=["event"])]
    return [(m["first_frame"], m["last_frame"]) for m in media]


def test_every_frame_belongs_to_one_event(tmp_path: Path, video: str) -> None:
    with Agent.open(tmp_path / "a.perdure") as agent:
        report = agent.watch(video)
        spans = _frames(agent)
    assert report.complete
    assert report.events == len(spans) >= SCENES
    assert [first for first, _ in spans] == [0, *(last + 1 for _, last in spans[:-1])]
    assert spans[-1][1] == SCENES * FRAMES - 1


def test_a_watch_that_was_cut_off_goes_on_where_it_stopped(tmp_path: Path, video: str) -> None:
    with Agent.open(tmp_path / "whole.perdure") as agent:
        agent.watch(video)
        whole = _frames(agent)

    class Killed(Exception):
        pass

    def kill(event: Event, last_frame: int) -> None:
        raise Killed

    with Agent.open(tmp_path / "cut.perdure") as agent:
        for _ in range(2):
            with pytest.raises(Killed):
                agent.watch(video, on_event=kill)
        report = agent.watch(video)
        assert report.resumed_from == whole[1][1] + 1
        assert _frames(agent) == whole
        starts = [r.start for r in agent.memory.journal.read(kinds=["event"])]
        assert starts == sorted(starts)


def test_a_file_that_has_been_watched_is_watched_again_only_on_request(tmp_path: Path, video: str) -> None:
    with Agent.open(tmp_path / "a.perdure") as agent:
        first = agent.watch(video)
        again = agent.watch(video)
        assert again.stats is None
        assert again.events == 0
        assert agent.watch(video, again=True).events == first.events


def test_no_such_video_leaves_what_was_known(tmp_path: Path) -> None:
    with Agent.open(tmp_path / "a.perdure") as agent:
        agent.tell("The key is on the hook.")
        with pytest.raises(BadInput, match=r"nothing\.mp4"):
            agent.watch(str(tmp_path / "nothing.mp4"))
        assert agent.ask("Where is the key?").value == "on the hook"
