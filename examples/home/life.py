"""One life in the home: the world in a process of its own, the robot in another, questions on the way and at the end.

    python -P -m perdure.examples.home world SEED DAYS SOCKET PACE
    python -P -m perdure.examples.home agent SEED DAYS SOCKET DIR [planner] [random] [questions]

A life can be cut off by ``kill -9`` at any instant: the world goes on, and `live` goes on in it where it can.
"""

from __future__ import annotations

import contextlib
import pickle
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from perdure.agent import LifeReport, Parts, RemoteBody, default_parts
from perdure.clock import WorldClock
from perdure.records import Answer, Observation
from perdure.world_model.causes import Edge

from .examined import Judged, run_world
from .notes import Remembered, notes
from .plan import Plan
from .proposers import RandomProposer
from .questions import Question
from .robot import HomeRobot
from .truth import Truth

IDLE_S = 0.02
"""Real seconds of a world minute in which nobody moves the robot."""
_READ_EVERY = 11
"""Minutes between two pictures whose reading is judged."""
_THINK_STEPS = 2
_FIRST_HOUR = 60


@dataclass(slots=True)
class Day:
    """What a day cost."""

    step_s: list[float] = field(default_factory=list)
    decisions: int = 0
    rss_mb: float = 0.0
    disk_mb: float = 0.0


@dataclass(slots=True)
class Lived:
    """A life that has been lived."""

    seed: int
    days: list[Day]
    asked: list[tuple[Question, Answer]]
    judged: Judged
    truth: Truth
    plan: Plan
    edges: tuple[Edge, ...]
    """What brings about what, as the robot learned it."""
    seconds: float
    remembered: Remembered | None = None
    """What it knew at the end with recall switched off; None without a working memory."""


def command(role: str, seed: int, days: int, address: Path, *rest: str) -> list[str]:
    """How a process of a life is started; see the top of the module."""
    return [sys.executable, "-P", "-m", __package__ or "", role, str(seed), str(days), str(address), *rest]


@contextlib.contextmanager
def world(seed: int, days: int, address: Path, *, idle_s: float | None = IDLE_S) -> Iterator[subprocess.Popen[bytes]]:
    """A world in a process of its own; killed on leaving."""
    pace = "none" if idle_s is None else str(idle_s)
    process = subprocess.Popen(command("world", seed, days, address, pace))
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def live(
    body: RemoteBody,
    folder: Path,
    parts: Parts,
    *,
    seed: int,
    days: int,
    random_proposer: bool = False,
    questions: bool = True,
    on_minute: Callable[[int, HomeRobot], None] | None = None,
) -> Lived:
    """Live in a served home until it ends.

    Args:
        body: the robot's, in the world.
        folder: the robot's directory; it wakes there if it has lived before.
        parts: its models.
        seed, days: of the world, for the report.
        random_proposer: replace the planner's proposals by random ones.
        questions: ask what the examination asks.
        on_minute: called after every minute with the number of minutes lived here, and the robot.
    """
    began = time.monotonic()
    clock = WorldClock(body.observe().time)
    spent = [Day() for _ in range(days + 1)]
    asked: list[tuple[Question, Answer]] = []
    with HomeRobot.open(folder, parts=parts, clock=clock) as robot:
        if random_proposer:
            robot.use_proposer(lambda: RandomProposer(seed))
        watched = _Watched(body, robot)
        told = notes(seed, days) if questions and parts.working is not None and parts.planner is not None else []
        decisions = 0

        def after(report: LifeReport) -> None:
            nonlocal decisions
            minute = watched.minute - 1
            day = spent[minute // 1440]
            day.step_s.append(report.step_s[-1])
            day.decisions += report.decisions - decisions
            decisions = report.decisions
            for note in told:
                if note.minute == minute:
                    robot.tell(note.text)
            if questions:
                asked.extend((q, robot.ask(q.text, plain=True)) for q in body.call("due", minute))
            if minute % 1440 == 1439:
                day.rss_mb, day.disk_mb = _resident_mb(), _disk_mb(folder)
            if on_minute is not None:
                on_minute(report.steps, robot)

        robot.live(watched, days=days + 1, think_steps=_THINK_STEPS, on_step=after)
        if questions:
            asked.extend((q, robot.ask(q.text, plain=True)) for q in body.call("final"))
        last = spent[watched.minute // 1440]
        last.rss_mb, last.disk_mb = _resident_mb(), _disk_mb(folder)
        truth, plan = body.call("history")
        judged = body.call("judged")
        edges = robot.learn_causes()
        remembered = None
        if told and robot.working is not None:
            from .remembering import examined  # needs torch; the world, which imports this module too, does not

            remembered = examined(robot.working, told)
    spent_days = [d for d in spent if d.step_s]
    seconds = time.monotonic() - began
    return Lived(seed, spent_days, asked, judged, truth, plan, edges, seconds, remembered)


class _Watched:
    """The robot's body, with somebody who judges now and then how the picture was read."""

    def __init__(self, body: RemoteBody, robot: HomeRobot) -> None:
        self._body, self._robot = body, robot

    @property
    def done(self) -> bool:
        return self._body.done

    @property
    def minute(self) -> int:
        """Minutes since midnight of day 0."""
        return int((self._body.observe().state or {})["minute"])

    def observe(self) -> Observation:
        return self._body.observe()

    def step(self, action: int) -> Observation:
        if self._robot.scene is not None and self.minute % _READ_EVERY == 0 and self.minute > 480:
            self._body.call("read", self._robot.scene)
        return self._body.step(action)


def _resident_mb() -> float:
    return float(psutil.Process().memory_info().rss / 2**20)


def _disk_mb(folder: Path) -> float:
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file()) / 2**20


def _say(minutes: int, robot: HomeRobot) -> None:
    """One line in every ten minutes of the life: what is durable by now, for whoever is about to pull the plug."""
    if minutes % 10 == 0:
        sys.stdout.write(f"{minutes} {robot.memory.journal.last_seq()}\n")
        sys.stdout.flush()


def main(arguments: list[str]) -> None:
    """The two processes; see the top of the module."""
    role, seed, days, address, last, *rest = arguments
    if role == "world":
        run_world(int(seed), int(days), Path(address), None if last == "none" else float(last))
        return
    parts = default_parts(image_encoder=None, text_encoder=None) if "planner" in rest else Parts()
    with RemoteBody(Path(address)) as body:
        lived = live(
            body, Path(last), parts, seed=int(seed), days=int(days), random_proposer="random" in rest,
            questions="questions" in rest, on_minute=_say,
        )  # fmt: skip
    Path(f"{last}.lived").write_bytes(pickle.dumps(lived))
