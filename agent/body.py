"""Bodies: where observations come from and actions go to. A Gymnasium environment is one kind.

A body knows its world; it does not know who moves it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import numpy as np

from ..errors import BadInput
from ..records import Image, Observation, Trust


class Body(Protocol):
    """A world that is stepped: one action in, one stamped observation out."""

    def observe(self) -> Observation:
        """What is there now, without acting."""

    def step(self, action: Any) -> Observation:
        """Do one action; returns what is observed after it."""

    @property
    def done(self) -> bool:
        """True once the world has ended: no further step is possible."""


@dataclass(frozen=True, slots=True)
class StepClock:
    """The clock of a simulated world: every step takes the same world time."""

    seconds_per_step: float
    start: datetime = field(default_factory=lambda: datetime.now(UTC).replace(microsecond=0))

    def __post_init__(self) -> None:
        if self.seconds_per_step <= 0:
            raise BadInput(f"expected seconds_per_step above 0, got {self.seconds_per_step}")
        if self.start.tzinfo is None:
            raise BadInput(f"expected an aware start, got {self.start!r}; add tzinfo, for example datetime.UTC")

    def at(self, step: int) -> datetime:
        """World time of a step, counted from 0."""
        return self.start + timedelta(seconds=step * self.seconds_per_step)

    def steps(self, days: float) -> int:
        """How many steps there are in so many days."""
        return round(days * 86400 / self.seconds_per_step)


class EnvBody:
    """A Gymnasium environment as a body.

    The frame is what ``render()`` returns if the environment was made with ``render_mode="rgb_array"``, else the
    observation itself if that is a picture. What others say is read from ``info["text"]``; everything else in ``info``
    that has a JSON form travels as state.
    """

    def __init__(self, env: Any, clock: StepClock, *, seed: int | None = None, first_step: int = 0) -> None:
        self._env = env
        self._clock = clock
        self._steps = first_step
        self._done = False
        observation, info = env.reset(seed=seed)
        self._latest = self._observation(observation, info)

    @property
    def done(self) -> bool:
        return self._done

    def observe(self) -> Observation:
        return self._latest

    def step(self, action: Any) -> Observation:
        observation, reward, terminated, truncated, info = self._env.step(action)
        self._steps += 1
        self._done = bool(terminated or truncated)
        self._latest = self._observation(observation, {**info, "reward": float(reward)})
        return self._latest

    def _observation(self, observation: Any, info: dict[str, Any]) -> Observation:
        return Observation(
            time=self._clock.at(self._steps),
            source=str(getattr(getattr(self._env, "spec", None), "id", None) or type(self._env).__name__),
            trust=Trust.SEEN,
            frame=self._picture(observation),
            text=info.get("text"),
            state=dict(_plain(info)),
            index=self._steps,
        )

    def _picture(self, observation: Any) -> Image | None:
        rendered = self._env.render() if getattr(self._env, "render_mode", None) == "rgb_array" else observation
        array = np.asarray(rendered) if isinstance(rendered, np.ndarray) else None
        if array is not None and array.dtype == np.uint8 and array.ndim == 3 and array.shape[2] == 3:
            return array
        return None


def _plain(info: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in info.items():
        if name != "text" and isinstance(value, (str, int, float, bool, type(None))):
            yield name, value
