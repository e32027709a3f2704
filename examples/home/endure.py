"""A week in which the robot is killed again and again, in mid-life; the world does not wait for it.

    python -P -m perdure.examples.home.endure --seed 1 --days 7 --kills 20

Each time the robot gets ``SIGKILL`` at a random instant, the home goes on without it, and it is started again.
At the end: is everything there that had been acknowledged, does the journal still give the facts that are stored, and
was anything done twice that cannot be undone?
"""

from __future__ import annotations

import argparse
import json
import pickle
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

from perdure.memory import Memory
from perdure.memory.replay import replay
from perdure.world_model import checking

from . import life

_MINUTES_A_DAY = 1440
_IDLE_S = 0.1
"""Real seconds of a world minute without the robot: a restart costs it about an hour ..."""
_OUTAGE_MINUTES = 100
"""... at most, on a busy machine, with the time to kill it."""


@dataclass(frozen=True, slots=True)
class Endured:
    """What a life with kills has shown."""

    seed: int
    days: int
    kills: int
    records: int
    lost: int
    """Acknowledged records that are gone."""
    outage_minutes: int
    """World minutes without the robot."""
    problems: int
    """Found by `Memory.check`."""
    facts_differ: int
    """Projections that the journal does not give, the world model included."""
    irreversible: int
    """Irreversible acts that were done ..."""
    repeated: int
    """... and of these, more than one for the same request, or more than the world knows requests."""
    violations: int
    """Things thrown away without the owner's word, by the world's own log."""
    open_s: float
    """Longest time from the start of the process to its first minute of life."""

    @property
    def clean(self) -> bool:
        """Nothing lost, nothing different, nothing repeated."""
        return not (self.lost or self.problems or self.facts_differ or self.repeated or self.violations)


def endure(folder: Path, *, seed: int, days: int, kills: int, planner: bool = True) -> Endured:
    """Live a life that is cut off ``kills`` times; see the top of the module."""
    shutil.rmtree(folder, ignore_errors=True)
    rng = random.Random(seed)
    lost = outage = 0
    slowest = 0.0
    with TemporaryDirectory(prefix="perdure-home-") as place:
        address = Path(place) / "world"
        with life.world(seed, days, address, idle_s=_IDLE_S):
            lived = 0
            for left in range(kills, -1, -1):
                gone = lived + _OUTAGE_MINUTES * (kills - left)
                stretch = max(20, (days * _MINUTES_A_DAY - gone) // (left + 1))
                until = max(10, rng.randrange(stretch // 2, stretch + stretch // 2)) if left else None
                minutes, acknowledged, opened, ended = _one_life(folder, address, seed, days, until, planner, rng)
                slowest = max(slowest, opened)
                found = _records(folder)
                lost += max(0, acknowledged - found)
                lived += minutes
                if ended:
                    break
            judged = pickle.loads(Path(f"{folder}.lived").read_bytes()).judged
    with Memory.open(folder, upkeep=True) as memory:
        memory.catch_up()
        outage = round(sum(_minutes(gap.interval.start, gap.interval.end) for gap in memory.outages()))
        problems = len(memory.check())
        differ = sum(not row.equal for row in [*replay(folder).rows, checking.compare(memory)])
        done, repeated = _irreversible(memory)
        records = memory.journal.last_seq()
    return Endured(
        seed, days, kills - left, records, lost, outage, problems, differ, done, repeated, len(judged.violations),
        round(slowest, 2),
    )  # fmt: skip


def _one_life(
    folder: Path, address: Path, seed: int, days: int, until: int | None, planner: bool, rng: random.Random
) -> tuple[int, int, float, bool]:
    """One stretch: minutes lived, newest acknowledged record, seconds until the first minute, whether it ended."""
    command = life.command("agent", seed, days, address, str(folder), *(["planner"] if planner else []))
    began, opened = time.monotonic(), 0.0
    minutes = acknowledged = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in _lines(process.stdout):
            minutes, acknowledged = (int(word) for word in line.split())
            opened = opened or time.monotonic() - began
            if until is not None and minutes >= until:
                time.sleep(rng.random() * 0.2)
                process.send_signal(signal.SIGKILL)
                break
        rest = list(_lines(process.stdout))
        if rest:
            minutes, acknowledged = (int(word) for word in rest[-1].split())
        process.wait()
    if process.returncode not in (0, -signal.SIGKILL):
        raise RuntimeError(f"the robot's process ended by itself with code {process.returncode}")
    return minutes, acknowledged, opened, process.returncode == 0


def _lines(stream: IO[str] | None) -> list[str] | IO[str]:
    return [] if stream is None else stream


def _records(folder: Path) -> int:
    with Memory.open(folder, read_only=True) as memory:
        return memory.journal.last_seq()


def _irreversible(memory: Memory) -> tuple[int, int]:
    """Irreversible acts done, and those done more than once for one request."""
    causes: Counter[int] = Counter()
    ended = {r.payload["intent"]: r.payload["status"] for r in memory.journal.read(kinds=["outcome"])}
    for record in memory.journal.read(kinds=["intent"]):
        if record.payload["effect"] == "irreversible" and ended.get(record.payload["intent"]) == "done":
            causes[record.payload["cause"]] += 1
    return sum(causes.values()), sum(number - 1 for number in causes.values())


def _minutes(start: object, end: object) -> float:
    return (end - start).total_seconds() / 60 if start is not None and end is not None else 0.0  # type: ignore[operator]


def main() -> None:
    """The command; prints what was found as JSON and ends with 1 if anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--days", type=int, default=7)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--no-planner", action="store_true", help="errands are not understood, and nothing is done")
    parser.add_argument("--folder", type=Path, default=Path("demo-output/endured.perdure"))
    arguments = parser.parse_args()
    arguments.folder.parent.mkdir(parents=True, exist_ok=True)
    found = endure(
        arguments.folder, seed=arguments.seed, days=arguments.days, kills=arguments.kills,
        planner=not arguments.no_planner,
    )  # fmt: skip
    sys.stdout.write(json.dumps(asdict(found), indent=1) + "\n")
    sys.exit(not found.clean)


if __name__ == "__main__":
    main()
