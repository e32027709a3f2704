"""The demo: a robot lives a week in a home, is asked, and is compared; what comes out is a report.

It runs three lives of the same home: the robot's own, one in which its planner is replaced by somebody who proposes at
random, and one of a scripted expert that knows the true state. Then rivals answer the same questions.
"""

from __future__ import annotations

import contextlib
import pickle
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from perdure.agent import Parts, RemoteBody, default_parts
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from . import life
from .errands import Errand
from .examined import Judged
from .expert import Expert
from .world import DAY, HomeEnv


@dataclass(frozen=True, slots=True)
class Lives:
    """All that was lived for one report."""

    lived: life.Lived
    at_random: Judged | None
    """The life with random proposals; None if it was not lived."""
    expert: list[Errand]
    """Errands of the expert's life."""
    folder: Path
    """The robot's directory."""
    seconds: float


def live_all(
    folder: Path, *, seed: int, days: int, planner: str | None, console: Console, at_random: bool = True
) -> Lives:
    """Live the three lives of a home.

    Args:
        folder: where the robot's directories go; earlier lives there are deleted.
        seed, days: of the home.
        planner: see `default_parts`; None: errands are not understood.
        console: for progress.
        at_random: also live with random proposals.
    """
    began = time.monotonic()
    home = folder / f"home-{seed}.perdure"
    other = folder / f"random-{seed}.perdure"
    for old in (home, other):
        shutil.rmtree(old, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    console.print("loading the models ...")
    parts = Parts() if planner is None else default_parts(planner=planner, image_encoder=None, text_encoder=None)
    with _bar(console) as bar, TemporaryDirectory(prefix="perdure-home-") as sockets:
        beside = _beside(other, Path(sockets) / "random", seed, days) if at_random else None
        lived = _own_life(home, Path(sockets) / "home", parts, seed, days, bar)
        expert = _expert_life(seed, days, bar)
        judged = None if beside is None else _wait(beside, other, bar)
    return Lives(lived, judged, expert, home, time.monotonic() - began)


def _own_life(home: Path, address: Path, parts: Parts, seed: int, days: int, bar: Progress) -> life.Lived:
    task = bar.add_task(f"{days} days in home {seed}", total=days * DAY)

    def tick(minutes: int, robot: Any) -> None:
        if minutes % 20 == 0:
            bar.update(task, completed=minutes)

    with life.world(seed, days, address, idle_s=None), RemoteBody(address) as body:
        lived = life.live(body, home, parts, seed=seed, days=days, on_minute=tick)
    bar.update(task, completed=days * DAY)
    return lived


def _expert_life(seed: int, days: int, bar: Progress) -> list[Errand]:
    task = bar.add_task("the same days of a scripted expert", total=days * DAY)
    env = HomeEnv(seed=seed, days=days, render_mode=None)
    env.reset()
    expert = Expert(env)
    for minute in range(days * DAY):
        env.step(expert.act())
        if minute % 500 == 0:
            bar.update(task, completed=minute)
    bar.update(task, completed=days * DAY)
    return env.errands


@dataclass(slots=True)
class _Beside:
    world: contextlib.ExitStack
    agent: subprocess.Popen[bytes]


def _beside(folder: Path, address: Path, seed: int, days: int) -> _Beside:
    """A life with random proposals, in processes beside the robot's own."""
    stack = contextlib.ExitStack()
    stack.enter_context(life.world(seed, days, address, idle_s=None))
    command = [sys.executable, "-P", "-m", life.__name__, "agent", str(seed), str(days), str(address), str(folder)]
    return _Beside(stack, subprocess.Popen([*command, "random"], stdout=subprocess.DEVNULL))


def _wait(beside: _Beside, folder: Path, bar: Progress) -> Judged:
    task = bar.add_task("the same days with random proposals", total=1)
    with beside.world:
        code = beside.agent.wait()
    if code != 0:
        raise RuntimeError(f"the life with random proposals ended with code {code}")
    bar.update(task, completed=1)
    lived: life.Lived = pickle.loads(Path(f"{folder}.lived").read_bytes())
    return lived.judged


@contextlib.contextmanager
def _bar(console: Console) -> Iterator[Progress]:
    share = TextColumn("{task.percentage:>3.0f}%")
    with Progress(TextColumn("{task.description}"), BarColumn(), share, TimeElapsedColumn(), console=console) as bar:
        yield bar
