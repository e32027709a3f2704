"""The world's side of an examined life: a home that also draws questions and judges what the robot read.

It runs in the process of the world. What it knows is for whoever runs the experiment, never for the robot.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from perdure.agent import StepClock, serve
from perdure.records import Scene

from .errands import Errand, Standing
from .house import FIRST_MINUTE
from .mechanisms import CauseEdge
from .percepts import PerceptError
from .plan import Plan
from .questions import Examination, Question
from .truth import Truth
from .world import HomeEnv

START = datetime(2027, 3, 1, tzinfo=UTC)
"""World time of minute 0, a Monday."""
STEP_CLOCK = StepClock(60.0, START + timedelta(minutes=FIRST_MINUTE))


@dataclass(frozen=True, slots=True)
class Judged:
    """What truly happened, as far as a report needs it."""

    errands: list[Errand]
    violations: list[tuple[int, str]]
    standing: list[Standing]
    causes: list[CauseEdge]
    percepts: dict[str, dict[str, float]]


class ExaminedHome(HomeEnv):
    """A home with an examination and a judge of percepts."""

    def __init__(self, seed: int, days: int) -> None:
        super().__init__(seed=seed, days=days)
        self._examination = Examination(self, START, seed)
        self._percepts = PerceptError()

    def due(self, minute: int) -> Sequence[Question]:
        """Questions to be asked in a minute of the life."""
        return self._examination.due(minute)

    def final(self) -> Sequence[Question]:
        """Questions to be asked at its end."""
        return self._examination.final()

    def read(self, scene: Scene) -> None:
        """Judge the scene that the robot made of the present picture."""
        self._percepts.look(self, scene)

    def judged(self) -> Judged:
        """The sum of the life so far."""
        return Judged(self.errands, self.violations, self.standing, self.true_causes, self._percepts.result())

    def history(self) -> tuple[Truth, Plan]:
        """The truth log and the plan."""
        return self.truth, self.plan


def run_world(seed: int, days: int, address: Path, idle_s: float | None) -> None:
    """Serve one home until it has been closed; see `serve`."""

    def make() -> Any:
        return ExaminedHome(seed, days)

    serve(make, address, clock=STEP_CLOCK, idle_s=idle_s)
