"""The demo: a robot lives a week in a home, is asked, and is compared; what comes out is a report.

It runs three lives of the same home: the robot's own, one in which its planner is replaced by somebody who proposes at
random, and one of a scripted expert that knows the true state. Then rivals answer the same questions.
"""

from __future__ import annotations

import contextlib
import json
import pickle
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from perdure.agent import Parts, RemoteBody, default_parts
from perdure.agent.inspector import export_page
from perdure.memory import Memory
from perdure.memory.working.stream import Policy
from perdure.runtime.decoder import Decoder
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from . import life
from .errands import Errand
from .examined import START, Judged
from .expert import Expert
from .figures import DayCost, Figures, causal_graph, day_row
from .report import benchmark, compared, text, write
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
    reader: Any
    """The planner, to read the whole log for comparison; None if there is none."""


def run(folder: Path, *, seed: int, days: int, planner: str | None, console: Console, command: str) -> dict[str, Any]:
    """Live, ask, compare and report; returns what ``--json`` writes.

    Args:
        folder: where the robot's directory and the report go; earlier ones of this seed are replaced.
        seed, days: of the home.
        planner: see `default_parts`; None: errands are not understood.
        console: for progress and the report.
        command: how it was called, for the JSON.
    """
    began = time.monotonic()
    lives = live_all(folder, seed=seed, days=days, planner=planner, console=console)
    figures = figures_of(lives, console)
    console.print(text(figures), markup=False)
    page = folder / f"memory-{seed}.html"
    with Memory.open(lives.folder, read_only=True) as memory:
        export_page(memory, page)
    files = [*write(figures, folder / f"report-{seed}", command), page]
    console.print("\n".join(f"wrote {path}" for path in files))
    console.print(f'ask it yourself: perdure ask {lives.folder} "Where are the keys?"')
    console.print(f"{time.monotonic() - began:.0f} s in all")
    found: dict[str, Any] = json.loads((folder / f"report-{seed}" / "report.json").read_text("utf-8"))
    return found


def figures_of(lives: Lives, console: Console) -> Figures:
    """Put the questions to the rivals as well, and gather all figures."""
    lived = lives.lived
    with _bar(console) as bar:
        tasks: dict[str, TaskID] = {}

        def progress(what: str, done: int, number: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(f"the same questions: {what}", total=number)
            bar.update(tasks[what], completed=done)

        grades = compared(
            lived.asked, lives.folder, lived.truth, lived.plan, START, reader=lives.reader, on_progress=progress
        )
    errands_of = {"expert": lives.expert}
    if lives.at_random is not None:
        errands_of["random proposer"] = lives.at_random.errands
    return Figures(
        seed=lived.seed,
        days=[DayCost([1e3 * s for s in day.step_s], day.decisions, day.rss_mb, day.disk_mb) for day in lived.days],
        grades=grades,
        errands=lived.judged.errands,
        errands_of=errands_of,
        violations=len(lived.judged.violations),
        percepts=lived.judged.percepts,
        graph=causal_graph(lived.edges, lived.judged.causes),
        remembered=lived.remembered,
    )


def bench_life(folder: Path, *, seed: int, days: int, console: Console, command: str) -> dict[str, Any]:
    """A long life, thinly: no planner, no questions, no rivals; rows of what each day cost."""
    home = folder / f"long-{seed}.perdure"
    shutil.rmtree(home, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    with _bar(console) as bar, TemporaryDirectory(prefix="perdure-home-") as sockets:
        lived = _own_life(home, Path(sockets) / "home", Parts(), seed, days, bar, questions=False)
    costs = [DayCost([1e3 * s for s in day.step_s], day.decisions, day.rss_mb, day.disk_mb) for day in lived.days]
    figures = Figures(seed, costs, {}, lived.judged.errands)
    entries = [day_row(day) for day in figures.days]
    rows = []
    for metric, unit in (("step_ms_p50", "ms"), ("step_ms_p95", "ms"), ("rss_mb", "MB"), ("disk_mb", "MB")):
        early, late = entries[1][metric], entries[days - 1][metric]
        rows.append(
            {
                "bench": "life",
                "case": f"home {seed}, day {days}",
                "metric": metric,
                "value": late,
                "unit": unit,
                "spread": None,
                "peer": "day 2 of the same life",
                "peer_value": early,
                "ratio": round(early / late, 3) if late else None,
            }
        )
    return {**benchmark(command), "rows": rows, "days": entries}


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
    home = folder / f"home-{seed}.perdure"
    other = folder / f"random-{seed}.perdure"
    for old in (home, other):
        shutil.rmtree(old, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    console.print("loading the models ...")
    parts = Parts() if planner is None else default_parts(planner=planner, image_encoder=None, text_encoder=None)
    if isinstance(getattr(parts.planner, "engine", None), Decoder):  # not one that runs elsewhere
        parts = replace(parts, working=Policy())
    with _bar(console) as bar, TemporaryDirectory(prefix="perdure-home-") as sockets:
        beside = _beside(other, Path(sockets) / "random", seed, days) if at_random else None
        lived = _own_life(home, Path(sockets) / "home", parts, seed, days, bar)
        expert = _expert_life(seed, days, bar)
        judged = None if beside is None else _wait(beside, other, bar)
    return Lives(lived, judged, expert, home, parts.planner)


def _own_life(
    home: Path, address: Path, parts: Parts, seed: int, days: int, bar: Progress, *, questions: bool = True
) -> life.Lived:
    task = bar.add_task(f"{days} days in home {seed}", total=days * DAY)

    def tick(minutes: int, robot: Any) -> None:
        if minutes % 20 == 0:
            bar.update(task, completed=minutes)

    with life.world(seed, days, address, idle_s=None), RemoteBody(address) as body:
        lived = life.live(body, home, parts, seed=seed, days=days, questions=questions, on_minute=tick)
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
    command = life.command("agent", seed, days, address, str(folder), "random")
    return _Beside(stack, subprocess.Popen(command, stdout=subprocess.DEVNULL))


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
